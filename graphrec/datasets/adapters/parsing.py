"""Text files to columns, fast where the file is well formed, with the faulty line named where it is not.

Every reader has two paths: a vectorised one over the bytes, and, only when that one refuses, a slow one that goes line by
line to say what is wrong where. Nothing here knows what the columns mean.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from graphrec.errors import InputError, MissingFileError

Ints = NDArray[np.int64]
GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
INT64 = 2**63 - 1
_SHOWN = 60
_WHOLE = re.compile(r"[0-9]+")
_SIGNED = re.compile(r"[+-][0-9]+")

# What each byte may be in a file of whole numbers: 0 is a fault, 1 a digit, 2 white space.
_CLASS = np.zeros(256, np.uint8)
_CLASS[list(b"0123456789")] = 1
_CLASS[list(b" \t\n")] = 2


def show(text: str) -> str:
    """A piece of a file for a message: quoted, cut when long."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def read_bytes(path: Path, *, empty: bool = False) -> bytes:
    """The bytes of a text file, unpacked when gzipped, line ends made ``\\n``, the byte-order mark gone.

    Args:
        path: the file; gzip is seen by its first bytes, whatever the name.
        empty: whether a file without a single character is fine.

    Raises:
        MissingFileError: there is no such file.
        InputError: unreadable, a broken gzip, NUL bytes, or empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} is not there.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if data.startswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(
                f"{path}: the gzip file is cut short or damaged ({error}). Copy or download it again."
            ) from error
    data = data.removeprefix(BOM)
    nul = data.find(b"\0")
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise InputError(
            f"{path}, line {line}: a NUL byte. This is no text file, or one in UTF-16: save it as UTF-8."
        )
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not empty and not data.strip():
        raise InputError(f"{path} is empty. Expected at least one line of data; copy or download it again.")
    return data


def head(path: Path, size: int = 4096) -> str:
    """The beginning of a file as text, for recognising a format; the empty string where there is nothing to read."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
        with gzip.open(path) if packed else path.open("rb") as stream:
            data = stream.read(size)
    except (OSError, EOFError, zlib.error):
        return ""
    return data.removeprefix(BOM).decode("utf-8", "replace").replace("\r\n", "\n")


def first_line(path: Path) -> str:
    """The first line that is not blank, without its end."""
    return next((line for line in head(path).split("\n") if line.strip()), "")


def fault_of_id(token: str) -> str | None:
    """What is wrong with a token that should be an id (a whole number from 0 to 2^63 - 1); None: nothing."""
    text = token.strip()
    if _WHOLE.fullmatch(text):
        # Compared by length first: int() of a huge text is slow, and refused above 4,300 digits.
        digits = text.lstrip("0")
        return f"{show(text)} is above 2^63 - 1" if len(digits) > 19 or int(digits or "0") > INT64 else None
    if _SIGNED.fullmatch(text):
        return f"{show(text)} is negative" if text.startswith("-") else f"{show(text)} has a sign"
    if not text:
        return "an empty field"
    try:
        float(text)
    except ValueError:
        return f"{show(text)} is no number"
    return f"{show(text)} is no whole number"


@dataclass(frozen=True)
class Ragged:
    """Lines of whole numbers, as many on each line as there are.

    Drawn for the lines ``7 1 2`` and ``9 4``::

        values  7 1 2 9 4
        indptr  0     3   5

    Attributes:
        values: (T,) int64, all numbers in order.
        indptr: (L + 1,) int64, where each line that is not blank begins.
        line: (L,) int64, the number of each of them in the file, from 1.
    """

    values: Ints
    indptr: Ints
    line: Ints

    def __len__(self) -> int:
        return len(self.line)

    @property
    def counts(self) -> Ints:
        """(L,) how many numbers each line has."""
        return np.diff(self.indptr)

    @property
    def first(self) -> Ints:
        """(L,) the first number of each line."""
        return self.values[self.indptr[:-1]]

    def rest(self) -> tuple[Ints, Ints]:
        """All numbers but the first of each line: (index of the line, number), two (T - L,) arrays."""
        owner = np.repeat(np.arange(len(self)), self.counts)
        keep = np.ones(len(self.values), dtype=bool)
        keep[self.indptr[:-1]] = False
        return owner[keep], self.values[keep]

    def pairs(self) -> tuple[Ints, Ints]:
        """For lines ``user item item …``: (user, item) of each interaction."""
        owner, items = self.rest()
        return self.first[owner], items


