from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.relational import knowledge_edge_types
from graphrec.layers.dropout import kept_entries
from graphrec.layers.intents import independence
from graphrec.models import KGIN
from graphrec.models.base import PairBatch
from tests.models.conformance import KnowledgeConformance
from tests.models.planted_kg import planted_kg, tiny_kg


class TestKGIN(KnowledgeConformance):
    model_class = KGIN
    hparams = {"dim": 16, "lr": 1e-2, "batch_size": 512, "num_layers": 2}
    epochs = 15


def make(data: RecDataset | None = None, **hparams: Any) -> KGIN:
    settings = {"dim": 5, "num_layers": 2, "num_intents": 3, **hparams}
    return KGIN(tiny_kg() if data is None else data, **settings).double()


Triples = list[tuple[int, int, int]]


def triples_of(data: RecDataset) -> Triples:
    """Triples and their inverses, items first and entities after, each once."""
    graph = data.graph()
    shift = {"item": 0, "entity": data.num_items}
    found = set()
    for kind in knowledge_edge_types(graph.edge_types):
        store = graph[kind]
        for (head, tail), relation in zip(store.edge_index.T.tolist(), store.relation.tolist(), strict=True):
            found.add((head + shift[kind[0]], relation, tail + shift[kind[2]]))
    relations = 1 + max(relation for _, relation, _ in found)
    return sorted(found | {(tail, relation + relations, head) for head, relation, tail in found})


