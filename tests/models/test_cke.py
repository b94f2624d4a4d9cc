from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation import evaluate_completion, hold_out_triples
from graphrec.graphs.triples import triple_index
from graphrec.models import BPRMF, CKE
from graphrec.models.cke import JointBatch
from tests.models.conformance import KnowledgeConformance
from tests.models.planted_kg import planted_kg, tiny_kg


def first_batch(model: CKE, seed: int = 0) -> JointBatch:
    return next(iter(model.joint_batches(0, randomness.generator(seed, "probe"))))


class TestCKE(KnowledgeConformance):
    model_class = CKE
    hparams = {"dim": 16, "relation_dim": 12, "lr": 1e-2, "batch_size": 256}

    def test_a_weight_of_zero_takes_an_example_out(self, data: RecDataset) -> None:
        """Pairs and triples have weights of their own."""
        model = self.make(data).eval()
        assert isinstance(model, CKE)
        batch = first_batch(model)
        silent = dataclasses.replace(batch, weight=torch.zeros_like(batch.weight))
        terms = model.joint_loss(silent)
        assert float(terms["rank"].detach()) == float(terms["reg"].detach()) == 0.0
        torch.testing.assert_close(terms["triples"], model.triple_loss(batch.triples))
        none = dataclasses.replace(batch.triples, weight=torch.zeros_like(batch.triples.weight))
        assert float(model.joint_loss(dataclasses.replace(batch, triples=none))["triples"].detach()) == 0.0


def make(data: RecDataset | None = None, **hparams: Any) -> CKE:
    settings = {"dim": 5, "relation_dim": 4, "init": "normal", "batch_size": 7, **hparams}
    model = CKE(tiny_kg() if data is None else data, **settings).double()
    with torch.no_grad():  # as large as trained ones, so that every factor of a gradient counts
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    return model


def slow_loss(model: CKE, batch: JointBatch) -> Tensor:
    """The card's loss, one pair and one triple at a time."""

    def entity(node: int) -> Tensor:
        items = model.num_items
        return model.item_entity_embedding[node] if node < items else model.entity_embedding[node - items]

    def item(i: int) -> Tensor:
        return model.item_embedding[i] + model.item_entity_embedding[i]

    def distance(h: int, r: int, t: int) -> Tensor:
        matrix, vector = model.relation_matrices[r], model.relation_embedding[r]
        head, tail = entity(h) @ matrix, entity(t) @ matrix
        return (head / head.norm() + vector / vector.norm() - tail / tail.norm()).square().sum()

    total = torch.zeros((), dtype=torch.float64)
    for u, i, (j,) in zip(batch.users.tolist(), batch.items.tolist(), batch.negatives.tolist(), strict=True):
        user = model.user_embedding[u]
        gap = user @ item(i) - user @ item(j)
        norms = user.square().sum() + item(i).square().sum() + item(j).square().sum()
        total = total + (-torch.sigmoid(gap).log() + model.reg / 2 * norms) / len(batch)
    triples = batch.triples
    columns = (triples.heads, triples.relations, triples.tails, triples.negatives[:, 0])
    for h, r, t, other in zip(*(column.tolist() for column in columns), strict=True):
        gap = distance(h, r, other) - distance(h, r, t)
        total = total - model.triple_weight * torch.sigmoid(gap).log() / len(triples)
    return total


def test_loss_and_gradients_are_those_of_a_loop() -> None:
    model = make(reg=0.3, triple_weight=0.7)
    for seed in range(3):
        batch = first_batch(model, seed)
        found, expected = sum(model.joint_loss(batch).values()), slow_loss(model, batch)
        torch.testing.assert_close(found, expected)
        ours = torch.autograd.grad(found, list(model.parameters()))
        slow = torch.autograd.grad(expected, list(model.parameters()))
        for (name, _), one, other in zip(model.named_parameters(), ours, slow, strict=True):
            torch.testing.assert_close(one, other, msg=name)


def test_scores_are_those_of_a_loop() -> None:
    model = make()
    with torch.no_grad():
        scores = model.score(torch.arange(model.num_users))
    for user in range(model.num_users):
        for item in range(model.num_items):
            vector = model.item_embedding[item] + model.item_entity_embedding[item]
            expected = float((model.user_embedding[user] @ vector).detach())
            assert float(scores[user, item]) == pytest.approx(expected)


def test_without_knowledge_it_is_bpr_mf() -> None:
    data = tiny_kg()
    model = make(data, triple_weight=0.0, reg=0.2)
    with torch.no_grad():
        model.item_entity_embedding.zero_()
    plain = BPRMF(data, dim=5, reg=0.2, batch_size=7).double()
    plain.load_state_dict({name: getattr(model, name).detach() for name in ("user_embedding", "item_embedding")})
    users = torch.arange(model.num_users)
    torch.testing.assert_close(model.score(users), plain.score(users))
    batch = first_batch(model)
    ours, theirs = model.joint_loss(batch), plain.pair_loss(batch)
    assert set(ours) == set(theirs)
    for name, term in ours.items():
        torch.testing.assert_close(term, theirs[name])
    for parameter in ("user_embedding", "item_embedding"):
        one = torch.autograd.grad(sum(ours.values()), getattr(model, parameter), retain_graph=True)
        other = torch.autograd.grad(sum(theirs.values()), getattr(plain, parameter), retain_graph=True)
        torch.testing.assert_close(one, other)


