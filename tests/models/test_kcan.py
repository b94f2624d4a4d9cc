from __future__ import annotations

import math
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from graphrec import evaluate, fit, randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.layers.conditional_layer import PreparedNodes
from graphrec.models import GraphRecommender
from graphrec.models.base import Batch, PairBatch, TripleBatch
from graphrec.models.deletion import without_edges
from graphrec.models.kcan import KCAN
from graphrec.runs import Run
from tests.models.conformance import KnowledgeConformance, scores, trained
from tests.models.planted_kg import planted_kg, tiny_kg


def edges_follow(model: KCAN, permuted: KCAN, order: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The edge of ``permuted`` that each edge of ``model`` became, and the node that each node became."""
    old, new = model.knowledge, permuted.knowledge
    where = torch.cat([order[kind] + old.nodes(kind).start for kind in old.order])

    def keys(heads: Tensor, tails: Tensor, relation: Tensor, inverse: Tensor) -> Tensor:
        return ((heads * old.num_nodes + tails) * old.num_relations + relation) * 2 + inverse

    mine = keys(where[old.heads()], where[old.tails()], old.relation, old.inverse).argsort()
    theirs = keys(new.heads(), new.tails(), new.relation, new.inverse).argsort()
    became = torch.empty_like(mine)
    became[mine] = theirs
    return became, where


class KCANConformance(KnowledgeConformance):
    model_class = KCAN
    tolerance = 1e-4

    def permuted_state(
        self, model: GraphRecommender, permuted: GraphRecommender, order: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        assert isinstance(model, KCAN)
        assert isinstance(permuted, KCAN)
        state = super().permuted_state(model, permuted, order)
        became, where = edges_follow(model, permuted, order)
        if "attention" in state:
            state["attention"] = torch.empty_like(model.attention).index_copy(0, became, model.attention)
        if "neighbours" in state:
            lists = torch.empty_like(model.neighbours)
            lists[where] = became[model.neighbours]
            state["neighbours"] = lists
        return state


class TestKCAN(KCANConformance):
    hparams = {"batch_size": 256, "triple_batch_size": 1024, "num_neighbours": 5, "dropout": 0.05}
    epochs = 12


class TestKCANGlobalLayerAlone(KCANConformance):
    hparams = {"variant": "n", "batch_size": 256, "triple_batch_size": 1024, "num_negatives": 2}
    epochs = 12


def make(data: RecDataset | None = None, **hparams: Any) -> KCAN:
    settings = {"dim": 5, "global_dim": 4, "hop_dim": 3, "seed_dim": 3, "out_dim": 4, "num_neighbours": 3, **hparams}
    model = KCAN(tiny_kg() if data is None else data, **settings).double()
    refreshed(model, 1)
    return model


def refreshed(model: KCAN, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    (phase,) = [phase for phase in model.phases() if phase.name == "refresh"]
    with torch.no_grad():
        for batch in phase.batches(0, stream):
            phase.loss(batch)


def norm(x: Tensor) -> Tensor:
    return x / x.square().sum().sqrt().clamp_min(1e-6)


def node_rows(model: KCAN) -> list[Tensor]:
    """Items, entities, users: the order of the card."""
    assert model.entity_embedding is not None
    return list(torch.cat([model.item_embedding, model.entity_embedding, model.user_embedding]))


def stated_triples(data: RecDataset) -> list[tuple[int, int, int]]:
    """Triples and training interactions by node, straight from the dataset's tables."""
    start = {"item": 0, "entity": data.num_items, "user": data.num_items + data.num_nodes["entity"]}
    found = []
    for (source, _, target), table in data.tables.items():
        relation = table.columns.get("relation")
        rows = data.interactions("train") if source == "user" else table
        for number in range(len(rows)):
            r = len(data.relations) if relation is None else int(relation[number])
            found.append((start[source] + int(rows.source[number]), r, start[target] + int(rows.target[number])))
    return sorted(set(found))


def slow_triple(model: KCAN, rows: list[Tensor], head: int, relation: int, tail: int) -> tuple[Tensor, Tensor]:
    """f and a of one triple."""
    zero = torch.zeros(model.dim, dtype=torch.float64)
    known = relation < len(model.relation_embedding)
    translation = model.relation_embedding[relation] if known else zero
    normal = norm(model.relation_normal[relation]) if known else zero
    h, t = (norm(rows[node] - (normal * rows[node]).sum() * normal) for node in (head, tail))
    rho = norm(translation)
    return (h + rho - t).abs().sum(), (t * (h + rho)).sum()


def slow_attention(model: KCAN, data: RecDataset) -> dict[int, list[tuple[int, int, float]]]:
    """Π: for each node its (neighbour, relation, share)."""
    rows = node_rows(model)
    around: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
    for h, r, t in stated_triples(data):
        logit = math.exp(float(slow_triple(model, rows, h, r, t)[1].detach()))
        around[h].append((t, r, logit))
        around[t].append((h, r, logit))
    totals = {node: sum(logit for _, _, logit in found) for node, found in around.items()}
    return {node: sorted((t, r, a / totals[node]) for t, r, a in found) for node, found in around.items()}


def slow_nodes(model: KCAN, data: RecDataset) -> list[Tensor]:
    """g of every node."""
    rows, around = node_rows(model), slow_attention(model, data)
    if model.variant in ("g", "s"):
        return rows
    assert model.global_weight is not None
    assert model.global_bias is not None
    found = []
    for node, row in enumerate(rows):
        mixed = torch.zeros(model.dim, dtype=torch.float64)
        for other, _, share in around.get(node, []):
            mixed = mixed + share * rows[other]
        x = (torch.cat([row, mixed]) @ model.global_weight + model.global_bias[0]).clamp_min(0)
        found.append(torch.cat([row, norm(x)]))
    return found


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.expm1(x))


