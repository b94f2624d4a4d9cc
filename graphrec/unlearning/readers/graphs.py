"""``seen.safetensors`` and ``inputs.safetensors``: the training graph, compared with the graph of what remains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.tables import EdgeType, edge_type_name
from graphrec.errors import InputError
from graphrec.models.base import GraphInputs
from graphrec.models.labelled import LabelledPairs
from graphrec.runs.tensors import read_tensors
from graphrec.unlearning.readers.findings import Notes, some
from graphrec.unlearning.readers.sought import Sought, Subject

SEEN, OTHERS = "seen.safetensors", "inputs.safetensors"


def read_graph(subject: Subject, notes: Notes) -> GraphInputs | None:
    """The run's inputs, checked; None where they cannot be read.

    Without the request only that the compressed rows agree with themselves; with it every edge, attribute and feature
    row is compared with those of the dataset without what was to be forgotten.
    """
    run = subject.run
    try:
        _check_rows(read_tensors(run.path / SEEN)[0], notes)
        inputs = run.inputs()
    except (InputError, RuntimeError, KeyError, ValueError) as error:
        notes.find("unreadable file", SEEN, f"it is no training graph ({type(error).__name__})")
        return None
    if inputs.fingerprint != run.fingerprint:
        notes.find("stale", SEEN, "it names another dataset than the manifest")
    sought = subject.sought
    if sought is None:
        notes.check(SEEN, "degrees against the edges", full=False)
        return inputs
    if not sought.resolved.empty and inputs.fingerprint == sought.data.fingerprint:
        notes.find("stale", SEEN, "it names the dataset before the request")
    expected = subject.model.inputs_on(sought.kept, rows=subject.codes)
    _compare(subject, sought, inputs, expected, notes)
    notes.check(SEEN, "edges, edge ids and degrees against what remains")
    if (run.path / OTHERS).is_file():
        notes.check(OTHERS, "edges, features and labelled pairs against what remains")
    return inputs


def _check_rows(tensors: dict[str, Tensor], notes: Notes) -> None:
    rowptr, col = tensors["rowptr"], tensors["col"]
    counts = rowptr.diff()
    if len(rowptr) == 0 or int(rowptr[0]) != 0 or int(rowptr[-1]) != len(col) or bool((counts < 0).any()):
        notes.find(
            "degree", SEEN, f"the users' degrees add up to {int(counts.sum()):,}, there are {some(len(col), 'edge')}"
        )
    position = tensors.get("position")
    if position is not None and not torch.equal(position.sort().values, torch.arange(len(col))):
        notes.find("row", SEEN, "the places of the edges are no permutation")


def _compare(subject: Subject, sought: Sought, found: GraphInputs, expected: GraphInputs, notes: Notes) -> None:
    for node_type in found.graph.node_types:
        store, codes = found.graph[node_type], subject.codes.get(node_type)
        wanted = dict(expected.graph[node_type].items()) if node_type in expected.graph.node_types else {}
        if codes is None:
            codes = np.arange(int(store.num_nodes))
        if int(store.num_nodes) != len(codes):
            said = some(int(store.num_nodes), "node")
            notes.find("row", SEEN, f"it counts {said} of type {node_type}, the id table has {len(codes):,}")
        for key, value in store.items():
            if key == "num_nodes":
                continue
            where = OTHERS if isinstance(value, Tensor) else SEEN
            if key not in wanted:
                old = isinstance(value, Tensor) and sought.is_old_degree(value, {node_type: codes})
                what = "degrees before the request" if old else "something the model does not read of the data"
                notes.find("degree" if old else "unknown file", where, f"node type {node_type} has {key!r}: {what}")
                continue
            _compare_features(sought, node_type, str(key), value, wanted[key], codes, notes)
    for edge_type in found.graph.edge_types:
        where = SEEN if edge_type == found.target else OTHERS
        if edge_type not in expected.graph.edge_types:
            notes.find("row", where, f"edges of type {edge_type_name(edge_type)}, which the model does not read")
            continue
        store, wanted = dict(found.graph[edge_type].items()), dict(expected.graph[edge_type].items())
        _compare_edges(subject, sought, edge_type, store, wanted, where, notes)
    for edge_type in set(expected.graph.edge_types) - set(found.graph.edge_types):
        notes.find("row", OTHERS, f"edges of type {edge_type_name(edge_type)} are missing")
    _compare_labelled(subject, sought, found.labelled, expected.labelled, notes)


def _compare_features(
    sought: Sought, node_type: str, key: str, value: Any, wanted: Any, codes: np.ndarray, notes: Notes
) -> None:
    if not isinstance(value, Tensor) or not isinstance(wanted, Tensor):
        if value != wanted:
            notes.find("unknown file", SEEN, f"{key!r} of node type {node_type} is not that of what remains")
        return
    gone = sought.resolved.features.get((node_type, key.removeprefix("x_")), np.empty(0, np.int64))
    if len(value) != len(codes):
        notes.find("feature", OTHERS, f"{key!r} has {some(len(value), 'row')} for {len(codes):,} nodes")
        return
    there = torch.from_numpy(np.isin(codes, gone))
    kept = int((value[there] != 0).unsqueeze(1).flatten(1).any(1).sum())
    if kept:
        notes.find("feature", OTHERS, f"{key!r} still has {some(kept, 'row')} that should be gone")
    known = torch.from_numpy(codes >= 0)
    if not torch.equal(value[known], wanted[torch.from_numpy(codes[codes >= 0])]):
        notes.find("feature", OTHERS, f"{key!r} of node type {node_type} is not that of what remains")


def _compare_edges(
    subject: Subject,
    sought: Sought,
    edge_type: EdgeType,
    store: dict[str, Any],
    wanted: dict[str, Any],
    where: str,
    notes: Notes,
) -> None:
    name = edge_type_name(edge_type)
    ids = store["edge_id"].numpy()
    source, target = _in_data(subject, edge_type, store["edge_index"])
    gone = np.isin(ids, sought.resolved.edges.get(edge_type, ()))
    if gone.any():
        notes.find("row", where, f"{some(int(gone.sum()), 'edge')} of {name} that should be gone")
    width = sought.data.num_nodes[edge_type[2]]
    again = ~gone & (source >= 0) & (target >= 0) & np.isin(source * width + target, sought.gone_pairs(edge_type))
    if again.any():
        notes.find("row", where, f"{some(int(again.sum()), 'edge')} of {name} between two that should not be connected")
    order = np.lexsort((target, source, ids))
    own = np.stack([ids, source, target])[:, order]
    edge_index = wanted["edge_index"].numpy()
    other = np.stack([wanted["edge_id"].numpy(), edge_index[0], edge_index[1]])
    wanted_order = np.lexsort((other[2], other[1], other[0]))
    same = np.array_equal(own, other[:, wanted_order])
    if not same:
        more, fewer = (len(np.setdiff1d(a, b)) for a, b in ((ids, other[0]), (other[0], ids)))
        notes.find("row", where, f"{name} is not what remains: {more:,} edges too many, {fewer:,} missing")
    for key, value in store.items():
        if key in ("edge_index", "edge_id"):
            continue
        if key not in wanted:
            notes.find("unknown file", where, f"edges of {name} have {key!r}, which the model does not read")
        elif isinstance(value, Tensor):
            if same and not torch.equal(value[torch.from_numpy(order)], wanted[key][torch.from_numpy(wanted_order)]):
                notes.find("row", where, f"{key!r} of {name} is not that of what remains")
        elif value != wanted[key]:
            notes.find("unknown file", where, f"{key!r} of {name} is not that of what remains")


def _in_data(subject: Subject, edge_type: EdgeType, edge_index: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of edges as codes in the dataset before, -1 for nodes that it does not have."""
    ends = []
    for node_type, numbers in ((edge_type[0], edge_index[0]), (edge_type[2], edge_index[1])):
        codes, plain = subject.codes.get(node_type), numbers.numpy()
        if codes is None:
            ends.append(plain)
            continue
        inside = (plain >= 0) & (plain < len(codes))
        ends.append(np.where(inside, codes[np.where(inside, plain, 0)] if len(codes) else -1, -1))
    return ends[0], ends[1]


def _compare_labelled(
    subject: Subject, sought: Sought, found: LabelledPairs | None, expected: LabelledPairs | None, notes: Notes
) -> None:
    if found is None:
        return
    target = sought.data.target
    gone = np.isin(found.edge_id.numpy(), sought.resolved.edges.get(target, ()))
    if gone.any():
        notes.find("row", OTHERS, f"{some(int(gone.sum()), 'labelled pair')} that should be gone")
    if expected is None:
        notes.find("row", OTHERS, "labelled pairs, which the model does not read")
        return
    users, items = _in_data(subject, target, torch.stack([found.users, found.items]))
    own = np.stack([found.edge_id.numpy(), users, items, found.labels.numpy()])
    other = np.stack([t.numpy() for t in (expected.edge_id, expected.users, expected.items, expected.labels)])
    own, other = (rows[:, np.argsort(rows[0], kind="stable")] for rows in (own, other))
    if not np.array_equal(own, other):
        notes.find("row", OTHERS, "the labelled pairs are not those that remain")
