"""KGCL against a slow loop over triples and edges, and what its views have to be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graphrec import fit, randomness
from graphrec.datasets.builder import Builder
from graphrec.errors import InputError
from graphrec.models import KGCL, LightGCN
from graphrec.models.base import PairBatch, TripleBatch
from graphrec.models.kgcl_views import keep_probability
from tests.models.conformance import KnowledgeConformance, trained
from tests.models.planted_kg import planted_kg, tiny_kg

# Users of one taste are each other's false negatives in the planted data: λ₁ has to be small there.
SMALL: dict[str, Any] = {
    "dim": 16,
    "lr": 1e-2,
    "batch_size": 256,
    "contrast_weight": 0.02,
    "temperature": 0.5,
    "triple_batch_size": 64,
}


class TestKGCL(KnowledgeConformance):
    model_class = KGCL
    hparams = SMALL
    epochs = 6


class TestKGCLAsPublishedOnMind(KnowledgeConformance):
    model_class = KGCL
    hparams = {**SMALL, "bare_items": "padding", "mix": 0.6, "max_tails": 6, "num_layers": 2}
    epochs = 5


def tiny(**options: Any) -> KGCL:
    settings: dict[str, Any] = {
        "dim": 4,
        "num_layers": 2,
        "max_tails": 3,
        "message_dropout": 0.0,
        "edge_dropout": 0.0,
        "interaction_drop": 0.4,
        "init_scale": 0.5,
        "reg": 0.3,
        "triple_reg": 0.1,
        "batch_size": 16,
        "seed": 4,
    }
    return KGCL(tiny_kg(), **{**settings, **options}).double()


def edges_of(model: KGCL) -> list[tuple[int, int]]:
    return [tuple(pair) for pair in model.graph_inputs.graph[model.graph_inputs.target].edge_index.T.tolist()]


def tail_vector(model: KGCL, node: int) -> Tensor:
    """x of a node: items come first, then entities."""
    if node < model.num_items:
        table = model.item_embedding if model.hparams["shared_entities"] else model.item_tail_embedding
        assert table is not None
        return table[node]
    assert model.entity_embedding is not None
    return model.entity_embedding[node - model.num_items]


def slow_items(model: KGCL, triples: list[tuple[int, int, int, float]]) -> list[Tensor]:
    """The card's attention, triple by triple; a triple is (item, relation, node, weight)."""
    made = []
    for item in range(model.num_items):
        q = model.item_embedding[item]
        own = [(r, tail_vector(model, t), w) for i, r, t, w in triples if i == item and w > 0]
        sizes = []
        for relation, x, weight in own:
            mixed = torch.cat([q, x]) @ model.attention_matrix + model.attention_bias
            logit = (mixed * model.relation_embedding[relation]).sum()
            sizes.append(weight * torch.nn.functional.leaky_relu(logit, 0.2).exp())
        total = sum(sizes, torch.zeros(()).double())
        for size, (_, x, _) in zip(sizes, own, strict=True):
            q = q + size / total * x
        if not own and model.padding is not None:
            q = q + model.padding[0]
        made.append(q)
    return made


def slow_propagation(model: KGCL, items: list[Tensor], weights: list[float]) -> tuple[list[Tensor], list[Tensor]]:
    edges = edges_of(model)
    degree: dict[tuple[str, int], float] = {}
    for (user, item), weight in zip(edges, weights, strict=True):
        degree["u", user] = degree.get(("u", user), 0.0) + weight
        degree["i", item] = degree.get(("i", item), 0.0) + weight
    users = list(model.user_embedding)
    totals = list(users), list(items)
    for _ in range(len(model.layer_weights) - 1):
        new_users = [torch.zeros(model.dim).double() for _ in users]
        new_items = [torch.zeros(model.dim).double() for _ in items]
        for (user, item), weight in zip(edges, weights, strict=True):
            if weight:
                entry = weight / math.sqrt(degree["u", user] * degree["i", item])
                new_users[user] = new_users[user] + entry * items[item]
                new_items[item] = new_items[item] + entry * users[user]
        users, items = new_users, new_items
        totals = (
            [a + b for a, b in zip(totals[0], users, strict=True)],
            [a + b for a, b in zip(totals[1], items, strict=True)],
        )
    scale = model.layer_weights[0]
    return [scale * row for row in totals[0]], [scale * row for row in totals[1]]


