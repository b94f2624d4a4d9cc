"""``graphrec evaluate``: a run measured again: all items ranked, or labelled pairs told apart."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from graphrec.cli.arguments import Parser
from graphrec.cli.output import metrics_table, print_json
from graphrec.cli.runs import add_data_arguments, existing_run, run_data

if TYPE_CHECKING:
    from graphrec.datasets import RecDataset


def parser() -> Parser:
    """Every option of the command."""
    shape = Parser(
        "evaluate",
        "RUN [--split test] [--ks 10 20] [--metrics NAME …] [options]",
        "Measure a run on one part of its dataset: rank all items for every user, or, for click prediction, tell "
        "labelled pairs apart. The dataset is loaded as it was for the training, and refused when it has changed "
        "since.",
        lists=("--ks", "--metrics"),
    )
    shape.add_argument("run", help="a run folder")
    shape.add_argument("--split", type=str, default="test", help="the part whose interactions are to be found")
    shape.add_argument(
        "--task",
        type=Literal["run", "rank", "ctr"],
        default="run",
        help="rank all items, tell labelled pairs apart (ctr), or what the run was trained for",
    )
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
        help="truth of users and items without training interactions: keep or drop it (counted); for ctr pairs of "
        "users without",
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
    shape.add_argument(
        "--auc-batch-size",
        type=int | None,
        default=None,
        help="ctr: pairs in a minibatch of auc_batch; none: as in the run's own test",
    )
    shape.add_argument(
        "--auc-batch-last",
        type=Literal["run", "keep", "drop"],
        default="run",
        help="ctr: keep or drop an incomplete last minibatch of auc_batch, or as in the run's own test",
    )
    shape.add_argument(
        "--scaling",
        type=Literal["run", "none", "platt"],
        default="run",
        help="ctr: probabilities as they are, scaled on the valid part (Platt), or as in the run's own test",
    )
    shape.add_argument("--bins", type=int, default=15, help="ctr: bins of the calibration")
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
    opened = Run.open(folder, allow_superseded=options.allow_superseded)
    data = run_data(opened, options)
    trained: dict[str, Any] = opened.config["fit"]
    found: dict[str, Any]
    if (trained.get("task", "rank") if options.task == "run" else options.task) == "ctr":
        split, size, last = options.split, options.auc_batch_size, options.auc_batch_last
        scaling = trained.get("scaling", "none") if options.scaling == "run" else options.scaling
        found = evaluate(
            opened,
            data,
            task="ctr",
            split=split,
            auc_batch_size=trained.get("auc_batch_size", 1024) if size is None else size,
            auc_batch_last=trained.get("auc_batch_last", "keep") if last == "run" else last,
            # What is fitted on the valid part says nothing about that part.
            scaling="none" if split == "valid" and options.scaling == "run" else scaling,
            bins=options.bins,
            cold=options.cold,
            device=options.device,
        ).to_dict()
    else:
        found = evaluate(
            opened,
            data,
            split=options.split,
            ks=options.ks if any(word.startswith("--ks") for word in arguments) else _lengths(options.ks, data),
            metrics=options.metrics,
            mask=options.mask if options.mask != "run" else trained.get("mask", "train"),
            cold=options.cold,
            candidates=options.candidates,
            sampled_negatives=options.sampled_negatives,
            device=options.device,
        ).to_dict()
    print_json(found) if options.json else print(metrics_table(found))
    return 0


def _lengths(usual: Sequence[int], data: RecDataset) -> tuple[int, ...]:
    """The usual lengths of lists without those that are longer than the catalogue; half of it where all are."""
    from graphrec.training.checks import half_the_catalogue

    kept = tuple(k for k in usual if k <= data.num_items) or (half_the_catalogue(data),)
    if len(kept) < len(usual):
        shown = " and ".join(str(k) for k in kept)
        told = f"lists of {shown} are evaluated, for there are {data.num_items} items (--ks asks for others)"
        print(f"graphrec: {data.name}: {told}", file=sys.stderr)
    return kept
