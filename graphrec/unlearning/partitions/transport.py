"""Clusters of equal size at the least cost: optimal transport to K places, and k-means on top of it (UltraRE)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.layers.clustering import cluster_means
from graphrec.unlearning.partitions.capacity import fill
from graphrec.unlearning.partitions.clustering import distances, starting_points


@dataclass(frozen=True)
class Clusters:
    """What :func:`transport_clusters` gives back.

    Attributes:
        cluster: (N,) int64.
        objective: the sum of squared distances to the centroids after each assignment; it never rises.
    """

    cluster: Tensor
    objective: tuple[float, ...]


def transport_clusters(x: Tensor, clusters: int, *, rounds: int = 10, seed: int = 0) -> Clusters:
    r"""Optimal balanced clustering (UltraRE, Li et al., NeurIPS 2023): alternate the cheapest assignment with even
    sizes and the means of the clusters.

    Each assignment is the optimum of :math:`\min_T \sum T_{uc} \|x_u - c\|^2` over plans with even marginals, whose
    corners are assignments with sizes floor(N / K) and ceil(N / K); Sinkhorn's entropic plan is only its start.

    Args:
        x: (N, D).
        clusters: K.
        rounds: at most; it ends when a round changes nothing.
        seed: of the first centroids.
    """
    x = x.double()
    centroids = x[starting_points(len(x), clusters, seed, x.device)]
    cluster: Tensor | None = None
    objective: list[float] = []
    for _ in range(rounds):
        cost = distances(x, centroids).square()
        found = balanced_assignment(cost, start=cluster)
        objective.append(float(cost.gather(1, found.unsqueeze(1)).sum()))
        if cluster is not None and torch.equal(found, cluster):
            break
        cluster = found
        centroids = cluster_means(x, cluster, centroids)
    assert cluster is not None
    return Clusters(cluster, tuple(objective))


def even_sizes(count: int, clusters: int) -> Tensor:
    """Sizes (K,) that differ by at most one and add up to N, the larger ones first."""
    small, larger = divmod(count, clusters)
    return small + (torch.arange(clusters) < larger).long()


def balanced_assignment(cost: Tensor, *, start: Tensor | None = None) -> Tensor:
    """The cheapest assignment of N elements to K clusters of floor(N / K) or ceil(N / K) elements.

    Starts from Sinkhorn's potentials (or from ``start`` where that is cheaper) and cancels cycles of negative cost in
    the graph of the K clusters, whose arc a -> b is the cheapest move of an element from a to b; without such a cycle
    the assignment is optimal. O(N K) memory, K small.

    Args:
        cost: (N, K) float64.
        start: (N,) an assignment with even sizes.

    Returns:
        (N,) int64.
    """
    count, clusters = cost.shape
    sizes = even_sizes(count, clusters).to(cost.device)
    if count == 0 or clusters == 1:
        return torch.zeros(count, dtype=torch.int64, device=cost.device)
    reduced = cost - sinkhorn_potentials(cost)
    # By regret rather than by cost: an element gives way where its next best is nearly as good.
    chosen = fill(reduced - reduced.amin(1, keepdim=True), sizes)
    if start is not None and _total(cost, start) <= _total(cost, chosen):
        chosen = start.clone()
    _cancel_cycles(cost, chosen, clusters)
    return chosen


def _total(cost: Tensor, chosen: Tensor) -> float:
    return float(cost.gather(1, chosen.unsqueeze(1)).sum())


def sinkhorn_potentials(cost: Tensor, *, steps: int = 8, iterations: int = 15) -> Tensor:
    """Potentials (K,) of the clusters in the entropic transport problem with even marginals.

    In the logarithmic domain; the entropy's weight is a quarter of the spread of the costs and is quartered from step
    to step.

    Args:
        cost: (N, K).
        steps: weights of the entropy.
        iterations: at each.
    """
    count, clusters = cost.shape
    potential = cost.new_zeros(clusters)
    spread = float(cost.max() - cost.min())
    if spread <= 0:
        return potential
    target = cost.new_tensor(count / clusters).log()
    weight = spread
    for _ in range(steps):
        weight /= 4
        for _ in range(iterations):
            scaled = (potential - cost) / weight
            rows = scaled.logsumexp(1, keepdim=True)
            potential = potential - weight * ((scaled - rows).logsumexp(0) - target)
    return potential - potential.mean()


def _cancel_cycles(cost: Tensor, chosen: Tensor, clusters: int) -> None:
    """Change ``chosen`` until no cycle of moves lowers the cost."""
    small = len(cost) // clusters
    uneven = len(cost) % clusters > 0
    sizes = torch.bincount(chosen, minlength=clusters).tolist()
    arcs = [_arcs(cost, chosen, cluster) for cluster in range(clusters)]
    tolerance = 1e-12 * max(float(cost.abs().max()), 1e-300)
    while True:
        weight = torch.stack([values for values, _ in arcs]).cpu()
        free = torch.zeros(clusters, clusters, dtype=torch.bool)
        if uneven:
            # The extra place may change hands: from a cluster that has it to one that has not.
            large = torch.tensor([size > small for size in sizes])
            free = ~large[:, None] & large[None, :] & (weight > 0)
            weight = torch.where(free, 0.0, weight)
        cycle = _negative_cycle(weight, tolerance)
        if cycle is None:
            return
        for source, goal in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            if not free[source, goal]:
                chosen[arcs[source][1][goal]] = goal
                sizes[source] -= 1
                sizes[goal] += 1
        for cluster in cycle:
            arcs[cluster] = _arcs(cost, chosen, cluster)


def _arcs(cost: Tensor, chosen: Tensor, cluster: int) -> tuple[Tensor, Tensor]:
    """The cheapest move from a cluster to each other one, (K,), and the element (K,) that would move."""
    members = torch.nonzero(chosen == cluster)[:, 0]
    if len(members) == 0:
        none = torch.full((cost.shape[1],), torch.inf, dtype=cost.dtype, device=cost.device)
        return none, torch.zeros(cost.shape[1], dtype=torch.int64, device=cost.device)
    change = cost[members] - cost[members, cluster].unsqueeze(1)
    best = change.argmin(0)
    values = change.gather(0, best.unsqueeze(0))[0]
    values[cluster] = torch.inf
    return values, members[best]


def _negative_cycle(weight: Tensor, tolerance: float) -> list[int] | None:
    """A simple cycle of negative total weight in a graph of K nodes (Bellman and Ford), None where there is none.

    Args:
        weight: (K, K), infinite where there is no arc.
        tolerance: a total above minus this counts as zero.
    """
    count = len(weight)
    best = torch.zeros(count, dtype=weight.dtype)
    previous = torch.full((count,), -1, dtype=torch.int64)
    for _ in range(count):
        through = best[:, None] + weight
        value, source = through.min(0)
        better = value < best - tolerance
        if not bool(better.any()):
            return None
        best = torch.where(better, value, best)
        previous = torch.where(better, source, previous)
    node = int(torch.nonzero(better)[0])
    for _ in range(count):
        node = int(previous[node])
    cycle = [node]
    while (before := int(previous[cycle[-1]])) != node:
        cycle.append(before)
    cycle.reverse()
    total = sum(float(weight[a, b]) for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    return cycle if total < -tolerance else None
