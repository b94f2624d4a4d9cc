"""Files of triples by name, read into a :class:`KnowledgeGraph` and written from one: TSV, N-Triples, PyKEEN, ogb."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import first_line
from graphrec.datasets.frames import from_table
from graphrec.datasets.knowledge import KnowledgeGraph, SelfLoops
from graphrec.datasets.ntriples import BASE, read_ntriples, write_ntriples
from graphrec.errors import InputError, MissingFileError, unknown

FORMATS = ("tsv", "ntriples", "ogb", "parquet")
_HEADERS = ({"head", "relation", "tail"}, {"subject", "predicate", "object"}, {"source", "relation", "target"})
_RECBOLE = ("head_id:token", "relation_id:token", "tail_id:token")


def read_triples(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    link: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    item_prefix: str | None = None,
    self_loops: SelfLoops = "drop",
    base: str = BASE,
) -> KnowledgeGraph:
    """A knowledge graph from a file or folder of triples.

    Args:
        path: ``.tsv``/``.txt``: head, relation and tail, separated by tabs, with or without a header; ``.nt``:
            N-Triples; ``.parquet``: columns head, relation, tail; a folder: the layout of ogb's link prediction. Text
            files may be gzipped.
        format: one of ``tsv``, ``ntriples``, ``ogb``, ``parquet``; None: told by the name.
        link: which entities are items: entity to the raw id of an item, or a file of both (see :func:`read_link`);
            None: an entity with the raw id of an item is that item.
        item_prefix: entities that begin with it are items, the rest being their raw id (``http://shop/item/``).
        self_loops: ``drop`` or ``keep`` triples whose head is their tail; counted.
        base: what made IRIs of names where N-Triples were written, taken off again.

    Raises:
        InputError: a line that is no triple, an empty name; names file and line.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise unknown("format of triples", format, FORMATS)
    if link is not None and item_prefix is not None:
        raise InputError("read_triples: link and item_prefix exclude each other.")
    if not path.exists():
        raise MissingFileError(f"{path} is not there.")
    kind = format or _format_of(path)
    if kind == "ogb":
        from graphrec.datasets.ogb_layout import read_ogb

        made = read_ogb(path, self_loops=self_loops)
    elif kind == "parquet":
        columns = from_table(path, {name: name for name in ("head", "relation", "tail")})
        made = KnowledgeGraph.from_frame(columns, self_loops=self_loops)
    else:
        if kind == "ntriples":
            head, relation, tail = (_without_base(terms, base) for terms in read_ntriples(path))
        else:
            head, relation, tail = _read_names(path)
        made = KnowledgeGraph.of(head, relation, tail, self_loops=self_loops)
    if item_prefix is not None:
        found = made.entities.filter(pc.starts_with(made.entities, item_prefix)).to_pylist()
        items = {entity: entity.removeprefix(item_prefix) for entity in found if entity != item_prefix}
        if not items:
            example = repr(made.entities[0].as_py())
            raise InputError(f"{path}: no entity begins with item_prefix {item_prefix!r}; they are such as {example}.")
        made = made.with_items(items)
    if link is not None:
        made = made.with_items(link if isinstance(link, Mapping) else read_link(link))
    return made


def _without_base(terms: pa.Array, base: str) -> pa.Array:
    if not base:
        return terms
    return pc.if_else(pc.starts_with(terms, base), pc.utf8_slice_codeunits(terms, len(base)), terms)


def _format_of(path: Path) -> str:
    if path.is_dir():
        return "ogb"
    name = path.name.lower().removesuffix(".gz")
    return "ntriples" if name.endswith(".nt") else "parquet" if name.endswith((".parquet", ".pq")) else "tsv"


def _read_names(path: Path) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Three columns of names, by a header or in their order."""
    opening = [field.strip() for field in first_line(path).split("\t")]
    names = ["head", "relation", "tail"]
    header = len(opening) == 3 and (
        {field.casefold() for field in opening} in _HEADERS or all(field.endswith(":token") for field in opening)
    )
    if header:
        names = opening
    # As texts: a token would become a number, and lose what it was written like.
    read = table(path, [Column(name, "text") for name in names], header=header)
    columns = []
    for name in names:
        words = read.column(name).combine_chunks().cast(pa.large_string())
        empty = np.asarray(pc.equal(pc.utf8_trim_whitespace(words), ""))
        if empty.any():
            table(path, [Column(name, "token") for name in names], header=header)  # names the line
        columns.append(words)
    return columns[0], columns[1], columns[2]


def read_link(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Entity (or id in a catalogue) to the raw id of an item, from a file of two columns.

    Args:
        path: lines ``entity item``, separated by tabs, commas or spaces; or RecBole's ``.link``, whose header says
            which column is the item.

    Raises:
        InputError: a line with more or fewer fields, or an entity that is two items.
    """
    path = Path(path)
    opening = first_line(path)
    mark = next((mark for mark in ("\t", ",") if mark in opening), " ")
    fields = [field.strip() for field in opening.split(mark)]
    header = all(":" in field and field.rpartition(":")[2] == "token" for field in fields) or {
        field.casefold() for field in fields
    } == {"entity", "item"}
    asked = [Column(name, "token") for name in (fields if header else ("entity", "item"))]
    if len(asked) != 2:
        raise InputError(f"{path}, line 1: {len(asked)} fields. Expected 2: an entity and its item.")
    read = table(path, asked, separator=mark, header=header)
    first, second = (read.column(column.name).cast(pa.large_string()).to_pylist() for column in asked)
    if header and fields[0].casefold().startswith("item"):
        first, second = second, first
    found: dict[str, Any] = {}
    for entity, item in zip(first, second, strict=True):
        if found.setdefault(entity, item) != item:
            raise InputError(f"{path}: {entity!r} is linked to the items {found[entity]!r} and {item!r}.")
    return found


def write_triples(
    graph: KnowledgeGraph, path: str | os.PathLike[str], *, format: str | None = None, base: str = BASE
) -> Path:
    """Write a knowledge graph: the opposite of :func:`read_triples`.

    Args:
        graph: its entities' ids and relations' names are written.
        path: of the file (gzipped where it ends in ``.gz``), or of a folder for ``ogb``.
        format: as for :func:`read_triples`; None: told by the name.
        base: what makes IRIs of names in N-Triples.

    Raises:
        InputError: a name with a tab or a line end, which no TSV can hold.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise unknown("format of triples", format, FORMATS)
    kind = format or ("ogb" if not path.suffix else _format_of(path))
    if kind == "ogb":
        from graphrec.datasets.ogb_layout import write_ogb

        return write_ogb(graph, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head, relation, tail = graph.columns()
    if kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"head": head, "relation": relation, "tail": tail}), path)
        return path
    rows = head.to_pylist(), relation.to_pylist(), tail.to_pylist()
    if kind == "ntriples":
        write_ntriples(path, *rows, base=base)
        return path
    for words in (graph.entities, graph.relations):
        bad = pc.match_substring_regex(words, r"[\t\n\r\x00]")
        if pc.any(bad).as_py():
            raise InputError(
                f"{path}: {words.filter(bad)[0].as_py()!r} has a tab or a line end; write N-Triples (.nt)."
            )
    # A header keeps a first triple of head, relation, tail from being taken for one.
    write_text(path, ["head\trelation\ttail\n", *("\t".join(row) + "\n" for row in zip(*rows, strict=True))])
    return path


def write_link(graph: KnowledgeGraph, path: str | os.PathLike[str]) -> Path:
    """Write which entities are items, for :func:`read_link`."""
    path = Path(path)
    rows = sorted((entity, str(item)) for entity, item in (graph.items or {}).items())
    write_text(path, ["entity\titem\n", *("\t".join(row) + "\n" for row in rows)])
    return path


def write_text(path: Path, lines: Iterable[str]) -> None:
    """Write lines as UTF-8, gzipped where the name ends in ``.gz``, always the same bytes for the same lines."""
    data = "".join(lines).encode()
    path.write_bytes(gzip.compress(data, 6, mtime=0) if path.name.endswith(".gz") else data)
