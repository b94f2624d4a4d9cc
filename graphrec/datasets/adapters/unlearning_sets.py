"""CURE4Rec's form: ``train.csv``, ``test.csv``, ``ratings.csv``, and sets to be forgotten in ``unlearn_set/``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from graphrec.datasets.adapters.common import pair_keys, universe
from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import Ints, first_line
from graphrec.datasets.builder import Builder
from graphrec.errors import unknown

PAIR = (Column("uid", "id"), Column("iid", "id"))
RATED = (*PAIR, Column("val", "float", 0.5, 5), Column("tag", "id"))


def recognise(path: Path) -> bool:
    """A folder whose ``train.csv`` and ``test.csv`` begin with ``uid,iid``."""
    return path.is_dir() and all(first_line(path / f"{part}.csv").startswith("uid,iid") for part in ("train", "test"))


def read(path: Path, builder: Builder) -> None:
    """Read both parts into ``builder``, rated and timed where ``ratings.csv`` has the pair; forget sets are noted."""
    parts = {part: table(path / f"{part}.csv", PAIR, separator=",") for part in ("train", "test")}
    pairs = [_pair(rows) for rows in parts.values()]
    builder.nodes("user", universe(*(users for users, _ in pairs)))
    builder.nodes("item", universe(*(items for _, items in pairs)))
    rated = table(path / "ratings.csv", RATED, separator=",") if (path / "ratings.csv").is_file() else None
    for part, rows in parts.items():
        if rated is None:
            builder.interactions(rows, user="uid", item="iid", part=part)
            continue
        found = _looked_up(rows, rated)
        known = rows.filter(pa.array(found >= 0))
        for name in ("val", "tag"):
            known = known.append_column(name, rated.column(name).take(pa.array(found[found >= 0])))
        builder.interactions(known, user="uid", item="iid", rating="val", time="tag", part=part)
        if len(known) < len(rows):
            builder.interactions(rows.filter(pa.array(found < 0)), user="uid", item="iid", part=part)
    for name in forget_sets(path):
        users, _ = forget_pairs(path, name)
        builder.note("available", f"forget set {name}", len(users), f"unlearning_sets.forget_pairs(path, {name!r})")


def _pair(rows: pa.Table) -> tuple[Ints, Ints]:
    return rows.column("uid").to_numpy(), rows.column("iid").to_numpy()


def _looked_up(rows: pa.Table, rated: pa.Table) -> Ints:
    """The row of ``rated`` with the same pair, -1 where there is none."""
    keys, known = pair_keys(_pair(rows), _pair(rated))
    order = np.argsort(known, kind="stable")
    place = np.minimum(np.searchsorted(known[order], keys), len(known) - 1)
    return np.where(known[order][place] == keys, order[place], -1)


def forget_sets(path: Path) -> list[str]:
    """The sets to be forgotten: ``core_data_5%`` is of the 5 % most connected users, ``edge_data_5%`` of the least."""
    return sorted(file.stem for file in (path / "unlearn_set").glob("*.csv"))


def forget_pairs(path: Path, name: str, *, train_only: bool = True) -> tuple[Ints, Ints]:
    """(user, item) raw ids of one set to be forgotten.

    Args:
        path: the folder of the dataset.
        name: one of :func:`forget_sets`.
        train_only: leave out pairs that training never saw; the files list all ratings of their users.
    """
    if name not in forget_sets(path):
        raise unknown("forget set", name, forget_sets(path))
    rows = table(path / "unlearn_set" / f"{name}.csv", PAIR, separator=",")
    if not train_only:
        return _pair(rows)
    keys, known = pair_keys(_pair(rows), _pair(table(path / "train.csv", PAIR, separator=",")))
    kept = rows.filter(pa.array(np.isin(keys, known)))
    return _pair(kept)
