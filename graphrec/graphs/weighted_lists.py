"""Neighbour lists of equal length whose members are drawn in proportion to weights of the edges."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.owners import place_within
from graphrec.graphs.relational import RelationalGraph
from graphrec.randomness import derive, hash_uniform


def weighted_neighbour_lists(graph: RelationalGraph, weight: Tensor, count: int, *, seed: int) -> Tensor:
    r"""``count`` edges of each node, drawn in proportion to their weights.

    Without repetition where a node has more edges than that, one after the other in proportion to the weights of those
    left; else ``count`` independent draws. Each edge gets a time :math:`-\log(U) / w`, and the smallest times win: the
    largest :math:`\log w + \mathrm{Gumbel}`, that is (Gumbel-top-k; Kool et al., ICML 2019).

    U is a hash of (seed, head, relation, tail, direction), and of the place in the list where draws are independent:
    taking an edge away changes the lists that it was in, there the places it had, and nothing else.

    Args:
        graph: N nodes, E edges.
        weight: (E,) float of 0 or more, in the order of ``graph``; need not sum to anything.
        count: K.
        seed: of the draw.

    Returns:
        (N, K) int64, numbers of edges in the order of ``graph``, -1 for a node without edges. An edge of weight 0 is
        drawn only where a node has too few others.

    Raises:
        InputError: ``count`` is below 1, or there is no weight for each edge.
    """
    if count < 1:
        raise InputError(f"the number of neighbours must be 1 or more, found {count}.")
    if weight.shape != (len(graph),):
        raise InputError(f"weight must have shape ({len(graph)},), one for each edge, found {tuple(weight.shape)}.")
    heads = graph.heads()
    degree = graph.adjacency.degrees(0)
    seed = derive(seed, "weighted neighbour lists")
    # A relation that is its own inverse may hold an edge in both directions: they are told apart.
    kind = graph.relation * 2 + graph.inverse

    def times(edges: Tensor, *place: int) -> Tensor:
        uniform = hash_uniform(seed, heads[edges], kind[edges], graph.tails()[edges], *place)
        return -torch.log1p(-uniform) / weight[edges].double()

    lists = torch.full((graph.num_nodes, count), -1, dtype=torch.int64, device=heads.device)
    many = torch.nonzero(degree[heads] > count)[:, 0]
    if len(many):
        order = torch.argsort(times(many), stable=True)
        order = order[torch.argsort(heads[many][order], stable=True)]
        owner = heads[many]  # as they ascend, an order by owner leaves them where they are
        rank = place_within(owner)
        taken = rank < count
        lists[owner[taken], rank[taken]] = many[order][taken]
    few = torch.nonzero(degree[heads] <= count)[:, 0]
    owner = heads[few]
    for place in range(count if len(few) else 0):
        time = times(few, place)
        first = time.new_full((graph.num_nodes,), torch.inf).scatter_reduce_(0, owner, time, "amin")
        winners = time == first[owner]
        lists[owner[winners], place] = few[winners]
    return lists