def slow_softmax(logits: list[Tensor]) -> list[Tensor]:
    total = sum(torch.exp(logit) for logit in logits)
    return [torch.exp(logit) / total for logit in logits]


def slow_outputs(model: KCAN, data: RecDataset, g: list[Tensor], user: int, item: int) -> tuple[Tensor, Tensor]:
    """o_u and o_i, in the card's form: concatenations and whole matrices, nothing precomputed."""
    layer = model.local
    assert layer is not None
    tails = model.knowledge.tails().tolist()
    shares = model.attention.tolist()
    listed = [[(tails[e], shares[e]) for e in edges if e >= 0] for edges in model.neighbours.tolist()]
    user_node = data.num_items + data.num_nodes["entity"] + user
    c = torch.cat([g[user_node], g[item]])
    target = (layer.target_gate[:, 0] * c).sum()
    outputs = []
    for seed in (user_node, item):
        inner = []
        for j, _ in listed[seed]:
            alpha = slow_softmax([lrelu(p * (target + (layer.hop_gate[:, 0] * g[k]).sum())) for k, p in listed[j]])
            mixed = sum(a * g[k] for a, (k, _) in zip(alpha, listed[j], strict=True))
            inner.append(norm(elu(torch.cat([g[j], mixed]) @ layer.hop_weight + layer.hop_bias[0])))
        mixed = torch.zeros(layer.hop_weight.shape[1], dtype=torch.float64)
        if inner:
            logits = [
                lrelu(p * (target + (layer.seed_gate[:, 0] * y).sum()))
                for y, (_, p) in zip(inner, listed[seed], strict=True)
            ]
            mixed = sum(beta * y for beta, y in zip(slow_softmax(logits), inner, strict=True))
        z = norm(elu(torch.cat([g[seed], mixed]) @ layer.seed_weight + layer.seed_bias[0]))
        outputs.append(torch.cat([g[seed], z]) @ layer.output_weight)
    return outputs[0], outputs[1]


def slow_vectors(model: KCAN, data: RecDataset, g: list[Tensor], user: int, item: int) -> tuple[Tensor, Tensor]:
    if model.local is not None:
        return slow_outputs(model, data, g, user, item)
    return g[data.num_items + data.num_nodes["entity"] + user], g[item]


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


