"""A dataset of twenty users and a model of two phases, small enough to train in a blink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import EdgeTable
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.models.base import Batch, EdgeWeight, Encoded, GraphInputs, GraphRecommender, PairBatch, Phase

TARGET = ("user", "interacts", "item")


def tiny_data(users: int = 20, items: int = 12, *, name: str = "tiny", drop: int = 0) -> RecDataset:
    """Users like the items of their parity; every third pair is in valid, every seventh in test.

    Args:
        users: U, with ids 100, 101, …
        items: I, with ids i00, i01, …
        name: of the dataset.
        drop: users left out from the start of the list, so that other ids have other places.
    """
    source, target = np.meshgrid(np.arange(users), np.arange(items), indexing="ij")
    liked = (source % 2 == target % 2) & ((source * 7 + target * 5) % 4 != 0) & (source >= drop)
    source, target = source[liked] - drop, target[liked]
    number = np.arange(len(source))
    part = np.where(number % 7 == 3, 2, np.where(number % 5 == 1, 1, 0)).astype(np.int8)
    table = EdgeTable(
        TARGET,
        {
            "source": source.astype(np.int32),
            "target": target.astype(np.int32),
            "edge_id": number.astype(np.int64),
            "part": part,
        },
    )
    vocabularies = {
        "user": Vocabulary.from_values(np.arange(100 + drop, 100 + users), "user"),
        "item": Vocabulary.from_values([f"i{number:02}" for number in range(items)], "item"),
    }
    return RecDataset(name=name, vocabularies=vocabularies, tables={TARGET: table}, target=TARGET)


class TinyMF(GraphRecommender):
    """Matrix factorisation with dropout, a second trained phase, and work done once an epoch."""

    row_parameters: ClassVar[Mapping[str, str]] = {"user_table": "user", "item_table": "item"}

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 4,
        batch_size: int = 16,
        dropout: float = 0.2,
        lr: float = 0.05,
        sgd: bool = False,
        seed: int = 0,
        pause: float = 0.0,
    ) -> None:
        super().__init__(
            inputs, dim=dim, batch_size=batch_size, dropout=dropout, lr=lr, sgd=sgd, seed=seed, pause=pause
        )
        self.batch_size, self.dropout, self.lr, self.sgd, self.pause = batch_size, dropout, lr, sgd, pause
        stream = randomness.generator(seed, "initialisation")
        self.user_table = nn.Parameter(torch.randn(self.num_users, dim, generator=stream))
        self.item_table = nn.Parameter(torch.randn(self.num_items, dim, generator=stream))
        self.bias = nn.Parameter(torch.zeros(self.num_items))
        self.register_buffer("centre", torch.zeros(dim))

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        ones = torch.ones(self.num_users, 1, device=self.user_table.device)
        users = torch.cat([self.user_table - self.centre, ones], dim=1)
        return Encoded(users, torch.cat([self.item_table, self.bias[:, None]], dim=1))

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[PairBatch]:
        users, items = self.graph_inputs.graph[self.graph_inputs.target].edge_index
        edge_id = self.graph_inputs.graph[self.graph_inputs.target].edge_id
        device = users.device
        order = torch.randperm(len(users), generator=generator, device=device)
        negatives = torch.randint(self.num_items, (len(users), 1), generator=generator, device=device)
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            yield PairBatch(
                edge_id=edge_id[part],
                weight=torch.ones(len(part), device=device),
                users=users[part],
                items=items[part],
                negatives=negatives[part],
            )

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> dict[str, Tensor]:
        if self.pause:
            import time

            time.sleep(self.pause)
        users, items = self.user_table - self.centre, self.item_table
        if self.dropout:
            keep = torch.rand(items.shape, generator=batch.generator, device=items.device) >= self.dropout
            items = items * keep
        user = users[batch.users]
        positive = (user * items[batch.items]).sum(-1)
        negative = (user * items[batch.negatives[:, 0]]).sum(-1)
        squares = user.square().sum(-1)
        return {
            "rank": self.batch_weight(batch, nn.functional.softplus(negative - positive)),
            "reg": 1e-3 * self.batch_weight(batch, squares),
        }

    def bias_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> dict[str, Tensor]:
        gap = self.bias[batch.negatives[:, 0]] - self.bias[batch.items]
        return {"rank": self.batch_weight(batch, nn.functional.softplus(gap))}

    def refresh(self, batch: Batch, edge_weight: EdgeWeight = None) -> dict[str, Tensor]:
        self.centre.copy_(0.1 * self.user_table.mean(0))
        return {}

    def phases(self) -> Sequence[Phase]:
        def optimiser(parameters: Any) -> torch.optim.Optimizer:
            if self.sgd:
                return torch.optim.SGD(parameters, lr=self.lr)
            return torch.optim.Adam(parameters, lr=self.lr)

        def once(epoch: int, generator: torch.Generator) -> list[Batch]:
            return [Batch(torch.zeros(1, dtype=torch.int64), torch.ones(1))]

        return (
            Phase("pairs", self.batches, self.pair_loss, (self.user_table, self.item_table), optimiser),
            Phase("refresh", once, self.refresh),
            Phase("bias", self.batches, self.bias_loss, (self.bias,), optimiser),
        )


class TinyCounts(GraphRecommender):
    """A closed form: how often an item occurs; its buffer is made by solving."""

    def __init__(self, inputs: GraphInputs | RecDataset) -> None:
        super().__init__(inputs)
        self.register_buffer("counts", None)

    def solve(self) -> None:
        items = self.graph_inputs.graph[self.graph_inputs.target].edge_index[1]
        self.counts = torch.bincount(items, minlength=self.num_items).float()

    def score(self, users: Tensor, items: Tensor | None = None, *, edge_weight: EdgeWeight = None) -> Tensor:
        scores = self.counts.repeat(len(users), 1)
        if items is None:
            return scores
        return scores[:, items] if items.dim() == 1 else scores.gather(1, items)
