"""Tensors of any file (state of a method, checkpoints, arrays): edges, rows and moments of who is gone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.tables import edge_type_name
from graphrec.errors import InputError
from graphrec.runs.tensors import read_tensors
from graphrec.training.checkpoint import FILE, read_checkpoint
from graphrec.unlearning.readers.findings import Kind, Notes, some
from graphrec.unlearning.readers.sought import Sought, Subject

_MOMENTS = re.compile(r"optimi[sz]er|exp_avg|moment|adam", re.IGNORECASE)
_EDGES = re.compile(r"edge_?ids?|edges?$", re.IGNORECASE)


def read_arrays(file: Path, where: str, notes: Notes) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and the JSON header of a .safetensors, .npz, .npy or .pt file; None where it cannot be read."""
    try:
        if file.suffix == ".safetensors":
            return read_tensors(file)
        if file.suffix in (".npz", ".npy"):
            loaded = np.load(file, allow_pickle=False)
            arrays = {file.stem: loaded} if file.suffix == ".npy" else {name: loaded[name] for name in loaded.files}
            numbers = {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind in "fiub"}
            words = {name: array.tolist() for name, array in arrays.items() if array.dtype.kind in "US"}
            return numbers, words
        return _flat(torch.load(file, map_location="cpu", weights_only=True)), {}
    except Exception as error:
        # Each library raises what it likes at a file that is no such file; none of it is a reading.
        notes.find("unreadable file", where, f"its arrays cannot be read ({type(error).__name__})")
        return None


def _flat(value: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value}
    entries = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    return {key: tensor for part, entry in entries for key, tensor in _flat(entry, f"{name}/{part}").items()}


def read_state(subject: Subject, file: Path, where: str, notes: Notes) -> None:
    """A file of tensors whose names are the method's own."""
    arrays = read_arrays(file, where, notes)
    if arrays is None:
        return
    tensors, header = arrays
    if subject.sought is not None:
        places = subject.sought.identifiers.mentioned_in(header)
        if places:
            notes.find("raw id", where, f"who is gone is mentioned in {', '.join(places[:3])}")
        fingerprints = {value for value in _leaves(header) if value == subject.sought.data.fingerprint}
        if fingerprints and not subject.sought.resolved.empty:
            notes.find("stale", where, "it names the dataset before the request")
    check_tensors(subject, tensors, where, notes)
    notes.check(where, "edges, rows and moments of who is gone", subject.sought is not None and subject.old is not None)


