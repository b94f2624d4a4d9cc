"""``graphrec explain``: why a user is shown an item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graphrec.cli.arguments import Parser
from graphrec.cli.output import figures, print_json, table
from graphrec.cli.runs import add_data_arguments, existing_run, run_data
from graphrec.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

By = Literal["auto", "influence", "deletion"]
Order = Literal["effect", "strength"]
_ROWS = 20


def parser() -> Parser:
    """Every option of the command."""
    shape = Parser(
        "explain",
        "RUN --user ID --item ID [--k 10] [options]",
        "Why a user is shown an item: the user's training interactions that the score rests on, each tested by "
        "removal, and, where the model reads a knowledge graph, the paths from the user to the item that the score "
        "rests on, with what it loses without the triples of each. The dataset is loaded as it was for the training.",
    )
    shape.add_argument("run", help="a run folder")
    shape.add_argument("--user", type=str, required=True, help="raw id of the user")
    shape.add_argument("--item", type=str, required=True, help="raw id of the item")
    shape.add_argument("--k", type=int, default=10, help="how many paths, 1 or more")
    shape.add_argument("--max-length", type=int, default=3, help="edges of a path, the interaction included: 2 to 4")
    shape.add_argument(
        "--order",
        type=Order,
        default="effect",
        help="effect: of the strongest paths, those first whose removal lowers the score most; strength: by the "
        "model's attention alone, whatever the paths do to the score",
    )
    shape.add_argument("--candidates", type=int, default=100, help="how many of the strongest paths effect looks at")
    shape.add_argument(
        "--alike",
        type=int,
        default=3,
        help="for effect: after so many paths that reach the item by the same triple, more of them come last; 0: never",
    )
    shape.add_argument(
        "--controls",
        type=int,
        default=5,
        help="how often other triples, and other interactions, are taken out to compare with; 0: never",
    )
    shape.add_argument(
        "--interactions", type=int, default=3, help="how many of the user's training interactions to name; 0: none"
    )
    shape.add_argument(
        "--by",
        type=By,
        default="auto",
        help="how they are ranked: by influence (an estimate), by deletion, or by what answers within seconds; "
        "influence gives way to deletion where the model is too far from a minimum for an estimate",
    )
    shape.add_argument("--seed", type=int, default=0, help="of the choice of what else is taken out")
    shape.add_argument("--out", type=str | None, default=None, help="HTML file to write a page with a picture to")
    shape.add_argument("--report", action="store_true", help="show it in the run's report.html too, and keep it there")
    shape.add_argument("--json", action="store_true", help="print JSON")
    add_data_arguments(shape)
    return shape.polish()


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse(arguments)
    if options.out is not None and Path(options.out).suffix != ".html":
        raise InputError(f"--out {options.out}: a name ending in .html is expected")
    folder = existing_run(options.run)
    from graphrec.influence import explain
    from graphrec.influence.page import because_sentence, columns_sentence, page
    from graphrec.reports import add_explanation
    from graphrec.runs import Run

    opened = Run.open(folder, allow_superseded=options.allow_superseded)
    data = run_data(opened, options)
    found = explain(
        opened,
        data,
        user=options.user,
        item=options.item,
        k=options.k,
        max_length=options.max_length,
        order=options.order,
        candidates=options.candidates,
        alike=options.alike,
        controls=options.controls,
        interactions=options.interactions,
        by=options.by,
        seed=options.seed,
    )
    if options.out is not None:
        Path(options.out).write_text(page(found), encoding="utf-8")
        opened.record(options.out, ("ids", "pairs", "texts"))
    if options.report:
        add_explanation(opened, found, data)
    if options.json:
        print_json(found.to_dict())
        return 0
    by = f"; strength by {found.strength_by}" if found.strength_by else ""
    print(f"{found.item} for {found.user}: score {found.score:.4g}, place {found.rank}{by}")
    if found.because is not None:
        print(f"\n{found.because.sentence()}")
        if found.because.supports:
            _print_measures(found.because.frame(), ["influence", "deleted", "unlearned"])
        print(f"{because_sentence(found.because)} {columns_sentence(found.because)}".strip())
    if not found.strength_by:
        print("\nThe model reads no knowledge graph: no paths.")
    elif found.paths:
        print()
        _print_measures(found.frame(), ["strength", "effect", "drop"])
        told = " Effect is an estimate of the drop." if found.paths[0].effect is not None else ""
        print(f"{found.order_sentence()}{told} A drop is what the score loses without the path's triples.")
        if found.control_sentence():
            print(found.control_sentence())
    else:
        print(f"No path of at most {options.max_length} edges joins them through the knowledge graph.")
    for title, shown in found.tables.items():
        print(f"\n{title}")
        rows = shown.head(_ROWS).itertuples(index=False)
        print(table([str(name) for name in shown.columns], rows, list(shown.columns[1:])))
        if len(shown) > _ROWS:
            print(f"and {len(shown) - _ROWS} more; --json gives all")
    if options.out is not None:
        print(f"written to {options.out}")
    if options.report:
        print(f"shown in {opened.path / 'report.html'}")
    return 0


def _print_measures(frame: pd.DataFrame, measures: Sequence[str]) -> None:
    """The table, with three significant digits, and without the measures that nothing has."""
    import pandas as pd

    kept = [name for name in frame.columns if name not in measures or frame[name].notna().any()]
    shown = frame[kept].astype(object)
    for name in set(measures) & set(kept):
        shown[name] = [figures(None if pd.isna(value) else float(value)) for value in frame[name]]
    print(table(kept, shown.itertuples(index=False), [name for name in kept if name in measures]))