def seen_triples(model: KGCL, edges: Tensor, weight: Tensor | None) -> list[tuple[int, int, int, float]]:
    graph = model.knowledge
    return [
        (
            int(graph.heads()[e]),
            int(graph.relation[e]),
            int(graph.tails()[e]),
            1.0 if weight is None else float(weight[e]),
        )
        for e in edges.tolist()
    ]


def slow_loss(model: KGCL, batch: PairBatch, edge_weight: dict[Any, Tensor] | None) -> Tensor:
    """The card's loss of a batch (a sum), divided by B, on the model's own views."""
    weights = [1.0] * len(edges_of(model))
    if edge_weight is not None:
        weights = edge_weight[model.graph_inputs.target].tolist()
    known = model.knowledge.weights(edge_weight)
    users, items = slow_propagation(model, slow_items(model, seen_triples(model, model.tails.edge, known)), weights)
    views = []
    for view in model.views:
        kept = [w * float(k) for w, k in zip(weights, view.interactions.kept[0].tolist(), strict=True)]
        views.append(slow_propagation(model, slow_items(model, seen_triples(model, view.tails.edge, known)), kept))

    def contrast(side: int, node: int) -> Tensor:
        anchor = views[0][side][node]
        scores = torch.stack(
            [anchor @ other / (anchor.norm() * other.norm()) / model.temperature for other in views[1][side]]
        )
        return scores.exp().sum().log() - scores[node]

    total = torch.zeros(()).double()
    for number in range(len(batch)):
        user, item = int(batch.users[number]), int(batch.items[number])
        negative = int(batch.negatives[number, 0])
        gap = users[user] @ items[item] - users[user] @ items[negative]
        rows = model.user_embedding[user], model.item_embedding[item], model.item_embedding[negative]
        penalty = 0.5 * model.reg * torch.stack([row @ row for row in rows]).sum() / model.batch_size
        term = (1 + (-gap).exp()).log() + model.contrast_weight * (contrast(0, user) + contrast(1, item))
        total = total + batch.weight[number] * (term + penalty)
    return total / len(batch)


def first_batch(model: KGCL) -> PairBatch:
    batch = next(iter(model.batches(0, randomness.generator(1, "batches"))))
    users, items = batch.users.clone(), batch.items.clone()
    users[1], items[1] = users[0], items[0]
    weight = torch.linspace(0.5, 1.5, len(users), dtype=torch.float64)
    return PairBatch(edge_id=batch.edge_id, weight=weight, users=users, items=items, negatives=batch.negatives)


def total_loss(model: KGCL, batch: PairBatch, edge_weight: Any = None) -> Tensor:
    return torch.stack(list(model.pair_loss(batch, edge_weight).values())).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bare_items", ["own", "padding"])
