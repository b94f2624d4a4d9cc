"""AUC and TPR with weights, against counting pairs; intervals that cover."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.evaluation.classification import auc
from graphrec.unlearning.evidence.roc import Resamples, curve, interval, resamples

VALUES = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@settings(max_examples=80, deadline=None)
@given(VALUES, VALUES, st.sampled_from([0.0, 0.01, 0.3]))
def test_both_are_those_of_counting(positive: list[int], negative: list[int], at: float) -> None:
    a, b = torch.tensor(positive).double(), torch.tensor(negative).double()
    found = curve(a, b, at=at)
    wins = sum((x > y) + (x == y) / 2 for x in positive for y in negative)
    assert found.auc == pytest.approx(wins / len(positive) / len(negative))
    labels = torch.cat([torch.ones(len(a)), torch.zeros(len(b))])
    assert found.auc == pytest.approx(auc(torch.cat([a, b]), labels))
    best = 0.0
    for threshold in {*positive, *negative, 99}:
        if sum(y >= threshold for y in negative) / len(negative) <= at + 1e-9:
            best = max(best, sum(x >= threshold for x in positive) / len(positive))
    assert found.tpr == pytest.approx(best)


@settings(max_examples=40, deadline=None)
@given(VALUES, VALUES, st.data())
def test_weights_are_repetitions(positive: list[int], negative: list[int], data) -> None:
    counts = [data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)) for n in (len(positive), len(negative))]
    weights = [torch.tensor([row], dtype=torch.float32) for row in counts]
    a, b = torch.tensor(positive).double(), torch.tensor(negative).double()
    found = curve(a, b, Resamples(weights[0], weights[1], False), at=0.3)
    again = curve(a.repeat_interleave(torch.tensor(counts[0])), b.repeat_interleave(torch.tensor(counts[1])), at=0.3)
    if math.isnan(again.auc):
        assert bool(found.auc_draws.isnan().all())
    else:
        assert float(found.auc_draws[0]) == pytest.approx(again.auc)
        assert float(found.tpr_draws[0]) == pytest.approx(again.tpr)


def test_users_are_drawn_with_all_their_pairs_where_there_are_enough() -> None:
    users = torch.arange(40).repeat_interleave(3)
    drawn = resamples(users, torch.arange(40), count=50)
    assert drawn.by_user
    assert torch.equal(drawn.positive[:, ::3], drawn.negative)
    assert torch.equal(drawn.positive[:, ::3], drawn.positive[:, 1::3])
    few = resamples(users[:9], torch.arange(3), count=50)
    assert not few.by_user
    assert bool((few.positive.sum(1) == 9).all())
    assert torch.equal(resamples(users, users, count=5).positive, resamples(users, users, count=5).positive)


def test_intervals_cover_chance_about_as_often_as_they_say() -> None:
    inside = 0
    for seed in range(60):
        stream = torch.Generator().manual_seed(seed)
        a, b = torch.randn(60, generator=stream), torch.randn(60, generator=stream)
        found = curve(a, b, resamples(torch.arange(60), torch.arange(60, 120), count=300, seed=seed))
        low, high = interval(found.auc_draws)
        inside += low <= 0.5 <= high
    assert 51 <= inside <= 60


def test_an_empty_class_has_no_curve() -> None:
    found = curve(torch.empty(0), torch.ones(3))
    assert math.isnan(found.auc)
    assert math.isnan(found.tpr)
    assert all(math.isnan(end) for end in interval(found.auc_draws))