def slow_encode(
    model: KGIN, triples: Triples, interactions: list[tuple[int, int]], num_layers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The card's equations, one edge at a time."""
    table = torch.cat([model.item_embedding, model.entity_embedding])  # type: ignore[list-item]
    nodes = list(table)
    users = list(model.user_embedding)
    intents = [
        sum(share * rho for share, rho in zip(torch.softmax(row, 0), model.relation_embedding, strict=True))
        for row in model.intent_logits
    ]
    zero = torch.zeros(model.dim, dtype=torch.float64)
    user_sum, node_sum = list(users), list(nodes)

    def unit(x: torch.Tensor) -> torch.Tensor:
        length = x.square().sum().sqrt()
        return x / length if float(length.detach()) > 0 else x.detach()

    for _ in range(num_layers):
        following, people = [], []
        for v in range(len(nodes)):
            messages = [
                model.relation_embedding[r] * nodes[t] if model.relational else nodes[t]
                for h, r, t in triples
                if h == v
            ]
            following.append(unit(sum(messages, zero) / max(len(messages), 1)))
        for u in range(len(users)):
            liked = [nodes[i] for who, i in interactions if who == u]
            mean = sum(liked, zero) / max(len(liked), 1)
            attention = torch.softmax(torch.stack([users[u] @ p for p in model.intent_embedding]), 0)
            mixed = sum((a * c for a, c in zip(attention, intents, strict=True)), zero)
            people.append(unit(mean + mean * mixed))
        nodes, users = following, people
        node_sum = [total + x for total, x in zip(node_sum, nodes, strict=True)]
        user_sum = [total + x for total, x in zip(user_sum, users, strict=True)]
    return torch.stack(user_sum), torch.stack(node_sum)[: model.num_items]


def interactions_of(data: RecDataset) -> list[tuple[int, int]]:
    return [(u, i) for u, i in data.graph()[data.target].edge_index.T.tolist()]


@pytest.mark.parametrize(
    "hparams", [{"num_layers": 1}, {"num_layers": 3}, {"relational": False}, {"num_intents": 1}], ids=str
)
def test_scores_and_gradients_equal_a_slow_loop(hparams: dict[str, Any]) -> None:
    data = tiny_kg()
    model = make(data, **hparams)
    users, items = slow_encode(model, triples_of(data), interactions_of(data), model.num_layers)
    found = model.score(torch.arange(8))
    torch.testing.assert_close(found, users @ items.T)
    weight = torch.randn(8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name, right in zip(
        dict(model.named_parameters()),
        torch.autograd.grad((weight * (users @ items.T)).sum(), list(model.parameters()), allow_unused=True),
        strict=True,
    ):
        (gradient,) = torch.autograd.grad(
            (weight * model.score(torch.arange(8))).sum(), model.get_parameter(name), allow_unused=True
        )
        if right is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, right)


def batch_of(model: KGIN, size: int = 6, seed: int = 0) -> PairBatch:
    draws = torch.Generator().manual_seed(seed)
    edges = model.graph_inputs.graph[model.graph_inputs.target].edge_index
    chosen = torch.randperm(edges.shape[1], generator=draws)[:size]
    return PairBatch(
        edge_id=chosen,
        weight=torch.ones(size, dtype=torch.float64),
        generator=torch.Generator().manual_seed(7),
        users=edges[0, chosen],
        items=edges[1, chosen],
        negatives=torch.randint(10, (size, 1), generator=draws),
    )


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_rows_of_a_batch_are_those_of_the_whole(num_layers: int) -> None:
    model = make(num_layers=num_layers)  # a model in eval mode drops nothing
    model.eval()
    users, items = torch.tensor([3, 3, 7, 0]), torch.tensor([1, 9, 1, 2, 4])
    (user, item), _ = model.training_rows(users, items, batch=batch_of(model))
    whole = model.encode()
    torch.testing.assert_close(user, whole.users[users])
    torch.testing.assert_close(item, whole.items[items])


def test_a_step_equals_a_slow_loop_over_what_was_kept() -> None:
    """Dropped triples and interactions are read off the draws; the loop then knows only what is left."""
    data = tiny_kg()
    model = make(data, num_layers=3, message_dropout=0.0, edge_dropout=0.3, interaction_dropout=0.4)
    model.train()
    batch = batch_of(model, 12)
    stream = torch.Generator().manual_seed(7)
    first, second = (torch.randint(2**62, (), generator=stream) for _ in range(2))
    triples, pairs = triples_of(data), interactions_of(data)
    draws = randomness.hash_bits(0, *torch.tensor(triples).T)
    order = randomness.hash_bits(first, draws).argsort()
    kept = [triples[place] for place in order[: int(0.7 * len(triples))].tolist()]
    stays = randomness.hash_uniform(second, *torch.tensor(pairs).T) >= 0.4
    left = [pair for pair, stay in zip(pairs, stays.tolist(), strict=True) if stay]
    assert 0 < len(left) < len(pairs)
    users, items = slow_encode(model, kept, left, 3)
    (user, item), penalised = model.training_rows(batch.users, batch.items, batch=batch)
    torch.testing.assert_close(user, users[batch.users])
    torch.testing.assert_close(item, items[batch.items])
    assert penalised[0] is user


def test_a_step_keeps_an_exact_number_of_triples_and_changes_from_step_to_step() -> None:
    from graphrec.graphs.relational_fields import keep_edges_exactly

    graph = make(planted_kg()).knowledge
    masks = [keep_edges_exactly(graph, 0.3, seed=seed) for seed in range(30)]
    assert {int(mask.sum()) for mask in masks} == {int(len(graph) * 0.7)}
    share = torch.stack(masks).double().mean(0)
    assert share.min() > 0.2
    assert share.max() < 1.0 + 1e-9
    assert not torch.equal(masks[0], masks[1])


def test_message_dropout_takes_entries_out_before_the_norm() -> None:
    model = make(num_layers=1, message_dropout=0.5, edge_dropout=0.0, interaction_dropout=0.0)
    model.train()
    batch = batch_of(model, 3)
    items = torch.arange(10)
    (user, item), _ = model.training_rows(batch.users, items, batch=batch)
    stream = torch.Generator().manual_seed(7)
    own, of_user = torch.unique(batch.users, return_inverse=True)
    for_users, for_items = kept_entries((len(own), 5), 0.5, stream), kept_entries((10, 5), 0.5, stream)
    whole = model.eval().encode()
    layer = whole.items - model.item_embedding
    expected = torch.nn.functional.normalize(layer * for_items) + model.item_embedding
    torch.testing.assert_close(item, expected)
    layer = whole.users[own] - model.user_embedding[own]
    expected = torch.nn.functional.normalize(layer * for_users) + model.user_embedding[own]
    torch.testing.assert_close(user, expected[of_user])


def test_loss_is_bpr_with_the_penalty_on_final_vectors_and_independence() -> None:
    model = make(reg=0.2, independence_weight=0.3)
    model.eval()
    batch = batch_of(model)
    whole = model.encode()
    user, item = whole.users[batch.users], whole.items[batch.items]
    other = whole.items[batch.negatives[:, 0]]
    terms = model.pair_loss(batch)
    margin = (user * (item - other)).sum(1)
    torch.testing.assert_close(terms["rank"], -torch.log(torch.sigmoid(margin)).mean())
    norms = sum(rows.square().sum() for rows in (user, item, other))
    torch.testing.assert_close(terms["reg"], 0.2 * 0.5 * norms / len(batch))
    torch.testing.assert_close(terms["independence"], 0.3 * independence(model.intent_logits))
    assert "independence" not in make(independence="none").pair_loss(batch)


def test_equal_intents_collapse() -> None:
    """With equal rows of Q the attention has nothing to choose from."""
    model = make()
    with torch.no_grad():
        model.intent_logits[:] = model.intent_logits[0]
        before = model.score(torch.arange(8))
        model.intent_embedding.normal_()
        torch.testing.assert_close(model.score(torch.arange(8)), before)


def test_without_triples_an_item_is_its_row() -> None:
    data = tiny_kg()
    model = make(data).eval()
    torch.testing.assert_close(model.encode().items[9], model.item_embedding[9])  # it has none
    kinds = model.knowledge.edge_types
    nothing = {
        kind: torch.zeros(model.graph_inputs.graph[kind].edge_index.shape[1], dtype=torch.float64) for kind in kinds
    }
    torch.testing.assert_close(model.encode(edge_weight=nothing).items, model.item_embedding)


def test_unit_weights_change_nothing_and_zero_removes_an_edge() -> None:
    data = tiny_kg()
    model = make(data).eval()
    graph = model.graph_inputs.graph
    kinds = (*model.knowledge.edge_types, data.target)
    ones = {kind: torch.ones(graph[kind].edge_index.shape[1], dtype=torch.float64) for kind in kinds}
    expected = model.encode()
    found = model.encode(edge_weight=ones)
    torch.testing.assert_close(found.users, expected.users)
    torch.testing.assert_close(found.items, expected.items)
    for kind in (("item", "related", "entity"), data.target):
        weight = {kind: ones[kind].clone()}
        weight[kind][2] = 0
        without = make(data.without({kind: [int(graph[kind].edge_id[2])]}))
        state = model.state_dict()
        without.load_state_dict(state)
        torch.testing.assert_close(
            model.score(torch.arange(8), edge_weight=weight), without.eval().score(torch.arange(8))
        )


def test_gradients_of_weights_by_the_batch_are_those_of_the_whole() -> None:
    model = make()
    model.eval()
    graph = model.graph_inputs.graph
    draws = torch.Generator().manual_seed(3)
    weight = {
        kind: torch.rand(graph[kind].edge_index.shape[1], generator=draws, dtype=torch.float64).requires_grad_()
        for kind in (*model.knowledge.edge_types, model.graph_inputs.target)
    }
    batch = batch_of(model)
    (user, item), _ = model.training_rows(batch.users, batch.items, batch=batch, edge_weight=weight)
    whole = model.encode(edge_weight=weight)
    expected = (whole.users[batch.users] * whole.items[batch.items]).sum()
    torch.testing.assert_close((user * item).sum(), expected)
    for found, right in zip(
        torch.autograd.grad((user * item).sum(), list(weight.values())),
        torch.autograd.grad(expected, list(weight.values())),
        strict=True,
    ):
        assert right.abs().max() > 0
        torch.testing.assert_close(found, right)


def test_evaluation_draws_nothing() -> None:
    model = make(planted_kg()).eval()
    with torch.no_grad():
        assert torch.equal(model.encode().users, model.encode().users)
    batch = batch_of(model)
    first, second = (model.pair_loss(batch)["rank"] for _ in range(2))
    assert torch.equal(first, second)
    model.train()
    first, second = (
        model.pair_loss(dataclasses.replace(batch, generator=torch.Generator().manual_seed(seed)))["rank"]
        for seed in (1, 2)
    )
    assert not torch.equal(first, second)


def test_intents_are_a_table_by_name() -> None:
    model = make()
    names = [f"name {number}" for number in range(model.knowledge.num_relations)]
    frame = model.intents(names)
    assert len(frame) == 3 * len(names)
    assert frame.groupby("intent")["share"].sum().tolist() == pytest.approx([1.0] * 3)
    with torch.no_grad():
        model.intent_logits[1, 6] = 9.0
    best = model.intents(names).query("intent == 1").iloc[0]
    assert best["relation"] == names[6]
    assert best["share"] > 0.9
    assert model.intents().query("intent == 1")["relation"].iloc[0] == "relation 2 (inverse)"
    tables = model.explanation_tables(3, names)
    assert {"intent", "attention"} == set(tables["The user's intents"])
    largest = tables["Relations in each intent"]
    assert largest.groupby("intent").size().tolist() == [5] * 3
    assert names[6] in set(largest["relation"])


def test_attention_of_users() -> None:
    model = make(num_layers=1)
    frame = model.intent_attention([4, 2])
    assert frame["user"].tolist() == [4] * 3 + [2] * 3
    expected = (model.user_embedding[[4, 2]] @ model.intent_embedding.T).softmax(1).flatten()
    assert frame["attention"].tolist() == pytest.approx(expected.tolist())
    deep = make(num_layers=3).intent_attention(range(8))
    assert deep.groupby("user")["attention"].sum().tolist() == pytest.approx([1.0] * 8)


@pytest.mark.parametrize(
    ("hparams", "words"),
    [
        ({"independence": "pearson"}, "independence"),
        ({"edge_dropout": 1.0}, "edge_dropout"),
        ({"interaction_dropout": -0.1}, "interaction_dropout"),
        ({"num_intents": 0}, "num_intents"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_bad_settings_are_named(hparams: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make(**hparams)
