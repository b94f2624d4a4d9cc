from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from graphrec.models import NGCF, LightGCN
from tests.models.conformance import ModelConformance
from tests.models.planted import planted


class TestNGCF(ModelConformance):
    model_class = NGCF
    hparams = {"dim": 16, "lr": 1e-2, "batch_size": 256}
    epochs = 15


def dense(model: NGCF) -> torch.Tensor:
    """The authors' encoder written out with a dense row-normalised matrix."""
    users, items = model.graph_inputs.graph[model.graph_inputs.target].edge_index
    size = model.num_users + model.num_items
    matrix = torch.eye(size, dtype=torch.float64)
    matrix[users, model.num_users + items] = 1.0
    matrix[model.num_users + items, users] = 1.0
    matrix /= matrix.sum(1, keepdim=True)
    torch.testing.assert_close(matrix.sum(1), torch.ones(size, dtype=torch.float64))
    layer = torch.cat([model.user_embedding, model.item_embedding])
    outputs = [layer]
    for number in range(model.num_layers):
        first, second = model.transforms[2 * number], model.transforms[2 * number + 1]
        sums = matrix @ layer
        layer = functional.leaky_relu(first(sums), 0.2) + functional.leaky_relu(second(layer * sums), 0.2)
        outputs.append(layer / layer.square().sum(1, keepdim=True).clamp_min(1e-12).sqrt())
    return torch.cat(outputs, dim=1)


def test_encoder_equals_the_dense_formula() -> None:
    model = NGCF(planted(40, 24), dim=6, num_layers=2, message_dropout=0.0, init="normal").double()
    encoded = model.encode()
    found = torch.cat([encoded.users, encoded.items])
    torch.testing.assert_close(found, dense(model))
    norms = found[:, 6:12].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_parameters_and_width_are_the_papers() -> None:
    model = NGCF(planted(40, 24), dim=6, num_layers=3)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == (40 + 24) * 6 + 3 * 2 * (6 * 6 + 6)
    assert model.encode().users.shape == (40, 4 * 6)


def test_without_transformations_and_interaction_it_is_a_left_normalised_lightgcn() -> None:
    data = planted(40, 24)
    model = NGCF(
        data,
        dim=6,
        propagation="gcmc",
        transform=False,
        activation=False,
        interaction=False,
        message_dropout=0.0,
    ).double()
    simple = LightGCN(data, dim=6, num_layers=1, normalisation="left", layer_weights="last").double()
    simple.load_state_dict(model.state_dict())
    users, _ = model.propagate(model.user_embedding, model.item_embedding, None)
    torch.testing.assert_close(users, simple.encode().users)


@pytest.mark.parametrize("propagation", ["norm", "gcmc", "ngcf", "plain"])
def test_unit_weights_change_nothing(propagation: str) -> None:
    model = NGCF(planted(40, 24), dim=6, propagation=propagation).eval()
    edges = model.graph_inputs.graph[model.graph_inputs.target].edge_index.shape[1]
    torch.testing.assert_close(model.encode(edge_weight=torch.ones(edges)).users, model.encode().users)


def test_an_isolated_node_keeps_itself_under_norm_and_nothing_under_gcmc() -> None:
    data = planted()
    pairs = data.pairs("train")
    data = data.without(pairs.edge_id[pairs.indptr[0] : pairs.indptr[1]])
    for propagation, expected in (("norm", 1.0), ("gcmc", 0.0)):
        model = NGCF(data, dim=4, propagation=propagation)
        users, _ = model.propagate(model.user_embedding, model.item_embedding, None)
        torch.testing.assert_close(users[0], model.user_embedding[0] * expected)
