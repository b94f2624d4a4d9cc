"""Groups of users or items with about the same total of interactions."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import InputError


def equal_total_groups(counts: Tensor, groups: int) -> Tensor:
    """The group of each node: sorted by count, then number, and cut where the running total passes an equal share.

    Args:
        counts: (N,) int64, interactions of each node.
        groups: how many; a group may be empty where single nodes have more than a share.

    Returns:
        (N,) int64 from 0 (fewest interactions) to ``groups`` - 1. Nodes of equal count may fall into different groups.
    """
    if groups < 1:
        raise InputError(f"groups is {groups}; there is at least 1.")
    order = counts.argsort(stable=True)
    total = int(counts.sum())
    # The middle of a node's own share decides, so that the last node never makes a group of its own by rounding.
    twice_middle = 2 * counts[order].cumsum(0) - counts[order]
    label = torch.empty_like(order)
    label[order] = (twice_middle * groups // max(2 * total, 1)).clamp(max=groups - 1)
    return label
