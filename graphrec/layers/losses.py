r"""Losses of ranking, one value for each example, so that a batch can weigh them.

Letters: B examples, n negatives. Scores are ``positive`` (B,) and ``negative`` (B, n). ``known`` (B, n)
marks negatives that are in truth positives of the example's user; they take no part. All are differentiable
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.errors import InputError


def bpr_loss(positive: Tensor, negative: Tensor, known: Tensor | None = None) -> Tensor:
    r"""Bayesian personalised ranking, :math:`\frac1n \sum_j \log(1 + e^{y_j - y_i})`, (B,).

    By softplus, which neither overflows nor rounds to zero gradient (Rendle et al., UAI 2009).
    """
    _check(positive, negative, known)
    return _mean(functional.softplus(negative - positive.unsqueeze(1)), known)


def bce_loss(positive: Tensor, negative: Tensor, known: Tensor | None = None) -> Tensor:
    r"""Binary cross entropy on scores, :math:`\log(1 + e^{-y_i}) + \frac1n \sum_j \log(1 + e^{y_j})`,
    (B,).
    """
    _check(positive, negative, known)
    return functional.softplus(-positive) + _mean(functional.softplus(negative), known)


def point_loss(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Cross entropy of single pairs, :math:`c \log(1 + e^{-y}) + (1 - c) \log(1 + e^y)`, (B,).

    Args:
        scores: (B,) y, before the sigmoid.
        labels: (B,) c, 1 or 0 (or a probability between).
    """
    if scores.shape != labels.shape:
        raise InputError(
            f"scores and labels must have one shape, found {tuple(scores.shape)} and {tuple(labels.shape)}."
        )
    return functional.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype), reduction="none")


def sampled_softmax_loss(
    positive: Tensor, negative: Tensor, known: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    r"""Cross entropy of the positive among itself and the negatives, (B,).

    .. math:: -\log \frac{e^{y_i/\tau}}{e^{y_i/\tau} + \sum_j e^{y_j/\tau}}

    Args:
        positive: (B,).
        negative: (B, n); columns may stand for negatives that the whole batch shares.
        known: (B, n) boolean.
        temperature: τ; smaller ones let hard negatives count for more.
    """
    _check(positive, negative, known)
    if not temperature > 0:
        raise InputError(f"temperature must be positive, found {temperature}.")
    if known is not None:
        negative = negative.masked_fill(known, -torch.inf)
    scores = torch.cat([positive.unsqueeze(1), negative], 1) / temperature
    return torch.logsumexp(scores, 1) - scores[:, 0]


def squared_norms(rows: Tensor) -> Tensor:
    """Squared length of each row, (B, D) to (B,): a row that is in a batch twice counts twice in its sum."""
    return rows.square().sum(-1)


def block_norm(rows: Tensor, weight: Tensor | None = None) -> Tensor:
    """Frobenius norm of rows (B, ...), not squared, each times its weight (B,) first: RecBole's and SELFRec's penalty.

    Its gradient at zero is zero.
    """
    if weight is not None:
        rows = rows * weight.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1))
    return torch.linalg.vector_norm(rows)


def _mean(terms: Tensor, known: Tensor | None) -> Tensor:
    """Mean over the negatives that count; 0 where none does."""
    if known is None:
        return terms.mean(1)
    counts = (~known).sum(1).clamp_min(1)
    return terms.masked_fill(known, 0.0).sum(1) / counts


def _check(positive: Tensor, negative: Tensor, known: Tensor | None) -> None:
    if positive.dim() != 1 or negative.dim() != 2 or len(positive) != len(negative):
        raise InputError(
            f"positive must be (B,) and negative (B, n), found {tuple(positive.shape)} and {tuple(negative.shape)}."
        )
    if known is not None and known.shape != negative.shape:
        raise InputError(f"known must have the shape of negative, {tuple(negative.shape)}, found {tuple(known.shape)}.")


RANKING_LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "bpr": bpr_loss,
    "bce": bce_loss,
    "softmax": sampled_softmax_loss,
}
"""What models call the losses of a positive among negatives."""
