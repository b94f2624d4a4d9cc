"""Slopes of a score against differences, and deletion by weights against models made anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphrec
from graphrec.datasets.dataset import RecDataset
from graphrec.influence.effects import Deletions, slopes
from graphrec.models.base import GraphRecommender
from graphrec.models.deletion import without_edges
from tests.models.conformance import trained
from tests.models.planted_kg import planted_kg

TO_ENTITY = ("item", "related", "entity")
MODELS: dict[str, dict[str, Any]] = {
    "KGAT": {"dim": 8, "layer_dims": (8, 8)},
    "KGIN": {"dim": 8},
    "KGCN": {"dim": 8, "num_neighbours": 4},
    "KCAN": {"dim": 8},
    "KGCL": {"dim": 8},
    "DiffKG": {"dim": 8},
    "RippleNet": {"dim": 8},
}


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return planted_kg(num_users=60, num_items=40)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, data: RecDataset) -> GraphRecommender:
    made = trained(getattr(graphrec.models, request.param)(data, lr=1e-2, **MODELS[request.param]), 2)
    return without_edges(made, {})


def test_slopes_are_those_of_differences(model: GraphRecommender) -> None:
    model = model.double()
    found = slopes(model, 3, 7, [TO_ENTITY])
    assert not found.reason
    slope = found.by_type[TO_ENTITY]
    users, items = torch.tensor([3]), torch.tensor([[7]])
    for place in [*slope.abs().argsort(descending=True)[:3].tolist(), 0]:
        step = torch.zeros(len(slope), dtype=torch.float64)
        step[place] = 1e-5
        with torch.no_grad():
            up, down = (model.score(users, items, edge_weight={TO_ENTITY: 1 + s}) for s in (step, -step))
        assert float(slope[place]) == pytest.approx(float(up - down) / 2e-5, rel=1e-3, abs=1e-6)
    model.float()


def test_deletion_is_that_of_a_model_made_anew(model: GraphRecommender) -> None:
    deletions = Deletions(model)
    assert deletions.by_weights == (type(model).__name__ in ("KGAT", "KGIN", "DiffKG"))
    store = model.graph_inputs.graph[TO_ENTITY]
    of_item = torch.nonzero(store.edge_index[0] == 7)[:, 0]
    assert len(of_item) >= 2
    target = model.graph_inputs.target
    clicks = model.graph_inputs.graph[target]
    own = torch.nonzero(clicks.edge_index[0] == 3)[:2, 0]
    for removed in (
        {TO_ENTITY: of_item[:1]},
        {TO_ENTITY: of_item[:2]},
        {TO_ENTITY: torch.arange(0, 30, 4)},
        {TO_ENTITY: of_item[:1], target: own},
    ):
        gone = {kind: model.graph_inputs.graph[kind].edge_id[places] for kind, places in removed.items()}
        expected = without_edges(model, gone)
        with torch.no_grad():
            score = float(expected.score(torch.tensor([3]), torch.tensor([7])))
        assert deletions.score(3, 7, removed) == pytest.approx(score, abs=1e-5)
    with torch.no_grad():
        whole = float(model.score(torch.tensor([3]), torch.tensor([7])))
    assert deletions.score(3, 7) == deletions.score(3, 7, {TO_ENTITY: of_item[:0]}) == pytest.approx(whole, abs=1e-5)


def test_weights_that_are_no_deletion_are_found_out(data: RecDataset) -> None:
    class Careless(graphrec.models.KGIN):
        """Edges of weight 0 still act a little."""

        def encode(self, *, edge_weight: Any = None) -> Any:
            if isinstance(edge_weight, dict):
                edge_weight = {kind: weight.clamp_min(0.5) for kind, weight in edge_weight.items()}
            return super().encode(edge_weight=edge_weight)

    model = without_edges(trained(Careless(data, dim=8, lr=1e-2), 2), {})
    deletions = Deletions(model)
    store = model.graph_inputs.graph[TO_ENTITY]
    of_item = torch.nonzero(store.edge_index[0] == 7)[:, 0]
    expected = without_edges(model, {TO_ENTITY: store.edge_id[of_item]})
    with torch.no_grad():
        score = float(expected.score(torch.tensor([3]), torch.tensor([7])))
    assert deletions.by_weights
    for _ in range(2):
        assert deletions.score(3, 7, {TO_ENTITY: of_item}) == pytest.approx(score, abs=1e-6)
        assert not deletions.by_weights


def test_what_has_no_slopes_says_why(data: RecDataset) -> None:
    found = slopes(trained(graphrec.models.CFKG(data, dim=8), 1), 3, 7, [TO_ENTITY])
    assert not found.by_type and "no slope" in found.reason
