"""Products of two sparse matrices: into dense blocks, and cut to the largest entries of each row.

Nothing of size (rows x columns) is made: the left matrix is taken in blocks of rows whose products fit a stated budget.
On the CPU the kernels are MKL's sparse-sparse products (scipy's where torch has no MKL), on CUDA those of cuSPARSE.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spmm import _csr as csr_tensor

WORKING_MEMORY = 512 * 2**20
"""Bytes that the temporaries of one block may take."""

# A multiply-add of a sparse product leaves at most one entry: value, two indices, ranking key, masks.
_BYTES_PER_ENTRY = 64

Rescale = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(rows, columns, values) -> values`` of stored entries, all (E,), indices int64."""


def sparse_times_sparse(left: Adjacency, right: Adjacency) -> Tensor:
    """``A B`` of sparse (R, K) and (K, C) matrices as a dense float32 (R, C) tensor; not differentiable."""
    _check_inner(left, right)
    if len(left) == 0 or len(right) == 0:
        return torch.zeros(left.shape[0], right.shape[1], device=left.device)
    if left.device.type == "cpu":
        if not torch.backends.mkl.is_available():
            return torch.from_numpy((_scipy(left) @ _scipy(right)).toarray())
        out = torch.empty(left.shape[0], right.shape[1])
        return torch.addmm(out, _csr(left), _csr(right), beta=0, out=out)
    return torch.mm(_csr(left), _csr(right)).to_dense()


def product_in_columns(left: Adjacency, right: Adjacency) -> Tensor:
    """``(A B)ᵀ`` of sparse (R, K) and (K, C) matrices as a dense float32 (C, R) tensor; not differentiable.

    For products with few entries: they are made sparse, and each is written to its place.
    """
    _check_inner(left, right)
    rowptr, col, value = _product(left, right)
    count = left.shape[0]
    out = torch.zeros(right.shape[1], count, device=left.device)
    row = torch.repeat_interleave(rowptr.diff(), output_size=len(col))
    out.view(-1)[col * count + row] = value
    return out


def largest_of_product(
    left: Adjacency,
    right: Adjacency,
    k: int,
    *,
    rescale: Rescale | None = None,
    drop_diagonal: bool = False,
    memory: int = WORKING_MEMORY,
) -> Adjacency:
    """The ``k`` largest positive entries of each row of ``A B``; equal ones by lower column.

    Args:
        left: A, (R, K).
        right: B, (K, C).
        k: how many entries a row keeps at most.
        rescale: applied to the entries of the product before they are compared.
        drop_diagonal: whether entries with row = column are left out.
        memory: bytes for the temporaries of a block of rows.

    Returns:
        An (R, C) matrix with float32 values, no edge ids.
    """
    _check_inner(left, right)
    if k < 1:
        raise InputError(f"k must be 1 or more, found {k}.")
    counts, columns, values = [], [], []
    for start, stop in _blocks(left, right, memory):
        rows = torch.arange(start, stop, device=left.device)
        rowptr, col, value = _product(left.row_subset(rows), right)
        size = rowptr.diff()
        row = torch.repeat_interleave(rows, size, output_size=len(col))
        if rescale is not None:
            value = rescale(row, col, value)
        if drop_diagonal:
            value = value.masked_fill(row == col, 0.0)
        keep = largest_per_row(rowptr, col, value, k)
        counts.append(torch.bincount(row[keep] - start, minlength=stop - start))
        columns.append(col[keep].to(torch.int32))
        values.append(value[keep])
    return assemble(counts, columns, values, (left.shape[0], right.shape[1]), left.device)


def assemble(
    counts: list[Tensor],
    columns: list[Tensor],
    values: list[Tensor],
    shape: tuple[int, int],
    device: torch.device | str = "cpu",
) -> Adjacency:
    """A matrix from blocks of rows: entries in each row, their columns (int32) and values, in row order."""
    rowptr = torch.zeros(shape[0] + 1, dtype=torch.int64, device=device)
    if counts:
        rowptr[1:] = torch.cat(counts).cumsum(0)
    if int(rowptr[-1]) >= 2**31:
        raise InputError(f"{int(rowptr[-1])} entries are kept; 32-bit indices hold 2147483647. Lower k.")
    col = torch.cat(columns) if columns else torch.zeros(0, dtype=torch.int32, device=device)
    value = torch.cat(values) if values else torch.zeros(0, device=device)
    return Adjacency(rowptr.to(torch.int32), col, shape, value)


