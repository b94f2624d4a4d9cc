"""``graphrec evaluate``: rank all items for the users of a run's dataset and measure."""

from __future__ import annotations

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
        type=Literal["run", "train", "train+valid", "none"],
        default="run",
        help="left out of a user's list: training items, those of valid too, nothing, or as in the run's own test",
    )
    shape.add_argument(
        "--cold",
        type=Literal["keep", "drop"],
        default="keep",
        help="truth of users and items without training interactions: keep or drop it (counted)",
    )
    shape.add_argument(
        "--candidates",
        type=Literal["all", "seen", "cold"],
        default="all",
        help="what is ranked: all items, those with training interactions, or those without",
    )
    shape.add_argument(
        "--sampled-negatives",
        type=int | None,
        default=None,
        help="rank among so many drawn items instead of all, as old papers did; not to be compared with others",
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
    from graphrec.evaluation.specs import resolve
    from graphrec.runs import Run

    resolve(options.metrics)
    opened = Run.open(folder)
    mask = options.mask if options.mask != "run" else opened.config["fit"].get("mask", "train")
    evaluation = evaluate(
        opened,
        run_data(opened, options),
        split=options.split,
        ks=options.ks,
        metrics=options.metrics,
        mask=mask,
        cold=options.cold,
        candidates=options.candidates,
        sampled_negatives=options.sampled_negatives,
        device=options.device,
    )
    found = evaluation.to_dict()
    print_json(found) if options.json else print(metrics_table(found))
    return 0
