"""Delimited tables (TSV, CSV, ``::``) to arrow columns, with the faulty line named where there is one.

The fast path is arrow's reader; when it refuses, or a value is not allowed, a slow path goes record by record to find
out where.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from graphrec.datasets.adapters.parsing import fault_of_id, read_bytes, show
from graphrec.errors import InputError


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name in the header, or the name it gets where there is none.
        kind: ``id`` a whole number from 0; ``token`` the same where all are, else text; ``float``; ``text``.
        low: the smallest value a number may have.
        high: the largest.
        optional: whether the header may lack it.
    """

    name: str
    kind: Literal["id", "token", "float", "text"] = "text"
    low: float | None = None
    high: float | None = None
    optional: bool = False

    def fault(self, field: str) -> str | None:
        """What is wrong with a field, None where nothing is."""
        if self.kind == "id":
            return fault_of_id(field) or self._outside(int(field.strip(" ")), field)
        if self.kind == "token":
            return None if field.strip() else "an empty id"
        if self.kind == "text":
            return None
        try:
            value = float(field)
        except ValueError:
            return f"{show(field)} is no number" if field.strip() else "an empty field"
        if not np.isfinite(value):
            return f"{show(field)} is not finite"
        return self._outside(value, field)

    def _outside(self, value: float, field: str) -> str | None:
        low, high = self.low, self.high
        if (low is None or value >= low) and (high is None or value <= high):
            return None
        if low is not None and high is not None:
            return f"{show(field)} is outside the scale {low:g} to {high:g}"
        return f"{show(field)} is {'below' if high is None else 'above'} {low if high is None else high:g}"


_ARROW = {"id": pa.int64(), "token": pa.string(), "float": pa.float64(), "text": pa.string()}
_EXPECTED = {"id": "a whole number from 0 to 2^63 - 1", "token": "an id", "float": "a finite number", "text": "text"}


def table(
    path: Path,
    columns: Sequence[Column],
    *,
    separator: str = "\t",
    header: bool = True,
    encoding: str = "utf-8",
    quoted: bool = False,
) -> pa.Table:
    """Read a delimited file into an arrow table with the asked columns, in their order.

    Args:
        path: the file, gzipped or not.
        columns: what is asked; without a header, the fields of each line from the left.
        separator: between fields; may be longer than one character (``::``).
        header: whether the first line names the columns.
        encoding: of the text.
        quoted: whether ``"`` quotes fields, as in CSV.

    Raises:
        InputError: names the line and the field.
    """
    data = _recode(path, read_bytes(path), encoding)
    layout = _Layout(path, [column.name for column in columns], list(columns), separator, separator, 0, quoted)
    if len(separator) > 1:
        layout = replace(layout, delimiter="\x1f")
        data = data.replace(separator.encode(), b"\x1f")
    if header:
        layout, data = _take_header(layout, data)
    try:
        read = _arrow(layout, data)
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError) as error:
        _locate(layout, data)
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    # Arrow reads 0x1F as a number, and a quotation mark that is left open as if it were closed at the end.
    if b"0x" in data or b"0X" in data or (quoted and data.count(b'"') % 2):
        _locate(layout, data)
    if not all(_plausible(column, read.column(column.name)) for column in layout.columns):
        _locate(layout, data)
        raise InputError(f"{path}: a value that is out of range, on a line that could not be told.")
    for index, column in enumerate(layout.columns):
        if column.kind == "token":
            read = read.set_column(index, column.name, tokens(read.column(column.name)))
    return read


@dataclass(frozen=True)
class _Layout:
    """How the body of a delimited file is laid out: all its fields, those that are asked, lines before the body."""

    path: Path
    names: list[str]
    columns: list[Column]
    separator: str
    delimiter: str
    before: int
    quoted: bool


