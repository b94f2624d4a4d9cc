"""Area under the ROC curve and the true positive rate at a small false positive rate, with bootstrap intervals.

All attacks and models share the resamples, so that intervals of differences between models are paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.randomness import derive

MIN_CLUSTERS = 20
CELLS = 1_000_000


@dataclass(frozen=True, eq=False)
class Resamples:
    """Weights (R, P) of positive and (R, Q) of negative pairs in R resamples.

    Attributes:
        positive: how often each positive pair was drawn.
        negative: how often each negative pair was drawn.
        by_user: whether users were drawn with all their pairs, or single pairs.
    """

    positive: Tensor
    negative: Tensor
    by_user: bool


def resamples(positive_users: Tensor, negative_users: Tensor, *, count: int = 1000, seed: int = 0) -> Resamples:
    """Draws with replacement, of users where at least 20 have pairs (their pairs are not independent), else of pairs.

    Args:
        positive_users: (P,) whose pairs they are.
        negative_users: (Q,) likewise.
        count: R.
        seed: of the draws.
    """
    stream = torch.Generator().manual_seed(derive(seed, "evidence/bootstrap"))
    users, place = torch.cat([positive_users, negative_users]).unique(return_inverse=True)
    by_user = len(users) >= MIN_CLUSTERS
    if by_user:
        weight = _drawn(len(users), count, stream)[:, place]
        return Resamples(weight[:, : len(positive_users)], weight[:, len(positive_users) :], True)
    return Resamples(_drawn(len(positive_users), count, stream), _drawn(len(negative_users), count, stream), False)


def _drawn(size: int, count: int, stream: torch.Generator) -> Tensor:
    """(R, size) float32: how often each of ``size`` was drawn in ``size`` draws."""
    out = torch.zeros(count, size)
    if size:
        chosen = torch.randint(size, (count, size), generator=stream)
        out.scatter_add_(1, chosen, torch.ones(count, size))
    return out


@dataclass(frozen=True, eq=False)
class Curve:
    """Both statistics of one attack on one model.

    Attributes:
        auc: probability that a positive pair gets a larger value than a negative one, equal ones half.
        tpr: largest true positive rate of a threshold whose false positive rate is at most the one asked for.
        auc_draws: (R,) float64, of the resamples.
        tpr_draws: (R,) float64.
    """

    auc: float
    tpr: float
    auc_draws: Tensor
    tpr_draws: Tensor


def curve(positive: Tensor, negative: Tensor, drawn: Resamples | None = None, *, at: float = 0.01) -> Curve:
    """AUC and TPR at a false positive rate, on the pairs and on their resamples.

    Args:
        positive: (P,) values of the positive pairs, larger is more suspicious.
        negative: (Q,) of the negative pairs.
        drawn: the resamples; None: no draws.
        at: the false positive rate.

    Returns:
        NaN everywhere where a class is empty.
    """
    none = torch.full((0 if drawn is None else len(drawn.positive),), math.nan, dtype=torch.float64)
    if not len(positive) or not len(negative):
        return Curve(math.nan, math.nan, none, none)
    values = torch.cat([positive.double(), negative.double()])
    # Equal values are one step of the curve, from the largest value down.
    distinct, step = values.unique(return_inverse=True)
    step = len(distinct) - 1 - step
    one = torch.ones(1, len(positive), dtype=torch.float64), torch.ones(1, len(negative), dtype=torch.float64)
    auc, tpr = _weighted(*one, step[: len(positive)], step[len(positive) :], len(distinct), at)
    if drawn is None:
        return Curve(float(auc[0]), float(tpr[0]), none, none)
    block = max(1, CELLS // max(len(distinct), 1))
    parts = [
        _weighted(
            drawn.positive[start : start + block].double(), drawn.negative[start : start + block].double(),
            step[: len(positive)], step[len(positive) :], len(distinct), at,
        )
        for start in range(0, len(drawn.positive), block)
    ]  # fmt: skip
    return Curve(
        float(auc[0]), float(tpr[0]), torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    )


def _weighted(
    positive: Tensor, negative: Tensor, positive_step: Tensor, negative_step: Tensor, steps: int, at: float
) -> tuple[Tensor, Tensor]:
    """AUC (R,) and TPR (R,) of weighted pairs; NaN where a class has no weight."""
    zero = positive.new_zeros(len(positive), steps)
    hits, misses = zero.index_add(1, positive_step, positive), zero.index_add(1, negative_step, negative)
    found, false = hits.cumsum(1), misses.cumsum(1)
    all_hits, all_misses = found[:, -1:], false[:, -1:]
    below = all_misses - false + misses / 2
    auc = (hits * below).sum(1) / (all_hits * all_misses).squeeze(1)
    allowed = false <= at * all_misses + 1e-9
    tpr = torch.where(allowed, found, 0).amax(1) / all_hits.squeeze(1)
    empty = (all_hits * all_misses).squeeze(1) <= 0
    return torch.where(empty, torch.nan, auc), torch.where(empty, torch.nan, tpr)


def interval(draws: Tensor, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the draws that are numbers; NaN where there are none."""
    known = draws[~draws.isnan()]
    if not len(known):
        return math.nan, math.nan
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = known.double().quantile(ends).tolist()
    return low, high


def mean_of(draws: Sequence[Tensor]) -> Tensor:
    """(R,) mean over models of paired draws."""
    return torch.stack(list(draws)).mean(0)
