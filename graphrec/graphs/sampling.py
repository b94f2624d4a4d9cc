"""Training examples drawn on the device: positives, and negatives that are checked against the matrix.

Every draw is a hash of what it is for (seed, user, item or number of the example, round), see
:mod:`graphrec.randomness`. Letters: U users, I items, E edges, B examples.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.randomness import derive, hash_bits, hash_integers

_ROUNDS = 8
_BLOCK = 1 << 17


class Positives(NamedTuple):
    """Training pairs of one epoch.

    Attributes:
        users: (E,) int64.
        items: (E,) int64.
        edge: (E,) int64, the edge id of each pair; its position in the edge list where the matrix carries no
            ids.
    """

    users: Tensor
    items: Tensor
    edge: Tensor


def positive_pairs(adj: Adjacency, *, positives: str = "user", seed: int) -> Positives:
    """The pairs of one epoch, as many as there are edges, in random order.

    Args:
        adj: users x items.
        positives: ``user`` draws each time a user uniformly (with replacement, among those with items), then
            one of the user's items uniformly, as the published LightGCN code does; ``edge`` is a permutation
            of all edges, sorted by a hash of (user, item), so that taking one edge away leaves the order of
            the others.
        seed: a seed of this epoch.

    Raises:
        InputError: an unknown word, or no edges at all.
    """
    if len(adj) == 0:
        raise InputError("there are no edges to draw positives from.")
    if positives == "user":
        entry = _entries_by_user(adj, seed)
    elif positives == "edge":
        bits = hash_bits(derive(seed, "order"), adj.rows().long(), adj.col.long())
        entry = torch.argsort(bits, stable=True)
    else:
        raise unknown("way to draw positives", positives, ("user", "edge"))
    listed = entry if adj.edge is None else adj.edge[entry]
    edge = listed if adj.edge_id is None else adj.edge_id[entry]
    return Positives(adj.rows()[entry].long(), adj.col[entry].long(), edge)


def _entries_by_user(adj: Adjacency, seed: int) -> Tensor:
    """Stored entries (E,): a user uniformly among those with items, then one of the user's entries."""
    draw = torch.arange(len(adj), device=adj.device)
    degree = adj.degrees(0)
    # A draw that meets a user without items is made again, so that who has items does not shift the others'
    # draws.
    users = hash_integers(derive(seed, "users"), adj.shape[0], draw, 0)
    for turn in range(1, _ROUNDS):
        empty = torch.nonzero(degree[users] == 0)[:, 0]
        if len(empty) == 0:
            break
        users[empty] = hash_integers(derive(seed, "users"), adj.shape[0], empty, turn)
    else:
        active = torch.nonzero(degree)[:, 0]
        empty = torch.nonzero(degree[users] == 0)[:, 0]
        users[empty] = active[hash_integers(derive(seed, "users"), len(active), empty, _ROUNDS)]
    return adj.rowptr[users].long() + hash_integers(derive(seed, "items"), degree[users], draw, users)


