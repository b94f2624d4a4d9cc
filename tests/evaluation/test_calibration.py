from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torchmetrics.functional.classification import binary_calibration_error

from graphrec.errors import InputError
from graphrec.evaluation.calibration import calibration, log_loss, platt


def draw(seed: int, size: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, and labels that follow them loosely."""
    random = np.random.default_rng(seed)
    scores = torch.from_numpy(random.normal(1, 3, size))
    return scores, torch.from_numpy((random.random(size) < 1 / (1 + np.exp(-0.5 * scores.numpy() + 1))).astype(int))


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_expected_calibration_error(bins: int) -> None:
    scores, labels = draw(bins)
    probabilities = torch.sigmoid(scores)
    found = calibration(probabilities, labels, bins)
    expected = binary_calibration_error(probabilities.float(), labels, n_bins=bins, norm="l1")
    assert found.error == pytest.approx(float(expected), abs=1e-6)
    assert int(found.count.sum()) == len(scores)


def test_bins_by_hand() -> None:
    probabilities = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    found = calibration(probabilities, torch.tensor([0, 1, 0, 1, 1]), 2)
    assert found.count.tolist() == [2, 3]
    assert found.predicted.tolist() == [0.125, 0.75]
    assert found.observed.tolist() == pytest.approx([0.5, 2 / 3])
    assert found.error == pytest.approx(2 / 5 * 0.375 + 3 / 5 * (0.75 - 2 / 3))
    with pytest.raises(InputError, match="bins is 0"):
        calibration(probabilities, torch.ones(5), 0)


def test_an_empty_bin_counts_for_nothing() -> None:
    found = calibration(torch.tensor([0.95, 0.95]), torch.tensor([1, 1]), 10)
    assert found.count.tolist() == [0] * 9 + [2] and math.isnan(float(found.predicted[0]))
    assert found.error == pytest.approx(0.05)


def test_log_loss_is_finite_where_the_sigmoid_rounds() -> None:
    loss = log_loss(torch.tensor([200.0, -200.0, 0.0]), torch.tensor([0, 1, 1]))
    assert loss.tolist() == pytest.approx([200.0, 200.0, math.log(2)])


def smoothed_loss(at: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> float:
    """Platt's objective, written from its definition."""
    ones, zeros = int(labels.sum()), int((1 - labels).sum())
    target = np.where(labels > 0, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    value = at[0] * np.asarray(scores) + at[1]
    return float(np.mean(target * np.logaddexp(0, -value) + (1 - target) * np.logaddexp(0, value)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_platt_finds_the_minimum(seed: int, scale: float, shift: float) -> None:
    scores, labels = draw(seed, 40)
    scores = scores * scale + shift
    if labels.sum() in (0, len(labels)):
        return
    found = platt(scores, labels)
    here = smoothed_loss(np.array([found.slope, found.intercept]), scores.numpy(), labels.numpy())
    start = np.array([0.0, 0.0])
    best = minimize(
        lambda at: smoothed_loss(np.array([at[0] / scale, at[1] - at[0] * shift / scale]), scores, labels.numpy()),
        start,
        method="BFGS",
    )
    assert here <= best.fun + 1e-8


def test_platt_keeps_the_order_and_mends_the_probabilities() -> None:
    scores, labels = draw(3, 3000)
    found = platt(scores * 20, labels)
    logits = found.logits(scores * 20)
    assert found.slope > 0
    assert logits.argsort().tolist() == scores.argsort().tolist()
    before, after = log_loss(scores * 20, labels).mean(), log_loss(logits, labels).mean()
    assert float(after) < 0.5 * float(before)
    assert calibration(torch.sigmoid(logits), labels).error < 0.05


def test_platt_at_the_edges() -> None:
    apart = platt(torch.tensor([-1.0, -2.0, 3.0, 4.0]), torch.tensor([0, 0, 1, 1]))
    assert 0 < apart.slope < 100 and math.isfinite(apart.intercept)
    flat = platt(torch.full((10,), 7.0), torch.tensor([1] * 3 + [0] * 7))
    assert flat.slope == 0.0
    assert float(torch.sigmoid(flat.logits(torch.tensor([7.0])))) == pytest.approx((3 * 0.8 + 7 / 9) / 10)
    with pytest.raises(InputError, match="found 3 of 1 and 0 of 0"):
        platt(torch.ones(3), torch.ones(3))
