r"""How much of each neighbour a node of a knowledge graph takes in: shares fixed by degrees, and by embeddings.

Letters: N nodes, E edges, P pairs of relation and node, D and K widths. Weights of edges, (E,) and 0 or more, count an
edge that often; with 0 it is as good as not there. All functions are differentiable twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.graphs.normalise import power_of_degree
from graphrec.graphs.relational import NodePairs, RelationalGraph
from graphrec.layers.kge import Tables, TripleScorer
from graphrec.layers.relational import pair_dots, row_sums


def relation_shares(graph: RelationalGraph, weight: Tensor) -> Tensor:
    r"""1 over the number of edges with the same head and relation, (E,): :math:`\sum_r D_r^{-1} A_r`.

    A head's shares add up to the number of different relations that leave it.
    """
    return weight * _per_edge(graph.head_pairs, weight, -1.0)


def symmetric_shares(graph: RelationalGraph, weight: Tensor) -> Tensor:
    r""":math:`\sum_r D_r^{-1/2} A_r D_r'^{-1/2}`, (E,), with edges of r counted at the head and at the tail."""
    return weight * _per_edge(graph.head_pairs, weight, -0.5) * _per_edge(graph.tail_pairs, weight, -0.5)


def uniform_shares(graph: RelationalGraph, weight: Tensor) -> Tensor:
    """1 over the number of the head's edges, (E,)."""
    return weight * power_of_degree(row_sums(graph.adjacency, weight), -1.0).index_select(0, graph.heads())


def translated_logits(graph: RelationalGraph, x: Tensor, scorer: TripleScorer, tables: Tables) -> Tensor:
    r"""KGAT's logits (Wang et al., KDD 2019, eq. 4), (E,): :math:`e_t^r \cdot \tanh(e_h^r + \rho_r)`.

    :math:`e^r` is a node in the space of the relation, :math:`e W_r` in the paper; each distinct pair of node and
    relation is projected once.

    Args:
        graph: the edges.
        x: (N, D).
        scorer: whose projection it is.
        tables: its relation tables.
    """
    heads = _projected(graph.head_pairs, x, scorer, tables, shifted=True)
    return pair_dots(graph, heads, _projected(graph.tail_pairs, x, scorer, tables, shifted=False))


def _projected(pairs: NodePairs, x: Tensor, scorer: TripleScorer, tables: Tables, *, shifted: bool) -> Tensor:
    """Nodes in the spaces of their relations, (P, K), relation by relation; ``shifted`` ones moved and squashed."""
    vectors = scorer.vectors(torch.arange(len(pairs.starts) - 1, device=x.device), tables)
    recorded = torch.is_grad_enabled()
    made = [] if recorded else [x.new_empty(len(pairs), vectors.shape[1])]
    for relation, (start, end) in enumerate(zip(pairs.starts[:-1], pairs.starts[1:], strict=True)):
        if end == start:
            continue
        rows = scorer.project(x.index_select(0, pairs.node[start:end]), pairs.relation[start], tables)
        if shifted:
            rows = torch.tanh(rows + vectors[relation])
        if recorded:
            made.append(rows)
        else:  # what is put together at once would be there twice
            made[0][start:end] = rows
    return torch.cat(made) if recorded else made[0]


def _per_edge(pairs: NodePairs, weight: Tensor, power: float) -> Tensor:
    """A power of the weight that each edge's pair has, 0 where it has none."""
    sums = weight.new_zeros(len(pairs)).index_add(0, pairs.of_edge, weight)
    return power_of_degree(sums, power).index_select(0, pairs.of_edge)
