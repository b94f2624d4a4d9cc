"""What several formats share: node universes, feature files, item tables, lists of names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import Ints, fault_of_id, first_line, read_bytes, show
from graphrec.datasets.builder import Builder
from graphrec.errors import InputError

SPARSE = 20
SMALL = 100_000
CATEGORIES = 1024


def universe(*ids: Ints, first: int = 0) -> Ints:
    """All node ids of a kind whose ids were made contiguous: ``first … max``, those that never occur included.

    Published sets number their nodes from 0 (or 1), and models and figures count all of them. Ids that leave gaps far
    too wide for that (more than 20 times as many numbers as ids, above the first 100,000) are taken as they are.
    """
    used = np.unique(np.concatenate([np.asarray(part, dtype=np.int64) for part in ids] or [np.empty(0, np.int64)]))
    if not len(used):
        return used
    top = int(used[-1])
    if top >= SMALL and top > SPARSE * len(used):
        return used
    return np.arange(min(first, int(used[0])), top + 1)


def check_linked(builder: Builder, path: Path, linked: int, items: int, min_share: float) -> None:
    """Note how many items a knowledge graph speaks of; refuse one that speaks of too few of them.

    Args:
        builder: takes the note.
        path: the file, for messages.
        linked: items that have triples.
        items: items of the dataset.
        min_share: the smallest share that is taken for the right graph.
    """
    said = f"{linked:,} of {items:,} items have triples"
    if items and linked < min_share * items:
        raise InputError(
            f"{path}: {said}, expected at least {min_share:.1%}. Is it the knowledge graph of these items? "
            "Say min_share=0 to take it all the same."
        )
    builder.note("matched", "items with the knowledge graph", linked, said)


def columns(**named: Any) -> pa.Table:
    """An arrow table from arrays."""
    return pa.table({name: pa.array(values) if isinstance(values, list) else values for name, values in named.items()})


def pair_keys(*pairs: tuple[Ints, Ints]) -> list[Ints]:
    """A whole number for each (user, item), the same for the same pair in all of the lists; never overflows."""
    sides = []
    for side in (0, 1):
        _, codes = np.unique(np.concatenate([pair[side] for pair in pairs]), return_inverse=True)
        sides.append(codes.astype(np.int64))
    keys = sides[0] * (int(sides[1].max(initial=0)) + 1) + sides[1]
    return np.split(keys, np.cumsum([len(pair[0]) for pair in pairs])[:-1])


def replaced(ids: Ints, old: Ints, new: Ints) -> Ints:
    """``ids`` with each ``old`` (ascending) made the ``new`` beside it."""
    if not len(old):
        return ids
    place = np.minimum(np.searchsorted(old, ids), len(old) - 1)
    return np.where(old[place] == ids, new[place], ids)


def strings(prefix: str, ids: Ints) -> pa.Array:
    """Ids of one kind among several that number from the same start: ``city:31``."""
    return pa.array([f"{prefix}:{value}" for value in ids.tolist()], pa.string())


def whole(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of floats as int64 where every value is whole: times in seconds stay exact."""
    floats = values.to_numpy()
    exact = len(floats) > 0 and bool((floats == np.rint(floats)).all()) and float(np.abs(floats).max()) < 2**53
    return values.cast(pa.int64()) if exact else values


def load_array(path: Path) -> NDArray[Any]:
    """An ``.npy`` array without pickles, mapped rather than read; its faults as :class:`InputError`."""
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # numpy's reader raises whatever the bytes trip in it
        raise InputError(f"{path} is no .npy array that can be read without unpickling: {error}.") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays. Expected one .npy array.")
    return array


def add_features(builder: Builder, folder: Path, item_ids: Ints) -> None:
    """Give the builder every ``<name>_feat.npy`` of a folder; row i belongs to item id i."""
    for path in sorted(folder.glob("*_feat.npy")):
        array = load_array(path)
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{path}: shape {array.shape}, {array.dtype}. Expected a matrix of floats, items x width.")
        if len(array) != len(item_ids):
            raise InputError(
                f"{path}: {len(array)} rows for {len(item_ids)} items. Expected row i to be item id i; "
                "are the features and the interactions of the same release?"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            values = np.asarray(array, dtype=np.float32)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise InputError(f"{path}, row {bad[0]}: a value that is not finite ({len(bad)} such rows).")
        builder.features("item", item_ids, values, name=path.name.removesuffix("_feat.npy"))


def feature_rows(folder: Path) -> int:
    """How many items the feature files of a folder speak of, 0 without any."""
    return max((len(array) for path in folder.glob("*_feat.npy") if (array := load_array(path)).ndim), default=0)


def table_columns(path: Path) -> list[str]:
    """The column names of a tab-separated file with a header."""
    return first_line(path).split("\t")


def item_table(path: Path) -> pa.Table:
    """``items.tsv``: ``itemID`` and whatever text columns it has; quoted as in CSV, UTF-8."""
    names = table_columns(path)
    return table(
        path,
        [Column("itemID", "id"), *(Column(name) for name in names if name != "itemID")],
        quoted=True,
    )


def joined(read: pa.Table, names: Sequence[str], mark: str = ". ") -> list[str | None]:
    """One text a row from several columns, empty ones left out; None where all are empty."""
    lists = [read.column(name).to_pylist() for name in names if name in read.column_names]
    return [mark.join(part for part in row if part) or None for row in zip(*lists, strict=True)]


def add_user_map(builder: Builder, path: Path) -> None:
    """``user_map.tsv``: our user id and the name it had in the source."""
    if path.is_file():
        other = [name for name in table_columns(path) if name != "userID"]
        read = table(path, [Column("userID", "id"), *(Column(name) for name in other[:1])], quoted=True)
        builder.names("user", read.column("userID").to_numpy(), read.column(other[0]).to_pylist())


def name_list(path: Path) -> tuple[list[str], Ints]:
    """Lines ``name id`` (KGAT's ``user_list.txt``, ``relation_list.txt`` …), or a TSV with the id first.

    A header that begins with ``org_id`` says how many fields follow the name; the id is the first of them. A header
    whose first field ends in ``ID`` is a TSV ``id, …, name``.
    """
    rows = read_bytes(path).decode("utf-8", "replace").split("\n")
    opening = first_line(path)
    header, fields, tsv = False, 1, False
    if opening.startswith("org_id"):
        header, fields = True, len(opening.split()) - 1
    elif opening.split("\t")[0].endswith("ID"):
        header, tsv = True, True
    names: list[str] = []
    ids: list[int] = []
    for number, row in enumerate(rows, 1):
        if not row.strip() or (header and row == opening):
            continue
        if tsv:
            parts = row.split("\t")
            name, token = parts[-1], parts[0]
        else:
            parts = row.rsplit(None, fields)
            name, token = parts[0], parts[1] if len(parts) > 1 else ""
        fault = fault_of_id(token)
        if fault:
            raise InputError(f"{path}, line {number}: {fault}, in {show(row)}. Expected a name and its id.")
        names.append(name)
        ids.append(int(token))
    return names, np.array(ids, dtype=np.int64)


def one_hot(values: Sequence[str]) -> tuple[NDArray[np.float32], list[str]] | None:
    """Indicator columns of a categorical attribute, in the order of the sorted values; None when there are too many."""
    levels, codes = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    if len(levels) > CATEGORIES:
        return None
    matrix = np.zeros((len(codes), len(levels)), dtype=np.float32)
    matrix[np.arange(len(codes)), codes] = 1.0
    return matrix, [str(level) for level in levels]
