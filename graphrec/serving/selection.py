"""The best of one row of scores, in an order that does not depend on the machine."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.evaluation.top_k import top_k


def best_of(scores: Tensor, k: int, allowed: Tensor | None, left_out: Tensor | None) -> tuple[Tensor, Tensor]:
    """The ``k`` best items by score, equal scores by item number.

    Args:
        scores: (I,).
        k: at most how many.
        allowed: int64, the only items that may appear; None: all.
        left_out: int64, items that may not appear; None: none.

    Returns:
        Items (k',) int64 and their scores, k' ≤ k. An item scored -inf counts as left out.
    """
    open_items = torch.zeros(len(scores), dtype=torch.bool)
    open_items[slice(None) if allowed is None else allowed] = True
    if left_out is not None:
        open_items[left_out] = False
    items, values = top_k(torch.where(open_items, scores, -torch.inf)[None], k)
    there = items[0] >= 0
    return items[0][there], values[0][there]
