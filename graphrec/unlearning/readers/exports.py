"""What was made from a run and lies outside it: vectors, lists, an index, a converted dataset, logs."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.datasets.cache import open_dataset
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import edge_type_name
from graphrec.errors import InputError
from graphrec.unlearning.readers.findings import Notes, some
from graphrec.unlearning.readers.sought import Sought, Subject
from graphrec.unlearning.readers.tables import gone_ids, open_table, read_metadata
from graphrec.unlearning.readers.tensors import read_arrays

_BLOCK = 1 << 16


# -- vectors -----------------------------------------------------------------------------------------------------------


def is_vectors(names: set[str]) -> bool:
    """Whether arrays of these names are vectors with their ids."""
    return {"users", "items"} <= names


def read_vectors(subject: Subject, file: Path, where: str, notes: Notes) -> None:
    """Vectors with ids (.npz, .safetensors, .parquet): nobody who is gone, and the vectors of this very run."""
    found = _vectors(file, where, notes)
    if found is None:
        return
    encodes = subject.model.encodes()
    user_type, _, item_type = subject.model.graph_inputs.target
    for node_type, own in ((user_type, "users"), (item_type, "items")):
        ids, vectors = found[own]
        gone, strange = gone_ids(subject, pa.chunked_array([pa.array(ids.tolist())]), node_type)
        if gone:
            notes.find("vector", where, f"vectors of {some(gone, node_type)} who is gone")
        if strange - gone > 0:
            notes.find("vector", where, f"vectors of {some(strange - gone, node_type)} whom the run does not have")
        rows = 0 if subject.old is None else subject.old.found_in(vectors)
        if rows:
            notes.find("embedding row", where, f"{some(rows, 'vector')} of the run before, of who is gone")
        if not encodes:
            notes.find("stale", where, f"{type(subject.model).__name__} has no vectors")
            return
        codes = subject.run.vocabularies[node_type].encode(ids.tolist(), unknown="mark")
        wanted = getattr(subject.model.encoded(), own).float()
        known = codes >= 0
        if vectors.shape[1:] != wanted.shape[1:] or not _close(
            vectors[torch.from_numpy(known)], wanted[torch.from_numpy(codes[known])]
        ):
            notes.find("stale", where, f"the {own}' vectors are not those of this run")
    notes.check(where, "ids and vectors against those of this run", subject.sought is not None)


def _close(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found.float(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()) if len(wanted) else 0)


def _vectors(file: Path, where: str, notes: Notes) -> dict[str, tuple[NDArray[Any], Tensor]] | None:
    if file.suffix == ".parquet":
        table = open_table(file, where, notes)
        if table is None:
            return None
        out = {}
        for kind, own in (("user", "users"), ("item", "items")):
            part = table.filter(pa.compute.equal(table["kind"], kind))
            values = part["vector"].combine_chunks()
            flat = values.flatten().to_numpy(zero_copy_only=False)
            width = table.schema.field("vector").type.list_size
            out[own] = (np.array(part["id"].to_pylist(), object), torch.from_numpy(flat.reshape(-1, width).copy()))
        return out
    arrays = read_arrays(file, where, notes)
    if arrays is None:
        return None
    tensors, words = arrays
    out = {}
    for kind, own in (("user", "users"), ("item", "items")):
        if f"{kind}_ids_utf8" in tensors:
            raw, ends = tensors[f"{kind}_ids_utf8"].numpy().tobytes(), tensors[f"{kind}_ids_offsets"].tolist()
            ids: Any = [raw[start:end].decode() for start, end in itertools.pairwise(ends)]
        elif f"{kind}_ids" in tensors:
            ids = tensors[f"{kind}_ids"].tolist()
        else:
            ids = words.get(f"{kind}_ids")
        if ids is None or len(ids) != len(tensors[own]):
            notes.find("unreadable file", where, f"the vectors of {own} have no ids")
            return None
        out[own] = (np.array(ids, object), tensors[own])
    return out


def read_index(subject: Subject, file: Path, where: str, notes: Notes) -> None:
    """A faiss index of item or user vectors: as many as the run has, and each of them the run's own."""
    if importlib.util.find_spec("faiss") is None:
        notes.find("unreadable file", where, "a faiss index, and faiss is not installed: nothing can be said of it")
        return
    import faiss

    try:
        index = faiss.read_index(str(file))
        vectors = torch.from_numpy(np.asarray(index.reconstruct_n(0, index.ntotal)))
    except RuntimeError as error:
        notes.find("unreadable file", where, f"its vectors cannot be had again ({str(error)[:60]})")
        return
    if subject.old is not None and subject.old.found_normalised(vectors):
        notes.find("embedding row", where, "vectors of the run before, of who is gone")
    encoded = subject.model.encoded()
    for wanted in (encoded.items.float(), encoded.users.float()):
        for table in (wanted, torch.nn.functional.normalize(wanted, dim=1)):
            if vectors.shape == table.shape and _close(vectors, table):
                notes.check(where, "vectors against those of this run", subject.sought is not None)
                return
    notes.find("stale", where, f"its {index.ntotal:,} vectors are not those of this run's items, nor of its users")


