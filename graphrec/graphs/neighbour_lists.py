"""Neighbour lists of equal length, drawn once: what models with a fixed receptive field read."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.owners import place_within
from graphrec.graphs.relational import RelationalGraph
from graphrec.randomness import derive, hash_bits


def sample_neighbour_lists(graph: RelationalGraph, count: int, *, seed: int) -> Tensor:
    """``count`` edges of each node, uniformly: without repetition where the node has so many, else with.

    A draw is a hash of (seed, head, relation, tail), and of its place in the list where it is repeated: taking an edge
    away replaces that edge in the list of its head and leaves all else as it was.

    Args:
        graph: N nodes, E edges.
        count: K, the length of every list.
        seed: of the draw.

    Returns:
        (N, K) int64, numbers of edges in the order of ``graph``, -1 for a node without edges.

    Raises:
        InputError: ``count`` is below 1.
    """
    if count < 1:
        raise InputError(f"the number of neighbours must be 1 or more, found {count}.")
    adjacency = graph.adjacency
    heads, tails, relation = graph.heads(), graph.tails(), graph.relation
    lists = torch.full((graph.num_nodes, count), -1, dtype=torch.int64, device=heads.device)
    degree = adjacency.degrees(0)
    seed = derive(seed, "neighbour lists")
    many = torch.nonzero(degree[heads] >= count)[:, 0]
    if len(many):
        owner = heads[many]
        order = _by_hash(owner, hash_bits(seed, owner, relation[many], tails[many]))
        owner = owner[order]
        rank = place_within(owner)
        taken = rank < count
        lists[owner[taken], rank[taken]] = many[order][taken]
    few = torch.nonzero(degree[heads] < count)[:, 0]
    if len(few):
        owner = heads[few]
        start = torch.ones_like(owner, dtype=torch.bool)
        start[1:] = owner[1:] != owner[:-1]
        for place in range(count):
            # The edge with the smallest hash is a uniform draw, and stays when another edge goes.
            order = _by_hash(owner, hash_bits(seed, owner, relation[few], tails[few], place))
            lists[owner[start], place] = few[order][start]
    return lists


def find_edges(graph: RelationalGraph, heads: Tensor, relation: Tensor, tails: Tensor) -> Tensor:
    """Numbers of edges by what they connect, int64 of the shape of the arguments; -1 where there is no such edge."""
    size, kinds = graph.num_nodes, max(graph.num_relations, 1)
    if size * size * kinds >= 2**63:
        raise InputError(f"{size} nodes and {kinds} relations are too many to look edges up.")
    known = (graph.heads() * size + graph.tails()) * kinds + graph.relation
    wanted = (heads * size + tails) * kinds + relation
    if len(known) == 0:
        return torch.full_like(wanted, -1)
    place = torch.searchsorted(known, wanted).clamp_max(len(known) - 1)
    return torch.where(known[place] == wanted, place, -1)


def _by_hash(owner: Tensor, bits: Tensor) -> Tensor:
    """The order by (owner, bits), for owners that ascend already."""
    order = torch.argsort(bits, stable=True)
    return order[torch.argsort(owner[order], stable=True)]


def reachable(neighbours: Tensor, seeds: Tensor, hops: int) -> tuple[Tensor, list[int]]:
    """All nodes within some hops of the seeds, nearer ones first.

    Args:
        neighbours: (N, K) int64, -1 for none.
        seeds: (S,) int64; a node may be named twice.
        hops: H.

    Returns:
        the nodes, each once, and H + 1 numbers: so many of them are within 0, 1, …, H hops.
    """
    seen = torch.zeros(len(neighbours), dtype=torch.bool, device=seeds.device)
    shell = torch.unique(seeds)
    nodes, sizes = shell, [len(shell)]
    seen[shell] = True
    for _ in range(hops):
        found = torch.unique(neighbours[shell])
        shell = found[(found >= 0) & ~seen[found.clamp_min(0)]]
        seen[shell] = True
        nodes = torch.cat([nodes, shell])
        sizes.append(len(nodes))
    return nodes, sizes
