r"""The best approximation of a sparse matrix by one of low rank, and its products.

With V the q leading right singular vectors of A, :math:`U_q S_q V_q^\top = (A V_q) V_q^\top`: two thin tables stand for
it, and no singular value is divided by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spectral import right_singular_vectors
from graphrec.layers.spmm import multiply


@dataclass(frozen=True, eq=False)
class LowRank:
    """An (R, C) matrix of rank q.

    Attributes:
        image: (R, q), U S = A V.
        basis: (C, q), V, with orthonormal columns.
        values: (q,), S, descending.
    """

    image: Tensor
    basis: Tensor
    values: Tensor

    def times(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """``U S Vᵀ x``, (C, D) to (R, D), or some ``rows`` of it (B,); without a matrix that is not thin."""
        return _picked(self.image, rows).to(x.dtype) @ (self.basis.to(x.dtype).T @ x)

    def transposed_times(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """``V S Uᵀ x``, (R, D) to (C, D), or some ``rows`` of it (B,)."""
        return _picked(self.basis, rows).to(x.dtype) @ (self.image.to(x.dtype).T @ x)

    def apply(self, function: Callable[[Tensor], Tensor]) -> LowRank:
        """The same with ``function`` applied to each tensor."""
        return LowRank(function(self.image), function(self.basis), function(self.values))


def low_rank(adj: Adjacency, rank: int, *, seed: int = 0) -> LowRank:
    """The approximation of rank q = min(``rank``, R, C) of a sparse matrix, float32.

    Args:
        adj: (R, C); taken as constant.
        rank: 1 or more.
        seed: seeds the iteration for large matrices; see
            :func:`~graphrec.layers.spectral.right_singular_vectors`.

    Raises:
        InputError: ``rank`` is 0 or less.
    """
    if rank < 1:
        raise InputError(f"rank must be 1 or more, found {rank}.")
    if adj.values is not None:
        adj = adj.with_stored_values(adj.values.detach().float())
    values, basis = right_singular_vectors(adj, rank, seed=seed)
    return LowRank(multiply(adj, basis), basis, values)


def _picked(table: Tensor, rows: Tensor | None) -> Tensor:
    return table if rows is None else table.index_select(0, rows)
