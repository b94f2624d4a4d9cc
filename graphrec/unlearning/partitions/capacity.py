"""Filling clusters of limited size from the nearest pair on, in as many passes as there are clusters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphrec.errors import InputError


def fill(cost: Tensor, capacity: int | Sequence[int] | Tensor) -> Tensor:
    """Give each element the first cluster that has room when all pairs are gone through by ascending cost.

    The outcome of sorting all N x K (element, cluster) pairs by (cost, element, cluster) and taking a pair where its
    element is free and its cluster has room. Until a cluster is full everybody goes to the cheapest one, so no pairs
    are sorted: one sort of the waiting elements for each cluster that fills up, O(K N log N) time, O(N K) memory.

    Args:
        cost: (N, K) finite numbers.
        capacity: of each cluster, or one for all.

    Returns:
        (N,) int64, the cluster of each element.

    Raises:
        InputError: there is no room for all, or a cost is not finite.
    """
    count, clusters = cost.shape
    room = torch.as_tensor(capacity, dtype=torch.int64, device=cost.device).expand(clusters).clone()
    if int(room.sum()) < count:
        raise InputError(f"{count} elements do not fit into {clusters} clusters with room for {int(room.sum())}.")
    if not bool(torch.isfinite(cost).all()):
        raise InputError("a cost is not finite, so that clusters cannot be filled by it.")
    chosen = torch.full((count,), -1, dtype=torch.int64, device=cost.device)
    waiting = torch.arange(count, device=cost.device)
    while len(waiting):
        open_cost = torch.where(room > 0, cost[waiting], torch.inf)
        value, choice = open_cost.amin(1), open_cost.argmin(1)
        order = torch.argsort(value, stable=True)
        ranked = choice[order]
        late = torch.nonzero(place_in_group(ranked, clusters) >= room[ranked])[:, 0]
        # Whoever comes before the first that finds its cluster full is settled; the others look again.
        end = int(late[0]) if len(late) else len(order)
        chosen[waiting[order[:end]]] = ranked[:end]
        room -= torch.bincount(ranked[:end], minlength=clusters)
        waiting = waiting[order[end:]].sort().values
    return chosen


def place_in_group(group: Tensor, count: int) -> Tensor:
    """How many equal entries come before each entry of ``group``, (N,) int64 below ``count``."""
    order = torch.argsort(group, stable=True)
    start = torch.bincount(group, minlength=count).cumsum(0).roll(1)
    start[0] = 0
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - start[group[order]]
    return place
