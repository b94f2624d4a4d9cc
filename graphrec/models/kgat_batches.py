"""The batches that KGAT's phases train on: pairs of different users, and triples of different heads."""

from __future__ import annotations

from collections.abc import Callable

import torch

from graphrec import randomness
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.relational import RelationalGraph
from graphrec.graphs.sampling import sample_negatives
from graphrec.graphs.triples import corrupted_tails, triple_index, triples_by_head
from graphrec.models.base import PairBatch, TripleBatch
from graphrec.models.phase_parts import DrawnBatches


def pairs_of_users(
    adj: Adjacency, batch_size: int, num_negatives: int, generator: torch.Generator
) -> DrawnBatches[PairBatch]:
    """Pairs of one epoch: B different users, one item of each, and negatives; ⌊E/B⌋ + 1 batches.

    Args:
        adj: (U, I), E training edges.
        batch_size: B.
        num_negatives: of each pair.
        generator: the epoch's.
    """
    seed = generator.initial_seed()

    def draw(number: int) -> PairBatch:
        entry = triples_by_head(adj, batch_size, seed=seed, batch=number)
        users = adj.rows()[entry].long()
        own = randomness.derive(seed, "batch", number)
        edge_id = (adj.edge_positions() if adj.edge_id is None else adj.edge_id)[entry]
        negatives = sample_negatives(adj, users, num_negatives, seed=own)
        return PairBatch.of(users, adj.col[entry].long(), edge_id, negatives, generator)

    return DrawnBatches(len(adj) // batch_size + 1, draw)


def triples_of_heads(
    graph: RelationalGraph,
    count: int,
    batch_size: int,
    candidates: slice | None,
    generator: torch.Generator,
    finish: Callable[[], None],
) -> DrawnBatches[TripleBatch]:
    """Triples of one epoch: heads uniformly, one of each head's edges, a corrupted tail.

    The triples of a batch come relation by relation, for those of one relation are projected together.

    Args:
        graph: the typed edges.
        count: the number of batches.
        batch_size: triples of each.
        candidates: nodes that a corrupted tail may be; None: all.
        generator: the epoch's.
        finish: called at the end of the epoch.
    """
    seed, index = generator.initial_seed(), triple_index(graph)

    def draw(number: int) -> TripleBatch:
        entry = triples_by_head(graph.adjacency, batch_size, seed=seed, batch=number)
        heads, relations = graph.heads()[entry], graph.relation[entry]
        own = randomness.derive(seed, "batch", number)
        negatives = corrupted_tails(index, heads, relations, seed=own, candidates=candidates)
        order = torch.argsort(relations, stable=True)
        return TripleBatch.of(graph, entry[order], negatives[order], generator)

    return DrawnBatches(count, draw, finish)
