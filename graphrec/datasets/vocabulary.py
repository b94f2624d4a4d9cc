"""Raw ids to integers and back: the one place where ids cross."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.datasets.arrow import Place
from graphrec.datasets.columns import RawIds, raw_ids
from graphrec.errors import InputError


class Vocabulary:
    """The sorted distinct raw ids of one kind of node; the code of an id is its place among them.

    Whole numbers are sorted as numbers, strings by code points. Codes never depend on the order of appearance.

    Args:
        raw: distinct ids in ascending order: int64, or an arrow array of strings.
        kind: of what, for messages ("user").
    """

    def __init__(self, raw: NDArray[np.int64] | pa.Array, kind: str = "node") -> None:
        self.kind = kind
        self._ints: NDArray[np.int64] | None = None
        self._strings: pa.Array | None = None
        if isinstance(raw, pa.Array):
            self._strings = raw.cast(pa.large_string())
        else:
            self._ints = np.asarray(raw, dtype=np.int64)
            self._ints.setflags(write=False)

    @classmethod
    def of(cls, columns: Iterable[RawIds], kind: str = "node") -> Vocabulary:
        """The vocabulary of all ids that occur; strings as soon as one column holds strings."""
        columns = [column for column in columns if len(column)]
        if all(column.ints is not None for column in columns):
            parts = [_distinct(column.ints) for column in columns if column.ints is not None]
            if not parts:
                return cls(np.empty(0, np.int64), kind)
            return cls(parts[0] if len(parts) == 1 else _distinct(np.concatenate(parts)), kind)
        chunks = [
            column.strings if column.strings is not None else _as_strings(_distinct(column.ints)) for column in columns
        ]
        distinct = pc.unique(pa.chunked_array(chunks, type=pa.large_string()))
        return cls(distinct.take(pc.array_sort_indices(distinct)), kind)

    @classmethod
    def from_values(cls, values: Any, kind: str = "node") -> Vocabulary:
        """The vocabulary of the ids in a list, array or column, in any order and with repetitions.

        Raises:
            InputError: an id that is null, negative, decimal or above 64 bits.
        """
        return cls.of([raw_ids(values, Place(kind, "id"))], kind)

    @property
    def numeric(self) -> bool:
        """Whether the ids are whole numbers."""
        return self._ints is not None

    @cached_property
    def raw(self) -> NDArray[Any]:
        """(N,) int64 or str objects, ascending."""
        if self._ints is not None:
            return self._ints
        assert self._strings is not None
        values = self._strings.to_numpy(zero_copy_only=False).astype(object)
        values.setflags(write=False)
        return values

    @property
    def arrow(self) -> pa.Array:
        """The raw ids as an arrow array."""
        return self._strings if self._strings is not None else pa.array(self._ints)

    def __len__(self) -> int:
        if self._ints is not None:
            return len(self._ints)
        assert self._strings is not None
        return len(self._strings)

    def __getitem__(self, index: slice | int) -> Any:
        """Raw ids by position: one, or an array of them."""
        return self.raw[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.numeric == other.numeric and bool(self.arrow.equals(other.arrow))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({self.kind}, {len(self)} {'whole numbers' if self.numeric else 'strings'})"

    def __contains__(self, value: object) -> bool:
        try:
            return bool(self.encode([value], unknown="mark")[0] >= 0)
        except InputError:
            return False

    @cached_property
    def _lookup(self) -> NDArray[np.int32] | None:
        """The code of each number from 0 to the largest, -1 for none; None where that would be mostly holes."""
        ids = self._ints
        if ids is None or len(ids) == 0 or ids[-1] > 4 * len(ids) + 2**20:
            return None
        table = np.full(int(ids[-1]) + 1, -1, np.int32)
        table[ids] = np.arange(len(ids), dtype=np.int32)
        return table

    def encode(self, values: Any, unknown: Literal["error", "mark"] = "error") -> NDArray[np.int64]:
        """The codes of raw ids.

        Args:
            values: a list, array or column of whole numbers or strings; a vocabulary of numbers also takes numbers
                written as strings, and the other way round.
            unknown: ``error`` refuses an id that is not there, ``mark`` gives -1.

        Returns:
            (N,) int64.

        Raises:
            InputError: an unknown id under ``error``, or something that cannot be an id; names the row.
        """
        ids = values if isinstance(values, RawIds) else raw_ids(_listed(values), Place(self.kind, "id"), strict=False)
        codes = self.encode_raw(ids)
        if unknown == "error" and len(codes) and codes.min() < 0:
            row = int(np.argmax(codes < 0))
            raise InputError(
                f"{ids.place.row(row)}: unknown {self.kind} {ids[row]!r} ({int((codes < 0).sum())} unknown in all); "
                f"the dataset has {len(self)} of them{self._examples()}."
            )
        return codes.astype(np.int64)

    def _examples(self) -> str:
        return f", such as {', '.join(repr(v) for v in self.arrow[:3].to_pylist())}" if len(self) else ""

    def encode_raw(self, ids: RawIds) -> NDArray[np.int32]:
        """The codes of ids that were checked before, -1 for those that are not there."""
        if ids.ints is not None:
            if self._ints is not None:
                return self._encode_ints(ids.ints)
            distinct, inverse = np.unique(ids.ints, return_inverse=True)
            return self._encode_strings(_as_strings(distinct))[inverse]
        assert ids.strings is not None and ids.codes is not None
        if self._ints is None:
            return self._encode_strings(ids.strings)[ids.codes]
        whole = pc.match_substring_regex(ids.strings, "^(0|[1-9][0-9]{0,17})$")
        numbers = pc.if_else(whole, ids.strings, "-1").cast(pa.int64()).to_numpy(zero_copy_only=False)
        return self._encode_ints(numbers)[ids.codes]

    def _encode_ints(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        own = self._ints
        assert own is not None
        if len(own) == 0:
            return np.full(len(ids), -1, np.int32)
        lookup = self._lookup
        if lookup is not None:
            if len(ids) and ids.min() >= 0 and ids.max() < len(lookup):
                return lookup[ids]
            inside = (ids >= 0) & (ids < len(lookup))
            return np.where(inside, lookup[np.where(inside, ids, 0)], -1).astype(np.int32)
        place = np.minimum(np.searchsorted(own, ids), len(own) - 1)
        return np.where(own[place] == ids, place, -1).astype(np.int32)

    def _encode_strings(self, values: pa.Array) -> NDArray[np.int32]:
        found = pc.index_in(values, value_set=self._strings)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)

    def decode(self, codes: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """The raw ids of codes: int64, or str objects.

        Raises:
            InputError: a code outside 0 to N - 1.
        """
        index = np.asarray(codes, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            wrong = index[(index < 0) | (index >= len(self))].flat[0]
            raise InputError(f"{self.kind} {wrong} is outside 0 to {len(self) - 1}.")
        return self.raw[index]

    def take(self, keep: NDArray[Any]) -> Vocabulary:
        """The vocabulary of some codes, given in ascending order."""
        if self._ints is not None:
            return Vocabulary(self._ints[keep], self.kind)
        assert self._strings is not None
        return Vocabulary(self._strings.take(pa.array(keep)), self.kind)


def _listed(values: Any) -> Any:
    """A single id, or an iterable of ids, as something with a length."""
    return [values] if isinstance(values, (str, int, np.integer)) else values


def _distinct(ids: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The sorted distinct values; by marking where their range is small, by sorting where it is not."""
    assert ids is not None
    if len(ids) and ids.max() <= 4 * len(ids) + 2**20:
        seen = np.zeros(int(ids.max()) + 1, dtype=bool)
        seen[ids] = True
        return np.flatnonzero(seen)
    return np.unique(ids)


def _as_strings(ids: NDArray[np.int64]) -> pa.Array:
    return pa.array(ids).cast(pa.large_string())
