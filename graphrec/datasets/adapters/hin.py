"""Heterogeneous networks of typed edge files (``user_business.dat``, ``business_city.dat`` …), tab-separated."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphrec.datasets.adapters.common import columns, strings, universe
from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import Ints, first_line
from graphrec.datasets.builder import Builder
from graphrec.errors import MissingFileError

ITEMS = ("business", "movie", "book", "item")
_NAME = re.compile(r"([a-z]+)_([a-z]+)\.dat")
_LINE = re.compile(r"\d+\t\d+(\t[\d.]+)?\s*")


def item_word(path: Path) -> str | None:
    """What the items are called in the file names: the W of ``user_W.dat``."""
    if not path.is_dir():
        return None
    return next((word for word in ITEMS if (path / f"user_{word}.dat").is_file()), None)


def recognise(path: Path) -> bool:
    """A folder with ``user_business.dat`` (or movie, book, item) of three numbers a line."""
    word = item_word(path)
    return word is not None and bool(_LINE.fullmatch(first_line(path / f"user_{word}.dat")))


def read(path: Path, builder: Builder, *, scale: tuple[float, float] = (1, 5)) -> None:
    """Read ratings, friends and all typed edges into ``builder``; ids start at 1, nothing is split.

    Users and items keep their ids; nodes of the other kinds are entities named ``city:31``. An edge file ``a_b.dat``
    between a user or item and such a kind becomes triples with relation ``b``; between two users, the links
    ``trusts``; between two items, the links of its name. A weight other than 1 is kept.
    """
    word = item_word(path)
    if word is None:
        raise MissingFileError(f"{path} has no user_business.dat. Expected it, or user_{{{','.join(ITEMS[1:])}}}.dat.")
    kinds = {"user": "user", word: "item"}
    ids: dict[str, list[Ints]] = {"user": [], "item": []}
    edges: dict[tuple[str, str], pa.Table] = {}
    for file in sorted(path.glob("*_*.dat")):
        found = _NAME.fullmatch(file.name)
        if not found:
            continue
        pair = found.group(1), found.group(2)
        rated = pair == ("user", word)
        third = Column("weight", "float", *(scale if rated else (0, None)))
        asked = [Column("source", "id"), Column("target", "id"), third]
        if first_line(file).count("\t") == 1:
            asked.pop()
        edges[pair] = table(file, asked, header=False)
        for end, name in zip(pair, ("source", "target"), strict=True):
            ids.setdefault(kinds.get(end, end), []).append(edges[pair].column(name).to_numpy())
    for kind in ("user", "item"):
        builder.nodes(kind, universe(*ids[kind], first=1))
    for pair, rows in edges.items():
        if pair == ("user", word):
            rating = "weight" if rows.num_columns == 3 else None
            builder.interactions(rows, user="source", item="target", rating=rating)
        else:
            _add_edges(builder, pair, kinds, rows)


def _add_edges(builder: Builder, pair: tuple[str, str], kinds: dict[str, str], rows: pa.Table) -> None:
    ends = {}
    for end, name in zip(pair, ("source", "target"), strict=True):
        values = rows.column(name).to_numpy()
        ends[name] = values if end in kinds else strings(end, values)
        if end not in kinds:
            ids = strings(end, np.unique(values))
            builder.kinds("entity", ids, [end] * len(ids))
    source, target = (kinds.get(end, "entity") for end in pair)
    data = columns(**ends)
    weighted = rows.num_columns == 3 and bool((rows.column("weight").to_numpy() != 1).any())
    if weighted:
        data = data.append_column("weight", rows.column("weight").cast(pa.float32()))
    weight = "weight" if weighted else None
    if "entity" not in (source, target):
        relation = "trusts" if source == target == "user" else "_".join(pair)
        builder.links(data, source=(source, "source"), relation=relation, target=(target, "target"), weight=weight)
        return
    builder.triples(data, head=(source, "source"), relation=pair[1], tail=(target, "target"), weight=weight)
