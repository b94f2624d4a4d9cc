"""Rows written into a table at given places."""

from __future__ import annotations

import torch
from torch import Tensor

_NUMPY = (torch.float32, torch.float64)


@torch.no_grad()
def put_rows(table: Tensor, index: Tensor, rows: Tensor) -> None:
    """``table[index] = rows``, outside autograd.

    On the CPU by numpy, which copies a row at once: a third of the time of torch's ``index_copy_``.

    Args:
        table: (N, D), changed in place.
        index: (n,) int64, distinct.
        rows: (n, D) of the same type.
    """
    if table.device.type != "cpu" or table.dtype not in _NUMPY or rows.dtype != table.dtype:
        table.index_copy_(0, index, rows)
        return
    table.detach().numpy()[index.numpy()] = rows.detach().numpy()
    if not table.is_inference():
        torch.autograd.graph.increment_version(table)
