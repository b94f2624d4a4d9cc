"""Filling clusters of limited size from the nearest pair on, in as many passes as there are clusters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphrec.errors import InputError


def fill(cost: Tensor, capacity: int | Sequence[int] | Tensor, weight: Tensor | None = None) -> Tensor:
    """Give each element the first cluster that has room when all pairs are gone through by ascending cost.

    The outcome of sorting all N x K (element, cluster) pairs by (cost, element, cluster) and taking a pair where its
    element is free and its cluster has room. Until a cluster is full everybody goes to the cheapest one, so no pairs
    are sorted: one sort of the waiting elements for each cluster that fills up, O(K N log N) time, O(N K) memory.

    Args:
        cost: (N, K) finite numbers.
        capacity: of each cluster, or one for all.
        weight: (N,) int64 above 0, what each element takes of the room; a cluster has room while it holds less than its
            capacity, so that it may end above by less than one element. None: 1 each, and no cluster is above.

    Returns:
        (N,) int64, the cluster of each element.

    Raises:
        InputError: there is no room for all, or a cost is not finite.
    """
    count, clusters = cost.shape
    room = torch.as_tensor(capacity, dtype=torch.int64, device=cost.device).expand(clusters).clone()
    weight = torch.ones(count, dtype=torch.int64, device=cost.device) if weight is None else weight
    if int(room.sum()) < int(weight.sum()):
        raise InputError(f"{int(weight.sum())} do not fit into {clusters} clusters with room for {int(room.sum())}.")
    if not bool(torch.isfinite(cost).all()):
        raise InputError("a cost is not finite, so that clusters cannot be filled by it.")
    chosen = torch.full((count,), -1, dtype=torch.int64, device=cost.device)
    waiting = torch.arange(count, device=cost.device)
    while len(waiting):
        open_cost = torch.where(room > 0, cost[waiting], torch.inf)
        value, choice = open_cost.amin(1), open_cost.argmin(1)
        order = torch.argsort(value, stable=True)
        ranked, taken = choice[order], weight[waiting[order]]
        late = torch.nonzero(sum_before(ranked, taken, clusters) >= room[ranked])[:, 0]
        # Whoever comes before the first that finds its cluster full is settled; the others look again.
        end = int(late[0]) if len(late) else len(order)
        chosen[waiting[order[:end]]] = ranked[:end]
        room.index_add_(0, ranked[:end], -taken[:end])
        waiting = waiting[order[end:]].sort().values
    return chosen


def sum_before(group: Tensor, weight: Tensor, count: int) -> Tensor:
    """The weights (N,) of the entries of the same group, below ``count``, that come before each, added up; int64."""
    order = torch.argsort(group, stable=True)
    running = weight[order].cumsum(0) - weight[order]
    start = torch.zeros(count, dtype=torch.int64, device=group.device).index_add_(0, group, weight).cumsum(0)
    start = torch.cat([start.new_zeros(1), start[:-1]])
    found = torch.empty_like(running)
    found[order] = running - start[group[order]]
    return found
