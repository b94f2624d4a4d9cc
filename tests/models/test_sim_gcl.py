"""SimGCL and XSimGCL against a slow loop written from their equations, and what noise and weights may do."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graphrec import fit
from graphrec.errors import InputError
from graphrec.layers.noise import Noise
from graphrec.models import LightGCN, SimGCL, XSimGCL
from graphrec.models.base import PairBatch
from graphrec.models.deletion import without_edges
from tests.models.conformance import ModelConformance, trained
from tests.models.planted import planted
from tests.models.slow_propagation import (
    Rows,
    combined,
    edges_of,
    first_batch,
    log_sigmoid,
    slow_info_nce,
    slow_layers,
    total_loss,
)

# Forty users of one taste are each other's false negatives in the planted data: λ₁ has to be small there.
SMALL = {"dim": 16, "lr": 1e-2, "batch_size": 256, "contrast_weight": 0.02, "temperature": 0.5}
BOTH = (SimGCL, XSimGCL)


class TestSimGCL(ModelConformance):
    model_class = SimGCL
    hparams = {**SMALL, "num_layers": 2}
    epochs = 10


class TestXSimGCL(ModelConformance):
    model_class = XSimGCL
    hparams = SMALL
    epochs = 10


def tiny(kind: type[SimGCL], **options: Any) -> SimGCL:
    data = planted(18, 12, groups=2, per_user=6)
    return kind(data, **{"dim": 4, "num_layers": 2, "reg": 0.01, "seed": 3, **options}).double().train()


def slow_noisy(model: SimGCL, noise: Noise | None, weight: list[float] | None) -> list[tuple[Rows, Rows]]:
    """Layers with noise; what is added stands on the layer's signs, and is of the given length."""

    def changed(rows: Rows, layer: int, side: int) -> Rows:
        if noise is None:
            return rows
        before = torch.stack(rows)
        added = (noise.added(before, layer, side) - before).detach()
        assert (added * before >= 0).all()
        torch.testing.assert_close(
            added.norm(dim=1), torch.full((len(rows),), model.noise, dtype=torch.float64) * (before != 0).any(1)
        )
        return [row + more for row, more in zip(rows, added, strict=True)]

    return slow_layers(model, model.num_layers, weight, changed)


def slow_contrast(model: SimGCL, batch: PairBatch, first: tuple[Rows, Rows], second: tuple[Rows, Rows]) -> Tensor:
    total = torch.zeros(()).double()
    for side, nodes in enumerate((batch.users.tolist(), batch.items.tolist())):
        counted: dict[int, float] = {}
        for node, weight in zip(nodes, batch.weight.tolist(), strict=True):
            if weight > 0:
                counted[node] = max(weight, counted.get(node, 0.0))
        others = [second[side][node] for node in counted]
        terms = [
            weight * slow_info_nce(first[side][node], second[side][node], others, model.temperature)
            for node, weight in counted.items()
        ]
        total = total + torch.stack(terms).sum() / sum(counted.values())
    return model.contrast_weight * batch.weight.mean() * total


def slow_loss(model: SimGCL, batch: PairBatch, weight: list[float] | None = None) -> Tensor:
    scales = [0.0] + [1 / model.num_layers] * model.num_layers
    stream = torch.Generator().manual_seed(1)
    noisy = [
        slow_noisy(model, Noise.drawn(stream, model.noise) if model.training else None, weight)
        for _ in range(1 if isinstance(model, XSimGCL) else 2)
    ]
    if isinstance(model, XSimGCL):
        ranked = first = combined(noisy[0], scales)
        second = noisy[0][model.contrast_layer]
    else:
        ranked = combined(slow_layers(model, model.num_layers, weight), scales)
        first, second = (combined(layers, scales) for layers in noisy)
    total = slow_contrast(model, batch, first, second) * len(batch)
    squares = [torch.zeros(()).double(), torch.zeros(()).double()]
    for number in range(len(batch)):
        user, item, amount = int(batch.users[number]), int(batch.items[number]), batch.weight[number]
        negative = int(batch.negatives[number, 0])
        gap = ranked[0][user] @ ranked[1][item] - ranked[0][user] @ ranked[1][negative]
        total = total - amount * log_sigmoid(gap)
        squares[0] = squares[0] + (amount * ranked[0][user]).square().sum()
        squares[1] = squares[1] + (amount * ranked[1][item]).square().sum()
    return (total + model.reg * (squares[0].sqrt() + squares[1].sqrt())) / len(batch)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", BOTH)
