r"""A view of items through a knowledge graph, and its way through the interactions: DiffKG's encoder.

Letters: U users, I items, N nodes of the knowledge graph (items first, then other entities), E edges, R' relations, D
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import edge_degrees
from graphrec.graphs.relational import RelationalGraph
from graphrec.layers.dropout import dropout
from graphrec.layers.relational import edge_softmax, row_sums
from graphrec.layers.spmm import sddmm, spmm
from graphrec.models.base import GraphInputs

Attention = Literal["relation", "mean"]

# A (nodes x relations) table of scores is quicker than scores of the pairs that occur, up to this many cells an edge.
_CELLS_PER_EDGE = 8


def items_part(graph: RelationalGraph) -> Adjacency:
    """The rows of the first node type, the items, (I, N): a graph's first entries; made once."""
    if "items_part" not in graph.cache:
        whole, count = graph.adjacency, graph.sizes[0]
        rowptr = whole.rowptr[: count + 1]
        graph.cache["items_part"] = Adjacency(rowptr, whole.col[: int(rowptr[-1])], (count, whole.shape[1]))
    found: Adjacency = graph.cache["items_part"]
    return found


@dataclass(frozen=True, eq=False)
class AttentionParameters:
    """ρ (R', D) and W (2 D, D) of :func:`item_rows`."""

    relations: Tensor
    weight: Tensor

    def tables(self) -> tuple[Tensor, Tensor]:
        """``W_a ρᵀ`` and ``W_b ρᵀ``, (D, R'): one for heads and one for tails."""
        half = self.weight.shape[0] // 2
        return self.weight[:half] @ self.relations.T, self.weight[half:] @ self.relations.T


def relation_scores(x: Tensor, graph: RelationalGraph, parameters: AttentionParameters) -> tuple[Tensor, Tensor]:
    r"""``x_h W_a · ρ_r`` and ``x_t W_b · ρ_r`` of each edge, (E,) and (E,).

    From (N, R') tables, or where the relations are many from products at the distinct (node, relation) pairs.
    """
    sides = (graph.heads(), graph.head_pairs), (graph.tails(), graph.tail_pairs)
    width = graph.num_relations
    if len(x) * width <= _CELLS_PER_EDGE * len(graph):
        first, second = (
            (x @ table).reshape(-1).index_select(0, nodes * width + graph.relation)
            for table, (nodes, _) in zip(parameters.tables(), sides, strict=True)
        )
        return first, second
    half = x.shape[1]
    found = []
    for part, (_, pairs) in zip((parameters.weight[:half], parameters.weight[half:]), sides, strict=True):
        cells = Adjacency.from_edges(torch.stack([pairs.node, pairs.relation]), (len(x), width))
        found.append(sddmm(cells, x @ part, parameters.relations).index_select(0, pairs.of_edge))
    return found[0], found[1]


def shares(
    graph: RelationalGraph,
    x: Tensor,
    parameters: AttentionParameters,
    attention: Attention,
    last: bool,
    weight: Tensor | None = None,
) -> Tensor:
    r"""What each edge counts for its head, :math:`\alpha_e \propto w_e \exp(\mathrm{LReLU}_{.2}(s_e))`, sums of 1.

    Args:
        graph: the graph.
        x: (N, D), what heads and tails are scored by.
        parameters: of the scores.
        attention: ``mean`` leaves the scores out.
        last: whether only edges of items are asked for.
        weight: (E,), w; an edge of weight 0 is as if it were not there. None: ones.

    Returns:
        (E,), or the items' part of it.
    """
    matrix = items_part(graph) if last else graph.adjacency
    count = len(matrix)
    if attention == "mean":
        degrees = matrix.degrees(0).clamp_min(1).to(x.dtype)
        found = degrees.reciprocal()[matrix.rows()]
    else:
        head, tail = relation_scores(x, graph, parameters)
        found = edge_softmax(matrix, functional.leaky_relu((head + tail)[:count], 0.2))
    if weight is None:
        return found
    found = found * weight[:count]
    total = row_sums(matrix, found)
    return found / torch.where(total > 0, total, 1.0)[matrix.rows()]


