r"""What a model would score pairs at, had they never been edges: the two-sided target of forgetting.

A retrained model does not score forgotten pairs as low as it can, nor like random pairs: people's own pairs fit their
taste, injected ones do not. So the score is foretold from what the *other* edges say about the pair. With Ē the present
final representations and :math:`\hat A_r` the residual graph, :math:`Z^l = \hat A_r^l \bar E` describes a node by
those around it; a linear fit on

.. math:: \langle z^a_u, z^b_i \rangle,\; \langle z^a_u, \bar z^b \rangle,\; \langle \bar z^a, z^b_i \rangle,\;
          \|z^a_u\|^2,\; \|z^b_i\|^2,\; \log(1 + d_u),\; \log(1 + d_i) \text{ and their products}

and on the products of the leading singular vectors of :math:`\hat A_r` (which no trained parameter enters) is made to
the scores of random pairs that are no edges, none of which a step of training pulled up, and read at the forgotten
pairs. A fit varies less than what it foretells; below its mean it is widened by 1/R: unlikely pairs are foretold
as low as such pairs are. Above the mean it is left: what a model has learned of likely pairs leans to too high.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise
from graphrec.layers.spectral import normalised, right_singular_vectors
from graphrec.layers.spmm import multiply, spmm
from graphrec.randomness import derive, hash_bits, hash_integers

HOPS = 2
VECTORS = 32
ROUNDS = 3
"""Of the power iteration that gives the vectors: features of a fit, they need not be exact."""
PAIRS = 1 << 13
"""Random pairs that a fit is made on, two thirds of them, and judged by, one third."""
_RIDGE = 1e-5
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
        pairs = non_edges(matrix, count, seed=seed, also=(users, items))
        self.known, self.size = pairs.shape[1], matrix.shape[0]
        self.users, self.items = torch.cat([pairs[0], users]), torch.cat([pairs[1], items])
        # A third of the pairs is kept to say how well the fit foretells.
        self.held = hash_bits(derive(seed, "held out"), pairs[0], pairs[1]) % 3 == 0
        self.normalised = normalise(matrix)
        own, other = (torch.log1p(matrix.degrees(side).float()) for side in (0, 1))
        own, other = own[self.users], other[self.items]
        left, right = _leading_vectors(matrix)
        columns = [own, other, own * other, own.square(), other.square()]
        self.fixed = torch.cat([torch.stack(columns, 1), left[self.users] * right[self.items]], 1)

    @torch.no_grad()
    def __call__(self, final: Tensor) -> Expected:
        """The scores that the pairs would have, had they never been edges.

        Args:
            final: (N, D), Ē with the users first.
        """
        count = self.known
        scores = (final[self.users[:count]] * final[self.size :][self.items[:count]]).sum(-1)
        scale, mean = float(scores.std()) if count > 1 else 1.0, float(scores.mean()) if count else 0.0
        described = torch.cat([self.fixed.to(final), self._by_neighbours(final)], 1).double()
        known, wanted = described[:count], described[count:]
        width = known.shape[1]
        held = self.held
        if int((~held).sum()) <= 4 * width:
            return Expected(scores.new_full((len(wanted),), mean), max(scale, 1e-12), mean, 0.0)
        train, target = known[~held], scores[~held].double()
        centre, spread = train.mean(0), train.std(0).clamp_min(1e-12)
        train = (train - centre) / spread
        ridge = _RIDGE * len(train) * torch.eye(width, dtype=train.dtype, device=train.device)
        weights = torch.linalg.solve(train.T @ train + ridge, train.T @ (target - target.mean()))
        error = (known[held] - centre) / spread @ weights + target.mean() - scores[held]
        fit = 1 - float(error.square().mean()) / max(float(scores[held].double().var()), 1e-12)
        # Far outside of what was seen a linear fit knows nothing.
        low, high = scores.min(), scores.max()
        moved = ((wanted - centre) / spread) @ weights
        wide = torch.where(moved < 0, 1 / max(fit, _LEAST_FIT) ** 0.5, 1.0)
        found = (moved * wide + target.mean()).to(final.dtype).clamp(low, high)
        return Expected(found, max(scale, 1e-12), mean, fit)

    def _by_neighbours(self, final: Tensor) -> Tensor:
        """The columns (n, F) that the present vectors enter, through those of the neighbours."""
        users, items = final[: self.size], final[self.size :]
        mine, theirs = [], []
        for _ in range(HOPS):
            users, items = spmm(self.normalised, items), spmm(self.normalised.transposed, users)
            mine.append(users)
            theirs.append(items)
        left, right = [rows[self.users] for rows in mine], [rows[self.items] for rows in theirs]
        columns = [(a * b).sum(-1) for a in left for b in right]
        for own, others, at in ((mine, theirs, self.users), (theirs, mine, self.items)):
            for rows in own:
                means = torch.stack([other.mean(0) for other in others], 1)
                columns += torch.cat([rows.square().sum(-1, keepdim=True), rows @ means], 1)[at].unbind(1)
        return torch.stack(columns, 1)


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
        scaled = normalised(matrix)
        values, right = right_singular_vectors(scaled, min(VECTORS, *matrix.shape), rounds=ROUNDS, extra=8)
        left = multiply(scaled, right) / values.clamp_min(torch.finfo(values.dtype).tiny)
        matrix.cache["leading singular vectors"] = left, right
    kept: tuple[Tensor, Tensor] = matrix.cache["leading singular vectors"]
    return kept
