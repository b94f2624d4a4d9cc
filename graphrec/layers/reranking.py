"""Rankings in two stages: a quick score picks candidates, a costly one orders them, and the others stand below."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphrec.errors import InputError


def reranked(coarse: Tensor, count: int, exact: Callable[[Tensor], Tensor], last: Tensor | None = None) -> Tensor:
    """Scores whose ``count`` best columns of each row, by ``coarse``, are exact, and all others lower.

    The others keep the order of ``coarse`` (equal ones by column) and get a value each, one apart, from below the
    row's smallest exact score down: rankings of whole rows have no ties among them.

    Args:
        coarse: (B, P) float.
        count: candidates of a row, at least 1.
        exact: columns (B, count) int64 to their scores (B, count).
        last: (B, P) bool, columns that are candidates only where there are too few others, and come last.

    Returns:
        (B, P) float, differentiable where ``exact`` is.
    """
    if count < 1:
        raise InputError(f"the number of candidates must be 1 or more, found {count}.")
    order = coarse.detach().argsort(dim=1, descending=True, stable=True)
    if last is not None:
        order = order.gather(1, last.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))
    scores = exact(order[:, :count])
    floor = scores.detach().amin(1, keepdim=True).floor()
    steps = torch.arange(1, coarse.shape[1] - scores.shape[1] + 1, device=coarse.device, dtype=scores.dtype)
    return torch.empty_like(coarse).scatter(1, order, torch.cat([scores, floor - steps], 1))
