"""RippleNet: a user is the part of the knowledge graph around what the user clicked, addressed by the candidate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.ripple_sets import ripple_sets
from graphrec.layers.memories import Memory, read_memories
from graphrec.layers.relational import pair_dots, pair_projection
from graphrec.models.base import Derived, EdgeWeight, GraphInputs, PointBatch, Preset
from graphrec.models.pointwise import Examples
from graphrec.models.pointwise_knowledge import PointwiseKnowledge

ItemUpdate = Literal["plus_transform", "replace_transform", "plus", "replace"]

SCORE_MEMORY = 64 * 2**20
"""Bytes that the temporaries of a block of users and items may take while scores are made."""


class RippleNet(PointwiseKnowledge):
    r"""RippleNet (Wang et al., CIKM 2018, https://arxiv.org/abs/1803.03467).

    Users have no vectors. Hop k of a user's ripple set holds M triples (h, r, t) of the knowledge graph as stated:
    at hop 1 those whose head is a training item of the user, at hop k those whose head is a tail at hop k - 1; drawn
    once. With :math:`v^0 = x_i`

    .. math:: p_j = \mathrm{softmax}_j\big((v^{k-1})^\top M_{r_j} x_{h_j}\big), \qquad o^k = \sum_j p_j x_{t_j}, \qquad
              v^k = (v^{k-1} + o^k)\, T, \qquad y_{ui} = v^H \cdot \sum_k o^k

    and the loss, over the pairs b of a batch of B and the triples j of their users' ripple sets,

    .. math:: \frac1B \sum_b \mathrm{CE}(y_b)
              - \frac{\lambda_{kg}}{B} \sum_{b,k} \frac1M \sum_j \sigma(x_h^\top M_r x_t)
              + \lambda \sum_{b,k,j} \big(\|x_h\|^2 + \|x_t\|^2 + \|M_r\|^2\big)

    As in the authors' code: no corrupted triples; λ is on sums, not means, without ½, and not on T (a last batch that
    is short weighs its sum as a whole one); the average over hops' places is by hop. :math:`M_r x_h` is computed once
    for each pair of relation and head, for all places that hold it and all items.

    A user whose training items have no triples (or who has no training items: the paper drops such users) has an empty
    ripple set: every score is 0, a probability of one half, and the user's pairs teach nothing.
    ``facts()`` counts them.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the entity table (4 for Book-Crossing).
        num_hops: H.
        memory_size: M.
        item_update: how v changes: ``plus_transform`` as above, ``replace_transform`` :math:`v^k = o^k T`, ``plus``
            :math:`v^{k-1} + o^k`, ``replace`` :math:`o^k`.
        user_vector: ``all`` adds up the hops' o as above, ``last`` takes that of the last hop.
        resample: what fills a hop with fewer than M triples: nothing, masked places; or, as published, draws with
            repetition (then a tail that was drawn twice counts twice at the next hop, too).
        kg_weight: λ_kg.
        reg: λ (1e-5 for Book-Crossing).
        examples: ``labelled`` or ``drawn``; see :func:`graphrec.models.pointwise.labelled_batches`.
        num_negatives: negatives drawn for each training edge where there are no labels; the paper's are as many as
            positives.
        lr: learning rate of Adam (1e-3 for Book-Crossing).
        batch_size: B.
        seed: seeds the initial tables (Xavier-uniform; the relation matrices as one array, whose bound falls with the
            number of relations) and the ripple sets.
    """

    row_parameters: ClassVar[Mapping[str, str]] = {"item_embedding": "item", "entity_embedding": "entity"}
    own_interactions: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Preset]] = {
        "published": Preset(
            model={"resample": True}, fit={"epochs": 10}, note="The authors' setting for MovieLens-1M."
        ),
        "book": Preset(
            model={"resample": True, "dim": 4, "reg": 1e-5, "lr": 1e-3},
            fit={"epochs": 10},
            note="The authors' setting for Book-Crossing.",
        ),
        "music": Preset(
            model={"lr": 5e-3}, fit={"epochs": 6}, note="For Last.FM (music), chosen on its validation part."
        ),
    }
    ripples: Tensor
    transform: nn.Parameter | None

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 16,
        num_hops: int = 2,
        memory_size: int = 32,
        item_update: ItemUpdate = "plus_transform",
        user_vector: Literal["all", "last"] = "all",
        resample: bool = False,
        kg_weight: float = 0.01,
        reg: float = 1e-7,
        examples: Examples = "labelled",
        num_negatives: int = 1,
        lr: float = 2e-2,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        for name, size in (("dim", dim), ("num_hops", num_hops), ("memory_size", memory_size)):
            if size < 1:
                raise InputError(f"{name} must be a positive whole number, found {size}.")
        for name, word, words in (
            ("item_update", item_update, ("plus_transform", "replace_transform", "plus", "replace")),
            ("user_vector", user_vector, ("all", "last")),
        ):
            if word not in words:
                raise unknown(name, word, words)
        super().__init__(
            inputs,
            dim=dim,
            num_hops=num_hops,
            memory_size=memory_size,
            item_update=item_update,
            user_vector=user_vector,
            resample=resample,
            kg_weight=kg_weight,
            reg=reg,
            examples=examples,
            num_negatives=num_negatives,
            lr=lr,
            batch_size=batch_size,
            seed=seed,
        )
        self.dim, self.num_hops, self.memory_size, self.resample = dim, num_hops, memory_size, resample
        self.item_update, self.user_vector = item_update, user_vector
        self.kg_weight, self.reg = kg_weight, reg
        sets = self.drawn(self.ripple_sets, self.num_users, num_hops, memory_size)
        self.register_buffer("ripples", sets)
        self._initialise()

    def _initialise(self) -> None:
        graph, dim = self.knowledge, self.dim

        def drawn(name: str, bound: float, *shape: int) -> Tensor:
            stream = randomness.generator(self.seed, f"initialisation/{name}")
            return torch.empty(shape).uniform_(-bound, bound, generator=stream)

        nodes = drawn("nodes", (6 / (graph.num_nodes + dim)) ** 0.5, graph.num_nodes, dim)
        self.register_nodes(nodes)
        bound = (3 / (dim * max(graph.num_relations, 1))) ** 0.5
        self.relation_matrix = nn.Parameter(drawn("relations", bound, graph.num_relations, dim, dim))
        transform = drawn("transform", (3 / dim) ** 0.5, dim, dim) if "transform" in self.item_update else None
        self.register_parameter("transform", None if transform is None else nn.Parameter(transform))

    # -- what is made of the edges -------------------------------------------------------------------------------------

    def ripple_sets(self) -> Tensor:
        """(U, H, M) int64: edges of the knowledge graph, -1 in empty places."""
        graph, pairs = self.knowledge_graph(), self.graph_inputs.adjacency()
        keys = torch.unique_consecutive(pairs.rows().long() * self.num_items + pairs.col)  # a pair may be several edges
        users = torch.div(keys, self.num_items, rounding_mode="floor")
        items = keys - users * self.num_items
        indptr = torch.zeros(self.num_users + 1, dtype=torch.int64, device=users.device)
        indptr[1:] = torch.bincount(users, minlength=self.num_users).cumsum(0)
        return ripple_sets(
            graph,
            indptr,
            items + graph.nodes(self.graph_inputs.target[2]).start,
            num_hops=self.num_hops,
            size=self.memory_size,
            seed=self.seed,
            resample=self.resample,
        )

    def derived(self) -> Mapping[str, Derived]:
        """The typed edges, and the ripple sets of the users' training items."""
        kinds = self.knowledge.edge_types
        return {
            "knowledge": Derived(kinds, self.knowledge_graph),
            "ripples": Derived((self.graph_inputs.target, *kinds), self.ripple_sets),
        }

    def facts(self) -> Mapping[str, float | int]:
        """Users with an empty ripple set, and the share of places that hold a triple among the others'."""
        held = self.ripples >= 0
        some = held[:, 0, 0]
        return {
            "users_without_ripple_set": int((~some).sum()),
            "filled_places": float(held[some].float().mean()) if bool(some.any()) else 0.0,
        }

    def _weight(self, edge_weight: EdgeWeight) -> tuple[Tensor | None, Tensor | None]:
        """Weights of the triples (E,) and of the interactions (L,)."""
        if isinstance(edge_weight, Tensor):
            return None, edge_weight
        given = edge_weight or {}
        return self.knowledge.weights(given), given.get(self.graph_inputs.target)

    def _clicks(self, users: Tensor, heads: Tensor, weight: Tensor) -> Tensor:
        """The weight of each user's interaction with the head of a triple at hop 1, (B, M)."""
        matrix = self.graph_inputs.adjacency()
        known = matrix.rows().long() * self.num_items + matrix.col
        start = self.knowledge.nodes(self.graph_inputs.target[2]).start
        place = torch.searchsorted(known, (users[:, None] * self.num_items + heads - start).contiguous())
        return matrix.stored(weight)[place.clamp_max(len(known) - 1)]

    # -- scores --------------------------------------------------------------------------------------------------------

    def keys(self, nodes: Tensor) -> Tensor:
        """:math:`M_r x_h` of every pair of relation and head, (P, D)."""
        return pair_projection(self.knowledge.head_pairs, nodes, self.relation_matrix.transpose(1, 2))

    def memories(self, users: Tensor, nodes: Tensor, keys: Tensor, edge_weight: EdgeWeight = None) -> list[Memory]:
        """The memory of every hop for some users.

        Args:
            users: (B,) int64.
            nodes: (N, D).
            keys: of :meth:`keys`.
            edge_weight: a triple's weight is a factor on its exponential in the softmax, and at hop 1 so is the weight
                of the interaction it hangs on.
        """
        graph = self.knowledge
        triples, clicks = self._weight(edge_weight)
        hops = []
        for hop in range(self.num_hops):
            edges = self.ripples[users, hop]
            held = edges >= 0
            edges = edges.clamp_min(0)
            weight = None if triples is None else triples[edges]
            if clicks is not None and hop == 0:
                own = self._clicks(users, graph.heads()[edges], clicks)
                weight = own if weight is None else weight * own
            key = keys[graph.head_pairs.of_edge[edges]]
            hops.append(Memory(key, nodes[graph.tails()[edges]], held, weight))
        return hops

    def _read(self, hops: list[Memory], items: Tensor) -> Tensor:
        return read_memories(hops, items, self.transform, update=self.item_update, last=self.user_vector == "last")

    def point_scores(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Tensor:
        """Scores (B,) of the pairs of a batch."""
        nodes = self.node_table()
        hops = self.memories(batch.users, nodes, self.keys(nodes), edge_weight)
        return self._read(hops, self.item_embedding[batch.items].unsqueeze(1)).squeeze(1)

    def more_terms(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``triples`` and ``reg``; see the class."""
        graph, nodes = self.knowledge, self.node_table()
        edges = self.ripples[batch.users]
        held = (edges >= 0).to(nodes.dtype)
        edges = edges.clamp_min(0)
        weight = self._weight(edge_weight)[0]
        if weight is not None:
            held = held * weight[edges]
        terms = {}
        if self.kg_weight:
            heads = pair_projection(graph.head_pairs, nodes, self.relation_matrix)
            truth = pair_dots(graph, heads, nodes[graph.tail_pairs.node]).sigmoid()
            places = held.sum(-1)
            means = (truth[edges] * held).sum(-1) / places.where(places > 0, 1.0)
            terms["triples"] = -self.kg_weight * self.batch_weight(batch, means.sum(-1))
        if self.reg:
            squares, matrices = nodes.square().sum(1), self.relation_matrix.square().sum((1, 2))
            norms = squares[graph.heads()] + squares[graph.tails()] + matrices[graph.relation]
            sums = (norms[edges] * held).sum((1, 2))
            terms["reg"] = self.reg * self.batch_size * self.batch_weight(batch, sums)
        return terms

    def score(self, users: Tensor, items: Tensor | None = None, *, edge_weight: EdgeWeight = None) -> Tensor:
        """Scores before the sigmoid; see :meth:`GraphRecommender.score`. Blocks of users and items bound the memory."""
        nodes = self.node_table()
        keys = self.keys(nodes)
        table = self.item_embedding if items is None else self.item_embedding[items]
        width = table.shape[-2]
        per_pair = 4 * (3 * self.memory_size + 4 * self.dim)
        columns = max(1, min(width, SCORE_MEMORY // (16 * per_pair)))
        rows = max(1, SCORE_MEMORY // (columns * per_pair))
        blocks = []
        for start in range(0, len(users), rows):
            part = slice(start, start + rows)
            hops = self.memories(users[part], nodes, keys, edge_weight)
            own = table[part] if table.dim() == 3 else table.unsqueeze(0)
            found = [self._read(hops, own[:, at : at + columns]) for at in range(0, width, columns)]
            blocks.append(torch.cat(found, 1))
        return torch.cat(blocks) if blocks else table.new_zeros(0, width)
