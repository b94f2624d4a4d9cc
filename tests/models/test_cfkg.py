from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation import evaluate_completion, hold_out_triples
from graphrec.graphs.triples import triple_index
from graphrec.models import CFKG
from graphrec.models.base import TripleBatch
from tests.models.conformance import KnowledgeConformance, trained
from tests.models.planted_kg import planted_kg, tiny_kg


class TestCFKG(KnowledgeConformance):
    model_class = CFKG
    hparams = {"dim": 16, "lr": 1e-2, "batch_size": 256}


class TestCFKGByDotProducts(KnowledgeConformance):
    model_class = CFKG
    hparams = {"dim": 16, "lr": 1e-2, "batch_size": 256, "distance": "dot", "loss": "bce", "num_negatives": 3}
    epochs = 15


def make(data: RecDataset | None = None, **hparams: Any) -> CFKG:
    settings = {"dim": 5, "init": "normal", "batch_size": 16, **hparams}
    model = CFKG(tiny_kg() if data is None else data, **settings).double()
    with torch.no_grad():  # as large as trained ones, so that every factor of a gradient counts
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    return model


def batches_of(model: CFKG, seed: int = 0) -> list[TripleBatch]:
    return list(model.triple_batches(0, randomness.generator(seed, "probe")))


def vector(model: CFKG, node: int) -> Tensor:
    """Users, then items, then other entities."""
    if node < model.num_users:
        return model.user_embedding[node]
    if node < model.num_users + model.num_items:
        return model.item_embedding[node - model.num_users]
    return model.entity_embedding[node - model.num_users - model.num_items]


def slow_score(model: CFKG, h: int, r: int, t: int) -> Tensor:
    moved, tail = vector(model, h) + model.relation_embedding[r], vector(model, t)
    if model.distance == "dot":
        return moved @ tail
    squared = (moved - tail).square().sum()
    return -(squared if model.distance == "squared" else squared.sqrt())


def slow_loss(model: CFKG, batch: TripleBatch) -> Tensor:
    """The loss of the class, one triple at a time."""
    total = torch.zeros((), dtype=torch.float64)
    columns = (batch.heads, batch.relations, batch.tails, batch.negatives)
    for h, r, t, others in zip(*(column.tolist() for column in columns), strict=True):
        true = slow_score(model, h, r, t)
        false = [slow_score(model, h, r, other) for other in others]
        if model.triple_objective == "margin":
            terms = [(model.margin - true + score).clamp_min(0) for score in false]
        elif model.triple_objective == "bpr":
            terms = [-torch.sigmoid(true - score).log() for score in false]
        elif model.triple_objective == "bce":
            terms = [-torch.sigmoid(true).log() - torch.sigmoid(-score).log() for score in false]
        else:
            everything = torch.stack([true, *false]).exp()
            terms = [-(everything[0] / everything.sum()).log()] * len(false)
        total = total + sum(terms) / len(false) / len(batch)
        rows = [vector(model, h), model.relation_embedding[r], vector(model, t)]
        norms = sum(row.square().sum() for row in rows)
        norms = norms + sum(vector(model, other).square().sum() for other in others) / len(others)
        total = total + model.reg / 2 * norms / len(batch)
    return total


@pytest.mark.parametrize(
    "distance, loss, negatives",
    [("squared", "margin", 1), ("l2", "margin", 2), ("squared", "bpr", 2), ("dot", "bce", 3), ("l2", "softmax", 2)],
)
def test_loss_and_gradients_are_those_of_a_loop(distance: str, loss: str, negatives: int) -> None:
    model = make(distance=distance, loss=loss, num_negatives=negatives, reg=0.2, margin=2.0)
    for batch in batches_of(model):
        found, expected = sum(model.triple_loss(batch).values()), slow_loss(model, batch)
        torch.testing.assert_close(found, expected)
        ours = torch.autograd.grad(found, list(model.parameters()), allow_unused=True)
        slow = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True, materialize_grads=True)
        for (name, _), one, other in zip(model.named_parameters(), ours, slow, strict=True):
            torch.testing.assert_close(one, other, msg=name)


@pytest.mark.parametrize("distance", ["squared", "l2", "dot"])
def test_scores_are_distances_to_the_moved_user(distance: str) -> None:
    model = make(distance=distance)
    interact = model.interaction
    with torch.no_grad():
        scores = model.score(torch.arange(model.num_users))
        by_triple = model.score_triples(torch.arange(model.num_users), torch.full((model.num_users,), interact), None)[
            :, model.num_users : model.num_users + model.num_items
        ]
        for user in range(model.num_users):
            for item in range(model.num_items):
                expected = slow_score(model, user, interact, model.num_users + item)
                torch.testing.assert_close(by_triple[user, item], expected)
                squared = -expected.square() if distance == "l2" else expected
                torch.testing.assert_close(scores[user, item], squared)
    assert torch.equal(scores.argsort(1), by_triple.argsort(1))


