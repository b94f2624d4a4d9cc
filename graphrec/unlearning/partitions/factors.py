"""Vectors of users and items to cluster: whole-data matrix factorisation (WMF), by alternating least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec import randomness
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spmm import spmm

_BLOCK = 4096


def whole_data_factors(
    adj: Adjacency, *, dim: int = 32, negative_weight: float = 0.05, reg: float = 0.01, sweeps: int = 10, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Factors of all pairs, observed ones weighted 1 and all others :math:`c_0`.

    .. math:: \min \sum_{(u,i) \in E} (1 - p_u q_i)^2 + c_0 \sum_{(u,i) \notin E} (p_u q_i)^2
              + \lambda (\|P\|^2 + \|Q\|^2)

    RecEraser clusters vectors of a pre-trained WMF (negative weight .05 or .2); its code minimises the same loss by
    Adagrad, here each side is solved exactly in turn.

    Args:
        adj: (U, I); entries count once each.
        dim: D; an (I, D²) table is made, so it is small.
        negative_weight: c₀.
        reg: λ.
        sweeps: turns of both sides.
        seed: of the items' first vectors.

    Returns:
        P (U, D) and Q (I, D), float32.
    """
    matrix = adj.with_stored_values(None)
    items = 0.1 * torch.randn(adj.shape[1], dim, generator=randomness.generator(seed, "factors")).to(adj.device)
    users = items.new_zeros(adj.shape[0], dim)
    for _ in range(sweeps):
        users = _solved(matrix, items, negative_weight, reg)
        items = _solved(matrix.transposed, users, negative_weight, reg)
    return users, items


def _solved(adj: Adjacency, other: Tensor, negative_weight: float, reg: float) -> Tensor:
    """The best vectors (R, D) of the rows, given those of the columns."""
    dim = other.shape[1]
    common = negative_weight * (other.T @ other) + reg * torch.eye(dim, device=other.device)
    squares = (other.unsqueeze(2) * other.unsqueeze(1)).reshape(len(other), dim * dim)
    parts = []
    for rows in torch.arange(adj.shape[0], device=adj.device).split(_BLOCK):
        block = adj.row_subset(rows, edges=False)
        own = (1 - negative_weight) * spmm(block, squares).view(-1, dim, dim)
        factor = torch.linalg.cholesky(common + own)
        parts.append(torch.cholesky_solve(spmm(block, other).unsqueeze(2), factor)[:, :, 0])
    return torch.cat(parts)
