"""Balanced label propagation (GraphEraser's BLPA): nodes move to where most of their neighbours are, while there is
room."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from graphrec import randomness
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spmm import spmm
from graphrec.unlearning.partitions.capacity import sum_before
from graphrec.unlearning.partitions.clustering import capacity_of

Neighbours = Callable[[Tensor], Tensor]


def user_neighbours(adj: Adjacency) -> Neighbours:
    r"""Votes of the users who share items with a user: an item's users have one vote together, and nobody votes for
    oneself.

    GraphEraser partitions a graph of nodes of one kind; users are neighbours here by the items between them,
    :math:`A D_i^{-1} A^\top` without its diagonal. With votes undivided the few items that everybody has would decide.

    Args:
        adj: (U, I), of ones.
    """
    share = 1.0 / adj.degrees(1).clamp_min(1).to(torch.float32)
    matrix = adj.with_stored_values(None)
    own = spmm(matrix, share.unsqueeze(1))

    def votes(labels: Tensor) -> Tensor:
        reached = spmm(matrix.transposed, labels) * share.unsqueeze(1)
        return spmm(matrix, reached) - own * labels

    return votes


def label_propagation(
    votes: Neighbours,
    count: int,
    clusters: int,
    *,
    slack: float = 0.005,
    rounds: int = 50,
    seed: int = 0,
    weight: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Balanced label propagation (GraphEraser, Chen et al., CCS 2022, algorithm 1).

    It starts from a random even cut. In a round each node that has more votes for another cluster than for its own
    asks for the one with most; requests are met by descending votes while the cluster has room, and again with the room
    that those who left have made, until nobody moves. It ends when a round moves nobody.

    Args:
        votes: labels (N, K) of zeros and ones to votes (N, K).
        count: N.
        clusters: K.
        slack: how far above N / K a cluster may grow.
        rounds: at most.
        seed: of the first cut.
        weight: (N,) int64, what each node takes of a cluster's room; a cluster has room while it holds less than its
            capacity. None: 1. The first cut is even in nodes.
        device: where the labels are.

    Returns:
        (N,) int64.
    """
    weight = torch.ones(count, dtype=torch.int64, device=device) if weight is None else weight
    capacity = capacity_of(int(weight.sum()), clusters, slack)
    cluster = even_cut(
        randomness.hash_bits(randomness.derive(seed, "cut"), torch.arange(count, device=device)), clusters
    )
    for _ in range(rounds):
        wanted = votes(one_hot(cluster, clusters).to(torch.float32))
        strength, target = wanted.amax(1), wanted.argmax(1)
        here = wanted.gather(1, cluster.unsqueeze(1))[:, 0]
        # Sums of shares: a tie that only rounding breaks is none.
        asking = torch.nonzero(strength > here * (1 + 1e-5) + 1e-7)[:, 0]
        asking = asking[torch.argsort(strength[asking], descending=True, stable=True)]
        if not _move(cluster, asking, target, weight, clusters, capacity):
            break
    return cluster


def _move(cluster: Tensor, asking: Tensor, target: Tensor, weight: Tensor, clusters: int, capacity: int) -> int:
    """Move who asks, the first ones first, while there is room; the number of moves."""
    moved = 0
    while len(asking):
        room = capacity - weight.new_zeros(clusters).index_add_(0, cluster, weight)
        goal = target[asking]
        granted = sum_before(goal, weight[asking], clusters) < room[goal]
        if not bool(granted.any()):
            break
        cluster[asking[granted]] = goal[granted]
        moved += int(granted.sum())
        asking = asking[~granted]
    return moved


def even_cut(keys: Tensor, clusters: int) -> Tensor:
    """Clusters (N,) of sizes that differ by at most one: the elements in the order of their keys, cut in K runs."""
    place = torch.empty_like(keys)
    place[torch.argsort(keys, stable=True)] = torch.arange(len(keys), device=keys.device)
    return place * clusters // max(len(keys), 1)
