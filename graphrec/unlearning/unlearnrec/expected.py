r"""What a model would score pairs at, had they never been edges: the two-sided target of forgetting.

A retrained model does not score forgotten pairs as low as it can, nor like random pairs: people's own pairs fit their
taste, injected ones do not. So the score is foretold from what the *other* edges say about the pair. With Ē the present
final representations and :math:`\hat A_r` the residual graph, :math:`Z^l = \hat A_r^l \bar E` describes a node by
those around it; a least-squares fit on

.. math:: \langle z^a_u, z^b_i \rangle,\; \langle z^a_u, \bar z^b \rangle,\; \langle \bar z^a, z^b_i \rangle,\;
          \|z^a_u\|^2,\; \|z^b_i\|^2,\; \log(1 + d_u),\; \log(1 + d_i) \text{ and their products}

on random rectified sums of these (:math:`\max(0, W x + b)`, W and b drawn once: what unlikely pairs score is no linear
function of them), and on the products of the leading singular vectors of :math:`\hat A_r` (which no trained parameter
enters) is made to the scores of random pairs that are no edges, none of which a step of training pulled up, and read at
the forgotten pairs. A fit varies less than what it foretells; below its mean it is widened by 1/R: unlikely pairs are
foretold as low as such pairs are. Above the mean it is left: what a model has learned of likely pairs leans to too
high.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise
from graphrec.layers.spectral import singular_vectors
from graphrec.layers.spmm import spmm
from graphrec.randomness import derive, generator, hash_bits, hash_integers

HOPS = 2
VECTORS = 32
ROUNDS = 3
"""Of the power iteration that gives the vectors: features of a fit, they need not be exact."""
PAIRS = 1 << 13
"""Random pairs that a fit is made on, two thirds of them, and judged by, one third."""
RECTIFIED = 256
"""Random rectified sums among the features."""
# Two degrees, the products of neighbours' means, and of each side their norms and products with the mean node.
_RECTIFIED_INPUTS = 2 + HOPS * HOPS + 2 * HOPS * (1 + HOPS)
_FARTHEST = 8.0
"""Standard deviations beyond which a column counts as so far."""
_BLOCK = 1 << 13
_RIDGE = 1e-3
# A fit worse than this is not widened further: it would be noise.
_LEAST_FIT = 0.5


@dataclass(frozen=True, eq=False)
class Expected:
    """Foretold scores.

    Attributes:
        scores: (M,) of the pairs asked for.
        scale: standard deviation of the scores of random pairs that are no edges.
        mean: their mean.
        fit: share of their variance that the fit explains on pairs it was not made on (R²).
    """

    scores: Tensor
    scale: float
    mean: float
    fit: float


def non_edges(matrix: Adjacency, count: int, *, seed: int, also: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Random pairs (2, at most count) that are no edges of a users x items matrix, nor among the pairs ``also``.

    Users are drawn among those with edges: an untrained row says nothing about a trained one.
    """
    number = torch.arange(count, device=matrix.device)
    active = matrix.degrees(0).nonzero()[:, 0]
    users = active[hash_integers(derive(seed, "users of non-edges"), len(active), number)]
    items = hash_integers(derive(seed, "items of non-edges"), matrix.shape[1], number)
    free = ~matrix.contains(users, items)
    if also is not None:
        free &= ~torch.isin(users * matrix.shape[1] + items, also[0] * matrix.shape[1] + also[1])
    return torch.stack([users[free], items[free]])


