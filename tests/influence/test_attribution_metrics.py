"""Measures of attributions against slow references, and against models whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graphrec.errors import InputError
from graphrec.influence.attribution_metrics import (
    brittleness,
    draw_subsets,
    leave_one_out,
    linear_datamodelling_score,
    removal_curve,
    spearman,
    stability,
)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=30))
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, float).T
    found = spearman(one, other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)


def test_agreement_of_a_scaled_prediction() -> None:
    actual = np.random.default_rng(0).normal(size=60)
    found = leave_one_out(actual / 4, actual)
    assert found.spearman == found.low == found.high == 1.0
    assert found.pearson == pytest.approx(1.0)
    assert found.slope == pytest.approx(4.0)
    assert found.relative_error == pytest.approx(0.75)
    noisy = leave_one_out(actual + np.random.default_rng(1).normal(size=60), actual)
    assert noisy.low < noisy.spearman < noisy.high < 1.0
    with pytest.raises(InputError, match="3 or more"):
        leave_one_out(actual, actual[:-1])


def test_the_datamodelling_score_of_an_oracle_and_of_noise() -> None:
    """A query that is a sum over what is kept: its own terms score 1, random ones 0 within the interval."""
    stream = np.random.default_rng(0)
    terms = stream.normal(size=(30, 200))
    kept = draw_subsets(50, 200, 0.5, seed=0)
    actual = terms @ kept.T
    oracle = linear_datamodelling_score(-terms, kept, actual)
    assert oracle.mean == pytest.approx(1.0)
    assert oracle.subsets == 50
    noise = linear_datamodelling_score(stream.normal(size=(30, 200)), kept, actual)
    assert noise.low < 0 < noise.high
    assert abs(noise.mean) < 0.15
    with pytest.raises(InputError, match=r"actual \(Q, m\)"):
        linear_datamodelling_score(terms, kept, actual.T)


def test_subsets_have_their_share_and_do_not_depend_on_their_number() -> None:
    kept = draw_subsets(6, 41, 0.5, seed=3)
    assert kept.sum(1).tolist() == [20] * 6
    assert np.array_equal(draw_subsets(2, 41, 0.5, seed=3), kept[:2])
    assert not np.array_equal(kept[0], kept[1])
    users = np.repeat(np.arange(10), 4)
    whole = draw_subsets(5, 40, 0.3, seed=1, groups=users)
    for row in whole:
        by_user = row.reshape(10, 4)
        assert by_user.all(1).sum() == 3
        assert by_user.any(1).sum() == 3
    with pytest.raises(InputError, match="share"):
        draw_subsets(1, 10, 1.0, seed=0)


def test_a_removal_curve_of_a_sum() -> None:
    """Removing what supports a sum lowers it at once, what opposes it raises it; a constant attribution does not."""
    terms = np.random.default_rng(0).normal(size=100)
    found = removal_curve(-terms, lambda kept: float(terms[kept].sum()), [0.1, 0.2, 0.4])
    assert found.shares == (0.0, 0.1, 0.2, 0.4)
    assert found.values["supporting"] == tuple(sorted(found.values["supporting"], reverse=True))
    assert found.values["opposing"] == tuple(sorted(found.values["opposing"]))
    assert len({values[0] for values in found.values.values()}) == 1
    assert found.area > 0
    wrong = removal_curve(terms, lambda kept: float(terms[kept].sum()), [0.1, 0.2, 0.4])
    assert wrong.area < 0
    with pytest.raises(InputError, match="ascend"):
        removal_curve(terms, lambda kept: 0.0, [0.2, 0.1])


@given(st.integers(1, 40), st.integers(0, 60))
def test_brittleness_is_the_smallest_number_that_flips(supporting: int, needed: int) -> None:
    influence = np.concatenate([-np.arange(1.0, supporting + 1), np.arange(5.0)])
    gone: list[int] = []

    def flipped(kept: np.ndarray) -> bool:
        gone.append(int((~kept).sum()))
        assert (influence[~kept] < 0).all()
        return gone[-1] >= needed

    found = brittleness(influence, flipped)
    assert found == (max(needed, 1) if needed <= supporting else None)
    assert len(gone) <= 2 * np.log2(supporting + 1) + 3
    assert brittleness(influence, flipped, most=1) == (1 if needed <= 1 else None)


def test_stability_is_the_mean_over_pairs() -> None:
    values = np.array([[1.0, 2, 3, 4], [1, 2, 4, 3], [4, 3, 2, 1]])
    expected = np.mean([spearman(values[0], values[1]), spearman(values[0], values[2]), spearman(values[1], values[2])])
    assert stability(values) == pytest.approx(expected)
    with pytest.raises(InputError, match="two trainings"):
        stability(values[:1])