def test_loss_and_gradients_equal_the_slow_loop(kind: type[SimGCL], weighted: bool) -> None:
    model = tiny(kind)
    batch = first_batch(model)
    weight = torch.linspace(0.2, 1.4, len(edges_of(model)), dtype=torch.float64) if weighted else None
    parameters = list(model.parameters())
    found = total_loss(model, batch, weight)
    expected = slow_loss(model, batch, None if weight is None else weight.tolist())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_any_layer_may_be_contrasted(layer: int) -> None:
    model = tiny(XSimGCL, num_layers=3, contrast_layer=layer)
    batch = first_batch(model)
    torch.testing.assert_close(total_loss(model, batch), slow_loss(model, batch))


@pytest.mark.parametrize("kind", BOTH)
def test_scores_equal_the_slow_loop(kind: type[SimGCL]) -> None:
    model = tiny(kind)
    users, items = combined(slow_layers(model, 2), [0.0, 0.5, 0.5])
    expected = torch.stack(users) @ torch.stack(items).T
    torch.testing.assert_close(model.score(torch.arange(18)), expected)


@pytest.mark.parametrize("kind", BOTH)
def test_the_only_parameters_are_the_two_tables(kind: type[SimGCL]) -> None:
    model = tiny(kind)
    assert {name for name, _ in model.named_parameters()} == {"user_embedding", "item_embedding"}
    assert dict(model.row_parameters) == {"user_embedding": "user", "item_embedding": "item"}


@pytest.mark.parametrize("kind", BOTH)
def test_an_edge_of_weight_zero_is_as_good_as_deleted(kind: type[SimGCL]) -> None:
    model = tiny(kind)
    removed = torch.tensor([4, 17])
    store = model.graph_inputs.graph[model.graph_inputs.target]
    weight = torch.ones(len(edges_of(model)), dtype=torch.float64)
    weight[removed] = 0
    less = without_edges(model, {model.graph_inputs.target: store.edge_id[removed]}).double().train()
    batch = first_batch(model)
    torch.testing.assert_close(total_loss(model, batch, weight), total_loss(less, batch))
    users = torch.arange(18)
    torch.testing.assert_close(model.score(users, edge_weight=weight), less.score(users))


@pytest.mark.parametrize("kind", BOTH)
def test_examples_of_weight_zero_are_as_good_as_not_drawn(kind: type[SimGCL]) -> None:
    model = tiny(kind)
    batch = first_batch(model, weighted=False)
    weight = (torch.arange(len(batch)) % 3 > 0).double()
    some = weight > 0
    fewer = dataclasses.replace(batch._map(lambda x: x[some]), generator=batch.generator)
    found = total_loss(model, dataclasses.replace(batch, weight=weight))
    torch.testing.assert_close(found * len(batch), total_loss(model, fewer) * len(fewer))


@pytest.mark.parametrize("kind", BOTH)
def test_the_loss_is_differentiable_in_edge_weights(kind: type[SimGCL]) -> None:
    model = tiny(kind)
    batch = first_batch(model, 4)
    weight = torch.linspace(0.5, 1.5, len(edges_of(model)), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: total_loss(model, batch, w), (weight,), fast_mode=True)


def test_without_noise_the_views_are_equal() -> None:
    for model in (tiny(SimGCL, noise=0.0), tiny(SimGCL).eval()):
        batch = first_batch(model)
        assert model.drawn_noise(batch) is None
        encoded = model.encode()
        expected = torch.zeros(()).double()
        kept = batch.weight > 0
        for rows, nodes in ((encoded.users, batch.users), (encoded.items, batch.items)):
            distinct = nodes[kept].unique()
            unit = torch.nn.functional.normalize(rows[distinct])
            terms = torch.logsumexp((unit @ unit.T - 1) / model.temperature, 1)
            weight = torch.stack([batch.weight[nodes == node].max() for node in distinct])
            expected = expected + (weight * terms).sum() / weight.sum()
        torch.testing.assert_close(model.contrast(batch), expected)


