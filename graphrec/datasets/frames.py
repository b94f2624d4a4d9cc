"""Any csv, tsv or parquet file (gzip too), or a frame, with named columns: read into one arrow table for the builder.

All columns of a text file are read as strings and become ids, numbers or times in the builder, so that ``007`` stays
``007`` and a wrong value is reported with its line.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from graphrec.datasets.arrow import COLUMN_KEY, LINE_KEY, PATH_KEY, as_table, missing_column
from graphrec.errors import InputError, MissingFileError

SEPARATORS = ("\t", ",", ";", "|", "::", " ")
_QUOTED = (",", ";")
_PARQUET, _ARROW = b"PAR1", b"ARROW1"


def from_table(
    source: str | os.PathLike[str] | Any,
    columns: Mapping[str, str] | None = None,
    *,
    separator: str | None = None,
    header: bool = True,
    encoding: str = "utf-8",
) -> pa.Table:
    """The columns of a file or frame under the names of their roles.

    Args:
        source: a path (csv, tsv and the like, parquet, arrow; gzipped or not, known by content), or a frame.
        columns: role to column, such as ``{"user": "uid", "item": "sku", "time": "ts"}``; None: all, as they are named.
        separator: between fields of a text file; None: found from the first line.
        header: whether the first line names the columns; without it they are ``"0"``, ``"1"``, …
        encoding: of a text file.

    Returns:
        A table whose metadata tells the builder file and line, so that its errors can name them.

    Raises:
        InputError: the file is missing, empty, cut short, ragged or no table, or lacks a column; names file and line.
    """
    wanted = None if columns is None else dict(columns)
    if not isinstance(source, (str, os.PathLike)):
        table = as_table(source, None if wanted is None else list(wanted.values()))
        return table if wanted is None else _renamed(table, wanted)
    path = Path(source)
    magic = _opening(path)
    if magic.startswith((_PARQUET, _ARROW)):
        table = _binary(path, None if wanted is None else list(wanted.values()), magic)
    else:
        table = _text(path, None if wanted is None else list(wanted.values()), separator, header, encoding)
    return table if wanted is None else _renamed(table, wanted)


def is_binary(path: Path) -> bool:
    """Whether a file is parquet or arrow, by its first bytes.

    Raises:
        InputError: the file cannot be read.
    """
    return _opening(path).startswith((_PARQUET, _ARROW))


def _opening(path: Path) -> bytes:
    if not path.is_file():
        raise MissingFileError(f"{path} is not there." if not path.exists() else f"{path} is a folder, not a file.")
    try:
        with path.open("rb") as file:
            return file.read(6)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _renamed(table: pa.Table, wanted: Mapping[str, str]) -> pa.Table:
    chosen = pa.table([table[column] for column in wanted.values()], names=list(wanted))
    original = {COLUMN_KEY + role.encode(): column.encode() for role, column in wanted.items()}
    return chosen.replace_schema_metadata({**(table.schema.metadata or {}), **original})


def _with_place(table: pa.Table, path: Path, first_line: int) -> pa.Table:
    return table.replace_schema_metadata({PATH_KEY: str(path).encode(), LINE_KEY: str(first_line).encode()})


def _binary(path: Path, wanted: Sequence[str] | None, magic: bytes) -> pa.Table:
    """A parquet or arrow file; its rows count from 0."""
    try:
        if magic.startswith(_PARQUET):
            file = pq.ParquetFile(path, memory_map=True)
            names = list(file.schema_arrow.names)
            _check_columns(path, wanted, names)
            table = file.read(columns=list(dict.fromkeys(wanted)) if wanted is not None else None)
        else:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            _check_columns(path, wanted, table.column_names)
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: a damaged or cut file ({reason}). Copy or download it again.") from error
    if table.num_rows == 0:
        raise InputError(f"{path} is empty: it has columns but no rows.")
    return _with_place(table, path, -1)


def _check_columns(path: Path, wanted: Sequence[str] | None, found: Sequence[str]) -> None:
    for name in wanted or ():
        if name not in found:
            raise missing_column(name, found, str(path))
        if list(found).count(name) > 1:
            raise InputError(f"{path}: column {name!r} occurs {list(found).count(name)} times in the header.")


def _text(path: Path, wanted: Sequence[str] | None, separator: str | None, header: bool, encoding: str) -> pa.Table:
    # Imported only here: the adapters import this module.
    from graphrec.datasets.adapters.parsing import read_bytes

    if separator == "":
        raise InputError(f"{path}: an empty separator. Expected one such as ',' or a tab.")
    data = _decoded(path, read_bytes(path), encoding)
    blank = len(data) - len(data.lstrip(b"\n"))
    first = data[blank : _line_end(data, blank)].decode()
    found = separator if separator is not None else _sniff(first, wanted if header else None)
    delimiter = found
    if len(found) > 1 or not found.isascii():
        delimiter = "\x1f"
        data = data.replace(found.encode(), delimiter.encode())
        first = first.replace(found, delimiter)
    quoted = found in _QUOTED and b'"' in data
    fields = _fields(first, delimiter, quoted)
    names = [field.strip() for field in fields] if header else [str(place) for place in range(len(fields))]
    try:
        _check_columns(path, wanted, names)
    except InputError as error:
        hint = "" if len(names) > 1 else f" The line was read with separator {found!r}; say which one with separator=."
        raise InputError(f"{error}{hint}") from None
    if wanted is None and len(set(names)) < len(names):
        raise InputError(f"{path}: two columns have the same name in the header: {', '.join(map(repr, names))}.")
    begin = min(_line_end(data, blank) + 1, len(data)) if header else blank
    included = list(dict.fromkeys(wanted if wanted is not None else names))
    first_line = 1 + header + blank
    try:
        table = _read(memoryview(data)[begin:], len(names), [names.index(name) for name in included], delimiter, quoted)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        if not data[begin:].strip():
            raise InputError(f"{path} is empty: it has a header but no rows.") from error
        raise _ragged(path, data[begin:], len(names), delimiter, found, quoted, first_line, error) from error
    if table.num_rows == 0:
        raise InputError(f"{path} is empty: it has a header but no rows.")
    # Blank lines and line ends inside quotes make rows and lines differ; then rows are named.
    lines = data.count(b"\n", begin) + (not data.endswith(b"\n"))
    return _with_place(table.rename_columns(included), path, first_line if lines == table.num_rows else -1)


def _line_end(data: bytes, start: int) -> int:
    end = data.find(b"\n", start)
    return end if end >= 0 else len(data)


def _read(body: memoryview, width: int, included: Sequence[int], delimiter: str, quoted: bool) -> pa.Table:
    """Some columns of the lines of a text, as strings."""
    positions = [str(place) for place in included]
    return arrow_csv.read_csv(
        pa.BufferReader(body),
        read_options=arrow_csv.ReadOptions(column_names=[str(place) for place in range(width)], block_size=2**24),
        parse_options=arrow_csv.ParseOptions(
            delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types={place: pa.string() for place in positions},
            include_columns=positions,
            strings_can_be_null=False,
        ),
    )


def _decoded(path: Path, data: bytes, encoding: str) -> bytes:
    plain = encoding.lower().replace("-", "") == "utf8"
    if plain and data.isascii():
        return data
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise InputError(f"{path}: unknown encoding {encoding!r}.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: no {encoding} text. Save it as UTF-8, or say encoding='latin-1' or what it is."
        ) from error
    return data if plain else text.encode()


def _fields(line: str, delimiter: str, quoted: bool) -> list[str]:
    if not quoted:
        return line.split(delimiter)
    try:
        return next(csv.reader(io.StringIO(line), delimiter=delimiter), [line])
    except csv.Error:
        return line.split(delimiter)


def _sniff(line: str, wanted: Sequence[str] | None) -> str:
    """The separator that finds the most of the wanted columns in the header, then the one that makes the most
    fields."""

    def score(separator: str) -> tuple[int, float]:
        fields = (
            [field.strip() for field in _fields(line, separator, separator in _QUOTED)]
            if (len(separator) == 1)
            else line.split(separator)
        )
        return len(set(fields) & set(wanted or ())), len(fields) - (separator == " ") * 0.5

    return max(SEPARATORS, key=score) if line else ","


def _ragged(
    path: Path, body: bytes, width: int, delimiter: str, separator: str, quoted: bool, first_line: int, error: Exception
) -> InputError:
    """The error of the first line whose number of fields differs from the header's."""
    lines = body.decode("utf-8", "replace")
    reader = csv.reader(io.StringIO(lines), delimiter=delimiter) if quoted else None
    try:
        rows = (
            ((reader.line_num, row) for row in reader)
            if reader is not None
            else ((number, line.split(delimiter)) for number, line in enumerate(lines.split("\n"), 1))
        )
        for number, row in rows:
            if row and row != [""] and len(row) != width:
                return InputError(
                    f"{path}, line {number + first_line - 1}: {len(row)} fields separated by {separator!r}, "
                    f"expected {width}."
                )
    except csv.Error as cause:
        return InputError(f"{path}: no table ({cause}).")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{path}: no table with separator {separator!r} ({reason}).")
