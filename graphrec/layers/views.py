"""Views of an interaction graph: its subgraphs, normalised anew, and propagation on them.

Letters: U users, I items, L edges of the edge list, D width, K layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.augment import subgraph
from graphrec.graphs.normalise import normalise, symmetric_entries
from graphrec.layers.contrastive import info_nce
from graphrec.layers.propagation import linear_propagation, linear_propagation_rows
from graphrec.layers.spmm import spmm

Pair = tuple[Tensor, Tensor]


class View:
    r"""Subgraphs of a bipartite graph, each :math:`D_r^{-1/2} A D_c^{-1/2}` with degrees of its own.

    Args:
        adj: users x items; its values are not looked at.
        kept: boolean (L,) in edge-list order: one mask for all layers, or one for each.
    """

    def __init__(self, adj: Adjacency, kept: Sequence[Tensor]) -> None:
        if not kept:
            raise InputError("a view needs at least one mask of its edges.")
        self.adj, self.kept = adj, tuple(kept)
        self._matrices: dict[torch.dtype, tuple[Adjacency, ...]] = {}

    def matrices(self, dtype: torch.dtype) -> tuple[Adjacency, ...]:
        """The normalised subgraphs; made once."""
        if dtype not in self._matrices:
            ones = torch.ones(len(self.adj), dtype=dtype, device=self.adj.device)
            plain = self.adj.with_stored_values(ones)
            self._matrices[dtype] = tuple(normalise(subgraph(plain, kept)) for kept in self.kept)
        return self._matrices[dtype]

    def propagate(
        self, users: Tensor, items: Tensor, layer_weights: Sequence[float], weight: Pair | None = None
    ) -> Pair:
        r""":math:`\sum_k w_k E^k` with :math:`E^k = \hat A_k E^{k-1}`, on both sides; differentiable.

        Args:
            users: (U, D).
            items: (I, D).
            layer_weights: K + 1 numbers, w.
            weight: edges (2, L) and their weights (L,), which enter degrees and entries; None: ones.
        """
        matrices, values = self._weighted(users, weight)
        self._check(layer_weights)
        if len(matrices) == 1:
            return linear_propagation(matrices[0], users, items, layer_weights, values[0])
        total = users * layer_weights[0], items * layer_weights[0]
        for scale, matrix, value in zip(layer_weights[1:], matrices, values, strict=True):
            users, items = spmm(matrix, items, value), spmm(matrix.transposed, users, value)
            total = total[0] + scale * users, total[1] + scale * items
        return total

    def propagate_rows(
        self,
        users: Tensor,
        items: Tensor,
        layer_weights: Sequence[float],
        user_rows: Tensor,
        item_rows: Tensor,
        weight: Pair | None = None,
    ) -> Pair:
        """Some rows of :meth:`propagate`, (B, D) and (P, D), for less where all layers have one graph."""
        matrices, values = self._weighted(users, weight)
        self._check(layer_weights)
        if len(matrices) == 1:
            return linear_propagation_rows(matrices[0], users, items, layer_weights, user_rows, item_rows, values[0])
        whole = self.propagate(users, items, layer_weights, weight)
        return whole[0].index_select(0, user_rows), whole[1].index_select(0, item_rows)

    def _weighted(
        self, like: Tensor, weight: Pair | None
    ) -> tuple[Sequence[Adjacency], Sequence[Tensor] | Sequence[None]]:
        if weight is None:
            return self.matrices(like.dtype), [None] * len(self.kept)
        edges, given = weight
        values = [symmetric_entries(edges, self.adj.shape, given * kept) for kept in self.kept]
        return [self.adj] * len(self.kept), values

    def _check(self, layer_weights: Sequence[float]) -> None:
        if len(self.kept) not in (1, len(layer_weights) - 1):
            raise InputError(
                f"a view has one mask, or one for each of the {len(layer_weights) - 1} layers, found {len(self.kept)}."
            )


def pair_contrast(
    views: tuple[View, View],
    tables: tuple[Pair, Pair],
    layer_weights: Sequence[float],
    users: Tensor,
    items: Tensor,
    *,
    temperature: float,
    weight: Pair | None = None,
) -> Tensor:
    """InfoNCE of each pair's user and of its item between two views, against all nodes of their kind: their sum, (B,).

    Users or items that repeat are computed once.

    Args:
        views: the view of the anchors, and that of the candidates.
        tables: users (U, D) and items (I, D) that enter each view.
        layer_weights: as in :meth:`View.propagate`.
        users: (B,) int64.
        items: (B,) int64.
        temperature: τ.
        weight: as in :meth:`View.propagate`.
    """
    user_rows, user_place = torch.unique(users, return_inverse=True)
    item_rows, item_place = torch.unique(items, return_inverse=True)
    first = views[0].propagate_rows(*tables[0], layer_weights, user_rows, item_rows, weight)
    second = views[1].propagate(*tables[1], layer_weights, weight)
    of_users = info_nce(first[0], user_rows, second[0], temperature=temperature)
    of_items = info_nce(first[1], item_rows, second[1], temperature=temperature)
    return of_users.index_select(0, user_place) + of_items.index_select(0, item_place)
