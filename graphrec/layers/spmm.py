"""Products of sparse matrices with dense ones: the one place that picks a kernel for them.

Two operations whose gradients are each other, :func:`spmm` (sparse times dense) and :func:`sddmm` (the
product ``a bᵀ`` at the stored entries alone), so that both can be differentiated any number of times.
Nothing of size (edges x width) is made. On the CPU the kernels are that of bags of embeddings
(:mod:`graphrec.layers.bags`), MKL's row-parallel product for other types than float32 and for a few columns, and
torch's sampled product, on CUDA those of cuSPARSE; the same call reaches all, and each entry of a result is summed by
one thread in stored order.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers import bags

MEMORY_BUDGET = 64 * 2**20
"""Bytes that the temporaries of one product may take."""


def spmm(adj: Adjacency, x: Tensor, values: Tensor | None = None) -> Tensor:
    """``A x`` for a sparse (R, C) matrix A.

    Differentiable, twice and more, in ``x`` and ``values``. Without ``values`` the map is linear and nothing
    but the matrix is kept for the backward pass.

    Args:
        adj: the matrix; its own values are used, ones where it has none.
        x: (C, D) or (C,); float32 or float64. Half-precision input is multiplied in float32, by blocks of
            columns.
        values: (L,) in edge-list order, taking the place of the matrix's own.

    Returns:
        (R, D) or (R,), of ``x``'s type.

    Raises:
        InputError: shapes or floating types do not fit.
    """
    if x.dim() not in (1, 2) or x.shape[0] != adj.shape[1]:
        raise InputError(f"x must be ({adj.shape[1]}, D) for a matrix of shape {adj.shape}, found {tuple(x.shape)}.")
    _check_floating("x", x)
    dense = x.unsqueeze(1) if x.dim() == 1 else x
    product: Tensor
    stored = adj.values if values is None else adj.stored(values)
    if stored is None or (values is None and not stored.requires_grad):
        product = _Linear.apply(adj, dense)
    else:
        if stored.dtype != x.dtype:
            raise InputError(f"values are {stored.dtype} and x is {x.dtype}; they must be of one type.")
        product = _Spmm.apply(adj, stored, dense)
    return product.squeeze(1) if x.dim() == 1 else product


def sddmm(adj: Adjacency, a: Tensor, b: Tensor) -> Tensor:
    """``a[r] · b[c]`` for each edge (r, c) of the matrix, whatever its values; differentiable, twice and
    more.

    Args:
        adj: an (R, C) matrix.
        a: (R, D) float.
        b: (C, D) float.

    Returns:
        (L,) in edge-list order; 0 for an edge that ``adj`` does not hold (it is a subset of rows).

    Raises:
        InputError: shapes or floating types do not fit.
    """
    if a.dim() != 2 or b.dim() != 2 or (a.shape[0], b.shape[0]) != adj.shape or a.shape[1] != b.shape[1]:
        raise InputError(
            f"a and b must be ({adj.shape[0]}, D) and ({adj.shape[1]}, D), found {tuple(a.shape)} and {tuple(b.shape)}."
        )
    if a.dtype != b.dtype:
        raise InputError(f"a is {a.dtype} and b is {b.dtype}; they must be of one type.")
    _check_floating("a", a)
    stored: Tensor = _Sddmm.apply(adj, a, b)
    return listed_values(adj, stored)


def listed_values(adj: Adjacency, stored: Tensor) -> Tensor:
    """Values (E,) in stored order put into edge-list order, (L,), those of one edge added up;
    differentiable.
    """
    if adj.edge is None:
        return stored
    return stored.new_zeros(adj.num_edges).index_add(0, adj.edge, stored)


def multiply(
    adj: Adjacency,
    x: Tensor,
    values: Tensor | None = None,
    *,
    out: Tensor | None = None,
    add: Tensor | None = None,
    add_scale: float = 1.0,
    scale: float = 1.0,
) -> Tensor:
    """The kernel under :func:`spmm`, outside autograd: ``add_scale * add + scale * A x``.

    Args:
        adj: an (R, C) matrix.
        x: (C, D) of any floating type.
        values: (E,) in *stored* order, of ``x``'s type; None: the matrix's own, or ones.
        out: (R, D) where the result goes; may be ``add`` itself but not ``x``.
        add: (R, D).
        add_scale: a factor on ``add``.
        scale: a factor on the product.
    """
    if add_scale == 0:
        add = None
    if adj.shape[0] == 0 or x.shape[1] == 0:
        return x.new_empty(adj.shape[0], x.shape[1]) if out is None else out
    if len(adj) == 0:
        out = x.new_empty(adj.shape[0], x.shape[1]) if out is None else out
        return out.zero_() if add is None else torch.mul(add, add_scale, out=out)
    if x.dtype in (torch.float16, torch.bfloat16):
        return _multiply_half(adj, x, values, out, add, add_scale, scale)
    if bags.serves(x, adj.rowptr, adj.col):
        stored = _own_values(adj, x.dtype) if values is None else values
        return bags.bag_product(adj.rowptr, adj.col, stored, x, out, add, add_scale, scale)
    if out is None:
        out = x.new_empty(adj.shape[0], x.shape[1])
    matrix = _matrix(adj, x.dtype, values)
    dense = x if x.stride(1) == 1 and x.stride(0) >= x.shape[1] else x.contiguous()
    if add is None:
        return torch.addmm(out, matrix, dense, beta=0, alpha=scale, out=out)
    return torch.addmm(add, matrix, dense, beta=add_scale, alpha=scale, out=out)


def _multiply_half(
    adj: Adjacency,
    x: Tensor,
    values: Tensor | None,
    out: Tensor | None,
    add: Tensor | None,
    add_scale: float,
    scale: float,
) -> Tensor:
    """Blocks of columns in float32: what is added up is rounded once."""
    wide = None if values is None else values.float()
    block = max(1, MEMORY_BUDGET // (4 * (adj.shape[0] + adj.shape[1])))
    out = x.new_empty(adj.shape[0], x.shape[1]) if out is None else out
    for start in range(0, x.shape[1], block):
        columns = slice(start, start + block)
        product = multiply(adj, x[:, columns].float(), wide, scale=scale)
        out[:, columns] = product if add is None else product.add_(add[:, columns], alpha=add_scale)
    return out


def products_at_entries(adj: Adjacency, a: Tensor, b: Tensor) -> Tensor:
    """The kernel under :func:`sddmm`, outside autograd: (E,) in *stored* order."""
    if len(adj) == 0 or a.shape[1] == 0:
        return a.new_zeros(len(adj))
    if a.dtype in (torch.float16, torch.bfloat16):
        total = torch.zeros(len(adj), device=a.device)
        block = max(1, MEMORY_BUDGET // (4 * (adj.shape[0] + adj.shape[1])))
        for start in range(0, a.shape[1], block):
            columns = slice(start, start + block)
            total += products_at_entries(adj, a[:, columns].float(), b[:, columns].float())
        return total.to(a.dtype)
    if len(adj) > adj.shape[0] * adj.shape[1]:  # more parallel edges than cells, which torch's kernel refuses
        return _gathered_products(adj, a, b)
    return torch.sparse.sampled_addmm(_csr(adj, a.new_zeros(len(adj))), a, b.t(), beta=0.0).values()


def _gathered_products(adj: Adjacency, a: Tensor, b: Tensor) -> Tensor:
    """The same in blocks of edges whose gathered rows stay within the budget."""
    result = a.new_empty(len(adj))
    rows = adj.rows()
    block = max(1, MEMORY_BUDGET // (2 * a.shape[1] * a.element_size()))
    for start in range(0, len(adj), block):
        part = slice(start, start + block)
        torch.linalg.vecdot(a.index_select(0, rows[part]), b.index_select(0, adj.col[part]), out=result[part])
    return result


class _Linear(torch.autograd.Function):
    """``A x`` with A fixed; keeps the matrix alone."""

    @staticmethod
    def forward(ctx: Any, adj: Adjacency, x: Tensor) -> Tensor:
        ctx.adj = adj
        return multiply(adj, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, _Linear.apply(ctx.adj.transposed, grads[0])


class _Spmm(torch.autograd.Function):
    """``A(values) x``, values in stored order."""

    @staticmethod
    def forward(ctx: Any, adj: Adjacency, values: Tensor, x: Tensor) -> Tensor:
        ctx.adj = adj
        ctx.save_for_backward(values, x if ctx.needs_input_grad[1] else None)
        return multiply(adj, x, values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        values, x = ctx.saved_tensors
        grad_values = _Sddmm.apply(ctx.adj, grads[0], x) if ctx.needs_input_grad[1] else None
        grad_x = None
        if ctx.needs_input_grad[2]:
            other, order = ctx.adj.transposed_pattern()
            grad_x = _Spmm.apply(other, values.index_select(0, order), grads[0])
        return None, grad_values, grad_x


class _Sddmm(torch.autograd.Function):
    """``a[r] · b[c]`` in stored order."""

    @staticmethod
    def forward(ctx: Any, adj: Adjacency, a: Tensor, b: Tensor) -> Tensor:
        ctx.adj = adj
        ctx.save_for_backward(a if ctx.needs_input_grad[2] else None, b if ctx.needs_input_grad[1] else None)
        return products_at_entries(adj, a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        a, b = ctx.saved_tensors
        grad_a = _Spmm.apply(ctx.adj, grads[0], b) if ctx.needs_input_grad[1] else None
        grad_b = None
        if ctx.needs_input_grad[2]:
            other, order = ctx.adj.transposed_pattern()
            grad_b = _Spmm.apply(other, grads[0].index_select(0, order), a)
        return None, grad_a, grad_b


def _matrix(adj: Adjacency, dtype: torch.dtype, values: Tensor | None) -> Tensor:
    """torch's sparse CSR tensor over the same memory; kept on ``adj`` where the values are its own."""
    if values is not None:
        return _csr(adj, values)
    key = f"csr/{dtype}"
    if key not in adj.cache:
        own = _own_values(adj, dtype)
        adj.cache[key] = _csr(adj, torch.ones(len(adj), dtype=dtype, device=adj.device) if own is None else own)
    kept: Tensor = adj.cache[key]
    return kept


def _own_values(adj: Adjacency, dtype: torch.dtype) -> Tensor | None:
    """The matrix's own values in the type of a product; kept on ``adj`` where they are of another."""
    if adj.values is None or adj.values.dtype == dtype:
        return None if adj.values is None else adj.values.detach()
    key = f"values/{dtype}"
    if key not in adj.cache:
        adj.cache[key] = adj.values.detach().to(dtype)
    kept: Tensor = adj.cache[key]
    return kept


def _csr(adj: Adjacency, values: Tensor) -> Tensor:
    _quieten_beta_notice()
    return torch.sparse_csr_tensor(adj.rowptr, adj.col, values, adj.shape, check_invariants=False)


@functools.cache
def _quieten_beta_notice() -> None:
    # torch says once a process that its CSR tensors are in beta; nobody who trains a model can act on that.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([]).long(), torch.tensor([]), (1, 1))


def _check_floating(name: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise InputError(f"{name} must be of a floating type, found {x.dtype}.")