def _leaves(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [leaf for entry in value.values() for leaf in _leaves(entry)]
    if isinstance(value, list):
        return [leaf for entry in value for leaf in _leaves(entry)]
    return [value] if isinstance(value, str) else []


def check_tensors(subject: Subject, tensors: Mapping[str, Tensor], where: str, notes: Notes) -> None:
    """Look for what is gone in named tensors."""
    sought = subject.sought
    if sought is None:
        return
    for name, tensor in tensors.items():
        moments = bool(_MOMENTS.search(name))
        if _EDGES.search(name.rpartition("/")[2]) and not tensor.is_floating_point() and tensor.dim() == 1:
            _edge_ids(sought, name, tensor, where, notes)
        _pairs(subject, sought, name, tensor, where, notes)
        if moments:
            _moments(subject, sought, name, tensor, where, notes)
        elif _old_size(subject, sought, tensor):
            notes.find("row", where, f"{name!r} still has a row for each node of before")
        if sought.is_old_degree(tensor, subject.codes):
            notes.find("degree", where, f"{name!r} holds degrees before the request")
        rows = 0 if subject.old is None else subject.old.found_in(tensor)
        if rows:
            kind: Kind = "optimiser row" if moments else "embedding row"
            notes.find(kind, where, f"{name!r} has {some(rows, 'row')} of the run before, of who is gone")


def _edge_ids(sought: Sought, name: str, tensor: Tensor, where: str, notes: Notes) -> None:
    named = [edge_type for edge_type in sought.resolved.edges if edge_type_name(edge_type) in name]
    for edge_type in named or [sought.data.target]:
        gone = np.isin(tensor.numpy(), sought.resolved.edges.get(edge_type, ()))
        if gone.any():
            notes.find("row", where, f"{name!r} has {some(int(gone.sum()), 'edge')} that should be gone")


def _pairs(subject: Subject, sought: Sought, name: str, tensor: Tensor, where: str, notes: Notes) -> None:
    if tensor.is_floating_point() or tensor.dim() != 2 or 2 not in tensor.shape or "neighbour" in name:
        return
    if not re.search(r"edge_index|pairs", name):
        return
    ends = (tensor if tensor.shape[0] == 2 else tensor.T).numpy().astype(np.int64)
    codes = [subject.codes[sought.data.target[0]], subject.codes[sought.data.target[2]]]
    if not ends.size or ends.min() < 0 or any(int(row.max()) >= len(own) for row, own in zip(ends, codes, strict=True)):
        return
    keys = codes[0][ends[0]] * sought.data.num_items + codes[1][ends[1]]
    gone = np.isin(keys, sought.gone_pairs(sought.data.target))
    if gone.any():
        notes.find("row", where, f"{name!r} has {some(int(gone.sum()), 'pair')} that should be gone")


def _moments(subject: Subject, sought: Sought, name: str, tensor: Tensor, where: str, notes: Notes) -> None:
    """Moments of who is gone: rows in a table of the old size, or rows that are not zero of users without edges."""
    if tensor.dim() == 0:
        return
    moved = tensor.detach().reshape(len(tensor), -1).ne(0).any(1).numpy() if len(tensor) else np.zeros(0, bool)
    for node_type, gone in sought.emptied.items():
        codes = subject.codes.get(node_type, np.empty(0, np.int64))
        if len(moved) == len(codes):
            rows = moved & np.isin(codes, gone)
        elif len(moved) == sought.data.num_nodes[node_type]:
            rows = moved[gone]
        else:
            continue
        if rows.any():
            notes.find(
                "optimiser row", where, f"{name!r} has moments of {some(int(rows.sum()), node_type)} who is gone"
            )


def _old_size(subject: Subject, sought: Sought, tensor: Tensor) -> bool:
    """Whether there is a row for each node of a type before, and the run has fewer."""
    return tensor.dim() > 0 and any(
        len(tensor) == sought.data.num_nodes[node_type] != len(subject.codes.get(node_type, ()))
        and len(tensor) not in {len(codes) for codes in subject.codes.values()}
        for node_type, gone in sought.resolved.nodes.items()
        if len(gone)
    )


def read_training(subject: Subject, folder: Path, where: str, notes: Notes) -> None:
    """The checkpoints of a training: of the data that remains, or of the data before."""
    try:
        checkpoint = read_checkpoint(folder)
    except (InputError, KeyError, ValueError, TypeError) as error:
        notes.find("unreadable file", f"{where}/{FILE}", f"it is no checkpoint ({type(error).__name__})")
        return
    sought = subject.sought
    if checkpoint is None or sought is None:
        notes.check(where, "that it can be read", full=False)
        return
    at = f"{where}/{FILE}"
    tensors = {
        f"{part}/{name}": tensor
        for part, found in (("model", checkpoint.weights), ("best", checkpoint.standing.best))
        for name, tensor in found.items()
    }
    for phase, state in checkpoint.optimisers.items():
        tensors.update(_flat(state["state"], f"optimiser/{phase}"))
    check_tensors(subject, tensors, at, notes)
    places = sought.identifiers.mentioned_in(checkpoint.config)
    if places:
        notes.find("raw id", at, f"who is gone is mentioned in {', '.join(places[:3])}")
    named = checkpoint.config.get("dataset", {}).get("fingerprint")
    if not sought.resolved.empty and named not in sought.fingerprints:
        notes.find("stale", at, "weights and moments of a training on other data than what remains")
    notes.check(at, "weights, moments and the dataset's fingerprint")
