"""Ripple sets: for each user a sample of the edges that are reached, hop by hop, from what the user has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.owners import place_within
from graphrec.graphs.relational import RelationalGraph
from graphrec.randomness import derive, hash_bits, hash_integers, joined_bits

BLOCK = 1 << 22
"""Candidate edges that are looked at together, where one user has no more than that."""


def ripple_sets(
    graph: RelationalGraph,
    indptr: Tensor,
    nodes: Tensor,
    *,
    num_hops: int,
    size: int,
    seed: int,
    resample: bool = False,
) -> Tensor:
    """Up to ``size`` edges of each hop of each user.

    Candidates of hop 1 are the edges whose head is one of the user's nodes, of hop k those whose head is a tail in the
    sample of hop k - 1. A hop without candidates repeats the sample before it. A draw is a hash of (seed, hop, user)
    and (seed, hop, head, relation, tail): taking an edge away replaces it in the samples it was in, and what hangs on
    it.

    Args:
        graph: E edges.
        indptr: (U + 1,) int64, where each user's nodes begin.
        nodes: their numbers in ``graph``, int64, distinct for a user.
        num_hops: H.
        size: M.
        seed: of the draw.
        resample: as published: a hop with fewer candidates than M is M draws with repetition, and a tail that a sample
            has several times gives its edges as often. Otherwise candidates are distinct, and places left over empty.

    Returns:
        (U, H, M) int64, numbers of edges in the order of ``graph``, -1 for an empty place; a user without any
        candidates at hop 1 has empty places alone.

    Raises:
        InputError: ``num_hops`` or ``size`` is below 1.
    """
    for name, number in (("num_hops", num_hops), ("size", size)):
        if number < 1:
            raise InputError(f"{name} must be a positive whole number, found {number}.")
    count = len(indptr) - 1
    users = torch.repeat_interleave(torch.arange(count, device=nodes.device), indptr.diff())
    seed = derive(seed, "ripple sets")
    hops: list[Tensor] = []
    tails = graph.tails()
    for hop in range(num_hops):
        found = torch.full((count, size), -1, dtype=torch.int64, device=nodes.device)
        draws = _Draws.of(graph, count, derive(seed, "hop", hop))
        for user, edge, copy in _candidates(graph, users, nodes):
            _sample(draws, user, edge, copy, found, resample)
        if hop:
            found = torch.where(found[:, :1] < 0, hops[-1], found)
        hops.append(found)
        users, place = torch.nonzero(found >= 0).T
        nodes = tails[found[users, place]]
        if not resample:
            keys = torch.unique(users * graph.num_nodes + nodes)
            users = torch.div(keys, graph.num_nodes, rounding_mode="floor")
            nodes = keys - users * graph.num_nodes
    return torch.stack(hops, 1)


def _candidates(graph: RelationalGraph, users: Tensor, nodes: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Edges that leave the users' nodes, in blocks of whole users: user, edge, and the place of the node they leave."""
    rowptr = graph.adjacency.rowptr.long()
    degree = rowptr.diff()[nodes]
    ends = degree.cumsum(0)
    if len(nodes) == 0 or int(ends[-1]) == 0:
        return
    starts = torch.ones_like(users, dtype=torch.bool)
    starts[1:] = users[1:] != users[:-1]
    first = torch.nonzero(starts)[:, 0]
    block = torch.div(ends[first] - degree[first], BLOCK, rounding_mode="floor")
    changes = torch.ones_like(block, dtype=torch.bool)
    changes[1:] = block[1:] != block[:-1]
    bounds = [*first[changes].tolist(), len(users)]
    for low, high in pairwise(bounds):
        counts = degree[low:high]
        place = torch.repeat_interleave(torch.arange(low, high, device=nodes.device), counts)
        before = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        edge = rowptr[nodes[place]] + torch.arange(len(place), device=nodes.device) - before
        yield users[place], edge, place


@dataclass(frozen=True)
class _Draws:
    """What a hop's draws are hashes of, the user's part (U,) and the edge's (E,) hashed once for all candidates."""

    seed: int
    of_user: Tensor
    of_edge: Tensor

    @classmethod
    def of(cls, graph: RelationalGraph, users: int, seed: int) -> Self:
        own = hash_bits(derive(seed, "user"), torch.arange(users, device=graph.heads().device))
        return cls(seed, own, hash_bits(derive(seed, "edge"), graph.heads(), graph.relation, graph.tails()))


def _sample(draws: _Draws, user: Tensor, edge: Tensor, copy: Tensor, found: Tensor, resample: bool) -> None:
    """Write the sample of each user among its candidates, sorted by user, into the user's row of ``found``."""
    if len(user) == 0:
        return
    size = found.shape[1]
    some, counts = torch.unique_consecutive(user, return_counts=True)
    start = counts.cumsum(0) - counts
    parts = [draws.of_user[user], draws.of_edge[edge]]
    if resample:  # copies of one edge are told apart by the place of the tail they leave, counted within the user
        parts.append(hash_bits(derive(draws.seed, "copy"), copy - copy[start].repeat_interleave(counts)))
    bits = joined_bits(*parts)
    near = _lowest(bits, counts, size)
    kept = torch.arange(len(user), device=user.device) if near is None else torch.nonzero(near)[:, 0]
    order = kept[torch.argsort(bits[kept], stable=True)]
    order = order[torch.argsort(user[order], stable=True)]
    owner = user[kept]  # as they ascend, an order by owner leaves them where they are
    rank = place_within(owner)
    taken = rank < size
    found[owner[taken], rank[taken]] = edge[order[taken]]
    if resample:
        few = counts < size
        some, start, counts = some[few], start[few], counts[few]
        place = torch.arange(size, device=user.device)
        drawn = hash_integers(derive(draws.seed, "again"), counts[:, None], some[:, None], place)
        found[some] = edge[start[:, None] + drawn]


def _lowest(bits: Tensor, counts: Tensor, size: int) -> Tensor | None:
    """Candidates that hold the ``size`` lowest of each user, few more: so few need to be sorted; None: too many do."""
    likely = size + 8 * math.sqrt(size) + 16
    if len(bits) < 4 * likely * len(counts):
        return None
    below = (likely / counts.double() * 2.0**64 - 2.0**63).clamp_max(2.0**63 - 2048).long()
    owner = torch.repeat_interleave(torch.arange(len(counts), device=bits.device), counts)
    near = bits <= below[owner]
    held = torch.bincount(owner[near], minlength=len(counts))
    short = held < counts.clamp_max(size)  # as good as never
    return near | short[owner] if bool(short.any()) else near