class Foretelling:
    """Foretells the scores of some pairs, for one state of a model after another; see the module.

    What hangs on the graph alone (random pairs, degrees, singular vectors) is found once.

    Args:
        matrix: users x items, the edges that remain.
        users: (M,) int64 of the pairs, none of them an edge of ``matrix``.
        items: (M,) int64.
        seed: of the random pairs.
        count: random pairs drawn.
    """

    @torch.no_grad()
    def __init__(self, matrix: Adjacency, users: Tensor, items: Tensor, *, seed: int, count: int = PAIRS) -> None:
        self.pairs = torch.stack([users, items])
        self.known = non_edges(matrix, count, seed=seed, also=(users, items))
        # A third of the pairs is kept to say how well the fit foretells.
        held = hash_bits(derive(seed, "held out"), self.known[0], self.known[1]) % 3 == 0
        self.learned, self.held = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
        self.normalised, self.split = normalise(matrix), matrix.shape[0]
        self.degrees = tuple(torch.log1p(matrix.degrees(side).float()) for side in (0, 1))
        self.vectors = _leading_vectors(matrix)
        stream = generator(seed, "rectified sums")
        self.weights = torch.randn(_RECTIFIED_INPUTS, RECTIFIED, generator=stream) / _RECTIFIED_INPUTS**0.5
        self.offsets = torch.randn(RECTIFIED, generator=stream)

    @torch.no_grad()
    def __call__(self, final: Tensor) -> Expected:
        """The scores that the pairs would have, had they never been edges.

        Args:
            final: (N, D), Ē with the users first.
        """
        users, items = self.known
        scores = (final[users] * final[self.split :][items]).sum(-1)
        scale, mean = float(scores.std()) if len(scores) > 1 else 1.0, float(scores.mean()) if len(scores) else 0.0
        describe = self._descriptions(final)
        described = describe(self.known)
        if len(self.learned) <= 4 * (described.shape[1] + RECTIFIED):
            return Expected(scores.new_full((self.pairs.shape[1],), mean), max(scale, 1e-12), mean, 0.0)
        centre = described[self.learned].mean(0)
        spread = described[self.learned].std(0).clamp_min(1e-12)
        weights, offsets = self.weights.to(final), self.offsets.to(final)

        def features(described: Tensor) -> Tensor:
            # Far outside of what was seen a fit knows nothing.
            columns = ((described - centre) / spread).clamp(-_FARTHEST, _FARTHEST)
            rectified = torch.relu(columns[:, -_RECTIFIED_INPUTS:] @ weights + offsets)
            return torch.cat([columns, rectified], 1)

        known = features(described)
        train, target = known[self.learned], scores[self.learned]
        middle, typical = train.mean(0), target.mean()
        train = train - middle
        gram = (train.T @ train).double()
        gram.diagonal().add_(_RIDGE * len(train))
        solved = torch.linalg.solve(gram, (train.T @ (target - typical)).double()).to(final.dtype)
        error = (known[self.held] - middle) @ solved + typical - scores[self.held]
        fit = 1 - float(error.square().mean()) / max(float(scores[self.held].var()), 1e-12)
        shift = float(middle @ solved)
        found = torch.cat([features(describe(part)) @ solved - shift for part in self.pairs.split(_BLOCK, 1)])
        found = found * torch.where(found < 0, 1 / max(fit, _LEAST_FIT) ** 0.5, 1.0) + float(typical)
        return Expected(found.clamp(scores.min(), scores.max()), max(scale, 1e-12), mean, fit)

    def _descriptions(self, final: Tensor) -> Callable[[Tensor], Tensor]:
        """What gives the columns (n, F) of pairs (2, n); those that are rectified too stand last."""
        tables = final[: self.split], final[self.split :]
        around: list[list[Tensor]] = [[], []]
        for _ in range(HOPS):
            tables = spmm(self.normalised, tables[1]), spmm(self.normalised.transposed, tables[0])
            around[0].append(tables[0])
            around[1].append(tables[1])
        of_nodes = []
        for own, others in (around, reversed(around)):
            means = torch.stack([other.mean(0) for other in others], 1)
            lone = [torch.cat([rows.square().sum(-1, keepdim=True), rows @ means], 1) for rows in own]
            of_nodes.append(torch.cat(lone, 1))
        vectors = self.vectors

        def describe(pairs: Tensor) -> Tensor:
            users, items = pairs
            own, other = self.degrees[0][users], self.degrees[1][items]
            products = [own * other, own.square(), other.square()]
            left, right = [rows[users] for rows in around[0]], [rows[items] for rows in around[1]]
            meetings = [(a * b).sum(-1) for a in left for b in right]
            return torch.cat(
                [
                    torch.stack(products, 1).to(final),
                    (vectors[0][users] * vectors[1][items]).to(final),
                    torch.stack([own, other], 1).to(final),
                    torch.stack(meetings, 1),
                    of_nodes[0][users],
                    of_nodes[1][items],
                ],
                1,
            )

        return describe


def expected_scores(
    final: Tensor, matrix: Adjacency, users: Tensor, items: Tensor, *, seed: int, count: int = PAIRS
) -> Expected:
    """Foretell the scores of pairs for one state of a model; see :class:`Foretelling`.

    Args:
        final: (N, D), Ē with the users first.
        matrix: as there, and so are users, items, seed and count.
        users: (M,) int64.
        items: (M,) int64.
        seed: of the random pairs.
        count: random pairs drawn.
    """
    return Foretelling(matrix, users, items, seed=seed, count=count)(final)


def _leading_vectors(matrix: Adjacency) -> tuple[Tensor, Tensor]:
    """Of the graph alone: the same for every state of a model, so they are kept with the matrix."""
    if "leading singular vectors" not in matrix.cache:
        left, _, right = singular_vectors(matrix, min(VECTORS, *matrix.shape), rounds=ROUNDS, extra=8)
        matrix.cache["leading singular vectors"] = left, right
    kept: tuple[Tensor, Tensor] = matrix.cache["leading singular vectors"]
    return kept