def test_scores_of_triples_agree_between_the_three_forms() -> None:
    model = make()
    heads, relations, tails = torch.tensor([0, 9, 20]), torch.tensor([4, 0, 3]), torch.tensor([12, 21, 19])
    single = model.score_triples(heads, relations, tails)
    torch.testing.assert_close(model.score_triples(heads, relations, None)[range(3), tails], single)
    torch.testing.assert_close(model.score_triples(None, relations, tails)[range(3), heads], single)
    with pytest.raises(InputError, match="heads, tails or both"):
        model.score_triples(None, relations, None)


def test_the_graph_holds_training_interactions_and_facts_once() -> None:
    data = planted_kg()
    model = CFKG(data)
    graph = model.knowledge
    assert graph.relations[model.interaction].edge_type == data.target and model.interaction == graph.num_relations - 1
    facts = sum(len(table) for kind, table in data.tables.items() if kind != data.target)
    train = data.pairs("train")
    assert len(graph) == facts + len(train.items)
    index, test = triple_index(graph), data.pairs("test")
    for pairs, there in ((train, True), (test, False)):
        users, items = torch.from_numpy(pairs.users.astype("int64")), torch.from_numpy(pairs.items.astype("int64"))
        found = index.contains(users, torch.full_like(users, model.interaction), items + data.num_users)
        assert bool((found == there).all())


@pytest.mark.parametrize("order", ["edge", "head"])
@pytest.mark.parametrize("corrupt", ["type", "all"])
def test_batches_of_an_epoch(order: str, corrupt: str) -> None:
    model = CFKG(planted_kg(), order=order, corrupt=corrupt, num_negatives=2, batch_size=300)
    graph, index = model.knowledge, triple_index(model.knowledge)
    batches = batches_of(model)
    assert [len(batch) for batch in batches[:-1]] == [300] * (len(batches) - 1)
    assert sum(len(batch) for batch in batches) == len(graph)
    everything = [torch.cat([getattr(b, name) for b in batches]) for name in ("heads", "relations", "tails")]
    assert index.contains(*everything).all()
    if order == "edge":
        assert len(torch.unique(torch.stack(everything), dim=1).T) == len(graph)
    negatives = torch.cat([batch.negatives for batch in batches])
    assert not index.contains(everything[0][:, None], everything[1][:, None], negatives).any()

    def kind(nodes: Tensor) -> Tensor:
        bounds = torch.tensor([graph.nodes(name).stop for name in graph.order])
        return torch.bucketize(nodes, bounds, right=True)

    same = kind(negatives) == kind(everything[2])[:, None]
    assert bool(same.all()) == (corrupt == "type")
    for batch in batches:
        for number, edge_type in enumerate(graph.edge_types):
            of_type = batch.edge_id[batch.edge_type == number]
            assert torch.isin(of_type, model.graph_inputs.graph[edge_type].edge_id).all()


def test_an_examples_corruption_is_its_own() -> None:
    """A triple's draws are the same when others are gone."""
    data = planted_kg()
    kind = ("item", "related", "entity")
    whole, fewer = CFKG(data), CFKG(data.without({kind: data.tables[kind].edge_id[::3]}))

    def drawn(model: CFKG) -> dict[tuple[int, int, int], int]:
        found = {}
        for batch in batches_of(model):
            columns = (batch.heads, batch.relations, batch.tails, batch.negatives[:, 0])
            for h, r, t, other in zip(*(column.tolist() for column in columns), strict=True):
                found[h, r, t] = other
        return found

    before, after = drawn(whole), drawn(fewer)
    assert set(after) < set(before)
    moved = [key for key, other in after.items() if before[key] != other]
    # Only a draw that met a triple which is now gone may differ.
    gone = set(before) - set(after)
    assert len(moved) < 0.05 * len(after)
    assert all((key[0], key[1], after[key]) in gone for key in moved)


def test_a_margin_that_is_kept_costs_nothing() -> None:
    model = make(margin=0.5)
    batch = batches_of(model)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        assert float(model.triple_loss(batch)["rank"]) == pytest.approx(0.5)
        true, false = torch.tensor([-1.0, -2.0]), torch.tensor([[-1.5], [-2.1]])
        assert torch.allclose(model._objective(true, false), torch.tensor([0.0, 0.4]))


def test_it_learns_to_complete_the_graph() -> None:
    held = hold_out_triples(planted_kg(), 0.1, seed=1)
    model = CFKG(held.training, dim=16, lr=1e-2, batch_size=256)
    before = evaluate_completion(model, held)
    after = evaluate_completion(trained(model, 20), held)
    assert after["tail/mrr"] > before["tail/mrr"] + 0.1
    assert after["mean_rank"] < 0.7 * before["mean_rank"]


@pytest.mark.parametrize(
    "wrong", [{"distance": "cosine"}, {"loss": "hinge"}, {"order": "user"}, {"corrupt": "some"}, {"margin": -1.0}]
)
def test_hyper_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        CFKG(tiny_kg(), **wrong)
