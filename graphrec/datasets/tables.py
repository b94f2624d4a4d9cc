"""Tables of edges: their columns, their canonical order, and the merging of duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graphrec.errors import InputError, unknown

EdgeType = tuple[str, str, str]
Duplicates = Literal["error", "first", "last", "sum"]
DUPLICATES: tuple[Duplicates, ...] = ("error", "first", "last", "sum")

PARTS: Mapping[str, int] = MappingProxyType({"train": 0, "valid": 1, "test": 2})
PART_NAMES: tuple[str, ...] = tuple(PARTS)

# Every column an edge table may have, in canonical order, with its type; None: as it came (whole or decimal times).
COLUMNS: Mapping[str, Any] = MappingProxyType(
    {
        "source": np.int32,
        "target": np.int32,
        "edge_id": np.int64,
        "relation": np.int32,
        "user": np.int32,
        "origin": np.int32,
        "part": np.int8,
        "label": np.int8,
        "rating": np.float32,
        "weight": np.float32,
        "time": None,
    }
)


def edge_type_name(edge_type: EdgeType) -> str:
    """``("user", "interacts", "item")`` as ``user__interacts__item``."""
    return "__".join(edge_type)


def edge_ids(values: Any) -> NDArray[np.int64]:
    """One or several edge ids as (N,) int64.

    Raises:
        InputError: something else than whole numbers.
    """
    ids = np.atleast_1d(np.asarray(values))
    if ids.size == 0:
        return np.empty(0, np.int64)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"edge ids: expected whole numbers, got shape {ids.shape} of {ids.dtype}.")
    return ids.astype(np.int64)


@dataclass(frozen=True, eq=False)
class EdgeTable:
    """The edges of one type, as columns of equal length in canonical order (source, target, relation, time, part).

    Attributes:
        edge_type: (source node type, name, target node type).
        columns: always ``source``, ``target`` (int32 codes) and ``edge_id`` (int64); where present ``relation`` (int32
            into the dataset's relations), ``user`` (int32, who assigned a tag), ``origin`` (int32 into the dataset's
            origins), ``part`` (int8), ``label`` (int8), ``rating``, ``weight`` (float32) and ``time`` (int64 or
            float64). All read-only.
    """

    edge_type: EdgeType
    columns: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        frozen = {}
        for name, kind in COLUMNS.items():
            if name in self.columns:
                column = np.asarray(self.columns[name], dtype=kind)
                if column.flags.writeable:
                    column = column.view()
                    column.setflags(write=False)
                frozen[name] = column
        odd = set(self.columns) - set(COLUMNS)
        if odd:
            raise unknown("column", sorted(odd)[0], COLUMNS)
        object.__setattr__(self, "columns", MappingProxyType(frozen))

    def __reduce__(self) -> tuple[Any, ...]:
        return EdgeTable, (self.edge_type, dict(self.columns))

    def __len__(self) -> int:
        return len(self.columns["source"])

    def __repr__(self) -> str:
        return f"EdgeTable({self.edge_type}, {len(self)} edges, columns {', '.join(self.columns)})"

    @property
    def source(self) -> NDArray[np.int32]:
        """(E,) int32."""
        return self.columns["source"]

    @property
    def target(self) -> NDArray[np.int32]:
        """(E,) int32."""
        return self.columns["target"]

    @property
    def edge_id(self) -> NDArray[np.int64]:
        """(E,) int64, ascending where no rows were drawn after the table was built."""
        return self.columns["edge_id"]

    @property
    def relation(self) -> NDArray[np.int32] | None:
        """(E,) int32 into the dataset's relations."""
        return self.columns.get("relation")

    @property
    def user(self) -> NDArray[np.int32] | None:
        """(E,) int32, who assigned a tag."""
        return self.columns.get("user")

    @property
    def origin(self) -> NDArray[np.int32] | None:
        """(E,) int32 into the dataset's origins: which source stated a triple."""
        return self.columns.get("origin")

    @property
    def part(self) -> NDArray[np.int8] | None:
        """(E,) int8: 0 train, 1 valid, 2 test."""
        return self.columns.get("part")

    @property
    def label(self) -> NDArray[np.int8] | None:
        """(E,) int8: 1 positive, 0 a labelled negative."""
        return self.columns.get("label")

    @property
    def rating(self) -> NDArray[np.float32] | None:
        """(E,) float32."""
        return self.columns.get("rating")

    @property
    def weight(self) -> NDArray[np.float32] | None:
        """(E,) float32."""
        return self.columns.get("weight")

    @property
    def time(self) -> NDArray[Any] | None:
        """(E,) int64 or float64, Unix seconds where it came as a date."""
        return self.columns.get("time")

    def select(self, mask: NDArray[Any]) -> EdgeTable:
        """The rows of a boolean mask (or of ascending positions), with their edge ids."""
        return EdgeTable(self.edge_type, {name: column[mask] for name, column in self.columns.items()})

    def replaced(self, **columns: NDArray[Any] | None) -> EdgeTable:
        """The same edges with some columns replaced, added or (None) taken away."""
        merged = {**self.columns, **columns}
        return EdgeTable(self.edge_type, {name: column for name, column in merged.items() if column is not None})

    def positions(self, edge_id: Any) -> NDArray[np.int64]:
        """Where edge ids stand in the table.

        Raises:
            InputError: an edge id that is not there.
        """
        wanted = edge_ids(edge_id)
        if len(wanted) and len(self) == 0:
            raise InputError(f"{self.edge_type} has no edges, so no edge id {wanted[0]}.")
        ids, order = self.edge_id, None
        if (ids[1:] < ids[:-1]).any():  # rows were drawn after the table was built
            order = np.argsort(ids)
            ids = ids[order]
        place = np.minimum(np.searchsorted(ids, wanted), max(len(self) - 1, 0))
        place = place if order is None else order[place]
        wrong = self.edge_id[place] != wanted if len(wanted) else np.zeros(0, bool)
        if wrong.any():
            raise InputError(
                f"{self.edge_type} has no edge id {wanted[int(np.argmax(wrong))]} "
                f"({int(wrong.sum())} of {len(wanted)} are not there; it was never there or was taken away)."
            )
        return place

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(E,) whether each row is a positive: all but those labelled 0."""
        return np.ones(len(self), bool) if self.label is None else self.label != 0


@dataclass(frozen=True, eq=False)
class Provenance:
    """Which rows of the input each edge was made from; indexed by edge id.

    Attributes:
        row: (E,) the row an edge was taken from.
        merged_edge: ascending edge ids that were merged from several rows, each as often as it has rows.
        merged_row: the rows, aligned with ``merged_edge``.
    """

    row: NDArray[Any]
    merged_edge: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    merged_row: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def rows(self, edge_id: Any) -> NDArray[np.int64]:
        """The input rows of one or several edges, ascending."""
        wanted = edge_ids(edge_id)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self.row)):
            raise InputError(f"edge id {wanted[(wanted < 0) | (wanted >= len(self.row))][0]} is not there.")
        start = np.searchsorted(self.merged_edge, wanted, "left")
        count = np.searchsorted(self.merged_edge, wanted, "right") - start
        single = self.row[wanted[count == 0]].astype(np.int64)
        offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.sort(np.concatenate([single, self.merged_row[np.repeat(start, count) + offset]]))


@dataclass(frozen=True, eq=False)
class Merged:
    """What :func:`canonical` gives back.

    Attributes:
        table: the edges in canonical order, numbered from 0.
        provenance: the input rows of each.
        num_merged: input rows that were merged into another one of their part.
        num_shared: pairs that occur in more than one part.
    """

    table: EdgeTable
    provenance: Provenance
    num_merged: int
    num_shared: int


class DuplicateError(Exception):
    """A pair that occurs twice where that is an error: positions of the two rows."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first, second)
        self.first, self.second = first, second


