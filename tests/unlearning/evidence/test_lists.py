"""Likeness of lists against sets and sums written from the definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.unlearning.evidence.lists import common, jaccard, list_measures, overlap, rank_biased_overlap
from graphrec.unlearning.evidence.measures import Measure

LISTS = st.integers(1, 12).flatmap(
    lambda k: st.tuples(*[st.permutations(range(15)).map(lambda order, k=k: order[:k]) for _ in range(2)])
)


def value(found: list[Measure], metric: str, row: str, group: str = "all") -> float:
    return next(one.value for one in found if (one.metric, one.row, one.group) == (metric, row, group))


@settings(max_examples=60, deadline=None)
@given(LISTS)
def test_likeness_is_that_of_sets(pair) -> None:
    first, second = pair
    a, b = torch.tensor([first]), torch.tensor([second])
    k = len(first)
    shared = [len(set(first[:d]) & set(second[:d])) for d in range(1, k + 1)]
    assert common(a, b)[0].tolist() == shared
    assert float(overlap(a, b)) == pytest.approx(shared[-1] / k)
    o = shared[-1] / k
    assert float(jaccard(a, b)) == pytest.approx(o / (2 - o)) == pytest.approx(shared[-1] / len({*first, *second}))
    p = 0.9
    rbo = shared[-1] / k * p**k + (1 - p) / p * sum(shared[d - 1] / d * p**d for d in range(1, k + 1))
    assert float(rank_biased_overlap(a, b)) == pytest.approx(rbo)
    # Extrapolation says what an endless list would give whose later places agree as the first k did.
    endless = (1 - p) * sum(p ** (d - 1) * (shared[d - 1] / d if d <= k else shared[-1] / k) for d in range(1, 400))
    assert float(rank_biased_overlap(a, b)) == pytest.approx(endless)


def test_identical_lists_are_alike_and_disjoint_ones_are_not() -> None:
    lists = torch.stack([torch.randperm(50, generator=torch.Generator().manual_seed(n))[:20] for n in range(30)])
    for similarity in (overlap, jaccard, rank_biased_overlap):
        assert torch.allclose(similarity(lists, lists), torch.ones(30, dtype=torch.float64))
        assert torch.equal(similarity(lists, lists + 50), torch.zeros(30, dtype=torch.float64))


def test_places_count_in_rbo_alone() -> None:
    lists = torch.arange(20)[None]
    turned = lists.flip(1)
    assert float(overlap(lists, turned)) == 1
    assert float(rank_biased_overlap(lists, turned)) < 0.5


def test_what_is_no_item_is_common_to_nothing() -> None:
    short = torch.tensor([[3, 5, -1, -1]])
    assert float(overlap(short, short)) == 1
    assert float(jaccard(short, short)) == 1
    assert common(short, short)[0].tolist() == [1, 2, 2, 2]
    assert float(overlap(short, torch.tensor([[3, 5, 7, 9]]))) == 0.5


def test_the_retrained_row_is_between_any_two_and_apart_leaves_a_reference_out() -> None:
    a, b, c = torch.tensor([[0, 1]]), torch.tensor([[0, 2]]), torch.tensor([[3, 4]])
    groups = {"all": torch.tensor([True]), "far": torch.tensor([False])}
    found = list_measures({"before": [a], "unlearned": [c], "retrained": [a, b, c]}, [2], groups, [1])
    assert value(found, "overlap@2", "retrained") == pytest.approx((0.5 + 0 + 0) / 3)
    assert value(found, "overlap@2", "before") == 0.5
    assert value(found, "overlap@2", "unlearned") == 0
    assert not [one for one in found if one.group == "far"]
    assert list_measures({"before": [a]}, [2], groups) == []
    alone = list_measures({"before": [a], "retrained": [b]}, [2], {"all": torch.tensor([True])})
    assert {one.row for one in alone} == {"before"}
    assert all(math.isnan(one.gap) for one in alone)