# -- lists -------------------------------------------------------------------------------------------------------------


def is_lists(names: set[str]) -> bool:
    """Whether columns of these names are recommended lists."""
    return {"rank", "item", "score"} <= names and bool(names & {"user", "similar"})


@torch.no_grad()
def read_lists(subject: Subject, file: Path, where: str, notes: Notes) -> None:
    """Lists in a parquet file: nobody who is gone, and the scores that this very run gives."""
    table = open_table(file, where, notes)
    if table is None:
        return
    user_type, _, item_type = subject.model.graph_inputs.target
    columns = {"user": user_type, "item": item_type, "similar": item_type}
    for column in set(table.column_names) - {*columns, "rank", "score", "name"}:
        notes.find("unknown file", where, f"column {column!r}, which no lists have")
    for column in columns.keys() & set(table.column_names):
        gone, _ = gone_ids(subject, table[column], columns[column])
        if gone:
            notes.find("list", where, f"{some(gone, 'place')} of a {columns[column]} who is gone")
    read_metadata(subject, file, where, notes)
    if "user" in table.column_names and _other_scores(subject, table, user_type, item_type):
        notes.find("list", where, "the scores are not those that this run gives: the lists were made by another")
    notes.check(where, "ids and scores against those of this run", subject.sought is not None)


def _other_scores(subject: Subject, table: pa.Table, user_type: str, item_type: str) -> bool:
    known = table.filter(table["user"].is_valid())
    users, items = (
        subject.run.vocabularies[name].encode(known[column].to_pylist(), unknown="mark") if len(known) else np.empty(0)
        for name, column in ((user_type, "user"), (item_type, "item"))
    )
    both = np.flatnonzero((users >= 0) & (items >= 0))
    said = torch.from_numpy(known["score"].to_numpy().copy()).float()
    for start in range(0, len(both), _BLOCK):
        part = both[start : start + _BLOCK]
        scores = subject.model.score(torch.from_numpy(users[part]), torch.from_numpy(items[part])[:, None])[
            :, 0
        ].float()
        if not torch.allclose(said[torch.from_numpy(part)], scores, rtol=1e-3, atol=1e-4 * float(scores.abs().max())):
            return True
    return False


# -- datasets ----------------------------------------------------------------------------------------------------------


def read_dataset(subject: Subject, folder: Path, where: str, notes: Notes) -> bool:
    """A converted dataset: whether it still holds something of the request; says what in ``notes``."""
    try:
        data = open_dataset(folder)
    except InputError:
        notes.find("unreadable file", where, "it is no converted dataset")
        return True
    notes.check(where, "edges, ids, features and texts", subject.sought is not None)
    if subject.sought is None:
        return False
    told = what_holds(data, subject.sought)
    for line in told:
        notes.find("row", where, line)
    return bool(told)


def what_holds(data: RecDataset, sought: Sought) -> list[str]:
    """What of a request a dataset holds, by raw ids, in sentences that name nobody."""
    told = []
    for node_type, gone in sought.resolved.nodes.items():
        if node_type in data.vocabularies and len(gone):
            raw = sought.data.vocabularies[node_type].decode(gone).tolist()
            there = int((data.vocabularies[node_type].encode(raw, unknown="mark") >= 0).sum())
            told += [f"{some(there, node_type)} who should be gone"] if there else []
    for edge_type in sought.resolved.edges:
        if edge_type not in data.tables:
            continue
        source, _, target = edge_type
        width = sought.data.num_nodes[target]
        ends = []
        for node_type, codes in ((source, data.tables[edge_type].source), (target, data.tables[edge_type].target)):
            ends.append(sought.codes_of(data.vocabularies[node_type], node_type)[codes])
        keys = np.where((ends[0] >= 0) & (ends[1] >= 0), ends[0] * width + ends[1], -1)
        there = int(np.isin(keys, sought.gone_pairs(edge_type)).sum())
        told += [f"{some(there, 'edge')} of {edge_type_name(edge_type)} that should be gone"] if there else []
    for (node_type, name), gone in sought.resolved.features.items():
        if (node_type, name) in data.features and data.fingerprint == sought.data.fingerprint:
            told.append(f"{some(len(gone), 'row')} of the feature {name} that should be gone")
    for node_type, gone in sought.resolved.texts.items():
        if node_type in data.texts and data.fingerprint == sought.data.fingerprint:
            told.append(f"{some(len(gone), 'text')} of type {node_type} that should be gone")
    return told


def parquet_columns(file: Path) -> set[str]:
    """Names of a parquet file's columns, empty where it is none."""
    try:
        return set(pq.read_schema(file).names)
    except (pa.ArrowException, OSError):
        return set()
