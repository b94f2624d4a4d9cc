"""Cells of a catalogue's column as (row, value) pairs: texts, lists, several values in one text, numbers in bins."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.datasets.arrow import Place, as_array, contiguous
from graphrec.errors import InputError

# Between the levels of a path that came as a list: no catalogue has this mark in its texts.
LEVEL = "\x1f"
_AROUND = re.compile(r"^[\s$€£¥]+|[\s$€£¥%]+$")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")


@dataclass(frozen=True)
class Cells:
    """P values with the rows they came from.

    Attributes:
        row: (P,) int64.
        value: (P,) arrow strings, neither null nor blank nor a word for a missing value.
        missing: how many rows have no value.
        nested: whether values are paths whose levels :data:`LEVEL` parts.
        decimal: whether the column holds numbers, not all of them whole.
    """

    row: NDArray[np.int64]
    value: pa.Array
    missing: int
    nested: bool = False
    decimal: bool = False


def cells_of(values: object, place: Place, separator: str | None, missing: Sequence[str], *, paths: bool) -> Cells:
    """The values of a column, each cell taken apart where it holds several.

    Args:
        values: texts, numbers, dates, lists of these, or lists of lists of texts.
        place: of the column, for messages.
        separator: between the values of a text; None: a text is one value.
        missing: words that stand for no value, whatever their case.
        paths: whether the inner lists of lists are paths; otherwise all their texts are values.

    Raises:
        InputError: cells of another type.
    """
    array = contiguous(as_array(values, place))
    size, nested = len(array), False
    row = np.arange(size, dtype=np.int64)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if _is_list(array.type):
        row, array = _flat(row, array)
    if _is_list(array.type) and not paths:
        row, array = _flat(row, array)
    elif _is_list(array.type):
        array, nested = _joined(array, place), True
    words, decimal = _texts(array, place)
    if separator is not None:
        row, words = _flat(row, pc.split_pattern(words, separator))
    words = pc.utf8_trim_whitespace(words)
    absent = pa.array(sorted({word.strip().lower() for word in missing} | {""}), pa.large_string())
    keep = np.asarray(pc.is_valid(words)) & ~np.asarray(pc.is_in(pc.utf8_lower(words), value_set=absent))
    row, words = row[keep], words.filter(pa.array(keep))
    return Cells(row, words, size - int((np.bincount(row, minlength=size) > 0).sum()), nested, decimal)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _flat(row: NDArray[np.int64], lists: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """The elements of lists, and the row of each; a null list has none."""
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    return row[parents.astype(np.int64)], pc.list_flatten(lists)


def _joined(lists: pa.Array, place: Place) -> pa.Array:
    """Each list of texts as one text whose parts :data:`LEVEL` separates."""
    inner = lists.type.value_type
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner)):
        raise InputError(f"{place}: lists of lists of {inner}. Expected paths: lists of lists of texts.")
    return pc.binary_join(lists.cast(pa.list_(pa.string())), LEVEL).cast(pa.large_string())


def _texts(array: pa.Array, place: Place) -> tuple[pa.Array, bool]:
    """Values as texts (whole numbers without a point), and whether they are numbers that are not all whole."""
    kind = array.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        floats = array.cast(pa.float64(), safe=False)
        finite = pc.and_(pc.is_valid(floats), pc.is_finite(floats))
        floats = pc.if_else(finite, floats, pa.scalar(None, pa.float64()))
        dense = np.asarray(floats.drop_null())
        if not len(dense) or ((dense == np.rint(dense)) & (np.abs(dense) < 2**53)).all():
            return floats.cast(pa.int64()).cast(pa.large_string()), False
        return floats.cast(pa.large_string()), True
    if (
        _is_list(kind)
        or pa.types.is_struct(kind)
        or pa.types.is_map(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    ):
        raise InputError(f"{place}: values of type {kind}. Expected texts, numbers, or lists of them.")
    try:
        return array.cast(pa.large_string()), False
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{place}: values of type {kind}. Expected texts, numbers, or lists of them.") from error


def _number(text: str) -> float:
    """The number of a text, with a currency sign and thousands separators if it has them; NaN where it is none."""
    plain = _AROUND.sub("", text)
    if _THOUSANDS.fullmatch(plain):
        plain = plain.replace(",", "")
    try:
        return float(plain)
    except ValueError:
        return np.nan


def binned(cells: Cells, bins: int | Sequence[float], binning: str, place: Place) -> tuple[Cells, list[str], int]:
    """Numbers replaced by the bins they lie in, which are named by their edges.

    Args:
        cells: of a column of numbers.
        bins: how many, or the inner edges, ascending; a number on an edge lies in the bin above it.
        binning: ``quantile`` edges have about as many values between them, ``width`` edges the same distance.
        place: of the column, for messages.

    Returns:
        the cells with names of bins, all names from the lowest to the highest, and how many values were no numbers.

    Raises:
        InputError: no number at all, or inner edges that do not ascend.
    """
    encoded = cells.value.dictionary_encode()
    distinct = np.array([_number(text) for text in encoded.dictionary.to_pylist()], dtype=np.float64)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    numbers = distinct[codes] if len(distinct) else np.empty(0)
    good = np.isfinite(numbers)
    if not good.any():
        found = f" such as {cells.value[0].as_py()!r}" if len(cells.value) else ""
        raise InputError(f"{place}: no numbers to bin; found {len(cells.value)} values{found}.")
    numbers = numbers[good]
    if isinstance(bins, int):
        share = np.arange(1, bins) / bins
        low, high = float(numbers.min()), float(numbers.max())
        edges = np.quantile(numbers, share) if binning == "quantile" else low + share * (high - low)
        edges = np.unique(np.array([float(f"{edge:.6g}") for edge in edges]))
        edges = edges[(edges > low) & (edges <= high)]
    else:
        edges = np.asarray(bins, np.float64)
        if edges.ndim != 1 or not len(edges) or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise InputError(f"{place}: bins {list(bins)}: expected ascending inner edges.")
    shown = [f"{edge:g}" for edge in edges]
    if len(edges):
        inner = [f"{low} to below {high}" for low, high in itertools.pairwise(shown)]
        names = [f"below {shown[0]}", *inner, f"{shown[-1]} and above"]
    else:
        names = [f"{numbers[0]:g}"]
    which = np.searchsorted(edges, numbers, side="right")
    value = pa.array(names, pa.large_string()).take(pa.array(which))
    return Cells(cells.row[good], value, cells.missing, False, False), names, int((~good).sum())
