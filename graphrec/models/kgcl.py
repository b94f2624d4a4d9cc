"""KGCL: LightGCN on items that take in their triples, contrasted under views of both graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, check_at_least
from graphrec.graphs.augment import keep_edges
from graphrec.layers.losses import squared_norms
from graphrec.layers.propagation import linear_propagation, propagation_and_ego_rows
from graphrec.layers.views import pair_contrast
from graphrec.models.base import (
    Batch,
    Derived,
    EdgeWeight,
    Encoded,
    GraphInputs,
    PairBatch,
    Phase,
    TripleBatch,
)
from graphrec.models.kgcl_items import AttentiveItems, Bare, Visible
from graphrec.models.kgcl_presets import PRESETS
from graphrec.models.kgcl_triples import item_triples
from graphrec.models.kgcl_views import KGView, dropped_triples, keep_probability, kept_interactions
from graphrec.models.pairwise import Initialisation, Loss, Pair, Positives
from graphrec.models.phase_parts import adam, once
from graphrec.models.propagated import PropagatedRecommender, TwoViews
from graphrec.randomness import derive


class KGCL(TwoViews[KGView], PropagatedRecommender, AttentiveItems):
    r"""Knowledge graph contrastive learning (Yang et al., SIGIR 2022, https://arxiv.org/abs/2205.00976).

    An item takes in up to 10 tails of its triples, and LightGCN runs on the users and these items:

    .. math::
        \tilde q_i &= q_i + \sum_{(r, t)} \alpha_{irt} x_t, \qquad
            \alpha = \mathrm{softmax}_i \; \mathrm{LReLU}_{0.2}\big( ([q_i \| x_t] W + b) \cdot \rho_r \big) \\
        E^* &= \tfrac{1}{K+1} \textstyle\sum_k \hat A^k [U; \tilde Q], \qquad y_{ui} = \langle e^*_u, e^*_i \rangle

    An epoch first trains TransE on one triple of each item, :math:`-\log \sigma(g(t') - g(t))` with
    :math:`g = \|q_i + \rho_r - x_t\|^2`, then draws two views, then trains pairs: BPR on the whole graphs, and λ₁ times
    InfoNCE of the batch's users and of its positive items between the views, against all users and all items. A view
    of the triples drops each with probability ½; an item is *stable* when its :math:`\tilde q` of both views agree,
    :math:`s_i = \cos(\tilde q^1_i, \tilde q^2_i)`; and a view of the interactions keeps all edges of an item with
    probability :math:`p_i = \min(.95, (1 - \rho) w_i / \bar w)`, :math:`w_i = \max(.3, \mathrm{minmax}(e^{s_i}))`.

    This is the authors' first release, behind the published numbers, with these differences. Items and entities have
    tables of their own (``shared_entities`` gives them one, as the authors' later port has it). In that code an item
    that sees no triple attends to a padding entity, one learned vector for all of them (``bare_items='padding'``, part
    of ``preset='published'``); here it keeps its own vector. Dropout of inputs draws an entry of an entity's vector
    once for all its items; an interaction is dropped in both directions or in none; an epoch's last, short batches are
    trained on; TransE has an Adam of its own. The code sums over the batch what is a mean here, which leaves Adam's
    steps as they are, but divides λ₂ by B besides: so does this.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the tables.
        num_layers: K.
        max_tails: triples that an item sees.
        visible: which: ``first``, those of the table, which is sorted by tail (the code takes the first of its file);
            or ``sample``, drawn once.
        shared_entities: whether an item that is a tail has the vector that it has as an item.
        bare_items: what an item without triples is: its ``own`` vector, or that with a ``padding`` vector.
        message_dropout: share of entries dropped of the vectors that enter attention, of attention, and of its result.
        edge_dropout: share of interactions left out of each step's whole graph, the others scaled.
        knowledge_drop: share of triples a view drops.
        interaction_drop: ρ.
        mix: share of all interactions, drawn at random, that each view gets besides 0.4 of those of kept items (what
            the authors do on MIND); 0: views are as above.
        contrast_weight: λ₁; at 0 no views are made.
        temperature: τ of InfoNCE.
        triple_batch_size: triples of a batch.
        triple_reg: λ on the vectors of TransE, ½ the mean of squared norms.
        loss: ``bpr``, ``bce`` or ``softmax``; see :class:`~graphrec.models.pairwise.PairwiseRecommender`.
        num_negatives: negatives of each positive, or of a batch where they are shared.
        shared_negatives: whether a batch shares its negatives.
        positives: ``user`` or ``edge``; the authors' code visits each edge once an epoch.
        init: ``normal``, ``xavier`` or ``spectral``.
        init_scale: standard deviation of the initial entries.
        lr: learning rate of both Adams.
        reg: λ₂, on rows of the tables of users and items; divided by B.
        batch_size: B.
        seed: seeds the initial parameters.
    """

    presets = PRESETS

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 3,
        max_tails: int = 10,
        visible: Visible = "first",
        shared_entities: bool = False,
        bare_items: Bare = "own",
        message_dropout: float = 0.4,
        edge_dropout: float = 0.2,
        knowledge_drop: float = 0.5,
        interaction_drop: float = 0.1,
        mix: float = 0.0,
        contrast_weight: float = 0.1,
        temperature: float = 0.2,
        triple_batch_size: int = 4096,
        triple_reg: float = 1e-3,
        loss: Loss = "bpr",
        num_negatives: int = 1,
        shared_negatives: bool = False,
        positives: Positives = "edge",
        init: Initialisation = "normal",
        init_scale: float = 0.1,
        lr: float = 1e-3,
        reg: float = 1e-4,
        batch_size: int = 2048,
        seed: int = 0,
    ) -> None:
        check_at_least(0, num_layers=num_layers)
        check_at_least(1, triple_batch_size=triple_batch_size)
        shares = {
            "edge_dropout": edge_dropout,
            "knowledge_drop": knowledge_drop,
            "interaction_drop": interaction_drop,
            "mix": mix,
        }
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise InputError(f"{name} must lie in [0, 1), found {share}.")
        if not temperature > 0:
            raise InputError(f"temperature must be positive, found {temperature}.")
        check_at_least(0, contrast_weight=contrast_weight, triple_reg=triple_reg)
        super().__init__(
            inputs,
            dim=dim,
            num_layers=num_layers,
            max_tails=max_tails,
            visible=visible,
            shared_entities=shared_entities,
            bare_items=bare_items,
            message_dropout=message_dropout,
            edge_dropout=edge_dropout,
            knowledge_drop=knowledge_drop,
            interaction_drop=interaction_drop,
            mix=mix,
            contrast_weight=contrast_weight,
            temperature=temperature,
            triple_batch_size=triple_batch_size,
            triple_reg=triple_reg,
            loss=loss,
            num_negatives=num_negatives,
            shared_negatives=shared_negatives,
            positives=positives,
            init=init,
            init_scale=init_scale,
            lr=lr,
            reg=reg,
            batch_size=batch_size,
            seed=seed,
        )
        self.edge_dropout, self.knowledge_drop = edge_dropout, knowledge_drop
        self.interaction_drop, self.mix = interaction_drop, mix
        self.contrast_weight, self.temperature = contrast_weight, temperature
        self.triple_batch_size, self.triple_reg = triple_batch_size, triple_reg
        self.layer_weights = (1 / (num_layers + 1),) * (num_layers + 1)
        self.matrix = self.propagation_matrix()
        self.view_seed = derive(seed, "views")

    def _training_values(self, edge_weight: EdgeWeight, generator: torch.Generator | None) -> Tensor | None:
        """Entries of the normalised matrix, where they differ from those of :attr:`matrix`."""
        values = self.matrix_values(edge_weight)
        if generator is None or self.edge_dropout == 0:
            return values
        if values is None:
            assert self.matrix.values is not None
            values = torch.empty_like(self.matrix.values)
            values[self.matrix.edge_positions()] = self.matrix.values
        return values * keep_edges(self.matrix, self.edge_dropout, generator=generator) / (1 - self.edge_dropout)

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """E* of the whole graphs, (U, D) and (I, D)."""
        items = self.item_table(self.tails, edge_weight=edge_weight)
        values = self.matrix_values(edge_weight)
        return Encoded(*linear_propagation(self.matrix, self.user_embedding, items, self.layer_weights, values))

    def training_rows(
        self, users: Tensor, items: Tensor, *, batch: Batch | None = None, edge_weight: EdgeWeight = None
    ) -> tuple[Pair, Pair]:
        """Rows of E*, and of the tables of users and items."""
        generator = batch.generator if batch is not None and self.training else None
        table = self.item_table(self.tails, generator=generator, edge_weight=edge_weight)
        values = self._training_values(edge_weight, generator)
        rows, ego = propagation_and_ego_rows(
            self.matrix, self.user_embedding, table, self.layer_weights, users, items, values
        )
        return rows, (ego[0], self.item_embedding[items])

    @torch.no_grad()
    def drawn_views(self, generator: torch.Generator | None = None) -> tuple[KGView, KGView]:
        """Views of the present edges and vectors; the generator feeds dropout while stability is measured."""
        tails = [
            dropped_triples(self.tails, self.knowledge_drop, derive(self.view_seed, f"triples/{number}"))
            for number in (0, 1)
        ]
        first, second = (self.item_table(view, generator=generator) for view in tails)
        keep = keep_probability(functional.cosine_similarity(first, second, dim=1), self.interaction_drop)
        views = [
            KGView(tails[number], kept_interactions(self.graph_inputs, keep, self.mix, self.view_seed, number))
            for number in (0, 1)
        ]
        return views[0], views[1]

    def contrast(
        self,
        users: Tensor,
        items: Tensor,
        *,
        generator: torch.Generator | None = None,
        edge_weight: EdgeWeight = None,
    ) -> Tensor:
        """InfoNCE of each pair's user and item between the views, their sum, (B,); repeated ones computed once."""
        x = self.tail_rows(self.tails.nodes)
        first, second = (
            (self.user_embedding, self.item_table(view.tails, x=x, generator=generator, edge_weight=edge_weight))
            for view in self.views
        )
        return pair_contrast(
            (self.views[0].interactions, self.views[1].interactions),
            (first, second),
            self.layer_weights,
            users,
            items,
            temperature=self.temperature,
            weight=self.weighted_edges(edge_weight),
        )

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank``, ``reg`` and ``contrast`` of the loss of one batch; see the class."""
        terms = dict(super().pair_loss(batch, edge_weight))
        if "reg" in terms:
            terms["reg"] = terms["reg"] / self.batch_size
        if self.contrast_weight:
            generator = batch.generator if self.training else None
            contrast = self.contrast(batch.users, batch.items, generator=generator, edge_weight=edge_weight)
            terms["contrast"] = self.contrast_weight * self.batch_weight(batch, contrast)
        return terms

    def triple_batches(self, epoch: int, generator: torch.Generator) -> Iterator[TripleBatch]:
        """One triple of each item that has some; see :func:`~graphrec.models.kgcl_triples.item_triples`."""
        items = self.knowledge.nodes(self.graph_inputs.target[2])
        return item_triples(self.knowledge, items, self.triple_batch_size, generator)

    def triple_loss(self, batch: TripleBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank`` and ``reg`` of TransE on one batch; see the class."""
        start = self.knowledge.nodes(self.graph_inputs.target[2]).start
        heads = self.item_embedding.index_select(0, batch.heads - start)
        relations = self.relation_embedding.index_select(0, batch.relations)
        tails, corrupted = self.tail_rows(torch.cat([batch.tails, batch.negatives[:, 0]])).chunk(2)
        moved = heads + relations
        gap = squared_norms(moved - tails) - squared_norms(moved - corrupted)
        terms = {"rank": self.batch_weight(batch, functional.softplus(gap))}
        if self.triple_reg:
            norms = squared_norms(heads) + squared_norms(relations) + squared_norms(tails) + squared_norms(corrupted)
            terms["reg"] = 0.5 * self.triple_reg * self.batch_weight(batch, norms)
        return terms

    def phases(self) -> Sequence[Phase]:
        """``triples`` trains TransE, ``views`` draws the epoch's views, ``pairs`` trains every parameter."""
        shared = bool(self.hparams["shared_entities"])
        tables = [self.item_embedding, self.relation_embedding, self.entity_embedding]
        tables += [] if shared else [self.item_tail_embedding]
        translated = tuple(table for table in tables if table is not None)
        triples = Phase("triples", self.triple_batches, self.triple_loss, translated, adam(self.lr))
        pairs = Phase("pairs", self.batches, self.pair_loss, tuple(self.parameters()), adam(self.lr))
        if self.contrast_weight == 0:
            return triples, pairs
        return triples, Phase("views", once(self.device), self._draw), pairs

    def _draw(self, batch: Batch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        assert batch.generator is not None
        self.view_seed = batch.generator.initial_seed()
        self._views = self.drawn_views(batch.generator if self.training else None)
        return {}

    def derived(self) -> Mapping[str, Derived]:
        """The typed edges, the triples that items see, the normalised matrix, and the views."""
        triples, target = tuple(self.knowledge_types()), (self.graph_inputs.target,)
        return {
            **super().derived(),
            "views": Derived((*target, *triples), self.drawn_views),
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if self._views is not None:
            first, second = (view.apply(fn, self.graph_inputs) for view in self._views)
            self._views = first, second
        return self
