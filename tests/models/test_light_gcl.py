"""LightGCL against a slow loop written from its equations, and what its approximation has to be."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graphrec import fit
from graphrec.errors import InputError
from graphrec.models import LightGCL
from graphrec.models.base import PairBatch
from graphrec.models.deletion import without_edges
from tests.models.conformance import ModelConformance, trained
from tests.models.planted import planted
from tests.models.slow_propagation import combined, edges_of, first_batch, log_sigmoid, slow_layers, total_loss


class TestLightGCL(ModelConformance):
    model_class = LightGCL
    hparams = {"dim": 16, "lr": 1e-2, "batch_size": 256, "contrast_weight": 0.02, "temperature": 0.5}
    epochs = 10


def tiny(**options: Any) -> LightGCL:
    data = planted(18, 12, groups=2, per_user=6)
    return LightGCL(data, **{"dim": 4, "rank": 3, "reg": 0.01, "init_scale": 0.5, "seed": 3, **options}).double()


def dense_matrix(model: LightGCL, weight: list[float] | None = None) -> Tensor:
    matrix = torch.zeros(model.num_users, model.num_items, dtype=torch.float64)
    for number, edge in enumerate(edges_of(model)):
        matrix[edge] = 1.0 if weight is None else weight[number]
    roots = [torch.where(d > 0, d, 1.0).rsqrt() * (d > 0) for d in (matrix.sum(1), matrix.sum(0))]
    return roots[0][:, None] * matrix * roots[1]


def best_approximation(model: LightGCL, weight: list[float] | None = None) -> Tensor:
    """By numpy's decomposition."""
    left, values, right = np.linalg.svd(dense_matrix(model, weight).numpy(), full_matrices=False)
    return torch.tensor(left[:, : model.rank] * values[: model.rank] @ right[: model.rank])


def slow_loss(model: LightGCL, batch: PairBatch, weight: list[float] | None = None) -> Tensor:
    layers = slow_layers(model, model.num_layers, weight)
    final = combined(layers, [1.0] * (model.num_layers + 1))
    approximation = best_approximation(model, weight)
    seen = [list(model.user_embedding), list(model.item_embedding)]
    for users, items in layers[:-1]:
        for user in range(model.num_users):
            seen[0][user] = seen[0][user] + approximation[user] @ torch.stack(items)
        for item in range(model.num_items):
            seen[1][item] = seen[1][item] + approximation[:, item] @ torch.stack(users)

    def contrast(side: int, node: int) -> Tensor:
        products = torch.stack([seen[side][node] @ other / model.temperature for other in final[side]])
        return (products.exp().sum() + 1e-8).log() - products[node].clamp(-5, 5)

    total = torch.zeros(()).double()
    for number in range(len(batch)):
        user, item, negative = (int(x[number]) for x in (batch.users, batch.items, batch.negatives[:, 0]))
        gap = final[0][user] @ final[1][item] - final[0][user] @ final[1][negative]
        pair = contrast(0, user) + 0.5 * (contrast(1, item) + contrast(1, negative))
        norms = sum(table.square().sum() for table in model.parameters())
        term = -log_sigmoid(gap) + model.contrast_weight * pair + model.reg * norms
        total = total + batch.weight[number] * term
    return total / len(batch)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_loss_and_gradients_equal_the_slow_loop(layers: int, weighted: bool) -> None:
    model = tiny(num_layers=layers)
    batch = first_batch(model)
    weight = torch.linspace(0.2, 1.4, len(edges_of(model)), dtype=torch.float64) if weighted else None
    parameters = list(model.parameters())
    found = total_loss(model, batch, weight)
    expected = slow_loss(model, batch, None if weight is None else weight.tolist())
    # The approximation is made in float32.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    ours, slow = torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters)
    torch.testing.assert_close(ours, slow, rtol=1e-5, atol=1e-6)


