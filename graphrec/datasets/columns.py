"""Columns of any frame, checked: ids, numbers and times, with the faulty row named where one is wrong."""

from __future__ import annotations

import difflib
import numbers as number_types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.errors import InputError

PATH_KEY = b"graphrec.path"
LINE_KEY = b"graphrec.first_line"
COLUMN_KEY = b"graphrec.column."

_WHOLE = "^(0|[1-9][0-9]*)$"
_SIGNED = "^[+-]?[0-9]+$"
_DECIMAL = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class Place:
    """Where a column came from, for messages.

    Attributes:
        call: what was being added ("interactions").
        column: the column's name.
        path: the file, None for a frame.
        first_line: the line of the file that holds row 0; below 1 where rows are no lines.
    """

    call: str
    column: str
    path: str | None = None
    first_line: int = 1

    def row(self, index: int) -> str:
        """The place of one row: file and line, or the row number from 0."""
        if self.path is not None:
            where = f"line {index + self.first_line}" if self.first_line > 0 else f"row {index} (from 0)"
            return f"{self.path}, {where}, column {self.column!r}"
        return f"{self.call}: column {self.column!r}, row {index}"

    def __str__(self) -> str:
        return f"{self.path or self.call}: column {self.column!r}"


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


def missing_column(name: str, found: Iterable[str], place: str) -> InputError:
    """The error for a column that is not there: what was found, and the nearest name."""
    names = list(found)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"{place}: no column {name!r}.{hint} Found: {', '.join(map(repr, names)) or 'none'}.")


def column_names(frame: Any) -> list[str]:
    """The column names of a frame, without converting it."""
    if isinstance(frame, Mapping):
        return [str(name) for name in frame]
    if hasattr(frame, "collect_schema"):  # polars
        return list(frame.collect_schema().names())
    names = getattr(frame, "column_names", None)
    if names is None:
        names = getattr(frame, "columns", None)
    if names is None:
        schema = getattr(frame, "schema", None)
        names = getattr(schema, "names", None)
    return [] if names is None else [str(name) for name in names]


def as_table(frame: Any, columns: Sequence[str] | None = None, call: str = "table") -> pa.Table:
    """Some columns of a frame as an arrow table.

    Args:
        frame: pandas, pyarrow, polars, anything with the Arrow C stream interface, or a mapping of columns.
        columns: the columns that are needed (default: all).
        call: what is being added, for messages.

    Raises:
        InputError: no frame, a column that is missing or mixes types, or columns of unequal lengths.
    """
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    elif hasattr(frame, "collect") and hasattr(frame, "lazy"):  # a lazy frame of polars
        frame = frame.collect()
    if not isinstance(frame, (pa.Table, Mapping)) and not hasattr(frame, "iloc"):
        if not hasattr(frame, "__arrow_c_stream__"):
            raise InputError(
                f"{call}: expected a frame (pandas, pyarrow, polars, anything with the Arrow stream interface) "
                f"or a mapping of columns, got {type(frame).__name__}."
            )
        frame = pa.table(frame)
    found = column_names(frame)
    wanted = list(dict.fromkeys(found if columns is None else columns))
    for name in wanted:
        if name not in found:
            raise missing_column(name, found, call)
    if found and len(set(found)) != len(found):
        twice = sorted({name for name in wanted if found.count(name) > 1})
        if twice:
            raise InputError(f"{call}: column {twice[0]!r} occurs {found.count(twice[0])} times.")
    if isinstance(frame, pa.Table):
        return frame.select(wanted)
    originals = {str(name): name for name in (frame if isinstance(frame, Mapping) else frame.columns)}
    arrays = {name: as_array(frame[originals[name]], Place(call, name)) for name in wanted}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise InputError(f"{call}: columns of unequal lengths: {shown}.")
    return pa.table(arrays)


def as_array(values: Any, place: Place) -> pa.Array | pa.ChunkedArray:
    """One column as an arrow array.

    Raises:
        InputError: values of mixed types, more than one dimension, or a whole number above 64 bits.
    """
    if hasattr(values, "to_arrow"):  # polars
        values = values.to_arrow()
    elif (
        hasattr(values, "__arrow_c_stream__")
        and not isinstance(values, pa.ChunkedArray)
        and not hasattr(values, "iloc")
    ):
        values = pa.chunked_array(values)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        # Views are a second form of strings that most of arrow's functions do not know.
        return values.cast(pa.large_string()) if str(values.type) == "string_view" else values
    if not hasattr(values, "dtype") and not isinstance(values, (list, tuple)):
        values = list(values)
    if getattr(values, "ndim", 1) != 1:
        raise InputError(f"{place}: expected one dimension, got {values.ndim}.")
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise _odd_value(list(values), place, error) from error


def _odd_value(values: list[Any], place: Place, error: Exception) -> InputError:
    """The error for a Python column that arrow refuses: the first row that differs from those before."""
    seen: type | None = None
    for row, value in enumerate(values):
        if isinstance(value, number_types.Integral) and not isinstance(value, bool):
            if not -(2**63) <= int(value) < 2**63:
                return InputError(f"{place.row(row)}: {value} does not fit in 64 bits.")
            kind: type = int
        else:
            kind = type(value)
        if seen is not None and kind is not seen and value is not None:
            return InputError(
                f"{place.row(row)}: {value!r} is {kind.__name__}, the rows before are {seen.__name__}. "
                "Expected one type in a column."
            )
        seen = seen or (kind if value is not None else None)
    return InputError(f"{place}: {str(error).splitlines()[0]}")


