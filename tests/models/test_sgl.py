"""SGL against a slow loop written from its equations, and what its views have to be."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graphrec import fit, randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models import SGL, LightGCN
from graphrec.models.base import PairBatch
from tests.models.conformance import ModelConformance, trained
from tests.models.planted import planted

# Forty users of one taste are each other's false negatives in the planted data: λ₁ has to be small there.
SMALL = {"dim": 16, "lr": 1e-2, "batch_size": 256, "contrast_weight": 0.02, "temperature": 0.5}


class TestSGL(ModelConformance):
    model_class = SGL
    hparams = SMALL
    epochs = 10


class TestSGLWithNodesDropped(ModelConformance):
    model_class = SGL
    hparams = {**SMALL, "augmentation": "node", "num_layers": 2}
    epochs = 8


class TestSGLWithAGraphForEachLayer(ModelConformance):
    model_class = SGL
    hparams = {**SMALL, "augmentation": "walk", "drop": 0.2}
    epochs = 8


AUGMENTATIONS = ("edge", "node", "walk")


def tiny(**options: Any) -> SGL:
    data = planted(18, 12, groups=2, per_user=6)
    return SGL(data, **{"dim": 4, "num_layers": 2, "drop": 0.3, "seed": 3, **options}).double()


def first_batch(model: SGL, size: int = 20) -> PairBatch:
    phase = model.phases()[-1]
    batch = next(iter(phase.batches(0, randomness.generator(1, "batches"))))
    assert isinstance(batch, PairBatch)
    part = slice(0, size)
    # Users and items that repeat, and weights that differ.
    users, items = batch.users[part].clone(), batch.items[part].clone()
    users[1], items[1] = users[0], items[0]
    weight = torch.linspace(0.5, 1.5, len(users), dtype=torch.float64)
    return PairBatch(
        edge_id=batch.edge_id[part], weight=weight, users=users, items=items, negatives=batch.negatives[part]
    )


def edges_of(model: SGL) -> list[tuple[int, int]]:
    return [tuple(pair) for pair in model.graph_inputs.graph[model.graph_inputs.target].edge_index.T.tolist()]


def slow_propagation(model: SGL, layers: list[list[float]]) -> tuple[list[Tensor], list[Tensor]]:
    """Mean of layers 0 to K, edge by edge; ``layers`` holds the weight of every edge in each layer's graph."""
    edges = edges_of(model)
    users, items = list(model.user_embedding), list(model.item_embedding)
    total_users, total_items = list(users), list(items)
    for weights in layers:
        degree: dict[tuple[str, int], float] = {}
        for (user, item), weight in zip(edges, weights, strict=True):
            degree["u", user] = degree.get(("u", user), 0.0) + weight
            degree["i", item] = degree.get(("i", item), 0.0) + weight
        new_users = [torch.zeros(model.dim).double() for _ in users]
        new_items = [torch.zeros(model.dim).double() for _ in items]
        for (user, item), weight in zip(edges, weights, strict=True):
            if weight:
                entry = weight / math.sqrt(degree["u", user] * degree["i", item])
                new_users[user] = new_users[user] + entry * items[item]
                new_items[item] = new_items[item] + entry * users[user]
        users, items = new_users, new_items
        total_users = [a + b for a, b in zip(total_users, users, strict=True)]
        total_items = [a + b for a, b in zip(total_items, items, strict=True)]
    scale = 1 / (len(layers) + 1)
    return [scale * row for row in total_users], [scale * row for row in total_items]


def total_loss(model: SGL, batch: PairBatch, edge_weight: Tensor | None = None) -> Tensor:
    return torch.stack(list(model.pair_loss(batch, edge_weight).values())).sum()


