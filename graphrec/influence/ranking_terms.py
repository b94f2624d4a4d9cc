r"""The ranking loss of every training edge as a function of pair scores; what a deletion readmits as a negative.

The loss meets the model only through the scores of a fixed list of pairs, so that every derivative of the objective is
made of derivatives here, O(T) numbers, and products with one sparse matrix. Letters: U users, I items, E training edges
of the ranked behaviour in edge-list order, T triples (edge, negative), P distinct pairs of the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.sampling import sample_negatives
from graphrec.models.pairwise import Loss, Positives
from graphrec.randomness import derive, hash_integers

Negatives = Literal["frozen", "readmit"]

ALL_NEGATIVES_UP_TO = 4_000_000
"""Triples up to which every negative of every edge is listed unless a number was asked for."""
_TRIPLES_AT_MOST = 100_000_000
_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class RankingTerms:
    r"""What :math:`\sum_e c_e(w)\, \ell_e(s; w)` is made of; see :func:`ranking_terms`.

    Attributes:
        pairs: (U, I) matrix whose entries are the distinct pairs, in the order of their scores (P,).
        users: (E,) int64.
        items: (E,) int64.
        positive: (E,) int64, the pair of each edge.
        negative: (T,) int64, the pair of each triple.
        owner: (T,) int64 ascending, the edge of each triple.
        items_of_triples: (T,) int64, the negatives.
        loss: ``bpr``, ``bce`` or ``softmax``.
        positives: how edges are weighed: ``edge`` all alike, ``user`` all users alike.
        special: (S,) int64, triples whose presence depends on edges; empty where negatives are frozen.
        admits: (S,) int64, the edge that has to be gone for the triple to be there, E for none.
        needs: (S, R) int64, edges that have to be there, E for none.
        count: n, the negatives of each edge, or None where all are listed.
    """

    pairs: Adjacency
    users: Tensor
    items: Tensor
    positive: Tensor
    negative: Tensor
    owner: Tensor
    items_of_triples: Tensor
    loss: Loss
    positives: Positives
    special: Tensor
    admits: Tensor
    needs: Tensor
    count: int | None

    @property
    def num_edges(self) -> int:
        """E."""
        return len(self.users)

    def multiplicities(self, weight: Tensor) -> Tensor:
        """How much each triple counts, (T,), before it is divided by the number of its edge's negatives."""
        counts = weight.new_ones(len(self.owner))
        if len(self.special) == 0:
            return counts
        gone = torch.cat([1 - weight, weight.new_ones(1)])[self.admits]
        there = torch.cat([weight, weight.new_ones(1)])[self.needs].prod(1)
        return counts.index_copy(0, self.special, gone * there)

    def shares(self, weight: Tensor) -> Tensor:
        """:meth:`multiplicities` as shares of each edge's negatives, (T,): they add up to 1 within an edge."""
        counts = self.multiplicities(weight)
        if self.count is not None:
            return counts / self.count
        total = counts.new_zeros(self.num_edges).index_add(0, self.owner, counts)
        return counts / total.where(total > 0, 1.0)[self.owner]

    def coefficients(self, weight: Tensor) -> Tensor:
        r""":math:`c_e`, (E,): w_e; with ``positives='user'`` :math:`w_e E / (U' \sum_{e' \ni u} w_{e'})`.

        U' are the users with training edges, so that the coefficients add up to E either way.
        """
        if self.positives == "edge":
            return weight
        total = weight.new_zeros(self.pairs.shape[0]).index_add(0, self.users, weight)
        active = len(torch.unique(self.users))
        return weight * (self.num_edges / active / total.where(total > 0, 1.0))[self.users]

    def per_edge(self, scores: Tensor, weight: Tensor) -> Tensor:
        """Losses (E,) of pairs' scores (P,); ``weight`` (E,) says which edges keep items out of the negatives."""
        gained = scores[self.positive]
        against = scores[self.negative]
        zeros = scores.new_zeros(self.num_edges)
        if self.loss == "bpr":
            terms = functional.softplus(against - gained[self.owner])
            return zeros.index_add(0, self.owner, self.shares(weight) * terms)
        if self.loss == "bce":
            terms = functional.softplus(against)
            return functional.softplus(-gained).index_add(0, self.owner, self.shares(weight) * terms)
        margins = against - gained[self.owner]
        # The largest exponent (0 is the positive's own) is taken out of the sum.
        peak = zeros.scatter_reduce(0, self.owner, margins.detach(), "amax", include_self=True)
        powers = self.multiplicities(weight) * torch.exp(margins - peak[self.owner])
        return peak + torch.log(torch.exp(-peak).index_add(0, self.owner, powers))

    def total(self, scores: Tensor, w_loss: Tensor, w_negatives: Tensor) -> Tensor:
        """The sum of the losses of all edges."""
        return (self.coefficients(w_loss) * self.per_edge(scores, w_negatives)).sum()

    def row_counts(self, w_loss: Tensor, w_negatives: Tensor) -> tuple[Tensor, Tensor]:
        """How often each user's (U,) and item's (I,) row is in the loss: as itself, or as a share of the negatives."""
        weight = self.coefficients(w_loss)
        users = weight.new_zeros(self.pairs.shape[0]).index_add(0, self.users, weight)
        drawn = weight[self.owner] * self.shares(w_negatives)
        items = weight.new_zeros(self.pairs.shape[1]).index_add(0, self.items, weight)
        return users, items.index_add(0, self.items_of_triples, drawn)

    def apply(self, function: Any) -> RankingTerms:
        """The same terms with ``function`` applied to each tensor (a move to a device)."""
        names = ("users", "items", "positive", "negative", "owner", "items_of_triples", "special", "admits", "needs")
        moved = {name: function(getattr(self, name)) for name in names}
        return replace(self, pairs=self.pairs.apply(function), **moved)


