"""A bipartite matrix with its rows in groups that read much the same columns.

A product of compressed rows reads, for each entry, a row of the dense matrix. Where that matrix is larger than the
processor's cache, what it costs is how often such a row is read again before it has left the cache. Rows of one
community read the same columns; put next to each other, they find them there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphrec.graphs.adjacency import Adjacency
from graphrec.layers import bags
from graphrec.layers.spectral import singular_vectors

LEAST_BYTES = 8 * 2**20
"""Bytes of both dense matrices from which groups are made; smaller ones stay in the cache in any order."""

_VECTORS = 16
_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class GroupedRows:
    """A (U, I) matrix and its transpose, each in two forms; sums are formed in the matrix's own order in all of them.

    Both forms share their values: together they take 12 bytes an edge and side beside the matrix.

    Attributes:
        first: rows in groups, columns as they were: for tables in the order of the ids.
        between: rows and columns in groups, the columns of a row in no order: for products of products.
        places: (U,) and (I,) int64, where the row of each user and item is in the groups; None where both forms are the
            matrix itself.
    """

    first: tuple[Adjacency, Adjacency]
    between: tuple[Adjacency, Adjacency]
    places: tuple[Tensor, Tensor] | None = None

    def placed(self, side: int, rows: Tensor) -> Tensor:
        """Where rows (B,) of side 0 (users) or 1 (items) are in the groups."""
        return rows if self.places is None else self.places[side].index_select(0, rows)

    def by_id(self, side: int, grouped: Tensor) -> Tensor:
        """A grouped table (U, D) or (I, D) put into the order of the ids."""
        return grouped if self.places is None else grouped.index_select(0, self.places[side])


def grouped_rows(adj: Adjacency, x: Tensor) -> GroupedRows:
    """``adj`` in groups for products with tables like ``x``, made once; as it is where groups do not pay.

    Args:
        adj: (U, I).
        x: (U, D) or (I, D); its type, device and width say whether groups pay.
    """
    small = sum(adj.shape) * x.shape[1] * x.element_size() < LEAST_BYTES
    if small or len(adj) == 0 or not bags.serves(x, adj.rowptr, adj.col):
        return ungrouped(adj)
    if "grouped_rows" not in adj.cache:
        adj.cache["grouped_rows"] = _make(adj)
    made: GroupedRows = adj.cache["grouped_rows"]
    return made


def ungrouped(adj: Adjacency) -> GroupedRows:
    """The matrix as it is."""
    return GroupedRows((adj, adj.transposed), (adj, adj.transposed))


@torch.no_grad()
def _make(adj: Adjacency) -> GroupedRows:
    with torch.inference_mode(False):  # what is kept must serve training too
        if "row_orders" not in adj.pattern_cache:
            left, _, right = singular_vectors(adj, min(_VECTORS, *adj.shape), rounds=_ROUNDS, extra=0)
            adj.pattern_cache["row_orders"] = _by_strongest(left), _by_strongest(right)
        orders = adj.pattern_cache["row_orders"]
        places = tuple(torch.argsort(order) for order in orders)  # of a permutation: its inverse
        sides = zip((adj, adj.transposed), orders, strict=True)
        first = tuple(matrix.row_subset(order, edges=False) for matrix, order in sides)
        between = tuple(
            replace(matrix, col=place[matrix.col.long()].to(matrix.col.dtype), cache={}, pattern_cache={})
            for matrix, place in zip(first, reversed(places), strict=True)
        )
    return GroupedRows((first[0], first[1]), (between[0], between[1]), (places[0], places[1]))


def _by_strongest(vectors: Tensor) -> Tensor:
    """(N,) rows ordered by the singular vector in which they are strongest, and by its sign there."""
    strongest = vectors.abs().argmax(1, keepdim=True)
    positive = vectors.gather(1, strongest) > 0
    return torch.argsort((2 * strongest + positive).squeeze(1), stable=True)
