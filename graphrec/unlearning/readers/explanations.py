"""Explanations that a run keeps: nobody who is gone, no edge that is gone, and scores of the run's own model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from graphrec.graphs.adjacency import EdgeType
from graphrec.models.base import GraphInputs
from graphrec.models.deletion import without_edges
from graphrec.reports.explanation import Explanation, Node
from graphrec.reports.explanations_file import parsed
from graphrec.unlearning.readers.findings import Notes, some
from graphrec.unlearning.readers.sought import Subject

_SCORE = 1e-3
"""How far a kept score may be from the model's, as a share: the model was trained in parts of other sizes, perhaps."""

Ends = tuple[EdgeType, Any, Any]


def read_explanations(subject: Subject, text: str, where: str, inputs: GraphInputs | None, notes: Notes) -> None:
    """Words and ids; interactions and triples against the training graph; scores against the model."""
    kept = parsed(text, where)
    sought = subject.sought
    if sought is not None:
        values = [_spoken(one) for one in kept]
        if any(sought.identifiers.mentioned_in(value) for value in values) or sought.identifiers.mentions(text):
            notes.find("raw id", where, "who is gone is mentioned in an explanation")
    if inputs is not None:
        strange = untrained(subject, inputs, {ends for one in kept for ends in _edges(one, inputs.target)})
        if strange:
            notes.find("row", where, f"explanations name {some(strange, 'edge')} that the training graph does not have")
        _read_scores(subject, kept, where, notes)
    notes.check(where, "words, ids, edges and scores", sought is not None)


def untrained(subject: Subject, inputs: GraphInputs, wanted: Iterable[Ends]) -> int:
    """How many edges, given by the raw ids of their ends (as text), the training graph does not have."""
    by_type: dict[EdgeType, list[tuple[Any, Any]]] = {}
    for kind, source, target in wanted:
        by_type.setdefault(kind, []).append((source, target))
    missing = 0
    for kind, pairs in by_type.items():
        if kind not in inputs.graph.edge_types:
            missing += len(pairs)
            continue
        width = int(inputs.graph[kind[2]].num_nodes)
        edges = inputs.graph[kind].edge_index.numpy()
        there = np.unique(edges[0] * width + edges[1])
        codes = [_codes(subject, kind[2 * end], [pair[end] for pair in pairs]) for end in (0, 1)]
        known = (codes[0] >= 0) & (codes[1] >= 0)
        missing += int((~(known & np.isin(codes[0] * width + codes[1], there))).sum())
    return missing


def _codes(subject: Subject, node_type: str, ids: list[Any]) -> np.ndarray:
    own = subject.run.vocabularies.get(node_type)
    if own is None:
        return np.full(len(ids), -1, np.int64)
    wanted: Any = [str(raw) for raw in ids]
    if own.raw.dtype.kind in "iu":
        wanted = np.array([int(raw) if raw.lstrip("-").isdigit() else -1 for raw in wanted])
    return np.asarray(own.encode(wanted, unknown="mark"))


def _nodes(one: Explanation) -> Iterator[Node]:
    yield from (one.user, one.item)
    for path in one.paths:
        yield from path.nodes
    if one.because is not None:
        yield from (support.item for support in one.because.supports)


def _spoken(one: Explanation) -> list[Any]:
    """The values of an explanation with every id under the kind of its node, and no number that is none."""
    told: list[Any] = [{node.node_type: node.id, "name": node.name} for node in _nodes(one)]
    tables = [{"title": title, "words": table.astype(str).to_numpy().tolist()} for title, table in one.tables.items()]
    return [*told, *tables, one.order_note]


def _edges(one: Explanation, target: EdgeType) -> Iterator[Ends]:
    """The edges of the paths as they are stated, and the interactions of the supports."""
    for path in one.paths:
        for (kind, _), (_, inverse), node, after in zip(
            path.edges, path.relations, path.nodes, path.nodes[1:], strict=False
        ):
            source, end = (after, node) if inverse else (node, after)
            yield kind, str(source.id), str(end.id)
    if one.because is not None:
        yield from ((target, str(one.user.id), str(support.item.id)) for support in one.because.supports)


def _read_scores(subject: Subject, kept: list[Explanation], where: str, notes: Notes) -> None:
    """An explanation whose score is another was made of another model: of the run before, perhaps."""
    user_type, _, item_type = subject.model.graph_inputs.target
    model, others = without_edges(subject.model, {}), 0
    for one in kept:
        users, items = _codes(subject, user_type, [one.user.id]), _codes(subject, item_type, [one.item.id])
        if users[0] < 0 or items[0] < 0:
            continue
        with torch.no_grad():
            score = float(model.score(torch.as_tensor(users), torch.as_tensor(items))[0, 0])
        others += not math.isclose(score, one.score, rel_tol=_SCORE, abs_tol=_SCORE)
    if others:
        notes.find("stale", where, f"{some(others, 'explanation')} of another model than the run's")
