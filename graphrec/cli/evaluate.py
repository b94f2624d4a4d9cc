"""``graphrec evaluate``: rank all items for the users of a run's dataset and measure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from graphrec.cli.arguments import Parser
from graphrec.cli.output import metrics_table, print_json
from graphrec.cli.runs import add_data_arguments, existing_run, run_data


def parser() -> Parser:
    """Every option of the command."""
    shape = Parser(
        "evaluate",
        "RUN [--split test] [--ks 10 20] [--metrics NAME …] [options]",
        "Rank all items for every user of one part of the run's dataset, and measure. The dataset is loaded as it was "
        "for the training, and refused when it has changed since.",
        lists=("--ks", "--metrics"),
    )
    shape.add_argument("run", help="a run folder")
    shape.add_argument("--split", type=str, default="test", help="the part whose interactions are to be found")
    shape.add_argument("--ks", type=tuple[int, ...], default=(10, 20), help="lengths of the lists")
    shape.add_argument(
        "--metrics", type=list[str] | None, default=None, help="which metrics, as in recall ndcg; none: all common ones"
    )
    shape.add_argument(
        "--mask",
        type=Literal["train", "train+valid"] | None,
        default=None,
        help="whose interactions are left out of the lists; none: as in the run's own test",
    )
    shape.add_argument("--device", type=str | None, default=None, help="where to score: cpu, cuda …; none: cpu")
    shape.add_argument("--json", action="store_true", help="print JSON")
    add_data_arguments(shape)
    return shape.polish()


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse(arguments)
    folder = existing_run(options.run)
    from graphrec.evaluation import evaluate
    from graphrec.runs import Run

    opened = Run.open(folder)
    start = time.perf_counter()
    mask = options.mask or opened.config.get("fit", {}).get("mask", "train")
    evaluation = evaluate(
        opened,
        run_data(opened, options),
        split=options.split,
        ks=options.ks,
        metrics=options.metrics,
        mask=mask,
        device=options.device,
    )
    found = {
        **evaluation,
        "num_users": evaluation.num_users,
        "split": options.split,
        "mask": mask,
        "seconds": round(time.perf_counter() - start, 3),
    }
    print_json(found) if options.json else print(metrics_table(found))
    return 0
