"""N-Triples (RDF 1.1): lines ``<subject> <predicate> object .``, read and written, with the faulty line named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.datasets.adapters.parsing import read_bytes, show
from graphrec.errors import InputError

# As the grammar of RDF 1.1 N-Triples has them; escapes within are checked where they are resolved.
_IRI = r"<(?:[^\x00-\x20<>\"{}|^`\\]|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8})*>"
_BLANK = r"_:[\pL\pN_](?:[\pL\pN_.·\-]*[\pL\pN_\-])?"
_STRING = r'"(?:[^"\\\n\r]|\\[tbnrf"\'\\]|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8})*"'
_LITERAL = rf"{_STRING}(?:\^\^{_IRI}|@[A-Za-z]+(?:-[A-Za-z0-9]+)*)?"
_LINE = (
    rf"^[ \t]*(?P<subject>{_IRI}|{_BLANK})[ \t]*(?P<predicate>{_IRI})[ \t]*"
    rf"(?P<object>{_IRI}|{_BLANK}|{_LITERAL})[ \t]*\.[ \t]*(?:#.*)?$"
)
# Three IRIs one blank apart, as most dumps are written: told and taken apart without the grammar, ten times as fast.
_PLAIN_IRI = r"<[^\x00-\x20<>\"{}|^`\\]*>"
_SIMPLE = rf"^{_PLAIN_IRI} {_PLAIN_IRI} {_PLAIN_IRI} \.$"
_IDLE = r"^[ \t]*(?:#.*)?$"
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_PLAIN = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_QUOTED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_IN_IRI = re.compile(r"[\x00-\x20<>\"{}|^`\\]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_EXPECTED = "Expected: <subject> <predicate> <object> ."
BASE = "urn:graphrec:"
"""What makes an IRI of a name."""


def read_ntriples(path: Path) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Subjects, predicates and objects of a file, gzipped or not, as N-Triples terms with their escapes resolved.

    IRIs come without ``<`` and ``>``; blank nodes as ``_:name``; literals as ``"text"`` with what follows (``@en``,
    ``^^<type>``), so that no literal reads like an IRI.

    Raises:
        InputError: a line that is no triple, an escape that is none, or no triple at all; names the line.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8.") from error
    lines = pa.array(text.split("\n"), pa.large_string())
    busy = ~np.asarray(pc.match_substring_regex(lines, _IDLE))
    number = np.flatnonzero(busy) + 1
    lines = lines.filter(pa.array(busy))
    if not len(lines):
        raise InputError(f"{path} has no triple: every line is blank or a comment.")
    simple = np.asarray(pc.match_substring_regex(lines, _SIMPLE))
    fields = pc.list_flatten(pc.split_pattern(lines.filter(pa.array(simple)), " "))
    others = pc.extract_regex(lines.filter(pa.array(~simple)), _LINE)
    wrong = np.asarray(pc.is_null(others))
    if wrong.any():
        row = int(np.flatnonzero(~simple)[np.argmax(wrong)])
        raise InputError(f"{path}, line {number[row]}: {_fault(lines[row].as_py())}")
    # Where each line's terms lie in the simple ones followed by the others.
    place = np.where(simple, np.cumsum(simple) - 1, int(simple.sum()) + np.cumsum(~simple) - 1)
    made = []
    for column, name in enumerate(("subject", "predicate", "object")):
        easy = fields.take(pa.array(np.arange(int(simple.sum())) * 4 + column))
        terms = pa.concat_arrays([easy, pc.struct_field(others, name).cast(pa.large_string())]).take(pa.array(place))
        made.append(_resolved(path, terms, number))
    return made[0], made[1], made[2]


def _fault(line: str) -> str:
    """What is wrong with a line that is no triple."""
    terms = re.findall(r'<[^>]*>|_:\S+|"(?:[^"\\]|\\.)*"(?:\^\^<[^>]*>|@[\w-]+)?', line)
    shown = show(line.strip())
    if len(terms) >= 3 and not re.sub(r"\s*#.*$", "", line).rstrip().endswith("."):
        return f"no '.' at the end of {shown}. {_EXPECTED}"
    if len(terms) == 3 and terms[0].startswith('"'):
        return f"a literal as the subject, in {shown}. {_EXPECTED}"
    if len(terms) == 3 and not terms[1].startswith("<"):
        return f"a predicate that is no IRI, in {shown}. {_EXPECTED}"
    if len(terms) != 3:
        return f"{len(terms)} terms in {shown}. {_EXPECTED}"
    return f"{shown} is no triple. {_EXPECTED}"


def _resolved(path: Path, terms: pa.Array, number: np.ndarray) -> pa.Array:
    """Terms without the marks of IRIs and with escapes as the characters they stand for."""
    encoded = terms.dictionary_encode()
    words = encoded.dictionary
    iri = pc.starts_with(words, "<")
    words = pc.if_else(iri, pc.utf8_slice_codeunits(words, 1, -1), words)
    escaped = np.flatnonzero(np.asarray(pc.match_substring(words, "\\")))
    if len(escaped):
        values = words.to_pylist()
        for place in escaped.tolist():
            try:
                values[place] = _unescaped(values[place])
            except ValueError as error:
                row = int(np.argmax(encoded.indices.to_numpy(zero_copy_only=False) == place))
                raise InputError(f"{path}, line {number[row]}: {error}") from None
        words = pa.array(values, pa.large_string())
    return words.take(encoded.indices)


def _unescaped(term: str) -> str:
    def character(found: re.Match[str]) -> str:
        if found[3] is not None:
            return _PLAIN[found[3]]
        code = int(found[1] or found[2], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise ValueError(f"{found[0]} is no character.")
        return chr(code)

    return _ESCAPE.sub(character, term)


def write_ntriples(
    path: Path, head: Sequence[str], relation: Sequence[str], tail: Sequence[str], base: str = BASE
) -> None:
    """Write triples as N-Triples, such that :func:`read_ntriples` gives the same terms back.

    Args:
        path: the file; gzipped where its name ends in ``.gz``.
        head: subjects: IRIs (``scheme:…``), blank nodes (``_:name``), or names, which are put behind ``base``.
        relation: predicates, IRIs or names.
        tail: objects, literals (``"text"``, ``"text"@en``) too.
        base: what makes an IRI of a name; spaces and marks that no IRI may have are escaped.
    """
    made: dict[tuple[str, bool], str] = {}

    def term(value: str, literal: bool) -> str:
        key = (value, literal)
        if key not in made:
            made[key] = _term(value, base, literal)
        return made[key]

    rows: Iterable[str] = (
        f"{term(h, False)} {term(r, False)} {term(t, True)} .\n" for h, r, t in zip(head, relation, tail, strict=True)
    )
    from graphrec.datasets.triple_files import write_text

    write_text(path, rows)


def _term(value: str, base: str, literal: bool) -> str:
    if re.fullmatch(r"_:\w(?:[\w.\-]*[\w\-])?", value):
        return value
    if literal and value.startswith('"') and len(value) > 1:
        end = value.rfind('"')
        tail = value[end + 1 :]
        if end > 0 and re.fullmatch(r"(?:@[A-Za-z]+(?:-[A-Za-z0-9]+)*|\^\^<[^\x00-\x20<>\"{}|^`\\]*>)?", tail):
            return '"' + "".join(_QUOTED.get(mark, mark) for mark in value[1:end]) + '"' + tail
    iri = value if _SCHEME.match(value) else base + value
    return "<" + _IN_IRI.sub(lambda mark: f"\\u{ord(mark[0]):04X}", iri) + ">"
