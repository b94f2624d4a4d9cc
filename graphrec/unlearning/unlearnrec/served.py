"""A request met with a trained model: what remains, what is to be reached, and how far that was reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphrec import randomness
from graphrec.unlearning.unlearnrec.backbone import Backbone
from graphrec.unlearning.unlearnrec.encoder import InfluenceEncoder, request_matrix, touched
from graphrec.unlearning.unlearnrec.expected import Expected, Foretelling, non_edges

PROBES = 4096
"""Pairs that say how well a model still tells edges from pairs that are none."""


Sharing = Literal["unknown", "none", "wider", "gathered"]
"""How the terms of a request and the model's own loss share one propagation: not at all; the loss takes its training
rows for the request's nodes too; both take rows of all vectors. Unknown before the first step."""


class Served:
    """A request met with a model: the graph without it, what the encoder reads, and what is to be reached.

    Args:
        whole: the trained model on all edges; what it gives is computed once for all requests met with it.
        edge_id: (M,) int64, edges of the ranked behaviour to forget.
        exact: as published: the teacher is the model on the whole graph, nothing is foretold, and rows that lose all
            their edges keep what they learned.
        seed: of the pairs that scores are foretold by.
    """

    def __init__(self, whole: Backbone, edge_id: Tensor, *, exact: bool = False, seed: int = 0) -> None:
        matrix = whole.matrix
        own = matrix.edge_positions() if matrix.edge_id is None else matrix.edge_id
        gone = torch.isin(own, edge_id.to(own.device))
        self.users, self.items = matrix.rows().long()[gone], matrix.col.long()[gone]
        self.residual = Backbone.residual(whole.model, own[gone])
        self.request = request_matrix(self.users, self.items, matrix.shape)
        self.exact, self.seed = exact, seed
        self.ego, self.final = whole.trained
        left = torch.cat([self.residual.matrix.degrees(0), self.residual.matrix.degrees(1)])
        self.emptied = (left == 0) & touched(self.request)
        if not exact and bool(self.emptied.any()):
            self.ego = torch.where(self.emptied.unsqueeze(1), whole.initial, self.ego)
        # Two edges may lie between one pair: what is left of it is no forgotten pair.
        split = matrix.shape[0]
        self.learned = ~(self.emptied[self.users] | self.emptied[split + self.items])
        self.learned &= ~self.residual.matrix.contains(self.users, self.items)
        asked = slice(None) if exact else self.learned
        self.request_users, self.user_at = torch.unique(self.users[asked], return_inverse=True)
        self.request_items, self.item_at = torch.unique(self.items[asked], return_inverse=True)
        self.teacher = self.final if exact else _detached(self.residual, self.ego)
        self.sharing: Sharing = "unknown"
        self.expected: Expected | None = None
        self._foretelling: Foretelling | None = None
        if not exact:
            self.foretell(self.ego)

    def foretell(self, tables: Tensor) -> Expected:
        """Scores of the forgotten pairs as the other edges have them, for a model with these tables (N, D)."""
        if self._foretelling is None:
            users, items = self.users[self.learned], self.items[self.learned]
            self._foretelling = Foretelling(self.residual.matrix, users, items, seed=self.seed)
        self.expected = self._foretelling(_detached(self.residual, tables))
        return self.expected

    def scores(self, final: Tensor) -> Tensor:
        """Of the forgotten pairs whose two ends still have edges (all of them as published), (M',)."""
        return self.scores_of(final[self.request_users], final[self.request.shape[0] + self.request_items])

    def scores_of(self, users: Tensor, items: Tensor) -> Tensor:
        """The same from the rows of :attr:`request_users` and :attr:`request_items`, (n, D) and (m, D)."""
        # The gradient of index_select is a plain sum of rows; that of indexing sorts them first.
        return (users.index_select(0, self.user_at) * items.index_select(0, self.item_at)).sum(-1)

    def moved(self, encoder: InfluenceEncoder, ego: Tensor | None = None) -> Tensor:
        """Ẽ⁰, (N, D); rows that lost all their edges stand at their initial values."""
        ego = self.ego if ego is None else ego
        tables: Tensor = encoder(ego, self.final, self.request, everywhere=self.exact)
        if self.exact or not bool(self.emptied.any()):
            return tables
        return torch.where(self.emptied.unsqueeze(1), ego, tables)


@dataclass(frozen=True)
class Quality:
    """How a request went, without a retrained model at hand.

    Attributes:
        gap: mean score of the forgotten pairs less the foretold mean, in standard deviations of the scores of random
            pairs; as published: mean score of the request less that of random pairs.
        separation: share of (edge, random pair of its user) in which the edge scores higher, on the graph that remains.
        teacher: the same of the trained model on that graph before anything moved.
    """

    gap: float
    separation: float
    teacher: float


@torch.no_grad()
def quality(served: Served, tables: Tensor, *, seed: int = 0) -> Quality:
    """Measure tables (N, D) after a request; see :class:`Quality`."""
    final = served.residual.encode(tables)
    scores = served.scores(final)
    matrix, split = served.residual.matrix, served.request.shape[0]
    if served.expected is not None:
        gap = float((scores - served.expected.scores).sum() / max(len(scores), 1)) / served.expected.scale
    else:
        pairs = non_edges(matrix, PROBES, seed=seed)
        random = (final[pairs[0]] * final[split + pairs[1]]).sum(-1)
        gap = float(scores.sum() / max(len(scores), 1) - random.mean())
    entries = randomness.hash_integers(
        randomness.derive(seed, "probes"), len(matrix), torch.arange(PROBES, device=matrix.device)
    )
    users, items = matrix.rows().long()[entries], matrix.col.long()[entries]
    others = randomness.hash_integers(randomness.derive(seed, "others"), matrix.shape[1], users, entries)
    free = ~matrix.contains(users, others)
    users, items, others = users[free], items[free], others[free]

    def separation(rows: Tensor) -> float:
        higher = (rows[users] * (rows[split + items] - rows[split + others])).sum(-1) > 0
        return float(higher.float().mean()) if len(higher) else 1.0

    return Quality(gap, separation(final), separation(served.teacher))


def _detached(backbone: Backbone, tables: Tensor) -> Tensor:
    with torch.no_grad():
        return backbone.encode(tables)