def ragged(path: Path, *, blank: bool = False, what: str = "user item item …") -> Ragged:
    """Read lines of whole numbers separated by spaces or tabs.

    Args:
        path: the file, gzipped or not.
        blank: whether a blank line counts as a line without numbers (where the line number is an id); otherwise blank
            lines are skipped.
        what: the form of a line, for the message.

    Raises:
        InputError: anything but whole numbers from 0 to 2^63 - 1; names the line.
    """
    data = read_bytes(path)
    codes = np.frombuffer(data, np.uint8)
    kind = _CLASS[codes]
    digit = kind == 1
    edge = np.flatnonzero(np.diff(digit, prepend=False, append=False))
    starts, ends = edge[0::2], edge[1::2]
    if not kind.all() or (len(starts) and int((ends - starts).max()) > 18):
        values = _numbers_by_line(path, data, what)
    else:
        values = np.fromstring(data.decode("ascii"), dtype=np.int64, sep=" ")
    newlines = np.flatnonzero(codes == 10)
    number = np.searchsorted(newlines, starts)
    if blank:
        lines = len(newlines) + int(not data.endswith(b"\n"))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=lines))])
        return Ragged(values, indptr.astype(np.int64), np.arange(1, lines + 1))
    begins = np.flatnonzero(np.diff(number, prepend=-1))
    return Ragged(values, np.append(begins, len(values)).astype(np.int64), number[begins].astype(np.int64) + 1)


def _numbers_by_line(path: Path, data: bytes, what: str) -> Ints:
    """The slow path of :func:`ragged`: the numbers, or the error of the first line that has a fault."""
    values = []
    for number, line in enumerate(data.split(b"\n"), 1):
        for token in line.decode("utf-8", "replace").split():
            fault = fault_of_id(token)
            if fault:
                found = next((f" (separated by {mark!r}?)" for mark in ",;|:" if mark in token), "")
                raise InputError(
                    f"{path}, line {number}: {fault}{found}. "
                    f"Expected {what}: whole numbers from 0 to 2^63 - 1, separated by spaces or tabs."
                )
            values.append(int(token))
    return np.array(values, dtype=np.int64)


def integers(path: Path, names: Sequence[str], *, scale: Mapping[str, tuple[int, int]] | None = None) -> list[Ints]:
    """Read lines with the same number of whole numbers each, separated by spaces or tabs, as columns.

    Args:
        path: the file, gzipped or not.
        names: of the columns.
        scale: the smallest and largest value allowed in some of them.

    Raises:
        InputError: no whole number, or a line with more or fewer of them; names the line.
    """
    what = " ".join(names)
    lines = ragged(path, what=what)
    wrong = np.flatnonzero(lines.counts != len(names))
    if len(wrong):
        raise InputError(
            f"{path}, line {lines.line[wrong[0]]}: {lines.counts[wrong[0]]} numbers. "
            f"Expected {len(names)} on each line: {what}."
        )
    values = dict(zip(names, np.ascontiguousarray(lines.values.reshape(-1, len(names)).T), strict=True))
    for name, (low, high) in (scale or {}).items():
        outside = np.flatnonzero((values[name] < low) | (values[name] > high))
        if len(outside):
            raise InputError(
                f"{path}, line {lines.line[outside[0]]}: {name} {values[name][outside[0]]} is outside the scale "
                f"{low} to {high}."
            )
    return list(values.values())


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name in the header, or the name it gets where there is none.
        kind: ``id`` a whole number from 0; ``token`` the same where all are, else text; ``float``; ``text``.
        low: the smallest value a float may have.
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
            return fault_of_id(field)
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
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            return f"{show(field)} is outside the scale {self.low:g} to {self.high:g}"
        return None


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
    if b"0x" in data or b"0X" in data:
        _locate(layout, data)  # arrow reads 0x1F as a number
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
        return len(values) == 0 or pc.min(values).as_py() >= 0
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
        for fields in reader:
            if fields:
                yield layout.before + begin + 1, fields
            begin = reader.line_num
    except csv.Error as error:
        line = layout.before + begin + 1
        raise InputError(f"{layout.path}, line {line}: {error}. Is a quotation mark left open?") from error


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
