"""Rows of a table that are asked for several times: looked up once each, their gradients added up in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spmm import spmm


@dataclass(frozen=True)
class RepeatedRows:
    """Which different numbers a tensor of numbers holds, and where.

    Attributes:
        distinct: (n,) int64, ascending.
        place: int64 of the tensor's shape, which of ``distinct`` stands at each place.
        places: (n, M) matrix of ones, M the number of places.
    """

    distinct: Tensor
    place: Tensor
    places: Adjacency

    def spread(self, rows: Tensor) -> Tensor:
        """Rows (n, D) of the different numbers put at all places, (…, D); differentiable any number of times."""
        spread: Tensor = _Spread.apply(self, rows)
        return spread.view(*self.place.shape, rows.shape[1])


def repeated_rows(numbers: Tensor) -> RepeatedRows:
    """The different numbers of an int64 tensor of any shape."""
    ascending, order = torch.sort(numbers.reshape(-1), stable=True)
    distinct, counts = torch.unique_consecutive(ascending, return_counts=True)
    rowptr = torch.zeros(len(distinct) + 1, dtype=torch.int32, device=numbers.device)
    rowptr[1:] = torch.cumsum(counts, 0)
    own = torch.arange(len(distinct), device=numbers.device)
    place = torch.empty_like(order)
    place[order] = torch.repeat_interleave(own, counts, output_size=len(order))
    places = Adjacency(rowptr, order.to(torch.int32), (len(distinct), len(order)))
    return RepeatedRows(distinct, place.view(numbers.shape), places)


class _Spread(torch.autograd.Function):
    """Its gradient is a sparse product: one sum for each row, where index_select would add entry by entry."""

    @staticmethod
    def forward(ctx: Any, numbers: RepeatedRows, rows: Tensor) -> Tensor:
        ctx.places = numbers.places
        return rows.index_select(0, numbers.place.reshape(-1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, spmm(ctx.places, grads[0])
