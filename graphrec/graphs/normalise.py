"""Normalised matrices: entries divided by degrees, with 0 in place of 1/0 for isolated nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency

Normalisation = Literal["sym", "left", "right", "none"]

_EXPONENTS: dict[str, tuple[float, float]] = {
    "sym": (-0.5, -0.5),
    "left": (-1.0, 0.0),
    "right": (0.0, -1.0),
    "none": (0.0, 0.0),
}


def normalise(adj: Adjacency, kind: str = "sym", self_loops: bool = False) -> Adjacency:
    r"""A matrix with its entries divided by the degrees of its rows and columns.

    ``sym`` :math:`D_r^{-1/2} A D_c^{-1/2}`, ``left`` :math:`D_r^{-1} A`, ``right`` :math:`A D_c^{-1}`,
    ``none`` A itself. Degrees are sums of values (or counts where there are none); a degree of 0 gives a row
    or column of zeros.

    Args:
        adj: an (R, C) matrix, such as users x items: the halves of :math:`\hat A` of a bipartite graph.
        kind: see above.
        self_loops: A + I takes the place of A, degrees included. The matrix must be square. Loops come after
            the L edges in the edge list and carry the edge id -1.

    Raises:
        InputError: unknown kind; self-loops on a matrix that is not square.
    """
    if kind not in _EXPONENTS:
        raise unknown("normalisation", kind, _EXPONENTS)
    if self_loops:
        adj = add_self_loops(adj)
    left, right = _EXPONENTS[kind]
    values = torch.ones(len(adj), device=adj.device) if adj.values is None else adj.values
    rows, cols = adj.rows(), adj.col
    if left:
        values = values * power_of_degree(_sums(adj, rows, 0), left).index_select(0, rows)
    if right:
        values = values * power_of_degree(_sums(adj, cols, 1), right).index_select(0, cols)
    made = adj.with_stored_values(values)
    return replace(made, symmetric=True, cache={}) if adj.symmetric and left == right else made


def power_of_degree(degree: Tensor, power: float) -> Tensor:
    """``degree ** power`` with ``0 ** power := 0``, also in the gradient."""
    positive = degree > 0
    return torch.where(positive, degree.where(positive, torch.ones_like(degree)).pow(power), 0.0)


def edge_degrees(edge_index: Tensor, shape: tuple[int, int], weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sums of weights (E,), default 1, of a list of edges (2, E), at its sources (R,) and at its targets (C,)."""
    weight = torch.ones(edge_index.shape[1], device=edge_index.device) if weight is None else weight
    sources, targets = (
        weight.new_zeros(n).index_add(0, ends, weight) for n, ends in zip(shape, edge_index, strict=True)
    )
    return sources, targets


def symmetric_entries(edge_index: Tensor, shape: tuple[int, int], weight: Tensor) -> Tensor:
    """Entries of D_r^-1/2 A D_c^-1/2 for weighted edges (2, E), weights (E,) of 0 too; differentiable in ``weight``."""
    sources, targets = edge_degrees(edge_index, shape, weight)
    return weight * power_of_degree(sources, -0.5)[edge_index[0]] * power_of_degree(targets, -0.5)[edge_index[1]]


def add_self_loops(adj: Adjacency) -> Adjacency:
    """A + I: one entry of value 1 more for each node, after the others in the edge list, with edge id -1."""
    size = adj.shape[0]
    if adj.shape[1] != size:
        raise InputError(f"self-loops need a square matrix, found shape {adj.shape}.")
    if adj.num_edges != len(adj):
        raise InputError("self-loops can't be added to a matrix of picked rows; add them before picking.")
    listed = torch.argsort(adj.edge_positions())
    nodes = torch.arange(size, device=adj.device)
    ends = torch.stack([adj.rows().long(), adj.col.long()])[:, listed]
    values, edge_id = adj.values, adj.edge_id
    if values is not None:
        values = torch.cat([values.index_select(0, listed), values.new_ones(size)])
    if edge_id is not None:
        edge_id = torch.cat([edge_id[listed], edge_id.new_full((size,), -1)])
    edges = torch.cat([ends, nodes.expand(2, -1)], 1)
    return Adjacency.from_edges(edges, adj.shape, values=values, edge_id=edge_id, symmetric=adj.symmetric)


def _sums(adj: Adjacency, index: Tensor, dim: int) -> Tensor:
    if adj.values is None:
        return adj.degrees(dim).float()
    return adj.values.new_zeros(adj.shape[dim]).index_add(0, index, adj.values)
