"""Training examples: pairs, labelled pairs and triples, each tied to the edge it was drawn from. B examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.graphs.relational import RelationalGraph


@dataclass(frozen=True)
class Batch:
    """Training examples, each tied to the edge it was drawn from.

    Attributes:
        edge_id: (B,) int64, the edge of each example.
        weight: (B,) float, what the example's loss is multiplied by.
        generator: the stream for random draws within the step (dropout); None where the model draws nothing.
        subgraph: the sampled neighbourhood with global ids, None when the full graph is used.
    """

    edge_id: Tensor
    weight: Tensor
    generator: torch.Generator | None = None
    subgraph: HeteroData | None = None

    def __len__(self) -> int:
        return int(self.edge_id.shape[0])

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        size = len(self)
        changed: dict[str, Any] = {
            entry.name: function(value)
            for entry in fields(self)
            if isinstance(value := getattr(self, entry.name), Tensor) and value.dim() > 0 and len(value) == size
        }
        return replace(self, **changed)

    def to(self, device: torch.device | str) -> Self:
        """The batch on another device."""
        changed: dict[str, Any] = {
            entry.name: value.to(device)
            for entry in fields(self)
            if isinstance(value := getattr(self, entry.name), Tensor)
        }
        return replace(self, **changed)

    def shard(self, rank: int, world_size: int) -> Self:
        """Every ``world_size``-th example from ``rank`` on: one process's share of the global batch.

        Tensors whose first dimension is not B (negatives that all examples share) stay whole.
        """
        return self._map(lambda tensor: tensor[rank::world_size])


@dataclass(frozen=True, kw_only=True)
class PairBatch(Batch):
    """Users with a positive item and negatives.

    Attributes:
        users: (B,) int64.
        items: (B,) int64, the positives.
        negatives: (B, n) int64, own negatives of each example; or (n,), shared by all (then ``shared`` is True).
        shared: whether all examples share the negatives.
    """

    users: Tensor
    items: Tensor
    negatives: Tensor
    shared: bool = False

    @classmethod
    def of(
        cls,
        users: Tensor,
        items: Tensor,
        edge_id: Tensor,
        negatives: Tensor,
        generator: torch.Generator | None = None,
        *,
        shared: bool = False,
    ) -> Self:
        """A batch of training edges, each of weight 1; users, items and edge_id (B,) int64."""
        return cls(
            edge_id=edge_id,
            weight=torch.ones(len(users), device=users.device),
            generator=generator,
            users=users,
            items=items,
            negatives=negatives,
            shared=shared,
        )

    def shard(self, rank: int, world_size: int) -> Self:
        """One process's share; shared negatives stay whole even when there are B of them."""
        part = super().shard(rank, world_size)
        return replace(part, negatives=self.negatives) if self.shared else part


@dataclass(frozen=True, kw_only=True)
class TripleBatch(Batch):
    """Triples of a knowledge graph with corrupted tails.

    Attributes:
        heads: (B,) int64, nodes of the model's :class:`~graphrec.graphs.relational.RelationalGraph`.
        relations: (B,) int64, its relations.
        tails: (B,) int64, its nodes.
        negatives: (B, n) int64, nodes that are no tails of the example's head and relation.
        edge_type: (B,) int64, what ``edge_id`` belongs to: a number into the graph's ``edge_types``.
    """

    heads: Tensor
    relations: Tensor
    tails: Tensor
    negatives: Tensor
    edge_type: Tensor

    @classmethod
    def of(
        cls, graph: RelationalGraph, entries: Tensor, negatives: Tensor, generator: torch.Generator | None = None
    ) -> Self:
        """A batch of a graph's edges, (B,) int64 in its stored order, each of weight 1."""
        return cls(
            edge_id=graph.edge_id[entries],
            weight=torch.ones(len(entries), device=entries.device),
            generator=generator,
            heads=graph.heads()[entries],
            relations=graph.relation[entries],
            tails=graph.tails()[entries],
            negatives=negatives,
            edge_type=graph.edge_type[entries],
        )


@dataclass(frozen=True, kw_only=True)
class PointBatch(Batch):
    """Users and items with labels.

    Attributes:
        users: (B,) int64.
        items: (B,) int64.
        labels: (B,) float, 1 for a click and 0 for none. ``edge_id`` of a drawn negative is that of the edge it was
            drawn for, of a labelled one its own row's, which is no edge of the graph.
    """

    users: Tensor
    items: Tensor
    labels: Tensor
