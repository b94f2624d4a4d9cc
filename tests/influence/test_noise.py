"""Self-influence: the quadratic form, from draws; and planted edges are found by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import graphrec
from graphrec.errors import InputError
from graphrec.evaluation.classification import auc
from graphrec.influence.noise import _draw, self_influence, suspicious_edges
from graphrec.influence.objective import objective
from graphrec.influence.truth import fresh_start, minimise
from tests.influence.attribution_case import case
from tests.models.planted import planted


@pytest.mark.parametrize("parts", [("loss",), ("loss", "graph", "negatives")])
def test_the_draws_give_the_quadratic_form(parts: tuple[str, ...]) -> None:
    known = case()
    found = self_influence(known.made, known.theta, draws=60, parts=parts, tolerance=1e-4)
    size = len(known.theta)
    unit = torch.eye(size, dtype=torch.float64)
    product = known.made.curvature(known.theta)
    matrix = torch.stack([product(row) for row in unit]) + found.damping * unit
    gradients = torch.stack([known.made.mixed(known.theta, row, parts=parts) for row in unit], 1)  # (E, P)
    exact = (gradients * torch.linalg.solve(matrix, gradients.T).T).sum(1).numpy()
    ratio = found.values / exact
    # Values, each with a relative deviation of sqrt(2 / 60) = .18
    assert abs(ratio.mean() - 1) < 0.1
    assert np.abs(ratio - 1).max() < 1.0
    assert found.deviation == pytest.approx(found.values * (2 / 60) ** 0.5, rel=0.8)
    assert found.relative_residual <= 1e-4
    assert found.losses == pytest.approx(known.made.per_edge(known.theta).numpy())


def test_draws_have_the_curvature_as_covariance() -> None:
    known = case()
    direction = torch.randn(3, len(known.theta), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([_draw(known.made, known.theta, 0.1, 0, n) for n in range(200)])  # type: ignore[arg-type]
    for row in direction:
        expected = float(row @ known.made.gauss_newton(known.theta, row) + 0.1 * row @ row)
        assert float((drawn @ row).square().mean()) == pytest.approx(expected, rel=5 * (2 / 200) ** 0.5)


def test_planted_edges_are_found() -> None:
    """Pairs across the groups, which the planted taste makes rare: the first suspects are among them."""
    data = planted(num_users=60, num_items=40, groups=4, per_user=8, loyalty=0.99)
    pairs = data.pairs("train")
    across = np.flatnonzero((pairs.users % 4) != (pairs.items % 4))
    wrong = pairs.edge_id[across]
    assert 0 < len(wrong) < 0.05 * len(pairs)
    model = graphrec.models.LightGCN(data, dim=8, num_layers=2, reg=0.0, positives="edge")
    made = objective(model, data, num_negatives=4, reg=0.3)
    found = minimise(made, fresh_start(made, 0), tolerance=1e-3)
    measured = self_influence(made, found.theta, draws=16)
    labels = torch.as_tensor(np.isin(made.edge_id.numpy(), wrong)).long()
    assert auc(torch.as_tensor(measured.values), labels) > 0.9
    shown = suspicious_edges(made, data, measured, k=5)
    assert shown["self_influence"].is_monotonic_decreasing
    assert np.isin(shown["edge_id"], wrong).mean() >= 0.6
    assert ((shown["user"] % 4) != (shown["item"] % 4)).mean() >= 0.6


def test_other_losses_are_refused() -> None:
    known = case()
    model = graphrec.models.LightGCN(known.data, dim=3, loss="softmax", positives="edge")
    with pytest.raises(InputError, match="BPR"):
        self_influence(objective(model, known.data))
    with pytest.raises(InputError, match="two draws"):
        self_influence(known.made, draws=1)
