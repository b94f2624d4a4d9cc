"""The contract carries a model unlike the others: two losses in turn, and attention refreshed once an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphrec
from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.sampling import positive_pairs, sample_negatives
from graphrec.layers.losses import bpr_loss
from graphrec.models.base import (
    Batch,
    Derived,
    EdgeWeight,
    Encoded,
    GraphInputs,
    GraphRecommender,
    Needs,
    PairBatch,
    Phase,
)


class TwoPhase(GraphRecommender):
    """KGAT in small: a ranking phase on attention-weighted propagation, a TransE phase, a refresh of the attention."""

    needs = Needs(kg=True)

    def __init__(self, inputs: GraphInputs | RecDataset, *, dim: int = 16, lr: float = 1e-2, seed: int = 0) -> None:
        super().__init__(inputs, dim=dim, lr=lr, seed=seed)
        self.lr = lr
        graph = self.graph_inputs.graph
        store = graph["item", "related", "entity"]
        sizes = {"user": self.num_users, "item": self.num_items, "entity": int(graph["entity"].num_nodes)}
        sizes["relation"] = int(store.relation.max()) + 1
        stream = randomness.generator(seed, "initialisation")
        self.tables = nn.ParameterDict(
            {name: nn.Parameter(0.1 * torch.randn(size, dim, generator=stream)) for name, size in sizes.items()}
        )
        self.register_buffer("attention", torch.zeros(store.edge_index.shape[1]))
        self.refreshed = 0

    @classmethod
    def inputs(cls, data: RecDataset, **hparams: Any) -> GraphInputs:
        return GraphInputs.from_dataset(data, edge_types=(data.target, ("item", "related", "entity")))

    def triples(self) -> tuple[Tensor, Tensor, Tensor]:
        store = self.graph_inputs.graph["item", "related", "entity"]
        return store.edge_index[0], store.relation.long(), store.edge_index[1]

    def distance(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        gap = self.tables["item"][heads] + self.tables["relation"][relations] - self.tables["entity"][tails]
        return gap.square().sum(-1)

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        heads, _, tails = self.triples()
        messages = self.attention[:, None] * self.tables["entity"][tails]
        items = self.tables["item"].index_add(0, heads, messages)
        return Encoded(self.tables["user"], items)

    def rank_batches(self, epoch: int, generator: torch.Generator) -> Iterator[Batch]:
        matrix, seed = self.graph_inputs.adjacency(), generator.initial_seed()
        users, items, edge_id = positive_pairs(matrix, seed=seed)
        negatives = sample_negatives(matrix, users, 1, seed=seed)
        for part in torch.arange(len(users)).split(512):
            yield PairBatch(
                edge_id=edge_id[part],
                weight=torch.ones(len(part)),
                users=users[part],
                items=items[part],
                negatives=negatives[part],
            )

    def rank_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        encoded = self.encode(edge_weight=edge_weight)
        user = encoded.users[batch.users]
        positive = (user * encoded.items[batch.items]).sum(-1)
        negative = (user[:, None] * encoded.items[batch.negatives]).sum(-1)
        return {"rank": self.batch_weight(batch, bpr_loss(positive, negative))}

    def triple_batches(self, epoch: int, generator: torch.Generator) -> Iterator[Batch]:
        edge_id = self.graph_inputs.graph["item", "related", "entity"].edge_id
        order = torch.randperm(len(edge_id), generator=generator)
        for part in order.split(512):
            yield Batch(edge_id=part, weight=torch.ones(len(part)), generator=generator)

    def triple_loss(self, batch: Batch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        heads, relations, tails = (column[batch.edge_id] for column in self.triples())
        wrong = torch.randint(len(self.tables["entity"]), tails.shape, generator=batch.generator)
        margin = self.distance(heads, relations, tails) - self.distance(heads, relations, wrong)
        return {"triples": self.batch_weight(batch, nn.functional.softplus(margin))}

    def refresh(self, batch: Batch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        heads, relations, tails = self.triples()
        score = (-self.distance(heads, relations, tails)).exp()
        total = torch.zeros(self.num_items).index_add(0, heads, score)
        self.attention.copy_(score / total[heads].clamp_min(1e-12))
        self.refreshed += 1
        return {}

    def phases(self) -> Sequence[Phase]:
        def adam(parameters: Any) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, lr=self.lr)

        def once(epoch: int, generator: torch.Generator) -> Iterator[Batch]:
            yield Batch(edge_id=torch.zeros(1, dtype=torch.long), weight=torch.ones(1))

        ranked = tuple(self.tables[name] for name in ("user", "item", "entity"))
        related = tuple(self.tables[name] for name in ("item", "entity", "relation"))
        return (
            Phase("rank", self.rank_batches, self.rank_loss, ranked, adam),
            Phase("triples", self.triple_batches, self.triple_loss, related, adam),
            Phase("attention", once, self.refresh),
        )

    def derived(self) -> Mapping[str, Derived]:
        return {"attention": Derived((("item", "related", "entity"),), lambda: None)}


@pytest.fixture(scope="module")
def world() -> RecDataset:
    return graphrec.datasets.load("world", users=300, seed=1)


def test_two_phases_and_a_refresh_train_and_rank(world: RecDataset) -> None:
    model = TwoPhase(world)
    run = graphrec.fit(model, world, epochs=8, progress=False, select_on=None)
    assert model.refreshed == 8
    assert {"rank", "triples"} <= {name.rpartition("/")[2] for name in run.history.columns}
    popularity = graphrec.models.Popularity(world)
    popularity.solve()
    floor = graphrec.evaluate(popularity, world, ks=(20,))["recall@20"]
    assert graphrec.evaluate(model, world, ks=(20,))["recall@20"] > floor


def test_its_run_scores_without_the_dataset(world: RecDataset, tmp_path: Any) -> None:
    model = TwoPhase(world)
    run = graphrec.fit(model, world, epochs=1, out=tmp_path / "run", progress=False, select_on=None)
    users = torch.arange(5)
    loaded = run.model(model_class=TwoPhase)
    with torch.no_grad():
        assert torch.equal(loaded.score(users), model.score(users))


def test_what_is_missing_is_named(world: RecDataset) -> None:
    builder = graphrec.datasets.Builder()
    builder.interactions({"user": [0, 1], "item": [0, 1]})
    with pytest.raises(InputError, match="knowledge graph"):
        TwoPhase(builder.build())
