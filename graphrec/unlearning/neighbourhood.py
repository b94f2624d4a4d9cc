"""What lies around the edges of a request: the nodes within k hops of their ends, and how much each node is touched."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.errors import InputError
from graphrec.graphs.adjacency import EdgeType

Nodes = dict[str, Tensor]
"""A value for each node, (N,), by node type."""


def removed_mask(graph: HeteroData, removed: Mapping[EdgeType, Tensor]) -> dict[EdgeType, Tensor]:
    """Which edges of the graph a request takes out, (E,) bool in edge-list order, for the types it names.

    Args:
        graph: with ``edge_id`` in its edge stores, the edges to forget still in it.
        removed: edge ids (M,) by edge type.

    Raises:
        InputError: an edge type that the graph does not have.
    """
    out = {}
    for edge_type, ids in removed.items():
        if edge_type not in graph.edge_types:
            raise InputError(f"the model's graph has no edges of type {'__'.join(edge_type)}.")
        edge_id = graph[edge_type].edge_id
        out[edge_type] = torch.isin(edge_id, ids.to(edge_id))
    return out


def touched_edges(graph: HeteroData, removed: Mapping[EdgeType, Tensor]) -> Nodes:
    """How many of the edges to forget end at each node, (N,) int64 by node type; a loop counts twice."""
    masks = removed_mask(graph, removed)
    return _ends(graph, {name: graph[name].edge_index[:, mask] for name, mask in masks.items()})


def degrees(graph: HeteroData) -> Nodes:
    """Edges of every type at each node, (N,) int64 by node type; a loop counts twice."""
    return _ends(graph, {name: graph[name].edge_index for name in graph.edge_types})


def _ends(graph: HeteroData, edges: Mapping[EdgeType, Tensor]) -> Nodes:
    counts = _zeros(graph, torch.int64)
    for edge_type, edge_index in edges.items():
        for node_type, ends in zip((edge_type[0], edge_type[2]), edge_index, strict=True):
            counts[node_type] += torch.bincount(ends, minlength=len(counts[node_type]))
    return counts


def balls(graph: HeteroData, removed: Mapping[EdgeType, Tensor], hops: int) -> list[Nodes]:
    """The nodes within 0, 1, … ``hops`` hops of an end of an edge to forget, edges taken in both directions.

    A linear propagation of K layers gives other vectors, once the edges are gone, to nodes of the K-hop ball alone:
    the entries of the normalised matrix that change lie in the rows and columns of the ends, and each product carries
    a change one hop further.

    Args:
        graph: the edges to forget still in it.
        removed: edge ids (M,) by edge type.
        hops: K.

    Returns:
        K + 1 masks (N,) bool by node type, each within the next.
    """
    inside = {name: count > 0 for name, count in touched_edges(graph, removed).items()}
    found = [inside]
    for _ in range(hops):
        wider = {name: mask.clone() for name, mask in inside.items()}
        for edge_type in graph.edge_types:
            sources, targets = graph[edge_type].edge_index
            wider[edge_type[2]][targets[inside[edge_type[0]][sources]]] = True
            wider[edge_type[0]][sources[inside[edge_type[2]][targets]]] = True
        inside = wider
        found.append(inside)
    return found


def touched_share(graph: HeteroData, removed: Mapping[EdgeType, Tensor], hops: int = 1) -> Nodes:
    r"""How much of what a node rests on is to be forgotten, carried on to its neighbours; (N,) float64 by node type.

    .. math:: r^0_v = \frac{\#\{\text{edges to forget at } v\}}{\deg(v)}, \qquad
              r^{h+1}_w = r^h_w + \frac{1}{\deg(w)} \sum_{(v, w) \in E} f^h_v

    with :math:`f^0 = r^0`, and :math:`f^{h+1}` what hop h + 1 added; the importance by which IFRU picks the parameters
    it updates (Zhang et al., ACM TORS 2024). Degrees are those before the edges go.

    Args:
        graph: the edges to forget still in it.
        removed: edge ids (M,) by edge type.
        hops: how far it is carried.
    """
    counts, degree = touched_edges(graph, removed), degrees(graph)
    inverse = {name: 1.0 / value.clamp_min(1).double() for name, value in degree.items()}
    arrived = {name: value.double() * inverse[name] for name, value in counts.items()}
    total = {name: value.clone() for name, value in arrived.items()}
    for _ in range(hops):
        sums = {name: torch.zeros_like(value) for name, value in arrived.items()}
        for edge_type in graph.edge_types:
            sources, targets = graph[edge_type].edge_index
            sums[edge_type[2]].index_add_(0, targets, arrived[edge_type[0]][sources])
            sums[edge_type[0]].index_add_(0, sources, arrived[edge_type[2]][targets])
        arrived = {name: value * inverse[name] for name, value in sums.items()}
        total = {name: value + arrived[name] for name, value in total.items()}
    return total


def _zeros(graph: HeteroData, dtype: torch.dtype) -> Nodes:
    device = graph[graph.edge_types[0]].edge_index.device
    return {name: torch.zeros(graph[name].num_nodes, dtype=dtype, device=device) for name in graph.node_types}
