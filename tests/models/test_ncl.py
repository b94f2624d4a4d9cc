"""NCL against a slow loop written from its equations, and what its clusters have to be."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graphrec import fit, randomness
from graphrec.errors import InputError
from graphrec.models import NCL, LightGCN
from graphrec.models.base import PairBatch
from graphrec.models.deletion import without_edges
from tests.models.conformance import ModelConformance, trained
from tests.models.planted import planted
from tests.models.slow_propagation import (
    combined,
    cosine,
    edges_of,
    first_batch,
    log_sigmoid,
    slow_info_nce,
    slow_layers,
    total_loss,
)

SMALL = {
    "dim": 16,
    "lr": 1e-2,
    "batch_size": 256,
    "structure_weight": 1e-5,
    "prototype_weight": 1e-5,
    "num_clusters": 8,
    "warm_up": 3,
}


class TestNCL(ModelConformance):
    model_class = NCL
    hparams = SMALL
    epochs = 10


def tiny(**options: Any) -> NCL:
    data = planted(18, 12, groups=2, per_user=6)
    defaults = {"dim": 4, "num_layers": 3, "num_clusters": 4, "structure_weight": 1e-3, "prototype_weight": 2e-3}
    more = {"item_share": 1.5, "batch_size": 50, "temperature": 0.3, "reg": 0.01, "seed": 3}
    model = NCL(data, **{**defaults, **more, **options}).double()
    model.clusters = model.find_clusters(7)
    return model


def slow_loss(model: NCL, batch: PairBatch, weight: list[float] | None = None) -> Tensor:
    layers = slow_layers(model, max(model.num_layers, model.context_layer), weight)
    final = combined(layers[: model.num_layers + 1], [1 / (model.num_layers + 1)] * (model.num_layers + 1))
    tables = [list(model.user_embedding), list(model.item_embedding)]

    def structure(side: int, node: int) -> Tensor:
        return slow_info_nce(
            layers[model.context_layer][side][node], tables[side][node], tables[side], model.temperature
        )

    def prototype(side: int, node: int) -> Tensor:
        assert model.clusters is not None
        centroids = list(model.clusters[side].centroids)
        gaps = [(tables[side][node] - centroid).square().sum().item() for centroid in centroids]
        own = centroids[gaps.index(min(gaps))]
        return slow_info_nce(tables[side][node], own, centroids, model.temperature)

    total, squares = torch.zeros(()).double(), [torch.zeros(()).double()] * 3
    for number in range(len(batch)):
        amount = batch.weight[number]
        user, item, negative = (int(x[number]) for x in (batch.users, batch.items, batch.negatives[:, 0]))
        gap = final[0][user] @ final[1][item] - final[0][user] @ final[1][negative]
        pair = model.structure_weight * (structure(0, user) + model.item_share * structure(1, item))
        if model.clusters is not None:
            pair = pair + model.prototype_weight * (prototype(0, user) + prototype(1, item))
        total = total + amount * (-log_sigmoid(gap) + model.batch_size * pair)
        rows = tables[0][user], tables[1][item], tables[1][negative]
        squares = [one + (amount * row).square().sum() for one, row in zip(squares, rows, strict=True)]
    return (total + model.reg * sum(one.sqrt() for one in squares)) / len(batch)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("layers", "context"), [(3, 2), (1, 2), (2, 4)])
def test_loss_and_gradients_equal_the_slow_loop(layers: int, context: int, weighted: bool) -> None:
    model = tiny(num_layers=layers, context_layer=context)
    batch = first_batch(model)
    weight = torch.linspace(0.2, 1.4, len(edges_of(model)), dtype=torch.float64) if weighted else None
    parameters = list(model.parameters())
    found = total_loss(model, batch, weight)
    expected = slow_loss(model, batch, None if weight is None else weight.tolist())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))


def test_before_clusters_are_found_there_are_no_prototypes() -> None:
    model = tiny()
    model.clusters = None
    batch = first_batch(model)
    assert set(model.pair_loss(batch)) == {"rank", "reg", "structure"}
    torch.testing.assert_close(total_loss(model, batch), slow_loss(model, batch))


def test_scores_equal_the_slow_loop() -> None:
    model = tiny()
    users, items = combined(slow_layers(model, 3), [0.25] * 4)
    torch.testing.assert_close(model.score(torch.arange(18)), torch.stack(users) @ torch.stack(items).T)


def test_a_nodes_prototype_is_its_nearest_centroid_and_need_not_be_by_cosine() -> None:
    model = tiny(num_clusters=6)
    with torch.no_grad():
        model.user_embedding.mul_(torch.linspace(0.01, 3, 18, dtype=torch.float64)[:, None])
    found = model.find_clusters(3)
    differ = 0
    for table, one in zip((model.user_embedding, model.item_embedding), found, strict=True):
        nearest = torch.cdist(table, one.centroids).argmin(1)
        assert torch.equal(one.assignment, nearest)
        closest = torch.stack([torch.stack([cosine(row, c) for c in one.centroids]).argmax() for row in table])
        differ += int((closest != nearest).sum())
    assert differ > 0


def test_one_cluster_gives_a_prototype_loss_of_zero() -> None:
    model = tiny(num_clusters=1)
    assert abs(model.pair_loss(first_batch(model))["prototype"].item()) < 1e-12


def test_weights_of_zero_are_lightgcn() -> None:
    data = planted()
    options: dict[str, Any] = {"dim": 8, "positives": "edge", "init": "xavier", "batch_size": 256, "reg": 0.0}
    plain = trained(LightGCN(data, **options), 2)
    model = NCL(data, structure_weight=0.0, prototype_weight=0.0, **options)
    assert [phase.name for phase in model.phases()] == ["pairs"]
    users = torch.arange(10)
    torch.testing.assert_close(trained(model, 2).score(users), plain.score(users))


def test_clusters_are_found_before_each_epoch_from_the_warm_up_on() -> None:
    model = tiny(warm_up=2)
    clusters, _ = model.phases()
    assert not clusters.parameters
    seen = []
    for epoch in (0, 1, 2, 3, 2, 0):
        for batch in clusters.batches(epoch, randomness.generator(0, "batches/clusters", epoch)):
            assert clusters.loss(batch) == {}
        seen.append(model.clusters)
    assert [found is None for found in seen] == [True, True, False, False, False, True]
    assert torch.equal(seen[2][0].centroids, seen[4][0].centroids)
    assert not torch.equal(seen[2][0].centroids, seen[3][0].centroids)


def test_more_clusters_than_nodes_are_as_many_as_nodes() -> None:
    users, items = tiny(num_clusters=1000).find_clusters(0)
    assert (len(users.centroids), len(items.centroids)) == (18, 12)


def test_the_only_parameters_are_the_two_tables() -> None:
    assert {name for name, _ in tiny().named_parameters()} == {"user_embedding", "item_embedding"}


def test_an_edge_of_weight_zero_is_as_good_as_deleted() -> None:
    model = tiny()
    removed = torch.tensor([4, 17])
    store = model.graph_inputs.graph[model.graph_inputs.target]
    weight = torch.ones(len(edges_of(model)), dtype=torch.float64)
    weight[removed] = 0
    less = without_edges(model, {model.graph_inputs.target: store.edge_id[removed]}).double()
    assert less.clusters is None
    less.clusters = less.find_clusters(7)  # of the same tables, so the same
    batch = first_batch(model)
    torch.testing.assert_close(total_loss(model, batch, weight), total_loss(less, batch))
    users = torch.arange(18)
    torch.testing.assert_close(model.score(users, edge_weight=weight), less.score(users))


def test_the_loss_is_differentiable_in_edge_weights() -> None:
    model = tiny()
    batch = first_batch(model, 4)
    weight = torch.linspace(0.5, 1.5, len(edges_of(model)), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: total_loss(model, batch, w), (weight,), fast_mode=True)


def test_shared_negatives_and_more_than_one_are_possible() -> None:
    data = planted()
    for options in ({"shared_negatives": True, "num_negatives": 30, "loss": "softmax"}, {"num_negatives": 3}):
        model = trained(NCL(data, **{**SMALL, "warm_up": 0}, **options), 1)
        assert torch.isfinite(model.score(torch.arange(5))).all()


def test_the_penalty_of_several_negatives_is_that_of_one_where_they_are_equal() -> None:
    model = tiny(structure_weight=0.0, prototype_weight=0.0)
    batch = first_batch(model)
    several = dataclasses.replace(batch, negatives=batch.negatives[:1, :1].expand(len(batch), 3))
    one = dataclasses.replace(batch, negatives=batch.negatives[:1, :1].expand(len(batch), 1))
    torch.testing.assert_close(model.pair_loss(several)["reg"], model.pair_loss(one)["reg"])
    shared = dataclasses.replace(batch, negatives=batch.negatives[:1, 0], shared=True, weight=torch.ones(len(batch)))
    one = dataclasses.replace(one, weight=torch.ones(len(batch)))
    torch.testing.assert_close(model.pair_loss(shared)["reg"], model.pair_loss(one)["reg"])


def test_a_resumed_training_ends_where_it_would_have(tmp_path: Path) -> None:
    data = planted()
    options: dict[str, Any] = {"progress": False, "select_on": None, "checkpoint_every": 1, "checkpoint_seconds": None}

    def make() -> NCL:
        return NCL(data, **{**SMALL, "warm_up": 1})

    whole, broken, resumed = make(), make(), make()
    fit(whole, data, epochs=4, out=tmp_path / "whole", **options)

    class StopError(Exception):
        pass

    found, count = broken.find_clusters, 0

    def find(seed: int) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise StopError
        return found(seed)

    broken.find_clusters = find  # type: ignore[method-assign]
    with pytest.raises(StopError):
        fit(broken, data, epochs=4, out=tmp_path / "broken", **options)
    fit(resumed, data, epochs=4, out=tmp_path / "broken", resume=True, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_clusters_move_with_the_model() -> None:
    model = NCL(planted(), **{**SMALL, "num_clusters": 5})
    model.clusters = model.find_clusters(0)
    batch = dataclasses.replace(first_batch(model), weight=torch.ones(20))
    wide = copy.deepcopy(model).double()
    assert wide.clusters is not None
    assert wide.clusters[0].centroids.dtype == torch.float64
    torch.testing.assert_close(total_loss(wide, batch).float(), total_loss(model, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", NCL.presets)
def test_presets_are_options(preset: str) -> None:
    data, given = planted(), NCL.presets[preset]
    model = NCL(data, **{**given.model, "dim": 8, "warm_up": 0})
    run = fit(model, data, progress=False, select_on=None, **{**given.fit, "epochs": 1, "patience": None})
    assert {"pairs/rank", "pairs/reg", "pairs/structure", "pairs/prototype"} <= set(run.history.columns)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_layers": 0},
        {"context_layer": 0},
        {"num_clusters": 0},
        {"warm_up": -1},
        {"temperature": 0.0},
        {"structure_weight": -1.0},
        {"prototype_weight": -1.0},
        {"item_share": -1.0},
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        NCL(planted(), **wrong)
