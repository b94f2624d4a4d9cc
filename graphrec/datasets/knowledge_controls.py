"""A knowledge graph that says nothing: the control for whether a model uses what its triples say."""

from __future__ import annotations

import numpy as np

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.notes import Note
from graphrec.datasets.tables import edge_type_name
from graphrec.errors import InputError
from graphrec.graphs.relational import knowledge_edge_types


def permuted_tails(data: RecDataset, seed: int = 0) -> RecDataset:
    """The dataset with the tails of its triples shuffled within each relation.

    Every head keeps its number of triples of each relation and every tail its own, so that degrees, relations and
    sizes are as they were; which item has which tail is chance. A model that ranks as well on this graph does not use
    the knowledge. Triples keep their edge ids.

    Args:
        data: a dataset with triples.
        seed: of the shuffle.

    Raises:
        InputError: the dataset has no triples.
    """
    kinds = [kind for kind in knowledge_edge_types(data.tables) if len(data.tables[kind])]
    if not kinds:
        raise InputError(f"dataset {data.name!r} has no triples whose tails could be permuted.")
    stream = np.random.default_rng(seed)
    for kind in kinds:
        table = data.tables[kind]
        relation = np.zeros(len(table), np.int32) if table.relation is None else table.relation
        target = table.target.copy()
        for number in np.unique(relation):
            mine = np.flatnonzero(relation == number)
            target[mine] = target[stream.permutation(mine)]
        order = np.lexsort([relation, target, table.source])
        moved = int((target != table.target).sum())
        note = Note("permuted", edge_type_name(kind), moved, "tails shuffled within each relation")
        data = data.with_table(table.replaced(target=target).select(order), note)
    return data
