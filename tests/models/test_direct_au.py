"""DirectAU against a slow loop written from its equations, and what must hold of its loss."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from graphrec import fit
from graphrec.errors import InputError
from graphrec.models import BPRMF, DirectAU, LightGCN
from graphrec.models.base import PairBatch
from graphrec.models.deletion import without_edges
from tests.models.conformance import ModelConformance, trained
from tests.models.planted import planted
from tests.models.slow_propagation import combined, edges_of, first_batch, slow_layers, total_loss

SMALL = {"dim": 16, "lr": 1e-2, "batch_size": 256, "uniformity_weight": 0.5}


class TestDirectAU(ModelConformance):
    model_class = DirectAU
    hparams = SMALL
    epochs = 10


class TestDirectAUWithLayers(ModelConformance):
    model_class = DirectAU
    hparams = {**SMALL, "num_layers": 2}
    epochs = 10


def tiny(**options: Any) -> DirectAU:
    data = planted(18, 12, groups=2, per_user=6)
    return DirectAU(data, **{"dim": 4, "num_layers": 2, "uniformity_weight": 1.7, "seed": 3, **options}).double()


def slow_loss(model: DirectAU, batch: PairBatch, weight: list[float] | None = None) -> Tensor:
    layers = slow_layers(model, model.num_layers, weight)
    final = combined(layers, [1 / len(layers)] * len(layers))
    pairs = list(zip(batch.users.tolist(), batch.items.tolist(), batch.weight.tolist(), strict=True))

    def unit(side: int, node: int) -> Tensor:
        return final[side][node] / final[side][node].norm()

    align = torch.zeros(()).double()
    for user, item, amount in pairs:
        align = align + amount * (unit(0, user) - unit(1, item)).square().sum()
    spread = torch.zeros(()).double()
    for side in (0, 1):
        above, below = torch.zeros(()).double(), 0.0
        for p, q in itertools.combinations(pairs, 2):
            gap = unit(side, p[side]) - unit(side, q[side])
            above = above + p[2] * q[2] * (-2 * gap.square().sum()).exp()
            below += p[2] * q[2]
        spread = spread + (above / below).log() / 2
    return align / len(batch) + model.uniformity_weight * batch.weight.mean() * spread


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("layers", [0, 2])
def test_loss_and_gradients_equal_the_slow_loop(layers: int, weighted: bool) -> None:
    model = tiny(num_layers=layers)
    batch = first_batch(model)
    weight = torch.linspace(0.2, 1.4, len(edges_of(model)), dtype=torch.float64) if weighted else None
    parameters = list(model.parameters())
    found = total_loss(model, batch, weight)
    expected = slow_loss(model, batch, None if weight is None else weight.tolist())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))


def test_scores_are_products_of_vectors_of_any_length() -> None:
    data = planted()
    users = torch.arange(10)
    for layers, other in ((0, BPRMF(data, dim=8)), (2, LightGCN(data, dim=8, num_layers=2))):
        model = DirectAU(data, dim=8, num_layers=layers)
        model.load_state_dict(other.state_dict())
        torch.testing.assert_close(model.score(users), other.score(users))
        with torch.no_grad():
            model.item_embedding.mul_(3)
        if layers == 0:
            torch.testing.assert_close(model.score(users), 3 * other.score(users))


def test_rotations_and_lengths_of_rows_leave_the_loss() -> None:
    model = tiny(num_layers=0)
    batch = first_batch(model)
    before = total_loss(model, batch)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    with torch.no_grad():
        for table in model.parameters():
            table.copy_(table @ turn * torch.linspace(0.1, 9, len(table), dtype=torch.float64)[:, None])
    torch.testing.assert_close(total_loss(model, batch), before)


def test_equal_vectors_are_aligned() -> None:
    model = tiny(num_layers=0)
    with torch.no_grad():
        for table in model.parameters():
            table.copy_(torch.ones_like(table) * torch.linspace(1, 2, len(table), dtype=torch.float64)[:, None])
    terms = model.pair_loss(first_batch(model))
    assert abs(float(terms["alignment"])) < 1e-12
    assert abs(float(terms["uniformity"])) < 1e-12


def test_examples_of_weight_zero_are_as_good_as_not_drawn() -> None:
    model = tiny()
    batch = first_batch(model, weighted=False)
    weight = (torch.arange(len(batch)) % 3 > 0).double()
    some = weight > 0
    fewer = dataclasses.replace(batch._map(lambda x: x[some]), generator=batch.generator)
    found = total_loss(model, dataclasses.replace(batch, weight=weight))
    torch.testing.assert_close(found * len(batch), total_loss(model, fewer) * len(fewer))


def test_a_batch_of_one_pair_has_no_uniformity() -> None:
    model = tiny()
    terms = model.pair_loss(first_batch(model, 5)._map(lambda x: x[:1]))
    assert float(terms["uniformity"]) == 0
    assert float(terms["alignment"]) > 0


def test_no_negatives_are_drawn_and_each_edge_comes_once() -> None:
    model = DirectAU(planted(), dim=4, batch_size=500)
    batches = list(model.phases()[0].batches(0, torch.Generator().manual_seed(0)))
    assert [batch.negatives.shape[1] for batch in batches] == [0] * len(batches)
    edge_ids = torch.cat([batch.edge_id for batch in batches])
    assert torch.equal(edge_ids.sort().values, model.graph_inputs.adjacency().edge_id.sort().values)


def test_weight_decay_reaches_every_row_in_every_step() -> None:
    data = planted()
    less = data.without(data.pairs("train").edge_id[data.pairs("train").indptr[0] : data.pairs("train").indptr[1]])
    model = DirectAU(less, dim=4, weight_decay=0.1)
    before = model.user_embedding[0].detach().clone()
    trained(model, 1)
    after = model.user_embedding[0].detach()  # has no edge left
    assert (after.abs() < before.abs()).all()
    still = DirectAU(less, dim=4, weight_decay=0.0)
    trained(still, 1)
    assert torch.equal(still.user_embedding[0].detach(), before)


def test_an_edge_of_weight_zero_is_as_good_as_deleted() -> None:
    model = tiny()
    removed = torch.tensor([4, 17])
    store = model.graph_inputs.graph[model.graph_inputs.target]
    weight = torch.ones(len(edges_of(model)), dtype=torch.float64)
    weight[removed] = 0
    less = without_edges(model, {model.graph_inputs.target: store.edge_id[removed]}).double()
    batch = first_batch(model)
    torch.testing.assert_close(total_loss(model, batch, weight), total_loss(less, batch))
    users = torch.arange(18)
    torch.testing.assert_close(model.score(users, edge_weight=weight), less.score(users))


@pytest.mark.parametrize("layers", [0, 2])
def test_the_only_parameters_are_the_two_tables(layers: int) -> None:
    model = tiny(num_layers=layers)
    assert {name for name, _ in model.named_parameters()} == {"user_embedding", "item_embedding"}
    assert set(model.derived()) == ({"matrix"} if layers else set())


@pytest.mark.parametrize("preset", DirectAU.presets)
def test_presets_are_options(preset: str) -> None:
    data, given = planted(), DirectAU.presets[preset]
    model = DirectAU(data, **{**given.model, "dim": 8})
    run = fit(model, data, progress=False, **{**given.fit, "epochs": 1, "patience": None, "select_on": None})
    assert {"pairs/alignment", "pairs/uniformity"} <= set(run.history.columns)
    assert model.objective == "alignment and uniformity"


@pytest.mark.parametrize("wrong", [{"num_layers": -1}, {"uniformity_weight": -1.0}, {"weight_decay": -1.0}])
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        DirectAU(planted(), **wrong)