@pytest.mark.parametrize("variant", ["full", "g", "n", "s"])
def test_scores_losses_and_gradients_equal_a_slow_loop(variant: str) -> None:
    data = tiny_kg()
    model = make(data, variant=variant, reg=0.3, batch_size=3)
    g = slow_nodes(model, data)
    pairs = [(0, 2), (3, 9), (7, 0), (5, 5)]  # user 7 has no interaction, item 9 no triple
    expected = torch.stack([(a * b).sum() for a, b in (slow_vectors(model, data, g, u, i) for u, i in pairs)])
    users, items = torch.tensor(pairs).T
    torch.testing.assert_close(model.score(users, items[:, None])[:, 0], expected)
    torch.testing.assert_close(model.score(users).gather(1, items[:, None])[:, 0], expected)

    triples = [((0, 1, 4), 3), ((4, 2, 11), 10), ((13, 3, 0), 20), ((23, 4, 6), 9)]
    rows = node_rows(model)
    kg_loss = torch.zeros((), dtype=torch.float64)
    for (h, r, t), corrupted in triples:
        kg_loss = kg_loss + softplus(
            slow_triple(model, rows, h, r, t)[0] - slow_triple(model, rows, h, r, corrupted)[0]
        )
    examples = [(1, 4, 8), (3, 2, 9), (6, 0, 1)]
    rank, reg = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for user, positive, negative in examples:
        first, second = (slow_vectors(model, data, g, user, item) for item in (positive, negative))
        rank = rank + softplus((second[0] * second[1]).sum() - (first[0] * first[1]).sum())
        vectors = (*first, *second) if model.local is not None else (*first, second[1])
        reg = reg + sum(vector.square().sum() for vector in vectors)
    reg = reg + sum(parameter.square().sum() for parameter in model.layer_parameters())
    slow = {"triples": kg_loss / 4, "rank": rank / 3, "reg": 0.3 / 2 * reg / 3}

    def ones(count: int) -> dict[str, Any]:
        return {"edge_id": torch.zeros(count, dtype=torch.int64), "weight": torch.ones(count, dtype=torch.float64)}

    heads, relations, tails = torch.tensor([triple for triple, _ in triples]).T
    negatives = torch.tensor([[corrupted] for _, corrupted in triples])
    triple_batch = TripleBatch(
        **ones(4), heads=heads, relations=relations, tails=tails, negatives=negatives, edge_type=torch.zeros(4).long()
    )
    users, positives, others = torch.tensor(examples).T
    pair_batch = PairBatch(**ones(3), users=users, items=positives, negatives=others[:, None])
    found = {**model.triple_loss(triple_batch), **model.pair_loss(pair_batch)}
    assert set(found) == set(slow)
    parameters = list(model.parameters())
    for name, value in slow.items():
        torch.testing.assert_close(found[name], value, msg=name)
        wanted = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
        given = torch.autograd.grad(found[name], parameters, allow_unused=True, retain_graph=True)
        for (where, _), one, other in zip(model.named_parameters(), given, wanted, strict=True):
            zero = torch.zeros(())
            one, other = (zero if x is None else x for x in (one, other))
            torch.testing.assert_close(one.expand_as(other), other, msg=f"{name} by {where}")


def test_attention_is_that_of_the_triples_and_one_over_the_degree_at_first() -> None:
    data = tiny_kg()
    model = KCAN(data, dim=5).double()
    degree = model.knowledge.adjacency.degrees(0)[model.knowledge.heads()]
    torch.testing.assert_close(model.attention, 1 / degree.double())
    refreshed(model, 3)
    found = defaultdict(list)
    graph = model.knowledge
    for h, t, r, share in zip(graph.heads(), graph.tails(), graph.relation, model.attention, strict=True):
        found[int(h)].append((int(t), int(r), float(share)))
    expected = slow_attention(model, data)
    assert set(found) == set(expected)
    for node, listed in expected.items():
        torch.testing.assert_close(torch.tensor(sorted(found[node])), torch.tensor(listed))
        assert math.isclose(sum(share for _, _, share in listed), 1)


def test_interactions_have_no_translation_and_no_hyperplane() -> None:
    model = make()
    tables = model.relation_tables()
    assert len(tables["vectors"]) == model.knowledge.num_relations == 5
    assert not tables["vectors"][-1].any()
    assert not tables["normals"][-1].any()


def test_lists_and_attention_change_each_epoch_and_act() -> None:
    data = planted_kg()
    model = KCAN(data, num_neighbours=4, batch_size=256)
    first, uniform = model.neighbours.clone(), model.attention.clone()
    before = scores(model.eval())
    refreshed(model, 5)
    assert (model.neighbours != first).any(1).float().mean() > 0.5
    assert not torch.allclose(model.attention, uniform)
    assert (scores(model) - before).abs().max() > 1e-4
    second = model.neighbours.clone()
    refreshed(model, 6)
    assert not torch.equal(model.neighbours, second)
    refreshed(model, 5)
    assert torch.equal(model.neighbours, second)
    torch.testing.assert_close(model.derived()["neighbours"].rebuild(), second)


