"""``graphrec explain``: why a user is shown an item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphrec.cli.arguments import Parser
from graphrec.cli.output import print_json, table
from graphrec.cli.runs import add_data_arguments, existing_run, run_data
from graphrec.errors import InputError


def parser() -> Parser:
    """Every option of the command."""
    shape = Parser(
        "explain",
        "RUN --user ID --item ID [--k 10] [options]",
        "The strongest paths of the knowledge graph from a user to an item, and what the model's score loses when the "
        "triples of each are taken out. The dataset is loaded as it was for the training.",
    )
    shape.add_argument("run", help="a run folder of a model that reads a knowledge graph")
    shape.add_argument("--user", type=str, required=True, help="raw id of the user")
    shape.add_argument("--item", type=str, required=True, help="raw id of the item")
    shape.add_argument("--k", type=int, default=10, help="how many paths")
    shape.add_argument("--max-length", type=int, default=3, help="edges of a path, the interaction included: 2 to 4")
    shape.add_argument(
        "--controls", type=int, default=5, help="how often other triples are taken out, to compare with; 0: never"
    )
    shape.add_argument("--seed", type=int, default=0, help="of the choice of other triples")
    shape.add_argument("--out", type=str | None, default=None, help="HTML file to write a page with a picture to")
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
    from graphrec.influence.page import control_sentence, page
    from graphrec.runs import Run

    opened = Run.open(folder, allow_superseded=options.allow_superseded)
    found = explain(
        opened,
        run_data(opened, options),
        user=options.user,
        item=options.item,
        k=options.k,
        max_length=options.max_length,
        controls=options.controls,
        seed=options.seed,
    )
    if options.out is not None:
        Path(options.out).write_text(page(found), encoding="utf-8")
    if options.json:
        print_json(found.to_dict())
        return 0
    print(
        f"{found.item} for {found.user}: score {found.score:.4f}, place {found.rank}; strength by {found.strength_by}"
    )
    if found.paths:
        print(table(["rank", "path", "strength", "drop"], found.frame().itertuples(index=False), ["strength", "drop"]))
        print(control_sentence(found))
    else:
        print(f"No path of at most {options.max_length} edges joins them through the knowledge graph.")
    for title, shown in found.tables.items():
        print(f"\n{title}")
        print(table([str(name) for name in shown.columns], shown.itertuples(index=False), list(shown.columns[1:])))
    if options.out is not None:
        print(f"written to {options.out}")
    return 0