def test_distances_lie_between_0_and_9_and_vectors_have_length_1() -> None:
    model = make()
    everything = torch.cartesian_prod(torch.arange(22), torch.arange(4), torch.arange(22))
    scores = model.score_triples(*everything.unbind(1))
    assert (scores <= 0).all() and (scores >= -9).all()
    batch = first_batch(model).triples
    x = model.node_table()
    rows = model.scorer.projected(x[batch.heads], batch.relations, x[batch.tails], None, model.relation_tables())
    for vectors in (rows.heads, rows.vectors, rows.tails):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(batch), dtype=torch.float64))


def test_scores_of_triples_agree_between_the_three_forms() -> None:
    model = make()
    heads, relations, tails = torch.tensor([0, 5, 13]), torch.tensor([1, 0, 1]), torch.tensor([12, 21, 3])
    single = model.score_triples(heads, relations, tails)
    torch.testing.assert_close(model.score_triples(heads, relations, None)[range(3), tails], single)
    torch.testing.assert_close(model.score_triples(None, relations, tails)[range(3), heads], single)
    with pytest.raises(InputError, match="heads, tails or both"):
        model.score_triples(None, relations, None)


def test_triples_of_a_batch() -> None:
    """Known ones with different heads, corrupted ones that are not known, about as many an epoch as there are."""
    model = CKE(planted_kg(), batch_size=256)
    graph, index = model.knowledge, triple_index(model.knowledge)
    batches = list(model.joint_batches(0, randomness.generator(0, "probe")))
    edges = len(model.graph_inputs.adjacency())
    assert len(batches) == math.ceil(edges / 256)
    assert model.triple_batch_size == len(graph) // (edges // 256)
    for batch in batches:
        triples = batch.triples
        assert len(triples) == model.triple_batch_size
        assert index.contains(triples.heads, triples.relations, triples.tails).all()
        known = index.contains(triples.heads[:, None], triples.relations[:, None], triples.negatives)
        assert not known.any()
        for number, kind in enumerate(graph.edge_types):
            of_kind = triples.edge_id[triples.edge_type == number]
            assert torch.isin(of_kind, model.graph_inputs.graph[kind].edge_id).all()
    small = CKE(planted_kg(), batch_size=256, triple_batch_size=20)
    heads = first_batch(small).triples.heads
    assert len(torch.unique(heads)) == 20
    again = first_batch(small)
    assert torch.equal(again.triples.negatives, first_batch(small).triples.negatives)
    assert not torch.equal(again.triples.heads, first_batch(small, 1).triples.heads)


def test_a_batch_is_shared_out_whole() -> None:
    batch = first_batch(CKE(planted_kg(), batch_size=64))
    parts = [batch.shard(rank, 2) for rank in range(2)]
    assert sum(len(part) for part in parts) == 64
    assert sum(len(part.triples) for part in parts) == len(batch.triples)
    assert torch.equal(parts[1].triples.heads, batch.triples.heads[1::2])
    assert torch.equal(batch.to("cpu").triples.tails, batch.triples.tails)


def test_triples_alone_teach_completion() -> None:
    held = hold_out_triples(planted_kg(), 0.1, seed=1)
    model = CKE(held.training, dim=16, relation_dim=16, lr=1e-2, batch_size=64)
    before = evaluate_completion(model, held)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(15):
        for batch in model.joint_batches(epoch, randomness.generator(0, "triples", epoch)):
            optimiser.zero_grad()
            model.triple_loss(batch.triples).backward()
            optimiser.step()
    after = evaluate_completion(model, held)
    assert after["tail/mrr"] > before["tail/mrr"] + 0.1
    assert after["mean_rank"] < 0.7 * before["mean_rank"]
    with pytest.raises(InputError, match=r"held_out\.training"):
        evaluate_completion(CKE(held.data, dim=4), held)


def test_initial_tables_are_those_of_the_repository() -> None:
    model = CKE(planted_kg(), dim=64, relation_dim=32)
    nodes = 80 + 36
    for table, bound in (
        (model.user_embedding, math.sqrt(6 / (160 + 64))),
        (model.item_embedding, math.sqrt(6 / (80 + 64))),
        (model.item_entity_embedding, math.sqrt(6 / (nodes * 65))),
        (model.entity_embedding, math.sqrt(6 / (nodes * 65))),
        (model.relation_matrices, math.sqrt(6 / (5 * (64 + 32)))),
    ):
        assert 0.97 * bound < float(table.detach().abs().max()) <= bound


@pytest.mark.parametrize("wrong", [{"relation_dim": 0}, {"triple_batch_size": 0}, {"triple_weight": -1.0}])
def test_hyper_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        CKE(tiny_kg(), **wrong)
