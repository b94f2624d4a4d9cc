from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models import KGCN, GraphRecommender, kgcn
from graphrec.models.base import PointBatch
from tests.models.conformance import KnowledgeConformance
from tests.models.planted_kg import planted_kg, tiny_kg


def neighbours_follow(model: KGCN, permuted: KGCN, order: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The neighbour lists of ``model`` under the ids of ``permuted``, and where each node went."""
    graph = model.knowledge
    where = torch.cat([order[kind] + graph.nodes(kind).start for kind in graph.order])
    # Relations are numbered by their sorted names, which the permutation leaves alone.
    lists = torch.empty_like(model.neighbours)
    entity, relation = model.neighbours.unbind(-1)
    lists[where] = torch.stack([where[entity], relation], -1).where(entity.unsqueeze(-1) >= 0, -1)
    return lists, where


class TestKGCN(KnowledgeConformance):
    model_class = KGCN
    hparams = {"dim": 8, "lr": 2e-2, "reg": 1e-5, "batch_size": 512, "num_neighbours": 4}
    epochs = 15

    def permuted_state(
        self, model: GraphRecommender, permuted: GraphRecommender, order: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        assert isinstance(model, KGCN)
        assert isinstance(permuted, KGCN)
        state = super().permuted_state(model, permuted, order)
        state["neighbours"], _ = neighbours_follow(model, permuted, order)
        return state


def make(data: RecDataset | None = None, **hparams: Any) -> KGCN:
    settings = {"dim": 5, "num_neighbours": 3, "num_layers": 2, **hparams}
    return KGCN(tiny_kg() if data is None else data, **settings).double()


def linears(model: KGCN) -> list[torch.nn.Linear]:
    return [linear for linear in model.transforms if isinstance(linear, torch.nn.Linear)]


def slow_score(model: KGCN, user: int, item: int) -> torch.Tensor:
    """The card's equations by recursion over the neighbour lists, one node at a time."""
    table = torch.cat([model.item_embedding, model.entity_embedding])
    u = model.user_embedding[user]

    def activation(x: torch.Tensor, layer: int) -> torch.Tensor:
        return torch.tanh(x) if layer == model.num_layers - 1 else x.clamp_min(0)

    def vector(node: int, step: int) -> torch.Tensor:
        if step == 0:
            return table[node]
        own = vector(node, step - 1)
        mixed = torch.zeros_like(own)
        listed = [(int(t), int(r)) for t, r in model.neighbours[node] if t >= 0]
        if listed:
            logits = [(u * model.relation_embedding[r]).sum() for _, r in listed]
            if model.relation_score == "mean":
                logits = [logit / model.dim for logit in logits]
            total = sum(torch.exp(logit) for logit in logits)
            for (t, _), logit in zip(listed, logits, strict=True):
                mixed = mixed + torch.exp(logit) / total * vector(t, step - 1)
            if model.mix == "mean":
                mixed = mixed / len(listed)
        linear = linears(model)[step - 1]
        joined = {"sum": own + mixed, "neighbour": mixed, "concat": torch.cat([own, mixed])}[model.aggregator]
        return activation(linear.weight @ joined + linear.bias, step - 1)

    return (u * vector(item, model.num_layers)).sum()


VARIANTS = [
    {"num_layers": 1},
    {"num_layers": 2},
    {"num_layers": 3, "num_neighbours": 2},
    {"aggregator": "concat"},
    {"aggregator": "neighbour", "mix": "sum"},
    {"mix": "sum", "relation_score": "dot"},
]


@pytest.mark.parametrize("hparams", VARIANTS, ids=str)
def test_scores_and_gradients_equal_a_slow_loop(hparams: dict[str, Any]) -> None:
    model = make(**hparams)
    for linear in linears(model):
        torch.nn.init.normal_(linear.bias)  # zeros would hide a bias that is not added
    users, items = torch.tensor([0, 3, 7, 3]), torch.tensor([2, 9, 0, 4])
    expected = torch.stack([slow_score(model, int(u), int(i)) for u, i in zip(users, items, strict=True)])
    weight = torch.tensor([0.3, -1.0, 2.0, 0.7], dtype=torch.float64)
    wanted = torch.autograd.grad((expected * weight).sum(), list(model.parameters()))
    pairs = model.score(users, items.unsqueeze(1)).squeeze(1)
    grid = model.score(users).gather(1, items.unsqueeze(1)).squeeze(1)
    for found in (pairs, grid):
        torch.testing.assert_close(found, expected)
        for gradient, right in zip(
            torch.autograd.grad((found * weight).sum(), list(model.parameters())), wanted, strict=True
        ):
            torch.testing.assert_close(gradient, right)


def test_a_ranking_in_small_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(num_layers=3).eval()
    users, own = torch.arange(8), torch.arange(10).flip(0).expand(8, 10)
    with torch.no_grad():
        whole, pairs = model.score(users), model.score(users, own)
        monkeypatch.setattr(kgcn, "SCORE_MEMORY", 1)
        torch.testing.assert_close(model.score(users), whole)
        torch.testing.assert_close(model.score(users, own), pairs)
        torch.testing.assert_close(pairs.flip(1), whole)


def test_candidates_may_repeat() -> None:
    model = make()
    found = model.score(torch.tensor([1, 2]), torch.tensor([4, 4, 0]))
    torch.testing.assert_close(found[:, 0], found[:, 1])
    torch.testing.assert_close(found, model.score(torch.tensor([1, 2]))[:, [4, 4, 0]])


def test_lists_hold_edges_of_the_graph_without_repetition_where_there_are_enough() -> None:
    model = make(planted_kg(), num_neighbours=4)
    graph = model.knowledge
    edges = set(zip(graph.heads().tolist(), graph.relation.tolist(), graph.tails().tolist(), strict=True))
    degree = graph.adjacency.degrees(0)
    for node, listed in enumerate(model.neighbours.tolist()):
        if not degree[node]:
            assert listed == [[-1, -1]] * 4
            continue
        assert {(node, relation, entity) for entity, relation in listed} <= edges
        if degree[node] >= 4:
            assert len({(entity, relation) for entity, relation in listed}) == 4


def test_shares_sum_to_one_and_are_uniform_for_a_user_at_zero() -> None:
    model = make(mix="sum")
    with torch.no_grad():
        model.user_embedding[3] = 0
    nodes, shares = model.tree(torch.tensor([3, 4]), torch.tensor([0, 0]))
    for level, share in zip(nodes, shares, strict=False):
        has = (model.neighbours[level][..., 0, 0] >= 0).double()
        torch.testing.assert_close(share.sum(-1), has)
        torch.testing.assert_close(share[0], has[0].unsqueeze(-1).expand_as(share[0]) / 3)
    assert not torch.allclose(shares[0][1], shares[0][0])


@pytest.mark.parametrize("mix", ["mean", "sum"])
def test_copies_of_one_neighbour(mix: str) -> None:
    model = make(num_layers=1, num_neighbours=3, mix=mix, aggregator="neighbour")
    model.neighbours[2] = torch.tensor([15, 1])
    (linear,) = linears(model)
    mixed = model.node_table()[15] / (3 if mix == "mean" else 1)
    expected = (model.user_embedding[5] * torch.tanh(linear(mixed))).sum()
    torch.testing.assert_close(model.score(torch.tensor([5]), torch.tensor([2]))[0, 0], expected)


def test_the_order_of_a_list_does_not_matter() -> None:
    model = make()
    before = model.score(torch.arange(8))
    model.neighbours.copy_(model.neighbours.flip(1))
    torch.testing.assert_close(model.score(torch.arange(8)), before)


def batch_of(model: KGCN, users: list[int], items: list[int], labels: list[int]) -> PointBatch:
    size = len(users)
    return PointBatch(
        edge_id=torch.zeros(size, dtype=torch.int64),
        weight=torch.ones(size, dtype=torch.float64),
        users=torch.tensor(users),
        items=torch.tensor(items),
        labels=torch.tensor(labels).double(),
    )


def test_loss_is_cross_entropy_and_squares_of_whole_tables() -> None:
    model = make(reg=0.3)
    terms = model.point_terms(batch_of(model, [0, 5, 2], [1, 1, 8], [1, 0, 1]))
    scores = [float(slow_score(model, u, i).detach()) for u, i in ((0, 1), (5, 1), (2, 8))]
    expected = (
        -math.log(1 / (1 + math.exp(-scores[0])))
        - math.log(1 - 1 / (1 + math.exp(-scores[1])))
        - math.log(1 / (1 + math.exp(-scores[2])))
    ) / 3
    assert float(terms["click"].detach()) == pytest.approx(expected)
    tables = [model.user_embedding, model.item_embedding, model.entity_embedding, model.relation_embedding]
    squares = sum(float(p.detach().square().sum()) for p in [*tables, *(linear.weight for linear in linears(model))])
    assert float(terms["reg"].detach()) == pytest.approx(0.5 * 0.3 * squares)


def test_unit_weights_change_nothing_and_a_weight_of_zero_takes_an_edge_out() -> None:
    data = tiny_kg()
    model = make(data, num_layers=1, num_neighbours=40)  # every edge is listed
    graph = model.graph_inputs.graph
    kinds = model.knowledge.edge_types
    ones = {kind: torch.ones(graph[kind].edge_index.shape[1], dtype=torch.float64) for kind in kinds}
    users = torch.arange(8)
    torch.testing.assert_close(model.score(users, edge_weight=ones), model.score(users))

    kind = ("item", "related", "entity")
    assert kind in kinds
    item, entity = graph[kind].edge_index[:, 0]
    relation = int(graph[kind].relation[0])
    weight = {kind: ones[kind].clone()}
    weight[kind][0] = 0
    weight[kind].requires_grad_()
    found = model.score(users, edge_weight=weight)
    assert torch.autograd.grad(found[:, item].sum(), weight[kind])[0][0] != 0
    gone = (model.neighbours[item] == torch.tensor([int(entity) + model.num_items, relation])).all(1)
    assert 0 < int(gone.sum()) < 40
    # Without 1/K, which counts places of the list, a list without the edge mixes like one where it weighs nothing.
    simple = make(data, num_layers=1, num_neighbours=40, mix="sum")
    simple.load_state_dict(model.state_dict())
    dropped = simple.score(users, edge_weight=weight)[:, item]
    simple.neighbours[item, gone] = -1
    expected = torch.stack([slow_score(simple, user, int(item)) for user in range(8)])
    torch.testing.assert_close(dropped, expected)


def test_weights_given_by_pairs_and_by_grid_agree() -> None:
    model = make()
    kinds = model.knowledge.edge_types
    draws = torch.Generator().manual_seed(0)
    weight = {
        kind: torch.rand(model.graph_inputs.graph[kind].edge_index.shape[1], generator=draws, dtype=torch.float64)
        for kind in kinds
    }
    users, own = torch.arange(8), torch.arange(10).expand(8, 10)
    torch.testing.assert_close(model.score(users, own, edge_weight=weight), model.score(users, edge_weight=weight))
    assert not torch.allclose(model.score(users, edge_weight=weight), model.score(users))


def test_batches_of_one_give_the_same_scores() -> None:
    model = make()
    batch = batch_of(model, [0, 5, 2], [1, 1, 8], [1, 0, 1])
    single = [model.point_scores(batch_of(model, [u], [i], [1])) for u, i in ((0, 1), (5, 1), (2, 8))]
    torch.testing.assert_close(torch.cat(single), model.point_scores(batch))


def test_same_seed_same_lists_another_seed_others() -> None:
    data = planted_kg()
    first, again, other = (make(data, num_neighbours=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.neighbours, again.neighbours)
    assert not torch.equal(first.neighbours, other.neighbours)
    rebuilt = first.derived()["neighbours"].rebuild()
    assert isinstance(rebuilt, torch.Tensor)
    assert torch.equal(rebuilt, first.neighbours)


def test_relation_weights_are_a_table_by_name() -> None:
    model = make()
    names = [f"name {number}" for number in range(model.knowledge.num_relations)]
    frame = model.relation_weights(4, names)
    assert frame["weight"].sum() == pytest.approx(1.0)
    assert sorted(frame["relation"]) == names
    assert frame["score"].is_monotonic_decreasing
    best = int(torch.argmax(model.relation_embedding.detach() @ model.user_embedding.detach()[4]))
    assert frame["relation"][0] == names[best]
    assert model.relation_weights(4)["relation"][0] == f"relation {best}"
    (table,) = model.explanation_tables(4, names).values()
    assert table.equals(frame)


def test_training_draws_pairs_when_nothing_is_labelled() -> None:
    model = make(batch_size=1000)
    (phase,) = model.phases()
    (batch,) = phase.batches(0, randomness.generator(0, "x"))
    assert isinstance(batch, PointBatch)
    assert len(batch) == 2 * 24
    assert int(batch.labels.sum()) == 24
    known = model.graph_inputs.adjacency().contains(batch.users, batch.items)
    assert torch.equal(known, batch.labels.bool())
    silent = dataclasses.replace(batch, weight=torch.zeros(len(batch)))
    assert all(float(term.detach()) == 0 for term in phase.loss(silent).values())


@pytest.mark.parametrize(
    ("hparams", "words"),
    [
        ({"aggregator": "mean"}, "aggregator"),
        ({"mix": "max"}, "mix"),
        ({"relation_score": "cosine"}, "relation_score"),
        ({"num_layers": 0}, "num_layers"),
        ({"num_neighbours": 0}, "num_neighbours"),
    ],
)
def test_bad_settings_are_named(hparams: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make(**hparams)


def test_presets_are_settings_of_the_model() -> None:
    for name, preset in KGCN.presets.items():
        model = KGCN(tiny_kg(), **preset.model)
        assert model.hparams["num_layers"] == preset.model.get("num_layers", 1), name
