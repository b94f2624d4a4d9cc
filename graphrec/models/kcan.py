"""KCAN: a knowledge graph distilled into small neighbourhoods, and attention within them that knows the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.layers.conditional_layer import ConditionalLayer, PreparedNodes
from graphrec.layers.dropout import dropout
from graphrec.layers.losses import RANKING_LOSSES, squared_norms
from graphrec.layers.reranking import reranked
from graphrec.layers.spmm import spmm
from graphrec.models.base import EdgeWeight, Encoded, GraphInputs, PairBatch, Phase
from graphrec.models.kcan_knowledge import DistilledKnowledge
from graphrec.models.kcan_presets import PRESETS
from graphrec.models.pairwise import Initialisation, Loss
from graphrec.models.phase_parts import adam, once

Variant = Literal["full", "g", "n", "s"]

# Pairs that are scored together without gradients.
_PAIRS = 1 << 16

_NORM_EPS = 1e-6  # x / sqrt(max(sum x², 1e-12)), the convention of the authors' framework


class KCAN(DistilledKnowledge):
    r"""Knowledge-aware conditional attention networks (Tu et al., CIKM 2021, https://arxiv.org/abs/2111.02100).

    The graph is the triples and the training interactions, in both directions. Triples train TransH between
    unit vectors, distances in L1, whose attention says how much an edge matters; interactions are a relation without
    translation and hyperplane, so that theirs is a cosine. After every epoch

    .. math:: a(h, r, t) = t^\perp \cdot (h^\perp + \rho_r), \qquad \Pi = \mathrm{softmax}_{row}(a), \qquad
              x_v = \mathrm{norm}\,\mathrm{ReLU}([e_v \| (\Pi e)_v] W_0 + b_0), \qquad g_v = [e_v \| x_v]

    Π acts on the next epoch's global layer, and K neighbours of every node are drawn by it: without repetition where
    a node has as many, else with. They are the receptive field (K and K² nodes) of a user and of an item, within which
    :mod:`graphrec.layers.conditional_attention` gives z_u and z_i, conditioned on both by
    :math:`\tau = w_t \cdot [g_u \| g_i]`. With :math:`o_s = [g_s \| z_s] W_{out}` the score is :math:`o_u \cdot o_i`.

    **Ranking.** A score takes 2 K² neighbours to read, so ``score(users)`` and ``score(users, candidates)`` re-score
    ``rerank`` candidates of each user: those whose global part :math:`g_u W \cdot g_i W` (W the rows of W_out that meet
    g) is largest, the user's own training items only where others do not suffice. All other items stand below them in
    the order of the global part, own training items last; their values say no more than this order.
    On Last.FM (``music``) 200 candidates of 3,846 held the exact 20
    best of all of 60 users. ``score(users, items)`` with items of each user, (B, P), always gives the exact scores.
    ``rerank=None`` ranks all items exactly. Evaluations that ask for pairs, labelled ones or the published one positive
    among 100 drawn negatives (``evaluate(…, sampled_negatives=100)``), get exact scores and score nothing else.

    As in the authors' review code: lists are drawn once an epoch and serve all targets (the paper calls the sampling
    target-specific), each tower ends in one linear map (the paper: an MLP), λ is on the outputs and all weights. Its
    penalty on the vectors of triples is on unit vectors and so without effect; it is left out.

    Args:
        inputs: the dataset or the inputs taken from it.
        variant: ``full``; ``g`` without the global layer (g_v = e_v); ``n`` the global layer alone, the score is
            :math:`g_u \cdot g_i`; ``s`` the tables alone, :math:`e_u \cdot e_i`. The last two rank all items exactly.
        dim: width of the tables.
        global_dim: width of x.
        hop_dim: width of the inner layer of the local attention.
        seed_dim: width of z.
        out_dim: width of the output.
        num_neighbours: K.
        rerank: candidates of each user that are scored exactly in a ranking; None: all items.
        dropout: share of entries dropped after each activation in training.
        loss: ``bpr`` as published, ``bce`` or ``softmax``; see :class:`PairwiseRecommender`.
        num_negatives: negatives of each positive.
        init: of the tables: ``xavier`` as published, ``normal`` or ``spectral``. Weights and biases are Xavier-uniform.
        init_scale: standard deviation of the initial entries, for ``normal`` and ``spectral``.
        lr: learning rate of both Adams (.01 movie, .025 last-fm, .1 yelp2018).
        reg: λ.
        batch_size: B, of pairs.
        triple_batch_size: of triples; interactions count among them.
        seed: seeds the initial parameters and the first lists.
    """

    presets = PRESETS

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        variant: Variant = "full",
        dim: int = 16,
        global_dim: int = 16,
        hop_dim: int = 8,
        seed_dim: int = 8,
        out_dim: int = 16,
        num_neighbours: int = 20,
        rerank: int | None = 500,
        dropout: float = 0.0,
        loss: Loss = "bpr",
        num_negatives: int = 1,
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-2,
        reg: float = 1e-4,
        batch_size: int = 2048,
        triple_batch_size: int = 102400,
        seed: int = 0,
    ) -> None:
        if variant not in ("full", "g", "n", "s"):
            raise unknown("variant", variant, ("full", "g", "n", "s"))
        sizes = {
            "global_dim": global_dim,
            "hop_dim": hop_dim,
            "seed_dim": seed_dim,
            "out_dim": out_dim,
            "num_neighbours": num_neighbours,
            "rerank": 1 if rerank is None else rerank,
            "triple_batch_size": triple_batch_size,
        }
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"{name} must be a positive whole number, found {size}.")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must lie in [0, 1), found {dropout}.")
        is_global, is_local = variant in ("full", "n"), variant in ("full", "g")
        super().__init__(
            inputs,
            attends=is_global or is_local,
            lists=is_local,
            variant=variant,
            dim=dim,
            global_dim=global_dim,
            hop_dim=hop_dim,
            seed_dim=seed_dim,
            out_dim=out_dim,
            num_neighbours=num_neighbours,
            rerank=rerank,
            dropout=dropout,
            loss=loss,
            num_negatives=num_negatives,
            shared_negatives=False,
            positives="edge",
            init=init,
            init_scale=init_scale,
            lr=lr,
            reg=reg,
            batch_size=batch_size,
            triple_batch_size=triple_batch_size,
            seed=seed,
        )
        for name in ("shared_negatives", "positives"):  # no options: what is done is published
            del self.hparams[name]
        self.variant, self.dropout, self.rerank = variant, dropout, rerank
        width = dim
        self.global_weight = self.global_bias = None
        if is_global:
            self.global_weight = self.xavier("global_weight", 2 * dim, global_dim)
            self.global_bias = self.xavier("global_bias", 1, global_dim)
            width += global_dim
        self.local = ConditionalLayer(width, hop_dim, seed_dim, out_dim, seed=seed) if is_local else None
        self._kept: tuple[Any, tuple[Tensor, PreparedNodes | None]] | None = None

    @classmethod
    def encodes(cls) -> bool:
        """No: what the local attention gives depends on both ends of a pair."""
        return False

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """See :meth:`GraphRecommender.encode`.

        Raises:
            InputError: always; take :meth:`score`.
        """
        raise InputError("KCAN has no representations whose dot product is its score: they depend on the target.")

    # -- layers --------------------------------------------------------------------------------------------------------

    def nodes(self, edge_weight: EdgeWeight = None, generator: torch.Generator | None = None) -> Tensor:
        """g of every node, (N, D) or, with the global layer, (N, D + D'); a generator drops entries of x."""
        ego = self.node_table()
        if self.global_weight is None or self.global_bias is None:
            return ego
        around = spmm(self.knowledge.adjacency, ego, self.weighted_attention(edge_weight)[0])
        x = functional.relu(torch.cat([ego, around], 1) @ self.global_weight + self.global_bias)
        return torch.cat([ego, functional.normalize(dropout(x, self.dropout, generator), eps=_NORM_EPS)], 1)

    def _nodes_of(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        user_type, _, item_type = self.graph_inputs.target
        return users + self.knowledge.nodes(user_type).start, items + self.knowledge.nodes(item_type).start

    # -- training ------------------------------------------------------------------------------------------------------

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank`` and ``reg`` of one batch; see the class."""
        generator = batch.generator if self.training and self.dropout else None
        items = torch.cat([batch.items[:, None], batch.negatives], 1)
        nodes = self.nodes(edge_weight, generator)
        if self.local is not None:
            prepared = self.local.prepare(nodes, self.neighbour_shares(edge_weight))
            pairs = self._nodes_of(batch.users[:, None].expand_as(items).reshape(-1), items.reshape(-1))
            kept = self.local.kept_entries(items.numel(), self.num_neighbours, self.dropout, generator)
            user, item = (end.view(*items.shape, -1) for end in self.local(prepared, *pairs, kept))
        else:
            users, item_nodes = self._nodes_of(batch.users, items)
            user, item = nodes[users].unsqueeze(1), nodes[item_nodes]
        scores = (user * item).sum(-1)
        objective = RANKING_LOSSES[self.loss_name]
        terms = {"rank": self.batch_weight(batch, objective(scores[:, 0], scores[:, 1:]))}
        if self.reg:
            users_norms, items_norms = squared_norms(user), squared_norms(item)
            penalty = users_norms[:, 0] + items_norms[:, 0] + items_norms[:, 1:].mean(1)
            if self.local is not None:  # a user's output is another for each item
                penalty = penalty + users_norms[:, 1:].mean(1)
            for parameter in self.layer_parameters():
                penalty = penalty + parameter.square().sum() / self.batch_size
            terms["reg"] = 0.5 * self.reg * self.batch_weight(batch, penalty)
        return terms

    def layer_parameters(self) -> tuple[nn.Parameter, ...]:
        """Weights and biases of the global and the local layer."""
        own = (self.global_weight, self.global_bias)
        local = () if self.local is None else self.local.parameters()
        return (*(parameter for parameter in own if parameter is not None), *local)

    def phases(self) -> Sequence[Phase]:
        """``triples``, ``pairs``, each with an Adam of its own, and ``refresh``: Π and the lists."""
        both = [self.user_embedding, self.item_embedding]
        if self.entity_embedding is not None:
            both.append(self.entity_embedding)
        relations = (self.relation_embedding, self.relation_normal)
        return (
            Phase("triples", self.triple_batches, self.triple_loss, (*both, *relations), adam(self.lr)),
            Phase("pairs", self.batches, self.pair_loss, (*both, *self.layer_parameters()), adam(self.lr)),
            Phase("refresh", once(self.device), self.refresh),
        )

    # -- ranking -------------------------------------------------------------------------------------------------------

    def _prepared(self, edge_weight: EdgeWeight) -> tuple[Tensor, PreparedNodes | None]:
        """g and what the local layer makes of it; kept while nothing they rest on changes."""
        live = self.training or torch.is_grad_enabled() or edge_weight is not None
        key = tuple((tensor.data_ptr(), tensor._version) for tensor in (*self.parameters(), *self.buffers()))
        if not live and self._kept is not None and self._kept[0] == key:
            return self._kept[1]
        nodes = self.nodes(edge_weight)
        local = None if self.local is None else self.local.prepare(nodes, self.neighbour_shares(edge_weight))
        if not live:
            self._kept = key, (nodes, local)
        return nodes, local

    def score(self, users: Tensor, items: Tensor | None = None, *, edge_weight: EdgeWeight = None) -> Tensor:
        """Scores of users for items; which of them are exact, the class says under "Ranking".

        Args:
            users: (B,) int64.
            items: None for all items; (P,) the same candidates for all users; (B, P) items of each user.
            edge_weight: a weight for each edge, a factor on the edge's exponential in every softmax; differentiable.

        Returns:
            (B, I), (B, P) and (B, P) float.
        """
        nodes, prepared = self._prepared(edge_weight)
        table = nodes if prepared is None else prepared.output
        numbers = torch.arange(self.num_items, device=users.device) if items is None else items
        own, others = self._nodes_of(users, numbers)
        if numbers.dim() == 2:
            if prepared is not None:
                return self._pair_scores(prepared, users, numbers)
            return torch.einsum("bd,bpd->bp", table[own], table[others])
        coarse = table[own] @ table[others].T
        if prepared is None:
            return coarse
        if self.rerank is None or coarse.shape[1] <= self.rerank:
            return self._pair_scores(prepared, users, numbers.expand(len(users), -1))

        def exact(best: Tensor) -> Tensor:
            return self._pair_scores(prepared, users, numbers[best])

        seen = self.graph_inputs.adjacency().contains(users[:, None], numbers[None, :])
        return reranked(coarse, self.rerank, exact, last=seen)

    def _pair_scores(self, prepared: PreparedNodes, users: Tensor, items: Tensor) -> Tensor:
        """Exact scores (B, P) of items (B, P) of each user, in blocks of pairs."""
        assert self.local is not None
        first, second = self._nodes_of(users[:, None].expand_as(items).reshape(-1), items.reshape(-1))
        parts = []
        for start in range(0, len(first), _PAIRS):
            block = slice(start, start + _PAIRS)
            user, item = self.local(prepared, first[block], second[block])
            parts.append((user * item).sum(-1))
        scores = torch.cat(parts) if parts else prepared.output.new_zeros(0)
        return scores.view(items.shape)

    def train(self, mode: bool = True) -> Self:
        """As in the base; what was kept for scoring is dropped."""
        self._kept = None
        return super().train(mode)

    def facts(self) -> Mapping[str, float | int]:
        """Candidates of each user that a ranking scores exactly; the items where all are."""
        exact = self.num_items if self.rerank is None or self.local is None else min(self.rerank, self.num_items)
        return {"reranked_items": exact}
