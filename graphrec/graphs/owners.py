"""Entries that belong to owners, those of one owner next to each other."""

from __future__ import annotations

import torch
from torch import Tensor


def place_within(owner: Tensor) -> Tensor:
    """How many entries of the same owner stand before each entry, (n,) int64.

    Args:
        owner: (n,) integers, ascending.
    """
    return torch.arange(len(owner), device=owner.device) - torch.searchsorted(owner, owner)
