"""What models share that propagate their tables by one symmetrically normalised matrix, and that contrast two views."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from torch import Tensor

from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise, symmetric_entries
from graphrec.layers.propagation import linear_propagation, propagation_and_ego_rows
from graphrec.models.base import Batch, Derived, EdgeWeight, Encoded, GraphRecommender, target_weight
from graphrec.models.pairwise import Pair, PairwiseRecommender

Seen = TypeVar("Seen")


class PropagatedRecommender(PairwiseRecommender):
    r"""A pairwise model that scores by :math:`E^* = \sum_k w_k \hat A^k E^0` with fixed w: LightGCN's encoder.

    A subclass sets :attr:`layer_weights` (w, layer 0 first), and :attr:`matrix` from :meth:`propagation_matrix`.
    """

    layer_weights: tuple[float, ...]
    matrix: Adjacency

    def propagation_matrix(self) -> Adjacency:
        """The normalised users x items matrix of the training graph."""
        return normalise(self.graph_inputs.adjacency())

    def weighted_edges(self, edge_weight: EdgeWeight) -> Pair | None:
        """Edges (2, E) and their weights (E,), where weights were given."""
        weight = target_weight(edge_weight, self.graph_inputs.target)
        return None if weight is None else (self.graph_inputs.graph[self.graph_inputs.target].edge_index, weight)

    def matrix_values(self, edge_weight: EdgeWeight) -> Tensor | None:
        """Entries of the normalised matrix (E,) where weights were given; they enter the degrees too."""
        weighted = self.weighted_edges(edge_weight)
        if weighted is None:
            return None
        return symmetric_entries(weighted[0], (self.num_users, self.num_items), weighted[1])

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """E* of the whole graph, (U, D) and (I, D)."""
        values = self.matrix_values(edge_weight)
        return Encoded(
            *linear_propagation(self.matrix, self.user_embedding, self.item_embedding, self.layer_weights, values)
        )

    def training_rows(
        self, users: Tensor, items: Tensor, *, batch: Batch | None = None, edge_weight: EdgeWeight = None
    ) -> tuple[Pair, Pair]:
        """Rows of E* and of E⁰."""
        tables = self.user_embedding, self.item_embedding
        values = self.matrix_values(edge_weight)
        return propagation_and_ego_rows(self.matrix, *tables, self.layer_weights, users, items, values)

    def derived(self) -> Mapping[str, Derived]:
        """The normalised matrix, from the edges of the ranked behaviour."""
        return {**super().derived(), "matrix": Derived((self.graph_inputs.target,), self.propagation_matrix)}


class TwoViews(GraphRecommender, Generic[Seen]):
    """A model that contrasts two views of its graphs, drawn for each epoch."""

    _views: tuple[Seen, Seen] | None = None

    @abstractmethod
    def drawn_views(self) -> tuple[Seen, Seen]:
        """Views of the present edges."""

    @property
    def views(self) -> tuple[Seen, Seen]:
        """The two views of the present epoch; drawn where no epoch has drawn them."""
        if self._views is None:
            self._views = self.drawn_views()
        return self._views

    @views.setter
    def views(self, views: tuple[Seen, Seen]) -> None:
        self._views = views
