"""The folder layout of ogb's link prediction sets: ``raw/*.csv.gz``, ``split/<how>/*.pt``, ``mapping/*.csv.gz``.

Both of its forms: one list of edges (ogbl-wikikg2, with ``edge_reltype.csv.gz``; ogbl-collab, without relations), and
one folder for each triplet of node types (ogbl-biokg). Split files are read with ``weights_only``; of what a pickle may
name, only arrays of numpy are let in beside tensors, since the published files hold those.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import first_line
from graphrec.datasets.knowledge import KnowledgeGraph, SelfLoops
from graphrec.datasets.notes import Note
from graphrec.datasets.tables import PARTS
from graphrec.errors import InputError, MissingFileError

Ints = NDArray[np.int64]
NODE = "node"
LINKED = "linked"
_TYPES = "triplet-type-list.csv.gz"


def read_split(folder: str | os.PathLike[str], split: str | None = None) -> dict[str, dict[str, Any]]:
    """The split files as they are, by part: ``head``, ``relation``, ``tail`` (or ``edge``), negatives, lists of types.

    Args:
        folder: of the dataset.
        split: the folder under ``split``; None: the only one. Without any the result is empty.

    Raises:
        InputError: several splits and none chosen, or a file that cannot be read without unpickling.
    """
    base = Path(folder) / "split"
    found = sorted(child.name for child in base.iterdir() if child.is_dir()) if base.is_dir() else []
    if split is None and len(found) > 1:
        raise InputError(f"{base} has the splits {', '.join(found)}; say which.")
    if split is not None and split not in found:
        raise InputError(f"{base} has no split {split!r}. Found: {', '.join(found) or 'none'}.")
    if not found:
        return {}
    made = {}
    for part in PARTS:
        path = base / (split or found[0]) / f"{part}.pt"
        if path.is_file():
            made[part] = _load(path)
    return made


def _load(path: Path) -> dict[str, Any]:
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    allowed: list[Any] = [
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("i1", "i2", "i4", "i8", "f4", "f8", "bool")),
    ]
    names = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
    rebuild = [(multiarray._reconstruct, name) for name in names]
    try:
        with torch.serialization.safe_globals([*allowed, *rebuild]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes trip in it
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read without unpickling: {reason}.") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}. Expected a dict of tensors.")
    return {str(key): torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in content.items()}


def read_ogb(
    folder: str | os.PathLike[str], *, split: str | None = None, self_loops: SelfLoops = "keep"
) -> KnowledgeGraph:
    """The knowledge graph of a folder: its triples with their parts where it is split, its raw edges where not.

    Entities are called as ``mapping`` has them, else by their number (``disease:5`` where there are several types of
    nodes, which are their kinds); edges without relations have the relation ``linked``.

    Args:
        folder: with ``raw`` and, where it is split, ``split/<how>``.
        split: the folder under ``split``; None: the only one.
        self_loops: ``keep`` or ``drop`` triples whose head is their tail.

    Raises:
        InputError: a number out of range, columns of different lengths, a faulty split file; names the file.
    """
    folder = Path(folder)
    raw = folder / "raw"
    if (raw / _TYPES).is_file():
        sizes, triples, labels = _typed(raw)
    elif (raw / "edge.csv.gz").is_file():
        sizes, triples, labels = _plain(raw)
    else:
        raise MissingFileError(f"{raw} has no edge.csv.gz and no {_TYPES}: it is no folder of ogb's link prediction.")
    labels = _mapped(folder, ("relidx2*.csv.gz", "reltype2*.csv.gz"), labels, more=True)
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    nodes: list[str] = []
    for kind, size in sizes.items():
        plain = [str(node) if kind == NODE else f"{kind}:{node}" for node in range(size)]
        patterns = ("nodeidx2*.csv.gz",) if kind == NODE else (f"{kind}_entidx2*.csv.gz",)
        nodes += _mapped(folder, patterns, plain)
    parts, notes = None, []
    for number, (part, content) in enumerate(read_split(folder, split).items()):
        where = folder / "split" / f"{part}.pt"
        rows = _split_triples(where, content, sizes, starts, len(labels))
        if not number:
            known, triples = triples, rows[:0]
            missing = int((~_in(known, rows)).sum())
            if missing:
                notes.append(Note("left out", "raw edges", missing, "in no training file of the split"))
            parts = np.empty(0, np.int8)
        assert parts is not None
        triples = np.concatenate([triples, rows])
        parts = np.concatenate([parts, np.full(len(rows), PARTS[part], np.int8)])
    words, relations = np.array(nodes, dtype=object), np.array(labels, dtype=object)
    kinds = None
    if list(sizes) != [NODE]:
        kinds = dict(zip(nodes, np.repeat(list(sizes), list(sizes.values())).tolist(), strict=True))
    if len(set(nodes)) < len(nodes):
        raise InputError(f"{folder / 'mapping'}: two nodes have the same name.")
    return KnowledgeGraph.of(
        words[triples[:, 0]].tolist(),
        relations[triples[:, 1]].tolist(),
        words[triples[:, 2]].tolist(),
        kinds=kinds,
        part=parts,
        self_loops=self_loops,
        declared=labels,
        notes=notes,
    )


def _in(rows: Ints, others: Ints) -> NDArray[np.bool_]:
    """Which rows are among others."""
    _, codes = np.unique(np.concatenate([rows, others]), axis=0, return_inverse=True)
    codes = codes.reshape(-1)
    return np.isin(codes[: len(rows)], codes[len(rows) :])


def _columns(path: Path, *names: str) -> list[Ints]:
    """Columns of whole numbers from 0 of a comma-separated file without a header."""
    read = table(path, [Column(name, "id") for name in names], separator=",", header=False)
    return [read.column(name).to_numpy() for name in names]


def _checked(path: Path, name: str, values: Ints, size: int) -> Ints:
    """Numbers of nodes or relations, none beyond the last."""
    wrong = (values < 0) | (values >= size)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{path}, row {row} (from 0): {name} {values[row]} is outside 0 to {size - 1}.")
    return values


def _plain(raw: Path) -> tuple[dict[str, int], Ints, list[str]]:
    """Nodes, triples and relations of one list of edges."""
    (sizes,) = _columns(raw / "num-node-list.csv.gz", "nodes")
    if len(sizes) != 1:
        raise InputError(f"{raw / 'num-node-list.csv.gz'}: {len(sizes)} graphs. Expected one.")
    path = raw / "edge.csv.gz"
    head, tail = (_checked(path, "node", ends, int(sizes[0])) for ends in _columns(path, "head", "tail"))
    types = raw / "edge_reltype.csv.gz"
    relation = _columns(types, "relation")[0] if types.is_file() else np.zeros(len(head), np.int64)
    if len(relation) != len(head):
        raise InputError(f"{types}: {len(relation)} relations for {len(head)} edges.")
    labels = [str(code) for code in range(int(relation.max(initial=0)) + 1)] if types.is_file() else [LINKED]
    return {NODE: int(sizes[0])}, np.stack([head, relation, tail], axis=1), labels


def _typed(raw: Path) -> tuple[dict[str, int], Ints, list[str]]:
    """Nodes, triples and relations of a folder for each triplet of types."""
    counts = raw / "num-node-dict.csv.gz"
    kinds = first_line(counts).split(",")
    read = table(counts, [Column(kind, "id") for kind in kinds], separator=",")
    if read.num_rows != 1:
        raise InputError(f"{counts}: {read.num_rows} graphs. Expected one.")
    sizes = {kind: int(read.column(kind)[0].as_py()) for kind in sorted(kinds)}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    listed = table(raw / _TYPES, [Column(name, "token") for name in ("h", "r", "t")], separator=",", header=False)
    triplets = sorted(zip(*(listed.column(name).cast(pa.string()).to_pylist() for name in "hrt"), strict=True))
    rows, labels = [], {}
    for number, (source, relation, target) in enumerate(triplets):
        for kind in (source, target):
            if kind not in sizes:
                raise InputError(f"{raw / _TYPES}: node type {kind!r} is not in {counts.name}: {', '.join(sizes)}.")
        folder = raw / "relations" / "___".join((source, relation, target))
        path, types = folder / "edge.csv.gz", folder / "edge_reltype.csv.gz"
        head, tail = _columns(path, "head", "tail")
        head = _checked(path, source, head, sizes[source]) + starts[source]
        tail = _checked(path, target, tail, sizes[target]) + starts[target]
        codes = _columns(types, "relation")[0] if types.is_file() else np.full(len(head), number)
        if len(codes) != len(head) or len(np.unique(codes)) > 1:
            raise InputError(f"{types}: expected one relation, the same for all of {len(head)} edges.")
        labels[int(codes[0]) if len(codes) else number] = relation
        rows.append(np.stack([head, codes, tail], axis=1))
    names = [labels.get(code, str(code)) for code in range(max(labels, default=-1) + 1)]
    return sizes, np.concatenate(rows), names


def _mapped(folder: Path, patterns: Iterable[str], plain: list[str], *, more: bool = False) -> list[str]:
    """Names of a file ``number,name`` of ``mapping`` in the place of numbers; ``more``: it may list more than those."""
    found = [path for pattern in patterns for path in sorted((folder / "mapping").glob(pattern))]
    if not found or not plain:
        return plain
    path = found[0]
    header = next(iter(csv.reader([first_line(path)])), [])
    if len(header) < 2:
        raise InputError(f"{path}, line 1: {len(header)} columns. Expected a number and a name.")
    read = table(path, [Column(header[0].strip(), "id"), Column(header[1].strip())], separator=",", quoted=True)
    size = max(len(plain), read.num_rows) if more else len(plain)
    made = [*plain, *map(str, range(len(plain), size))]
    numbers = _checked(path, "number", read.column(0).to_numpy(), size)
    for number, name in zip(numbers.tolist(), read.column(1).to_pylist(), strict=True):
        made[number] = name or made[number]
    return made


def _split_triples(
    path: Path, content: Mapping[str, Any], sizes: Mapping[str, int], starts: Mapping[str, int], num_relations: int
) -> Ints:
    """The (T, 3) triples of a split file, nodes of all types in one numbering."""
    if "edge" in content:
        edges = np.asarray(content["edge"], dtype=np.int64).reshape(-1, 2)
        sides = {"head": edges[:, 0], "tail": edges[:, 1]}
        relation = np.zeros(len(edges), np.int64)
    elif all(key in content for key in ("head", "relation", "tail")):
        sides = {key: np.asarray(content[key], dtype=np.int64).reshape(-1) for key in ("head", "tail")}
        relation = np.asarray(content["relation"], dtype=np.int64).reshape(-1)
    else:
        raise InputError(f"{path} holds {', '.join(content)}. Expected head, relation and tail, or edge.")
    if not len(sides["head"]) == len(relation) == len(sides["tail"]):
        raise InputError(f"{path}: columns of unequal lengths.")
    for side, values in sides.items():
        kinds = content.get(f"{side}_type")
        if kinds is None:
            _checked(path, side, values, sum(sizes.values()) if list(sizes) == [NODE] else -1)
            continue
        known, codes = np.unique(np.asarray(kinds, dtype=object).astype(str), return_inverse=True)
        for kind in known.tolist():
            if kind not in sizes:
                raise InputError(f"{path}: node type {kind!r} is not one of {', '.join(sizes)}.")
        _checked(path, side, np.where(values < np.array([sizes[kind] for kind in known])[codes], values, -1), 2**62)
        sides[side] = values + np.array([starts[kind] for kind in known])[codes]
    _checked(path, "relation", relation, num_relations)
    return np.stack([sides["head"], relation, sides["tail"]], axis=1)


def write_ogb(
    graph: KnowledgeGraph, folder: str | os.PathLike[str], *, split: str = "random", typed: bool = False
) -> Path:
    """Write a knowledge graph in ogb's layout; :func:`read_ogb` and ogb's own readers give it back.

    Raw edges are those of the training part where the graph has parts, which are then written as split files.

    Args:
        graph: the knowledge graph.
        folder: to make or fill.
        split: what the split is called.
        typed: one folder for each triplet of kinds and relation (ogbl-biokg) instead of one list (ogbl-wikikg2);
            without a kind, an entity is an ``item`` or an ``entity``.

    Raises:
        InputError: ``typed``, and a kind or relation that cannot be part of the name of a folder.
    """
    from graphrec.datasets.triple_files import write_text

    folder = Path(folder)
    raw, mapping = folder / "raw", folder / "mapping"

    def put(path: Path, rows: Iterable[Iterable[Any]], header: tuple[str, ...] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerows([header] if header else [])
        writer.writerows(rows)
        write_text(path, [lines.getvalue()])

    size = len(graph.entities)
    kind_of = np.full(size, NODE, dtype=object)
    if typed:
        kind_of[:] = "entity"
        kind_of[graph.item_codes()] = "item"
        if graph.kinds is not None:
            said = np.asarray(pc.is_valid(graph.kinds))
            kind_of[said] = graph.kinds.filter(pa.array(said)).to_pylist()
    kinds, codes = np.unique(kind_of.astype(str), return_inverse=True)
    local = np.empty(size, np.int64)
    for code in range(len(kinds)):
        local[codes == code] = np.arange(int((codes == code).sum()))
    train = graph.triples if graph.part is None else graph.triples[graph.part == PARTS["train"]]
    labels = graph.entities.to_pylist()
    relations = graph.relations.to_pylist()
    if typed:
        counts = np.bincount(codes, minlength=len(kinds))
        put(raw / "num-node-dict.csv.gz", [counts.tolist()], tuple(kinds.tolist()))
        ends = np.stack([codes[train[:, 0]], train[:, 1], codes[train[:, 2]]], axis=1)
        triplets, group = np.unique(ends, axis=0, return_inverse=True)
        named = [(str(kinds[h]), relations[r], str(kinds[t])) for h, r, t in triplets.tolist()]
        bad = next((name for triplet in named for name in triplet if "/" in name or "___" in name), None)
        if bad is not None:
            raise InputError(f"write_ogb: {bad!r} cannot be part of the name of a folder ('/' or '___').")
        put(raw / _TYPES, named)
        for number, triplet in enumerate(named):
            rows = train[group.reshape(-1) == number]
            place = raw / "relations" / "___".join(triplet)
            put(place / "edge.csv.gz", local[rows[:, [0, 2]]].tolist())
            put(place / "edge_reltype.csv.gz", rows[:, [1]].tolist())
            put(place / "num-edge-list.csv.gz", [[len(rows)]])
        for code, kind in enumerate(kinds.tolist()):
            mine = [labels[node] for node in np.flatnonzero(codes == code).tolist()]
            put(mapping / f"{kind}_entidx2name.csv.gz", enumerate(mine), ("ent idx", "ent name"))
        put(mapping / "relidx2relname.csv.gz", enumerate(relations), ("rel idx", "rel name"))
    else:
        put(raw / "num-node-list.csv.gz", [[size]])
        put(raw / "num-edge-list.csv.gz", [[len(train)]])
        put(raw / "edge.csv.gz", train[:, [0, 2]].tolist())
        put(raw / "edge_reltype.csv.gz", train[:, [1]].tolist())
        put(mapping / "nodeidx2entityid.csv.gz", enumerate(labels), ("node idx", "entity id"))
        put(mapping / "reltype2relid.csv.gz", enumerate(relations), ("reltype", "rel id"))
    if graph.part is None:
        return folder
    place = folder / "split" / split
    place.mkdir(parents=True, exist_ok=True)
    for part, number in PARTS.items():
        rows = graph.triples[graph.part == number]
        content: dict[str, Any] = {
            "head": torch.from_numpy(local[rows[:, 0]]),
            "relation": torch.from_numpy(rows[:, 1].copy()),
            "tail": torch.from_numpy(local[rows[:, 2]]),
        }
        if typed:
            content |= {
                f"{side}_type": kinds[codes[rows[:, column]]].tolist() for side, column in (("head", 0), ("tail", 2))
            }
        torch.save(content, place / f"{part}.pt")
    return folder
