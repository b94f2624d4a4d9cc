"""DiffKG: the conformance suite, its encoder and losses against loops over triples, and what its paper implies."""

from __future__ import annotations

import math
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import graphrec
from graphrec import randomness
from graphrec.errors import InputError
from graphrec.layers.dropout import kept_entries
from graphrec.layers.relational import row_sums
from graphrec.models import DiffKG, GraphRecommender, LightGCN
from graphrec.models.base import EdgeWeight
from graphrec.models.diffkg_pruning import RowBatch
from graphrec.models.diffkg_views import NodeScores, shares
from graphrec.training import Interrupted
from tests.models.conformance import KnowledgeConformance, trained
from tests.models.planted_kg import planted_kg, tiny_kg

SMALL: dict[str, Any] = {"dim": 16, "hidden": 24, "lr": 1e-2, "diffusion_lr": 1e-2, "batch_size": 256}


class TestDiffKG(KnowledgeConformance):
    model_class = DiffKG
    hparams = SMALL
    epochs = 12


class TestDiffKGWithThePrunedGraphAsMain(TestDiffKG):
    hparams: ClassVar[dict[str, Any]] = {
        **SMALL,
        "main": "pruned",
        "kg_layers": 2,
        "residual": 1.0,
        "rebuild_k": 2,
        "rows": "items",
        "candidates": "stored",
        "guidance": 0.1,
        "nominal_divisor": True,
    }

    def permuted_state(
        self, model: GraphRecommender, permuted: GraphRecommender, order: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """What was kept follows the edges: they lie elsewhere under other ids."""
        assert isinstance(model, DiffKG)
        assert isinstance(permuted, DiffKG)
        state = super().permuted_state(model, permuted, order)
        place = torch.cat([order["item"], model.num_items + order["entity"]])
        known = {pair: number for number, pair in enumerate(pairs(permuted))}
        moved = [known[place[head].item(), place[tail].item()] for head, tail in pairs(model)]  # type: ignore[index]
        state["rebuilt"] = torch.empty_like(model.rebuilt).index_copy_(0, torch.tensor(moved), model.rebuilt)
        return state


def pairs(model: DiffKG) -> list[tuple[int, int]]:
    """(head, tail) of each edge of the whole graph."""
    return list(zip(model.knowledge.heads().tolist(), model.knowledge.tails().tolist(), strict=True))


def facts_of(model: DiffKG) -> dict[tuple[int, int], int]:
    """The relation of each ordered pair of nodes, items before other entities, read triple by triple."""
    graph, first = model.graph_inputs.graph, {"item": 0, "entity": model.num_items}
    stated = []
    for kind in graph.edge_types:
        if kind == model.graph_inputs.target:
            continue
        for (head, tail), relation in zip(
            graph[kind].edge_index.T.tolist(), graph[kind].relation.tolist(), strict=True
        ):
            stated.append((first[kind[0]] + head, relation, first[kind[2]] + tail))
    found: dict[tuple[int, int], int] = {}
    for head, relation, tail in sorted(stated):
        found.setdefault((head, tail), relation)
    for head, relation, tail in sorted((t, r, h) for h, r, t in stated):
        found.setdefault((head, tail), relation + model.knowledge.num_relations // 2)
    return found


def slow_encoder(model: DiffKG, facts: dict[tuple[int, int], int]) -> tuple[Tensor, Tensor]:
    """F(G) node by node and neighbour by neighbour, without dropout."""
    assert model.entity_embedding is not None
    x = list(torch.cat([model.item_embedding, model.entity_embedding]))
    kept = x[: model.num_items]
    tails = defaultdict(list)
    for (head, tail), relation in facts.items():
        tails[head].append((tail, relation))
    for _ in range(model.kg_layers):
        rows = []
        for head in range(len(x)):
            total, logits = x[head], []
            for tail, relation in tails[head]:
                logit = torch.cat([x[head], x[tail]]) @ model.attention_weight @ model.relation_embedding[relation]
                logits.append(logit if logit > 0 else 0.2 * logit)
            scale = sum(torch.exp(logit) for logit in logits)
            for (tail, _), logit in zip(tails[head], logits, strict=True):
                total = total + torch.exp(logit) / scale * x[tail]
            rows.append(total / total.norm())
        x = rows
        kept = [model.residual * old + new for old, new in zip(kept, x, strict=False)]
    users = list(model.user_embedding)
    edges = model.graph_inputs.graph[model.graph_inputs.target].edge_index.T.tolist()
    size = len(users) + model.num_items
    near: list[list[int]] = [[node] for node in range(size)]
    for user, item in edges:
        near[user].append(len(users) + item)
        near[len(users) + item].append(user)
    layer, total = users + kept, users + kept
    for _ in range(model.num_layers):
        layer = [
            torch.stack([layer[b] / math.sqrt(len(near[a]) * len(near[b])) for b in near[a]]).sum(0)
            for a in range(size)
        ]
        total = [old + new for old, new in zip(total, layer, strict=True)]
    return torch.stack(total[: len(users)]), torch.stack(total[len(users) :])


def slow_nce(anchors: Tensor, candidates: Tensor, nodes: list[int], temperature: float) -> Tensor:
    terms = []
    for node in nodes:
        scores = [anchors[node] @ other / (anchors[node].norm() * other.norm()) / temperature for other in candidates]
        terms.append(-torch.log(torch.exp(scores[node]) / sum(torch.exp(score) for score in scores)))
    return torch.stack(terms).mean()


def tiny(**hparams: Any) -> DiffKG:
    options = {"dim": 5, "hidden": 7, "batch_size": 10, "temperature": 0.4, "reg": 0.01, **hparams}
    return DiffKG(tiny_kg(), **options).double().eval()


def prune(model: DiffKG) -> dict[tuple[int, int], int]:
    """Keep a random half of the edges; the facts that are left."""
    kept = torch.rand(len(model.knowledge), generator=randomness.generator(0, "kept")) < 0.5
    model.rebuilt.copy_(kept)
    return {pair: facts_of(model)[pair] for pair, keep in zip(pairs(model), kept.tolist(), strict=True) if keep}


@pytest.mark.parametrize(
    "hparams",
    [
        {"kg_layers": 1},
        {"kg_layers": 2, "residual": 0.7, "main": "pruned", "contrast_weight": 0.5},
        {"kg_layers": 3, "residual": 0.0, "num_layers": 1, "nominal_divisor": True},
        {"kg_layers": 0, "num_layers": 3, "num_negatives": 2},
        {"kg_layers": 2, "contrast_weight": 0.0, "num_layers": 0},
    ],
)
def test_scores_and_gradients_equal_a_loop_over_triples(hparams: dict[str, Any]) -> None:
    model = tiny(**hparams)
    graphs = {"original": facts_of(model), "pruned": prune(model)}
    assert set(pairs(model)) == set(graphs["original"])
    assert [graphs["original"][pair] for pair in pairs(model)] == model.knowledge.relation.tolist()
    other_name = "pruned" if model.main == "original" else "original"
    main, other = (slow_encoder(model, graphs[name]) for name in (model.main, other_name))
    encoded = model.encode()
    torch.testing.assert_close(encoded.users, main[0])
    torch.testing.assert_close(encoded.items, main[1])

    batch = list(model.batches(0, randomness.generator(0, "pairs")))[-1]
    assert len(batch) == 4  # 24 edges in batches of 10
    found = model.pair_loss(batch)
    users, items = batch.users.tolist(), batch.items.tolist()
    rank = torch.zeros((), dtype=torch.float64)
    for user, item, negatives in zip(users, items, batch.negatives.tolist(), strict=True):
        for negative in negatives:
            margin = main[0][user] @ main[1][item] - main[0][user] @ main[1][negative]
            rank = rank - torch.log(torch.sigmoid(margin)) / len(negatives)
    rank = rank / (10 if model.nominal_divisor else 4)
    learnt = {name: p for name, p in model.named_parameters() if not name.startswith("denoiser.")}
    assert set(learnt) == {
        "user_embedding", "item_embedding", "entity_embedding", "relation_embedding", "attention_weight"
    }  # fmt: skip
    expected = {"rank": rank, "reg": 0.01 * sum(p.square().sum() for p in learnt.values())}
    if model.contrast_weight:
        contrast = slow_nce(other[1], main[1], items, 0.4) + slow_nce(other[0], main[0], users, 0.4)
        expected["contrast"] = model.contrast_weight * contrast
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    inputs = list(learnt.values())
    one = torch.autograd.grad(sum(found.values()), inputs)  # type: ignore[arg-type]
    two = torch.autograd.grad(sum(expected.values()), inputs)  # type: ignore[arg-type]
    for name, first, second in zip(learnt, one, two, strict=True):
        torch.testing.assert_close(first, second, msg=name)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_diffusion_loss_is_that_of_dense_rows_and_reaches_the_denoiser_alone(share: float) -> None:
    """Rows, guidance and targets against loops; noise and steps are those of the library's own tests."""
    model = tiny(guidance=share).train()
    facts, size = facts_of(model), model.knowledge.num_nodes
    batch = next(iter(model.row_batches(0, randomness.generator(0, "rows"))))
    assert sorted(batch.rows.tolist()) == list(range(size))
    clean = torch.zeros(size, size, dtype=torch.float64)
    for head, tail in facts:
        clean[head, tail] = 1.0
    found = model.diffusion_terms(batch)

    assert model.denoiser is not None
    draws = randomness.generator(0, "rows")
    torch.randperm(size, generator=draws)
    steps = torch.randint(5, (size,), generator=draws)
    noise = torch.empty(size, size, dtype=torch.float64).normal_(generator=draws)
    kept = kept_entries((size, size), 0.5, draws)
    left = model.schedule.alpha_bar[steps].unsqueeze(1)
    z = left.sqrt() * clean[batch.rows] + (1 - left).sqrt() * noise
    z = z / z.norm(dim=1, keepdim=True) * kept * 2
    hidden = torch.tanh(z @ model.denoiser.input_weight + model.denoiser.time_code(steps))
    predicted = hidden @ model.denoiser.output_weight.T + model.denoiser.output_bias
    errors = (clean[batch.rows] - predicted).square().mean(1) * model.schedule.loss_weights[steps]
    interactions = torch.zeros(model.num_users, model.num_items, dtype=torch.float64)
    users, items = model.graph_inputs.graph[model.graph_inputs.target].edge_index
    interactions[users, items] = 1.0
    guided = (interactions @ predicted[:, : model.num_items].T).T @ model.user_embedding
    nodes = torch.cat([model.item_embedding, model.entity_embedding])  # type: ignore[list-item]
    torch.testing.assert_close(found["elbo"], (1 - share) * errors.mean())
    if share:
        guide = (guided - nodes[batch.rows]).square().mean()
        torch.testing.assert_close(found["guide"], share * guide)
        errors = torch.stack([(1 - share) * errors.mean(), share * guide])
    else:
        assert set(found) == {"elbo"}
        errors = (1 - share) * errors.mean()
    sum(found.values()).backward()  # type: ignore[union-attr]
    assert model.user_embedding.grad is None
    assert model.item_embedding.grad is None
    theirs = torch.autograd.grad(errors.sum(), [model.denoiser.output_weight, model.denoiser.input_weight])
    torch.testing.assert_close(model.denoiser.output_weight.grad, theirs[0])
    torch.testing.assert_close(model.denoiser.input_weight.grad, theirs[1])


def test_attention_sums_to_one_and_a_node_without_edges_keeps_its_row() -> None:
    model = tiny(max_tails=2)
    x = model.node_table()
    for graph in (model.knowledge, model.original):
        scores = NodeScores.of(x, model.relation_embedding, model.attention_weight, len(graph))
        for logits in (scores.logits(graph, len(graph)), None):
            sums = row_sums(graph.adjacency, shares(graph.adjacency, logits, x))
            torch.testing.assert_close(sums, (graph.adjacency.degrees() > 0).double())
    assert int(model.original.adjacency.degrees().max()) == 2
    few = model.knowledge.adjacency.degrees() <= 2
    assert torch.equal(model.original.adjacency.degrees()[few], model.knowledge.adjacency.degrees()[few])
    lonely = int(torch.nonzero(model.knowledge.adjacency.degrees()[: model.num_items] == 0)[0])
    flat = tiny(residual=0.0, num_layers=0)
    row = flat.item_embedding[lonely]
    torch.testing.assert_close(flat.encode().items[lonely], row / row.norm())


def test_logits_are_the_same_from_tables_and_from_pairs() -> None:
    model = tiny()
    graph, inputs = model.knowledge, [*model.recommender_parameters()][1:]
    results = []
    for edges in (10**9, 0):
        scores = NodeScores.of(model.node_table(), model.relation_embedding, model.attention_weight, edges)
        assert scores.complete == bool(edges)
        found = scores.logits(graph, len(graph)), scores.logits(graph, 7)
        results.append([*found, *torch.autograd.grad(found[0].exp().sum() + found[1].sum(), inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("options", [{}, {"rows": "items", "rebuild_k": 2}, {"candidates": "stored"}])
def test_the_pruned_graph_is_part_of_the_graph(options: dict[str, Any]) -> None:
    model = DiffKG(planted_kg(), **{**SMALL, **options})
    trained(model, 6)
    facts, full = facts_of(model), model.pruned(thinned=False)
    found = dict(
        zip(zip(full.heads().tolist(), full.tails().tolist(), strict=True), full.relation.tolist(), strict=True)
    )
    assert 0 < len(found) < len(facts)
    assert found.items() <= facts.items()
    # The graph holds the inverse of every triple, so that what is kept is kept both ways.
    assert {(tail, head) for head, tail in found} == set(found)
    assert len(found) <= 2 * model.knowledge.num_nodes * model.rebuild_k
    if options.get("rows") == "items":
        assert all(min(pair) < model.num_items for pair in found)
    thin = model.pruned(thinned=True)
    assert {(h, t) for h, t in zip(thin.heads().tolist(), thin.tails().tolist(), strict=True)} < set(found)
    if options.get("candidates") == "stored":  # then each row with edges keeps one at least
        assert set(full.heads().tolist()) == set(model.knowledge.heads().tolist())


def test_without_pruning_and_dropout_the_views_are_one() -> None:
    model = tiny(pruning="random", keep_rate=1.0, contrast_weight=1.0, reg=0.0).train()
    model.message_dropout = 0.0
    assert model.denoiser is None
    one, two = model.views(["original", "pruned"])
    assert torch.equal(one.users, two.users)
    assert torch.equal(one.items, two.items)
    batch = next(iter(model.batches(0, randomness.generator(0, "pairs"))))
    expected = slow_nce(one.items, one.items, batch.items.tolist(), 0.4)
    expected = expected + slow_nce(one.users, one.users, batch.users.tolist(), 0.4)
    torch.testing.assert_close(model.pair_loss(batch)["contrast"], expected)
    assert [phase.name for phase in model.phases()] == ["rebuild", "pairs"]
    assert [phase.name for phase in tiny(contrast_weight=0.0).phases()] == ["pairs"]


def test_the_matrix_has_the_root_of_degrees_as_its_top_vector() -> None:
    model = tiny()
    block = model.matrix.to_dense(torch.float64)
    loops = torch.cat([model.user_loops, model.item_loops]).squeeze(1)
    dense = torch.diag(loops)
    dense[: model.num_users, model.num_users :] = block
    dense[model.num_users :, : model.num_users] = block.T
    users, items = model.graph_inputs.adjacency().degrees(0), model.graph_inputs.adjacency().degrees(1)
    root = (torch.cat([users, items]) + 1).double().sqrt()
    torch.testing.assert_close(dense @ root, root)
    assert float(torch.linalg.eigvalsh(dense).abs().max()) == pytest.approx(1.0)


def test_without_hops_it_is_lightgcn_with_loops_and_a_sum() -> None:
    model = tiny(kg_layers=0, num_layers=3)
    other = LightGCN(tiny_kg(), dim=5, num_layers=3, self_loops=True).double().eval()
    other.load_state_dict({name: model.state_dict()[name] for name in other.state_dict()})
    torch.testing.assert_close(model.encode().users, 4 * other.encode().users)
    torch.testing.assert_close(model.encode().items, 4 * other.encode().items)


def test_weights_of_edges_act_as_edges_do() -> None:
    data = tiny_kg()
    model = DiffKG(data, dim=5, hidden=7, kg_layers=2).double().eval()
    kinds = {kind: len(model.graph_inputs.graph[kind].edge_id) for kind in model.graph_inputs.graph.edge_types}
    ones: dict[Any, Tensor] = {kind: torch.ones(size, dtype=torch.float64) for kind, size in kinds.items()}
    users = torch.arange(model.num_users)
    torch.testing.assert_close(model.score(users, edge_weight=ones), model.score(users))
    for kind in kinds:
        gone = {**ones, kind: ones[kind].clone()}
        gone[kind][3 % kinds[kind]] = 0.0
        ids = model.graph_inputs.graph[kind].edge_id[3 % kinds[kind]].reshape(1)
        left = data.without({kind: ids.numpy()})
        other = DiffKG(left, dim=5, hidden=7, kg_layers=2).double().eval()
        own = {name: value for name, value in model.state_dict().items() if name not in ("rebuilt", "thinning")}
        other.load_state_dict(own, strict=False)
        torch.testing.assert_close(model.score(users, edge_weight=gone), other.score(users))

    def scores(*weights: Tensor) -> Tensor:
        given: EdgeWeight = dict(zip(kinds, weights, strict=True))
        return model.score(users[:2], edge_weight=given)

    assert torch.autograd.gradcheck(scores, [weight.clone().requires_grad_() for weight in ones.values()])


def test_a_broken_off_training_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pruned graph and how it is thinned are part of the state."""
    data, options = planted_kg(), {**SMALL, "main": "pruned", "thinned_scores": True}
    whole = graphrec.fit(DiffKG(data, **options), data, epochs=5, out=tmp_path / "whole", progress=False, report=False)

    seen, pair_loss = [0], DiffKG.pair_loss

    def halting(model: DiffKG, *arguments: Any, **keywords: Any) -> Any:
        seen[0] += 1
        if seen[0] == 14:  # in the middle of an epoch
            signal.raise_signal(signal.SIGINT)
        return pair_loss(model, *arguments, **keywords)

    broken: dict[str, Any] = {"epochs": 5, "out": tmp_path / "broken", "progress": False, "report": False}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(DiffKG, "pair_loss", halting)
        graphrec.fit(DiffKG(data, **options), data, checkpoint_every=1, **broken)
    run = graphrec.fit(DiffKG(data, **options), data, resume=True, **broken)
    assert seen[0] == 14
    assert run.metrics["recall@20"] == whole.metrics["recall@20"]
    one, two = (found.weights() for found in (run, whole))
    assert set(one) == set(two)
    assert {"rebuilt", "thinning"} <= set(one)
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


def test_rows_of_a_batch_are_shared_out_and_the_guide_is_not() -> None:
    model = tiny(row_batch_size=model_items())
    batch = next(iter(model.row_batches(0, randomness.generator(0, "rows"))))
    assert isinstance(batch, RowBatch)
    part = batch.shard(1, 2)
    assert torch.equal(part.rows, batch.rows[1::2])
    assert torch.equal(part.guide, batch.guide)


def model_items() -> int:
    """As many rows in a batch as there are items: the guide has a row for each item too."""
    return tiny().num_items


@pytest.mark.parametrize("name", sorted(DiffKG.presets))
def test_presets_are_settings_of_the_model(name: str) -> None:
    model = tiny(**DiffKG.presets[name].model)
    assert model.thinned_scores == (name != "music")  # a habit of the authors
    assert torch.isfinite(model.score(torch.arange(3))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"main": "both"}, "main"),
        ({"pruning": "none"}, "pruning"),
        ({"rows": "item"}, "Did you mean 'items'"),
        ({"candidates": "some"}, "candidates"),
        ({"attention": "max"}, "attention"),
        ({"kg_layers": -1}, "kg_layers"),
        ({"rebuild_k": 0}, "rebuild_k"),
        ({"max_tails": 0}, "max_tails"),
        ({"message_dropout": 1.0}, "message_dropout"),
        ({"keep_rate": 1.5}, "keep_rate"),
        ({"contrast_weight": -1.0}, "contrast_weight"),
        ({"noised_start": 6}, "noised_start"),
        ({"precision": "half"}, "precision"),
        ({"noise_scale": 0.0}, "variances"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny(**options)