@pytest.mark.parametrize("shared", [False, True])
def test_loss_and_gradients_equal_the_slow_loop(bare_items: str, shared: bool, weighted: bool) -> None:
    model = tiny(bare_items=bare_items, shared_entities=shared)
    batch = first_batch(model)
    edge_weight = None
    if weighted:
        graph = model.graph_inputs.graph
        edge_weight = {
            kind: torch.linspace(0.2, 1.4, graph[kind].edge_index.shape[1], dtype=torch.float64)
            for kind in graph.edge_types
        }
    found, expected = total_loss(model, batch, edge_weight), slow_loss(model, batch, edge_weight)
    torch.testing.assert_close(found, expected)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(found, parameters)
    slow = torch.autograd.grad(expected, parameters, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(ours, slow)


def test_scores_equal_the_slow_loop() -> None:
    model = tiny(max_tails=2)
    triples = seen_triples(model, model.tails.edge, None)
    assert max(sum(1 for t in triples if t[0] == item) for item in range(10)) == 2
    users, items = slow_propagation(model, slow_items(model, triples), [1.0] * len(edges_of(model)))
    torch.testing.assert_close(model.score(torch.arange(8)), torch.stack(users) @ torch.stack(items).T)


def test_the_score_is_differentiable_in_every_edge_weight() -> None:
    model = tiny()
    graph = model.graph_inputs.graph
    weights = [
        torch.full((graph[kind].edge_index.shape[1],), 0.9, dtype=torch.float64).requires_grad_()
        for kind in graph.edge_types
    ]

    def score(*given: Tensor) -> Tensor:
        return model.score(torch.tensor([1, 3]), edge_weight=dict(zip(graph.edge_types, given, strict=True)))

    assert torch.autograd.gradcheck(score, tuple(weights), fast_mode=True)


def test_a_triple_of_weight_zero_is_as_good_as_not_there() -> None:
    data = tiny_kg()
    kind = next(k for k in data.tables if k[0] == "item" and k[2] == "entity")
    model = tiny(max_tails=100)
    count = model.graph_inputs.graph[kind].edge_index.shape[1]
    weight = torch.ones(count, dtype=torch.float64)
    weight[3] = 0
    gone = int(model.graph_inputs.graph[kind].edge_id[3])
    less = KGCL(data.without({kind: [gone]}), **model.hparams).double()
    less.load_state_dict(model.state_dict())
    users = torch.arange(8)
    torch.testing.assert_close(model.score(users, edge_weight={kind: weight}), less.score(users))


def test_translation_loss_equals_the_slow_loop() -> None:
    model = tiny()
    (batch,) = model.triple_batches(0, randomness.generator(0, "triples"))
    weight = torch.linspace(0.5, 1.5, len(batch), dtype=torch.float64)
    batch = TripleBatch(**{**vars(batch), "weight": weight})
    found = torch.stack(list(model.triple_loss(batch).values())).sum()
    total = torch.zeros(()).double()
    for number in range(len(batch)):
        head = model.item_embedding[int(batch.heads[number])]
        relation = model.relation_embedding[int(batch.relations[number])]
        tail, other = (tail_vector(model, int(n[number])) for n in (batch.tails, batch.negatives[:, 0]))
        true, false = ((head + relation - t).square().sum() for t in (tail, other))
        norms = torch.stack([row.square().sum() for row in (head, relation, tail, other)]).sum()
        term = -(1 / (1 + (true - false).exp())).log() + model.triple_reg * norms / 2
        total = total + weight[number] * term
    torch.testing.assert_close(found, total / len(batch))


def test_triples_are_one_of_each_item_with_a_tail_that_is_unknown() -> None:
    model = KGCL(planted_kg(), **SMALL)
    graph = model.knowledge
    known = set(zip(graph.heads().tolist(), graph.relation.tolist(), graph.tails().tolist(), strict=True))
    epochs = []
    for epoch in range(2):
        batches = list(model.triple_batches(epoch, randomness.generator(0, "triples", epoch)))
        assert [len(batch) for batch in batches] == [64, 16]
        heads = torch.cat([batch.heads for batch in batches])
        assert sorted(heads.tolist()) == list(range(model.num_items))
        for batch in batches:
            columns = batch.heads.tolist(), batch.relations.tolist()
            assert set(zip(*columns, batch.tails.tolist(), strict=True)) <= known
            assert not set(zip(*columns, batch.negatives[:, 0].tolist(), strict=True)) & known
        epochs.append(torch.cat([batch.tails for batch in batches]))
    assert not torch.equal(epochs[0], epochs[1])


def test_views_drop_triples_and_whole_items() -> None:
    model = KGCL(planted_kg(), **{**SMALL, "message_dropout": 0.0, "interaction_drop": 0.3})
    first, second = model.views
    for view in model.views:
        assert 0.4 < len(view.tails) / len(model.tails) < 0.6
        assert set(view.tails.edge.tolist()) <= set(model.tails.edge.tolist())
        edges = torch.tensor(edges_of(model))
        kept, dropped = (
            set(edges[mask][:, 1].tolist()) for mask in (view.interactions.kept[0], ~view.interactions.kept[0])
        )
        assert kept and dropped and not kept & dropped
    assert not torch.equal(first.tails.edge, second.tails.edge)
    assert not torch.equal(first.interactions.kept[0], second.interactions.kept[0])


def test_without_drops_the_views_agree_and_every_item_is_as_stable() -> None:
    model = tiny(knowledge_drop=0.0, interaction_drop=0.0)
    first, second = model.views
    tables = [model.item_table(view.tails) for view in (first, second)]
    torch.testing.assert_close(*tables)
    torch.testing.assert_close(tables[0], model.item_table(model.tails))
    stability = torch.nn.functional.cosine_similarity(tables[0], tables[1], dim=1)
    torch.testing.assert_close(stability, torch.ones(10).double())
    torch.testing.assert_close(keep_probability(stability, 0.1), torch.full((10,), 0.9).double())


def test_contrast_of_equal_views_is_that_of_cosines() -> None:
    model = tiny(knowledge_drop=0.0, interaction_drop=0.0)
    whole = [torch.ones(len(edges_of(model)), dtype=torch.bool)]
    for view in model.views:
        view.interactions.kept = tuple(whole)
    batch, encoded = first_batch(model), model.encode()
    expected = torch.zeros(len(batch)).double()
    for rows, nodes in ((encoded.users, batch.users), (encoded.items, batch.items)):
        unit = torch.nn.functional.normalize(rows)
        expected += torch.logsumexp((unit[nodes] @ unit.T - 1) / model.temperature, 1)
    found = model.contrast(batch.users, batch.items)
    torch.testing.assert_close(found, expected)
    assert (found >= 0).all()


def test_keep_probability_is_the_published_one() -> None:
    stability = torch.tensor([-0.5, 0.0, 0.2, 0.9, 1.0], dtype=torch.float64)
    low, high = math.exp(-0.5), math.exp(1.0)
    weight = [max(0.3, (math.exp(s) - low) / (high - low)) for s in stability.tolist()]
    mean = sum(weight) / 5
    expected = torch.tensor([min(0.95, 0.6 * w / mean) for w in weight], dtype=torch.float64)
    torch.testing.assert_close(keep_probability(stability, 0.4), expected)
    spread = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    assert abs(float(keep_probability(spread, 0.5).mean()) - 0.5) < 0.01  # few reach the cap
    assert float(keep_probability(spread, 0.1).max()) == pytest.approx(0.95)


def test_an_item_without_triples_keeps_its_vector_or_gets_the_padding() -> None:
    data = tiny_kg()  # item 9 has no triple
    own, padded = tiny(), tiny(bare_items="padding")
    assert int(own.tails.adjacency.degrees(0)[9]) == 0
    torch.testing.assert_close(own.item_table(own.tails)[9], own.item_embedding[9])
    assert padded.padding is not None
    torch.testing.assert_close(padded.item_table(padded.tails)[9], padded.item_embedding[9] + padded.padding[0])
    assert data.num_nodes["item"] == 10


def test_attention_for_explanations_is_that_of_the_visible_triples() -> None:
    model = tiny(max_tails=2)
    graph, shares = model.relational_attention()
    assert graph is model.knowledge and shares.shape == (len(graph),)
    hidden = torch.ones(len(graph), dtype=torch.bool)
    hidden[model.tails.edge] = False
    assert hidden.any() and not shares[hidden].any()
    own = torch.stack(
        [model.item_embedding[item] + sum_of_tails(model, shares, item) for item in range(model.num_items)]
    )
    torch.testing.assert_close(own, model.item_table(model.tails))


def sum_of_tails(model: KGCL, shares: Tensor, item: int) -> Tensor:
    total = torch.zeros(model.dim).double()
    for edge in torch.nonzero(model.knowledge.heads() == item)[:, 0].tolist():
        total = total + shares[edge] * tail_vector(model, int(model.knowledge.tails()[edge]))
    return total


def test_without_the_graphs_additions_it_is_lightgcn() -> None:
    model = tiny(contrast_weight=0.0)
    plain = LightGCN(tiny_kg(), dim=4, num_layers=2).double()
    with torch.no_grad():
        for name in ("entity_embedding", "item_tail_embedding"):
            getattr(model, name).zero_()
        plain.user_embedding.copy_(model.user_embedding)
        plain.item_embedding.copy_(model.item_embedding)
    torch.testing.assert_close(model.score(torch.arange(8)), plain.score(torch.arange(8)))
    assert [phase.name for phase in model.phases()] == ["triples", "pairs"]


def test_dropout_is_off_in_evaluation_and_unbiased_in_the_inputs() -> None:
    model = KGCL(planted_kg(), **{**SMALL, "edge_dropout": 0.3})
    batch = next(iter(model.batches(0, randomness.generator(0, "batches"))))
    rows = model.eval().training_rows(batch.users, batch.items, batch=batch)[0]
    encoded = model.encode()
    torch.testing.assert_close(rows[0], encoded.users[batch.users])
    model.train()
    noisy = [model.training_rows(batch.users, batch.items, batch=batch)[0][0] for _ in range(2)]
    assert not torch.equal(noisy[0], noisy[1])
    x = torch.ones(500, 16)
    dropped = model._dropped(x, randomness.generator(0, "dropout"))
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1 / 0.6]))
    assert abs(float(dropped.mean()) - 1) < 0.05