def pair_order(keys: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Positions sorted by several non-negative integer keys, the first one foremost; and where neighbours are equal.

    Returns:
        order (N,), and tie (N - 1,): whether the sorted row n + 1 has the keys of row n. Equal rows come in any order.
    """
    bits = [int(key.max()).bit_length() if len(key) else 0 for key in keys]
    if sum(bits) <= 63:
        packed = keys[0].astype(np.int64)
        for key, width in zip(keys[1:], bits[1:], strict=True):
            packed <<= width
            packed |= key
        steps = packed[1:] > packed[:-1]
        if steps.all():
            return np.arange(len(packed)), np.zeros(max(len(packed) - 1, 0), bool)
        # An unstable sort of 64-bit keys is several times faster; the few equal ones are ordered by the caller.
        order = np.argsort(packed)
        packed = packed[order]
        return order, packed[1:] == packed[:-1]
    order = np.lexsort(tuple(reversed(keys)))
    tie = np.ones(max(len(order) - 1, 0), bool)
    for key in keys:
        tie &= key[order[1:]] == key[order[:-1]]
    return order, tie


def _runs(tie: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places that belong to runs of equal neighbours, and the number of the run of each."""
    inside = np.zeros(len(tie) + 1, bool)
    inside[1:] |= tie
    inside[:-1] |= tie
    slots = np.flatnonzero(inside)
    starts = np.ones(len(slots), bool)
    starts[1:] = ~tie[slots[1:] - 1]
    return slots, np.cumsum(starts)


def stable_order(keys: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Positions sorted by several non-negative integer keys, the first one foremost, equal rows in their order."""
    order, tie = pair_order(keys)
    if tie.any():
        slots, run = _runs(tie)
        inner = np.lexsort((order[slots], run))
        order[slots] = order[slots][inner]
    return order


def canonical(
    edge_type: EdgeType, columns: Mapping[str, NDArray[Any]], duplicates: Duplicates, row: NDArray[Any] | None = None
) -> Merged:
    """Sort rows into canonical order, merge duplicates within each part, and number the edges.

    Rows are duplicates when source, target, relation (of triples), user (of tags) and part agree. ``first`` and
    ``last`` keep the row that comes first or last in time, then in the input. ``sum`` adds the weights (1 where none
    were given) of the rows with the largest label, and takes the other columns from the last row.

    Args:
        edge_type: the edge type of the table.
        columns: of equal length, named as in :data:`COLUMNS`, without ``edge_id``.
        duplicates: the policy.
        row: (N,) input row of each; default: 0, 1, …

    Raises:
        DuplicateError: under ``error``, with the positions of two equal rows.
    """
    columns = dict(columns)
    size = len(columns["source"])
    row = np.arange(size, dtype=np.int32 if size < 2**31 else np.int64) if row is None else row
    if duplicates == "sum" and "weight" not in columns:
        columns["weight"] = np.ones(size, np.float32)
    thirds = [columns[name] for name in ("relation", "user") if name in columns]
    if thirds and min(int(third.min()) if size else 0 for third in thirds) < 0:
        thirds = [third + 1 for third in thirds]
    order, tie = pair_order([columns["source"], columns["target"], *thirds])
    if not tie.any():
        kept = {name: column[order] for name, column in columns.items()}
        kept["edge_id"] = np.arange(size, dtype=np.int64)
        return Merged(EdgeTable(edge_type, kept), Provenance(row[order]), 0, 0)

    slots, run = _runs(tie)
    sub = order[slots]
    part = columns["part"][sub] if "part" in columns else np.zeros(len(sub), np.int8)
    time = columns["time"][sub] if "time" in columns else np.zeros(len(sub), np.int8)
    # Sums of floating numbers depend on their order, so it must not come from the order of the input.
    value = columns["weight"][sub] if duplicates == "sum" else np.zeros(len(sub), np.int8)
    inner = np.lexsort((row[sub], value, time, part, run))
    sub, run, part, time = sub[inner], run[inner], part[inner], time[inner]
    starts = np.flatnonzero(np.concatenate([[True], (run[1:] != run[:-1]) | (part[1:] != part[:-1])]))
    counts = np.diff(np.append(starts, len(sub)))
    if duplicates == "error" and (counts > 1).any():
        first = starts[int(np.argmax(counts > 1))]
        raise DuplicateError(int(row[sub[first]]), int(row[sub[first + 1]]))
    if duplicates == "sum":
        chosen = _sum_groups(columns, sub, starts, counts)
    else:
        chosen = starts if duplicates == "first" else starts + counts - 1
    dropped = np.ones(len(sub), bool)
    dropped[chosen] = False
    group = np.repeat(np.arange(len(starts)), counts)
    outer = np.lexsort((part, time, dropped, run))
    order[slots] = sub[outer]
    kept_slots = np.ones(size, bool)
    kept_slots[slots] = ~dropped[outer]
    number = np.cumsum(kept_slots) - 1
    edge_of_group = np.empty(len(starts), np.int64)
    edge_of_group[group[outer][~dropped[outer]]] = number[slots][~dropped[outer]]
    several = counts[group] > 1
    merged_edge, merged_row = edge_of_group[group[several]], row[sub[several]].astype(np.int64)
    by_edge = np.lexsort((merged_row, merged_edge))
    final = order[kept_slots]
    kept = {name: column[final] for name, column in columns.items()}
    kept["edge_id"] = np.arange(len(final), dtype=np.int64)
    runs_of_groups = run[starts]
    shared = int((np.unique(runs_of_groups, return_counts=True)[1] > 1).sum())
    return Merged(
        EdgeTable(edge_type, kept),
        Provenance(row[final], merged_edge[by_edge], merged_row[by_edge]),
        size - len(final),
        shared,
    )


def _sum_groups(
    columns: dict[str, NDArray[Any]], sub: NDArray[np.int64], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Add up the weights of each group into the row it keeps; returns which row of each group that is."""
    weight = columns["weight"][sub].astype(np.float64)
    chosen = starts + counts - 1
    if "label" in columns:
        label = columns["label"][sub]
        best = np.repeat(np.maximum.reduceat(label, starts), counts)
        weight = np.where(label == best, weight, 0.0)
        position = np.where(label == best, np.arange(len(sub)), -1)
        chosen = np.maximum.reduceat(position, starts)
    total = columns["weight"].copy()
    total[sub[chosen]] = np.add.reduceat(weight, starts).astype(np.float32)
    columns["weight"] = total
    return chosen


def parse_parts(part: str | None) -> tuple[int, ...]:
    """The codes in a name such as ``"train"`` or ``"train+valid"``.

    Raises:
        InputError: an unknown part.
    """
    if part is None:
        return tuple(PARTS.values())
    names = part.split("+")
    for name in names:
        if name not in PARTS:
            raise unknown("part", name, PARTS)
    return tuple(PARTS[name] for name in names)
