"""CKE: matrix factorisation whose items are offset by their vectors in a knowledge base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.triples import corrupted_tails, triple_index, triples_by_head
from graphrec.layers.kge import TransR
from graphrec.layers.losses import bpr_loss
from graphrec.models.base import (
    Batch,
    EdgeWeight,
    Encoded,
    GraphInputs,
    PairBatch,
    Phase,
    Preset,
    TripleBatch,
)
from graphrec.models.knowledge import KnowledgeRecommender
from graphrec.models.pairwise import Initialisation, Loss, Pair, Positives


@dataclass(frozen=True, kw_only=True)
class JointBatch(PairBatch):
    """Pairs with negatives, and the triples that go into the same step.

    Attributes:
        triples: with edge ids and weights of their own.
    """

    triples: TripleBatch

    def to(self, device: torch.device | str) -> Self:
        """The batch on another device."""
        return replace(super().to(device), triples=self.triples.to(device))

    def shard(self, rank: int, world_size: int) -> Self:
        """One process's share of the pairs and of the triples."""
        return replace(super().shard(rank, world_size), triples=self.triples.shard(rank, world_size))


class CKE(KnowledgeRecommender):
    r"""CKE, its structural part (Zhang et al., KDD 2016, https://doi.org/10.1145/2939672.2939673).

    .. math:: y_{ui} = \langle p_u, q_i + x_i \rangle, \qquad
              g(h, r, t) = \big\| \widehat{x_h W_r} + \hat\rho_r - \widehat{x_t W_r} \big\|^2, \qquad
              \hat v = v / \|v\|

    The item's own vector q is offset by its vector x as an entity, and x is trained at the same time by TransR on the
    triples as stated:

    .. math:: L = \frac1B \sum -\log\sigma(y_{ui} - y_{uj})
              + \frac{c}{B_k} \sum -\log\sigma(g(h,r,t') - g(h,r,t))
              + \frac{\lambda}{2B} \sum \big(\|p_u\|^2 + \|q_i + x_i\|^2 + \|q_j + x_j\|^2\big)

    by one step of Adam for each batch of pairs and batch of triples. The paper adds a textual and a visual part, from
    autoencoders, and a Bayesian prior; comparisons on knowledge graphs use the structural part alone, as here.
    Vectors in the relation's space are normalised as in the KGAT repository, which is behind the published tables; its
    second regulariser, of normalised vectors, is a constant and is left out. It sums over the batch of B = 1024 where
    this divides, so that its 1e-5 is .01024 here.

    Triples are drawn as there: heads uniformly among those with a triple and without repetition in a batch, one of the
    head's triples, the tail corrupted uniformly over all items and entities, never into a known triple.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width D of users, items and entities.
        relation_dim: width K of the relations' spaces.
        loss: ``bpr``, ``bce`` or ``softmax``, of pairs; see :class:`PairwiseRecommender`.
        num_negatives: negatives of each positive, or of a batch where they are shared.
        shared_negatives: whether a batch shares its negatives.
        positives: ``user`` or ``edge``; see :class:`PairwiseRecommender`.
        triple_batch_size: B_k; None: so many that an epoch of batches draws about as many triples as there are, number
            of triples // (number of training pairs // B).
        triple_weight: c; 0 trains no triples.
        init: ``xavier`` with the bounds of the repository, ``normal`` or ``spectral`` (users and items).
        init_scale: standard deviation of the initial entries where they are normal.
        lr: learning rate of Adam.
        reg: λ.
        batch_size: B.
        seed: seeds the initial tables.
    """

    convention: ClassVar[str] = "directed"
    row_parameters: ClassVar[Mapping[str, str]] = {
        **KnowledgeRecommender.row_parameters,
        "item_entity_embedding": "item",
    }
    presets: ClassVar[Mapping[str, Preset]] = {
        "published": Preset(
            model={"dim": 64, "relation_dim": 64, "lr": 1e-4, "reg": 0.01024, "batch_size": 1024, "init": "xavier"},
            fit={"epochs": 1000, "evaluate_every": 10, "patience": 10},
            note=(
                "The settings of the KGAT repository, behind the published tables. There users and items start from a "
                "trained BPR-MF: train one and pass its run as init_from."
            ),
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        relation_dim: int = 64,
        loss: Loss = "bpr",
        num_negatives: int = 1,
        shared_negatives: bool = False,
        positives: Positives = "user",
        triple_batch_size: int | None = None,
        triple_weight: float = 1.0,
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-4,
        reg: float = 0.01024,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        if relation_dim < 1:
            raise InputError(f"relation_dim must be a positive whole number, found {relation_dim}.")
        if triple_batch_size is not None and triple_batch_size < 1:
            raise InputError(f"triple_batch_size must be a positive whole number, found {triple_batch_size}.")
        if triple_weight < 0:
            raise InputError(f"triple_weight must be 0 or more, found {triple_weight}.")
        super().__init__(
            inputs,
            dim=dim,
            relation_dim=relation_dim,
            loss=loss,
            num_negatives=num_negatives,
            shared_negatives=shared_negatives,
            positives=positives,
            triple_batch_size=triple_batch_size,
            triple_weight=triple_weight,
            init=init,
            init_scale=init_scale,
            lr=lr,
            reg=reg,
            batch_size=batch_size,
            seed=seed,
        )
        self.scorer = TransR("squared", "all")
        self.triple_weight = triple_weight
        per_pass = max(1, len(self.graph_inputs.adjacency()) // batch_size)
        self.triple_batch_size = triple_batch_size or max(1, len(self.knowledge) // per_pass)
        shapes = self.scorer.shapes(self.knowledge.num_relations, dim, relation_dim)
        self.relation_embedding = nn.Parameter(torch.empty(shapes["vectors"]))
        self.relation_matrices = nn.Parameter(torch.empty(shapes["matrices"]))
        self.initialise_relations()

    @torch.no_grad()
    def initialise_entities(self, init: Initialisation, scale: float) -> None:
        """Fill x, of items and of other entities; the tables of users and items stay as they are."""
        self.item_entity_embedding = nn.Parameter(torch.empty(self.num_items, self.dim))
        # The repository's table of entities is (N, 1, D), of which Xavier's rule makes this bound.
        bound = (6 / ((self.num_items + self.num_entities) * (1 + self.dim))) ** 0.5
        for name, table in (("item_entity", self.item_entity_embedding), ("entity", self.entity_embedding)):
            if table is None:
                continue
            stream = randomness.generator(self.seed, f"initialisation/{name}")
            if init == "xavier":
                nn.init.uniform_(table, -bound, bound, generator=stream)
            else:
                nn.init.normal_(table, std=scale, generator=stream)

    @torch.no_grad()
    def initialise_relations(self) -> None:
        """Fill ρ and W by Xavier's rule, W with the bound of its three dimensions as in the repository."""
        stream = randomness.generator(self.seed, "initialisation/relation")
        nn.init.xavier_uniform_(self.relation_embedding, generator=stream)
        count, dim, width = self.relation_matrices.shape
        bound = (6 / (count * (dim + width))) ** 0.5
        nn.init.uniform_(self.relation_matrices, -bound, bound, generator=stream)

    def tables(self) -> dict[str, Tensor]:
        """Users, and x of items and of other entities."""
        item_type = self.graph_inputs.target[2]
        return {**super().tables(), item_type: self.item_entity_embedding}

    def relation_tables(self) -> dict[str, Tensor]:
        """The relation tables of the scorer."""
        return {"vectors": self.relation_embedding, "matrices": self.relation_matrices}

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """p and q + x; no edge enters the score, so ``edge_weight`` changes nothing."""
        return Encoded(self.user_embedding, self.item_embedding + self.item_entity_embedding)

    def training_rows(
        self, users: Tensor, items: Tensor, *, batch: Batch | None = None, edge_weight: EdgeWeight = None
    ) -> tuple[Pair, Pair]:
        """Rows of p and of q + x, which are also those that λ weighs."""
        rows = self.user_embedding[users], self.item_embedding[items] + self.item_entity_embedding[items]
        return rows, rows

    def score_triples(self, heads: Tensor | None, relations: Tensor, tails: Tensor | None) -> Tensor:
        """-g of triples, (B,), or with every node in the place of a None, (B, N).

        Args:
            heads: (B,) int64 nodes of :attr:`knowledge`, or None.
            relations: (B,) int64.
            tails: (B,) int64 nodes, or None.
        """
        return self.scorer.score(self.node_table(), heads, relations, tails, self.relation_tables())

    def triple_loss(self, batch: TripleBatch) -> Tensor:
        """c times the mean loss of triples, without a regulariser."""
        x, ends = self.node_table(), torch.cat([batch.heads[:, None], batch.tails[:, None], batch.negatives], 1)
        rows = x.index_select(0, ends.flatten()).view(*ends.shape, -1)
        projected = self.scorer.projected(rows[:, 0], batch.relations, rows[:, 1], rows[:, 2:], self.relation_tables())
        return self.triple_weight * self.batch_weight(batch, bpr_loss(*self.scorer.scores(projected)))

    def joint_loss(self, batch: JointBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank`` and ``reg`` of the pairs, and ``triples``."""
        terms = dict(self.pair_loss(batch, edge_weight))
        return terms | ({"triples": self.triple_loss(batch.triples)} if self.triple_weight else {})

    def joint_batches(self, epoch: int, generator: torch.Generator) -> Iterator[JointBatch]:
        """The pairs of an epoch in batches, each with a batch of triples."""
        graph, index, seed = self.knowledge, triple_index(self.knowledge), generator.initial_seed()
        for number, pairs in enumerate(self.batches(epoch, generator)):
            entry = triples_by_head(graph.adjacency, self.triple_batch_size, seed=seed, batch=number)
            heads, relations = graph.heads()[entry], graph.relation[entry]
            own = randomness.derive(seed, "triples", number)
            corrupted = corrupted_tails(index, heads, relations, seed=own)
            yield _joined(pairs, TripleBatch.of(graph, entry, corrupted, generator))

    def phases(self) -> Sequence[Phase]:
        """One phase, ``joint``, that trains every parameter with Adam."""
        (pairs,) = super().phases()
        return (replace(pairs, name="joint", batches=self.joint_batches, loss=self.joint_loss),)


def _joined(pairs: PairBatch, triples: TripleBatch) -> JointBatch:
    return JointBatch(
        edge_id=pairs.edge_id,
        weight=pairs.weight,
        generator=pairs.generator,
        users=pairs.users,
        items=pairs.items,
        negatives=pairs.negatives,
        shared=pairs.shared,
        triples=triples,
    )
