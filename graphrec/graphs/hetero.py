"""Views of a heterogeneous graph: with reversed edges, and as one homogeneous graph in a published node order."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency, EdgeType

REVERSE = "rev_"

LAYOUTS: dict[str, tuple[str, ...]] = {
    "users_items_entities": ("user", "item", "entity"),  # KGAT and most that follow it
    "items_entities_users": ("item", "entity", "user"),  # KCAN
}
"""Published node orders by name."""


def reverse_type(edge_type: EdgeType) -> EdgeType:
    """The edge type of the reversed edges: ``(target, "rev_" + relation, source)``."""
    source, relation, target = edge_type
    return target, REVERSE + relation, source


def with_reverse(graph: HeteroData) -> HeteroData:
    """A copy that also has every edge type reversed; tensors are shared, so that both directions have the same ids.

    Raises:
        InputError: the graph already has reversed edge types.
    """
    result = copy.copy(graph)
    for edge_type in graph.edge_types:
        reversed_type = reverse_type(edge_type)
        if edge_type[1].startswith(REVERSE) or reversed_type in graph.edge_types:
            raise InputError(f"the graph already has reversed edges: {'__'.join(edge_type)}.")
        for name, value in graph[edge_type].items():
            result[reversed_type][name] = value.flip(0) if name == "edge_index" else value
    return result


def without_reverse(graph: HeteroData) -> HeteroData:
    """A copy without the ``rev_`` edge types."""
    result = copy.copy(graph)
    for edge_type in graph.edge_types:
        if edge_type[1].startswith(REVERSE):
            del result[edge_type]
    return result


@dataclass(frozen=True)
class FlatGraph:
    """All nodes in one range, all edges in one list. N nodes, E edges.

    Attributes:
        order: node types in the order of their ranges.
        sizes: nodes of each type.
        edge_types: the types that ``edge_type`` numbers.
        edge_index: (2, E) int64, in the common numbering.
        edge_type: (E,) int64.
        edge_id: (E,) int64, -1 where an edge type carries no ids.
        relation: (E,) int64, the ``relation`` of triples; -1 where an edge type has none.
    """

    order: tuple[str, ...]
    sizes: tuple[int, ...]
    edge_types: tuple[EdgeType, ...]
    edge_index: Tensor
    edge_type: Tensor
    edge_id: Tensor
    relation: Tensor

    @property
    def num_nodes(self) -> int:
        """N."""
        return sum(self.sizes)

    def offset(self, node_type: str) -> int:
        """The first node of a type."""
        if node_type not in self.order:
            raise unknown("node type", node_type, self.order)
        return sum(self.sizes[: self.order.index(node_type)])

    def nodes(self, node_type: str) -> slice:
        """The range of a type: rows of its nodes in a table of all nodes."""
        start = self.offset(node_type)
        return slice(start, start + self.sizes[self.order.index(node_type)])

    def adjacency(self, undirected: bool = True) -> Adjacency:
        """The (N, N) matrix; both directions of each edge where ``undirected``, values then in the order of
        ``edge_index`` followed by the same list reversed.
        """
        edges, ids = self.edge_index, self.edge_id
        if undirected:
            edges, ids = torch.cat([edges, edges.flip(0)], 1), ids.repeat(2)
        shape = (self.num_nodes, self.num_nodes)
        return Adjacency.from_edges(edges, shape, edge_id=ids, symmetric=undirected)


def flatten(graph: HeteroData, order: str | Sequence[str] = "users_items_entities") -> FlatGraph:
    """One homogeneous graph: each node type a range of node numbers, in a given order.

    Args:
        graph: every edge type has ``edge_index``, and may have ``edge_id`` and ``relation``.
        order: the name of one of :data:`LAYOUTS`, or node types; types of the graph that it leaves out come last, by
            name, and types that the graph lacks are passed over.

    Raises:
        InputError: an unknown layout, or a node type without a node count.
    """
    if isinstance(order, str):
        if order not in LAYOUTS:
            raise unknown("layout", order, LAYOUTS)
        order = LAYOUTS[order]
    present = set(graph.node_types)
    chosen = tuple([*(kind for kind in order if kind in present), *sorted(present - set(order))])
    sizes = []
    for kind in chosen:
        size = graph[kind].num_nodes
        if size is None:
            raise InputError(f"node type {kind!r} has no num_nodes.")
        sizes.append(int(size))
    offset = {kind: sum(sizes[:position]) for position, kind in enumerate(chosen)}
    parts: list[tuple[Tensor, ...]] = []
    for number, edge_type in enumerate(graph.edge_types):
        store = graph[edge_type]
        edges = store.edge_index.long()
        shift = torch.tensor([[offset[edge_type[0]]], [offset[edge_type[2]]]], device=edges.device)
        count = edges.shape[1]
        columns = [edges.new_full((count,), number)]
        for name in ("edge_id", "relation"):
            given = store.get(name)
            columns.append(edges.new_full((count,), -1) if given is None else given.long())
        parts.append((edges + shift, *columns))
    if not parts:
        empty = torch.empty(0, dtype=torch.int64)
        parts = [(torch.empty(2, 0, dtype=torch.int64), empty, empty, empty)]
    edge_index, kinds, ids, relation = (torch.cat(columns, -1) for columns in zip(*parts, strict=True))
    return FlatGraph(chosen, tuple(sizes), tuple(graph.edge_types), edge_index, kinds, ids, relation)


def unflatten(flat: FlatGraph) -> HeteroData:
    """The heterogeneous graph of a flat one: node counts, edges, ids and relations come back as they were."""
    graph = HeteroData()
    for kind, size in zip(flat.order, flat.sizes, strict=True):
        graph[kind].num_nodes = size
    for number, edge_type in enumerate(flat.edge_types):
        mine = flat.edge_type == number
        shift = torch.tensor([[flat.offset(edge_type[0])], [flat.offset(edge_type[2])]], device=mine.device)
        graph[edge_type].edge_index = flat.edge_index[:, mine] - shift
        for name, values in (("edge_id", flat.edge_id), ("relation", flat.relation)):
            found = values[mine]
            if len(found) and int(found.min()) >= 0:
                graph[edge_type][name] = found
    return graph


def attributes(graph: HeteroData) -> dict[Any, dict[str, Any]]:
    """What each node and edge type carries beside ``edge_index`` and ``num_nodes``, by type and name."""
    return {
        kind: {name: value for name, value in graph[kind].items() if name not in ("edge_index", "num_nodes")}
        for kind in [*graph.node_types, *graph.edge_types]
    }
