r"""Linear propagation on a bipartite graph, :math:`\sum_k w_k \hat A^k E`, with a backward pass of its own.

With R the (normalised) users x items matrix, :math:`\hat A = [[0, R], [R^\top, 0]]` is symmetric, so that the gradient
of the polynomial is the polynomial of the gradient: nothing is kept for it but the matrix. Each power is two half-size
products, summed by Horner's rule :math:`w_0 E + \hat A (w_1 E + \hat A (w_2 E + \dots))`.

Letters: U users, I items, D width, K the degree (number of layers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.grouped_rows import GroupedRows, grouped_rows, ungrouped
from graphrec.layers.spmm import multiply, spmm

LayerWeights = Tensor | Sequence[float]
Pair = tuple[Tensor, Tensor]
Matrices = tuple[Adjacency, Adjacency]


def linear_propagation(
    adj: Adjacency, users: Tensor, items: Tensor, layer_weights: LayerWeights, values: Tensor | None = None
) -> Pair:
    r""":math:`\sum_k w_k \hat A^k E` on both sides of a bipartite graph; differentiable twice in everything.

    Args:
        adj: the (U, I) matrix R.
        users: (U, D), the users' rows of E.
        items: (I, D), the items' rows of E.
        layer_weights: (K + 1,), w; layer 0 first. Learned ones get their gradients, at the cost of the powers one by
            one in the backward pass.
        values: (L,) in edge-list order, the entries of R, instead of the matrix's own. Where they need gradients, the K
            layers are kept for the backward pass.

    Returns:
        users (U, D) and items (I, D).

    Raises:
        InputError: shapes do not fit.
    """
    _check(adj, users, items, layer_weights)
    weights = _as_tensor(layer_weights, users)
    if values is None and adj.values is not None and adj.values.requires_grad:
        return _layer_by_layer(adj, users, items, weights, None)
    if values is not None and values.requires_grad:
        return _layer_by_layer(adj, users, items, weights, values)
    if values is not None:
        adj = adj.with_values(values)
    result: Pair = _Polynomial.apply(adj, users, items, weights)
    return result


def linear_propagation_rows(
    adj: Adjacency,
    users: Tensor,
    items: Tensor,
    layer_weights: LayerWeights,
    user_rows: Tensor,
    item_rows: Tensor,
    values: Tensor | None = None,
) -> Pair:
    """Some rows of :func:`linear_propagation`, the same numbers for less.

    The last layer is computed for the rows alone, and the first product of the backward pass meets a right-hand side
    that is zero in all other rows: together about two of the 2 K products of a step less. Where at least half as many
    rows are asked for as there are, all of them are computed: picking them would cost more than it saves.

    Args:
        adj: as in :func:`linear_propagation`, and so are users, items, layer_weights and values.
        users: (U, D).
        items: (I, D).
        layer_weights: (K + 1,).
        user_rows: (B,) int64; may name a user more than once.
        item_rows: (P,) int64.
        values: (L,).

    Returns:
        (B, D) and (P, D).
    """
    return propagation_and_ego_rows(adj, users, items, layer_weights, user_rows, item_rows, values)[0]


def propagation_and_ego_rows(
    adj: Adjacency,
    users: Tensor,
    items: Tensor,
    layer_weights: LayerWeights,
    user_rows: Tensor,
    item_rows: Tensor,
    values: Tensor | None = None,
) -> tuple[Pair, Pair]:
    """:func:`linear_propagation_rows`, and beside them the same rows of the tables themselves.

    A regulariser on rows of layer 0 that takes them from here costs nothing; taken by indexing, each table would get a
    second gradient of its full size.

    Returns:
        the propagated rows (B, D) and (P, D), and the rows of ``users`` and ``items``, (B, D) and (P, D).
    """
    _check(adj, users, items, layer_weights)
    weights = _as_tensor(layer_weights, users)
    learned = any(given is not None and given.requires_grad for given in (values, adj.values, weights))
    most = 2 * (len(user_rows) + len(item_rows)) >= sum(adj.shape)
    if learned or most or len(weights) == 1:
        final = linear_propagation(adj, users, items, weights, values)
        return (final[0][user_rows], final[1][item_rows]), (users[user_rows], items[item_rows])
    adj = adj if values is None else adj.with_values(values)
    result = _PolynomialRows.apply(adj, users, items, tuple(weights.tolist()), user_rows, item_rows)
    return (result[0], result[1]), (result[2], result[3])


class _Polynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adj: Adjacency, users: Tensor, items: Tensor, weights: Tensor) -> Any:
        ctx.adj = adj
        learned = ctx.needs_input_grad[3]
        ctx.save_for_backward(weights, *((users, items) if learned else ()))
        return _horner(adj, users, items, weights.tolist())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        weights, *tables = ctx.saved_tensors
        if not tables:
            return None, *_Polynomial.apply(ctx.adj, *grads, weights), None
        # <G, A^k E> = <A^k G, E>: the powers of the gradient serve the weights too.
        users, items = grads
        total = users * weights[0], items * weights[0]
        inner = [(users * tables[0]).sum() + (items * tables[1]).sum()]
        for weight in weights[1:]:
            users, items = spmm(ctx.adj, items), spmm(ctx.adj.transposed, users)
            total = total[0] + weight * users, total[1] + weight * items
            inner.append((users * tables[0]).sum() + (items * tables[1]).sum())
        return None, *total, torch.stack(inner)


class _PolynomialRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        adj: Adjacency,
        users: Tensor,
        items: Tensor,
        weights: tuple[float, ...],
        user_rows: Tensor,
        item_rows: Tensor,
    ) -> Any:
        user_index, user_place = torch.unique(user_rows, return_inverse=True)
        item_index, item_place = torch.unique(item_rows, return_inverse=True)
        ego = users.index_select(0, user_index), items.index_select(0, item_index)
        # A last product that is the first too reads the tables themselves.
        groups = grouped_rows(adj, users) if len(weights) > 2 else ungrouped(adj)
        places = groups.placed(0, user_index), groups.placed(1, item_index)
        picked = (
            groups.between[0].row_subset(places[0], edges=False),
            groups.between[1].row_subset(places[1], edges=False),
        )
        final = _power_rows(groups, (users, items), weights, picked, places, ego)
        ctx.adj, ctx.groups, ctx.picked, ctx.places, ctx.weights = adj, groups, picked, places, weights
        ctx.shapes = users.shape, items.shape
        ctx.save_for_backward(user_index, user_place, item_index, item_place, user_rows, item_rows)
        back_to = (user_place, item_place, user_place, item_place)
        return (*(x.index_select(0, place) for x, place in zip((*final, *ego), back_to, strict=True)),)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        user_index, user_place, item_index, item_place, user_rows, item_rows = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of this pass is wanted: the same by operations that can be recorded
            sides = zip(ctx.shapes, (user_rows, item_rows), grads[:2], grads[2:], strict=True)
            dense = [[x.new_zeros(shape).index_add(0, rows, x) for x in pair] for shape, rows, *pair in sides]
            weights = torch.tensor(ctx.weights, dtype=grads[0].dtype, device=grads[0].device)
            through = _Polynomial.apply(ctx.adj, dense[0][0], dense[1][0], weights)
            return None, through[0] + dense[0][1], through[1] + dense[1][1], None, None, None
        index = user_index, item_index
        summed = [
            x.new_zeros(len(index[side % 2]), x.shape[1]).index_add_(0, (user_place, item_place)[side % 2], x)
            for side, x in enumerate(grads)
        ]
        result = _horner_of_rows(ctx.groups, ctx.weights, ctx.picked, ctx.places, summed[:2])
        for side, x in enumerate(result):
            # index_add_ is slow with a factor of its own.
            x.index_add_(0, index[side], summed[2 + side].add_(summed[side], alpha=ctx.weights[0]))
        return None, *result, None, None, None


def _horner(adj: Adjacency, users: Tensor, items: Tensor, weights: Sequence[float]) -> Pair:
    """The polynomial, w_0 E + A (w_1 E + A (w_2 E + ...))."""
    if len(weights) == 1:
        return users * weights[0], items * weights[0]
    current, scale = (users, items), weights[-1]
    for weight in reversed(weights[:-1]):
        current = (
            multiply(adj, current[1], add=users, add_scale=weight, scale=scale),
            multiply(adj.transposed, current[0], add=items, add_scale=weight, scale=scale),
        )
        scale = 1.0
    return current


def _power_rows(
    groups: GroupedRows, tables: Pair, weights: Sequence[float], picked: Matrices, places: Pair, ego: Pair
) -> Pair:
    """Rows of the polynomial, power by power: no sum is formed outside those rows.

    The powers of the users' table are alternately tables of items and of users, and so are those of the items' table:
    two chains that do not meet. One after the other they need half of the memory, and that stays in the cache.
    """
    sums = ego[0] * weights[0], ego[1] * weights[0]
    for start in (0, 1):
        side, current = start, tables[start]
        for power, weight in enumerate(weights[1:-1], start=1):
            side = 1 - side
            current = multiply((groups.first if power == 1 else groups.between)[side], current)
            sums[side].add_(current.index_select(0, places[side]), alpha=weight)
        side = 1 - side
        multiply(picked[side], current, out=sums[side], add=sums[side], scale=weights[-1])
    return sums


def _horner_of_rows(
    groups: GroupedRows, weights: Sequence[float], picked: Matrices, places: Pair, rows: Sequence[Tensor]
) -> Pair:
    """The polynomial, without its term of layer 0, of a pair that is zero outside some rows; the first product takes
    the entries of those alone. In two chains too.
    """
    transposed = picked[0].turned(), picked[1].turned()
    inner = weights[-2:0:-1]
    result = []
    for end in (0, 1):
        side = (end + len(inner)) % 2
        current = multiply(transposed[1 - side], rows[1 - side] * weights[-1])
        for weight in inner:
            current.index_add_(0, places[side], rows[side] * weight)
            side = 1 - side
            current = multiply(groups.between[side], current)
        result.append(groups.by_id(end, current))
    return result[0], result[1]


def _layer_by_layer(adj: Adjacency, users: Tensor, items: Tensor, weights: Tensor, values: Tensor | None) -> Pair:
    """Horner's rule by operations that autograd records."""
    total = users * weights[-1], items * weights[-1]
    for weight in weights[:-1].flip(0):
        total = (
            users * weight + spmm(adj, total[1], values),
            items * weight + spmm(adj.transposed, total[0], values),
        )
    return total


def _as_tensor(layer_weights: LayerWeights, like: Tensor) -> Tensor:
    return torch.as_tensor(layer_weights, dtype=like.dtype, device=like.device)


def _check(adj: Adjacency, users: Tensor, items: Tensor, layer_weights: LayerWeights) -> None:
    if (users.dim(), items.dim()) != (2, 2) or (len(users), len(items)) != adj.shape:
        raise InputError(
            f"users and items must be ({adj.shape[0]}, D) and ({adj.shape[1]}, D), found {tuple(users.shape)} and "
            f"{tuple(items.shape)}."
        )
    if len(layer_weights) == 0:
        raise InputError("layer_weights must have a weight for layer 0 at least.")