def test_deletion_redraws_only_what_held_the_edge() -> None:
    data = planted_kg()
    model = trained(KCAN(data, num_neighbours=4, batch_size=256), 2)
    assert isinstance(model, KCAN)
    again = without_edges(model, {})
    assert torch.equal(scores(again), scores(model))
    graph, kind = model.knowledge, ("item", "related", "entity")
    listed = model.neighbours.flatten()
    place = graph.edge_types.index(kind)
    edge = int(listed[graph.edge_type[listed] == place][0])
    made = without_edges(model, {kind: graph.edge_id[edge : edge + 1]})
    assert isinstance(made, KCAN)
    assert len(made.knowledge) == len(graph) - 2

    def named(which: KCAN) -> list[list[tuple[int, int]]]:
        ends = which.knowledge.tails(), which.knowledge.relation
        return [sorted((int(ends[0][e]), int(ends[1][e])) for e in row) for row in which.neighbours]

    changed = [node for node, rows in enumerate(zip(named(model), named(made), strict=True)) if rows[0] != rows[1]]
    assert changed
    assert set(changed) <= {int(graph.heads()[edge]), int(graph.tails()[edge])}
    assert not torch.equal(scores(made), scores(model))


def test_the_target_changes_the_other_side_but_not_without_its_gate() -> None:
    data = tiny_kg()
    model = make(data)
    assert model.local is not None
    nodes = model.nodes()
    prepared = model.local.prepare(nodes, model.neighbour_shares())
    users, items = torch.tensor([25, 25]), torch.tensor([1, 4])
    first, _ = model.local(prepared, users, items)
    assert (first[0] - first[1]).abs().max() > 1e-6
    with torch.no_grad():
        model.local.target_gate.zero_()
    prepared = model.local.prepare(nodes, model.neighbour_shares())
    first, _ = model.local(prepared, users, items)
    assert torch.equal(first[0], first[1])


def test_blocks_and_recomputed_blocks_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphrec.layers import conditional_attention

    data = planted_kg()
    results = []
    for budget in (1 << 30, 1):
        monkeypatch.setattr(conditional_attention, "MEMORY_BUDGET", budget)
        monkeypatch.setattr(conditional_attention, "SCORING_BUDGET", budget)
        model = KCAN(data, num_neighbours=4, dropout=0.3, batch_size=8).double()
        batch = next(iter(model.batches(0, torch.Generator().manual_seed(2))))
        total = torch.stack(list(model.pair_loss(batch).values())).sum()
        total.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        with torch.no_grad():
            ranked = model.eval().score(torch.tensor([4]))
        results.append((total.detach(), ranked, gradients))
    torch.testing.assert_close(results[0], results[1])


def test_edges_of_weight_zero_are_no_edges() -> None:
    data = tiny_kg()
    model = make(data, variant="n")
    types = model.knowledge_types()
    sizes = {kind: model.graph_inputs.graph[kind].edge_index.shape[1] for kind in types}
    ones = {kind: torch.ones(size, dtype=torch.float64) for kind, size in sizes.items()}
    users = torch.arange(8)
    torch.testing.assert_close(model.score(users, edge_weight=ones), model.score(users))
    kind = ("item", "related", "entity")
    weight = ones[kind].clone()
    weight[3] = 0
    smaller = make(data.without({kind: data.tables[kind].edge_id[3:4]}), variant="n")
    state = {name: value for name, value in model.state_dict().items() if name != "attention"}
    smaller.load_state_dict(state, strict=False)
    refreshed(smaller, 1)
    torch.testing.assert_close(model.score(users, edge_weight={kind: weight}), smaller.score(users))


def test_edge_weights_act_in_the_local_layer_and_have_gradients() -> None:
    model = make()
    target = model.graph_inputs.target
    size = model.graph_inputs.graph[target].edge_index.shape[1]
    weight = torch.ones(size, dtype=torch.float64, requires_grad=True)
    users = torch.arange(3)
    found = model.score(users, edge_weight={target: weight})
    torch.testing.assert_close(found, model.score(users))
    (gradient,) = torch.autograd.grad(found.sum(), weight)
    step = torch.zeros(size, dtype=torch.float64)
    step[4] = 1e-6
    with torch.no_grad():
        ends = [model.score(users, edge_weight=weight + sign * step).sum() for sign in (1, -1)]
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-6, gradient[4], rtol=1e-4, atol=1e-8)


def test_a_ranking_rescores_candidates_and_keeps_the_others_below_in_order() -> None:
    data = planted_kg()
    model = trained(KCAN(data, rerank=20, num_neighbours=4, batch_size=256), 2)
    assert isinstance(model, KCAN)
    users = torch.arange(6)
    with torch.no_grad():
        found = model.score(users)
        exact = model.score(users, torch.arange(80).expand(6, 80))
        _, prepared = model._prepared(None)
        assert prepared is not None
        start = model.knowledge.nodes("user").start
        coarse = prepared.output[users + start] @ prepared.output[:80].T
    seen = model.graph_inputs.adjacency().contains(users[:, None], torch.arange(80)[None, :])
    for user in range(6):
        allowed = coarse[user].masked_fill(seen[user], -torch.inf)
        candidates = allowed.topk(20).indices
        torch.testing.assert_close(found[user, candidates], exact[user, candidates])
        others = torch.ones(80, dtype=torch.bool)
        others[candidates] = False
        assert found[user, others].max() < found[user, candidates].min()
        rest = torch.nonzero(others & ~seen[user])[:, 0]
        by_rank, by_global = (rest[given[user, rest].argsort(descending=True)] for given in (found, coarse))
        assert torch.equal(by_rank, by_global)
        assert found[user].unique().numel() == 80
        assert found[user, seen[user]].max() < found[user, rest].min()
    assert model.facts() == {"reranked_items": 20}