def slow_loss(model: SGL, batch: PairBatch, edge_weight: list[float] | None = None) -> Tensor:
    """The card's loss (a sum over the batch), divided by B, with the model's own subgraphs."""
    weight = [1.0] * len(edges_of(model)) if edge_weight is None else edge_weight
    users, items = slow_propagation(model, [weight] * model.num_layers)
    views = []
    for view in model.views:
        masks = [[w * float(k) for w, k in zip(weight, kept.tolist(), strict=True)] for kept in view.kept]
        views.append(slow_propagation(model, masks if len(masks) > 1 else masks * model.num_layers))

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b) / (a.norm() * b.norm())

    def contrast(side: int, node: int) -> Tensor:
        anchor = views[0][side][node]
        scores = torch.stack([cosine(anchor, other) / model.temperature for other in views[1][side]])
        return scores.exp().sum().log() - scores[node]

    total = torch.zeros(()).double()
    for number in range(len(batch)):
        user, item = int(batch.users[number]), int(batch.items[number])
        negative = int(batch.negatives[number, 0])
        gap = users[user] @ items[item] - users[user] @ items[negative]
        rows = model.user_embedding[user], model.item_embedding[item], model.item_embedding[negative]
        term = -(1 / (1 + (-gap).exp())).log() + model.contrast_weight * (contrast(0, user) + contrast(1, item))
        total = total + batch.weight[number] * (term + 0.5 * model.reg * sum(row @ row for row in rows))
    return total / len(batch)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_loss_and_gradients_equal_the_slow_loop(augmentation: str, weighted: bool) -> None:
    model = tiny(augmentation=augmentation)
    batch = first_batch(model)
    edge_weight = torch.linspace(0.2, 1.4, len(edges_of(model)), dtype=torch.float64) if weighted else None
    parameters = list(model.parameters())
    found = total_loss(model, batch, edge_weight)
    expected = slow_loss(model, batch, None if edge_weight is None else edge_weight.tolist())
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found, parameters)
    slow = torch.autograd.grad(expected, parameters)
    torch.testing.assert_close(ours, slow)


def test_scores_equal_the_slow_loop() -> None:
    model = tiny()
    users, items = slow_propagation(model, [[1.0] * len(edges_of(model))] * 2)
    expected = torch.stack(users) @ torch.stack(items).T
    torch.testing.assert_close(model.score(torch.arange(18)), expected)


def test_the_loss_is_differentiable_in_edge_weights() -> None:
    model = tiny(drop=0.2)
    batch = first_batch(model, 4)
    weight = torch.linspace(0.5, 1.5, len(edges_of(model)), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: total_loss(model, batch, w), (weight,), fast_mode=True)


@pytest.mark.parametrize("drop", [0.0, 0.1, 0.35, 0.9])
def test_edges_are_dropped_in_exact_number(drop: float) -> None:
    model = tiny(drop=drop)
    edges = len(edges_of(model))
    for view in model.views:
        assert int(view.kept[0].sum()) == math.floor(round((1 - drop) * edges, 6))
    if drop:
        assert not torch.equal(model.views[0].kept[0], model.views[1].kept[0])


def test_nodes_are_dropped_in_exact_number_with_their_edges() -> None:
    model = SGL(planted(), dim=4, augmentation="node", drop=0.25)
    edges = torch.tensor(edges_of(model))
    for view in model.views:
        dropped = edges[~view.kept[0]]
        left = edges[view.kept[0]]
        # A user is either whole, or all its remaining edges went because of their items.
        users = [user for user in range(model.num_users) if user not in set(left[:, 0].tolist())]
        items = [item for item in range(model.num_items) if item not in set(left[:, 1].tolist())]
        assert len(users) >= model.num_users // 4
        assert len(items) >= model.num_items // 4
        gone_users, gone_items = set(users), set(items)
        assert all(user in gone_users or item in gone_items for user, item in dropped.tolist())
        assert len(users) == model.num_users // 4  # every user has items that stay
        assert len(items) == model.num_items // 4


def test_a_walk_has_a_graph_for_each_layer() -> None:
    model = tiny(augmentation="walk", num_layers=3)
    for view in model.views:
        assert len(view.kept) == 3
        assert not torch.equal(view.kept[0], view.kept[1])
        assert not torch.equal(view.kept[1], view.kept[2])


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_without_drops_the_views_are_the_graph_and_the_contrast_is_that_of_cosines(augmentation: str) -> None:
    model = tiny(augmentation=augmentation, drop=0.0)
    batch = first_batch(model)
    encoded = model.encode()
    expected = torch.zeros(len(batch)).double()
    for rows, nodes in ((encoded.users, batch.users), (encoded.items, batch.items)):
        unit = torch.nn.functional.normalize(rows)
        expected += torch.logsumexp((unit[nodes] @ unit.T - 1) / model.temperature, 1)
    torch.testing.assert_close(model.contrast(batch.users, batch.items), expected)
    assert (model.contrast(batch.users, batch.items) >= 0).all()


