"""What the layers of a batch rest on: of a relational graph, the nodes and edges that some rows of its last layer
reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.relational import RelationalGraph
from graphrec.randomness import hash_bits


@dataclass(frozen=True, eq=False)
class RelationalField:
    """One layer of messages, from n nodes below to m nodes above, each numbered from 0.

    Attributes:
        matrix: (m, P), nodes above by pairs of relation and tail, an entry for each edge; in edge-list order.
        node: (P,) int64, the tail of each pair, a number below n.
        relation: (P,) int64, ascending.
        edge: (e,) int64, the edge of the whole graph that each entry of ``matrix`` is.
        above: (m,) int64, nodes of the whole graph, ascending.
        below: (n,) int64, likewise.
    """

    matrix: Adjacency
    node: Tensor
    relation: Tensor
    edge: Tensor
    above: Tensor
    below: Tensor


def relational_fields(
    graph: RelationalGraph, nodes: Tensor, also: Tensor, num_layers: int, kept: Tensor | None = None
) -> list[RelationalField]:
    """The layers, first to last, that the last layer's rows of some nodes rest on.

    Every layer but the last also gives the rows of ``also``, and every layer those of ``nodes``.

    Args:
        graph: N nodes, E edges.
        nodes: int64, whose rows the last layer gives; may repeat.
        also: int64, whose rows are wanted of the layers before, and of the table.
        num_layers: L.
        kept: (E,) bool in the order of the edges of ``graph.tail_pair_matrix`` as stored; None: all.

    Returns:
        L fields; ``below`` of the first are the rows of the table that are needed.
    """
    matrix, pairs = graph.tail_pair_matrix, graph.tail_pairs
    rows, edges = matrix.rows(), matrix.edge_positions()
    device = matrix.device
    place = torch.zeros(graph.num_nodes, dtype=torch.int64, device=device)
    of_pair = torch.zeros(len(pairs), dtype=torch.int32, device=device)
    wanted = torch.zeros(graph.num_nodes, dtype=torch.bool, device=device)
    wanted[nodes] = True
    above = _true(wanted)
    fields: list[RelationalField] = []
    for _ in range(num_layers):
        mask = wanted.index_select(0, rows)
        entry = _true(mask if kept is None else mask.logical_and_(kept))
        place[above] = torch.arange(len(above), device=device)
        counts = torch.bincount(rows.index_select(0, entry), minlength=graph.num_nodes)
        rowptr = torch.zeros(len(above) + 1, dtype=torch.int32, device=device)
        rowptr[1:] = counts[above].cumsum(0)
        col = matrix.col.index_select(0, entry)
        used = torch.zeros(len(pairs), dtype=torch.bool, device=device).index_fill_(0, col.long(), True)
        pair = _true(used)
        of_pair[pair] = torch.arange(len(pair), dtype=torch.int32, device=device)
        node = pairs.node.index_select(0, pair)
        wanted = torch.zeros_like(wanted)
        for more in (node, nodes, also):
            wanted[more] = True
        below = _true(wanted)
        place[below] = torch.arange(len(below), device=device)
        fields.append(
            RelationalField(
                Adjacency(rowptr, of_pair.index_select(0, col), (len(above), len(pair))),
                place.index_select(0, node),
                pairs.relation.index_select(0, pair),
                edges.index_select(0, entry),
                above,
                below,
            )
        )
        above = below
    return fields[::-1]


def keep_edges_exactly(graph: RelationalGraph, p: float, *, seed: int | Tensor) -> Tensor:
    """Which edges stay when ⌊(1 - p) E⌋ of them are kept, drawn without replacement.

    Those with the smallest hashes of (seed, head, relation, tail) stay: taking an edge away leaves the order of all
    others. An edge and its inverse are drawn each for itself.

    Args:
        graph: E edges.
        p: share left out, in [0, 1).
        seed: of the draw; a tensor of one number spares a transfer from its device.

    Returns:
        (E,) bool in the order of the edges of ``graph.tail_pair_matrix`` as stored.

    Raises:
        InputError: ``p`` lies outside [0, 1).
    """
    if not 0 <= p < 1:
        raise InputError(f"the share of dropped edges must lie in [0, 1), found {p}.")
    count = int(len(graph) * (1 - p) + 1e-9)
    if count == 0 or count == len(graph):
        return torch.full((len(graph),), count > 0, device=graph.relation.device)
    if "edge_keys" not in graph.cache:
        with torch.inference_mode(False):
            edge = graph.tail_pair_matrix.edge_positions()
            graph.cache["edge_keys"] = hash_bits(0, graph.heads(), graph.relation, graph.tails())[edge]
    keys: Tensor = graph.cache["edge_keys"]
    # In blocks that stay in the cache: all of it is passes over short arrays.
    bits = torch.cat([hash_bits(seed, block) for block in keys.split(1 << 16)])
    return bits <= bits.kthvalue(count).values


def _true(mask: Tensor) -> Tensor:
    """Where a mask is True, int64, ascending; on the CPU by numpy, which takes a twentieth of torch's time."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return torch.nonzero(mask)[:, 0]
