"""``graphrec datasets``: the known datasets, their sizes, and which of them are at hand."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphrec.cli.arguments import Parser
from graphrec.cli.output import cell, print_json, table
from graphrec.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from graphrec.datasets.registry import Row


def parser() -> Parser:
    """Every option of the command."""
    shape = Parser(
        "datasets",
        "[NAME] [--root DIR] [--leaks] [--json]",
        "The known datasets with their sizes, and which of them are at hand; or all that is known about one.",
    )
    shape.add_argument("name", nargs="?", type=str | None, default=None, help="a dataset to describe")
    shape.add_argument(
        "--root",
        type=str | None,
        default=None,
        help="folder that holds the datasets' own folders; none: $GRAPHREC_DATA, then the user cache",
    )
    shape.add_argument(
        "--leaks",
        action="store_true",
        help="measure whether relations of its knowledge graph are made of tested interactions",
    )
    shape.add_argument("--json", action="store_true", help="print JSON")
    return shape.polish()


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse(arguments)
    if options.root is not None and not Path(options.root).is_dir():
        raise MissingFileError(f"--root {options.root}: there is no such folder")
    from graphrec.datasets import registry

    if options.leaks:
        return _leaks(options.name, options.root, options.json)
    if options.name is not None:
        row = registry.find(options.name, options.root)
        print_json(row.as_dict()) if options.json else _describe(row, options.root)
        return 0
    rows = registry.table(options.root)
    if options.json:
        print_json([row.as_dict() for row in rows])
        return 0
    headers = ["name", "users", "items", "interactions", "present", "format"]
    lines = [[*map(row.as_dict().get, ("name", "users", "items")), _interactions(row), *_last(row)] for row in rows]
    print(table(headers, lines, headers[1:4]))
    return 0


def _leaks(name: str | None, root: str | None, json: bool) -> int:
    """Print how often items that a relation ties meet in the test part."""
    from graphrec.datasets import load, relation_leaks
    from graphrec.datasets.leaks import leak_table

    if name is None:
        raise InputError("--leaks: the name or path of a dataset is expected before it")
    data = load(name, root=root)
    leaks = relation_leaks(data)
    if json:
        print_json([leak.as_dict() for leak in leaks])
    else:
        print(leak_table(leaks) or f"{data.name}: no relation ties two items, directly or over an entity.")
    return 0


def _interactions(row: Row) -> int:
    return row.entry.interactions


def _last(row: Row) -> tuple[str, str]:
    present = "yes" if row.present else "incomplete" if row.folder else "no"
    return present, row.entry.adapter


def _describe(row: Row, root: str | None) -> None:
    from graphrec.datasets import registry

    values = row.as_dict()
    for key, value in values.items():
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        text = cell(value)
        if text:
            print(textwrap.fill(f"{key + ':':<14}{text}", 110, subsequent_indent=" " * 14, break_long_words=False))
    if not row.present:
        folder = row.folder or Path(registry.roots(root)[0]) / row.entry.name
        print(f"\n{row.entry.manual(folder)}")
