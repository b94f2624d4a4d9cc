"""``graphrec compare``: whether runs differ, tested user by user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphrec.cli.arguments import Parser
from graphrec.cli.output import print_json, table
from graphrec.cli.runs import add_superseded_argument, existing_run
from graphrec.errors import InputError

_SHOWN = {
    "model": "model",
    "metric": "metric",
    "mean": "mean",
    "baseline_mean": "baseline",
    "difference": "difference",
    "low": "low",
    "high": "high",
    "t_holm": "p (t)",
    "wilcoxon_holm": "p (Wilcoxon)",
    "wins": "wins",
    "losses": "losses",
    "ties": "ties",
}


def parser() -> Parser:
    """Every option of the command."""
    shape = Parser(
        "compare",
        "RUN RUN … [options]",
        "Compare runs on the same test part user by user: paired t-test and Wilcoxon, corrected by Holm, a bootstrap "
        "interval of the difference, wins and losses, and means by activity of the users.",
    )
    shape.add_argument("runs", nargs="+", type=str, help="run folders; the first is the baseline unless said otherwise")
    shape.add_argument(
        "--baseline", type=str | None, default=None, help="the run the others are compared with; none: first"
    )
    shape.add_argument(
        "--metrics", nargs="+", type=str, default=None, help="keys such as recall@20; none: all that the runs share"
    )
    shape.add_argument("--level", type=float, default=0.95, help="of the bootstrap interval of the difference")
    shape.add_argument("--resamples", type=int, default=2000, help="how often users are drawn again for the interval")
    shape.add_argument("--groups", type=int, default=4, help="groups of users by activity")
    shape.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    shape.add_argument("--json", action="store_true", help="print JSON")
    add_superseded_argument(shape)
    return shape.polish()


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse(arguments)
    if len(options.runs) < 2:
        raise InputError(f"at least two runs are expected, {len(options.runs)} found")
    for folder in [*options.runs, *([options.baseline] if options.baseline else [])]:
        existing_run(folder)
    places = [Path(folder).resolve() for folder in options.runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise InputError(f"{options.runs[number]} is given twice: a run does not differ from itself")
    from graphrec.evaluation import compare
    from graphrec.runs import Run

    found = compare(
        [Run.open(folder, allow_superseded=options.allow_superseded) for folder in options.runs],
        options.runs.index(options.baseline) if options.baseline in options.runs else options.baseline or 0,
        metrics=options.metrics,
        level=options.level,
        resamples=options.resamples,
        groups=options.groups,
        seed=options.seed,
    )
    if options.json:
        print_json(found.to_dict())
        return 0
    lines = found.frame[list(_SHOWN)].itertuples(index=False)
    print(f"against {found.frame['baseline'].iloc[0]}, {100 * found.level:g} % intervals\n")
    print(table(list(_SHOWN.values()), lines, list(_SHOWN.values())[2:]))
    print("\nmeans by activity of the users\n")
    print(table(list(found.activity.columns), found.activity.itertuples(index=False), list(found.activity.columns)[1:]))
    return 0