def item_rows(
    graphs: Sequence[RelationalGraph],
    x: Tensor,
    parameters: AttentionParameters,
    *,
    hops: int,
    residual: float,
    attention: Attention = "relation",
    message_dropout: float = 0.0,
    generator: torch.Generator | None = None,
    weights: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    r"""Items as each graph has them (DiffKG, eq. 1 to 3).

    .. math:: x'_h = \frac{\mathrm{drop}(x_h + \sum_t \alpha_{ht} x_t)}{\|\cdot\|}, \qquad
              X^{res} \leftarrow \lambda X^{res} + X'

    hop after hop from X, with :math:`\alpha = \mathrm{softmax}_h\,\mathrm{LReLU}([x_h \| x_t] W \cdot \rho_r)`. The
    last hop is computed for items alone.

    Args:
        graphs: items are their first nodes.
        x: (N, D), X.
        parameters: ρ and W, one W for all hops.
        hops: how many.
        residual: λ.
        attention: see :func:`shares`.
        message_dropout: share of entries dropped before rows are normalised.
        generator: where dropout draws from; None: nothing is dropped.
        weights: for each graph (E,) or None, see :func:`shares`.

    Returns:
        (I, D) for each graph.
    """
    results = []
    for number, graph in enumerate(graphs):
        count = graph.sizes[0]
        current, total = x, x[:count]
        for hop in range(hops):
            last = hop == hops - 1
            matrix = items_part(graph) if last else graph.adjacency
            part = shares(graph, current, parameters, attention, last, None if weights is None else weights[number])
            current = spmm(matrix, current, part) + (current[:count] if last else current)
            current = functional.normalize(dropout(current, message_dropout, generator))
            total = residual * total + current[:count]
        results.append(total)
    return results


@dataclass(frozen=True, eq=False)
class LoopedMatrix:
    r""":math:`\tilde D^{-1/2} (A + I) \tilde D^{-1/2}` on users and items, as its blocks.

    Attributes:
        users: (U, 1), the loops of users, 1 / (degree + 1).
        items: (I, 1), the loops of items.
        values: (L,) in edge-list order, the entries between users and items.
    """

    users: Tensor
    items: Tensor
    values: Tensor

    @classmethod
    def of(cls, inputs: GraphInputs, weight: Tensor | None = None) -> LoopedMatrix:
        """From the interactions, (L,) weights where given; differentiable in them."""
        edges = inputs.graph[inputs.target].edge_index.long()
        users, items = (degree + 1 for degree in edge_degrees(edges, (inputs.num_users, inputs.num_items), weight))
        values = users.rsqrt()[edges[0]] * items.rsqrt()[edges[1]]
        values = values if weight is None else values * weight
        return cls((1 / users).unsqueeze(1), (1 / items).unsqueeze(1), values)


def summed_layers(
    matrix: Adjacency,
    loops: tuple[Tensor, Tensor],
    users: Tensor,
    items: Tensor,
    num_layers: int,
    values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r""":math:`\sum_{k=0}^{K} \hat A^k [U; X_v]` for V views X_v that share their users, by Horner's rule.

    The views lie side by side, so that each product with the matrix serves all of them; what reaches items from the
    shared users is computed once.

    Args:
        matrix: (U, I), the entries between users and items.
        loops: (U, 1) and (I, 1).
        users: (U, D).
        items: (I, V D).
        num_layers: K.
        values: (L,) in edge-list order in place of the matrix's own.

    Returns:
        (U, V D) and (I, V D).
    """
    views = items.shape[1] // users.shape[1]
    wide = users.repeat(1, views)
    final = wide, items
    for layer in range(num_layers):
        sent = users if layer == 0 else final[0]
        to_items = spmm(matrix.transposed, sent, values)
        to_users = spmm(matrix, final[1], values)
        final = (
            torch.addcmul(wide, loops[0], final[0]) + to_users,
            torch.addcmul(items, loops[1], final[1]) + (to_items.repeat(1, views) if layer == 0 else to_items),
        )
    return final