def _recode(path: Path, data: bytes, encoding: str) -> bytes:
    """The same text as UTF-8; names the first line that is not in its encoding."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not {encoding.upper()}. "
            "Save the file in that encoding."
        ) from error
    return data if encoding == "utf-8" else text.encode("utf-8")


def _take_header(layout: _Layout, data: bytes) -> tuple[_Layout, bytes]:
    """Read the first line that is not blank as the header; the layout it gives and the body below it."""
    lines = 1
    line, _, body = data.partition(b"\n")
    while not line.strip():
        line, _, body = body.partition(b"\n")
        lines += 1
    text = line.decode("utf-8")
    names = [name.strip() for name in _fields(text, layout.delimiter, layout.quoted)]
    missing = [c.name for c in layout.columns if c.name not in names and not c.optional]
    if missing:
        others = [mark for mark in ("\t", ",", ";", "|", "::", " ") if mark in text and mark != layout.separator]
        hint = f" The line holds {', '.join(map(repr, others))}: is the separator another?" if others else ""
        raise InputError(
            f"{layout.path}, line {lines}: no column {', '.join(map(repr, missing))}. Found, split at "
            f"{layout.separator!r}: {', '.join(show(name) for name in names[:20])}.{hint}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{layout.path}, line {lines}: two columns are named {show(twice[0])}.")
    if not body.strip():
        raise InputError(f"{layout.path} has a header and no rows.")
    wanted = [column for column in layout.columns if column.name in names]
    return replace(layout, names=names, columns=wanted, before=lines), body


def _arrow(layout: _Layout, data: bytes) -> pa.Table:
    """The fast path of :func:`table`."""
    return arrow_csv.read_csv(
        pa.BufferReader(data),
        read_options=arrow_csv.ReadOptions(
            use_threads=False, block_size=min(len(data) + 1024, 2**30), column_names=layout.names
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char='"' if layout.quoted else False,
            newlines_in_values=layout.quoted,
            ignore_empty_lines=True,
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types={column.name: _ARROW[column.kind] for column in layout.columns},
            include_columns=[column.name for column in layout.columns],
            null_values=[],
            strings_can_be_null=False,
        ),
    )


def _plausible(column: Column, values: pa.ChunkedArray) -> bool:
    """Whether the values of a column that arrow could convert are all allowed."""
    if column.kind == "id":
        low, high = max(column.low or 0, 0), 2**63 if column.high is None else column.high
        return len(values) == 0 or bool(low <= pc.min(values).as_py() and pc.max(values).as_py() <= high)
    if column.kind == "token":
        return not pc.any(pc.equal(pc.utf8_trim_whitespace(values), "")).as_py()
    if column.kind == "float":
        array = values.to_numpy()
        low = -np.inf if column.low is None else column.low
        high = np.inf if column.high is None else column.high
        return bool((np.isfinite(array) & (array >= low) & (array <= high)).all())
    return True


def tokens(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Ids that may be numbers or text: int64 where every one is a plain whole number, else the text as it is."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    plain = pc.match_substring_regex(values, r"^(0|[1-9][0-9]{0,17})$")
    return pc.cast(values, pa.int64()) if len(values) and pc.all(plain).as_py() else values


def _fields(line: str, delimiter: str, quoted: bool) -> list[str]:
    if not quoted:
        return line.split(delimiter)
    return next(iter(csv.reader([line], delimiter=delimiter)), [])


def _records(layout: _Layout, data: bytes) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every record that is not blank."""
    text = data.decode("utf-8", "replace")
    if not layout.quoted:
        for number, line in enumerate(text.split("\n"), layout.before + 1):
            if line:
                yield number, line.split(layout.delimiter)
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=layout.delimiter, strict=True)
    begin = 0
    try:
        for row in reader:
            if row:
                yield layout.before + begin + 1, row
            begin = reader.line_num
    except csv.Error as error:
        at = layout.before + begin + 1
        raise InputError(f"{layout.path}, line {at}: {error}. Is a quotation mark left open?") from error


def _locate(layout: _Layout, data: bytes) -> None:
    """Raise an :class:`InputError` for the first record that has a fault, if one can be found."""
    place = {name: index for index, name in enumerate(layout.names)}
    separator = layout.separator
    for line, fields in _records(layout, data):
        if len(fields) != len(layout.names):
            raise InputError(
                f"{layout.path}, line {line}: {len(fields)} fields when split at {separator!r}. "
                f"Expected {len(layout.names)}: {', '.join(layout.names[:20])}."
            )
        for column in layout.columns:
            fault = column.fault(fields[place[column.name]])
            if fault:
                raise InputError(
                    f"{layout.path}, line {line}, column {column.name!r}: {fault}. Expected {_EXPECTED[column.kind]}."
                )