def test_published_evaluation_by_exact_scores() -> None:
    data = planted_kg()
    model = trained(KCAN(data, rerank=None, num_neighbours=4, batch_size=256), 3)
    with pytest.warns(UserWarning, match="drawn negatives"):
        found = evaluate(model, data, ks=(10,), sampled_negatives=30)
    assert 0 < found["ndcg@10"] <= 1


def test_triples_are_corrupted_among_items_and_entities_and_never_known() -> None:
    data = planted_kg()
    model = KCAN(data)
    batches = list(model.triple_batches(0, randomness.generator(0, "x")))
    graph = model.knowledge
    assert sum(map(len, batches)) == int((~graph.inverse).sum())
    known = set(stated_triples(data))
    for batch in batches:
        for h, r, t, other in zip(batch.heads, batch.relations, batch.tails, batch.negatives[:, 0], strict=True):
            assert (int(h), int(r), int(t)) in known
            assert (int(h), int(r), int(other)) not in known
            assert int(other) < graph.nodes("user").start


class Fails(Callback):
    """Breaks a training off at the start of its third epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("broken off")


def test_a_broken_training_resumes_exactly_and_its_run_loads(tmp_path: Path) -> None:
    data = planted_kg()
    hparams: dict[str, Any] = {"num_neighbours": 4, "batch_size": 512, "dropout": 0.1}
    options: dict[str, Any] = {"epochs": 4, "progress": False, "report": False}
    whole = KCAN(data, **hparams)
    fit(whole, data, out=tmp_path / "whole", **options)
    out = tmp_path / "broken"
    with pytest.raises(RuntimeError, match="broken off"):
        fit(KCAN(data, **hparams), data, out=out, checkpoint_every=1, callbacks=[Fails()], **options)
    resumed = KCAN(data, **hparams)
    run = fit(resumed, data, out=out, resume=True, **options)
    assert torch.equal(scores(resumed), scores(whole))
    assert torch.equal(scores(Run(run.path).model()), scores(whole))


def test_bad_options_say_what_is_expected() -> None:
    data = tiny_kg()
    with pytest.raises(InputError, match="variant"):
        KCAN(data, variant="x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rerank must be a positive whole number"):
        KCAN(data, rerank=0)
    with pytest.raises(InputError, match="dropout"):
        KCAN(data, dropout=1.0)
    with pytest.raises(InputError, match="depend on the target"):
        KCAN(data).encode()
    assert not KCAN.encodes()


def test_refresh_is_a_phase_without_parameters() -> None:
    model = make()
    names = [(phase.name, bool(phase.parameters)) for phase in model.phases()]
    assert names == [("triples", True), ("pairs", True), ("refresh", False)]
    (batch,) = model.phases()[2].batches(0, torch.Generator())
    assert isinstance(batch, Batch)
    assert len(batch) == 0


def test_an_evaluation_of_pairs_is_exact_however_few_are_re_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    data = planted_kg()
    few, every = make(data, rerank=1), make(data, rerank=None)
    every.load_state_dict(few.state_dict())
    asked = []
    scores = KCAN._pair_scores

    def counted(self: KCAN, prepared: PreparedNodes, users: Tensor, items: Tensor) -> Tensor:
        asked.append(items.numel())
        return scores(self, prepared, users, items)

    monkeypatch.setattr(KCAN, "_pair_scores", counted)
    found = []
    for model in (few, every):
        asked.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found.append(evaluate(model.eval(), data, ks=(1, 5), sampled_negatives=20))
        assert 0 < sum(asked) <= len(found[-1].protocol.users) * (20 + int(found[-1].protocol.truth.counts().max()))
    assert dict(found[0]) == dict(found[1])
    assert torch.equal(found[0].lists, found[1].lists)


@pytest.mark.parametrize("name", sorted(KCAN.presets))
def test_presets_are_settings_of_the_model(name: str) -> None:
    model = make(**KCAN.presets[name].model)
    assert torch.isfinite(model.score(torch.arange(3))).all()
