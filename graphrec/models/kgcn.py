"""KGCN: convolution over sampled neighbourhoods of the knowledge graph, with weights that each user has for
relations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.neighbour_lists import find_edges, reachable, sample_neighbour_lists
from graphrec.layers.spmm import spmm
from graphrec.models.base import Derived, EdgeWeight, GraphInputs, PointBatch, Preset
from graphrec.models.pointwise import Examples
from graphrec.models.pointwise_knowledge import PointwiseKnowledge

Aggregator = Literal["sum", "concat", "neighbour"]

SCORE_MEMORY = 64 * 2**20
"""Bytes that the temporaries of a block of users or pairs may take while scores are made."""


class KGCN(PointwiseKnowledge):
    r"""Knowledge graph convolutional network (Wang et al., WWW 2019, https://arxiv.org/abs/1904.12575).

    Every node v of the undirected knowledge graph has a list of K neighbours with relations, drawn once. For a user u

    .. math::
        w_k &= \mathrm{softmax}_k \big( \tfrac1D \langle u, r_k \rangle \big), \qquad
        m_v = \tfrac1K \sum_k w_k x_{v_k} \\
        x_v^{(h+1)} &= \sigma\big( (x_v^{(h)} + m_v^{(h)}) W^h + b^h \big), \qquad
        y_{ui} = \langle u, x_i^{(H)} \rangle

    with ReLU for σ and tanh at the last step h = H - 1. The default is the authors' code; the paper has the inner
    product without 1/D (``relation_score='dot'``) and the sum without 1/K (``mix='sum'``), the preset ``paper`` has
    both. The loss is the cross entropy of labelled pairs plus λ/2 times the squares of all tables and W.

    A node's vector depends on the user and the step alone, not on where it stands in the tree of an item: a pair is
    scored by its tree of K^H nodes, a whole ranking by H passes over the nodes that items reach, with the same
    numbers. A node without triples has no neighbours and m = 0.

    Args:
        inputs: the dataset, with a knowledge graph, or the inputs taken from it.
        dim: D.
        num_layers: H.
        num_neighbours: K.
        aggregator: ``sum`` as above; ``concat`` :math:`[x_v \| m_v] W`; ``neighbour`` :math:`m_v W`.
        mix: whether neighbours are averaged (``mean``) or added up (``sum``).
        relation_score: ``mean`` over the D products, or their sum (``dot``).
        examples: ``labelled`` or ``drawn``; see :class:`PointwiseRecommender`.
        num_negatives: negatives drawn for each training edge where there are no labels.
        lr: learning rate of Adam.
        reg: λ.
        batch_size: B.
        seed: seeds the initial tables (Xavier-uniform) and the neighbour lists.
    """

    convention: ClassVar[str] = "kgcn"
    row_parameters: ClassVar[Mapping[str, str]] = {
        "user_embedding": "user",
        "item_embedding": "item",
        "entity_embedding": "entity",
    }
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            model={"mix": "sum", "relation_score": "dot"},
            note="The equations as the paper writes them; the published figures come from the code, the default.",
        ),
        "movie": Preset(
            model={"num_neighbours": 4, "dim": 32, "num_layers": 2, "batch_size": 65536, "reg": 1e-7, "lr": 2e-2},
            fit={"epochs": 10},
            note="The authors' setting for MovieLens-20M.",
        ),
        "book": Preset(
            model={"num_neighbours": 8, "dim": 64, "num_layers": 3, "batch_size": 256, "reg": 2e-5, "lr": 2e-4},
            fit={"epochs": 10},
            note="The authors' setting for Book-Crossing.",
        ),
        "music": Preset(
            model={"num_neighbours": 8, "dim": 16, "num_layers": 1, "batch_size": 128, "reg": 1e-4, "lr": 5e-4},
            fit={"epochs": 10},
            note="The authors' setting for Last.FM; the same as the defaults.",
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 16,
        num_layers: int = 1,
        num_neighbours: int = 8,
        aggregator: Aggregator = "sum",
        mix: Literal["mean", "sum"] = "mean",
        relation_score: Literal["mean", "dot"] = "mean",
        examples: Examples = "labelled",
        num_negatives: int = 1,
        lr: float = 5e-4,
        reg: float = 1e-4,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        for name, size in (("dim", dim), ("num_layers", num_layers), ("num_neighbours", num_neighbours)):
            if size < 1:
                raise InputError(f"{name} must be a positive whole number, found {size}.")
        for name, word, words in (
            ("aggregator", aggregator, ("sum", "concat", "neighbour")),
            ("mix", mix, ("mean", "sum")),
            ("relation_score", relation_score, ("mean", "dot")),
        ):
            if word not in words:
                raise unknown(name, word, words)
        super().__init__(
            inputs,
            dim=dim,
            num_layers=num_layers,
            num_neighbours=num_neighbours,
            aggregator=aggregator,
            mix=mix,
            relation_score=relation_score,
            examples=examples,
            num_negatives=num_negatives,
            lr=lr,
            reg=reg,
            batch_size=batch_size,
            seed=seed,
        )
        self.dim, self.num_layers, self.num_neighbours, self.reg = dim, num_layers, num_neighbours, reg
        self.aggregator, self.mix, self.relation_score = aggregator, mix, relation_score
        self.neighbours: Tensor
        lists = self.drawn(self.neighbour_lists, self.knowledge.num_nodes, num_neighbours, 2)
        self.register_buffer("neighbours", lists)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier-uniform tables, that of items and entities as one, and transforms without bias at the start."""
        stream = randomness.generator(self.seed, "initialisation")

        def xavier(rows: int, cols: int) -> Tensor:
            return nn.init.xavier_uniform_(torch.empty(rows, cols), generator=stream)

        graph, dim = self.knowledge, self.dim
        self.user_embedding = nn.Parameter(xavier(self.num_users, dim))
        nodes = xavier(graph.num_nodes, dim)
        self.register_nodes(nodes)
        self.relation_embedding = nn.Parameter(xavier(graph.num_relations, dim))
        width = 2 * dim if self.aggregator == "concat" else dim
        transforms = [nn.Linear(width, dim) for _ in range(self.num_layers)]
        for linear in transforms:
            nn.init.xavier_uniform_(linear.weight, generator=stream)
            nn.init.zeros_(linear.bias)
        self.transforms = nn.ModuleList(transforms)

    # -- what is made of the edges -------------------------------------------------------------------------------------

    def neighbour_lists(self) -> Tensor:
        """(N, K, 2) int64: K neighbours of each node and the relations to them, -1 for a node without triples."""
        graph = self.knowledge_graph()
        edges = sample_neighbour_lists(graph, self.num_neighbours, seed=self.seed)
        known = edges.clamp_min(0)
        return torch.stack([graph.tails()[known], graph.relation[known]], -1).where((edges >= 0).unsqueeze(-1), -1)

    def derived(self) -> Mapping[str, Derived]:
        """The knowledge graph and the neighbour lists drawn from it."""
        kinds = self.knowledge.edge_types
        return {"knowledge": Derived(kinds, self.knowledge_graph), "neighbours": Derived(kinds, self.neighbour_lists)}

    def _list_weight(self, edge_weight: EdgeWeight) -> Tensor | None:
        """(N, K) weights of the listed edges; None where none concern triples."""
        weight = self.knowledge.weights(edge_weight if isinstance(edge_weight, Mapping) else None)
        if weight is None:
            return None
        heads = torch.arange(len(self.neighbours), device=weight.device).unsqueeze(1)
        edges = find_edges(self.knowledge, heads, self.neighbours[..., 1], self.neighbours[..., 0])
        return weight[edges.clamp_min(0)] * (edges >= 0)

    # -- scores --------------------------------------------------------------------------------------------------------

    def relation_logits(self, users: Tensor) -> Tensor:
        """What each user gives for each relation before the softmax, (B, R')."""
        logits = self.user_embedding[users] @ self.relation_embedding.T
        return logits / self.dim if self.relation_score == "mean" else logits

    def shares(self, logits: Tensor, weight: Tensor | None, has: Tensor) -> Tensor:
        """Softmax over the last dimension, K, with weights as multiplicities; 1/K of it under ``mix='mean'``.

        Args:
            logits: (…, K).
            weight: as ``logits`` or to be broadcast with it; an entry of weight 0 is as if not listed.
            has: (…) bool, whether a node has neighbours at all; without, its shares are 0.
        """
        shares = logits.softmax(-1)
        if weight is not None:
            shares = shares * weight
            total = shares.sum(-1, keepdim=True)
            shares = shares / total.where(total > 0, 1.0)
        scale = has.to(shares.dtype)
        return shares * (scale / self.num_neighbours if self.mix == "mean" else scale).unsqueeze(-1)

    def transform(self, own: Tensor, mixed: Tensor, layer: int) -> Tensor:
        """Step ``layer`` from a node's own vector and the mix of its neighbours, (…, D)."""
        if self.aggregator == "sum":
            joined = own + mixed
        else:
            joined = mixed if self.aggregator == "neighbour" else torch.cat([own, mixed], -1)
        out: Tensor = self.transforms[layer](joined)
        return out.tanh() if layer == self.num_layers - 1 else functional.relu(out)

    def tree(self, users: Tensor, items: Tensor, edge_weight: EdgeWeight = None) -> tuple[list[Tensor], list[Tensor]]:
        """The nodes of the trees of pairs, and the shares of their children.

        Args:
            users: (B,) int64.
            items: (B,) int64.
            edge_weight: weights of triples.

        Returns:
            H + 1 levels of nodes, level h (B, K^h) int64; H levels of shares, level h (B, K^h, K).
        """
        logits, weight = self.relation_logits(users), self._list_weight(edge_weight)
        count = len(users)
        nodes = [(items + self.knowledge.nodes("item").start).unsqueeze(1)]
        shares = []
        for _ in range(self.num_layers):
            found = self.neighbours[nodes[-1]]
            has = found[..., 0, 0] >= 0
            known = found.clamp_min(0)
            chosen = logits.gather(1, known[..., 1].reshape(count, -1)).view(known.shape[:-1])
            shares.append(self.shares(chosen, None if weight is None else weight[nodes[-1]], has))
            nodes.append(known[..., 0].reshape(count, -1))
        return nodes, shares

    def pair_scores(self, users: Tensor, items: Tensor, edge_weight: EdgeWeight = None) -> Tensor:
        """Scores (B,) of pairs by their trees; differentiable. The widest level is met by a sparse product."""
        nodes, shares = self.tree(users, items, edge_weight)
        table, count = self.node_table(), len(users)
        vectors = [table[level].view(count, -1, self.dim) for level in nodes[:-1]]
        for layer in range(self.num_layers):
            following = []
            for hop in range(self.num_layers - layer):
                if layer == 0:
                    mixed = _mix(shares[hop].flatten(0, 1), nodes[hop + 1].view(-1, self.num_neighbours), table)
                    mixed = mixed.view(count, -1, self.dim)
                else:
                    children = vectors[hop + 1].view(count, -1, self.num_neighbours, self.dim)
                    mixed = torch.einsum("bnk,bnkd->bnd", shares[hop], children)
                following.append(self.transform(vectors[hop], mixed, layer))
            vectors = following
        return (self.user_embedding[users] * vectors[0].squeeze(1)).sum(-1)

    def grid_scores(self, users: Tensor, items: Tensor, edge_weight: EdgeWeight = None) -> Tensor:
        """Scores (B, P) of users for the same items, by passes over all nodes that the items reach; differentiable."""
        weight = self._list_weight(edge_weight)
        seeds = items + self.knowledge.nodes("item").start
        nodes, sizes = reachable(self.neighbours[..., 0], seeds, self.num_layers)
        inner = nodes[: sizes[-2]]
        listed = self.neighbours[inner]
        has, listed = listed[:, 0, 0] >= 0, listed.clamp_min(0)
        place = torch.zeros(len(self.neighbours), dtype=torch.int64, device=nodes.device)
        place[nodes] = torch.arange(len(nodes), device=nodes.device)
        neighbours, of_item = place[listed[..., 0]], place[seeds]
        table = self.node_table()[nodes]
        weight = None if weight is None else weight[inner]
        bytes_each = len(inner) * (16 * self.num_neighbours + 4 * table.element_size() * self.dim)
        parts = []
        for part in users.split(max(1, SCORE_MEMORY // max(bytes_each, 1))):
            logits = self.relation_logits(part).index_select(1, listed[..., 1].flatten())
            shares = self.shares(logits.view(len(part), *neighbours.shape), weight, has)
            vectors = self._pass(shares, neighbours, table, sizes)
            scores = torch.einsum("bd,bnd->bn", self.user_embedding[part], vectors)
            parts.append(scores.index_select(1, of_item))
        return torch.cat(parts) if parts else table.new_zeros(0, len(items))

    def _pass(self, shares: Tensor, neighbours: Tensor, table: Tensor, sizes: Sequence[int]) -> Tensor:
        """Vectors (b, |items|, D) after H steps; step h is made for nodes within H - 1 - h hops of the items."""
        count = len(shares)
        vectors = table.expand(count, *table.shape)
        for layer in range(self.num_layers):
            rows, below = sizes[self.num_layers - 1 - layer], sizes[self.num_layers - layer]
            listed = neighbours[:rows].expand(count, rows, -1)
            source = table
            if layer:  # each user has vectors of the own
                shift = torch.arange(count, device=table.device).view(-1, 1, 1) * below
                listed, source = listed + shift, vectors.reshape(count * below, self.dim)
            mixed = _mix(shares[:, :rows].flatten(0, 1), listed.reshape(-1, self.num_neighbours), source)
            vectors = self.transform(vectors[:, :rows], mixed.view(count, rows, self.dim), layer)
        return vectors

    def score(self, users: Tensor, items: Tensor | None = None, *, edge_weight: EdgeWeight = None) -> Tensor:
        """As in the base: pairs by their trees, shared candidates by passes over the graph, in blocks."""
        if items is None:
            items = torch.arange(self.num_items, device=users.device)
        if items.dim() == 1:
            return self.grid_scores(users, items, edge_weight)
        owner = users.repeat_interleave(items.shape[1])
        width = self.num_neighbours**self.num_layers
        block = max(1, SCORE_MEMORY // (width * (24 + 4 * self.dim)))
        parts = [
            self.pair_scores(owner[start : start + block], items.reshape(-1)[start : start + block], edge_weight)
            for start in range(0, len(owner), block)
        ]
        return torch.cat(parts).view(items.shape) if parts else self.user_embedding.new_zeros(items.shape)

    # -- training ------------------------------------------------------------------------------------------------------

    def point_scores(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Tensor:
        """Scores of the pairs of a batch."""
        return self.pair_scores(batch.users, batch.items, edge_weight)

    def more_terms(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """``reg``: λ/2 times the squares of whole tables and of W, biases left out."""
        if not self.reg:
            return {}
        parts = [p for name, p in self.named_parameters() if not name.endswith("bias")]
        squares = torch.stack([torch.dot(flat, flat) for flat in (part.flatten() for part in parts)]).sum()
        return {"reg": 0.5 * self.reg * self.batch_weight(batch, squares)}

    # -- explanations --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def relation_weights(self, user: int, relation_names: Sequence[str] | None = None) -> pd.DataFrame:
        """What a user gives for each relation, largest first.

        Args:
            user: row number.
            relation_names: a name for each relation of :attr:`knowledge`.

        Returns:
            ``relation``; ``score``, the logit; ``weight``, its share where each relation occurs once.
        """
        logits = self.relation_logits(torch.tensor([user], device=self.device))[0]
        names = relation_names or [relation.title() for relation in self.knowledge.relations]
        frame = pd.DataFrame(
            {"relation": names, "score": logits.cpu().numpy(), "weight": logits.softmax(0).cpu().numpy()}
        )
        return frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)

    def explanation_tables(self, user: int, relation_names: Sequence[str] | None = None) -> Mapping[str, pd.DataFrame]:
        """What stands beside an explanation: the user's weights of relations."""
        return {"What the user gives for each relation": self.relation_weights(user, relation_names)}


def _mix(shares: Tensor, neighbours: Tensor, x: Tensor) -> Tensor:
    """``sum_k shares[n, k] x[neighbours[n, k]]``, (n, K), (n, K) and (N, D) to (n, D).

    By a sparse product, or, where an (n, K, D) tensor is smaller than the table, by a gather: a sparse product passes
    over all N rows on its way back.
    """
    rows, width = neighbours.shape
    if rows * width < len(x):
        return torch.einsum("nk,nkd->nd", shares, x.index_select(0, neighbours.reshape(-1)).view(rows, width, -1))
    rowptr = torch.arange(0, rows * width + 1, width, dtype=torch.int32, device=x.device)
    matrix = Adjacency(rowptr, neighbours.reshape(-1).to(torch.int32), (rows, len(x)))
    return spmm(matrix, x, shares.reshape(-1))
