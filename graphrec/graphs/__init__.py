"""Graphs as sparse matrices: normalisation, sampling on the device, exchange with other libraries."""

from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.dgl import from_dgl, to_dgl
from graphrec.graphs.hetero import FlatGraph, flatten, unflatten, with_reverse, without_reverse
from graphrec.graphs.networkx import from_networkx, to_networkx
from graphrec.graphs.relational import RelationalGraph, relational_graph

__all__ = [
    "Adjacency",
    "FlatGraph",
    "RelationalGraph",
    "flatten",
    "from_dgl",
    "from_networkx",
    "relational_graph",
    "to_dgl",
    "to_networkx",
    "unflatten",
    "with_reverse",
    "without_reverse",
]
