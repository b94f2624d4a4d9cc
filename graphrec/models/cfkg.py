"""CFKG: purchases and knowledge as triples of one graph, embedded by translations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.triples import corrupted_tails, triple_index, triple_order, triples_by_head
from graphrec.layers.kge import TransE
from graphrec.layers.losses import RANKING_LOSSES, squared_norms
from graphrec.models.base import EdgeWeight, Encoded, GraphInputs, Phase, Preset, TripleBatch
from graphrec.models.knowledge import KnowledgeRecommender
from graphrec.models.pairwise import Initialisation

Distance = Literal["squared", "l2", "dot"]
TripleLoss = Literal["margin", "bpr", "bce", "softmax"]
Order = Literal["edge", "head"]
Corrupt = Literal["type", "all"]


class CFKG(KnowledgeRecommender):
    r"""CFKG (Ai et al., Algorithms 2018, https://arxiv.org/abs/1805.03352).

    Users, items and entities are nodes of one graph and the interaction is one of its relations, so that a user is
    moved by it to where the user's items lie:

    .. math:: y_{ui} = -\|e_u + \rho_{\mathrm{interact}} - e_i\|^2

    Every triple of the graph, interaction or fact, is a training example with n corrupted tails t':

    .. math:: L = \frac1B \sum_{(h, r, t)} \ell\big(f(h, r, t), f(h, r, t')\big)
              + \frac{\lambda}{2B} \sum \big(\|e_h\|^2 + \|\rho_r\|^2 + \|e_t\|^2 + \tfrac1n \|e_{t'}\|^2\big)

    with f minus a distance of :math:`e_h + \rho_r` and :math:`e_t`, and :math:`\ell` by ``loss``: ``margin``
    max(0, m - f + f'), ``bpr``, ``bce`` or ``softmax`` as in :mod:`graphrec.layers.losses`, means over n.

    The paper scores by the dot product :math:`(e_u + \rho) \cdot e_i` and trains by negative sampling, the preset
    ``paper``. Comparisons mostly take TransE's form, a margin of squared distances in the KGAT repository and of
    distances in RecBole: it is the default here. The KGAT repository adds inverse relations, which this does not.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of all vectors.
        distance: ``squared``, ``l2``, or ``dot``; what is ranked by is the squared distance for the first two, which
            orders items alike, and the dot product for the last.
        loss: see above.
        margin: m.
        num_negatives: n.
        order: ``edge`` visits each triple once an epoch; ``head`` draws heads uniformly and one of each head's triples
            (the KGAT repository).
        corrupt: ``type`` draws corrupted tails among nodes of the tail's type (the paper, RecBole for items); ``all``
            among all nodes (the KGAT repository). Never one that makes a known triple.
        init: ``xavier``, ``normal`` or ``spectral`` (users and items).
        init_scale: standard deviation of the initial entries where they are normal.
        lr: learning rate of Adam.
        reg: λ.
        batch_size: B.
        seed: seeds the initial tables.
    """

    convention: ClassVar[str] = "cfkg"
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            model={"distance": "dot", "loss": "bce", "num_negatives": 5, "corrupt": "type", "order": "edge"},
            note="The paper's form: dot products, negative sampling within the tail's type.",
        ),
        "kgat_repository": Preset(
            model={"distance": "squared", "loss": "margin", "order": "head", "corrupt": "all", "batch_size": 1024},
            note="What the KGAT repository trains, save that it adds inverse relations and steps by plain gradients.",
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        distance: Distance = "squared",
        loss: TripleLoss = "margin",
        margin: float = 1.0,
        num_negatives: int = 1,
        order: Order = "edge",
        corrupt: Corrupt = "type",
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-3,
        reg: float = 0.0,
        batch_size: int = 2048,
        seed: int = 0,
    ) -> None:
        for name, word, words in (
            ("distance", distance, ("squared", "l2", "dot")),
            ("loss", loss, ("margin", "bpr", "bce", "softmax")),
            ("order", order, ("edge", "head")),
            ("corrupt", corrupt, ("type", "all")),
        ):
            if word not in words:
                raise unknown(name, word, words)
        if margin < 0:
            raise InputError(f"margin must be 0 or more, found {margin}.")
        shared = {
            "dim": dim,
            "num_negatives": num_negatives,
            "init": init,
            "init_scale": init_scale,
            "lr": lr,
            "reg": reg,
            "batch_size": batch_size,
            "seed": seed,
        }
        super().__init__(inputs, loss="bpr", shared_negatives=False, positives="edge", **shared)
        # Pairs are not what this model draws: its loss, order and corruption are those of triples.
        own = {"distance": distance, "loss": loss, "margin": margin, "order": order, "corrupt": corrupt}
        self.hparams = {**shared, **own}
        self.triple_objective = loss
        self.distance, self.margin, self.order, self.corrupt = distance, margin, order, corrupt
        self.scorer = TransE(distance)
        self.relation_embedding = nn.Parameter(torch.empty(self.knowledge.num_relations, dim))
        self.initialise_relations(init, init_scale)

    @torch.no_grad()
    def initialise_relations(self, init: Initialisation, scale: float) -> None:
        """Fill ρ."""
        stream = randomness.generator(self.seed, "initialisation/relation")
        if init == "xavier":
            nn.init.xavier_uniform_(self.relation_embedding, generator=stream)
        else:
            nn.init.normal_(self.relation_embedding, std=scale, generator=stream)

    @property
    def objective(self) -> str:
        """``loss``."""
        return self.triple_objective

    @property
    def interaction(self) -> int:
        """The number of the interactions' relation."""
        target = self.graph_inputs.target
        return next(number for number, made in enumerate(self.knowledge.relations) if made.edge_type == target)

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """Vectors whose dot product is the score; no edge enters it, so ``edge_weight`` changes nothing.

        Of a distance, -|a - b|² = [2a, -|a|², 1] · [b, 1, -|b|²] with a moved user a and an item b, two columns more.
        """
        moved, items = self.user_embedding + self.relation_embedding[self.interaction], self.item_embedding
        if self.distance == "dot":
            return Encoded(moved, items)
        users = [2 * moved, -squared_norms(moved).unsqueeze(1), moved.new_ones(len(moved), 1)]
        others = [items, items.new_ones(len(items), 1), -squared_norms(items).unsqueeze(1)]
        return Encoded(torch.cat(users, 1), torch.cat(others, 1))

    def score_triples(self, heads: Tensor | None, relations: Tensor, tails: Tensor | None) -> Tensor:
        """f of triples, (B,), or with every node in the place of a None, (B, N).

        Args:
            heads: (B,) int64 nodes of :attr:`knowledge`, or None.
            relations: (B,) int64.
            tails: (B,) int64 nodes, or None.
        """
        return self.scorer.score(self.node_table(), heads, relations, tails, {"vectors": self.relation_embedding})

    def triple_loss(self, batch: TripleBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank`` and ``reg`` of one batch; see the class."""
        ends = torch.cat([batch.heads[:, None], batch.tails[:, None], batch.negatives], 1)
        rows = self.node_table().index_select(0, ends.flatten()).view(*ends.shape, -1)
        tables = {"vectors": self.relation_embedding}
        projected = self.scorer.projected(rows[:, 0], batch.relations, rows[:, 1], rows[:, 2:], tables)
        true, false = self.scorer.scores(projected)
        terms = {"rank": self.batch_weight(batch, self._objective(true, false))}
        if self.reg:
            norms = squared_norms(rows)
            penalised = norms[:, 0] + norms[:, 1] + norms[:, 2:].mean(1) + squared_norms(projected.vectors)
            terms["reg"] = 0.5 * self.reg * self.batch_weight(batch, penalised)
        return terms

    def _objective(self, true: Tensor, false: Tensor) -> Tensor:
        if self.triple_objective == "margin":
            return functional.relu(self.margin - true.unsqueeze(1) + false).mean(1)
        return RANKING_LOSSES[self.triple_objective](true, false)

    def triple_batches(self, epoch: int, generator: torch.Generator) -> Iterator[TripleBatch]:
        """The batches of one epoch: as many examples as triples, the last batch short."""
        graph, seed = self.knowledge, generator.initial_seed()
        columns = graph.heads(), graph.relation, graph.tails()
        visited = triple_order(*columns, seed=seed) if self.order == "edge" else None
        for number, start in enumerate(range(0, len(graph), self.batch_size)):
            size = min(self.batch_size, len(graph) - start)
            if visited is not None:
                entry, own = visited[start : start + size], seed
            else:
                entry = triples_by_head(graph.adjacency, size, seed=seed, batch=number)
                own = randomness.derive(seed, "batch", number)
            heads, relations, tails = (column[entry] for column in columns)
            yield TripleBatch.of(graph, entry, self._corrupted(heads, relations, tails, own), generator)

    def _corrupted(self, heads: Tensor, relations: Tensor, tails: Tensor, seed: int) -> Tensor:
        """Corrupted tails (B, n), keyed by the triple where each comes once an epoch."""
        graph, index, count = self.knowledge, triple_index(self.knowledge), self.num_negatives
        keys = tails if self.order == "edge" else torch.arange(len(tails), device=tails.device)
        if self.corrupt == "all":
            return corrupted_tails(index, heads, relations, count, seed=seed, keys=keys)
        drawn = tails.new_empty(len(tails), count)
        for name in graph.order:
            span = graph.nodes(name)
            mine = torch.nonzero((tails >= span.start) & (tails < span.stop))[:, 0]
            if len(mine):
                drawn[mine] = corrupted_tails(
                    index, heads[mine], relations[mine], count, seed=seed, candidates=span, keys=keys[mine]
                )
        return drawn

    def phases(self) -> Sequence[Phase]:
        """One phase, ``triples``, that trains every parameter with Adam."""
        (pairs,) = super().phases()
        return (replace(pairs, name="triples", batches=self.triple_batches, loss=self.triple_loss),)
