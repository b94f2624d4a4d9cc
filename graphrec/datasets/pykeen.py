"""To PyKEEN's ``TriplesFactory`` and back (the ``pykeen`` extra): exchange of triples, no more."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphrec.datasets.knowledge import KnowledgeGraph, SelfLoops
from graphrec.datasets.tables import PARTS
from graphrec.errors import InputError, unknown
from graphrec.optional import require


def to_pykeen(graph: KnowledgeGraph, part: str | None = None) -> Any:
    """A ``pykeen.triples.TriplesFactory`` with the same entities and relations, numbered as in the graph.

    Args:
        graph: the knowledge graph.
        part: only the triples of a part; all factories of a graph share the numbering.

    Raises:
        ImportError: PyKEEN is not installed.
        InputError: the graph has no such part.
    """
    triples = require("pykeen.triples", "pykeen")
    import torch  # so that graphrec.datasets is imported without it

    rows = graph.triples
    if part is not None:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
        if graph.part is None or not (graph.part == PARTS[part]).any():
            raise InputError(f"to_pykeen: the knowledge graph has no triples of part {part!r}.")
        rows = rows[graph.part == PARTS[part]]
    return triples.TriplesFactory(
        mapped_triples=torch.from_numpy(rows.copy()),
        entity_to_id={name: code for code, name in enumerate(graph.entities.to_pylist())},
        relation_to_id={name: code for code, name in enumerate(graph.relations.to_pylist())},
    )


def from_pykeen(*factories: Any, self_loops: SelfLoops = "keep") -> KnowledgeGraph:
    """The knowledge graph of one factory, or of the training, validation and testing factories of a PyKEEN dataset.

    Triples are those that were given to PyKEEN, without the inverse ones it makes.

    Args:
        *factories: one, or up to three whose triples become the parts train, valid and test (two: train and test).
        self_loops: ``keep`` or ``drop`` triples whose head is their tail.

    Raises:
        InputError: no factory or more than three, or one without labels (``CoreTriplesFactory``).
    """
    if not 1 <= len(factories) <= 3:
        raise InputError(f"from_pykeen: {len(factories)} factories. Expected one, or training, validation and testing.")
    columns: list[list[str]] = [[], [], []]
    parts: list[np.ndarray] = []
    codes = {1: (0,), 2: (0, 2), 3: (0, 1, 2)}[len(factories)]
    declared: set[str] = set()
    for factory, code in zip(factories, codes, strict=True):
        entities, relations = (getattr(factory, name, None) for name in ("entity_to_id", "relation_to_id"))
        if entities is None or relations is None:
            raise InputError(f"from_pykeen: {type(factory).__name__} has no labels. Expected a TriplesFactory.")
        rows = factory.mapped_triples.cpu().numpy()
        words = []
        for known in (entities, relations):
            names = np.full(max(known.values(), default=-1) + 1, "", dtype=object)
            names[list(known.values())] = [str(name) for name in known]
            words.append(names)
        declared |= {str(name) for name in relations}
        for place, names in ((0, words[0]), (1, words[1]), (2, words[0])):
            if len(rows) and (rows[:, place].min() < 0 or rows[:, place].max() >= len(names)):
                raise InputError(f"from_pykeen: number {rows[:, place].max()} is outside 0 to {len(names) - 1}.")
            columns[place] += names[rows[:, place]].tolist()
        parts.append(np.full(len(rows), code, np.int8))
    part = np.concatenate(parts) if len(factories) > 1 else None
    return KnowledgeGraph.of(*columns, part=part, self_loops=self_loops, declared=sorted(declared))
