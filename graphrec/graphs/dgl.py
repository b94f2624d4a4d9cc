"""To DGL and back (the ``dgl`` extra, a version below 2): exchange of graphs, no more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.errors import InputError
from graphrec.graphs.hetero import attributes
from graphrec.optional import require

_NO_EDGES = "_no_edges"


def to_dgl(graph: HeteroData) -> Any:
    """A ``dgl.DGLGraph`` with the same node and edge types, counts, edge order, edge ids and attributes.

    DGL knows no node type without an edge type; such a type gets an empty one of its own, which :func:`from_dgl` leaves
    out again.

    Raises:
        ImportError: DGL is not installed.
        InputError: an attribute is no tensor with a row for each node or edge, which is all that DGL can hold.
    """
    dgl = require("dgl", "dgl")
    sizes = {}
    for node_type in graph.node_types:
        size = graph[node_type].num_nodes
        if size is None:
            raise InputError(f"node type {node_type!r} has no num_nodes.")
        sizes[node_type] = int(size)
    edges = {kind: tuple(graph[kind].edge_index.long()) for kind in graph.edge_types}
    touched = {end for source, _, target in edges for end in (source, target)}
    nothing = torch.empty(0, dtype=torch.int64)
    edges |= {(kind, _NO_EDGES, kind): (nothing, nothing) for kind in sizes if kind not in touched}
    made = dgl.heterograph(edges, num_nodes_dict=sizes)
    for kind, named in attributes(graph).items():
        count = sizes[kind] if isinstance(kind, str) else len(edges[kind][0])
        held = made.nodes[kind].data if isinstance(kind, str) else made.edges[kind].data
        for name, value in named.items():
            if not (isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == count):
                raise InputError(f"DGL can't hold attribute {name!r} of {kind!r}: it is no tensor with {count} rows.")
            held[name] = value
    return made


def from_dgl(made: Any) -> HeteroData:
    """The heterogeneous graph of a ``dgl.DGLGraph``: edges in the order of DGL's edge numbers, all attributes."""
    graph = HeteroData()
    for node_type in made.ntypes:
        graph[node_type].num_nodes = int(made.num_nodes(node_type))
        for name, value in made.nodes[node_type].data.items():
            graph[node_type][name] = value
    for edge_type in made.canonical_etypes:
        if edge_type[1] == _NO_EDGES:
            continue
        graph[edge_type].edge_index = torch.stack(made.edges(etype=edge_type, order="eid")).long()
        for name, value in made.edges[edge_type].data.items():
            graph[edge_type][name] = value
    return graph