def test_without_contrast_it_is_lightgcn() -> None:
    data = planted()
    options: dict[str, Any] = {"dim": 8, "positives": "edge", "init": "xavier", "batch_size": 256}
    plain = trained(LightGCN(data, **options), 2)
    model = trained(SGL(data, contrast_weight=0.0, **options), 2)
    users = torch.arange(10)
    torch.testing.assert_close(model.score(users), plain.score(users))


def test_taking_an_edge_away_leaves_the_draws_of_the_others() -> None:
    data = planted()
    removed = data.pairs("train").edge_id[7]
    model, less = SGL(data, dim=4, drop=0.3), SGL(data.without([removed]), dim=4, drop=0.3)
    for view, view_less in zip(model.views, less.views, strict=True):
        kept, kept_less = (
            dict(zip(edges_of(one), mask.kept[0].tolist(), strict=True))
            for one, mask in ((model, view), (less, view_less))
        )
        changed = [edge for edge in kept_less if kept[edge] != kept_less[edge]]
        assert len(changed) <= 1  # the threshold of the exact number may move by one edge


def test_views_are_drawn_each_epoch_from_the_epochs_stream(tmp_path: Path) -> None:
    data = planted()
    model = SGL(data, dim=4)
    seen = []
    views, _ = model.phases()
    for epoch in (0, 1, 0):
        for batch in views.batches(epoch, randomness.generator(0, "batches/views", epoch)):
            views.loss(batch)
        seen.append(model.views[0].kept[0])
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_a_resumed_training_ends_where_it_would_have(tmp_path: Path) -> None:
    data = planted()

    def make() -> SGL:
        return SGL(data, dim=8, batch_size=256, lr=1e-2)

    options: dict[str, Any] = {"progress": False, "select_on": None, "checkpoint_every": 1, "checkpoint_seconds": None}
    whole = make()
    fit(whole, data, epochs=4, out=tmp_path / "whole", **options)

    class StopError(Exception):
        pass

    broken = make()
    drawn = broken._draw

    def draw(*args: Any, **keywords: Any) -> Any:
        draw.count += 1  # type: ignore[attr-defined]
        if draw.count == 3:  # type: ignore[attr-defined]
            raise StopError
        return drawn(*args, **keywords)

    draw.count = 0  # type: ignore[attr-defined]
    broken._draw = draw  # type: ignore[method-assign]
    with pytest.raises(StopError):
        fit(broken, data, epochs=4, out=tmp_path / "broken", **options)
    resumed = make()
    fit(resumed, data, epochs=4, out=tmp_path / "broken", resume=True, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_views_follow_the_model_to_another_type() -> None:
    model = SGL(planted(), dim=4)
    batch = first_batch(model)
    plain = model.contrast(batch.users, batch.items).detach()
    wide = copy.deepcopy(model).double()
    torch.testing.assert_close(wide.contrast(batch.users, batch.items).detach().float(), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", SGL.presets)
def test_presets_are_options(preset: str) -> None:
    data = planted()
    model = SGL(data, **{**SGL.presets[preset].model, "dim": 8})
    run = fit(model, data, epochs=1, progress=False, select_on=None, **SGL.presets[preset].fit)
    assert {"pairs/rank", "pairs/reg", "pairs/contrast"} <= set(run.history.columns)


@pytest.mark.parametrize(
    "wrong",
    [{"num_layers": 0}, {"augmentation": "edges"}, {"drop": 1.0}, {"temperature": 0.0}, {"contrast_weight": -1.0}],
)
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        SGL(planted(), **wrong)


def test_a_dataset_without_training_edges_is_refused_when_it_trains() -> None:
    data: RecDataset = planted()
    empty = data.without(data.pairs("train").edge_id)
    with pytest.raises(InputError, match="no edges"):
        trained(SGL(empty, dim=4), 1)
