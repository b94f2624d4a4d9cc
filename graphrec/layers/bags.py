"""Products of compressed rows with a dense matrix by the kernel that torch has for bags of embeddings (FBGEMM).

A row of the product is a weighted sum of rows of the dense matrix, which is what a bag of embeddings is. That kernel
fetches rows ahead of their turn and keeps the sum in registers: where the dense matrix is larger than the cache it
takes a half to a third of the processor time of MKL's product. Each entry is summed by one thread in stored order, the
same whatever rows are asked for beside it.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

PIECE_BYTES = 2 * 2**20
"""Bytes of the result made at a time where the caller says where it goes: they stay in the cache until put there."""

_NARROWEST = 4


def serves(x: Tensor, rowptr: Tensor, col: Tensor) -> bool:
    """Whether the kernel is there for these tensors and no slower than others."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.shape[1] >= _NARROWEST
        and rowptr.dtype == col.dtype
        and _compiled()
    )


@torch.no_grad()
def bag_product(
    rowptr: Tensor,
    col: Tensor,
    values: Tensor | None,
    x: Tensor,
    out: Tensor | None,
    add: Tensor | None,
    add_scale: float,
    scale: float,
) -> Tensor:
    """``add_scale * add + scale * A x``, outside autograd; see :func:`graphrec.layers.spmm.multiply`.

    Args:
        rowptr: (R + 1,) int32 or int64.
        col: (E,) of the same type.
        values: (E,) float32; None: ones.
        x: (C, D) float32.
        out: (R, D) where the result goes; None: a new tensor.
        add: (R, D), perhaps ``out`` itself; None: nothing is added.
        add_scale: a factor on ``add``.
        scale: a factor on the product.
    """
    size, x = len(rowptr) - 1, x.contiguous()
    if out is None:
        product = _bags(rowptr, col, values, x)
        product = product if scale == 1 else product.mul_(scale)
        return product if add is None else product.add_(add, alpha=add_scale)
    step = max(1, PIECE_BYTES // (x.element_size() * x.shape[1]))
    bounds = [*rowptr[::step].tolist(), len(col)]
    for start, low, high in zip(range(0, size, step), bounds, bounds[1:], strict=False):
        part = slice(start, min(start + step, size))
        own = None if values is None else values[low:high]
        product = _bags(rowptr[part.start : part.stop + 1] - low, col[low:high], own, x)
        target = out[part]
        if add is None:
            torch.mul(product, scale, out=target) if scale != 1 else target.copy_(product)
        elif add_scale == 1:
            torch.add(add[part], product, alpha=scale, out=target)
        else:
            torch.add(product.mul_(scale), add[part], alpha=add_scale, out=target)
    return out


def _bags(offsets: Tensor, col: Tensor, values: Tensor | None, x: Tensor) -> Tensor:
    # Of a parameter torch would note for each entry which bag it is in, for a gradient that is not asked for here.
    product: Tensor = torch.embedding_bag(x.detach(), col, offsets, False, 0, False, values, True)[0]
    return product


@functools.cache
def _compiled() -> bool:
    """Whether torch was built with FBGEMM and the processor is one for it."""
    return "fbgemm" in torch.backends.quantized.supported_engines