def place_of(table: pa.Table, call: str, column: str) -> Place:
    """Where a column of a table came from, by the table's metadata."""
    metadata = table.schema.metadata or {}
    path = metadata.get(PATH_KEY)
    column = metadata.get(COLUMN_KEY + column.encode(), column.encode()).decode()
    if path is None:
        return Place(call, column)
    return Place(call, column, path.decode(), int(metadata.get(LINE_KEY, b"1")))


def _first(mask: pa.Array | pa.ChunkedArray | NDArray[np.bool_]) -> int:
    """The first true row of a mask."""
    if not isinstance(mask, np.ndarray):
        mask = pc.fill_null(mask, False)
        mask = np.asarray(mask.to_numpy() if isinstance(mask, pa.ChunkedArray) else mask.to_numpy(False))
    return int(np.argmax(mask))


def _contiguous(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        return (
            array.chunk(0)
            if array.num_chunks == 1
            else pa.concat_arrays(array.chunks or [pa.array([], type=array.type)])
        )
    return array


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
        row = _first(pc.is_null(array))
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
                row = _first(large)
                raise InputError(f"{place.row(row)}: id {array[row].as_py()} is above 2^63 - 1.")
        ints = _contiguous(array).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        if len(ints) and ints.min() < 0:
            row = _first(ints < 0)
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
        encoded = _contiguous(encoded.unify_dictionaries())
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    strings = encoded.dictionary.cast(pa.large_string())
    if strings.null_count:  # a null among the values of a dictionary
        bad = pc.is_null(strings).to_numpy(False)[codes]
        if bad.any():
            raise InputError(f"{place.row(_first(bad))}: no id (null). Expected a whole number or a string.")
        strings = pc.fill_null(strings, "")
    blank = pc.equal(pc.binary_length(strings), 0).to_numpy(False)
    if blank.any() and (bad := blank[codes]).any():
        raise InputError(f"{place.row(_first(bad))}: an empty id. Expected a whole number or a string.")

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
            row = _first(large[codes])
            raise InputError(f"{place.row(row)}: id {strings[codes[row]]} is above 2^63 - 1.") from error
    if strict and all_match(_DECIMAL):
        if not all_match(_SIGNED):
            odd = ~pc.match_substring_regex(strings, _SIGNED).to_numpy(False)
            what = "a decimal number"
        else:
            odd = pc.starts_with(strings, "-").to_numpy(False)
            what = "negative"
        if odd.any():
            row = _first(odd[codes])
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
        raise InputError(f"{place.row(_first(pc.is_null(array)))}: no number (null or NaN).")
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
        floats = _contiguous(array.cast(pa.float64(), safe=False)).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        for row, value in enumerate(array.to_pylist()):
            try:
                float(value)
            except ValueError:
                raise InputError(f"{place.row(row)}: {value!r} is no number.") from error
        raise InputError(f"{place}: {str(error).splitlines()[0]}") from error
    finite = np.isfinite(floats)
    if not finite.all():
        row = _first(~finite)
        raise InputError(f"{place.row(row)}: {floats[row]} is not a finite number.")
    for bound, wrong in (
        (low, floats < low if low is not None else None),
        (high, floats > high if high is not None else None),
    ):
        if bound is not None and wrong is not None and wrong.any():
            row = _first(wrong)
            raise InputError(f"{place.row(row)}: {floats[row]:g} is outside the scale {low:g} to {high:g}.")
    return floats


def singles(values: Any, place: Place, *, low: float | None = None, high: float | None = None) -> NDArray[np.float32]:
    """A column of numbers as float32 (see :func:`numbers`), refused where they do not fit."""
    floats = numbers(values, place, low=low, high=high)
    large = np.abs(floats) > np.finfo(np.float32).max
    if large.any():
        row = _first(large)
        raise InputError(f"{place.row(row)}: {floats[row]:g} is too large for a float32.")
    return floats.astype(np.float32)


def times(values: Any, place: Place) -> NDArray[Any]:
    """A column of times: int64 where whole, else float64. Dates and timestamps become Unix seconds.

    Raises:
        InputError: NaN, null or no time; names column and row.
    """
    array = as_array(values, place)
    if array.null_count:
        raise InputError(f"{place.row(_first(pc.is_null(array)))}: no time (null or NaN).")
    kind = array.type
    if (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and len(array):
        if pc.all(pc.match_substring_regex(array, "^[+-]?[0-9]{1,18}$")).as_py():
            return _contiguous(array.cast(pa.int64())).to_numpy(zero_copy_only=False)
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
        ticks = _contiguous(array.cast(pa.int64())).to_numpy(zero_copy_only=False)
        whole, rest = np.divmod(ticks, scale)
        return whole if not rest.any() else ticks / scale
    if pa.types.is_integer(kind):
        try:
            return _contiguous(array.cast(pa.int64())).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            raise InputError(f"{place}: times above 64 bits.") from error
    return numbers(array, place)


def strings(values: Any, place: Place) -> pa.Array:
    """A column of texts, null where there is none."""
    array = as_array(values, place)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.large_string())
    try:
        return _contiguous(array.cast(pa.large_string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{place}: values of type {array.type}. Expected strings.") from error
