"""KGCL: LightGCN on items that take in their triples, contrasted under views of both graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.augment import keep_edges, keep_exactly
from graphrec.graphs.relational import RelationalGraph
from graphrec.graphs.triples import triple_index
from graphrec.layers.dropout import kept_entries
from graphrec.layers.losses import squared_norms
from graphrec.layers.propagation import linear_propagation, propagation_and_ego_rows
from graphrec.layers.tail_attention import ItemTails, item_tails, tail_attention, with_tails
from graphrec.layers.views import View, pair_contrast
from graphrec.models.base import (
    Batch,
    Derived,
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
from graphrec.models.phase_parts import adam, once
from graphrec.models.propagated import PropagatedRecommender, TwoViews
from graphrec.randomness import derive, hash_bits, hash_integers, hash_uniform

Bare = Literal["own", "padding"]
Visible = Literal["first", "sample"]

_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class KGView:
    """One view of both graphs: the triples that items see, and the interactions."""

    tails: ItemTails
    interactions: View


class KGCL(TwoViews[KGView], PropagatedRecommender, KnowledgeRecommender):
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

    convention: ClassVar[str] = "directed"
    row_parameters: ClassVar[Mapping[str, str]] = {
        **KnowledgeRecommender.row_parameters,
        "item_tail_embedding": "item",
    }
    presets: ClassVar[Mapping[str, Preset]] = {
        "published": Preset(
            model={"bare_items": "padding"},
            note="The first release's padding entity, which every item without visible triples attends to.",
        ),
        "yelp2018": Preset(
            model={"bare_items": "padding", "interaction_drop": 0.1},
            fit={"patience": 5, "select_on": "test"},
            note="As published on yelp2018 with KGCL's KG: .0756 and .0493 (paper). The authors test from epoch 25 on.",
        ),
        "amazon-book": Preset(
            model={"bare_items": "padding", "interaction_drop": 0.05},
            fit={"patience": 5, "select_on": "test"},
            note="As published on amazon-book: .1496 and .0793 (paper and log). The authors test from epoch 15 on.",
        ),
        "mind": Preset(
            model={
                "bare_items": "padding",
                "max_tails": 6,
                "edge_dropout": 0.4,
                "interaction_drop": 0.4,
                "mix": 0.6,
                "contrast_weight": 0.06,
                "lr": 5e-4,
                "reg": 1e-3,
            },
            fit={"patience": 3, "select_on": "test"},
            note="As published on KGCL's MIND: .1073 and .0551; the authors' rate falls to a fifth at epochs 5 and 10.",
        ),
    }

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
        for name, least, number in (("num_layers", 0, num_layers), ("triple_batch_size", 1, triple_batch_size)):
            if number < least:
                raise InputError(f"{name} must be {least} or more, found {number}.")
        if visible not in ("first", "sample"):
            raise unknown("visible", visible, ("first", "sample"))
        if bare_items not in ("own", "padding"):
            raise unknown("bare_items", bare_items, ("own", "padding"))
        shares = {
            "message_dropout": message_dropout,
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
        for name, share in (("contrast_weight", contrast_weight), ("triple_reg", triple_reg)):
            if share < 0:
                raise InputError(f"{name} must be 0 or more, found {share}.")
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
        self.max_tails, self.message_dropout, self.edge_dropout = max_tails, message_dropout, edge_dropout
        self.knowledge_drop, self.interaction_drop, self.mix = knowledge_drop, interaction_drop, mix
        self.contrast_weight, self.temperature = contrast_weight, temperature
        self.triple_batch_size, self.triple_reg = triple_batch_size, triple_reg
        self.layer_weights = (1 / (num_layers + 1),) * (num_layers + 1)
        self.matrix = self.propagation_matrix()
        self.tails = self.visible_tails()
        self._initialise_attention(shared_entities, bare_items, init_scale)
        self.view_seed = derive(seed, "views")

    @torch.no_grad()
    def _initialise_attention(self, shared: bool, bare_items: Bare, scale: float) -> None:
        dim, relations = self.dim, self.knowledge.num_relations

        def normal(name: str, rows: int) -> nn.Parameter:
            stream = randomness.generator(self.seed, f"initialisation/{name}")
            return nn.Parameter(nn.init.normal_(torch.empty(rows, dim), std=scale, generator=stream))

        items = self.knowledge.nodes(self.graph_inputs.target[2])
        nodes = self.knowledge.tails()
        among_items = bool(((nodes >= items.start) & (nodes < items.stop)).any())
        self.item_tail_embedding: nn.Parameter | None
        own = normal("item tails", self.num_items) if among_items and not shared else None
        self.register_parameter("item_tail_embedding", own)
        self.relation_embedding = normal("relations", relations)
        stream, bound = randomness.generator(self.seed, "initialisation/attention"), (2 * dim) ** -0.5
        self.attention_matrix = nn.Parameter(torch.empty(2 * dim, dim).uniform_(-bound, bound, generator=stream))
        self.attention_bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound, generator=stream))
        self.padding: nn.Parameter | None
        self.register_parameter("padding", normal("padding", 1) if bare_items == "padding" else None)

    def visible_tails(self) -> ItemTails:
        """The triples that items see, made from the present ones."""
        seed = self.seed if self.hparams["visible"] == "sample" else None
        return item_tails(self.knowledge, self.graph_inputs.target[2], self.max_tails, seed=seed)

    def tail_rows(self, nodes: Tensor) -> Tensor:
        """Vectors x of nodes of :attr:`knowledge`, (P, D)."""
        first = self.item_embedding if self.hparams["shared_entities"] else self.item_tail_embedding
        if first is None:
            assert self.entity_embedding is not None
            return self.entity_embedding.index_select(0, nodes - self.knowledge.nodes("entity").start)
        tables = {self.graph_inputs.target[2]: first}
        if self.entity_embedding is not None:
            tables["entity"] = self.entity_embedding
        return torch.cat([tables[name] for name in self.knowledge.order]).index_select(0, nodes)

    def _dropped(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None or self.message_dropout == 0:
            return x
        kept = kept_entries(tuple(x.shape), self.message_dropout, generator).to(x.dtype)
        return x * kept.mul_(1 / (1 - self.message_dropout))

    def attention(self, tails: ItemTails, items: Tensor, x: Tensor, edge_weight: EdgeWeight = None) -> Tensor:
        """α of the visible triples, (E,), from vectors of items (I, D) and of the visible tails (U, D)."""
        matrix = self.relation_embedding @ self.attention_matrix.T
        weight = self.knowledge_weight(edge_weight)
        return tail_attention(
            tails,
            items,
            x,
            matrix[:, : self.dim],
            matrix[:, self.dim :],
            self.relation_embedding @ self.attention_bias,
            None if weight is None else weight.to(items.dtype).index_select(0, tails.edge),
        )

    @torch.no_grad()
    def relational_attention(self) -> tuple[RelationalGraph, Tensor]:
        """The triples as stated and α, (E,); 0 for those that no item sees."""
        shares = self.item_embedding.new_zeros(len(self.knowledge))
        x = self.tail_rows(self.tails.nodes)
        shares[self.tails.edge] = self.attention(self.tails, self.item_embedding, x)
        return self.knowledge, shares

    def item_table(
        self,
        tails: ItemTails,
        *,
        x: Tensor | None = None,
        generator: torch.Generator | None = None,
        edge_weight: EdgeWeight = None,
    ) -> Tensor:
        r""":math:`\tilde q`, (I, D), of the triples given.

        Args:
            tails: the visible triples, or those of a view.
            x: (U, D), vectors of their tails, where they are at hand.
            generator: feeds dropout; None: there is none.
            edge_weight: as in :meth:`score`; a triple of weight 0 is as good as not there.
        """
        x = self._dropped(self.tail_rows(tails.nodes) if x is None else x, generator)
        items = self._dropped(self.item_embedding, generator)
        shares = self.attention(tails, items, x, edge_weight)
        made = with_tails(tails, items, x, self._dropped(shares, generator))
        if self.padding is not None:
            seen = tails.adjacency.degrees(0).to(made.dtype)
            made = made + (seen == 0).to(made.dtype).unsqueeze(1) * self._dropped(self.padding, generator)
        return self._dropped(made, generator)

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
        tails = self._dropped_triples(0), self._dropped_triples(1)
        first, second = (self.item_table(view, generator=generator) for view in tails)
        keep = keep_probability(functional.cosine_similarity(first, second, dim=1), self.interaction_drop)
        return KGView(tails[0], self._interactions(0, keep)), KGView(tails[1], self._interactions(1, keep))

    def _dropped_triples(self, number: int) -> ItemTails:
        seed = derive(self.view_seed, f"triples/{number}")
        nodes = self.tails.nodes[self.tails.tails()]
        bits = hash_uniform(seed, self.tails.heads(), self.tails.relation, nodes)
        return self.tails.kept(bits >= self.knowledge_drop)

    def _interactions(self, number: int, keep: Tensor) -> View:
        adj = self.graph_inputs.adjacency()
        edges = self.graph_inputs.graph[self.graph_inputs.target].edge_index
        seed = derive(self.view_seed, f"items/{number}")
        items = hash_uniform(seed, torch.arange(self.num_items, device=keep.device)) < keep
        kept = items[edges[1]]
        if self.mix:
            thinned = hash_uniform(derive(self.view_seed, f"thinned/{number}"), *edges) < 0.4
            mixed = keep_exactly(adj, 1 - self.mix, seed=derive(self.view_seed, f"mixed/{number}"))
            kept = (kept & thinned) | mixed
        return View(adj, [kept])

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

    def draw_triples(self, epoch: int, generator: torch.Generator) -> Iterator[TripleBatch]:
        """One triple of each item that has some, in random order, with a corrupted tail.

        A corrupted tail is the tail of a random triple of a random item, as in the code; one that is known is drawn
        again, a few times.
        """
        graph, seed = self.knowledge, generator.initial_seed()
        span = graph.nodes(self.graph_inputs.target[2])
        rowptr = graph.adjacency.rowptr.long()
        degree = graph.adjacency.degrees(0)
        heads = torch.nonzero(degree[span])[:, 0] + span.start
        heads = heads[torch.argsort(hash_bits(derive(seed, "order"), heads), stable=True)]
        entry = rowptr[heads] + hash_integers(derive(seed, "triples"), degree[heads], heads)
        relations, tails, index = graph.relation[entry], graph.tails()[entry], triple_index(graph)

        def draw(some: Tensor, turn: int) -> Tensor:
            other = heads[hash_integers(derive(seed, "other heads"), len(heads), some, turn)]
            place = hash_integers(derive(seed, "other tails"), degree[other], some, turn)
            return graph.tails()[rowptr[other] + place]

        corrupted = draw(heads, 0)
        for turn in range(1, _ROUNDS):
            known = index.contains(heads, relations, corrupted)
            corrupted = torch.where(known, draw(heads, turn), corrupted)
        for start in range(0, len(heads), self.triple_batch_size):
            part = slice(start, start + self.triple_batch_size)
            yield TripleBatch(
                edge_id=graph.edge_id[entry[part]],
                weight=torch.ones(len(heads[part]), device=heads.device),
                generator=generator,
                heads=heads[part],
                relations=relations[part],
                tails=tails[part],
                negatives=corrupted[part].unsqueeze(1),
                edge_type=graph.edge_type[entry[part]],
            )

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
        triples = Phase("triples", self.draw_triples, self.triple_loss, translated, adam(self.lr))
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
            "tails": Derived(triples, self.visible_tails),
            "views": Derived((*target, *triples), self.drawn_views),
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KGCL:
        super()._apply(fn, recurse)
        self.tails = self.tails.apply(fn)
        if self._views is not None:
            adj = self.graph_inputs.adjacency()
            first, second = (
                KGView(view.tails.apply(fn), View(adj, [fn(kept) for kept in view.interactions.kept]))
                for view in self._views
            )
            self._views = first, second
        return self


def keep_probability(stability: Tensor, drop: float, floor: float = 0.3, most: float = 0.95) -> Tensor:
    r"""How likely a view keeps each item's interactions, (I,).

    .. math:: p_i = \min\big(.95, (1 - \rho) \, w_i / \bar w\big), \qquad
              w_i = \max\Big(.3, \frac{e^{s_i} - \min e^s}{\max e^s - \min e^s}\Big)

    Items of equal stability are kept equally likely.

    Args:
        stability: (I,), s.
        drop: ρ.
        floor: the least w.
        most: the largest p.
    """
    size = stability.exp()
    spread = size.max() - size.min()
    # Where all are equal but for rounding, none is more stable than another.
    weight = ((size - size.min()) / spread).where(spread > 1e-5, 1.0).clamp_min(floor)
    return ((1 - drop) * weight / weight.mean()).clamp_max(most)
