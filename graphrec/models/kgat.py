"""KGAT: propagation with attention on the graph of interactions and triples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.relational import RelationalGraph
from graphrec.layers.aggregators import Aggregator, Kind
from graphrec.layers.kge import SCORERS
from graphrec.layers.knowledge_attention import (
    translated_logits,
)
from graphrec.layers.losses import squared_norms
from graphrec.layers.receptive import layer_rows
from graphrec.layers.relational import edge_softmax, row_sums
from graphrec.layers.row_adam import RowAdam, RowAdamLink
from graphrec.models.base import Batch, Derived, EdgeWeight, Encoded, GraphInputs, PairBatch, Phase, Preset, TripleBatch
from graphrec.models.kgat_batches import pairs_of_users, triples_of_heads
from graphrec.models.kgat_parts import (
    SHARES,
    Attention,
    SparseUpdates,
    Translation,
    check_options,
    rows_of_nodes,
    scorer,
    xavier,
)
from graphrec.models.knowledge import KnowledgeRecommender
from graphrec.models.pairwise import Initialisation, Loss, Pair, Positives
from graphrec.models.phase_parts import adam, once

# The published code divides the penalty on triples, and counts its batches, by this number whatever the batch is.
_PUBLISHED_BATCH = 2048


class KGAT(KnowledgeRecommender):
    r"""Knowledge graph attention network (Wang et al., KDD 2019, https://arxiv.org/abs/1905.07854).

    Users, items and entities are nodes of one graph: triples, training interactions as one more relation, and the
    inverses of all of them.

    .. math::
        \pi(h, r, t) &= (e_t W_r) \cdot \tanh(e_h W_r + e_r), \qquad
            \tilde\pi = \mathrm{softmax\ over\ all\ } (r, t) \mathrm{\ of\ } h \\
        S^k &= \tilde\Pi E^k, \qquad E^{k+1} = \mathrm{drop}(\mathrm{aggregate}(E^k, S^k)) \\
        E^* &= [E^0 \| Z^1 \| … \| Z^K], \qquad Z^k = E^k / \|E^k\|_2 \text{ by row}, \qquad
            y_{ui} = \langle e^*_u, e^*_i \rangle

    An epoch trains pairs, :math:`\mathrm{softplus}(y_{uj} - y_{ui})` with λ₁ on the final vectors; then triples,
    :math:`\mathrm{softplus}(g(h,r,t) - g(h,r,t'))`, :math:`g = \|e_h W_r + e_r - e_t W_r\|^2`, with λ₂ on the
    projected ends and e_r; then refreshes the attention from E⁰. Two Adam optimisers, one rate. Entities are not
    normalised.

    The published code writes its refreshed attention where nothing reads it: the published numbers are those of
    ``attention='static_si'`` (``preset='published'``), :math:`\sum_r D_r^{-1} A_r`. The default is the paper's, as the
    ports have it. Its symmetric matrix scales tails by their out-degrees under the same relation, which are 0 wherever
    a relation's heads and tails are of two kinds; ``static_bi`` counts the edges at the tail.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width D of E⁰.
        layer_dims: widths of the layers; their number is K.
        aggregator: ``bi``, ``gcn`` or ``sage``; see :class:`~graphrec.layers.aggregators.Aggregator`.
        attention: ``epoch``: as above, once an epoch and without gradient; ``layer``: in every step from each layer's
            own input, with gradient and, above E⁰, matrices W_r of its own; ``static_si``; ``static_bi``;
            ``uniform``: 1 over the number of edges.
        kge: ``transr``, ``transe`` and ``distmult`` (no projection, g the negative score), ``transh``; None leaves the
            triples' phase out.
        relation_dim: width of e_r for ``transr``; None: D.
        message_dropout: share of entries of each layer's output that are dropped in training.
        distinct_users: whether a batch has B different users, ⌊E/B⌋ + 1 batches an epoch, as in the code; otherwise
            ``positives`` says how pairs are drawn.
        loss: ``bpr``, ``bce`` or ``softmax``; see :class:`~graphrec.models.pairwise.PairwiseRecommender`.
        num_negatives: negatives of each positive.
        shared_negatives: whether a batch shares its negatives; not with ``distinct_users``.
        positives: ``user`` or ``edge``; without meaning where ``distinct_users``.
        init: ``xavier``, ``normal`` or ``spectral``. The paper starts from a trained BPR-MF: ``fit(init_from=RUN)``.
        init_scale: standard deviation of the initial entries, for ``normal`` and ``spectral``.
        lr: learning rate of both optimisers.
        reg: λ₁.
        triple_reg: λ₂; the sum over a batch is divided by 2 · 2048 whatever the batch, as in the code.
        batch_size: B.
        triple_batch_size: triples of a batch, each with another head; None: ⌊triples / ⌊E/B⌋⌋, as in the code.
        triple_batches: batches of triples an epoch; None: ⌊edges of the graph / 2048⌋ + 1, as in the code.
        corrupt_users: whether a corrupted tail may be a user, as in the code.
        sparse_updates: ``deferred``: rows of E⁰ that a step on triples does not read are moved later, all at once
            (:class:`~graphrec.layers.row_adam.RowAdam`); ``touched``: they are not moved; ``off``: dense Adam, as
            published, which ``deferred`` equals but for rounding and ε.
        seed: seeds the initial parameters.
    """

    attention: Tensor
    refreshed: Tensor
    convention: ClassVar[str] = "kgat"
    presets: ClassVar[Mapping[str, Preset]] = {
        "published": Preset(
            model={"attention": "static_si", "triple_batch_size": None, "sparse_updates": "off"},
            fit={"epochs": 1000, "evaluate_every": 10, "patience": 10, "select_on": "test"},
            note=(
                "The authors' code as it runs: constant attention, and stopping on the test part. Start it from a "
                "trained BPRMF (init_from), as its authors do."
            ),
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        layer_dims: Sequence[int] = (64, 32, 16),
        aggregator: Kind = "bi",
        attention: Attention = "epoch",
        kge: Translation | None = "transr",
        relation_dim: int | None = None,
        message_dropout: float = 0.1,
        distinct_users: bool = True,
        loss: Loss = "bpr",
        num_negatives: int = 1,
        shared_negatives: bool = False,
        positives: Positives = "user",
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-4,
        reg: float = 1e-5,
        triple_reg: float = 1e-5,
        batch_size: int = 1024,
        triple_batch_size: int | None = 2048,
        triple_batches: int | None = None,
        corrupt_users: bool = True,
        sparse_updates: SparseUpdates = "deferred",
        seed: int = 0,
    ) -> None:
        batches = {"triple_batch_size": triple_batch_size, "triple_batches": triple_batches}
        check_options(attention, kge, sparse_updates, message_dropout, batches, shared_negatives, distinct_users)
        super().__init__(
            inputs,
            dim=dim,
            layer_dims=list(layer_dims),
            aggregator=aggregator,
            attention=attention,
            kge=kge,
            relation_dim=relation_dim,
            message_dropout=message_dropout,
            distinct_users=distinct_users,
            loss=loss,
            num_negatives=num_negatives,
            shared_negatives=shared_negatives,
            positives=positives,
            init=init,
            init_scale=init_scale,
            lr=lr,
            reg=reg,
            triple_reg=triple_reg,
            batch_size=batch_size,
            triple_batch_size=triple_batch_size,
            triple_batches=triple_batches,
            corrupt_users=corrupt_users,
            sparse_updates=sparse_updates,
            seed=seed,
        )
        self.attention_kind, self.message_dropout, self.distinct_users = attention, message_dropout, distinct_users
        self.triple_reg, self.corrupt_users, self.sparse_updates = triple_reg, corrupt_users, sparse_updates
        triples = self.knowledge.counts["triples"] - self.knowledge.counts["duplicates"]
        interactions = self.knowledge.counts["interactions"]
        self.triple_batch_size = triple_batch_size or max(triples // max(interactions // batch_size, 1), 1)
        self.triple_batches = triple_batches or len(self.knowledge) // _PUBLISHED_BATCH + 1
        stream = randomness.generator(seed, "initialisation/layers")
        widths = [dim, *layer_dims]
        self.layers = nn.ModuleList(
            [Aggregator(aggregator, own, out, generator=stream) for own, out in zip(widths, layer_dims, strict=False)]
        )
        self.kge = kge
        # TransE's and TransR's g is a squared distance; without a triples' phase attention keeps its initial matrices.
        self.scorer = scorer(kge or "transr")
        self.relation_tables = nn.ParameterDict()
        self.layer_matrices = nn.ParameterList()
        if kge is not None or attention in ("epoch", "layer"):
            self._initialise_relations(relation_dim, widths)
        if attention == "epoch":
            self.register_buffer("attention", self._shares(torch.ones(len(self.knowledge))))
            self.register_buffer("refreshed", torch.zeros((), dtype=torch.bool))
        self._row_optimiser = RowAdamLink()

    @torch.no_grad()
    def _initialise_relations(self, relation_dim: int | None, widths: Sequence[int]) -> None:
        stream = randomness.generator(self.seed, "initialisation/relations")
        count = self.knowledge.num_relations
        for name, shape in self.scorer.shapes(count, self.dim, relation_dim).items():
            self.relation_tables[name] = xavier(shape, stream)
        if self.attention_kind == "layer":
            width = self.relation_tables["vectors"].shape[1]
            for own in widths[1:-1]:
                self.layer_matrices.append(xavier((count, own, width), stream))

    def relations(self) -> dict[str, Tensor]:
        """The tables of the relations, by the scorer's names."""
        return dict(self.relation_tables.items())

    def score_triples(self, heads: Tensor | None, relations: Tensor, tails: Tensor | None) -> Tensor:
        """-g of triples, (B,), or with every node in the place of a None, (B, N).

        Args:
            heads: (B,) int64 nodes of :attr:`knowledge`, or None.
            relations: (B,) int64.
            tails: (B,) int64 nodes, or None.

        Raises:
            InputError: the model has no relation tables (``kge=None`` with an attention that needs none).
        """
        if not self.relation_tables:
            raise InputError("this KGAT was made without relation tables (kge=None), so that it scores no triples.")
        return self.scorer.score(self.node_table(), heads, relations, tails, self.relations())

    def _shares(self, weight: Tensor) -> Tensor:
        """Attention that rests on degrees, (E,), with edges weighed."""
        return SHARES[self.attention_kind](self.knowledge, weight)

    def current_attention(self) -> Tensor:
        """Softmax of the present embeddings' logits over each head's edges, (E,); differentiable."""
        logits = translated_logits(self.knowledge, self.node_table(), self.scorer, self.relations())
        return edge_softmax(self.knowledge.adjacency, logits)

    def edge_values(self, edge_weight: EdgeWeight = None) -> Tensor:
        """Entries of the matrix that all layers share, (E,); differentiable in ``edge_weight``.

        An edge of weight 0 is as good as not there: the other edges of its head share what it had.
        """
        weight = self.knowledge_weight(edge_weight)
        kind = self.user_embedding.dtype
        if self.attention_kind != "epoch" or (weight is not None and not bool(self.refreshed)):
            ones = torch.ones(len(self.knowledge), dtype=kind, device=self.device)
            return self._shares(ones if weight is None else weight.to(kind))
        if weight is None:
            return self.attention
        values = self.attention * weight
        sums = row_sums(self.knowledge.adjacency, values).index_select(0, self.knowledge.heads())
        return values / sums.where(sums > 0, 1.0)

    def matrix(self) -> Adjacency:
        """The (N, N) matrix that all layers share; kept until the attention is refreshed."""
        held: Tensor = self.attention if self.attention_kind == "epoch" else self.user_embedding
        version = self.attention._version if self.attention_kind == "epoch" else 0
        key = (held.data_ptr() if self.attention_kind == "epoch" else 0, version, held.dtype)
        kept = self.knowledge.cache.get("kgat")
        if kept is None or kept[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # what is kept must serve training too
                values = self.edge_values().clone()
            kept = self.knowledge.cache["kgat"] = (key, self.knowledge.adjacency.with_stored_values(values))
        made: Adjacency = kept[1]
        return made

    def layer_attention(self, layer: int, x: Tensor, weight: Tensor | None) -> Tensor:
        """Attention of ``attention='layer'`` in one layer, (E,), from its input (N, D_k)."""
        graph, tables = self.knowledge, self.relations()
        if layer == 0:
            logits = translated_logits(graph, x, self.scorer, tables)
        else:
            own = {"vectors": tables["vectors"], "matrices": self.layer_matrices[layer - 1]}
            logits = translated_logits(graph, x, SCORERS["transr"](), own)
        return edge_softmax(graph.adjacency, logits, weight)

    def relational_attention(self) -> tuple[RelationalGraph, Tensor]:
        """The graph and how much each of its heads takes in of each edge, (E,); that of the first layer."""
        with torch.no_grad():
            if self.attention_kind == "layer":
                return self.knowledge, self.layer_attention(0, self.node_table(), None)
            return self.knowledge, self.edge_values().clone()

    def aggregators(self) -> list[Aggregator]:
        """The layers, by their type."""
        return [layer for layer in self.layers if isinstance(layer, Aggregator)]

    def _layers(self, rows: Tensor | None, edge_weight: EdgeWeight, generator: torch.Generator | None) -> list[Tensor]:
        """Rows (n,) of E⁰ and of each layer's output; all N where ``rows`` is None."""
        weight, graph, tables = self.knowledge_weight(edge_weight), self.knowledge, self.tables()
        found = [tables[name] for name in graph.order]
        dropping: dict[str, Any] = {"dropout": self.message_dropout, "generator": generator}
        if self.attention_kind != "layer":
            matrix = self.matrix() if weight is None else graph.adjacency
            values = None if weight is None else self.edge_values(edge_weight)
            return layer_rows(matrix, found, self.aggregators(), rows, values=values, **dropping)
        outputs = [torch.cat(found)]
        for number, layer in enumerate(self.aggregators()):
            shares = self.layer_attention(number, outputs[-1], weight)
            outputs.append(layer_rows(graph.adjacency, [outputs[-1]], [layer], values=shares, **dropping)[1])
        return outputs if rows is None else [output.index_select(0, rows) for output in outputs]

    def _final(self, rows: Tensor | None, edge_weight: EdgeWeight, generator: torch.Generator | None) -> Tensor:
        first, *rest = self._layers(rows, edge_weight, generator)
        # x / sqrt(max(sum x², 1e-12)), the convention of the authors' framework.
        return torch.cat([first, *(functional.normalize(x, eps=1e-6) for x in rest)], dim=1)

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """E* of users and items, (U, D') and (I, D'), D' = D + the sum of the layers' widths."""
        final = self._final(None, edge_weight, None)
        user_type, _, item_type = self.graph_inputs.target
        return Encoded(final[self.knowledge.nodes(user_type)], final[self.knowledge.nodes(item_type)])

    def training_rows(
        self, users: Tensor, items: Tensor, *, batch: Batch | None = None, edge_weight: EdgeWeight = None
    ) -> tuple[Pair, Pair]:
        """Rows of E*, which the penalty is on too; only what the batch depends on is computed."""
        user_type, _, item_type = self.graph_inputs.target
        starts = self.knowledge.nodes(user_type).start, self.knowledge.nodes(item_type).start
        generator = batch.generator if batch is not None and self.training else None
        final = self._final(torch.cat([users + starts[0], items + starts[1]]), edge_weight, generator)
        rows = final[: len(users)], final[len(users) :]
        return rows, rows

    def batches(self, epoch: int, generator: torch.Generator) -> Iterable[PairBatch]:  # type: ignore[override]
        """Pairs of one epoch; see ``distinct_users``."""
        if not self.distinct_users:
            return super().batches(epoch, generator)
        return pairs_of_users(self.graph_inputs.adjacency(), self.batch_size, self.num_negatives, generator)

    def draw_triples(self, epoch: int, generator: torch.Generator) -> Iterable[TripleBatch]:
        """Triples of one epoch: heads uniformly, one of each head's edges, a corrupted tail."""
        graph, users = self.knowledge, self.knowledge.nodes(self.graph_inputs.target[0])
        candidates = None if self.corrupt_users else slice(users.stop, graph.num_nodes)
        finish = self._row_optimiser.flush
        return triples_of_heads(graph, self.triple_batches, self.triple_batch_size, candidates, generator, finish)

    def triple_loss(self, batch: TripleBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank`` and ``reg`` of one batch of triples; see the class."""
        ends = torch.cat([batch.heads.unsqueeze(1), batch.tails.unsqueeze(1), batch.negatives], 1)
        projected = self.scorer.projected_ends(self._table_rows(ends), batch.relations, self.relations())
        true, false = self.scorer.scores(projected)
        terms = functional.softplus(false - true.unsqueeze(1)).mean(1)
        norms = squared_norms(projected.heads) + squared_norms(projected.vectors) + squared_norms(projected.tails)
        assert projected.corrupted is not None
        norms = norms + projected.corrupted.square().sum(-1).mean(1)
        penalty = (batch.weight * norms).sum() * (self.triple_reg / (2 * _PUBLISHED_BATCH))
        return {"rank": self.batch_weight(batch, terms), "reg": penalty}

    def _table_rows(self, nodes: Tensor) -> Tensor:
        """Rows of E⁰, (..., D); with sparse gradients where the phase's optimiser is one for them."""
        optimiser = self._row_optimiser.live()
        if optimiser is None or not self.training:
            return functional.embedding(nodes, self.node_table())
        return rows_of_nodes(self.knowledge, self.tables(), nodes, optimiser)

    def refresh(self, batch: Batch) -> Mapping[str, Tensor]:
        """Attention from the present embeddings; :meth:`matrix` follows it."""
        with torch.no_grad():
            self.attention.copy_(self.current_attention())
            self.refreshed.fill_(True)
        self._encoded = None
        return {}

    def phases(self) -> Sequence[Phase]:
        """``pairs``, ``triples`` and, where the attention is of the epoch, ``attention``."""

        tables = [table for table in self.tables().values() if isinstance(table, nn.Parameter)]
        relations = list(self.relation_tables.parameters())
        own = [*tables, *self.layers.parameters()]
        if self.attention_kind == "layer":
            own += [*relations, *self.layer_matrices]
        phases = [Phase("pairs", self.batches, self.pair_loss, tuple(own), adam(self.lr))]
        if self.kge is not None:
            phases.append(
                Phase("triples", self.draw_triples, self.triple_loss, (*tables, *relations), self._triple_optimiser)
            )
        if self.attention_kind == "epoch":
            phases.append(Phase("attention", once(self.device), self.refresh))
        return tuple(phases)

    def _triple_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        parameters = list(parameters)
        # On a GPU the dense step is as quick as any, and asks for no sizes of sets of rows.
        if self.sparse_updates == "off" or (self.sparse_updates == "deferred" and parameters[0].is_cuda):
            return adam(self.lr)(parameters)
        optimiser = RowAdam(parameters, lr=self.lr, deferred=self.sparse_updates == "deferred")
        self._row_optimiser.set(optimiser)
        return optimiser

    def derived(self) -> Mapping[str, Derived]:
        """The typed edges, and attention that was computed from embeddings."""
        found = dict(super().derived())
        if self.attention_kind == "epoch":
            found["attention"] = Derived(tuple(self.knowledge_types()), self._attention_again)
        return found

    @torch.no_grad()
    def _attention_again(self) -> Tensor:
        return self.current_attention() if bool(self.refreshed) else self._shares(torch.ones_like(self.attention))
