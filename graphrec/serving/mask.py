"""What is not served any more while, or until, a model has forgotten it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from graphrec.runs.tensors import read_tensors, write_tensors

MASK = "mask.safetensors"
"""The file of a run that holds its mask."""


@dataclass(frozen=True)
class Mask:
    """Users, items and pairs that are blocked at serving; the model itself is as it was.

    Attributes:
        users: (n,) int64 codes of users who are treated as unknown.
        items: (n,) int64 codes of items that are in no list.
        pairs: (2, n) int64, user and item codes: the item is not in the user's list, and no history of the user.
    """

    users: Tensor
    items: Tensor
    pairs: Tensor

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Mask | None:
        """The mask of a run, None where it has none."""
        file = Path(folder) / MASK
        return cls(**read_tensors(file)[0]) if file.exists() else None

    def write(self, file: Path) -> None:
        """Write it to a file of the name :data:`MASK`."""
        write_tensors(file, {"users": self.users, "items": self.items, "pairs": self.pairs})

    def union(self, other: Mask | None) -> Mask:
        """What either of two blocks."""
        if other is None:
            return self
        return Mask(
            torch.cat([self.users, other.users]).unique(),
            torch.cat([self.items, other.items]).unique(),
            torch.cat([self.pairs, other.pairs], dim=1).unique(dim=1),
        )

    def open_items(self, allowed: Tensor | None, num_items: int) -> Tensor | None:
        """The candidates (P,) that are not blocked, ascending; None where all items are open."""
        if not len(self.items):
            return allowed
        candidates = torch.arange(num_items) if allowed is None else allowed
        return candidates[~torch.isin(candidates, self.items)]