def ranking_terms(
    matrix: Adjacency,
    edge_index: Tensor,
    *,
    loss: Loss = "bpr",
    positives: Positives = "edge",
    negatives: Negatives = "frozen",
    num_negatives: int | Literal["all"] | None = None,
    seed: int = 0,
) -> RankingTerms:
    r"""The terms of every edge of a list, with negatives fixed once.

    .. math:: \ell_e = \sum_{j \in \mathcal N_e} m_{ej}\, \mathrm{softplus}(s_{uj} - s_{ui})

    for ``bpr``, with shares m; ``bce`` and ``softmax`` as in :mod:`graphrec.layers.losses`. Drawn negatives are hashes
    of (user, item, number), those that training draws for the same seed with ``positives='edge'``.

    Args:
        matrix: users x items, the training edges.
        edge_index: (2, E), the same edges in the order that weights are given in.
        loss: the loss of an edge.
        positives: see :meth:`RankingTerms.coefficients`.
        negatives: what deleting (u, i) does to the negatives of u's other edges. ``frozen``: nothing. ``readmit``: i
            may be a negative. Where all are listed, it is one more with multiplicity ``1 - w``; where they are drawn, a
            draw that had met i and was made again stands.
        num_negatives: n; ``all`` for every item without an edge; None: all where that makes at most
            :data:`ALL_NEGATIVES_UP_TO` triples, else 1.
        seed: of the draws.

    Raises:
        InputError: no edges, an unknown word, more triples than can be listed, or parallel edges with ``readmit``.
    """
    for name, word, words in (
        ("loss", loss, ("bpr", "bce", "softmax")),
        ("positives", positives, ("user", "edge")),
        ("negatives", negatives, ("frozen", "readmit")),
    ):
        if word not in words:
            raise unknown(name, word, words)
    users, items = edge_index.long()
    if len(users) == 0:
        raise InputError("the model's graph has no edges of the ranked behaviour, so that there is no loss.")
    num_items = matrix.shape[1]
    keys = users * num_items + items
    if negatives == "readmit" and len(torch.unique(keys)) < len(keys):
        raise InputError(
            "negatives='readmit' needs each (user, item) to be one edge; the training part has parallel ones."
        )
    listed = int((num_items - matrix.degrees(0))[users].sum())
    if num_negatives is None:
        num_negatives = "all" if listed <= ALL_NEGATIVES_UP_TO else 1
    if num_negatives == "all":
        made = _all_negatives(matrix, users, items, negatives == "readmit", listed)
    elif isinstance(num_negatives, int) and num_negatives >= 1:
        made = _drawn_negatives(matrix, users, items, num_negatives, negatives == "readmit", seed)
    else:
        raise InputError(f"num_negatives must be a positive whole number or 'all', found {num_negatives!r}.")
    owner, candidates, special, admitting, needed = made
    everyone = torch.cat([keys, users[owner] * num_items + candidates])
    distinct, place = torch.unique(everyone, return_inverse=True)
    pairs = Adjacency.from_edges(
        torch.stack([distinct.div(num_items, rounding_mode="floor"), distinct % num_items]), matrix.shape
    )
    order = torch.argsort(keys)
    return RankingTerms(
        pairs,
        users,
        items,
        place[: len(keys)],
        place[len(keys) :],
        owner,
        candidates,
        loss,
        positives,
        special,
        _edge_of(keys, order, admitting),
        _edge_of(keys, order, needed),
        None if num_negatives == "all" else num_negatives,
    )


