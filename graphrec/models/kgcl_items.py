"""KGCL's items: each takes in the tails of its triples, as many as it sees, by attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.relational import RelationalGraph
from graphrec.layers.dropout import kept_entries
from graphrec.layers.tail_attention import ItemTails, item_tails, tail_attention, with_tails
from graphrec.models.base import Derived, EdgeWeight, GraphInputs
from graphrec.models.knowledge import KnowledgeRecommender

Bare = Literal["own", "padding"]
Visible = Literal["first", "sample"]


class AttentiveItems(KnowledgeRecommender):
    r"""A model whose items take in tails of their triples,

    .. math:: \tilde q_i = q_i + \sum_{(r, t)} \alpha_{irt} x_t, \qquad
              \alpha = \mathrm{softmax}_i \; \mathrm{LReLU}_{0.2}\big( ([q_i \| x_t] W + b) \cdot \rho_r \big)

    What the options mean is said by :class:`~graphrec.models.KGCL`.

    Args:
        inputs: the dataset or the inputs taken from it.
        **hparams: those of :class:`KnowledgeRecommender`, of the subclass, and ``max_tails``, ``visible``,
            ``shared_entities``, ``bare_items``, ``message_dropout``.
    """

    convention: ClassVar[str] = "directed"
    row_parameters: ClassVar[Mapping[str, str]] = {
        **KnowledgeRecommender.row_parameters,
        "item_tail_embedding": "item",
    }

    def __init__(self, inputs: GraphInputs | RecDataset, **hparams: Any) -> None:
        for name, words in (("visible", ("first", "sample")), ("bare_items", ("own", "padding"))):
            if hparams[name] not in words:
                raise unknown(name, hparams[name], words)
        if not 0 <= hparams["message_dropout"] < 1:
            raise InputError(f"message_dropout must lie in [0, 1), found {hparams['message_dropout']}.")
        super().__init__(inputs, **hparams)
        self.max_tails, self.message_dropout = hparams["max_tails"], hparams["message_dropout"]
        self.tails = self.visible_tails()
        self._initialise_attention()

    @torch.no_grad()
    def _initialise_attention(self) -> None:
        dim, shared = self.dim, self.hparams["shared_entities"]

        def normal(name: str, rows: int) -> nn.Parameter:
            stream, deviation = randomness.generator(self.seed, f"initialisation/{name}"), self.hparams["init_scale"]
            return nn.Parameter(nn.init.normal_(torch.empty(rows, dim), std=deviation, generator=stream))

        items = self.knowledge.nodes(self.graph_inputs.target[2])
        nodes = self.knowledge.tails()
        among_items = bool(((nodes >= items.start) & (nodes < items.stop)).any())
        self.item_tail_embedding: nn.Parameter | None
        own = normal("item tails", self.num_items) if among_items and not shared else None
        self.register_parameter("item_tail_embedding", own)
        self.relation_embedding = normal("relations", self.knowledge.num_relations)
        stream, bound = randomness.generator(self.seed, "initialisation/attention"), (2 * dim) ** -0.5
        self.attention_matrix = nn.Parameter(torch.empty(2 * dim, dim).uniform_(-bound, bound, generator=stream))
        self.attention_bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound, generator=stream))
        self.padding: nn.Parameter | None
        self.register_parameter("padding", normal("padding", 1) if self.hparams["bare_items"] == "padding" else None)

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

    def derived(self) -> Mapping[str, Derived]:
        """The typed edges, and the triples that items see."""
        return {**super().derived(), "tails": Derived(tuple(self.knowledge_types()), self.visible_tails)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.tails = self.tails.apply(fn)
        return self
