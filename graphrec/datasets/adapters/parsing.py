"""Text files to columns, fast where the file is well formed, with the faulty line named where it is not.

Every reader has two paths: a vectorised one over the bytes, and, only when that one refuses, a slow one that goes
line by line to say what is wrong where. Nothing here knows what the columns mean.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
        raise InputError(f"{path}, line {line}: a NUL byte. This is no text file, or one in UTF-16: save it as UTF-8.")
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
    text = token.strip(" ")
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
