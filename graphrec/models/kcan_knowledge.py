"""A knowledge graph distilled into small neighbourhoods: KCAN's attention of triples, and the lists drawn by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.graphs.relational import RelationalGraph
from graphrec.graphs.triples import TripleIndex, corrupted_tails, triple_order
from graphrec.graphs.weighted_lists import weighted_neighbour_lists
from graphrec.layers.conditional_attention import NeighbourShares
from graphrec.layers.kge import TransH
from graphrec.layers.losses import bpr_loss
from graphrec.layers.relational import edge_softmax, row_sums
from graphrec.layers.triple_attention import translation_attention
from graphrec.models.base import Batch, Derived, EdgeWeight, GraphInputs, TripleBatch
from graphrec.models.knowledge import KnowledgeRecommender

_SCORER = TransH(distance="l1", normalised="all")


class DistilledKnowledge(KnowledgeRecommender):
    r"""A model whose triples and interactions are one graph that TransH weighs, Π, and that lists are drawn from.

    Π is the softmax over a node's edges of :math:`a(h, r, t) = t^\perp \cdot (h^\perp + \rho_r)`; interactions are a
    relation without translation and hyperplane. See :class:`~graphrec.models.KCAN`.

    Args:
        inputs: the dataset or the inputs taken from it.
        attends: whether Π is used.
        lists: whether neighbours are drawn by it.
        num_neighbours: K.
        triple_batch_size: of triples; interactions count among them.
        **hparams: those of :class:`KnowledgeRecommender` and of the subclass.
    """

    convention: ClassVar[str] = "kcan"
    attention: Tensor
    neighbours: Tensor
    drawn_with: Tensor

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        attends: bool,
        lists: bool,
        num_neighbours: int,
        triple_batch_size: int,
        **hparams: Any,
    ) -> None:
        super().__init__(inputs, num_neighbours=num_neighbours, triple_batch_size=triple_batch_size, **hparams)
        self.attends, self.lists = attends, lists
        self.num_neighbours, self.triple_batch_size = num_neighbours, triple_batch_size
        relations = self.knowledge.num_relations - 1
        self.relation_embedding = self.xavier("relation_embedding", relations, self.dim)
        self.relation_normal = self.xavier("relation_normal", relations, self.dim)
        if attends:
            self.register_buffer("attention", self.uniform_attention())
        if lists:
            first = randomness.derive(self.seed, "first lists")
            size = self.knowledge.num_nodes, num_neighbours
            self.register_buffer("neighbours", self.drawn(lambda: self.draw_neighbours(first), *size))
            # What the lists were drawn with, so that they can be drawn again on another graph.
            self.register_buffer("drawn_with", torch.tensor(first))

    def xavier(self, name: str, *shape: int) -> nn.Parameter:
        """A parameter, Xavier-uniform from a stream of its own."""
        stream = randomness.generator(self.seed, f"initialisation/{name}")
        return nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape), generator=stream))

    def uniform_attention(self) -> Tensor:
        """Π before the first epoch, one over the degree, (E,)."""
        return edge_softmax(self.knowledge.adjacency, torch.zeros(len(self.knowledge), device=self.device))

    def relation_tables(self) -> dict[str, Tensor]:
        """Translations and normals (R + 1, D) as the scorer names them; those of the interactions are zero."""
        none = self.relation_embedding.new_zeros(1, self.dim)
        named = {"vectors": self.relation_embedding, "normals": self.relation_normal}
        return {name: torch.cat([table, none]) for name, table in named.items()}

    @torch.no_grad()
    def knowledge_attention(self) -> Tensor:
        """Π of the present tables, (E,)."""
        logits = translation_attention(self.knowledge, self.node_table(), _SCORER, self.relation_tables())
        return edge_softmax(self.knowledge.adjacency, logits)

    def relational_attention(self) -> tuple[RelationalGraph, Tensor]:
        """The graph and Π, (E,); equal shares where the variant has no attention."""
        return self.knowledge, self.attention if self.attends else self.uniform_attention()

    @torch.no_grad()
    def draw_neighbours(self, seed: int) -> Tensor:
        """Edges of each node drawn by Π, (N, K) int64 ascending, -1 for a node without edges."""
        lists = weighted_neighbour_lists(self.knowledge, self.attention, self.num_neighbours, seed=seed)
        return lists.sort(1).values

    def refresh(self, batch: Batch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """Π of the present tables and, drawn by it, the lists of the next epoch; a phase without loss."""
        if self.attends:
            self.attention.copy_(self.knowledge_attention())
        if self.lists:
            assert batch.generator is not None
            self.drawn_with.fill_(batch.generator.initial_seed())
            self.neighbours.copy_(self.draw_neighbours(batch.generator.initial_seed()))
        return {}

    def weighted_attention(self, edge_weight: EdgeWeight) -> tuple[Tensor, Tensor | None]:
        """Π and the weights of the edges: an edge's weight is a factor on its exponential."""
        weight = self.knowledge_weight(edge_weight)
        if weight is None:
            return self.attention, None
        shares = self.attention * weight
        total = row_sums(self.knowledge.adjacency, shares)
        return shares / total.where(total > 0, 1.0).index_select(0, self.knowledge.heads()), weight

    def neighbour_shares(self, edge_weight: EdgeWeight = None) -> NeighbourShares:
        """The listed neighbours of every node with their Π, (N, K)."""
        attention, weight = self.weighted_attention(edge_weight)
        present = self.neighbours[:, 0] >= 0
        entries = self.neighbours.clamp_min(0)
        own = torch.arange(len(entries), device=entries.device)[:, None]
        nodes = torch.where(present[:, None], self.knowledge.tails()[entries], own)
        return NeighbourShares(nodes, attention[entries], present, None if weight is None else weight[entries])

    def triple_batches(self, epoch: int, generator: torch.Generator) -> Iterator[TripleBatch]:
        """Every triple and interaction once, each with a tail drawn among items and entities that is not known."""
        graph, seed = self.knowledge, generator.initial_seed()
        stated = torch.nonzero(~graph.inverse)[:, 0]
        heads, relations, tails = graph.heads()[stated], graph.relation[stated], graph.tails()[stated]
        index = TripleIndex.from_triples(heads, relations, tails, graph.num_nodes, graph.num_relations)
        order = triple_order(heads, relations, tails, seed=seed)
        candidates = slice(0, graph.nodes(self.graph_inputs.target[0]).start)
        for start in range(0, len(order), self.triple_batch_size):
            part = order[start : start + self.triple_batch_size]
            head, relation, tail = heads[part], relations[part], tails[part]
            corrupted = corrupted_tails(index, head, relation, 1, seed=seed, candidates=candidates, keys=tail)
            yield TripleBatch.of(graph, stated[part], corrupted, generator)

    def triple_loss(self, batch: TripleBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The term ``triples``: the mean of softplus(f(h, r, t) - f(h, r, t'))."""
        nodes = self.node_table()
        ends = nodes[batch.heads], batch.relations, nodes[batch.tails], nodes[batch.negatives]
        scores = _SCORER.scores(_SCORER.projected(*ends, self.relation_tables()))
        return {"triples": self.batch_weight(batch, bpr_loss(*scores))}

    def score_triples(self, heads: Tensor | None, relations: Tensor, tails: Tensor | None) -> Tensor:
        """-f of triples, (B,), or with every node in the place of a None, (B, N).

        Args:
            heads: (B,) int64 nodes of :attr:`knowledge`, or None.
            relations: (B,) int64.
            tails: (B,) int64 nodes, or None.
        """
        return _SCORER.score(self.node_table(), heads, relations, tails, self.relation_tables())

    def derived(self) -> Mapping[str, Derived]:
        """The typed edges, Π and the lists of neighbours."""
        made = dict(super().derived())
        types = tuple(self.knowledge_types())
        if self.attends:
            made["attention"] = Derived(types, self.knowledge_attention)
        if self.lists:
            made["neighbours"] = Derived(types, lambda: self.draw_neighbours(int(self.drawn_with)))
        return made
