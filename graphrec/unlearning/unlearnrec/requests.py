"""Requests to practise on: random edges, all edges of some users, all edges of some items.

Real requests come from people and about things; the published pre-training practises on uniform edges alone. Letters:
E edges, U users, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.randomness import derive, hash_bits, hash_uniform

Kind = Literal["edges", "users", "items"]
KINDS: tuple[Kind, ...] = ("edges", "users", "items")
MIXTURE: tuple[float, float, float] = (0.5, 0.25, 0.25)
"""How often a request is of each kind."""


@dataclass(frozen=True, eq=False)
class SimulatedRequest:
    """Edges that a simulated request names.

    Attributes:
        edge_id: (M,) int64.
        users: (M,) int64.
        items: (M,) int64.
        kind: how they were drawn.
        share: of all edges that was asked for.
    """

    edge_id: Tensor
    users: Tensor
    items: Tensor
    kind: Kind
    share: float


class RequestSampler:
    """Draws requests from the training edges of a model.

    ``edges`` takes the edges with the smallest hashes of (user, item); ``users`` all edges of users in the order of
    their hashes, as long as the share is not exceeded (at least one user); ``items`` likewise. Edges that the model's
    graph has between one pair go together.

    Args:
        matrix: users x items, with edge ids.
        seed: of the draws.
        shares: the shares of the edges that a request asks for; each request draws one.
        mixture: how often requests are of the three kinds; (1, 0, 0) is the published pre-training.

    Raises:
        InputError: a share outside (0, 1), probabilities that do not add up to 1, or too few edges.
    """

    def __init__(
        self,
        matrix: Adjacency,
        *,
        seed: int,
        shares: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
        mixture: Sequence[float] = MIXTURE,
    ) -> None:
        if not shares or not all(0 < share < 1 for share in shares):
            raise InputError(f"shares of edges must lie in (0, 1), found {tuple(shares)}.")
        if len(mixture) != len(KINDS) or min(mixture) < 0 or abs(sum(mixture) - 1) > 1e-6:
            raise InputError(f"mixture must be {len(KINDS)} shares that add up to 1, found {tuple(mixture)}.")
        if len(matrix) < 2:
            raise InputError(f"requests cannot be simulated on {len(matrix)} edges.")
        self.matrix, self.seed, self.shares, self.mixture = matrix, seed, tuple(shares), tuple(mixture)
        self.rows, self.cols = matrix.rows().long(), matrix.col.long()
        self.edge_id = matrix.edge_positions() if matrix.edge_id is None else matrix.edge_id

    def draw(self, number: int) -> SimulatedRequest:
        """The request of a number; the kinds take turns as the mixture says."""
        seed = derive(self.seed, "simulated request", number)
        # Van der Corput's sequence is spread evenly, so that few requests already keep the mixture.
        place = sum(((number >> bit) & 1) / 2 ** (bit + 1) for bit in range(number.bit_length()))
        bounds = torch.tensor(self.mixture, dtype=torch.float64).cumsum(0)
        kind = KINDS[min(int((bounds <= place + 1e-12).sum()), len(KINDS) - 1)]
        at = int(hash_uniform(seed, torch.zeros((), dtype=torch.int64)) * len(self.shares))
        return self.drawn(kind, self.shares[at], seed)

    def drawn(self, kind: Kind, share: float, seed: int) -> SimulatedRequest:
        """A request of one kind for a share of the edges."""
        if kind not in KINDS:
            raise unknown("kind of request", kind, KINDS)
        limit = min(max(int(share * len(self.matrix)), 1), len(self.matrix) - 1)
        if kind == "edges":
            order = torch.argsort(hash_bits(seed, self.rows, self.cols), stable=True)
            bits = hash_bits(seed, self.rows, self.cols)
            last = bits[order[limit - 1]]
            chosen = bits <= last
        else:
            nodes = self.rows if kind == "users" else self.cols
            size = self.matrix.shape[0] if kind == "users" else self.matrix.shape[1]
            degree = torch.bincount(nodes, minlength=size)
            order = torch.argsort(hash_bits(seed, torch.arange(size, device=nodes.device)))
            order = order[degree[order] > 0]
            total = degree[order].cumsum(0)
            taken = max(int((total <= limit).sum()), 1)
            inside = torch.zeros(size, dtype=torch.bool, device=nodes.device)
            inside[order[:taken]] = True
            chosen = inside[nodes]
        return SimulatedRequest(self.edge_id[chosen], self.rows[chosen], self.cols[chosen], kind, share)
