from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch_geometric import metrics as pyg

from graphrec.evaluation import beyond_accuracy as b


def lists(seed: int = 0, users: int = 12, items: int = 20, k: int = 5) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([random.permutation(items)[:k] for _ in range(users)]))


SHORT = torch.tensor([[0, 1, 2], [1, -1, -1], [-1, -1, -1]])


def test_exposure_coverage_and_inequality() -> None:
    made = lists()
    counts = [int((made == item).sum()) for item in range(20)]
    exposed = b.exposure(made, 20)
    assert exposed.tolist() == counts
    assert b.coverage(exposed) == sum(c > 0 for c in counts) / 20
    # Half the mean absolute difference of all pairs over the mean.
    difference = sum(abs(x - y) for x in counts for y in counts) / 400
    assert b.gini(exposed) == pytest.approx(difference / (2 * np.mean(counts)))
    share = [c / 60 for c in counts if c]
    assert b.entropy(exposed) == pytest.approx(-sum(p * math.log(p) for p in share))


def test_short_and_empty_lists() -> None:
    assert b.exposure(SHORT, 4).tolist() == [1, 2, 1, 0]
    assert b.user_coverage(SHORT) == pytest.approx(2 / 3)
    popularity = torch.tensor([4, 2, 0, 9])
    torch.testing.assert_close(
        b.average_popularity(SHORT, popularity), torch.tensor([2.0, 2.0, math.nan], dtype=torch.float64), equal_nan=True
    )
    assert b.tail_count(SHORT, torch.tensor([False, True, True, False])).tolist() == [2, 1, 0]
    assert b.novelty(SHORT, popularity, 8)[1] == 2.0
    assert b.novelty(SHORT, popularity, 8)[0] == pytest.approx((1 + 2 + 3) / 3)
    assert math.isnan(b.gini(torch.zeros(3))) and math.isnan(b.entropy(torch.zeros(3)))


def test_even_and_concentrated_exposure() -> None:
    assert b.gini(torch.full((7,), 3)) == pytest.approx(0)
    assert b.gini(torch.tensor([0, 0, 0, 9])) == pytest.approx(0.75)
    assert b.entropy(torch.full((8,), 3)) == pytest.approx(math.log(8))


def test_the_tail_is_what_the_head_leaves() -> None:
    # 100 interactions: 60 + 20 hold 80 of them, the rest is the tail, with the item that was never seen.
    popularity = torch.tensor([5, 60, 0, 20, 15])
    assert b.tail_items(popularity).tolist() == [True, False, True, False, True]
    assert b.tail_items(torch.zeros(3, dtype=torch.int64)).all()
    assert b.tail_share(torch.tensor([[1, 0], [3, 1]]), b.tail_items(popularity)).tolist() == [0.5, 0.0]


def test_torch_geometric_agrees() -> None:
    made, popularity = lists(3), torch.arange(20)
    nothing = torch.zeros(2, 1, dtype=torch.int64)
    for theirs, ours in (
        (pyg.LinkPredCoverage(5, num_dst_nodes=20), b.coverage(b.exposure(made, 20))),
        (pyg.LinkPredPersonalization(5), b.personalisation(made)),
        (pyg.LinkPredAveragePopularity(5, popularity.float()), float(b.average_popularity(made, popularity).mean())),
    ):
        theirs.update(made, nothing)
        if isinstance(theirs, pyg.LinkPredPersonalization):
            # Theirs divides common items by k, not by their union.
            common = [len(set(x) & set(y)) for x, y in itertools.combinations(made.tolist(), 2)]
            assert float(theirs.compute()) == pytest.approx(1 - np.mean(common) / 5, abs=1e-6)
            assert ours == pytest.approx(1 - np.mean([c / (10 - c) for c in common]))
        else:
            assert ours == pytest.approx(float(theirs.compute()), abs=1e-6)


def test_diversity_is_the_mean_over_pairs() -> None:
    made = torch.cat([lists(4), torch.tensor([[3, 7, -1, -1, -1], [3, -1, -1, -1, -1]])])
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 6)))
    features[5] = 0
    values = b.diversity(made, features, block=5)
    for row, value in zip(made.tolist(), values.tolist(), strict=True):
        pairs = list(itertools.combinations([item for item in row if item >= 0], 2))
        if not pairs:
            assert math.isnan(value)
            continue
        similar = [float(torch.cosine_similarity(features[x], features[y], dim=0)) for x, y in pairs]
        assert value == pytest.approx(np.mean([1 - s for s in similar]))


def test_personalisation_by_drawn_pairs_comes_near() -> None:
    made = lists(5, users=60)
    whole = b.personalisation(made)
    assert b.personalisation(made, pairs=1500, seed=1) == pytest.approx(whole, abs=0.03)
    assert b.personalisation(made[:1].expand(4, -1)) == 0
    assert math.isnan(b.personalisation(made[:1]))