def test_a_resumed_training_ends_where_it_would_have(tmp_path: Any) -> None:
    data = planted_kg()
    options: dict[str, Any] = {"progress": False, "select_on": None, "checkpoint_every": 1, "checkpoint_seconds": None}
    whole = KGCL(data, **SMALL)
    fit(whole, data, epochs=2, out=tmp_path / "whole", **options)

    class StopError(Exception):
        pass

    broken = KGCL(data, **SMALL)
    drawn = broken._draw
    count = 0

    def draw(*args: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise StopError
        return drawn(*args, **keywords)

    broken._draw = draw  # type: ignore[method-assign]
    with pytest.raises(StopError):
        fit(broken, data, epochs=2, out=tmp_path / "broken", **options)
    resumed = KGCL(data, **SMALL)
    fit(resumed, data, epochs=2, out=tmp_path / "broken", resume=True, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_views_move_with_the_model() -> None:
    model = KGCL(planted_kg(), **SMALL).eval()
    batch = next(iter(model.batches(0, randomness.generator(0, "batches"))))
    before = model.contrast(batch.users, batch.items).detach()
    edges = model.views[0].tails.edge
    model.double()
    assert torch.equal(model.views[0].tails.edge, edges)
    torch.testing.assert_close(model.contrast(batch.users, batch.items).detach().float(), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", KGCL.presets)
def test_presets_are_options(preset: str) -> None:
    data = planted_kg()
    model = KGCL(data, **{**KGCL.presets[preset].model, "dim": 8})
    run = fit(model, data, epochs=1, progress=False, **{**KGCL.presets[preset].fit, "select_on": None})
    assert {"triples/rank", "pairs/rank", "pairs/reg", "pairs/contrast"} <= set(run.history.columns)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_layers": -1},
        {"max_tails": 0},
        {"bare_items": "none"},
        {"visible": "all"},
        {"message_dropout": 1.0},
        {"edge_dropout": -0.1},
        {"knowledge_drop": 1.0},
        {"interaction_drop": 1.5},
        {"mix": 1.0},
        {"temperature": 0.0},
        {"contrast_weight": -1.0},
        {"triple_reg": -1.0},
        {"triple_batch_size": 0},
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    name = "tails" if "max_tails" in wrong else next(iter(wrong))
    with pytest.raises(InputError, match=name):
        KGCL(planted_kg(), **wrong)


def test_data_without_a_knowledge_graph_is_refused() -> None:
    builder = Builder()
    builder.interactions({"user": np.array([0, 1]), "item": np.array([0, 1])})
    with pytest.raises(InputError, match="knowledge graph"):
        KGCL(builder.build())


def test_epochs_differ_in_their_views() -> None:
    model = trained(KGCL(planted_kg(), **SMALL), 1)
    assert isinstance(model, KGCL)
    before = model.views[0].tails.edge
    for batch in model.phases()[1].batches(1, randomness.generator(0, "batches/views", 1)):
        model.phases()[1].loss(batch)
    assert not torch.equal(before, model.views[0].tails.edge)
