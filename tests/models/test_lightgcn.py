from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphrec import evaluate, fit, randomness
from graphrec.datasets import Builder
from graphrec.errors import InputError
from graphrec.models import BPRMF, LightGCN
from tests.models.conformance import ModelConformance, trained
from tests.models.planted import planted


class TestLightGCN(ModelConformance):
    model_class = LightGCN
    hparams = {"dim": 16, "lr": 1e-2, "batch_size": 256}


class TestLightGCNWithLearnedLayersAndSharedNegatives(ModelConformance):
    model_class = LightGCN
    hparams = {
        "dim": 16,
        "lr": 1e-2,
        "batch_size": 256,
        "layer_weights": "learned",
        "loss": "softmax",
        "shared_negatives": True,
        "num_negatives": 32,
        "positives": "edge",
        "init": "spectral",
    }
    epochs = 8


def dense_adjacency(model: LightGCN, weight: Tensor | None = None, loops: bool = False) -> Tensor:
    """A over users then items, float64."""
    size = model.num_users + model.num_items
    users, items = model.graph_inputs.graph[model.graph_inputs.target].edge_index
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix[users, model.num_users + items] = 1.0 if weight is None else weight
    return matrix + matrix.T + torch.eye(size, dtype=torch.float64) * loops


def dense_propagation(model: LightGCN, left: float, right: float, weight: Tensor | None = None) -> Tensor:
    """sum_k alpha_k (D^-left A D^-right)^k E0 by matrix powers."""
    matrix = dense_adjacency(model, weight, model.self_loops)
    degree = matrix.sum(1)
    inverse = [torch.where(degree > 0, degree, 1.0).pow(-power) * (degree > 0) for power in (left, right)]
    if left == 0:
        inverse[0] = torch.ones_like(degree)
    if right == 0:
        inverse[1] = torch.ones_like(degree)
    matrix = inverse[0][:, None] * matrix * inverse[1]
    layer = torch.cat([model.user_embedding, model.item_embedding]).detach().double()
    total = torch.zeros_like(layer)
    for alpha in model.layer_weights.double():
        total += alpha * layer
        layer = matrix @ layer
    return total


EXPONENTS = {
    "sym": (0.5, 0.5),
    "left": (1.0, 0.0),
    "right": (0.0, 1.0),
    "l1": (1.0, 1.0),
    "sqrt_left": (0.5, 0.0),
    "sqrt_right": (0.0, 0.5),
    "none": (0.0, 0.0),
}


@pytest.mark.parametrize("normalisation", EXPONENTS)
@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("layer_weights", ["uniform", "last", "without_ego"])
def test_encoder_equals_matrix_powers(normalisation: str, self_loops: bool, layer_weights: str) -> None:
    options: dict[str, Any] = {"normalisation": normalisation, "layer_weights": layer_weights}
    model = LightGCN(planted(40, 24), dim=8, num_layers=3, self_loops=self_loops, **options).double()
    encoded = model.encode()
    found = torch.cat([encoded.users, encoded.items]).detach()
    expected = dense_propagation(model, *EXPONENTS[normalisation])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_rows_for_training_are_the_rows_of_the_encoder_with_their_gradient() -> None:
    model = LightGCN(planted(), dim=8).double()
    users, items = torch.tensor([4, 4, 9]), torch.tensor([1, 7, 1, 30, 2])
    weights = torch.randn(3, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    gradients = []
    for rows in (model.training_rows(users, items)[0], (model.encode().users[users], model.encode().items[items])):
        model.zero_grad()
        total = sum((row * weight).sum() for row, weight in zip(rows, weights, strict=True))
        total.backward()
        gradients.append((model.user_embedding.grad.clone(), model.item_embedding.grad.clone(), total.detach()))
    for fast, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain)


def test_edge_weights_enter_degrees_and_entries() -> None:
    model = LightGCN(planted(40, 24), dim=8).double()
    weight = torch.rand(model.graph_inputs.graph[model.graph_inputs.target].edge_index.shape[1]).double()
    encoded = model.encode(edge_weight=weight)
    expected = dense_propagation(model, 0.5, 0.5, weight)
    torch.testing.assert_close(torch.cat([encoded.users, encoded.items]).detach(), expected)
    unit = model.encode(edge_weight=torch.ones_like(weight))
    torch.testing.assert_close(unit.users, model.encode().users)


