"""Last.FM as LightGCN publishes it: ``data1.txt``, ``test1.txt`` (user, artist, count) and ``trustnetwork.txt``."""

from __future__ import annotations

import re
from pathlib import Path

from graphrec.datasets.adapters.common import columns, universe
from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import first_line, integers
from graphrec.datasets.builder import Builder

FILES = {"train": "data1.txt", "test": "test1.txt"}
_LINE = re.compile(r"\d+\t\d+\t[\d.eE+]+\s*")


def recognise(path: Path) -> bool:
    """A folder with ``data1.txt`` of three tab-separated numbers."""
    return path.is_dir() and bool(_LINE.fullmatch(first_line(path / "data1.txt")))


def read(path: Path, builder: Builder) -> None:
    """Read listening counts (as weights) with their parts, and friends, into ``builder``. Ids start at 1."""
    asked = [Column("user", "id"), Column("item", "id"), Column("count", "float", 0)]
    parts = {part: table(path / name, asked, header=False) for part, name in FILES.items()}
    users = [rows.column("user").to_numpy() for rows in parts.values()]
    trust = path / "trustnetwork.txt"
    friends = integers(trust, ("user", "friend")) if trust.is_file() else []
    builder.nodes("user", universe(*users, *friends, first=1))
    builder.nodes("item", universe(*(rows.column("item").to_numpy() for rows in parts.values()), first=1))
    for part, rows in parts.items():
        builder.interactions(rows, user="user", item="item", weight="count", part=part)
    if friends:
        links = columns(source=friends[0], target=friends[1])
        builder.links(links, source=("user", "source"), relation="trusts", target=("user", "target"))
