from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch

from graphrec.evaluation import fairness as f

N, M, K = 5, 3, 2


@cache
def everything() -> list[torch.Tensor]:
    """Every set of lists of two different items, out of five, for three users."""
    orders = list(itertools.permutations(range(N), K))
    return [torch.tensor(lists) for lists in itertools.product(orders, repeat=M)]


def counts(lists: torch.Tensor) -> torch.Tensor:
    return torch.bincount(lists.flatten(), minlength=N)


@pytest.mark.parametrize(
    ("measure", "low", "high"),
    [
        (f.jain, 0.4, 0.9),
        (f.qualification, 0.4, 1.0),
        (f.entropy, 0.4307, 0.9697),
        (f.gini, 0.1333, 0.6),
        (f.satisfaction, 0.4, 1.0),
    ],
)
def test_all_possible_lists(measure: object, low: float, high: float) -> None:
    assert callable(measure)
    values = [measure(counts(lists), K) for lists in everything()]
    assert (min(values), max(values)) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    corrected = [measure(counts(lists), K, True) for lists in everything()]
    assert (min(corrected), max(corrected)) == (pytest.approx(0, abs=1e-12), pytest.approx(1, abs=1e-12))
    # The correction keeps the order.
    assert np.corrcoef(values, corrected)[0, 1] == pytest.approx(1)


def test_weighted_gini_is_worst_for_the_same_list_for_all() -> None:
    values = {tuple(lists.flatten().tolist()): f.weighted_gini(lists, N) for lists in everything()}
    assert max(values.values()) == pytest.approx(values[0, 1, 0, 1, 0, 1])
    assert f.weighted_gini(torch.tensor([[0, 1]] * 3), N, True) == pytest.approx(1)
    # Two users and five items: every place may have its own item, and that is the fairest.
    orders = list(itertools.permutations(range(N), K))
    pairs = [f.weighted_gini(torch.tensor(lists), N, True) for lists in itertools.product(orders, repeat=2)]
    assert (min(pairs), max(pairs)) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    # By hand: exposures 1 and 1 / log2(3), three zeros.
    x = sorted([0, 0, 0, 1, 1 / math.log2(3)])
    wanted = sum((2 * (j + 1) - 6) * v for j, v in enumerate(x)) / (5 * sum(x))
    assert f.weighted_gini(torch.tensor([[0, 1]]), N) == pytest.approx(wanted)


@pytest.mark.parametrize("index", range(0, 8000, 571))
def test_disparities_by_their_definition(index: int) -> None:
    lists = everything()[index]
    exposed = np.zeros((M, N))
    for user, row in enumerate(lists.tolist()):
        for rank, item in enumerate(row):
            exposed[user, item] = 0.8**rank
    even = (1 - 0.8**K) / (0.2 * N)
    assert f.individual_disparity(lists, N) == pytest.approx(((exposed - even) ** 2).mean())
    assert f.individual_disparity(lists, N) == pytest.approx(0.1984)
    assert f.all_disparity(lists, N) == pytest.approx(((exposed.mean(0) - even) ** 2).mean())
    shown = [c for c in counts(lists).tolist() if c]
    pairs = [abs(x - y) / max(x, y) for x, y in itertools.combinations(shown, 2)]
    assert f.violation(counts(lists)) == pytest.approx(np.mean(pairs))


def test_nothing_between_worst_and_best_is_nan() -> None:
    one_user = torch.tensor([1, 1, 0, 0, 0])
    for measure in (f.jain, f.qualification, f.entropy, f.gini, f.satisfaction):
        assert math.isnan(measure(one_user, 2, True)), measure
        assert math.isfinite(measure(one_user, 2)), measure
    everybody_gets_all = torch.full((5,), 3)
    for measure in (f.jain, f.qualification, f.entropy, f.gini, f.satisfaction):
        assert math.isnan(measure(everybody_gets_all, 5, True)), measure
    assert math.isnan(f.weighted_gini(torch.tensor([[0, 1]]), 5, True))
    assert math.isnan(f.violation(torch.tensor([3, 0, 0])))


def test_fewer_places_than_items_satisfies_everybody() -> None:
    assert f.satisfaction(torch.tensor([1, 1, 0, 0, 0]), 2) == 1


def test_nothing_recommended() -> None:
    nothing = torch.zeros(4, dtype=torch.int64)
    for measure in (f.jain, f.entropy, f.gini):
        assert math.isnan(measure(nothing, 2)) and math.isnan(measure(nothing, 2, True))
