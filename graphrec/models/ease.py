"""EASE: the item-item ridge regression with a diagonal of zero."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.neighbourhood import (
    WORKING_MEMORY,
    assemble,
    largest_per_row,
    sparse_times_sparse,
    transposed,
)
from graphrec.layers.spmm import multiply
from graphrec.models.base import GraphInputs
from graphrec.models.closed_form import ItemWeights

DENSE_LIMIT = 256 * 2**20
"""Bytes up to which all weights are kept when ``keep`` is None."""
KEPT_BY_DEFAULT = 500


class EASE(ItemWeights):
    r"""EASE (Steck, WWW 2019, https://arxiv.org/abs/1905.03375).

    .. math:: \min_B \|X - X B\|_F^2 + \lambda \|B\|_F^2, \; \operatorname{diag} B = 0: \qquad
              B_{ij} = -\frac{(G^{-1})_{ij}}{(G^{-1})_{jj}}, \quad G = X^\top X + \lambda I, \qquad y_u = r_u B

    X is R, or with ``weighted`` the square roots of the edges' weights: G is then the sum of w_u r_uᵀ r_u where the
    weights of a user are equal, and an edge of weight 0 is as if removed.

    The inverse is taken in place in float32 (enough for λ of 1 and more) by Cholesky factorisation: of G (I x I) or,
    where users are fewer than items, of K = X Xᵀ + λ I (U x U), from which B follows by Woodbury's identity,
    ``B_ij = (Xᵀ K⁻¹ X)_ij / (1 - (Xᵀ K⁻¹ X)_jj)``: 3.6 GB for Gowalla's 29,858 users, 6.7 GB for its 40,981 items.
    Memory is checked first. All of B is kept while that takes at most :data:`DENSE_LIMIT` bytes; otherwise the
    ``keep`` weights of largest magnitude of each column, and :meth:`facts` says what that cost: on Gowalla Recall@20 is
    .1765 with all weights, .1736 with 1000 and .1732 with 500 of each column.

    Args:
        inputs: the dataset or the inputs taken from it.
        reg: λ; larger values give smaller weights. 80 is the published setting for Gowalla (Recall@20 .1765), 300 that
            for Yelp2018.
        keep: weights kept of each column; None: all while they are few, 500 otherwise; 0: all.
        weighted: whether the ``weight`` attribute of the interactions counts.
        side: which matrix is inverted: ``items``, ``users``, or ``auto``, the smaller one.

    Raises:
        InputError: there is too little memory (raised by ``solve``), or weights are asked for and there are none.
    """

    solution: ClassVar[tuple[str, ...]] = (*ItemWeights.solution, "dense_weights", "truncation")
    dense_weights: Tensor | None
    truncation: Tensor

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        reg: float = 80.0,
        keep: int | None = None,
        weighted: bool = False,
        side: Literal["auto", "items", "users"] = "auto",
    ) -> None:
        if not reg > 0:
            raise InputError(f"reg must be above 0, found {reg}.")
        if keep is not None and keep < 0:
            raise InputError(f"keep must be 0 or more, or None, found {keep}.")
        if side not in ("auto", "items", "users"):
            raise InputError(f"side must be auto, items or users, found {side!r}.")
        super().__init__(inputs, reg=reg, keep=keep, weighted=weighted, side=side)
        self.reg = reg
        self.keep = keep
        self.weighted = weighted
        self.side = side

    @property
    def solved(self) -> bool:
        """Whether B is there, dense or truncated."""
        return self._buffers["truncation"] is not None

    def facts(self) -> Mapping[str, float | int]:
        """What is kept of B, and what the rest was worth.

        ``weights_kept`` of each column at most; ``share_kept``, their share of the squared Frobenius norm of B;
        ``score_error``, |r B - r B'| / |r B| over a sample of users, B' the weights kept.
        """
        self._check_solved()
        kept, share, error = self.truncation.tolist()
        return {"weights_kept": kept, "share_kept": share, "score_error": error}

    def solve(self) -> None:
        """Invert in place, take B by blocks of columns, keep what is to be kept."""
        matrix = self._matrix()
        keep = self._keep()
        by_users = self.side == "users" or (self.side == "auto" and self.num_users < self.num_items)
        size = self.num_users if by_users else self.num_items
        self._check_memory(size, keep)
        other = matrix.transposed
        inverse = inverse_of_gram(matrix, self.reg) if by_users else inverse_of_gram(other, self.reg)
        blocks = self._by_users(matrix, inverse) if by_users else self._by_items(inverse)
        for name in self.solution:
            self._buffers[name] = None
        if keep == 0:
            self.dense_weights = torch.empty(self.num_items, self.num_items, device=self.device)
            for start, block in blocks:
                self.dense_weights[:, start : start + len(block)] = block.T
            self.truncation = torch.tensor([float(self.num_items), 1.0, 0.0], dtype=torch.float64)
        else:
            self._truncate(blocks, keep)

    def history_values(self, rows: Adjacency) -> Tensor | None:
        """Weights of the edges where they count."""
        weight = self._edge_weight()
        return None if weight is None else rows.stored(weight)

    def score_rows(self, history: Adjacency) -> Tensor:
        """``r B``."""
        if self.dense_weights is None:
            return super().score_rows(history)
        values = None if history.values is None else history.values.float()
        return multiply(history.with_stored_values(values), self.dense_weights)

    def score_dense(self, history: Tensor) -> Tensor:
        """``Bᵀ rᵀ``, r dense."""
        if self.dense_weights is None:
            return super().score_dense(history)
        return self.dense_weights.T @ history.float()

    def _edge_weight(self) -> Tensor | None:
        if not self.weighted:
            return None
        weight = self.graph_inputs.graph[self.graph_inputs.target].get("weight")
        if weight is None:
            raise InputError("EASE(weighted=True) needs a weight for each interaction; the dataset has none.")
        if bool((weight < 0).any()):
            raise InputError(f"EASE(weighted=True): weights must be 0 or more, found {float(weight.min())}.")
        return weight.float()

    def _matrix(self) -> Adjacency:
        """X (U, I)."""
        weight = self._edge_weight()
        matrix = self.interactions()
        return matrix if weight is None else matrix.with_values(weight.sqrt())

    def _keep(self) -> int:
        """Weights of each column that are kept; 0: all."""
        if self.keep is not None:
            return 0 if self.keep >= self.num_items else self.keep
        return 0 if 4 * self.num_items**2 <= DENSE_LIMIT else min(KEPT_BY_DEFAULT, self.num_items)

    def _check_memory(self, size: int, keep: int) -> None:
        kept = 4 * self.num_items**2 if keep == 0 else 24 * keep * self.num_items
        needed = 4 * size**2 + kept + 2 * WORKING_MEMORY
        free = free_memory(self.device)
        if 4 * size**2 + kept > DENSE_LIMIT and needed > free:
            raise InputError(
                f"EASE inverts a {size:,} x {size:,} matrix in place and needs {needed / 2**30:.1f} GiB for it; "
                f"{free / 2**30:.1f} GiB are free on {self.device}. Free memory, keep fewer weights (keep=), or drop "
                "rare items and users (a k-core)."
            )

    def _width(self, height: int) -> int:
        """Columns of B in a block, given the rows of all its temporaries together."""
        return max(1, WORKING_MEMORY // (4 * height))

    def _by_items(self, inverse: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Blocks of columns of B, as rows, from G⁻¹."""
        diagonal = inverse.diagonal().clone()
        width = self._width(3 * self.num_items)
        for start in range(0, self.num_items, width):
            stop = min(start + width, self.num_items)
            block = inverse[start:stop] / -diagonal[start:stop, None]
            block.diagonal(start).zero_()
            yield start, block

    def _by_users(self, matrix: Adjacency, inverse: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Blocks of columns of B, as rows, from K⁻¹."""
        other = matrix.transposed
        width = self._width(2 * self.num_users + 4 * self.num_items)
        for start in range(0, self.num_items, width):
            columns = torch.arange(start, min(start + width, self.num_items), device=self.device)
            inner = multiply(other.row_subset(columns), inverse)
            block = multiply(other, inner.T.contiguous()).T.contiguous()
            own = block.diagonal(start)
            block /= (1.0 - own)[:, None].clone()
            own.zero_()
            yield start, block

    def _truncate(self, blocks: Iterator[tuple[int, Tensor]], keep: int) -> None:
        sample = torch.linspace(0, max(self.num_users - 1, 0), min(256, self.num_users), device=self.device)
        users = self.history(self.interactions().row_subset(sample.long().unique()))
        counts, columns, values, scores = [], [], [], []
        total = kept = 0.0
        for _, block in blocks:
            size = block.abs()
            # No weight of 0 is kept.
            threshold = _kth(size, keep).clamp_min_(torch.finfo(size.dtype).smallest_normal)
            row, col = (size >= threshold).nonzero(as_tuple=True)
            rowptr = torch.zeros(len(block) + 1, dtype=torch.int64, device=self.device)
            rowptr[1:] = torch.bincount(row, minlength=len(block)).cumsum(0)
            chosen = largest_per_row(rowptr, col, size[row, col], keep)
            row, col = row[chosen], col[chosen]
            counts.append(torch.bincount(row, minlength=len(block)))
            columns.append(col.to(torch.int32))
            values.append(block[row, col])
            total += float(torch.linalg.vecdot(block, block).sum(dtype=torch.float64))
            kept += float(values[-1].double().square().sum())
            scores.append(multiply(users, block.T.contiguous()))
        shape = (self.num_items, self.num_items)
        weights = transposed(assemble(counts, columns, values, shape, self.device))
        self.set_weights(weights)
        share = kept / total if total > 0 else 1.0
        exact = torch.cat(scores, 1)
        length, error = exact.norm(), (exact - sparse_times_sparse(users, weights)).norm()
        relative = float(error / length) if length > 0 else 0.0
        self.truncation = torch.tensor([float(keep), share, relative], dtype=torch.float64)


def inverse_of_gram(matrix: Adjacency, reg: float) -> Tensor:
    """``(A Aᵀ + reg I)^-1``, (R, R) float32, in the memory of one such matrix on the CPU and two on a GPU.

    Raises:
        InputError: the matrix is not positive definite in float32.
    """
    size = matrix.shape[0]
    other = matrix.transposed
    gram = torch.empty(size, size, device=matrix.device)
    step = max(1, WORKING_MEMORY // max(4 * size, 1) // 4)
    for start in range(0, size, step):
        rows = torch.arange(start, min(start + step, size), device=matrix.device)
        gram[start : start + step] = sparse_times_sparse(matrix.row_subset(rows), other)
    gram.diagonal().add_(reg)
    if matrix.device.type != "cpu":
        factor, failed = torch.linalg.cholesky_ex(gram)
        _check_definite(int(failed), reg)
        return torch.cholesky_inverse(factor, out=gram)
    # Transposed, rows are columns: LAPACK works on the tensor's own memory.
    columns = gram.numpy().T
    factor, failed = lapack.spotrf(columns, lower=1, clean=0, overwrite_a=1)
    _check_definite(failed, reg)
    inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    _check_definite(failed, reg)
    if not np.shares_memory(inverse, columns):
        raise InputError("LAPACK worked on a copy, twice the memory that was checked for.")
    # The lower triangle in LAPACK's order is the upper one of the tensor.
    for start in range(0, size, step):
        stop = min(start + step, size)
        corner = gram[start:stop, start:stop]
        corner.copy_(corner.triu() + corner.triu(1).T)
        gram[stop:, start:stop] = gram[start:stop, stop:].T
    return gram


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device: of a GPU, what the driver says; else what the kernel holds available."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return min(int(line.split()[1]) * 1024, _group_limit())
    except FileNotFoundError:
        pass  # not Linux: what is installed has to do
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _group_limit() -> int:
    """What the control group of this process has left, a very large number where it has no limit."""
    unlimited = 1 << 62
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            used = int(file.read())
    except FileNotFoundError:
        return unlimited
    return unlimited if limit == "max" else max(int(limit) - used, 0)


def _check_definite(failed: int, reg: float) -> None:
    if failed:
        raise InputError(
            f"EASE: the matrix is not positive definite in float32 (row {failed}) with reg {reg}; raise reg."
        )


def _kth(size: Tensor, k: int) -> Tensor:
    """The k-th largest of each row, (B, 1)."""
    if size.device.type == "cpu":
        place = size.shape[1] - k
        return torch.from_numpy(np.partition(size.numpy(), place, axis=1)[:, place : place + 1].copy())
    return size.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
