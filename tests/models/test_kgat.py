from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import HeteroData

import graphrec
from graphrec import randomness
from graphrec.errors import InputError
from graphrec.graphs.triples import triple_index
from graphrec.layers.knowledge_attention import translated_logits, uniform_shares
from graphrec.layers.relational import edge_softmax, row_sums
from graphrec.layers.row_adam import RowAdam
from graphrec.models import BPRMF, GraphRecommender
from graphrec.models.base import Batch, GraphInputs, PairBatch
from graphrec.models.kgat import KGAT
from tests.models.conformance import KnowledgeConformance
from tests.models.planted_kg import planted_kg, tiny_kg

NOTHING = Batch(torch.zeros(0).long(), torch.zeros(0))


class TestKGAT(KnowledgeConformance):
    model_class = KGAT
    hparams = {
        "dim": 16,
        "layer_dims": [16, 8],
        "lr": 2e-2,
        "batch_size": 256,
        "triple_batch_size": 128,
        "triple_batches": 6,
    }
    epochs = 12

    def permuted_state(
        self, model: GraphRecommender, permuted: GraphRecommender, order: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Attention goes where its edge's head, relation and tail go."""
        assert isinstance(model, KGAT) and isinstance(permuted, KGAT)
        state = super().permuted_state(model, permuted, order)
        old, new = model.knowledge, permuted.knowledge
        node = torch.cat([order[name] + old.nodes(name).start for name in old.order])

        def keys(heads: torch.Tensor, relation: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
            return (heads * old.num_relations + relation) * old.num_nodes + tails

        moved = torch.empty_like(state["attention"])
        there = keys(node[old.heads()], old.relation, node[old.tails()]).argsort()
        moved[keys(new.heads(), new.relation, new.tails()).argsort()] = state["attention"][there]
        state["attention"] = moved
        return state


def triples_of(model: KGAT) -> list[tuple[int, int, int]]:
    """(head, relation, tail) of the collaborative graph, made from the inputs by the card's numbering in a loop."""
    graph = model.graph_inputs.graph
    first = {"user": 0, "item": model.num_users, "entity": model.num_users + model.num_items}
    relations = graph["item", "related", "entity"].num_relations
    stated = set()
    for edge_type in graph.edge_types:
        store = graph[edge_type]
        for number, (source, target) in enumerate(store.edge_index.T.tolist()):
            relation = 0 if edge_type == model.graph_inputs.target else int(store.relation[number]) + 1
            stated.add((first[edge_type[0]] + source, relation, first[edge_type[2]] + target))
    return sorted(stated | {(tail, relation + relations + 1, head) for head, relation, tail in stated})


def slow_attention(model: KGAT, x: Tensor, layer: int = 0) -> dict[tuple[int, int, int], Tensor]:
    """The share of each triple, in loops."""
    triples, shares = triples_of(model), {}
    tables = model.relations()
    matrices = [tables["matrices"], *model.layer_matrices]
    for h, r, t in triples:
        same = [other for other in triples if other[0] == h and other[1] == r]
        arriving = [other for other in triples if other[2] == t and other[1] == r]
        if model.attention_kind == "static_si":
            shares[h, r, t] = torch.tensor(1 / len(same), dtype=x.dtype)
        elif model.attention_kind == "static_bi":
            shares[h, r, t] = torch.tensor((len(same) * len(arriving)) ** -0.5, dtype=x.dtype)
        elif model.attention_kind == "uniform":
            shares[h, r, t] = torch.tensor(1 / sum(other[0] == h for other in triples), dtype=x.dtype)
        else:
            shares[h, r, t] = torch.exp(
                (x[t] @ matrices[layer][r]) @ torch.tanh(x[h] @ matrices[layer][r] + tables["vectors"][r])
            )
    if model.attention_kind in ("epoch", "layer"):
        totals = {h: sum(value for (head, _, _), value in shares.items() if head == h) for h, _, _ in triples}
        shares = {triple: value / totals[triple[0]] for triple, value in shares.items()}
    return shares


def slow_encoding(model: KGAT) -> Tensor:
    """E* of all nodes, in loops over triples and nodes."""
    x = torch.cat(list(model.tables().values()))
    outputs = [x]
    fixed = slow_attention(model, x.detach()) if model.attention_kind == "epoch" else None
    for number, layer in enumerate(model.aggregators()):
        shares = slow_attention(model, x, number) if fixed is None else fixed
        rows = []
        for node in range(len(x)):
            s = x.new_zeros(x.shape[1])
            for (h, _, t), share in shares.items():
                if h == node:
                    s = s + share * x[t]
            w, b = list(layer.weights), list(layer.biases)
            if layer.kind == "bi":
                row = functional.leaky_relu((x[node] + s) @ w[0] + b[0], 0.2)
                row = row + functional.leaky_relu((x[node] * s) @ w[1] + b[1], 0.2)
            elif layer.kind == "gcn":
                row = functional.leaky_relu(s @ w[0] + b[0], 0.2)
            else:
                row = torch.relu(torch.cat([x[node], s]) @ w[0] + b[0])
            rows.append(row)
        x = torch.stack(rows)
        outputs.append(x / x.square().sum(1, keepdim=True).clamp_min(1e-12).sqrt())
    return torch.cat(outputs, 1)


def slow_pair_loss(model: KGAT, batch: PairBatch) -> Tensor:
    final = slow_encoding(model)
    value = final.new_zeros(())
    for u, i, j in zip(batch.users.tolist(), batch.items.tolist(), batch.negatives[:, 0].tolist(), strict=True):
        e = final[u], final[model.num_users + i], final[model.num_users + j]
        value = value + functional.softplus(e[0] @ e[2] - e[0] @ e[1])
        value = value + model.reg / 2 * sum(row @ row for row in e)
    return value / len(batch)


def tiny(**hparams: Any) -> KGAT:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "dim": 5,
        "layer_dims": [4, 3],
        "message_dropout": 0.0,
        "batch_size": 6,
        "init": "normal",
        "reg": 0.1,
    }
    model = KGAT(tiny_kg(), **{**given, "init_scale": 0.7, "triple_batch_size": 9, **hparams}).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.6)
    if model.attention_kind == "epoch":
        model.refresh(NOTHING)
    return model


