"""Ranks of the one right answer among others, under a policy for equal scores, and their metrics.

Of equal scores, ``realistic`` counts half (the mean over their orders; what PyKEEN and ogb report), ``optimistic``
none, ``pessimistic`` all. Letters: T examples, n negatives of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown

Ties = Literal["realistic", "optimistic", "pessimistic"]
_TIES = ("realistic", "optimistic", "pessimistic")


class Ranks(NamedTuple):
    """Ranks from 1.

    Attributes:
        optimistic: (T,) int64, before all that score the same.
        pessimistic: (T,) int64, behind them.
    """

    optimistic: Tensor
    pessimistic: Tensor

    def of(self, ties: Ties) -> Tensor:
        """(T,) float64 under one policy for equal scores."""
        if ties not in _TIES:
            raise unknown("policy for equal scores", ties, _TIES)
        low, high = self.optimistic.double(), self.pessimistic.double()
        return low if ties == "optimistic" else high if ties == "pessimistic" else (low + high) / 2


def rank_metrics(ranks: Tensor, ks: Sequence[int] = (1, 3, 10)) -> dict[str, float]:
    """``mrr``, ``mean_rank`` and ``hits@k`` of ranks (T,) from 1."""
    ranks = ranks.double()
    hits = {f"hits@{k}": float((ranks <= k).double().mean()) for k in ks}
    return {"mrr": float(ranks.reciprocal().mean()), "mean_rank": float(ranks.mean()), **hits}


def ranks_among(positive: Tensor, negative: Tensor) -> Ranks:
    """Ranks of positives, each among negatives of its own: the protocol of ogbl-wikikg2, ogbl-biokg and ogbl-citation2.

    Args:
        positive: (T,) scores.
        negative: (T, n) scores.
    """
    if positive.dim() != 1 or negative.dim() != 2 or len(positive) != len(negative):
        raise InputError(
            f"positive must be (T,) and negative (T, n), found {tuple(positive.shape)} and {tuple(negative.shape)}."
        )
    own = positive[:, None]
    return Ranks((negative > own).sum(1) + 1, (negative >= own).sum(1) + 1)


def hits_above(positive: Tensor, negative: Tensor, k: int) -> float:
    """Share of the positives that score above the k-th best of negatives that all share; 1 where there are fewer.

    The protocol of ogbl-collab, ogbl-ddi and ogbl-ppa.

    Args:
        positive: (T,) scores.
        negative: (n,) scores.
        k: from 1.
    """
    if positive.dim() != 1 or negative.dim() != 1 or len(positive) == 0:
        raise InputError(
            f"positive (T,) and negative (n,) must be vectors, found {tuple(positive.shape)}, {tuple(negative.shape)}."
        )
    if len(negative) < k:
        return 1.0
    return float((positive > torch.topk(negative, k).values[-1]).double().mean())
