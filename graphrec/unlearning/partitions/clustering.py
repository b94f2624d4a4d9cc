"""k-means with clusters of limited size: of vectors (BEKM, UBP, IBP) and of interactions (InBP)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphrec import randomness
from graphrec.errors import InputError
from graphrec.layers.clustering import cluster_means
from graphrec.unlearning.partitions.capacity import fill


def capacity_of(count: int, clusters: int, slack: float) -> int:
    """``ceil((1 + slack) N / K)``: the most that a cluster may hold."""
    if clusters < 1:
        raise InputError(f"the number of shards must be 1 or more, found {clusters}.")
    if slack < 0:
        raise InputError(f"slack must be 0 or more, found {slack}.")
    # An even cut is always possible, whatever rounding does to the product.
    return max(math.ceil((1 + slack) * count / clusters - 1e-9), -(-count // clusters))


def starting_points(count: int, clusters: int, seed: int, device: torch.device) -> Tensor:
    """Positions (K,) of the elements whose vectors are the first centroids, drawn without repetition."""
    if count < clusters:
        raise InputError(f"{count} elements cannot start {clusters} clusters.")
    bits = randomness.hash_bits(randomness.derive(seed, "centroids"), torch.arange(count, device=device))
    return torch.argsort(bits, stable=True)[:clusters]


def distances(x: Tensor, centroids: Tensor) -> Tensor:
    """Euclidean distances (N, K), by differences: equal vectors have distance 0."""
    return torch.cdist(x, centroids, compute_mode="donot_use_mm_for_euclid_dist")


def balanced_clusters(
    x: Tensor,
    clusters: int,
    *,
    slack: float = 0.2,
    rounds: int = 50,
    seed: int = 0,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Balanced k-means: pairs (element, centroid) by ascending distance fill clusters up to their capacity.

    RecEraser's UBP and IBP (Chen et al., WWW 2022, algorithm 1: slack .2, 50 rounds) and GraphEraser's BEKM (Chen et
    al., CCS 2022, algorithm 2: slack .005). New centroids are means in each dimension, as the papers say; RecEraser's
    code averages over elements and dimensions at once, so that after a round it measures distances to constant vectors.

    Args:
        x: (N, D) vectors.
        clusters: K.
        slack: how far above N / K a cluster may grow.
        rounds: at most; it ends when a round changes nothing.
        seed: of the first centroids.
        weight: (N,) int64, what each element takes of a cluster's room (see :func:`fill`); None: 1.

    Returns:
        (N,) int64.
    """
    capacity = capacity_of(len(x) if weight is None else int(weight.sum()), clusters, slack)
    centroids = x[starting_points(len(x), clusters, seed, x.device)]
    cluster = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
    for _ in range(rounds):
        found = fill(distances(x, centroids), capacity, weight)
        if torch.equal(found, cluster):
            break
        cluster = found
        centroids = cluster_means(x, cluster, centroids)
    return cluster


def interaction_clusters(
    users: Tensor,
    items: Tensor,
    edges: Tensor,
    clusters: int,
    *,
    slack: float = 0.2,
    rounds: int = 50,
    seed: int = 0,
) -> Tensor:
    r"""RecEraser's InBP: an interaction's distance to a cluster is
    :math:`\|p_u - \bar p_c\| \cdot \|q_i - \bar q_c\|`.

    The centroids are the means of the users' and of the items' vectors over the cluster's interactions. The authors'
    code multiplies squared distances, which orders the pairs alike.

    Args:
        users: p, (U, D).
        items: q, (I, D).
        edges: (2, E), codes of users and items.
        clusters: K.
        slack: how far above E / K a cluster may grow.
        rounds: at most.
        seed: of the first centroids.

    Returns:
        (E,) int64.
    """
    count = edges.shape[1]
    capacity = capacity_of(count, clusters, slack)
    start = starting_points(count, clusters, seed, users.device)
    first, second = users[edges[0, start]], items[edges[1, start]]
    cluster = torch.full((count,), -1, dtype=torch.int64, device=users.device)
    for _ in range(rounds):
        found = fill(distances(users, first)[edges[0]] * distances(items, second)[edges[1]], capacity)
        if torch.equal(found, cluster):
            break
        cluster = found
        first = _means_over_edges(users, edges[0], cluster, first)
        second = _means_over_edges(items, edges[1], cluster, second)
    return cluster


def _means_over_edges(x: Tensor, ends: Tensor, cluster: Tensor, before: Tensor) -> Tensor:
    """Means (K, D) of the rows at the ends of each cluster's edges, counted once for each edge."""
    clusters = len(before)
    # How often each node is in each cluster, so that no (E, D) tensor is made.
    times = torch.bincount(cluster * len(x) + ends, minlength=clusters * len(x)).view(clusters, len(x))
    size = times.sum(1, keepdim=True)
    return torch.where(size > 0, (times.to(x.dtype) @ x) / size.clamp_min(1), before)
