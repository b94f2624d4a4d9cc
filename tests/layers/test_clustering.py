"""k-means against its definition and against scikit-like facts on planted clusters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphrec.errors import InputError
from graphrec.layers.clustering import kmeans, nearest


def planted(k: int = 6, each: int = 40, dim: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    centres = torch.randn(k, dim, generator=stream) * 20
    owner = torch.arange(k * each) % k
    return centres[owner] + torch.randn(k * each, dim, generator=stream), owner


def test_planted_clusters_are_found() -> None:
    # A start may put two centroids into one cluster; some of ten starts does not.
    x, owner = planted()
    found = [kmeans(x, 6, seed=seed) for seed in range(10)]
    best = min(found, key=lambda one: float((x - one.centroids[one.assignment]).square().sum()))
    pairs = set(zip(owner.tolist(), best.assignment.tolist(), strict=True))
    assert len(pairs) == 6


def test_each_row_is_with_its_nearest_centroid_and_centroids_are_means() -> None:
    x, _ = planted(k=3)
    found = kmeans(x, 7, seed=1, iterations=200)
    assert torch.equal(found.assignment, torch.cdist(x.double(), found.centroids.double()).argmin(1))
    for number, centroid in enumerate(found.centroids):
        torch.testing.assert_close(x[found.assignment == number].mean(0), centroid)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), k=st.integers(1, 12), memory=st.integers(1, 4000), seed=st.integers(0, 99))
def test_nearest_is_the_least_distance_whatever_the_blocks(rows: int, k: int, memory: int, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    x, centroids = (torch.randn(n, 3, generator=stream, dtype=torch.float64) for n in (rows, k))
    number, gap = nearest(x, centroids, memory=memory)
    slow = [[float(((a - b) ** 2).sum()) for b in centroids] for a in x]
    assert number.tolist() == [min(range(k), key=row.__getitem__) for row in slow]
    torch.testing.assert_close(gap, torch.tensor([min(row) for row in slow], dtype=torch.float64))


def test_one_cluster_is_the_mean() -> None:
    x, _ = planted()
    found = kmeans(x, 1, seed=0)
    torch.testing.assert_close(found.centroids[0], x.mean(0))
    assert (found.assignment == 0).all()


def test_as_many_clusters_as_rows_are_the_rows() -> None:
    x = torch.randn(9, 4)
    found = kmeans(x, 9, seed=0)
    torch.testing.assert_close(found.centroids[found.assignment], x)


def test_rows_that_are_equal_leave_no_nan() -> None:
    found = kmeans(torch.ones(12, 3), 4, seed=0)
    assert torch.equal(found.centroids[found.assignment], torch.ones(12, 3))
    assert torch.isfinite(found.centroids).all()


def test_a_sample_moves_the_centroids_and_all_rows_are_assigned() -> None:
    x, _ = planted(k=2, each=400)
    found = kmeans(x, 2, seed=0, sample=16)
    assert len(found.assignment) == 800
    assert torch.equal(found.assignment, torch.cdist(x, found.centroids).argmin(1))


def test_the_seed_decides_and_the_same_seed_gives_the_same() -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    first, again, other = (kmeans(x, 8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.centroids, again.centroids)
    assert not torch.equal(first.centroids, other.centroids)


@pytest.mark.parametrize("k", [0, 5])
def test_a_wrong_number_is_named(k: int) -> None:
    with pytest.raises(InputError, match="between 1 and the 4 rows"):
        kmeans(torch.randn(4, 2), k, seed=0)
