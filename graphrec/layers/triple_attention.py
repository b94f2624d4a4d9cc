r"""Attention of triples from a translating scorer: how well head and relation point at the tail, as KCAN has it.

.. math:: a(h, r, t) = t \cdot (h + \rho)

with h, t and ρ in the space of the relation, as the scorer puts and scales them (TransH of unit vectors in KCAN).
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.graphs.relational import RelationalGraph
from graphrec.layers.kge import Tables, TripleScorer
from graphrec.layers.relational import pair_dots


def translation_attention(graph: RelationalGraph, x: Tensor, scorer: TripleScorer, tables: Tables) -> Tensor:
    """a for each of E edges; an edge that runs backwards has that of the edge it reverses.

    Nodes are projected once for each distinct pair of relation and node.

    Args:
        graph: N nodes, E edges of R' relations.
        x: (N, D).
        scorer: one that moves heads by a vector as wide as they are: TransE, TransH or TransR.
        tables: its relation tables, R' rows.

    Returns:
        (E,).
    """
    vectors = scorer.vectors(torch.arange(graph.num_relations, device=x.device), tables)
    rows, shifts = [], []
    for pairs in (graph.head_pairs, graph.tail_pairs):
        projected = scorer.project(x[pairs.node], pairs.relation, tables)
        rows.append(projected)
        shifts.append((projected * vectors[pairs.relation]).sum(-1)[pairs.of_edge])
    # The stated tail meets ρ: an inverse edge has it at its head.
    return pair_dots(graph, rows[0], rows[1]) + torch.where(graph.inverse, shifts[0], shifts[1])