_Made = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Owner (T,), item (T,), special triples (S,), and as keys of pairs, -1 for none, what admits (S,) and needs (S, R)."""


def _all_negatives(matrix: Adjacency, users: Tensor, items: Tensor, readmit: bool, listed: int) -> _Made:
    count = len(users) * (matrix.shape[1] - 1) if readmit else listed
    if count > _TRIPLES_AT_MOST:
        raise InputError(
            f"num_negatives='all' makes {count:,} triples here, at most {_TRIPLES_AT_MOST:,} are listed; give a number."
        )
    columns = torch.arange(matrix.shape[1], device=users.device)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    step = max(1, 10_000_000 // max(1, matrix.shape[1]))
    for start in range(0, len(users), step):
        block, own = users[start : start + step], items[start : start + step]
        known = matrix.contains(block[:, None], columns[None])
        taken = columns[None] != own[:, None] if readmit else ~known
        owner, item = torch.nonzero(taken, as_tuple=True)
        parts.append((owner + start, item, known[owner, item]))
    owner, item, known = (torch.cat([part[n] for part in parts]) for n in range(3))
    special = torch.nonzero(known)[:, 0] if readmit else owner.new_empty(0)
    admitting = users[owner[special]] * matrix.shape[1] + item[special]
    return owner, item, special, admitting, special.new_empty(len(special), 0)


def _drawn_negatives(matrix: Adjacency, users: Tensor, items: Tensor, count: int, readmit: bool, seed: int) -> _Made:
    drawn = sample_negatives(matrix, users, count, seed=seed, keys=items).reshape(-1)
    owner = torch.arange(len(users), device=users.device).repeat_interleave(count)
    nothing = owner.new_empty(0)
    if not readmit:
        return owner, drawn, nothing, nothing, nothing[:, None]
    # The draws that were made again, in the order of their turns: the same hashes.
    number = torch.arange(count, device=users.device).repeat(len(users))
    stream = derive(seed, "negatives")
    slot, who, keys = torch.arange(len(owner), device=users.device), users[owner], items[owner]
    again, rejected = slot, torch.full((len(owner), _ROUNDS), -1, device=users.device)
    for turn in range(_ROUNDS):
        candidate = hash_integers(stream, matrix.shape[1], who[again], keys[again], number[again], turn)
        met = matrix.contains(who[again], candidate)
        again, candidate = again[met], candidate[met]
        if len(again) == 0:
            break
        # A draw that met its own positive: with that edge the whole term goes.
        other = candidate != keys[again]
        rejected[again[other], turn] = (who[again] * matrix.shape[1] + candidate)[other]
    slots = torch.nonzero((rejected >= 0).any(1))[:, 0]
    rejected = rejected[slots]
    at, turns = torch.nonzero(rejected >= 0, as_tuple=True)
    before = torch.arange(_ROUNDS, device=users.device)[None] < turns[:, None]
    # First the draws that stand now, which need every rejecting edge; then those that would stand instead.
    all_owner = torch.cat([owner, owner[slots[at]]])
    all_items = torch.cat([drawn, rejected[at, turns] % matrix.shape[1]])
    special = torch.cat([slots, torch.arange(len(owner), len(all_owner), device=users.device)])
    admitting = torch.cat([torch.full_like(slots, -1), rejected[at, turns]])
    needed = torch.cat([rejected, rejected[at].where(before, -1)])
    order = torch.argsort(all_owner, stable=True)
    moved = torch.empty_like(order)
    moved[order] = torch.arange(len(order), device=users.device)
    return all_owner[order], all_items[order], moved[special], admitting, needed


def _edge_of(keys: Tensor, order: Tensor, wanted: Tensor) -> Tensor:
    """The edge of each pair's key, E for the key -1."""
    if wanted.numel() == 0:
        return wanted.long()
    found = order[torch.searchsorted(keys[order], wanted.clamp_min(0)).clamp_max(len(keys) - 1)]
    return found.where(wanted >= 0, len(keys))
