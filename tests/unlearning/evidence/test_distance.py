"""Distances: identities of divergences, rotations that cost nothing, and where the residual is one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from graphrec.unlearning.evidence.distance import (
    jeffreys,
    jensen_shannon,
    procrustes,
    relative_residual,
    residual_measures,
    rmse,
    spearman,
)


def tables(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 20))
def test_jensen_shannon_is_bounded_and_half_of_jeffreys_is_larger(seed: int, scale: float) -> None:
    p, q = (tables(seed + n, 4, 7).mul(scale).softmax(1) for n in (0, 1))
    true = jensen_shannon(p, q)
    assert bool((true >= -1e-12).all())
    assert bool((true <= math.log(2) + 1e-12).all())
    assert bool((jeffreys(p, q) / 2 >= true - 1e-12).all())
    assert torch.allclose(jensen_shannon(p, p), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(true, jensen_shannon(q, p))
    middle = (p + q) / 2
    slow = [0.5 * (stats.entropy(a, m) + stats.entropy(b, m)) for a, b, m in zip(p, q, middle, strict=True)]
    assert true.tolist() == pytest.approx(slow)


def test_jensen_shannon_of_disjoint_distributions_is_log_two() -> None:
    p, q = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    assert float(jensen_shannon(p, q)) == pytest.approx(math.log(2))
    assert math.isinf(float(jeffreys(p, q)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_a_rotation_costs_nothing_once_aligned(seed: int, width: int) -> None:
    table = tables(seed, 40, width)
    rotation = torch.linalg.qr(tables(seed + 1, width, width))[0]
    aligned, plain = procrustes(table @ rotation, table)
    assert aligned < 1e-6
    assert plain > 0.05
    noise = 0.1 * tables(seed + 2, 40, width)
    aligned, _ = procrustes((table + noise) @ rotation, table)
    assert 0 < aligned <= float(noise.norm() / table.norm()) + 1e-9


def test_no_other_rotation_is_nearer() -> None:
    a, b = tables(1, 30, 4), tables(2, 30, 4)
    best, _ = procrustes(a, b)
    for seed in range(20):
        other = torch.linalg.qr(tables(100 + seed, 4, 4))[0]
        assert float((a @ other - b).norm() / b.norm()) >= best - 1e-12


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=40))
def test_spearman_is_scipys(pairs) -> None:
    a, b = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    if len(set(a.tolist())) < 2 or len(set(b.tolist())) < 2:
        assert math.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_the_residual_is_zero_for_retraining_and_one_for_doing_nothing() -> None:
    before, retrained = tables(1, 50), tables(2, 50)
    assert relative_residual(retrained, before, retrained) == 0
    assert relative_residual(before, before, retrained) == 1
    assert relative_residual(2 * before - retrained, before, retrained) == pytest.approx(2)
    assert math.isnan(relative_residual(before, retrained, retrained))
    values = {"before": [before], "unlearned": [retrained], "retrained": [tables(3, 50), retrained]}
    found = {one.row: one.value for one in residual_measures(values, 1, 50)}
    assert found["unlearned"] == 0
    assert found["before"] == 1
    assert found["retrained"] > 0


def test_the_root_mean_square_of_nothing_is_no_number() -> None:
    assert math.isnan(rmse(torch.empty(0), torch.empty(0)))
    assert rmse(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])) == pytest.approx(math.sqrt(2))
