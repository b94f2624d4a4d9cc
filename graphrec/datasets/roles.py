"""Columns with a meaning of their own: behaviours, labels, parts; and which column has which role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.datasets.arrow import Place, as_array
from graphrec.datasets.columns import numbers, strings
from graphrec.datasets.tables import PART_NAMES, PARTS
from graphrec.errors import InputError

_PART_WORDS = {**PARTS, "validation": 1, "val": 1, "dev": 1, "training": 0, "testing": 2}


def words(values: Any, place: Place) -> tuple[NDArray[np.int32], list[str]]:
    """A column of few words as codes and words."""
    column = strings(values, place)
    if column.null_count:
        row = int(np.argmax(pc.is_null(column).to_numpy(False)))
        raise InputError(f"{place.row(row)}: no behaviour (null).")
    encoded = column.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    if len(words) > 64:
        raise InputError(f"{place}: {len(words)} different behaviours; expected a few words such as 'view' or 'buy'.")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32), words


def labels(values: Any, place: Place) -> NDArray[np.int8]:
    """A column of labels, 1 or 0."""
    label = numbers(values, place)
    wrong = (label != 0) & (label != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{place.row(row)}: label {label[row]:g}. Expected 1 (positive) or 0 (negative).")
    return label.astype(np.int8)


def parts(values: Any, place: Place) -> NDArray[np.int8]:
    """A column of parts as codes, -1 where none is given."""
    array = as_array(values, place)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        filled = pc.fill_null(array.cast(pa.float64()), -1)
        codes = np.asarray(filled.to_numpy())
        wrong = ~np.isin(codes, (-1, 0, 1, 2))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"{place.row(row)}: part {codes[row]:g}. Expected 0 (train), 1 (valid) or 2 (test).")
        return codes.astype(np.int8)
    column = strings(array, place).dictionary_encode()
    words = column.dictionary.to_pylist()
    index = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
    meaning = np.array([_part_of(word) for word in words] + [-1], np.int8)
    codes = meaning[index]
    wrong = codes == -2
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{place.row(row)}: part {words[index[row]]!r}. Expected one of {', '.join(PART_NAMES)}.")
    return codes


def _part_of(word: str) -> int:
    text = word.strip().lower()
    return int(text) if text in ("0", "1", "2") else _PART_WORDS.get(text, -2)


def as_mapping(columns: Mapping[str, str] | str | None, what: str = "columns") -> dict[str, str]:
    """``"user=uid,item=sku"`` as ``{"user": "uid", "item": "sku"}``.

    Args:
        columns: as a person wrote it, or the mapping itself; None: empty.
        what: the option, for messages.

    Raises:
        InputError: a part without ``=``, or with nothing on one side of it.
    """
    if not isinstance(columns, str):
        return dict(columns or {})
    pairs = [[word.strip() for word in entry.split("=", 1)] for entry in columns.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise InputError(f"{what} {columns!r}: expected role=column pairs such as user=uid,item=sku.")
    return {role: column for role, column in pairs}
