"""Labelled pairs: what was shown to whom, and whether it was liked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs of a user and an item labelled 1 (liked, clicked) or 0; those labelled 0 are edges of no graph.

    Attributes:
        users: (P,) int64.
        items: (P,) int64.
        labels: (P,) float32, 1 or 0.
        edge_id: (P,) int64, the row of each pair in the table of the ranked behaviour when the data was built.
    """

    users: Tensor
    items: Tensor
    labels: Tensor
    edge_id: Tensor

    @classmethod
    def of(cls, data: RecDataset, part: str | None = "train") -> LabelledPairs | None:
        """The pairs of a part, positives and labelled negatives, by user and item.

        None where no pair of the whole dataset is labelled 0: positives alone label nothing.
        """
        whole = data.tables[data.target]
        if bool(whole.positive.all()):
            return None
        table = data.interactions(part, labels=True)
        return cls(
            users=torch.from_numpy(table.source.astype("int64")),
            items=torch.from_numpy(table.target.astype("int64")),
            labels=torch.from_numpy(table.positive.astype("float32")),
            edge_id=torch.from_numpy(table.edge_id.copy()),
        )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def positives(self) -> int:
        """Pairs labelled 1."""
        return int(self.labels.sum())

    def apply(self, function: Callable[[Tensor], Tensor]) -> LabelledPairs:
        """The same pairs with ``function`` applied to every tensor (a move to another device)."""
        return LabelledPairs(function(self.users), function(self.items), function(self.labels), function(self.edge_id))