def first_batch(model: KGAT, phase: int) -> Any:
    return next(iter(model.phases()[phase].batches(0, randomness.generator(0, "probe"))))


def total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


CASES = [(attention, "bi") for attention in ("static_si", "static_bi", "uniform", "epoch", "layer")] + [
    ("epoch", "gcn"),
    ("epoch", "sage"),
    ("layer", "sage"),
]


@pytest.mark.parametrize(("attention", "aggregator"), CASES)
def test_scores_and_gradients_equal_a_slow_loop(attention: Any, aggregator: Any) -> None:
    model = tiny(attention=attention, aggregator=aggregator)
    found = {
        (h, r, t): share
        for h, r, t, share in zip(
            *(x.tolist() for x in (model.knowledge.heads(), model.knowledge.relation, model.knowledge.tails())),
            model.relational_attention()[1].tolist(),
            strict=True,
        )
    }
    expected = slow_attention(model, model.node_table())
    assert found.keys() == expected.keys()
    assert all(abs(found[triple] - share.item()) < 1e-12 for triple, share in expected.items())
    final = slow_encoding(model)
    encoded = model.encode()
    torch.testing.assert_close(encoded.users, final[: model.num_users])
    torch.testing.assert_close(encoded.items, final[model.num_users : model.num_users + model.num_items])
    batch = first_batch(model, 0)
    loss, slow = total(model.pair_loss(batch)), slow_pair_loss(model, batch)
    torch.testing.assert_close(loss, slow)
    trained = list(model.phases()[0].parameters)
    for ours, theirs in zip(torch.autograd.grad(loss, trained), torch.autograd.grad(slow, trained), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kge", ["transr", "transe", "transh", "distmult"])
def test_triple_loss_and_gradients_equal_a_slow_loop(kge: Any) -> None:
    model = tiny(kge=kge, triple_reg=40.0)
    batch = first_batch(model, 1)
    x, tables, known = model.node_table(), model.relations(), set(triples_of(model))
    ranking = penalty = x.new_zeros(())
    columns = (batch.heads, batch.relations, batch.tails, batch.negatives[:, 0])
    for h, r, t, other in zip(*(column.tolist() for column in columns), strict=True):
        assert (h, r, t) in known and (h, r, other) not in known
        rows = []
        for node in (h, t, other):
            if kge == "transr":
                rows.append(x[node] @ tables["matrices"][r])
            elif kge == "transh":
                normal = tables["normals"][r] / tables["normals"][r].norm()
                rows.append(x[node] - (normal @ x[node]) * normal)
            else:
                rows.append(x[node])
        vector = tables["vectors"][r]
        if kge == "distmult":
            cost = [-(rows[0] * vector * tail).sum() for tail in rows[1:]]
        else:
            cost = [(rows[0] + vector - tail).square().sum() for tail in rows[1:]]
        ranking = ranking + functional.softplus(cost[0] - cost[1])
        penalty = penalty + sum(row @ row for row in (*rows, vector))
    slow = ranking / len(batch) + 40.0 / (2 * 2048) * penalty
    loss = total(model.triple_loss(batch))
    torch.testing.assert_close(loss, slow)
    trained = list(model.phases()[1].parameters)
    for ours, theirs in zip(torch.autograd.grad(loss, trained), torch.autograd.grad(slow, trained), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_shares_of_a_head_sum_to_one_and_follow_its_logits() -> None:
    model = tiny()
    graph, shares = model.relational_attention()
    assert (shares >= 0).all()
    heads = graph.adjacency.degrees(0) > 0
    torch.testing.assert_close(row_sums(graph.adjacency, shares), heads.double())
    # One more at every logit of a head changes nothing; equal logits are uniform.
    logits = translated_logits(graph, model.node_table(), model.scorer, model.relations())
    shifted = logits + torch.randn(graph.num_nodes, dtype=logits.dtype)[graph.heads()]
    torch.testing.assert_close(edge_softmax(graph.adjacency, shifted), shares)
    even = edge_softmax(graph.adjacency, torch.zeros_like(logits))
    torch.testing.assert_close(even, uniform_shares(graph, torch.ones_like(logits)))


def test_constant_attention_sums_to_the_number_of_relations_that_leave_a_head() -> None:
    graph, shares = tiny(attention="static_si").relational_attention()
    leaving = [len(set(graph.relation[graph.heads() == node].tolist())) for node in range(graph.num_nodes)]
    assert max(leaving) > 1 and 1 in leaving
    torch.testing.assert_close(row_sums(graph.adjacency, shares), torch.tensor(leaving, dtype=shares.dtype))


@pytest.mark.parametrize(
    ("users", "items", "entities", "relations", "published", "unused"),
    [(70_679, 24_915, 88_572, 39, 12_146_384, 13_424), (23_566, 48_123, 58_266, 9, 8_427_280, 13_424)],
)
def test_parameter_count_is_the_published_one(
    users: int, items: int, entities: int, relations: int, published: int, unused: int
) -> None:
    graph = HeteroData()
    graph["user"].num_nodes, graph["item"].num_nodes, graph["entity"].num_nodes = users, items, entities
    target = ("user", "interacts", "item")
    graph[target].edge_index, graph[target].edge_id = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(1).long()
    kind = ("item", "related", "entity")
    graph[kind].edge_index, graph[kind].edge_id = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(1).long()
    graph[kind].relation, graph[kind].num_relations = torch.tensor([relations - 1]), relations
    model = KGAT(GraphInputs(graph, target, "none"))
    # The published count has the weights of the GraphSage aggregator, which that run does not use.
    assert sum(parameter.numel() for parameter in model.parameters()) == published - unused


def test_attention_without_relations_is_the_dot_product_with_tanh() -> None:
    model = tiny()
    with torch.no_grad():
        model.relation_tables["vectors"].zero_()
        model.relation_tables["matrices"].copy_(
            torch.eye(5, dtype=torch.float64).expand_as(model.relations()["matrices"])
        )
    graph, x = model.knowledge, model.node_table()
    logits = translated_logits(graph, x, model.scorer, model.relations())
    torch.testing.assert_close(logits, (x[graph.tails()] * torch.tanh(x[graph.heads()])).sum(1))


def test_without_the_product_branch_it_is_a_gcn_with_self_loops() -> None:
    model = tiny(layer_dims=[4])
    layer = model.aggregators()[0]
    with torch.no_grad():
        layer.weights[1].zero_()
        layer.biases[1].zero_()
    graph, shares = model.relational_attention()
    matrix = graph.adjacency.with_values(shares).to_dense() + torch.eye(graph.num_nodes, dtype=shares.dtype)
    out = functional.leaky_relu(matrix @ model.node_table() @ layer.weights[0] + layer.biases[0], 0.2)
    expected = torch.cat([model.node_table(), functional.normalize(out)], 1)
    torch.testing.assert_close(model.encode().users, expected[: model.num_users])


def test_a_tail_that_corrupts_nothing_costs_the_logarithm_of_two() -> None:
    model = tiny(triple_reg=0.0)
    batch = first_batch(model, 1)
    same = dataclasses.replace(batch, negatives=batch.tails.unsqueeze(1))
    torch.testing.assert_close(model.triple_loss(same)["rank"], torch.tensor(2.0, dtype=torch.float64).log())


def test_the_graph_has_training_interactions_and_every_inverse() -> None:
    data = tiny_kg()
    model = KGAT(data)
    counts = model.knowledge.counts
    assert len(model.knowledge) == 2 * (counts["interactions"] + counts["triples"] - counts["duplicates"])
    assert counts["interactions"] == len(data.pairs("train").items)
    edges = {(h, t) for h, r, t in triples_of(model) if r == 0}
    test = data.interactions("test")
    for user, item in zip(test.source.tolist(), test.target.tolist(), strict=True):
        assert (user, model.num_users + item) not in edges


@pytest.mark.parametrize("attention", ["epoch", "static_si"])
def test_a_refresh_reaches_the_output_where_attention_is_of_the_epoch(attention: Any) -> None:
    model = tiny(attention=attention).eval()
    before = model.encode().users.clone()
    kept = model.encoded().users.clone()
    with torch.no_grad():
        for table in model.relation_tables.values():
            table.mul_(2.0)
    names = [phase.name for phase in model.phases()]
    assert ("attention" in names) == (attention == "epoch")
    for phase in model.phases():
        if not phase.parameters:
            for batch in phase.batches(0, randomness.generator(0, "attention")):
                phase.loss(batch)
    changed = float((model.encode().users - before).detach().abs().max())
    assert changed > 1e-3 if attention == "epoch" else changed == 0.0
    torch.testing.assert_close(model.encoded().users, model.encode().users)
    assert (attention == "epoch") != torch.equal(model.encoded().users, kept)


@pytest.mark.parametrize("attention", ["static_si", "static_bi", "uniform", "epoch", "layer"])
def test_an_edge_of_weight_zero_is_as_good_as_deleted(attention: Any) -> None:
    data = tiny_kg()
    kind = ("item", "related", "entity")
    model = tiny(attention=attention)
    graph = model.graph_inputs.graph
    # From an item with several edges.
    gone = int(graph[kind].edge_index[0].bincount().argmax())
    place = int((graph[kind].edge_index[0] == gone).nonzero()[0])
    weight = {kind: torch.ones(graph[kind].edge_index.shape[1], dtype=torch.float64, requires_grad=True)}
    unit = model.encode(edge_weight=weight).items
    torch.testing.assert_close(unit, model.encode().items)
    grad = torch.autograd.grad(unit.square().sum(), weight[kind])[0]
    assert grad[place].abs() > 0
    zero = {kind: weight[kind].detach().clone().index_fill_(0, torch.tensor([place]), 0.0)}
    ids = {kind: graph[kind].edge_id[place : place + 1].numpy()}
    smaller = KGAT(data.without(ids), **model.hparams).double()
    assert len(smaller.knowledge) == len(model.knowledge) - 2
    state = {name: value for name, value in model.state_dict().items() if name not in ("attention", "refreshed")}
    smaller.load_state_dict(state, strict=False)
    if attention == "epoch":
        smaller.refresh(NOTHING)
    torch.testing.assert_close(smaller.encode().items, model.encode(edge_weight=zero).items)


def test_training_moves_rows_as_dense_adam_does() -> None:
    """An epoch of triples by deferred updates ends where dense Adam's ends; touched rows alone do not."""
    given: dict[str, Any] = {
        "dim": 8,
        "layer_dims": [4],
        "lr": 1e-2,
        "triple_batch_size": 16,
        "triple_batches": 40,
        "triple_reg": 0.0,
    }
    ends = {}
    start = KGAT(planted_kg(), **given).double().node_table().detach()
    for updates in ("off", "deferred", "touched"):
        model = KGAT(planted_kg(), sparse_updates=updates, **given).double()
        phase = model.phases()[1]
        assert phase.optimiser is not None
        optimiser = phase.optimiser(phase.parameters)
        model.train()
        for batch in phase.batches(0, randomness.generator(0, "triples")):
            optimiser.zero_grad()
            total(phase.loss(batch)).backward(inputs=list(phase.parameters))
            optimiser.step()
        assert isinstance(optimiser, RowAdam) == (updates != "off")
        ends[updates] = model.node_table().detach() - start
    moved = ends["off"].abs().mean()
    assert (ends["off"] - ends["deferred"]).abs().mean() < 1e-4 * moved
    assert (ends["off"] - ends["touched"]).abs().mean() > 0.1 * moved


def test_batches_are_the_published_ones() -> None:
    data = planted_kg()
    model = KGAT(data, batch_size=100, triple_batch_size=None)
    pairs = list(model.batches(0, randomness.generator(0, "pairs")))
    interactions = model.knowledge.counts["interactions"]
    listed = model.batches(0, randomness.generator(0, "pairs"))
    assert isinstance(listed, Sized) and len(pairs) == interactions // 100 + 1 == len(listed)
    known = model.graph_inputs.adjacency()
    for batch in pairs:
        assert len(batch.users.unique()) == len(batch) == 100
        assert known.contains(batch.users, batch.items).all()
        assert not known.contains(batch.users, batch.negatives[:, 0]).any()
    triples = model.knowledge.counts["triples"] - model.knowledge.counts["duplicates"]
    assert model.triple_batch_size == triples // (interactions // 100)
    assert model.triple_batches == 2 * (interactions + triples) // 2048 + 1
    for drawn in model.draw_triples(0, randomness.generator(0, "triples")):
        assert len(drawn.heads.unique()) == len(drawn) == model.triple_batch_size
        assert triple_index(model.knowledge).contains(drawn.heads, drawn.relations, drawn.tails).all()
        assert not triple_index(model.knowledge).contains(drawn.heads, drawn.relations, drawn.negatives[:, 0]).any()
    entities = KGAT(data, corrupt_users=False).draw_triples(0, randomness.generator(0, "triples"))
    assert all((drawn.negatives >= model.num_users).all() for drawn in entities)


def test_published_preset_is_constant_attention() -> None:
    model = KGAT(planted_kg(), **KGAT.presets["published"].model)
    assert [phase.name for phase in model.phases()] == ["pairs", "triples"]
    assert KGAT(planted_kg()).attention_kind == "epoch"


def test_starts_from_a_trained_bprmf(tmp_path: Path) -> None:
    data = planted_kg()
    graphrec.fit(BPRMF(data, dim=8), data, epochs=1, out=tmp_path / "bprmf", progress=False)
    start = graphrec.Run.open(tmp_path / "bprmf").weights()
    model = KGAT(data, dim=8, layer_dims=[4])
    own = model.tables()["entity"].detach().clone()
    graphrec.fit(model, data, epochs=0, init_from=tmp_path / "bprmf", progress=False)
    torch.testing.assert_close(model.user_embedding.detach(), start["user_embedding"])
    torch.testing.assert_close(model.item_embedding.detach(), start["item_embedding"])
    torch.testing.assert_close(model.tables()["entity"].detach(), own)


def test_a_resumed_training_ends_where_a_whole_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = planted_kg(60, 24)
    given: dict[str, Any] = {
        "dim": 8,
        "layer_dims": [4],
        "batch_size": 64,
        "triple_batch_size": 32,
        "triple_batches": 4,
        "lr": 1e-2,
    }
    options: dict[str, Any] = {"epochs": 3, "checkpoint_every": 1, "progress": False}
    whole = KGAT(data, **given)
    graphrec.fit(whole, data, out=tmp_path / "whole", **options)
    calls = []

    def impatient(model: KGAT, batch: Batch) -> Any:
        calls.append(batch)
        if len(calls) == 2:
            raise RuntimeError("power cut")
        return refresh(model, batch)

    refresh = KGAT.refresh
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(KGAT, "refresh", impatient)
        graphrec.fit(KGAT(data, **given), data, out=tmp_path / "parts", **options)
    resumed = KGAT(data, **given)
    graphrec.fit(resumed, data, out=tmp_path / "parts", resume=True, **options)
    assert len(calls) == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"attention": "epochs"}, "epoch"),
        ({"aggregator": "bisage"}, "aggregator"),
        ({"kge": "rotate"}, "transr"),
        ({"triple_batch_size": 0}, "triple_batch_size"),
        ({"message_dropout": 1.0}, "message_dropout"),
        ({"shared_negatives": True}, "distinct_users"),
        ({"layer_dims": [8, 0]}, "width"),
    ],
)
def test_unusable_hyper_parameters_are_refused(hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        KGAT(tiny_kg(), **hparams)
