"""The best columns of each row of scores, exactly: a row is never sorted."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import InputError

TILE = 64


def top_k(scores: Tensor, k: int, users: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The ``min(k, P)`` best columns of each row: by value, equal values by column; -inf is no value.

    Args:
        scores: (B, P) contiguous, the width a multiple of :data:`TILE`.
        k: how many.
        users: (B,) named when a score is NaN.

    Returns:
        Columns (B, k') int64, -1 where there is none, and values (B, k').
    """
    size, width = scores.shape
    more = min(k + 1, width)
    tiles = width // TILE
    if width % TILE == 0 and tiles > 4 * more:
        peaks = scores.view(size, tiles, TILE).amax(2)
        # A column outside the best k + 1 tiles is no larger than k + 1 others, so their k + 1 best values are the
        # row's.
        peak, tile = peaks.topk(more, dim=1, sorted=True)
        _check_nan(peak[:, 0], users)
        rows = torch.arange(size, device=scores.device)[:, None] * tiles + tile
        chosen = scores.view(size * tiles, TILE).index_select(0, rows.view(-1)).view(size, more * TILE)
        best, inner = chosen.topk(more, dim=1, sorted=True)
        column = tile.gather(1, inner // TILE) * TILE + inner % TILE
    else:
        best, column = scores.topk(more, dim=1, sorted=True)
        _check_nan(best[:, 0], users)
    if more > k:
        last, beyond = best[:, k - 1], best[:, k]
        tied = ((last == beyond) & (last > -torch.inf)).nonzero().flatten()
        best, column = best[:, :k], column[:, :k]
        if len(tied):
            column = _settle(scores, column, best, tied)
    column, order = column.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    column = column.gather(1, order)
    return torch.where(best > -torch.inf, column, -1), best


def _settle(scores: Tensor, column: Tensor, best: Tensor, tied: Tensor) -> Tensor:
    """Give the places of the smallest value in ``best`` to the smallest columns that have it, in the rows ``tied``."""
    k = column.shape[1]
    value = best[tied, -1:]
    above = (best[tied] > value).sum(1, keepdim=True)
    numbers = torch.arange(scores.shape[1], 0, -1, dtype=torch.int32, device=scores.device)
    chosen = column.clone()
    # As many rows at a time as the block of scores is wide allows without a second block of that size.
    step = max(1, len(scores) // 8)
    for start in range(0, len(tied), step):
        rows = tied[start : start + step]
        equal = scores[rows] == value[start : start + step]
        smallest = (equal * numbers).topk(k, dim=1, sorted=True).indices
        place = torch.arange(k, device=scores.device)
        need = above[start : start + step]
        # Those above the value come first in best, in descending order, and stay.
        shifted = smallest.gather(1, (place - need).clamp(min=0))
        chosen[rows] = torch.where(place < need, column[rows], shifted)
    return chosen


def _check_nan(largest: Tensor, users: Tensor | None) -> None:
    # Both amax and topk let NaN win, so the largest value of a row tells.
    wrong = largest.isnan()
    if wrong.any():
        row = int(wrong.nonzero()[0])
        who = f"user number {int(users[row])}" if users is not None else f"row {row}"
        raise InputError(
            f"the scores of {who} contain NaN: nothing can be ranked. The training has probably diverged; lower lr."
        )