def sample_negatives(
    adj: Adjacency,
    users: Tensor,
    count: int,
    *,
    seed: int,
    keys: Tensor | None = None,
    saturated: Literal["any", "error"] = "any",
) -> Tensor:
    """Items drawn uniformly among those that a user has no edge to.

    A draw is uniform over all items; one that is an edge is drawn again. What still meets edges after a few
    rounds (users with almost all items) is drawn exactly, by rank among the items left.

    Args:
        adj: users x items.
        users: (B,) int64.
        count: n, negatives of each example.
        seed: a seed of this epoch.
        keys: (B,) int64, what tells examples of one user apart. With the positive items as keys, an
            example's negatives do not depend on which other examples there are; None: the number of the
            example.
        saturated: what a user gets who has every item: ``any`` item uniformly, or an ``error``.

    Returns:
        (B, n) int64.

    Raises:
        InputError: there are no items; ``saturated="error"`` and a user has all of them.
    """
    if adj.shape[1] == 0:
        raise InputError("there are no items to draw negatives from.")
    if count < 1:
        raise InputError(f"the number of negatives must be 1 or more, found {count}.")
    keys = torch.arange(len(users), device=users.device) if keys is None else keys
    full = _distinct_degrees(adj) >= adj.shape[1]
    some_full = bool(full.any())
    if some_full and saturated == "error" and bool(full[users].any()):
        at = int(users[full[users]][0])
        raise InputError(f"user {at} has an edge to every item, so that there is no negative to draw.")
    seed = derive(seed, "negatives")
    # In blocks that stay in the cache: all of it is passes over short arrays.
    step = max(1, _BLOCK // count)
    parts = [
        _negatives(adj, users[start : start + step], count, seed, keys[start : start + step], full)
        for start in range(0, len(users), step)
    ]
    return torch.cat(parts) if parts else users.new_empty(0, count)


def _negatives(adj: Adjacency, users: Tensor, count: int, seed: int, keys: Tensor, full: Tensor) -> Tensor:
    number = torch.arange(count, device=users.device).repeat(len(users))
    users, keys = users.repeat_interleave(count), keys.repeat_interleave(count)
    drawn = hash_integers(seed, adj.shape[1], users, keys, number, 0)
    again = torch.nonzero(adj.contains(users, drawn) & ~full[users])[:, 0]
    for turn in range(1, _ROUNDS):
        if len(again) == 0:
            break
        who = users[again]
        fresh = hash_integers(seed, adj.shape[1], who, keys[again], number[again], turn)
        drawn[again] = fresh
        again = again[adj.contains(who, fresh)]
    if len(again):
        who = users[again]
        left = adj.shape[1] - _distinct_degrees(adj)[who]
        rank = hash_integers(seed, left, who, keys[again], number[again], _ROUNDS)
        drawn[again] = nth_absent(adj, who, rank)
    return drawn.view(-1, count)


def nth_absent(adj: Adjacency, rows: Tensor, rank: Tensor) -> Tensor:
    """The column number ``rank`` (from 0) among those without an entry in the row, (B,) int64."""
    distinct = _without_parallel(adj)
    start = distinct.rowptr[rows].long()
    low, high = torch.zeros_like(rank), distinct.rowptr[rows + 1].long() - start
    longest = int(high.max()) if len(high) else 0
    for _ in range(longest.bit_length()):
        # Finds how many entries lie before the wanted column: those with (column - number of entries before)
        # <= rank.
        middle = (low + high) >> 1
        at = (start + middle).clamp_max(len(distinct) - 1)
        before = (middle < high) & (distinct.col[at].long() - middle <= rank)
        low = torch.where(before, middle + 1, low)
        high = torch.where(before, high, middle)
    return rank + low


def _without_parallel(adj: Adjacency) -> Adjacency:
    if "distinct" not in adj.cache:
        rows, cols = adj.rows(), adj.col
        first = torch.ones(len(adj), dtype=torch.bool, device=adj.device)
        first[1:] = (rows[1:] != rows[:-1]) | (cols[1:] != cols[:-1])
        kept = adj
        if not bool(first.all()):
            kept = Adjacency.from_edges(torch.stack([rows[first], cols[first]]), adj.shape)
        adj.cache["distinct"] = kept.rowptr, kept.col
    rowptr, col = adj.cache["distinct"]
    return Adjacency(rowptr, col, adj.shape)


def _distinct_degrees(adj: Adjacency) -> Tensor:
    """Items of each user, parallel edges counted once, (U,) int64."""
    return _without_parallel(adj).degrees(0)


def shared_negatives(adj: Adjacency, count: int, *, seed: int, batch: int = 0) -> Tensor:
    """Items drawn uniformly with replacement for a whole batch to share, (n,) int64.

    They are not checked against anybody's edges: :meth:`Adjacency.contains` tells which are positives of
    whom.

    Args:
        adj: users x items.
        count: n.
        seed: a seed of this epoch.
        batch: the number of the batch in its epoch.
    """
    if adj.shape[1] == 0:
        raise InputError("there are no items to draw negatives from.")
    number = torch.arange(count, device=adj.device)
    return hash_integers(derive(seed, "shared negatives"), adj.shape[1], number, batch)
