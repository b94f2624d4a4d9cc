"""Items of each user, as evaluation and serving look them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import InputError


@dataclass(frozen=True)
class UserItems:
    """Items of each user as CSR on a device.

    Attributes:
        indptr: (U+1,) int64.
        items: (E,) int64.
    """

    indptr: Tensor
    items: Tensor

    @classmethod
    def of(cls, pairs: Any, device: torch.device | str = "cpu") -> UserItems:
        """From anything with ``indptr`` and ``items``, an adjacency (``rowptr``, ``col``), or a tuple of the two."""
        if isinstance(pairs, UserItems):
            indptr, items = pairs.indptr, pairs.items
        elif isinstance(pairs, tuple):
            indptr, items = pairs[0], pairs[1]
        elif hasattr(pairs, "rowptr"):
            indptr, items = pairs.rowptr, pairs.col
        elif hasattr(pairs, "indptr"):
            indptr, items = pairs.indptr, pairs.items if hasattr(pairs, "items") else pairs.indices
        else:
            raise InputError(f"expected items of each user as CSR (indptr and items), found a {type(pairs).__name__}.")
        return cls(_int64(indptr, device), _int64(items, device))

    def to(self, device: torch.device | str) -> UserItems:
        """The same on another device."""
        return UserItems(self.indptr.to(device), self.items.to(device))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def counts(self, users: Tensor | None = None) -> Tensor:
        """(B,) int64, how many items each user has."""
        if users is None:
            return self.indptr.diff()
        return self.indptr[users + 1] - self.indptr[users]

    def gather(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (P,) that count from 0 in the order of ``users``, and the items (P,) of these users."""
        start, stop = self.indptr[users], self.indptr[users + 1]
        counts = stop - start
        ends = counts.cumsum(0)
        rows = torch.repeat_interleave(counts)
        shift = start - ends + counts
        return rows, self.items[torch.arange(len(rows), device=rows.device) + shift[rows]]

    def contains(self, users: Tensor, items: Tensor, num_items: int) -> Tensor:
        """Whether each of ``items`` (B, K) belongs to the user (B,) of its row; -1 never does."""
        rows, own = self.gather(users)
        keys = (rows * num_items + own).sort().values
        asked = torch.arange(len(users), device=items.device)[:, None] * num_items + items
        asked = torch.where(items < 0, -1, asked).contiguous()
        if len(keys) == 0:
            return torch.zeros_like(items, dtype=torch.bool)
        place = torch.searchsorted(keys, asked).clamp_(max=len(keys) - 1)
        return keys[place] == asked


def _int64(values: Any, device: torch.device | str) -> Tensor:
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values, dtype=torch.int64, device=device)
