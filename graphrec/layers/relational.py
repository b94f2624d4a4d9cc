r"""Propagation over typed edges: a softmax over each head's edges, and messages that depend on the relation.

What depends on a node and a relation (:math:`e_t W_r`, :math:`\rho_r \odot x_t`) is computed once for each distinct
pair of the two, of which there are far fewer than edges, and edges meet it through sparse products: nothing of size
(edges x width) is made. All functions can be differentiated twice and are deterministic on the CPU.

Letters: N nodes, E edges, R' relations, P pairs of relation and node, D and K widths. Numbers of edges are in the
order of the :class:`~graphrec.graphs.relational.RelationalGraph`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.relational import NodePairs, RelationalGraph
from graphrec.layers.spmm import multiply, sddmm, spmm

_LARGEST_EXPONENT = 60.0


def row_sums(adj: Adjacency, values: Tensor) -> Tensor:
    """The sum of each row's values, (E,) in edge-list order to (R,)."""
    return spmm(adj, values.new_ones(adj.shape[1]), values)


def edge_softmax(adj: Adjacency, logits: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Softmax over the entries of each row, :math:`w_e \exp(a_e) / \sum_{e' \in row} w_{e'} \exp(a_{e'})`.

    Parallel edges are entries of their own, each with its own share. An edge of weight 0 is as good as not there.

    Args:
        adj: an (R, C) matrix whose stored order is that of its edge list.
        logits: (E,) float, a.
        weight: (E,) float of 0 or more, w; None: ones.

    Returns:
        (E,), shares that sum to 1 in every row with entries that weigh anything.
    """
    if adj.edge is not None or logits.shape != (len(adj),):
        raise InputError(
            f"edge_softmax needs a matrix in the order of its edge list and a logit for each of its {len(adj)} edges, "
            f"found {tuple(logits.shape)}."
        )
    if weight is None:
        shares: Tensor = _EdgeSoftmax.apply(adj, logits)
        return shares
    rows = adj.rows().long()
    with torch.no_grad():
        # What a row's logits are shifted by cancels out. Edges of weight 0 must not set it: the others could vanish.
        live = logits.where(weight > 0, -torch.inf)
        largest = logits.new_full((adj.shape[0],), -torch.inf).scatter_reduce_(0, rows, live, "amax")
        shift = largest.where(largest.isfinite(), 0.0).index_select(0, rows)
    # A dead edge's own size is bounded, so that its derivative by the weight stays finite.
    sizes = weight * (logits - shift).clamp_max(_LARGEST_EXPONENT).exp()
    total = row_sums(adj, sizes)
    return sizes / total.where(total > 0, 1.0).index_select(0, rows)


class _EdgeSoftmax(torch.autograd.Function):
    """Keeps the shares alone: ``d a = y (g - sum_row y g)``."""

    @staticmethod
    def forward(ctx: Any, adj: Adjacency, logits: Tensor) -> Tensor:
        rows = adj.rows().long()
        largest = logits.new_full((adj.shape[0],), -torch.inf).scatter_reduce_(0, rows, logits, "amax")
        shares = (logits - largest.index_select(0, rows)).exp_()
        ones = shares.new_ones(adj.shape[1], 1)
        total = multiply(adj, ones, shares).squeeze(1)
        shares.div_(total.index_select(0, rows))
        ctx.adj = adj
        ctx.save_for_backward(shares)
        return shares

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (shares,) = ctx.saved_tensors
        weighted = shares * grads[0]
        inner = row_sums(ctx.adj, weighted)
        return None, weighted - shares * inner.index_select(0, ctx.adj.rows().long())


def relation_messages(
    graph: RelationalGraph, x: Tensor, relation_vectors: Tensor, values: Tensor | None = None
) -> Tensor:
    r"""For every head the sum of its messages, :math:`\sum_{(r, t)} v_e \, (\rho_r \odot x_t)`.

    The product :math:`\rho_r \odot x_t` is formed for each distinct (r, t), (P, D), and summed by a sparse product.

    Args:
        graph: the edges.
        x: (N, D).
        relation_vectors: (R', D), ρ.
        values: (E,), v; None: ones.

    Returns:
        (N, D), zero for a node without edges.
    """
    if x.dim() != 2 or relation_vectors.shape != (graph.num_relations, x.shape[1]):
        raise InputError(
            f"x must be (N, D) and relation_vectors ({graph.num_relations}, D), found {tuple(x.shape)} and "
            f"{tuple(relation_vectors.shape)}."
        )
    pairs = graph.tail_pairs
    messages = x.index_select(0, pairs.node) * relation_vectors.index_select(0, pairs.relation)
    return spmm(graph.tail_pair_matrix, messages, values)


def pair_projection(pairs: NodePairs, x: Tensor, weight: Tensor) -> Tensor:
    """``x[node] @ weight[relation]`` for each pair, one product for each relation.

    Args:
        pairs: P pairs.
        x: (N, D).
        weight: (R', D, K).

    Returns:
        (P, K).
    """
    if len(weight) != len(pairs.starts) - 1 or weight.dim() != 3 or weight.shape[1] != x.shape[1]:
        raise InputError(
            f"weight must be ({len(pairs.starts) - 1}, {x.shape[1]}, K), a matrix for each relation, found "
            f"{tuple(weight.shape)}."
        )
    lengths = [end - start for start, end in zip(pairs.starts[:-1], pairs.starts[1:], strict=True)]
    # The gradients of split, unbind and cat are each other; slices would fill a whole gradient for each relation.
    rows, matrices = x.index_select(0, pairs.node).split(lengths), weight.unbind(0)
    parts = [part @ matrix for part, matrix in zip(rows, matrices, strict=True) if len(part)]
    return torch.cat(parts) if parts else x.new_zeros(0, weight.shape[2])


def pair_dots(graph: RelationalGraph, head_rows: Tensor, tail_rows: Tensor) -> Tensor:
    """The dot product of each edge's head row and tail row.

    Args:
        graph: the edges.
        head_rows: (P_h, K), a row for each of ``graph.head_pairs``.
        tail_rows: (P_t, K), a row for each of ``graph.tail_pairs``.

    Returns:
        (E,).
    """
    return sddmm(graph.pair_matrix, head_rows, tail_rows)


def relation_logits(graph: RelationalGraph, head_scores: Tensor, tail_scores: Tensor) -> Tensor:
    r"""``head_scores[h, r] + tail_scores[t, r]`` for each edge.

    With the scores :math:`X W_a \rho^\top` and :math:`X W_b \rho^\top` these are the logits
    :math:`([x_h \| x_t] W) \cdot \rho_r` of DiffKG and KGCL, from (N, R') numbers and two gathers.

    Args:
        graph: the edges.
        head_scores: (N, R').
        tail_scores: (N, R').

    Returns:
        (E,).
    """
    width = graph.num_relations
    if head_scores.shape != (graph.num_nodes, width) or tail_scores.shape != head_scores.shape:
        raise InputError(
            f"scores must be ({graph.num_nodes}, {width}), one for each node and relation, found "
            f"{tuple(head_scores.shape)} and {tuple(tail_scores.shape)}."
        )
    heads = head_scores.reshape(-1).index_select(0, graph.heads() * width + graph.relation)
    return heads + tail_scores.reshape(-1).index_select(0, graph.tails() * width + graph.relation)
