"""KGCL's triples: one of each item in an epoch, with corrupted tails that other items' triples have."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphrec.graphs.relational import RelationalGraph
from graphrec.graphs.triples import triple_index
from graphrec.models.base import TripleBatch
from graphrec.randomness import derive, hash_bits, hash_integers

_ROUNDS = 8


def item_triples(
    graph: RelationalGraph, items: slice, batch_size: int, generator: torch.Generator
) -> Iterator[TripleBatch]:
    """One triple of each item that has some, in random order, with a corrupted tail.

    A corrupted tail is the tail of a random triple of a random item, as in the authors' code; one that is known is
    drawn again, a few times.

    Args:
        graph: triples as stated.
        items: the graph's nodes that are items.
        batch_size: triples of a batch.
        generator: of the epoch; its seed keys the draws.
    """
    seed, rowptr, degree = generator.initial_seed(), graph.adjacency.rowptr.long(), graph.adjacency.degrees(0)
    heads = torch.nonzero(degree[items])[:, 0] + items.start
    heads = heads[torch.argsort(hash_bits(derive(seed, "order"), heads), stable=True)]
    entry = rowptr[heads] + hash_integers(derive(seed, "triples"), degree[heads], heads)
    relations, index = graph.relation[entry], triple_index(graph)

    def draw(turn: int) -> Tensor:
        other = heads[hash_integers(derive(seed, "other heads"), len(heads), heads, turn)]
        place = hash_integers(derive(seed, "other tails"), degree[other], heads, turn)
        return graph.tails()[rowptr[other] + place]

    corrupted = draw(0)
    for turn in range(1, _ROUNDS):
        corrupted = torch.where(index.contains(heads, relations, corrupted), draw(turn), corrupted)
    for start in range(0, len(heads), batch_size):
        part = slice(start, start + batch_size)
        yield TripleBatch.of(graph, entry[part], corrupted[part].unsqueeze(1), generator)
