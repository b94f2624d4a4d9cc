"""The best of one row of scores, in an order that does not depend on the machine."""

from __future__ import annotations

import torch
from torch import Tensor


def best_of(scores: Tensor, k: int, allowed: Tensor | None, left_out: Tensor | None) -> tuple[Tensor, Tensor]:
    """The ``k`` best items by score, equal scores by item number.

    Args:
        scores: (I,).
        k: at most how many.
        allowed: int64, the only items that may appear; None: all.
        left_out: int64, items that may not appear; None: none.

    Returns:
        Items (k',) int64 and their scores, k' ≤ k.
    """
    open_items = torch.zeros(len(scores), dtype=torch.bool)
    open_items[slice(None) if allowed is None else allowed] = True
    if left_out is not None:
        open_items[left_out] = False
    items = open_items.nonzero().flatten()
    # A stable sort keeps equal scores in the order of the items, which is ascending.
    order = torch.sort(scores[items], descending=True, stable=True).indices[:k]
    return items[order], scores[items[order]]
