"""A dataset and two models whose every score can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import EdgeTable
from graphrec.datasets.texts import Texts
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.models.base import EdgeWeight, Encoded, GraphInputs, GraphRecommender

TARGET = ("user", "interacts", "item")
# Users 10, 11, 12 and items a to f; user 12 has no training edge.
PAIRS = [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3)]
ITEMS = ["a", "b", "c", "d", "e", "f"]


def small_data(*, names: bool = True, drop: int = 0) -> RecDataset:
    pairs = np.array(PAIRS[drop:])
    table = EdgeTable(
        TARGET,
        {
            "source": pairs[:, 0].astype(np.int32),
            "target": pairs[:, 1].astype(np.int32),
            "edge_id": np.arange(drop, len(PAIRS), dtype=np.int64),
            "part": np.zeros(len(pairs), np.int8),
        },
    )
    vocabularies = {
        "user": Vocabulary.from_values([10, 11, 12], "user"),
        "item": Vocabulary.from_values(ITEMS, "item"),
    }
    fields: dict[str, Any] = {}
    if names:
        import pyarrow as pa

        fields["names"] = Texts({"item": pa.array([f"Item {raw}" for raw in ITEMS[:-1]] + [None])})
    return RecDataset(name="small", vocabularies=vocabularies, tables={TARGET: table}, target=TARGET, **fields)


class Vectors(GraphRecommender):
    """Vectors in the plane: user u likes items in the order of their first coordinate, which falls from a to f."""

    def __init__(self, inputs: GraphInputs | RecDataset, *, scale: float = 1.0) -> None:
        super().__init__(inputs, scale=scale)
        steps = torch.arange(self.num_items, 0, -1).float()
        self.items = nn.Parameter(scale * torch.stack([steps, steps**0], dim=1))
        self.users = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(self.num_users, 1))

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        return Encoded(self.users, self.items)


class Together(GraphRecommender):
    """An item-item model: how many users have both; exact for a history."""

    def __init__(self, inputs: GraphInputs | RecDataset) -> None:
        super().__init__(inputs)
        self.register_buffer("both", torch.zeros(self.num_items, self.num_items))

    def rows(self) -> Tensor:
        edges = self.graph_inputs.graph[self.graph_inputs.target].edge_index
        dense = torch.zeros(self.num_users, self.num_items)
        dense[edges[0], edges[1]] = 1.0
        return dense

    def solve(self) -> None:
        rows = self.rows()
        self.both = rows.T @ rows

    def score(self, users: Tensor, items: Tensor | None = None, *, edge_weight: EdgeWeight = None) -> Tensor:
        scores = self.rows()[users] @ self.both
        return scores if items is None else scores[:, items]

    def score_history(self, items: Tensor, weight: Tensor | None = None) -> Tensor:
        row = torch.zeros(self.num_items)
        row[items] = torch.ones(len(items)) if weight is None else weight
        return row @ self.both
