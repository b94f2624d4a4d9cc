from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphrec import randomness
from graphrec.datasets import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models import GraphRecommender, RippleNet, ripplenet
from graphrec.models.base import PointBatch
from graphrec.models.deletion import without_edges
from tests.models.conformance import KnowledgeConformance, trained
from tests.models.planted_kg import planted_kg, tiny_kg


class RippleConformance(KnowledgeConformance):
    model_class = RippleNet

    def permuted_state(
        self, model: GraphRecommender, permuted: GraphRecommender, order: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        assert isinstance(model, RippleNet)
        assert isinstance(permuted, RippleNet)
        state = super().permuted_state(model, permuted, order)
        old, new = model.knowledge, permuted.knowledge
        where = torch.cat([order[kind] + old.nodes(kind).start for kind in old.order])

        def keys(heads: Tensor, tails: Tensor, relation: Tensor) -> Tensor:
            return (heads * old.num_nodes + tails) * old.num_relations + relation

        mine = keys(where[old.heads()], where[old.tails()], old.relation).argsort()
        became = torch.empty_like(mine)
        became[mine] = keys(new.heads(), new.tails(), new.relation).argsort()
        ripples = torch.empty_like(model.ripples)
        ripples[order["user"]] = became[model.ripples.clamp_min(0)].where(model.ripples >= 0, -1)
        state["ripples"] = ripples
        return state


class TestRippleNet(RippleConformance):
    hparams = {"dim": 8, "batch_size": 256, "memory_size": 16, "item_update": "plus"}
    epochs = 12


class TestRippleNetAsPublished(RippleConformance):
    hparams = {"dim": 8, "batch_size": 256, "memory_size": 16, "resample": True}
    epochs = 12


def make(data: RecDataset | None = None, **hparams: Any) -> RippleNet:
    settings = {"dim": 4, "memory_size": 5, "kg_weight": 0.3, "reg": 0.1, "batch_size": 4, **hparams}
    return RippleNet(tiny_kg() if data is None else data, **settings).double()


Triple = tuple[int, int, int]


def sets_of(model: RippleNet, user: int) -> list[list[Triple]]:
    """The triples of each hop of a user's ripple set."""
    graph = model.knowledge
    ends = graph.heads().tolist(), graph.relation.tolist(), graph.tails().tolist()
    hops = model.ripples[user].tolist()
    return [[(ends[0][e], ends[1][e], ends[2][e]) for e in hop if e >= 0] for hop in hops]


def slow_score(model: RippleNet, user: int, item: int) -> Tensor:
    """The card's forward pass, one triple at a time."""
    assert model.entity_embedding is not None
    x = torch.cat([model.item_embedding, model.entity_embedding])
    v = model.item_embedding[item]
    reads = []
    for hop in sets_of(model, user):
        if not hop:
            return v.sum() * 0
        sizes = [torch.exp(v @ model.relation_matrix[r] @ x[h]) for h, r, _ in hop]
        total = torch.stack(sizes).sum()
        o = torch.stack([size / total * x[t] for size, (_, _, t) in zip(sizes, hop, strict=True)]).sum(0)
        reads.append(o)
        v = {"plus": v + o, "replace": o}[model.item_update.split("_")[0]]
        if model.transform is not None:
            v = v @ model.transform
    y = torch.stack(reads).sum(0) if model.user_vector == "all" else reads[-1]
    return (v * y).sum()


VARIANTS: list[dict[str, Any]] = [
    {},
    {"resample": True},
    {"num_hops": 3, "item_update": "replace_transform"},
    {"num_hops": 1, "item_update": "plus", "user_vector": "last"},
    {"item_update": "replace", "user_vector": "last"},
]


@pytest.mark.parametrize("hparams", VARIANTS, ids=str)
def test_scores_losses_and_gradients_equal_a_slow_loop(hparams: dict[str, Any]) -> None:
    model = make(**hparams)
    assert model.entity_embedding is not None
    pairs = [(0, 2, 1.0), (3, 9, 0.0), (7, 0, 1.0), (5, 5, 0.0)]  # user 7 has no interaction, item 9 no triple
    expected = torch.stack([slow_score(model, user, item) for user, item, _ in pairs])
    users, items = (torch.tensor(column) for column in list(zip(*pairs, strict=True))[:2])
    torch.testing.assert_close(model.score(users, items[:, None])[:, 0], expected)
    torch.testing.assert_close(model.score(users).gather(1, items[:, None])[:, 0], expected)
    torch.testing.assert_close(model.score(users, items).diag(), expected)

    x = torch.cat([model.item_embedding, model.entity_embedding])
    zero = torch.zeros((), dtype=torch.float64)
    click, triples, norms = zero, zero, zero
    for (user, _, label), score in zip(pairs, expected, strict=True):
        click = click + torch.log1p(torch.exp(-score if label else score))
        for hop in sets_of(model, user):
            for h, r, t in hop:
                matrix = model.relation_matrix[r]
                triples = triples + torch.sigmoid(x[h] @ matrix @ x[t]) / len(hop)
                norms = norms + x[h].square().sum() + x[t].square().sum() + matrix.square().sum()
    slow = {"click": click / 4, "triples": -0.3 * triples / 4, "reg": 0.1 * norms}
    batch = PointBatch(
        edge_id=torch.zeros(4, dtype=torch.int64),
        weight=torch.ones(4, dtype=torch.float64),
        users=users,
        items=items,
        labels=torch.tensor([label for _, _, label in pairs]),
    )
    found = model.point_terms(batch)
    assert set(found) == set(slow)
    parameters = list(model.parameters())
    for name, value in slow.items():
        torch.testing.assert_close(found[name], value, msg=name)
        wanted = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
        given = torch.autograd.grad(found[name], parameters, allow_unused=True, retain_graph=True)
        for (where, parameter), one, other in zip(model.named_parameters(), given, wanted, strict=True):
            one, other = (torch.zeros_like(parameter) if g is None else g for g in (one, other))
            torch.testing.assert_close(one, other, msg=f"{name} by {where}")


def test_a_ranking_in_small_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    users, own = torch.arange(8), torch.arange(10).flip(0).expand(8, 10)
    whole = model.score(users), model.score(users, own)
    monkeypatch.setattr(ripplenet, "SCORE_MEMORY", 1)
    torch.testing.assert_close((model.score(users), model.score(users, own)), whole)
    assert model.score(users[:0]).shape == (0, 10)


def test_the_order_of_the_places_does_not_matter() -> None:
    model = make()
    before = model.score(torch.arange(8))
    model.ripples.copy_(model.ripples.flip(2))
    torch.testing.assert_close(model.score(torch.arange(8)), before)


def test_equal_tails_are_read_as_they_are() -> None:
    """With the same tail in all places, and M_r = 1, o is that tail whatever the item."""
    model = make(num_hops=1, item_update="replace")
    with torch.no_grad():
        model.relation_matrix.copy_(torch.eye(4).expand_as(model.relation_matrix))
    graph = model.knowledge
    tail = int(graph.tails()[0])
    edges = torch.nonzero(graph.tails() == tail)[:, 0]
    model.ripples.fill_(-1)
    model.ripples[0, 0, : len(edges)] = edges
    squared = model.node_table()[tail].square().sum()
    torch.testing.assert_close(model.score(torch.tensor([0]))[0], squared.expand(10))


@pytest.mark.parametrize("resample", [False, True])
def test_seeds_are_training_items_alone(resample: bool) -> None:
    data = planted_kg()
    model = RippleNet(data, resample=resample)
    train, test = data.pairs("train"), data.pairs("test")
    for user in range(0, data.num_users, 7):
        own = set(train.items[train.indptr[user] : train.indptr[user + 1]].tolist())
        held_out = set(test.items[test.indptr[user] : test.indptr[user + 1]].tolist())
        heads = {head for head, _, _ in sets_of(model, user)[0]}
        assert heads
        assert heads <= own
        assert not heads & (held_out - own)


def test_users_without_a_ripple_set_score_nothing_and_are_counted() -> None:
    data = tiny_kg()
    model = make(data)
    empty = [user for user in range(8) if not sets_of(model, user)[0]]
    assert 7 in empty
    assert model.facts()["users_without_ripple_set"] == len(empty)
    found = model.score(torch.tensor(empty))
    assert not found.any()
    batch = PointBatch(
        edge_id=torch.zeros(2, dtype=torch.int64),
        weight=torch.ones(2, dtype=torch.float64),
        users=torch.tensor([7, 7]),
        items=torch.tensor([1, 2]),
        labels=torch.tensor([1.0, 0.0]),
    )
    terms = model.point_terms(batch)
    assert float(terms["click"].detach()) == pytest.approx(0.6931471805599453)
    torch.stack(list(terms.values())).sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_edges_of_weight_zero_are_no_edges() -> None:
    data = tiny_kg()
    model = make(data, num_hops=2, memory_size=40)  # nothing is left out by sampling
    target, kind = model.graph_inputs.target, ("item", "related", "entity")
    sizes = {name: model.graph_inputs.graph[name].edge_index.shape[1] for name in (target, kind)}
    ones = {name: torch.ones(size, dtype=torch.float64) for name, size in sizes.items()}
    users = torch.arange(8)
    torch.testing.assert_close(model.score(users, edge_weight=ones), model.score(users))
    # At one hop an edge that goes takes nothing else along.
    model = make(data, num_hops=1, memory_size=40)
    facts, clicks = data.tables[kind], data.interactions("train")
    # A triple of an item that somebody has, and an interaction with an item of several triples.
    used = next(row for row in range(len(facts)) if facts.source[row] in clicks.target)
    met = next(row for row in range(len(clicks)) if (facts.source == clicks.target[row]).sum() > 1)
    for name, edges, row in ((kind, facts, used), (target, clicks, met)):
        weight = ones[name].clone()
        weight[row] = 0
        smaller = make(data.without({name: edges.edge_id[row : row + 1]}), num_hops=1, memory_size=40)
        state = {key: value for key, value in model.state_dict().items() if key != "ripples"}
        smaller.load_state_dict(state, strict=False)
        assert not torch.allclose(smaller.score(users), model.score(users))
        torch.testing.assert_close(model.score(users, edge_weight={name: weight}), smaller.score(users))
        if name == target:
            torch.testing.assert_close(model.score(users, edge_weight=weight), smaller.score(users))


def test_deletion_takes_the_triple_and_what_hangs_on_it() -> None:
    data = planted_kg()
    model = trained(RippleNet(data, dim=8, memory_size=12), 2)
    assert isinstance(model, RippleNet)
    assert torch.equal(without_edges(model, {}).score(torch.arange(9)), model.score(torch.arange(9)))
    graph, kind = model.knowledge, ("item", "related", "entity")
    own = model.ripples[0, 0][model.ripples[0, 0] >= 0]
    edge = int(own[graph.edge_type[own] == graph.edge_types.index(kind)][0])
    made = without_edges(model, {kind: graph.edge_id[edge : edge + 1]})
    assert isinstance(made, RippleNet)
    lost = set(sets_of(model, 0)[0]) - set(sets_of(made, 0)[0])
    assert lost == {(int(graph.heads()[edge]), int(graph.relation[edge]), int(graph.tails()[edge]))}
    untouched = [user for user in range(160) if lost.isdisjoint({t for hop in sets_of(model, user) for t in hop})]
    assert untouched
    assert all(sets_of(model, user)[0] == sets_of(made, user)[0] for user in untouched)


def test_edge_weights_have_gradients() -> None:
    model = make()
    target = model.graph_inputs.target
    weight = torch.ones(model.graph_inputs.graph[target].edge_index.shape[1], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.score(torch.arange(8), edge_weight=weight).pow(2).sum(), weight)
    assert gradient.isfinite().all()
    assert gradient.any()


def labelled_kg() -> RecDataset:
    """The planted graph with as many labelled negatives as training positives."""
    data = planted_kg()
    table = data.interactions("train")
    draws = torch.Generator().manual_seed(3)
    others = torch.randint(data.num_items, (len(table),), generator=draws).numpy()
    import pandas as pd

    rows = pd.DataFrame({"user": table.source, "item": table.target, "label": 1})
    zeros = pd.DataFrame({"user": table.source, "item": others, "label": 0})
    frame = pd.concat([rows, zeros]).drop_duplicates(["user", "item"])
    triples = data.tables["item", "related", "entity"]
    builder = Builder()
    builder.interactions(frame, user="user", item="item", label="label")
    facts = pd.DataFrame({"head": triples.source, "relation": triples.columns["relation"], "tail": triples.target})
    builder.triples(facts, head=("item", "head"), relation="relation", tail=("entity", "tail"))
    return builder.build()


def test_labelled_pairs_are_trained_on_and_negatives_are_no_seeds() -> None:
    data = labelled_kg()
    model = RippleNet(data, dim=8, batch_size=512)
    assert model.objective == "cross entropy of labelled pairs"
    labels = torch.cat([batch.labels for batch in model.batches(0, randomness.generator(0, "x"))])
    assert 0 < float(labels.mean()) < 1
    train = data.pairs("train")
    for user in range(0, data.num_users, 11):
        own = set(train.items[train.indptr[user] : train.indptr[user + 1]].tolist())
        assert {head for head, _, _ in sets_of(model, user)[0]} <= own
    trained(model, 8)
    pairs = model.graph_inputs.labelled
    assert pairs is not None
    with torch.no_grad():
        found = model.score(pairs.users, pairs.items[:, None])[:, 0]
    assert found[pairs.labels == 1].mean() > found[pairs.labels == 0].mean() + 1


def test_bad_options_say_what_is_expected() -> None:
    data = tiny_kg()
    with pytest.raises(InputError, match="item_update"):
        RippleNet(data, item_update="sum")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="memory_size must be a positive whole number, found 0"):
        RippleNet(data, memory_size=0)
