r"""Rows of a propagation, and of one of its layers beside them, in one pass; with noise after each layer or without.

.. math:: E^k = \hat A E^{k-1} + \nu^k, \qquad S = \sum_{k=0}^K w_k E^k

with :math:`\hat A = [[0, R], [R^\top, 0]]` symmetric. The noise ν passes gradients on as they are
(:mod:`graphrec.layers.noise`), so that the backward pass is the linear one by Horner's rule, started from the batch's
rows; nothing of the size of a table is kept for it.

Letters: U users, I items, D width, B and P rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.noise import Noise
from graphrec.layers.propagation import linear_propagation
from graphrec.layers.spmm import multiply, spmm

Pair = tuple[Tensor, Tensor]


def sum_and_layer_rows(
    adj: Adjacency,
    users: Tensor,
    items: Tensor,
    layer_weights: Sequence[float],
    user_rows: Tensor,
    item_rows: Tensor,
    *,
    layer: int | None = None,
    noise: Noise | None = None,
    values: Tensor | None = None,
) -> tuple[Pair, Pair]:
    """Rows of S and of E^layer; the last layer is computed for these rows alone.

    Differentiable in the tables and in ``values``, twice and more.

    Args:
        adj: the (U, I) matrix R.
        users: (U, D), E⁰ of users.
        items: (I, D), E⁰ of items.
        layer_weights: (K + 1,), w; K is 1 or more.
        user_rows: (B,) int64; may name a user more than once.
        item_rows: (P,) int64.
        layer: from 1 to K; None: K.
        noise: added to each layer from 1 on; None: there is none.
        values: (L,) in edge-list order, the entries of R, instead of the matrix's own.

    Returns:
        rows of S (B, D) and (P, D), and rows of E^layer.

    Raises:
        InputError: K is 0, ``layer`` lies outside, or shapes do not fit.
    """
    last = len(layer_weights) - 1
    layer = last if layer is None else layer
    if last < 1 or not 1 <= layer <= last:
        raise InputError(f"layer must lie between 1 and {last}, found {layer}; there must be a layer at least.")
    if (users.dim(), items.dim()) != (2, 2) or (len(users), len(items)) != adj.shape:
        raise InputError(
            f"users and items must be ({adj.shape[0]}, D) and ({adj.shape[1]}, D), found {tuple(users.shape)} and "
            f"{tuple(items.shape)}."
        )
    weights = tuple(map(float, layer_weights))
    if values is not None and values.requires_grad:
        return _recorded(adj, (users, items), weights, (user_rows, item_rows), layer, noise, values)
    adj = adj if values is None else adj.with_values(values)
    index_and_place = [torch.unique(rows, return_inverse=True) for rows in (user_rows, item_rows)]
    index = index_and_place[0][0], index_and_place[1][0]
    rows = _Rows.apply(adj, users, items, weights, index, layer, noise)
    out = [x.index_select(0, index_and_place[number % 2][1]) for number, x in enumerate(rows)]
    return (out[0], out[1]), (out[2], out[3])


def _recorded(
    adj: Adjacency,
    tables: Pair,
    weights: tuple[float, ...],
    rows: Pair,
    layer: int,
    noise: Noise | None,
    values: Tensor,
) -> tuple[Pair, Pair]:
    """The same by operations that autograd records, for entries that need gradients."""
    current, picked = tables, tables
    total = tables[0] * weights[0], tables[1] * weights[0]
    for number, weight in enumerate(weights[1:], start=1):
        current = spmm(adj, current[1], values), spmm(adj.transposed, current[0], values)
        if noise is not None:
            current = noise.added(current[0], number, 0), noise.added(current[1], number, 1)
        total = total[0] + weight * current[0], total[1] + weight * current[1]
        picked = current if number == layer else picked
    return (total[0][rows[0]], total[1][rows[1]]), (picked[0][rows[0]], picked[1][rows[1]])


class _Rows(torch.autograd.Function):
    """Distinct rows of S and of one layer."""

    @staticmethod
    def forward(
        ctx: Any,
        adj: Adjacency,
        users: Tensor,
        items: Tensor,
        weights: tuple[float, ...],
        index: Pair,
        layer: int,
        noise: Noise | None,
    ) -> Any:
        matrices = adj, adj.transposed
        picked = adj.row_subset(index[0], edges=False), adj.transposed.row_subset(index[1], edges=False)
        current, last = [users, items], len(weights) - 1
        sums = [x.index_select(0, rows).mul_(weights[0]) for x, rows in zip(current, index, strict=True)]
        at_layer = sums
        for number in range(1, last + 1):
            whole = number < last
            current = [multiply((matrices if whole else picked)[side], current[1 - side]) for side in (0, 1)]
            if noise is not None:
                for side in (0, 1):
                    noise.add_(current[side], number, side, None if whole else index[side])
            rows = [x.index_select(0, some) for x, some in zip(current, index, strict=True)] if whole else current
            if number == layer:
                at_layer = rows
            # The last rows may be what is handed out beside the sum: they must stay as they are.
            sums = [torch.add(total, x, alpha=weights[number]) for total, x in zip(sums, rows, strict=True)]
        ctx.adj, ctx.picked, ctx.weights, ctx.layer, ctx.shapes = (
            adj,
            picked,
            weights,
            layer,
            (users.shape, items.shape),
        )
        ctx.save_for_backward(*index)
        return (*sums, *at_layer)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        index, layer, weights = ctx.saved_tensors, ctx.layer, ctx.weights
        total, own = grads[:2], grads[2:]
        if torch.is_grad_enabled():  # a graph of this pass is wanted
            dense = [
                x.new_zeros(shape).index_add(0, rows, x)
                for rows, shape, x in zip(index * 2, ctx.shapes * 2, grads, strict=True)
            ]
            through = linear_propagation(ctx.adj, dense[0], dense[1], weights)
            beside = linear_propagation(ctx.adj, dense[2], dense[3], (0.0,) * layer + (1.0,))
            return None, through[0] + beside[0], through[1] + beside[1], None, None, None, None

        def at(number: int, side: int) -> Tensor:
            """What the rows of a layer are given directly."""
            return total[side] * weights[number] + own[side] if number == layer else total[side] * weights[number]

        last = len(weights) - 1
        matrices = ctx.adj, ctx.adj.transposed
        # The first product meets a right-hand side that is zero outside the rows.
        current = [multiply(ctx.picked[1 - side].turned(), at(last, 1 - side)) for side in (0, 1)]
        for number in range(last - 1, -1, -1):
            if number == layer or weights[number]:
                for side in (0, 1):
                    current[side].index_add_(0, index[side], at(number, side))
            if number:
                current = [multiply(matrices[side], current[1 - side]) for side in (0, 1)]
        return None, *current, None, None, None, None
