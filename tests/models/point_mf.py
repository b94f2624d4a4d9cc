"""The smallest pointwise model: a dot product of two tables and a bias of each item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.models.base import EdgeWeight, Encoded, GraphInputs, PointBatch
from graphrec.models.pointwise import Examples, PointwiseRecommender


class PointMF(PointwiseRecommender):
    """Matrix factorisation by cross entropy."""

    row_parameters: ClassVar[Mapping[str, str]] = {"users": "user", "items": "item", "bias": "item"}

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 8,
        examples: Examples = "labelled",
        num_negatives: int = 1,
        lr: float = 2e-2,
        reg: float = 1e-3,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(
            inputs,
            dim=dim,
            examples=examples,
            num_negatives=num_negatives,
            lr=lr,
            reg=reg,
            batch_size=batch_size,
            seed=seed,
        )
        self.reg = reg
        stream = randomness.generator(seed, "initialisation")
        self.users = nn.Parameter(0.3 * torch.randn(self.num_users, dim, generator=stream))
        self.items = nn.Parameter(0.3 * torch.randn(self.num_items, dim, generator=stream))
        self.bias = nn.Parameter(torch.zeros(self.num_items))

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        ones = torch.ones(self.num_users, 1, device=self.users.device, dtype=self.users.dtype)
        return Encoded(torch.cat([self.users, ones], 1), torch.cat([self.items, self.bias[:, None]], 1))

    def point_scores(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Tensor:
        return (self.users[batch.users] * self.items[batch.items]).sum(-1) + self.bias[batch.items]

    def more_terms(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        squares = self.users[batch.users].square().sum(-1) + self.items[batch.items].square().sum(-1)
        return {"reg": self.reg * self.batch_weight(batch, squares)}