def test_large_products_are_cut_for_the_positive_and_do_not_overflow() -> None:
    model = tiny()
    with torch.no_grad():
        for table in model.parameters():
            table.mul_(4)
    batch = first_batch(model)
    torch.testing.assert_close(total_loss(model, batch), slow_loss(model, batch), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for table in model.parameters():
            table.mul_(40)
    assert torch.isfinite(total_loss(model.float(), dataclasses.replace(batch, weight=batch.weight.float())))


def test_scores_equal_the_slow_loop() -> None:
    model = tiny()
    users, items = combined(slow_layers(model, 2), [1.0] * 3)
    torch.testing.assert_close(model.score(torch.arange(18)), torch.stack(users) @ torch.stack(items).T)


def test_of_full_rank_the_view_is_the_main_one_at_the_first_layer() -> None:
    model = tiny(rank=12, num_layers=1)
    whole, inner = model.both_views()
    torch.testing.assert_close(
        model.user_embedding + model.approximation.times(inner[1]), whole[0], rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        model.item_embedding + model.approximation.transposed_times(inner[0]), whole[1], rtol=1e-5, atol=1e-6
    )


def test_singular_vectors_are_orthonormal() -> None:
    found = tiny().approximation
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(found.basis.T @ found.basis, eye, rtol=1e-5, atol=1e-6)
    left = found.image / found.values
    torch.testing.assert_close(left.T @ left, eye, rtol=1e-5, atol=1e-6)


def test_the_only_parameters_are_the_two_tables() -> None:
    assert {name for name, _ in tiny().named_parameters()} == {"user_embedding", "item_embedding"}


def test_an_edge_of_weight_zero_is_as_good_as_deleted() -> None:
    model = tiny()
    removed = torch.tensor([4, 17])
    store = model.graph_inputs.graph[model.graph_inputs.target]
    weight = torch.ones(len(edges_of(model)), dtype=torch.float64)
    weight[removed] = 0
    less = without_edges(model, {model.graph_inputs.target: store.edge_id[removed]}).double()
    batch = first_batch(model)
    torch.testing.assert_close(total_loss(model, batch, weight), total_loss(less, batch), rtol=1e-6, atol=1e-6)
    users = torch.arange(18)
    torch.testing.assert_close(model.score(users, edge_weight=weight), less.score(users))
    assert (total_loss(model, batch) - total_loss(less, batch)).abs() > 1e-4


def test_the_approximation_follows_weights_that_change_in_place() -> None:
    model = tiny()
    batch, weight = first_batch(model), torch.ones(len(edges_of(model)), dtype=torch.float64)
    first = total_loss(model, batch, weight)
    assert model._approximation(weight) is model._approximation(weight)
    weight[:5] = 0.1
    second = total_loss(model, batch, weight)
    torch.testing.assert_close(second, slow_loss(model, batch, weight.tolist()), rtol=1e-6, atol=1e-6)
    assert first != second


def test_a_model_can_be_copied_after_weights_that_were_computed() -> None:
    model = tiny()
    given = torch.ones(len(edges_of(model)), dtype=torch.float64, requires_grad=True)
    batch, weight = first_batch(model), given * 0.5
    before = total_loss(model, batch, weight)
    torch.testing.assert_close(total_loss(copy.deepcopy(model), batch, weight), before)


def test_derivatives_in_weights_take_the_approximation_as_constant() -> None:
    model = tiny()
    batch = first_batch(model, 4)
    weight = torch.linspace(0.5, 1.5, len(edges_of(model)), dtype=torch.float64).requires_grad_()
    kept = model.low_rank_matrix(model.matrix_values(weight))
    model._approximation = lambda edge_weight: kept  # type: ignore[method-assign]
    assert torch.autograd.gradcheck(lambda w: total_loss(model, batch, w), (weight,), fast_mode=True)


def test_without_contrast_the_loss_is_ranking_on_summed_layers() -> None:
    model = tiny(contrast_weight=0.0)
    batch = first_batch(model)
    terms = model.pair_loss(batch)
    assert set(terms) == {"rank", "reg"}
    torch.testing.assert_close(total_loss(model, batch), slow_loss(model, batch))


def test_shared_negatives_and_more_than_one_are_possible() -> None:
    data = planted()
    for options in ({"shared_negatives": True, "num_negatives": 30, "loss": "softmax"}, {"num_negatives": 3}):
        model = trained(LightGCL(data, dim=8, batch_size=256, **options), 1)
        assert torch.isfinite(model.score(torch.arange(5))).all()


def test_several_negatives_share_the_mean_with_the_positive() -> None:
    model = tiny(num_negatives=3)
    batch = first_batch(model, weighted=False)
    found = model.pair_loss(batch)["contrast"]
    of_users, of_items = model.contrast(batch.users, torch.cat([batch.items, batch.negatives.reshape(-1)]))
    torch.testing.assert_close(found, model.contrast_weight * (of_users.mean() + of_items.mean()))


def test_it_moves_to_another_type_with_its_approximation() -> None:
    model = LightGCL(planted(), dim=4)
    batch = dataclasses.replace(first_batch(model), weight=torch.ones(20))
    wide = copy.deepcopy(model).double()
    assert wide.approximation.basis.dtype == torch.float64
    torch.testing.assert_close(total_loss(wide, batch).float(), total_loss(model, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", LightGCL.presets)
def test_presets_are_options(preset: str) -> None:
    data, given = planted(), LightGCL.presets[preset]
    run = fit(LightGCL(data, **{**given.model, "dim": 8}), data, progress=False, **{**given.fit, "epochs": 1})
    assert {"pairs/rank", "pairs/contrast"} <= set(run.history.columns)


@pytest.mark.parametrize("wrong", [{"num_layers": 0}, {"rank": 0}, {"temperature": 0.0}, {"contrast_weight": -1.0}])
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        LightGCL(planted(), **wrong)
