"""To networkx and back: nodes, parallel edges, edge ids and attributes come back as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import networkx
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.errors import InputError
from graphrec.graphs.adjacency import EdgeType
from graphrec.graphs.hetero import attributes

_SCHEMA = "graphrec"


def to_networkx(graph: HeteroData) -> networkx.MultiDiGraph:
    """A directed multigraph whose nodes are ``(node type, number)`` and whose edges have keys ``(relation, position)``.

    Tensors with a row for each node or edge become attributes of nodes and edges (numbers or nested lists). Node
    counts, edge types and the types of the numbers are kept in ``.graph["graphrec"]``, so that :func:`from_networkx`
    gives the same graph back, types without any edge included.

    Raises:
        InputError: a node type has no count.
    """
    made: networkx.MultiDiGraph = networkx.MultiDiGraph()
    schema: dict[str, Any] = {"num_nodes": {}, "edge_types": list(graph.edge_types), "types": {}, "other": {}}
    rows: dict[Any, dict[str, list[Any]]] = {}
    for kind, named in attributes(graph).items():
        size = graph[kind].num_nodes if isinstance(kind, str) else graph[kind].edge_index.shape[1]
        if size is None:
            raise InputError(f"node type {kind!r} has no num_nodes.")
        rows[kind] = {}
        for name, value in named.items():
            if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == size:
                schema["types"][kind, name] = value.dtype, tuple(value.shape[1:])
                rows[kind][name] = value.tolist()
            else:
                schema["other"][kind, name] = value
        if isinstance(kind, str):
            schema["num_nodes"][kind] = int(size)
    for kind, size in schema["num_nodes"].items():
        columns = rows[kind]
        made.add_nodes_from(
            ((kind, node), {name: values[node] for name, values in columns.items()}) for node in range(size)
        )
    for kind in graph.edge_types:
        source, relation, target = kind
        columns = rows[kind]
        for position, (start, end) in enumerate(graph[kind].edge_index.t().tolist()):
            values = {name: column[position] for name, column in columns.items()}
            made.add_edge((source, start), (target, end), key=(relation, position), **values)
    made.graph[_SCHEMA] = schema
    return made


def from_networkx(made: networkx.MultiDiGraph) -> HeteroData:
    """The heterogeneous graph of what :func:`to_networkx` made, with the changes made to it since.

    Edges that were removed are gone; edges come in the order of their positions. An edge of one's own needs a key
    ``(relation, number)`` and the attributes that edges of its type have.

    Raises:
        InputError: the graph was not made by :func:`to_networkx`, or a node, key or attribute has another form.
    """
    schema: Mapping[str, Any] | None = made.graph.get(_SCHEMA)
    if schema is None:
        raise InputError(f"the networkx graph has no .graph[{_SCHEMA!r}]; make it with to_networkx.")
    sizes: Mapping[str, int] = schema["num_nodes"]
    columns: dict[Any, list[tuple[Any, Mapping[str, Any]]]] = {kind: [] for kind in sizes}
    ends: dict[EdgeType, list[tuple[int, int, int, Mapping[str, Any]]]] = {kind: [] for kind in schema["edge_types"]}
    for node, values in made.nodes(data=True):
        if not (isinstance(node, tuple) and len(node) == 2 and node[0] in sizes and 0 <= node[1] < sizes[node[0]]):
            raise InputError(f"node {node!r} is not (node type, number) of {dict(sizes)}.")
        columns[node[0]].append((node[1], values))
    for start, end, key, values in made.edges(keys=True, data=True):
        if not (isinstance(key, tuple) and len(key) == 2 and (start[0], key[0], end[0]) in ends):
            raise InputError(f"edge {start!r} to {end!r} has key {key!r}, expected (relation, position).")
        ends[start[0], key[0], end[0]].append((key[1], start[1], end[1], values))
    graph = HeteroData()
    for node_type, size in sizes.items():
        graph[node_type].num_nodes = size
    for edge_type, found in ends.items():
        found.sort(key=lambda entry: entry[0])
        listed = [(start, end) for _, start, end, _ in found]
        graph[edge_type].edge_index = torch.tensor(listed, dtype=torch.int64).view(-1, 2).t().contiguous()
        columns[edge_type] = [(position, values) for position, _, _, values in found]
    for (kind, name), (dtype, shape) in schema["types"].items():
        given = sorted(columns[kind], key=lambda entry: entry[0])
        lacking = [number for number, values in given if name not in values]
        if lacking or (isinstance(kind, str) and len(given) != sizes[kind]):
            where = f"entry {lacking[0]}" if lacking else f"{sizes[kind] - len(given)} removed nodes"
            raise InputError(f"attribute {name!r} of {kind!r} is missing for {where}.")
        graph[kind][name] = torch.tensor([values[name] for _, values in given], dtype=dtype).view(-1, *shape)
    for (kind, name), value in schema["other"].items():
        graph[kind][name] = value
    return graph


def triples_to_networkx(
    head: Sequence[str],
    relation: Sequence[str],
    tail: Sequence[str],
    nodes: Mapping[str, Mapping[str, Any]] | None = None,
) -> networkx.MultiDiGraph:
    """A directed multigraph of names: an edge from each head to its tail, with the relation as its key.

    Args:
        head: (T,) names.
        relation: (T,) names.
        tail: (T,) names.
        nodes: attributes of nodes; nodes that no triple has are added too.
    """
    made: networkx.MultiDiGraph = networkx.MultiDiGraph()
    made.add_nodes_from((name, dict(values)) for name, values in (nodes or {}).items())
    for start, key, end in zip(head, relation, tail, strict=True):
        made.add_edge(start, end, key=key)
    return made


def triples_from_networkx(made: Any) -> tuple[list[str], list[str], list[str], dict[str, dict[str, Any]]]:
    """Heads, relations and tails of a directed graph of one's own, and the attributes of its nodes by name.

    An edge's relation is its attribute ``relation``, else its key in a multigraph.

    Raises:
        InputError: no directed graph, an edge without a relation, or two nodes that read the same.
    """
    if not (isinstance(made, networkx.Graph) and made.is_directed()):
        what = "undirected" if isinstance(made, networkx.Graph) else f"a {type(made).__name__}"
        raise InputError(
            f"the graph is {what}. Expected a networkx MultiDiGraph (.to_directed() states each edge both ways)."
        )
    nodes: dict[str, dict[str, Any]] = {}
    for node, values in made.nodes(data=True):
        if str(node) in nodes:
            raise InputError(f"two nodes read {str(node)!r}; name them apart.")
        nodes[str(node)] = dict(values)
    head, relation, tail = [], [], []
    several: Any = made if made.is_multigraph() else networkx.MultiDiGraph(made)
    for start, end, key, values in several.edges(keys=True, data=True):
        # Keys that networkx gave itself are numbers, and say nothing.
        word = values.get("relation", key if isinstance(key, str) else None)
        if word is None:
            raise InputError(f"edge {start!r} to {end!r} has no relation: expected it as the key, or as 'relation'.")
        head.append(str(start))
        relation.append(str(word))
        tail.append(str(end))
    return head, relation, tail, nodes
