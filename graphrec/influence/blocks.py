r"""The curvature of each row by itself: a block (d, d) for every user and item, factored and solved in one batch.

For factorised scores :math:`s_{uv} = \langle p_u, q_v\rangle` the Gauss-Newton matrix has the diagonal blocks

.. math:: H_u = \sum_{t \ni u} \ell''_t (q_i - q_j)(q_i - q_j)^\top + \Lambda_u, \qquad
          H_i = \sum_{t \ni i} \ell''_t\, p_u p_u^\top + \Lambda_i

With fixed items the users' blocks are the exact Hessian of as many convex problems. What joins users and items is left
out, so that this is a good preconditioner for BPRMF (half of the products) rather than a solution; through a
propagation the blocks are only approximately those of the tables, and on LightGCN they save next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.influence.linear_objective import LinearObjective
from graphrec.influence.objective import Objective
from graphrec.influence.ranking_terms import RankingTerms
from graphrec.influence.solvers import Operator, Solution
from graphrec.layers.spmm import sddmm
from graphrec.randomness import generator

_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class BlockDiagonal:
    """Cholesky factors of blocks; see :func:`block_diagonal`.

    Attributes:
        factors: (R, d, d) for each table, in the order of θ.
        damping: δ that was added.
    """

    factors: Sequence[Tensor]
    damping: float

    def __call__(self, v: Tensor) -> Tensor:
        """The inverse of the blocks times v, (n,): a preconditioner."""
        sizes = [factor.shape[0] * factor.shape[1] for factor in self.factors]
        if v.shape != (sum(sizes),):
            raise InputError(f"v must be ({sum(sizes)},), found {tuple(v.shape)}.")
        parts = zip(self.factors, v.split(sizes), strict=True)
        return torch.cat(
            [torch.cholesky_solve(part.view(*factor.shape[:2], 1), factor).reshape(-1) for factor, part in parts]
        )

    def solve(self, hvp: Operator, v: Tensor, *, tolerance: float = 1e-3) -> Solution:
        """The same as a solution of the whole system, with the residual that it leaves there."""
        x, size = self(v), float(v.norm())
        reached = float((hvp(x) + self.damping * x - v).norm()) / size if size else 0.0
        return Solution(x, reached, 1, reached <= tolerance, self.damping)


@torch.no_grad()
def block_diagonal(
    objective: Objective,
    theta: Tensor,
    w_loss: Tensor | None = None,
    w_graph: Tensor | None = None,
    w_negatives: Tensor | None = None,
    *,
    damping: float = 0.0,
) -> BlockDiagonal:
    """The diagonal blocks of the Gauss-Newton matrix plus δ, factored: O(T d² + N d³), N d² numbers.

    Exact for BPRMF with the losses bpr and bce; ``softmax`` gives a bound from above. For a propagation P the blocks in
    the final rows are taken times the squared diagonal of P, (P e_v)_v², from probing it with random signs.

    Args:
        objective: with closed forms.
        theta: (n,).
        w_loss: weights, as everywhere.
        w_graph: weights.
        w_negatives: weights.
        damping: δ, absolute; with a λ of 0 some rows have no curvature of their own.

    Raises:
        InputError: a model that is not linear in two tables, or a block that is not positive.
    """
    if not isinstance(objective, LinearObjective):
        raise InputError(f"{type(objective.model).__name__} has no tables whose rows have blocks of their own.")
    terms = objective.terms
    weights = objective.ones() if w_loss is None else w_loss
    kept = weights if w_negatives is None else w_negatives
    users, items = objective.propagate(*objective.tables(theta), w_graph)
    margin, pair = _curvatures(terms, sddmm(terms.pairs, users, items), weights, kept)
    rows, columns = terms.pairs.rows().long(), terms.pairs.col.long()
    width = users.shape[1]
    blocks = [x.new_zeros(len(x), width, width) for x in (users, items)]
    if margin is None:
        for part in _parts(len(rows), users):
            _add_outer(blocks[0], rows[part], items[columns[part]], pair[part])
    else:
        for part in _parts(len(margin), users):
            owner = terms.owner[part]
            apart = items[terms.items[owner]] - items[terms.items_of_triples[part]]
            _add_outer(blocks[0], terms.users[owner], apart, margin[part])
    for part in _parts(len(rows), users):
        _add_outer(blocks[1], columns[part], users[rows[part]], pair[part])
    ridge = objective.ridge(weights, kept).expand(len(theta))
    own = _own_shares(objective, w_graph)
    factors = []
    for block, scale, flat in zip(blocks, own, ridge.split([x.numel() for x in (users, items)]), strict=True):
        block.mul_(scale.square()[:, None, None])
        block.diagonal(dim1=1, dim2=2).add_(flat.view(len(block), width) + damping)
        factor, failed = torch.linalg.cholesky_ex(block)
        if bool(failed.any()):
            raise InputError("a row has no curvature of its own: give a damping (or a regulariser).")
        factors.append(factor)
    return BlockDiagonal(factors, damping)


def _curvatures(
    terms: RankingTerms, scores: Tensor, w_loss: Tensor, w_negatives: Tensor
) -> tuple[Tensor | None, Tensor]:
    """Second derivatives in the margins of the triples (T,), None where the loss has none, and in the pairs (P,)."""
    gained, against = scores[terms.positive], scores[terms.negative]
    weight = terms.coefficients(w_loss)
    pair = scores.new_zeros(len(scores))
    if terms.loss == "bce":
        shares = weight[terms.owner] * terms.shares(w_negatives)
        pair.index_add_(0, terms.positive, weight * torch.sigmoid(gained) * torch.sigmoid(-gained))
        pair.index_add_(0, terms.negative, shares * torch.sigmoid(against) * torch.sigmoid(-against))
        return None, pair
    margin = against - gained[terms.owner]
    if terms.loss == "bpr":
        curved = weight[terms.owner] * terms.shares(w_negatives) * torch.sigmoid(margin) * torch.sigmoid(-margin)
    else:
        losses = terms.per_edge(scores, w_negatives)
        powers = terms.multiplicities(w_negatives) * torch.exp(margin - losses[terms.owner])
        curved = weight[terms.owner] * powers  # diag(p), an upper bound of diag(p) - p p'
    pair.index_add_(0, terms.positive[terms.owner], curved).index_add_(0, terms.negative, curved)
    return curved, pair


def _parts(count: int, like: Tensor) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (like.shape[1] ** 2 * like.element_size()))
    return (slice(start, start + step) for start in range(0, count, step))


def _add_outer(blocks: Tensor, index: Tensor, vectors: Tensor, weight: Tensor) -> None:
    blocks.index_add_(0, index, torch.einsum("b,bd,be->bde", weight, vectors, vectors))


def _own_shares(objective: LinearObjective, w_graph: Tensor | None, probes: int = 16) -> tuple[Tensor, Tensor]:
    """The diagonal of P at users (U,) and items (I,), by Hutchinson's estimate; exactly 1 without a propagation."""
    sizes = [objective.model.num_users, objective.model.num_items]
    stream = generator(0, "influence/own shares")
    signs = [(torch.randint(0, 2, (size, probes), generator=stream) * 2 - 1).to(objective.theta) for size in sizes]
    users, items = objective.propagate(signs[0], signs[1], w_graph)
    return (signs[0] * users).mean(1), (signs[1] * items).mean(1)
