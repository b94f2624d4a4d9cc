"""Columns with their values checked: ids, numbers, times and texts, with the faulty row named where one is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.datasets.arrow import Place, as_array, contiguous, first_row
from graphrec.errors import InputError

_WHOLE = "^(0|[1-9][0-9]*)$"
_SIGNED = "^[+-]?[0-9]+$"
_DECIMAL = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class RawIds:
    """Ids as they were given: whole numbers, or strings with their distinct values apart.

    Attributes:
        ints: (N,) int64, None for strings.
        strings: the distinct strings, None for numbers.
        codes: (N,) which of ``strings`` each row holds.
        place: where they came from.
    """

    ints: NDArray[np.int64] | None
    strings: pa.Array | None
    codes: NDArray[np.int32] | None
    place: Place

    def __len__(self) -> int:
        return len(self.ints) if self.ints is not None else len(self.codes if self.codes is not None else ())

    def __getitem__(self, row: int) -> int | str:
        """The id of one row."""
        if self.ints is not None:
            return int(self.ints[row])
        assert self.strings is not None and self.codes is not None
        return str(self.strings[int(self.codes[row])].as_py())


def raw_ids(values: Any, place: Place, *, strict: bool = True) -> RawIds:
    """Ids out of a column.

    A column of strings that are all whole numbers, written without sign and leading zeros, is a column of numbers.

    Args:
        values: whole numbers or strings.
        place: where the column came from.
        strict: refuse strings that are all numbers but not whole and non-negative (of users and items; a value such as
            ``"4.5"`` may well be the name of an entity).

    Raises:
        InputError: null, empty, negative, decimal or out of 64 bits; names column and row.
    """
    array = as_array(values, place)
    kind = array.type
    if array.null_count:
        row = first_row(pc.is_null(array))
        raise InputError(f"{place.row(row)}: no id (null or NaN). Expected a whole number or a string.")
    if (
        pa.types.is_dictionary(kind)
        and not pa.types.is_string(kind.value_type)
        and not pa.types.is_large_string(kind.value_type)
    ):
        array = array.cast(kind.value_type)
        kind = array.type
    if pa.types.is_null(kind):
        return RawIds(np.empty(0, np.int64), None, None, place)
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            large = pc.greater(array, pa.scalar(2**63 - 1, pa.uint64()))
            if pc.any(large).as_py():
                row = first_row(large)
                raise InputError(f"{place.row(row)}: id {array[row].as_py()} is above 2^63 - 1.")
        ints = contiguous(array).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        if len(ints) and ints.min() < 0:
            row = first_row(ints < 0)
            raise InputError(f"{place.row(row)}: id {ints[row]} is negative. Expected ids from 0.")
        return RawIds(ints, None, None, place)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        if len(array) == 0:
            return RawIds(np.empty(0, np.int64), None, None, place)
        raise InputError(
            f"{place.row(0)}: id {array[0].as_py()} is a decimal number ({kind}). "
            "Expected whole numbers or strings; an integer column with gaps becomes decimal in pandas."
        )
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            array = array.cast(pa.large_string())
        except pa.ArrowInvalid as error:
            raise InputError(f"{place}: ids are bytes that are no UTF-8.") from error
    elif not (pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"{place}: ids of type {kind}. Expected whole numbers or strings.")
    return _string_ids(array, place, strict)


def _string_ids(array: pa.Array | pa.ChunkedArray, place: Place, strict: bool) -> RawIds:
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = contiguous(encoded.unify_dictionaries())
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    strings = encoded.dictionary.cast(pa.large_string())
    if strings.null_count:  # a null among the values of a dictionary
        bad = pc.is_null(strings).to_numpy(False)[codes]
        if bad.any():
            raise InputError(f"{place.row(first_row(bad))}: no id (null). Expected a whole number or a string.")
        strings = pc.fill_null(strings, "")
    blank = pc.equal(pc.binary_length(strings), 0).to_numpy(False)
    if blank.any() and (bad := blank[codes]).any():
        raise InputError(f"{place.row(first_row(bad))}: an empty id. Expected a whole number or a string.")

    def all_match(pattern: str) -> bool:
        return len(strings) > 0 and bool(pc.all(pc.match_substring_regex(strings, pattern)).as_py())

    if all_match(_WHOLE):
        try:
            distinct = strings.cast(pa.int64()).to_numpy(zero_copy_only=False)
            return RawIds(distinct[codes], None, None, place)
        except pa.ArrowInvalid as error:
            if not strict:
                return RawIds(None, strings, codes, place)
            large = np.array([int(text) >= 2**63 for text in strings.to_pylist()])
            row = first_row(large[codes])
            raise InputError(f"{place.row(row)}: id {strings[codes[row]]} is above 2^63 - 1.") from error
    if strict and all_match(_DECIMAL):
        if not all_match(_SIGNED):
            odd = ~pc.match_substring_regex(strings, _SIGNED).to_numpy(False)
            what = "a decimal number"
        else:
            odd = pc.starts_with(strings, "-").to_numpy(False)
            what = "negative"
        if odd.any():
            row = first_row(odd[codes])
            raise InputError(
                f"{place.row(row)}: id {strings[codes[row]].as_py()!r} is {what}. "
                "Expected whole numbers from 0, or words."
            )
    return RawIds(None, strings, codes, place)


def numbers(values: Any, place: Place, *, low: float | None = None, high: float | None = None) -> NDArray[np.float64]:
    """A column of finite numbers as float64.

    Raises:
        InputError: no number, NaN, infinite or outside ``low`` to ``high``; names column and row.
    """
    array = as_array(values, place)
    if array.null_count:
        raise InputError(f"{place.row(first_row(pc.is_null(array)))}: no number (null or NaN).")
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if not (
        pa.types.is_integer(array.type)
        or pa.types.is_floating(array.type)
        or pa.types.is_decimal(array.type)
        or pa.types.is_string(array.type)
        or pa.types.is_large_string(array.type)
        or pa.types.is_null(array.type)
    ):
        raise InputError(f"{place}: values of type {array.type}. Expected numbers.")
    try:
        floats = contiguous(array.cast(pa.float64(), safe=False)).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        for row, value in enumerate(array.to_pylist()):
            try:
                float(value)
            except ValueError:
                raise InputError(f"{place.row(row)}: {value!r} is no number.") from error
        raise InputError(f"{place}: {str(error).splitlines()[0]}") from error
    finite = np.isfinite(floats)
    if not finite.all():
        row = first_row(~finite)
        raise InputError(f"{place.row(row)}: {floats[row]} is not a finite number.")
    for bound, wrong in (
        (low, floats < low if low is not None else None),
        (high, floats > high if high is not None else None),
    ):
        if bound is not None and wrong is not None and wrong.any():
            row = first_row(wrong)
            raise InputError(f"{place.row(row)}: {floats[row]:g} is outside the scale {low:g} to {high:g}.")
    return floats


def singles(values: Any, place: Place, *, low: float | None = None, high: float | None = None) -> NDArray[np.float32]:
    """A column of numbers as float32 (see :func:`numbers`), refused where they do not fit."""
    floats = numbers(values, place, low=low, high=high)
    large = np.abs(floats) > np.finfo(np.float32).max
    if large.any():
        row = first_row(large)
        raise InputError(f"{place.row(row)}: {floats[row]:g} is too large for a float32.")
    return floats.astype(np.float32)


def times(values: Any, place: Place) -> NDArray[Any]:
    """A column of times: int64 where whole, else float64. Dates and timestamps become Unix seconds.

    Raises:
        InputError: NaN, null or no time; names column and row.
    """
    array = as_array(values, place)
    if array.null_count:
        raise InputError(f"{place.row(first_row(pc.is_null(array)))}: no time (null or NaN).")
    kind = array.type
    if (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and len(array):
        if pc.all(pc.match_substring_regex(array, "^[+-]?[0-9]{1,18}$")).as_py():
            return contiguous(array.cast(pa.int64())).to_numpy(zero_copy_only=False)
        if (
            pc.match_substring_regex(array[:1], _DECIMAL)[0].as_py()
            or not pc.match_substring_regex(array[:1], r"^[0-9]{4}-[0-9]{2}-[0-9]{2}")[0].as_py()
        ):
            return numbers(array, place)
        try:
            array = array.cast(pa.timestamp("us"))
        except pa.ArrowInvalid as error:
            raise InputError(f"{place}: {array[0].as_py()!r} is no time ({str(error).splitlines()[0]}).") from error
        kind = array.type
    if pa.types.is_date(kind):
        array = array.cast(pa.timestamp("ms"))
        kind = array.type
    if pa.types.is_timestamp(kind):
        scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        ticks = contiguous(array.cast(pa.int64())).to_numpy(zero_copy_only=False)
        whole, rest = np.divmod(ticks, scale)
        return whole if not rest.any() else ticks / scale
    if pa.types.is_integer(kind):
        try:
            return contiguous(array.cast(pa.int64())).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            raise InputError(f"{place}: times above 64 bits.") from error
    return numbers(array, place)


def strings(values: Any, place: Place) -> pa.Array:
    """A column of texts, null where there is none."""
    array = as_array(values, place)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.large_string())
    try:
        return contiguous(array.cast(pa.large_string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{place}: values of type {array.type}. Expected strings.") from error
