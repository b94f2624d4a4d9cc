"""Any frame or column as arrow, and the place it came from, so that errors can name file, line and column."""

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


def first_row(mask: pa.Array | pa.ChunkedArray | NDArray[np.bool_]) -> int:
    """The first true row of a mask."""
    if not isinstance(mask, np.ndarray):
        mask = pc.fill_null(mask, False)
        mask = np.asarray(mask.to_numpy() if isinstance(mask, pa.ChunkedArray) else mask.to_numpy(False))
    return int(np.argmax(mask))


def contiguous(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The array in one piece."""
    if isinstance(array, pa.ChunkedArray):
        return (
            array.chunk(0)
            if array.num_chunks == 1
            else pa.concat_arrays(array.chunks or [pa.array([], type=array.type)])
        )
    return array
