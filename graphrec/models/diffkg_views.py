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
from graphrec.layers.dropout import kept_entries
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
class NodeScores:
    r"""What heads and tails bring to the logits :math:`[x_h \| x_t] W \cdot \rho_r` of whatever edges there are.

    Attributes:
        head: (N, R'), ``X W_a ρᵀ``; or where relations are many (N, D), ``X W_a``.
        tail: the same with W_b.
        relations: ρ (R', D).
        complete: which of the two the tables are.
    """

    head: Tensor
    tail: Tensor
    relations: Tensor
    complete: bool

    @classmethod
    def of(cls, x: Tensor, relations: Tensor, weight: Tensor, num_edges: int) -> NodeScores:
        """For nodes x (N, D), ρ (R', D) and W (2 D, D), which about ``num_edges`` edges will ask."""
        halves = weight.split(x.shape[1])
        complete = len(x) * len(relations) <= _CELLS_PER_EDGE * num_edges
        if complete:
            halves = tuple(half @ relations.T for half in halves)
        return cls(x @ halves[0], x @ halves[1], relations, complete)

    def logits(self, graph: RelationalGraph, count: int) -> Tensor:
        """Those of a graph's first ``count`` edges, (count,)."""
        relation, heads, tails = graph.relation[:count], graph.heads()[:count], graph.tails()[:count]
        if self.complete:
            width = len(self.relations)
            head = self.head.reshape(-1).index_select(0, heads * width + relation)
            return head + self.tail.reshape(-1).index_select(0, tails * width + relation)
        sums = [
            sddmm(_cells(graph, name), rows, self.relations).index_select(0, pairs.of_edge[:count])
            for name, rows, pairs in (
                ("head_cells", self.head, graph.head_pairs),
                ("tail_cells", self.tail, graph.tail_pairs),
            )
        ]
        return sums[0] + sums[1]


def _cells(graph: RelationalGraph, name: str) -> Adjacency:
    """Which (node, relation) cells occur at one end of a graph's edges, (N, R'), in the order of its pairs."""
    if name not in graph.cache:
        pairs = graph.head_pairs if name == "head_cells" else graph.tail_pairs
        shape = graph.num_nodes, graph.num_relations
        graph.cache[name] = Adjacency.from_edges(torch.stack([pairs.node, pairs.relation]), shape)
    found: Adjacency = graph.cache[name]
    return found


def shares(matrix: Adjacency, logits: Tensor | None, like: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""What each edge counts for its head, :math:`\alpha_e \propto w_e \exp(\mathrm{LReLU}_{.2}(s_e))`, sums of 1.

    Args:
        matrix: rows are heads.
        logits: (E,), s; None: all alike.
        like: gives the floating type.
        weight: (E,), w; an edge of weight 0 is as if it were not there. None: ones.

    Returns:
        (E,).
    """
    if logits is None:
        found = matrix.degrees(0).clamp_min(1).to(like.dtype).reciprocal()[matrix.rows()]
    else:
        found = edge_softmax(matrix, functional.leaky_relu(logits, 0.2))
    if weight is None:
        return found
    found = found * weight
    total = row_sums(matrix, found)
    return found / torch.where(total > 0, total, 1.0)[matrix.rows()]


def item_rows(
    graphs: Sequence[RelationalGraph],
    x: Tensor,
    relations: Tensor,
    weight: Tensor,
    *,
    hops: int,
    residual: float,
    attention: Attention = "relation",
    message_dropout: float = 0.0,
    generator: torch.Generator | None = None,
    edge_weights: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    r"""Items as each graph has them (DiffKG, eq. 1 to 3).

    .. math:: x'_h = \frac{\mathrm{drop}(x_h + \sum_t \alpha_{ht} x_t)}{\|\cdot\|}, \qquad
              X^{res} \leftarrow \lambda X^{res} + X'

    hop after hop from X, with :math:`\alpha = \mathrm{softmax}_h\,\mathrm{LReLU}([x_h \| x_t] W \cdot \rho_r)`. The
    last hop is computed for items alone.

    Args:
        graphs: items are their first nodes.
        x: (N, D), X.
        relations: (R', D), ρ.
        weight: (2 D, D), one W for all hops.
        hops: how many.
        residual: λ.
        attention: ``relation``, or ``mean`` over the neighbours.
        message_dropout: share of entries dropped before rows are normalised.
        generator: where dropout draws from; None: nothing is dropped.
        edge_weights: for each graph (E,) or None, see :func:`shares`.

    Returns:
        (I, D) for each graph.
    """
    results = []
    most = max(map(len, graphs))
    first = NodeScores.of(x, relations, weight, most) if hops and attention == "relation" else None
    for number, graph in enumerate(graphs):
        items = graph.sizes[0]
        current, total = x, x[:items]
        for hop in range(hops):
            matrix = items_part(graph) if hop == hops - 1 else graph.adjacency
            rows, count, given = matrix.shape[0], len(matrix), None if edge_weights is None else edge_weights[number]
            logits = None
            if first is not None:
                scores = first if hop == 0 else NodeScores.of(current, relations, weight, most)
                logits = scores.logits(graph, count)
            part = shares(matrix, logits, x, None if given is None else given[:count])
            current = spmm(matrix, current, part) + current[:rows]
            if generator is not None and message_dropout:
                # Rows are normalised, so that what is left need not be scaled up.
                current = current * kept_entries(tuple(current.shape), message_dropout, generator)
            current = functional.normalize(current)
            total = residual * total + current[:items]
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