def largest_per_row(rowptr: Tensor, col: Tensor, value: Tensor, k: int, memory: int = WORKING_MEMORY) -> Tensor:
    """Mask (E,) of the ``k`` largest positive float32 values of each row of a CSR matrix; equal ones by lower column.

    Rows of like length are padded to one length and searched together, without sorting them.
    """
    # The bits of positive floats ascend with the floats; the column below them settles equal values.
    key = (value.clamp_min(0.0).view(torch.int32).long() << 32) | (0x7FFFFFFF - col.long())
    size = rowptr.diff()
    threshold = torch.full_like(size, 1 << 32)
    long = torch.nonzero(size > k).flatten()
    if len(long):
        long = long[size[long].argsort()]
        lengths = size[long].tolist()
        first = 0
        while first < len(lengths):
            last = first + 1
            # Rows as long as they like to be, as long as padding adds no more than a quarter.
            while (
                last < len(lengths)
                and lengths[last] <= 1.25 * lengths[first] + 16
                and (last + 1 - first) * lengths[last] * 32 <= memory
            ):
                last += 1
            picked = long[first:last]
            width = lengths[last - 1]
            place = torch.arange(width, device=col.device)
            index = rowptr[picked, None] + place
            padded = key[index.clamp_max_(len(key) - 1)].masked_fill_(place >= size[picked, None], 0)
            threshold[picked] = _kth_largest(padded, k).clamp_min(1 << 32)
            first = last
    return key >= torch.repeat_interleave(threshold, size, output_size=len(key))


def _kth_largest(padded: Tensor, k: int) -> Tensor:
    """The k-th largest of each row (B,) of a (B, L) tensor; may reorder it."""
    if padded.device.type == "cpu":
        array = padded.numpy()
        array.partition(array.shape[1] - k, axis=1)
        return torch.from_numpy(np.ascontiguousarray(array[:, -k]))
    return padded.topk(k, dim=1, sorted=False).values.amin(1)


def transposed(matrix: Adjacency) -> Adjacency:
    """The transposed matrix with its values, without edge ids, columns ascending; by counting on the CPU."""
    shape = (matrix.shape[1], matrix.shape[0])
    values = torch.ones(len(matrix), device=matrix.device) if matrix.values is None else matrix.values
    if matrix.device.type == "cpu":
        made = _scipy(matrix).tocsc()
        return Adjacency(
            torch.from_numpy(made.indptr.astype(np.int32, copy=False)),
            torch.from_numpy(made.indices.astype(np.int32, copy=False)),
            shape,
            torch.from_numpy(made.data),
        )
    plain = Adjacency(matrix.rowptr, matrix.col, matrix.shape, values)
    other = plain.transposed
    return Adjacency(other.rowptr, other.col, shape, other.values)


def row_sums(matrix: Adjacency) -> Tensor:
    """Sum of the values of each row, (R,), added up in float64."""
    total = torch.zeros(matrix.shape[0], dtype=torch.float64, device=matrix.device)
    values = torch.ones(len(matrix), device=matrix.device) if matrix.values is None else matrix.values
    return total.index_add_(0, matrix.rows().long(), values.double())


def _blocks(left: Adjacency, right: Adjacency, memory: int) -> list[tuple[int, int]]:
    """Ranges of rows of ``left`` whose products have at most ``memory`` bytes of entries (one row at least)."""
    work = torch.zeros(left.shape[0], dtype=torch.int64, device=left.device)
    work.index_add_(0, left.rows().long(), right.degrees(0)[left.col.long()])
    total = np.concatenate([[0], np.minimum(work.cpu().numpy(), right.shape[1]).cumsum()])
    budget = max(memory // _BYTES_PER_ENTRY, 1)
    bounds = [0]
    while bounds[-1] < left.shape[0]:
        stop = int(np.searchsorted(total, total[bounds[-1]] + budget, side="right")) - 1
        bounds.append(max(stop, bounds[-1] + 1))
    return list(itertools.pairwise(bounds))


def _product(left: Adjacency, right: Adjacency) -> tuple[Tensor, Tensor, Tensor]:
    """Row pointers, columns (int64) and values of ``A B``; columns of a row in any order."""
    if len(left) == 0 or len(right) == 0:
        empty = torch.zeros(0, dtype=torch.int64, device=left.device)
        rowptr = torch.zeros(left.shape[0] + 1, dtype=torch.int64, device=left.device)
        return rowptr, empty, torch.zeros(0, device=left.device)
    if left.device.type == "cpu" and not torch.backends.mkl.is_available():
        made = _scipy(left) @ _scipy(right)
        rowptr, col = (torch.from_numpy(array.astype(np.int64)) for array in (made.indptr, made.indices))
        return rowptr, col, torch.from_numpy(made.data)
    product = torch.mm(_csr(left), _csr(right))
    return product.crow_indices().long(), product.col_indices().long(), product.values()


def _csr(matrix: Adjacency) -> Tensor:
    values = torch.ones(len(matrix), device=matrix.device) if matrix.values is None else matrix.values
    return csr_tensor(matrix, values.float())


def _scipy(matrix: Adjacency) -> sparse.csr_matrix:
    values = torch.ones(len(matrix)) if matrix.values is None else matrix.values.float()
    arrays = values.detach().numpy(), matrix.col.numpy(), matrix.rowptr.numpy()
    return sparse.csr_matrix(arrays, shape=matrix.shape)


def _check_inner(left: Adjacency, right: Adjacency) -> None:
    if left.shape[1] != right.shape[0]:
        raise InputError(f"matrices of shapes {left.shape} and {right.shape} cannot be multiplied.")