def test_a_score_is_differentiable_in_edge_weights() -> None:
    model = LightGCN(planted(12, 8, groups=2, per_user=6), dim=4).double()
    edges = model.graph_inputs.graph[model.graph_inputs.target].edge_index.shape[1]
    weight = torch.ones(edges, dtype=torch.float64, requires_grad=True)
    user = torch.tensor([2])
    assert torch.autograd.gradcheck(lambda w: model.score(user, edge_weight=w), (weight,))


def test_no_layers_is_matrix_factorisation() -> None:
    data = planted()
    graph = trained(LightGCN(data, dim=8, num_layers=0), 2)
    factors = trained(BPRMF(data, dim=8), 2)
    users = torch.arange(10)
    torch.testing.assert_close(graph.score(users), factors.score(users))


def test_two_nodes_and_one_layer_meet_in_the_middle() -> None:
    builder = Builder()
    builder.interactions({"user": [0], "item": [0]})
    model = LightGCN(builder.build(), dim=2, num_layers=1)
    middle = (model.user_embedding + model.item_embedding) / 2
    torch.testing.assert_close(model.encode().users, middle)
    torch.testing.assert_close(model.encode().items, middle)


def test_an_isolated_node_keeps_its_share_of_layer_0() -> None:
    data = planted()
    pairs = data.pairs("train")
    data = data.without(pairs.edge_id[pairs.indptr[0] : pairs.indptr[1]])
    model = LightGCN(data, dim=2, num_layers=3)
    torch.testing.assert_close(model.encode().users[0], model.user_embedding[0] / 4)


def test_constants_times_root_degree_are_a_fixed_point() -> None:
    model = LightGCN(planted(), dim=1, num_layers=4)
    users, items = model.degrees()
    with torch.no_grad():
        model.user_embedding.copy_(users.sqrt()[:, None])
        model.item_embedding.copy_(items.sqrt()[:, None])
    encoded = model.encode()
    connected = users > 0
    torch.testing.assert_close(encoded.users[connected], model.user_embedding[connected])


def test_edge_dropout_is_unbiased_and_off_in_evaluation() -> None:
    model = LightGCN(planted(), dim=4, num_layers=1, edge_dropout=0.5)
    plain = LightGCN(planted(), dim=4, num_layers=1)
    users, items = torch.arange(20), torch.arange(20)
    model.eval()
    torch.testing.assert_close(model.training_rows(users, items)[0][0], plain.training_rows(users, items)[0][0])
    model.train()
    sums = torch.zeros(20, 4)
    rounds = 400
    for number in range(rounds):
        batch = next(iter(model.phases()[0].batches(number, randomness.generator(number, "dropout"))))
        sums += model.training_rows(users, items, batch=batch)[0][0].detach()
    expected = plain.training_rows(users, items)[0][0].detach()
    torch.testing.assert_close(sums / rounds, expected, atol=0.02, rtol=0.2)


@pytest.mark.parametrize(
    "wrong",
    [{"num_layers": -1}, {"normalisation": "both"}, {"loss": "hinge"}, {"edge_dropout": 1.0}, {"dim": 0}],
)
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        LightGCN(planted(), **wrong)


def test_the_fast_preset_is_the_same_encoder_and_learns() -> None:
    preset = LightGCN.presets["fast"]
    data = planted()
    model = LightGCN(data, **{**preset.model, "dim": 16, "batch_size": 256})
    plain = LightGCN(data, dim=16)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.encode().users, plain.encode().users)
    before = evaluate(model.eval(), data, ks=(10,))["recall@10"]
    run = fit(model, data, progress=False, **preset.fit)
    assert len(run.history) == preset.fit["epochs"]
    assert run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]
    assert run.metrics["recall@20"] > 0
    assert evaluate(model, data, ks=(10,))["recall@10"] >= before - 0.05
