"""Paths from a user to an item through what the user knows and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.relational import RelationalGraph

_HALF = 50_000
"""How many half paths are kept on each side, the strongest first, before they are joined."""


@dataclass(frozen=True)
class Paths:
    """Paths of a graph, strongest first; P paths of at most L edges.

    Attributes:
        edges: (P, L) int64, positions in the graph's edge list from the start on; -1 after the end of a shorter path.
        nodes: (P, L + 1) int64, -1 after the end.
        strength: (P,) float64, the product of the shares along the path, read forwards and backwards, added up.
    """

    edges: Tensor
    nodes: Tensor
    strength: Tensor

    def __len__(self) -> int:
        return len(self.strength)


def paths_between(
    graph: RelationalGraph,
    shares: Tensor,
    start: int,
    end: int,
    *,
    inner: Tensor,
    limit: int = 100,
    max_length: int = 3,
    back: Tensor | None = None,
) -> Paths:
    r"""The strongest paths between two nodes, without repeated nodes.

    A path of edges :math:`e_1 \dots e_n` has the strength :math:`\prod_j s(e_j) + \prod_j s(\bar e_j)`, where
    :math:`\bar e` is the same edge the other way round (0 where the graph has none) and s(e) the share with which its
    head listens to its tail. With attention as shares these are the coefficients with which the two ends enter each
    other's representation along the path.

    Args:
        graph: the edges, in both directions.
        shares: (E,) float.
        start: a node.
        end: another.
        inner: (E,) bool, edges that a path may use after its first one.
        limit: how many paths.
        max_length: at most so many edges, 2 to 4. At 4 each half is cut to its 50,000 strongest.
        back: (E,) :func:`shares_backwards` of the shares, where it is at hand.

    Raises:
        InputError: ``max_length`` out of range, or equal ends.
    """
    if not 2 <= max_length <= 4:
        raise InputError(f"max_length must be 2, 3 or 4, found {max_length}.")
    if start == end:
        raise InputError(f"a path needs two ends, found node {start} twice.")
    shares = shares.detach().double()
    back = shares_backwards(graph, shares) if back is None else back.detach().double()
    first = _leaving(graph, torch.tensor([start]))
    left = {1: _Half(first[:, None], shares[first], back[first])}
    left[2] = _extend(graph, left[1], shares, back, inner, start)
    last = graph.adjacency.transposed.row_subset(torch.tensor([end])).edge_positions()
    last = last[inner[last]]
    right = {1: _Half(last[:, None], shares[last], back[last])}
    if max_length == 4:
        right[2] = _extend_backwards(graph, right[1], shares, back, inner, end)
    parts = [_join(graph, left[1], right[1])]
    if max_length >= 3:
        parts.append(_join(graph, left[2], right[1]))
    if max_length == 4:
        parts.append(_join(graph, left[2], right[2]))
    edges = torch.cat([_padded(part.edges, max_length) for part in parts])
    strength = torch.cat([part.forwards + part.backwards for part in parts])
    edges, nodes, strength = _without_repeats(graph, edges, strength)
    # Equal strengths are ordered by the nodes, which do not depend on how edges are numbered.
    best = torch.argsort(strength, descending=True, stable=True)[:limit]
    return Paths(edges[best], nodes[best], strength[best])


@dataclass(frozen=True)
class _Half:
    """The beginnings or ends of paths: edges (H, l) and the products of their shares."""

    edges: Tensor
    forwards: Tensor
    backwards: Tensor


def shares_backwards(graph: RelationalGraph, shares: Tensor) -> Tensor:
    """(E,): the share of each edge's other direction, 0 where the graph does not have it."""
    largest = max(graph.lengths, default=1) + 1
    keys = (graph.edge_type * largest + graph.position) * 2
    order = torch.argsort(keys + graph.inverse)
    ordered = (keys + graph.inverse)[order]
    wanted = keys + ~graph.inverse
    place = torch.searchsorted(ordered, wanted).clamp_max(len(ordered) - 1)
    there = ordered[place] == wanted
    return torch.where(there, shares[order[place]], 0.0)


def _leaving(graph: RelationalGraph, nodes: Tensor) -> Tensor:
    """Positions of the edges that leave some nodes."""
    return graph.adjacency.row_subset(nodes).edge_positions()


def _extend(graph: RelationalGraph, half: _Half, shares: Tensor, back: Tensor, inner: Tensor, start: int) -> _Half:
    """Beginnings with one more edge."""
    ends = graph.tails()[half.edges[:, -1]]
    picked = graph.adjacency.row_subset(ends)
    rows, edges = picked.rows().long(), picked.edge_positions()
    keep = inner[edges] & (graph.tails()[edges] != start)
    return _strongest(half, rows[keep], edges[keep], shares, back, after=True)


def _extend_backwards(
    graph: RelationalGraph, half: _Half, shares: Tensor, back: Tensor, inner: Tensor, end: int
) -> _Half:
    """Ends of paths with one more edge before them."""
    starts = graph.heads()[half.edges[:, 0]]
    picked = graph.adjacency.transposed.row_subset(starts)
    rows, edges = picked.rows().long(), picked.edge_positions()
    keep = inner[edges] & (graph.heads()[edges] != end)
    return _strongest(half, rows[keep], edges[keep], shares, back, after=False)


def _strongest(half: _Half, rows: Tensor, edges: Tensor, shares: Tensor, back: Tensor, *, after: bool) -> _Half:
    forwards, backwards = half.forwards[rows] * shares[edges], half.backwards[rows] * back[edges]
    best = torch.argsort(forwards + backwards, descending=True, stable=True)[:_HALF]
    own, new = half.edges[rows[best]], edges[best, None]
    return _Half(torch.cat([own, new] if after else [new, own], 1), forwards[best], backwards[best])


def _join(graph: RelationalGraph, left: _Half, right: _Half) -> _Half:
    """Beginnings and ends that meet in a node."""
    meets = graph.tails()[left.edges[:, -1]]
    starts, order = graph.heads()[right.edges[:, 0]].sort(stable=True)
    low, high = torch.searchsorted(starts, meets), torch.searchsorted(starts, meets, right=True)
    counts = high - low
    mine = torch.repeat_interleave(torch.arange(len(meets)), counts)
    offset = torch.arange(len(mine)) - (counts.cumsum(0) - counts)[mine]
    other = order[low[mine] + offset]
    return _Half(
        torch.cat([left.edges[mine], right.edges[other]], 1),
        left.forwards[mine] * right.forwards[other],
        left.backwards[mine] * right.backwards[other],
    )


def _padded(edges: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(edges, (0, length - edges.shape[1]), value=-1)


def _without_repeats(graph: RelationalGraph, edges: Tensor, strength: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Paths that meet no node twice, with their nodes."""
    there = edges >= 0
    place = edges.clamp_min(0)
    nodes = torch.cat([graph.heads()[place[:, :1]], torch.where(there, graph.tails()[place], -1)], 1)
    ordered = nodes.sort(1).values
    repeats = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)
    return edges[~repeats], nodes[~repeats], strength[~repeats]
