r"""An order of rows and columns in which the products of a large matrix miss the cache less often.

A product with a sparse matrix reads one row of the dense factor for each entry; where the factor is larger than the
cache, most of the time is spent waiting for those rows. Here rows that have columns in common follow one another. The
order is that of the second singular vectors of the normalised matrix, the bipartite form of the Fiedler order (Barnard,
Pothen and Simon, Supercomputing '93; Dhillon, KDD 2001), found roughly by a few rounds of power iteration.

Entries keep their order within a row, so that every sum is formed as it was: a product of relabelled matrix and tables
equals the relabelled product to the last bit, and the order needs no precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spectral import inverse_root, normalised
from graphrec.layers.spmm import multiply
from graphrec.randomness import generator

CACHE_BYTES = 4 * 2**20
"""Tables that are smaller together stay in the cache in any order."""

ROUNDS = 20
"""Rounds of the power iteration; more do not make the products faster."""

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Layout:
    """A matrix (R, C) and its transpose for a chain of products, with rows and columns perhaps in another order.

    Attributes:
        own: the matrix.
        matrices: (R, C) and (C, R), in the order of the chain. They serve in products alone: columns need not ascend
            within a row.
        order: for rows (R,) and columns (C,), int64, which of the matrix stands at each place of the chain; None:
            nothing was moved.
        labels: the inverse, where each row and each column of the matrix stands.
    """

    own: Adjacency
    matrices: tuple[Adjacency, Adjacency]
    order: Pair | None = None
    labels: Pair | None = None

    def places(self, rows: Pair) -> Pair:
        """Where some rows and some columns of the matrix stand."""
        if self.labels is None:
            return rows
        return self.labels[0].index_select(0, rows[0]), self.labels[1].index_select(0, rows[1])


def layout(adj: Adjacency, row_bytes: int) -> Layout:
    """The layout for chains of products of ``adj`` with tables whose rows take ``row_bytes``.

    The matrix stays as it is where the tables fit the cache and on other devices than the CPU. What is moved is a copy
    of the matrix and its transpose, made once and kept with it.
    """
    own = adj, adj.transposed
    if adj.device.type != "cpu" or len(adj) == 0 or sum(adj.shape) * row_bytes <= CACHE_BYTES:
        return Layout(adj, own)
    if "layout" not in adj.cache:
        with torch.inference_mode(False), torch.no_grad():  # what is kept must serve training too
            order = locality_order(adj)
            labels = _inverse(order[0]), _inverse(order[1])
            moved = _moved(own[0], order[0], labels[1]), _moved(own[1], order[1], labels[0])
            adj.cache["layout"] = (moved, order, labels)
    return Layout(adj, *adj.cache["layout"])  # kept without the matrix itself, which would be a cycle


def locality_order(adj: Adjacency, seed: int = 0) -> Pair:
    """Rows (R,) and columns (C,), int64, sorted so that those with neighbours in common are close to each other.

    Args:
        adj: (R, C); its values are not looked at.
        seed: of the start of the power iteration.
    """
    matrix = normalised(adj)
    other = matrix.transposed
    roots = [inverse_root(adj.degrees(dim)).float() for dim in (0, 1)]
    # The first singular vectors are the square roots of the degrees and tell nobody's neighbours.
    first = adj.degrees(1).float().sqrt()
    first /= first.norm().clamp_min(1.0)
    cols = torch.randn(adj.shape[1], generator=generator(seed, "locality")).to(adj.device)
    rows = cols.new_zeros(adj.shape[0])
    for _ in range(ROUNDS):
        cols = cols - first * (first @ cols)
        cols = cols / cols.norm().clamp_min(torch.finfo(cols.dtype).tiny)
        rows = multiply(matrix, cols.unsqueeze(1)).squeeze(1)
        cols = multiply(other, rows.unsqueeze(1)).squeeze(1)
    return torch.argsort(rows * roots[0], stable=True), torch.argsort(cols * roots[1], stable=True)


def _moved(adj: Adjacency, order: Tensor, labels: Tensor) -> Adjacency:
    """Rows in another order and columns renamed, the entries of a row left in their order."""
    rows = adj.row_subset(order, edges=False)
    return Adjacency(rows.rowptr, labels.to(torch.int32)[rows.col.long()], adj.shape, rows.values)


def _inverse(order: Tensor) -> Tensor:
    labels = torch.empty_like(order)
    labels[order] = torch.arange(len(order), device=order.device)
    return labels
