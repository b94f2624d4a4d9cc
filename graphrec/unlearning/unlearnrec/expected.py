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
from graphrec.layers.spectral import singular_vectors
from graphrec.layers.spmm import spmm
from graphrec.randomness import derive, hash_bits, hash_integers

HOPS = 2
VECTORS = 32
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


@torch.no_grad()
def expected_scores(
    final: Tensor, matrix: Adjacency, users: Tensor, items: Tensor, *, seed: int, count: int = 1 << 15
) -> Expected:
    """Foretell the scores of pairs; see the module.

    Args:
        final: (N, D), Ē with the users first.
        matrix: users x items, the edges that remain.
        users: (M,) int64 of the pairs, none of them an edge of ``matrix``.
        items: (M,) int64.
        seed: of the random pairs.
        count: random pairs drawn.
    """
    pairs = non_edges(matrix, count, seed=seed, also=(users, items))
    size = matrix.shape[0]
    scores = (final[pairs[0]] * final[size:][pairs[1]]).sum(-1)
    scale, mean = float(scores.std()) if len(scores) > 1 else 1.0, float(scores.mean()) if len(scores) else 0.0
    describe = _Description(final, matrix)
    known, wanted = describe(*pairs), describe(users, items)
    # A third of the pairs is kept to say how well the fit foretells.
    held = hash_bits(derive(seed, "held out"), pairs[0], pairs[1]) % 3 == 0
    width = known.shape[1]
    if int((~held).sum()) <= 4 * width:
        return Expected(scores.new_full((len(users),), mean), max(scale, 1e-12), mean, 0.0)
    centre, spread = known[~held].mean(0), known[~held].std(0).clamp_min(1e-12)
    design = (known - centre) / spread
    train, target = design[~held], scores[~held].double()
    ridge = _RIDGE * len(train) * torch.eye(width, dtype=train.dtype, device=train.device)
    weights = torch.linalg.solve(train.T @ train + ridge, train.T @ (target - target.mean()))
    error = design[held] @ weights + target.mean() - scores[held]
    fit = 1 - float(error.square().mean()) / max(float(scores[held].double().var()), 1e-12)
    # Far outside of what was seen a linear fit knows nothing.
    low, high = scores.min(), scores.max()
    moved = ((wanted - centre) / spread) @ weights
    wide = torch.where(moved < 0, 1 / max(fit, _LEAST_FIT) ** 0.5, 1.0)
    found = (moved * wide + target.mean()).to(final.dtype).clamp(low, high)
    return Expected(found, max(scale, 1e-12), mean, fit)


def _leading_vectors(matrix: Adjacency, normalised: Adjacency) -> tuple[Tensor, Tensor]:
    """Of the graph alone: the same for every state of a model, so they are kept with the matrix."""
    if "leading singular vectors" not in matrix.cache:
        left, _, right = singular_vectors(normalised, min(VECTORS, *matrix.shape), seed=0)
        matrix.cache["leading singular vectors"] = left, right
    kept: tuple[Tensor, Tensor] = matrix.cache["leading singular vectors"]
    return kept


class _Description:
    """Features (n, F) float64 of pairs; see the module."""

    def __init__(self, final: Tensor, matrix: Adjacency) -> None:
        normalised = normalise(matrix)
        users, items = final[: matrix.shape[0]], final[matrix.shape[0] :]
        self.users: list[Tensor] = []
        self.items: list[Tensor] = []
        for _ in range(HOPS):
            users, items = spmm(normalised, items), spmm(normalised.transposed, users)
            self.users.append(users)
            self.items.append(items)
        self.left, self.right = _leading_vectors(matrix, normalised)
        self.degrees = torch.log1p(matrix.degrees(0).to(final)), torch.log1p(matrix.degrees(1).to(final))

    def __call__(self, users: Tensor, items: Tensor) -> Tensor:
        own, other = self.degrees[0][users], self.degrees[1][items]
        columns = [own, other, own * other, own.square(), other.square()]
        for mine in self.users:
            columns += [(mine[users] * theirs[items]).sum(-1) for theirs in self.items]
            columns += [mine.square().sum(-1)[users]]
            columns += [(mine @ theirs.mean(0))[users] for theirs in self.items]
        for theirs in self.items:
            columns += [theirs.square().sum(-1)[items]]
            columns += [(theirs @ mine.mean(0))[items] for mine in self.users]
        columns += list((self.left[users] * self.right[items]).unbind(1))
        return torch.stack(columns, 1).double()
