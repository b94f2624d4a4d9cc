"""k-means on the device, by Lloyd's iterations in blocks of rows.

Letters: N rows, D width, k clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.randomness import derive, hash_bits

MEMORY_BUDGET = 64 * 2**20
"""Bytes that the distances of one block may take."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of rows.

    Attributes:
        centroids: (k, D), the means of the rows.
        assignment: (N,) int64, the centroid nearest to each row.
    """

    centroids: Tensor
    assignment: Tensor


@torch.no_grad()
def kmeans(
    x: Tensor,
    k: int,
    *,
    seed: int,
    iterations: int = 25,
    sample: int | None = 256,
    memory: int = MEMORY_BUDGET,
) -> Clusters:
    """Euclidean k-means of the rows of ``x``.

    Starts from k rows, and moves each centroid to the mean of the rows nearest to it, ``iterations`` times or until
    none changes. A centroid that is nearest to no row takes the place of a row that is far from its own. The defaults
    are those of faiss. The start and the sample are hashes of the seed and of row numbers.

    Args:
        x: (N, D) floating.
        k: from 1 to N.
        seed: a derived seed.
        iterations: see above.
        sample: at most so many rows for each cluster move the centroids; None: all. Every row is assigned.
        memory: bytes that distances may take at a time.

    Raises:
        InputError: k lies outside.
    """
    if not 1 <= k <= len(x):
        raise InputError(f"the number of clusters must lie between 1 and the {len(x)} rows, found {k}.")
    order = torch.argsort(hash_bits(derive(seed, "order"), torch.arange(len(x), device=x.device)), stable=True)
    rows = x if sample is None or len(x) <= sample * k else x.index_select(0, order[: sample * k])
    centroids, before = x.index_select(0, order[:k]), None
    for _ in range(iterations):
        assignment, gap = nearest(rows, centroids, memory=memory)
        if before is not None and torch.equal(assignment, before):
            break
        before = assignment
        centroids = cluster_means(rows, assignment, centroids)
        empty = torch.nonzero(torch.bincount(assignment, minlength=k) == 0)[:, 0]
        if len(empty):
            centroids[empty] = rows.index_select(0, gap.topk(len(empty)).indices)
    return Clusters(centroids, nearest(x, centroids, memory=memory)[0])


def cluster_means(x: Tensor, cluster: Tensor, before: Tensor) -> Tensor:
    """The mean vector (K, D) of each cluster's rows (N, D); a cluster without any keeps its row of ``before``."""
    sums = torch.zeros_like(before).index_add_(0, cluster, x)
    size = torch.bincount(cluster, minlength=len(before)).unsqueeze(1)
    return torch.where(size > 0, sums / size.clamp_min(1), before)


def nearest(x: Tensor, centroids: Tensor, *, memory: int = MEMORY_BUDGET) -> tuple[Tensor, Tensor]:
    """The number (N,) of the centroid nearest to each row, the first of several, and the squared distance (N,)."""
    half = 0.5 * centroids.square().sum(1)
    block = max(1, memory // max(1, len(centroids) * x.element_size()))
    number = torch.empty(len(x), dtype=torch.int64, device=x.device)
    gap = x.new_empty(len(x))
    for start in range(0, len(x), block):
        part = slice(start, start + block)
        # |x - c|^2 / 2 without |x|^2 / 2, which is the same for all centroids.
        least = torch.addmm(half, x[part], centroids.T, alpha=-1).min(1)
        number[part] = least.indices
        gap[part] = 2 * least.values + x[part].square().sum(1)
    return number, gap.clamp_min_(0)