def test_the_last_layer_of_one_is_the_final_one() -> None:
    """With one layer and l* = K, XSimGCL contrasts a tensor with itself."""
    model = tiny(XSimGCL, num_layers=1)
    batch = first_batch(model)
    final, inner = model.noisy_rows(batch.users, batch.items, model.drawn_noise(batch), layer=1)
    torch.testing.assert_close(final, inner)


@pytest.mark.parametrize("kind", BOTH)
def test_noise_is_drawn_for_each_step_and_only_in_training(kind: type[SimGCL]) -> None:
    model = tiny(kind)
    batch = first_batch(model)
    first, second = (sum(model.pair_loss(batch).values()) for _ in range(2))
    assert first != second
    assert total_loss(model, batch) == total_loss(model, batch)
    model.eval()
    first, second = (sum(model.pair_loss(batch).values()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", BOTH)
def test_noise_of_a_node_rests_on_no_edge(kind: type[SimGCL]) -> None:
    data = planted()
    model, less = kind(data, dim=8), kind(data.without(data.pairs("train").edge_id[:40]), dim=8)
    batch = first_batch(model)
    x = torch.randn(model.num_users, 8)
    moved = [
        one.train().drawn_noise(dataclasses.replace(batch, generator=torch.Generator().manual_seed(5))).added(x, 1, 0)
        for one in (model, less)
    ]
    assert torch.equal(moved[0], moved[1])


def test_without_contrast_it_is_lightgcn_without_the_first_layer() -> None:
    data = planted()
    options: dict[str, Any] = {"dim": 8, "positives": "edge", "init": "xavier", "batch_size": 256, "reg": 0.0}
    plain = trained(LightGCN(data, layer_weights="without_ego", **options), 2)
    model = trained(SimGCL(data, contrast_weight=0.0, **options), 2)
    users = torch.arange(10)
    torch.testing.assert_close(model.score(users), plain.score(users))


def test_shared_negatives_and_more_than_one_are_possible() -> None:
    data = planted()
    for options in ({"shared_negatives": True, "num_negatives": 30, "loss": "softmax"}, {"num_negatives": 3}):
        model = trained(XSimGCL(data, **SMALL, **options), 1)
        assert torch.isfinite(model.score(torch.arange(5))).all()


@pytest.mark.parametrize("kind", BOTH)
def test_a_resumed_training_ends_where_it_would_have(kind: type[SimGCL], tmp_path: Path) -> None:
    data = planted()
    options: dict[str, Any] = {"progress": False, "select_on": None, "checkpoint_every": 1, "checkpoint_seconds": None}

    def make() -> SimGCL:
        return kind(data, dim=8, batch_size=256, lr=1e-2)

    whole, broken, resumed = make(), make(), make()
    fit(whole, data, epochs=4, out=tmp_path / "whole", **options)

    class StopError(Exception):
        pass

    drawn, count = broken.batches, 0

    def draw(epoch: int, generator: torch.Generator) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise StopError
        return drawn(epoch, generator)

    broken.batches = draw  # type: ignore[method-assign]
    with pytest.raises(StopError):
        fit(broken, data, epochs=4, out=tmp_path / "broken", **options)
    fit(resumed, data, epochs=4, out=tmp_path / "broken", resume=True, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("kind", BOTH)
def test_it_can_be_copied_and_moved_to_another_type(kind: type[SimGCL]) -> None:
    model = kind(planted(), dim=4).eval()
    batch = dataclasses.replace(first_batch(model), weight=torch.ones(20))
    wide = copy.deepcopy(model).double()
    torch.testing.assert_close(total_loss(wide, batch).float(), total_loss(model, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", BOTH)
def test_presets_are_options(kind: type[SimGCL]) -> None:
    data = planted()
    for preset in kind.presets.values():
        run = fit(kind(data, **{**preset.model, "dim": 8}), data, progress=False, **{**preset.fit, "epochs": 1})
        assert {"pairs/rank", "pairs/reg", "pairs/contrast"} <= set(run.history.columns)


@pytest.mark.parametrize("wrong", [{"num_layers": 0}, {"noise": -0.1}, {"temperature": 0.0}, {"contrast_weight": -1.0}])
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        SimGCL(planted(), **wrong)


@pytest.mark.parametrize("layer", [0, 4])
def test_a_wrong_contrast_layer_is_named(layer: int) -> None:
    with pytest.raises(InputError, match="contrast_layer"):
        XSimGCL(planted(), contrast_layer=layer)
