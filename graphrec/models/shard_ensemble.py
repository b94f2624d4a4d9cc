"""What the models of shards say, put together, and the training of what puts it together.

Letters: S shards, U users, I items, E edges of the ranked behaviour, D width of a shard's representations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from graphrec.graphs.normalise import symmetric_entries
from graphrec.graphs.sampling import positive_pairs, sample_negatives
from graphrec.layers.dropout import dropout
from graphrec.layers.losses import bpr_loss
from graphrec.layers.propagation import linear_propagation
from graphrec.layers.spmm import spmm
from graphrec.models.base import EdgeWeight, Encoded, GraphRecommender, PairBatch, Phase, target_weight
from graphrec.models.pairwise import PairwiseRecommender
from graphrec.models.phase_parts import adam
from graphrec.models.shard_aggregators import Attention, WeightedScores, standardised

Absent = Literal["leave_out", "history"]


class ShardEnsemble(GraphRecommender):
    """A recommender from models of shards; :class:`~graphrec.models.Sharded` makes them and says what options mean.

    Attributes:
        num_shards: S.
        by: what was assigned to shards.
        absent: what a shard says about a user it never saw.
        assignment: shards of users, items or edges, (N,) int64.
        edge_shard: (E,) int64.
        shards: the models.
        combine: the aggregator.
        standardises: whether it takes scores of mean 0 and variance 1.
        carries_on: whether it puts tables together, and all interactions carry the result on.
        dropout: share of the entries of users' vectors left out while attention is trained.
        lr: learning rate of the aggregator.
    """

    num_shards: int
    by: str
    absent: Absent
    assignment: Tensor
    edge_shard: Tensor
    shards: nn.ModuleList
    combine: nn.Module
    standardises: bool
    carries_on: bool
    dropout: float
    lr: float
    _frozen: tuple[list[Encoded], list[Encoded]] | None = None

    def _shard(self, number: int) -> PairwiseRecommender:
        shard = self.shards[number]
        assert isinstance(shard, PairwiseRecommender)
        return shard

    def _local(self, number: int, edge_weight: EdgeWeight) -> EdgeWeight:
        """Weights of a shard's own edges; those of other edge types are everybody's."""
        target = self.graph_inputs.target
        weight = target_weight(edge_weight, target)
        if weight is None:
            return edge_weight
        own = weight[self.edge_shard == number]
        return {**edge_weight, target: own} if isinstance(edge_weight, Mapping) else own

    def votes(self, weight: Tensor | None = None) -> Tensor:
        """The share (U, S) of each shard in a user's scores: of the shards that know the user the same, of others 0.

        A shard knows the users it was given, or, where interactions or items are cut, those with an interaction in it;
        of a user without any every shard knows as much.
        """
        if self.num_shards == 1 or self.absent == "history":
            return torch.full((self.num_users, self.num_shards), 1.0 / self.num_shards, device=self.device)
        known = self.known(weight)
        known = known | ~known.any(1, keepdim=True)
        return known / known.sum(1, keepdim=True)

    def known(self, weight: Tensor | None = None) -> Tensor:
        """Which users each shard knows, (U, S) bool; an edge of weight 0 tells nothing."""
        if self.by == "user":
            return torch.nn.functional.one_hot(self.assignment, self.num_shards).bool()
        users = self.graph_inputs.graph[self.graph_inputs.target].edge_index[0]
        place = users * self.num_shards + self.edge_shard
        present = None if weight is None else (weight.detach() != 0).float()
        times = torch.bincount(place, present, minlength=self.num_users * self.num_shards)
        return times.view(self.num_users, self.num_shards) > 0

    def _tables(self, edge_weight: EdgeWeight) -> list[Encoded]:
        """What each shard knows of users and items: representations, or tables where the attention carries on."""
        shards = [self._shard(number) for number in range(self.num_shards)]
        if self.carries_on:
            found = [Encoded(shard.user_embedding, shard.item_embedding) for shard in shards]
        else:
            found = [shard.encode(edge_weight=self._local(s, edge_weight)) for s, shard in enumerate(shards)]
        return self._ready(found, target_weight(edge_weight, self.graph_inputs.target))

    def _ready(self, tables: list[Encoded], weight: Tensor | None) -> list[Encoded]:
        """The shards' tables as the aggregator takes them: with the absent users, standardised where it asks."""
        if self.absent == "history" and self.num_shards > 1:
            known = self.known(weight).unsqueeze(2)
            tables = [
                Encoded(self._by_history(table, known[:, s], weight), table.items) for s, table in enumerate(tables)
            ]
        return [standardised(table) for table in tables] if self.standardises else tables

    def _frozen_tables(self, edge_weight: EdgeWeight) -> list[Encoded]:
        """The same without gradients; made once while no shard changes."""
        if edge_weight is not None or self.carries_on:
            return [Encoded(table.users.detach(), table.items.detach()) for table in self._tables(edge_weight)]
        own = [self._shard(number).encoded() for number in range(self.num_shards)]
        if self._frozen is None or any(a is not b for a, b in zip(own, self._frozen[0], strict=True)):
            with torch.no_grad():
                self._frozen = own, self._ready(own, None)
        return self._frozen[1]

    def _by_history(self, table: Encoded, known: Tensor, weight: Tensor | None) -> Tensor:
        """A shard's vectors of users; of those that it does not know, (U, 1), by the items of their histories."""
        folded = spmm(self.graph_inputs.adjacency(), table.items, weight)
        folded = folded / torch.linalg.vector_norm(folded, dim=1, keepdim=True).clamp_min(1e-12)
        long = ((table.users * known).square().sum() / known.sum().clamp_min(1)).sqrt()
        return torch.where(known, table.users, folded * long)

    def _combined(self, tables: Sequence[Encoded], edge_weight: EdgeWeight) -> Encoded:
        weight = target_weight(edge_weight, self.graph_inputs.target)
        together: Encoded = self.combine(tables, self.votes(weight))
        if not self.carries_on:
            return together
        edges, shape = self.graph_inputs.graph[self.graph_inputs.target].edge_index, (self.num_users, self.num_items)
        values = symmetric_entries(
            edges, shape, weight if weight is not None else together.users.new_ones(edges.shape[1])
        )
        layers = int(self._shard(0).hparams["num_layers"])
        shares = [1.0 / (layers + 1)] * (layers + 1)
        matrix = self.graph_inputs.adjacency()
        return Encoded(*linear_propagation(matrix, together.users, together.items, shares, values))

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """The shards' representations put together: (U, S D) and (I, S D), or (U, D) and (I, D) with attention."""
        return self._combined(self._tables(edge_weight), edge_weight)

    def aggregator_phases(self) -> Sequence[Phase]:
        """The training of the aggregator on all training pairs, shards as they are; none where it learns nothing."""
        if isinstance(self.combine, WeightedScores):
            batches, loss = self._sampled_batches, self._weights_loss
        elif isinstance(self.combine, Attention):
            batches, loss = self._pair_batches, self._attention_loss
        else:
            return ()
        return (Phase("aggregator", batches, loss, tuple(self.combine.parameters()), adam(self.lr)),)

    def _pair_batches(self, epoch: int, generator: torch.Generator) -> Iterator[PairBatch]:
        return self._batches(generator, None, self._shard(0).batch_size, 1)

    def _sampled_batches(self, epoch: int, generator: torch.Generator) -> Iterator[PairBatch]:
        # The sample of 1,000 and the batch of 32 are GraphEraser's; for its classes stand 20 items that are drawn.
        return self._batches(generator, 1000, 32, 20)

    def _batches(
        self, generator: torch.Generator, sample: int | None, size: int, num_negatives: int
    ) -> Iterator[PairBatch]:
        matrix, seed = self.graph_inputs.adjacency(), generator.initial_seed()
        users, items, edge_id = (part[:sample] for part in positive_pairs(matrix, positives="edge", seed=seed))
        negatives = sample_negatives(matrix, users, num_negatives, seed=seed, keys=items)
        for start in range(0, len(users), size):
            part = slice(start, start + size)
            yield PairBatch.of(users[part], items[part], edge_id[part], negatives[part], generator)

    def _attention_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        encoded = self._combined(self._frozen_tables(edge_weight), edge_weight)
        users = dropout(encoded.users[batch.users], self.dropout if self.training else 0.0, batch.generator)
        positive = (users * encoded.items[batch.items]).sum(1)
        negative = torch.einsum("bd,bnd->bn", users, encoded.items[batch.negatives])
        return {"rank": self.batch_weight(batch, bpr_loss(positive, negative))}

    def _weights_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        assert isinstance(self.combine, WeightedScores)
        votes = self.votes(target_weight(edge_weight, self.graph_inputs.target))
        items = torch.cat([batch.items.unsqueeze(1), batch.negatives], 1)
        terms, penalty = self.combine.terms(self._frozen_tables(edge_weight), votes, batch.users, items)
        return {"rank": self.batch_weight(batch, terms), "reg": penalty * batch.weight.mean()}
