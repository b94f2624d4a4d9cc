"""How alike the lists of two models are: overlap, Jaccard similarity, rank-biased overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from graphrec.unlearning.evidence.measures import RETRAINED, Measure, Row, mean_and_sd, measured

PERSISTENCE = 0.9
CELLS = 8_000_000

Similarity = Callable[[Tensor, Tensor], Tensor]


def common(first: Tensor, second: Tensor) -> Tensor:
    """X_d, (B, K) float64: how many items the first d places of two lists (B, K) have in common, d = 1 to K.

    -1 stands for no item and is common to nothing.
    """
    size, depth = first.shape
    out = torch.zeros(size, depth, dtype=torch.float64, device=first.device)
    place = torch.arange(depth, device=first.device)
    later = torch.maximum(place[:, None], place[None, :]).reshape(-1)
    step = max(1, CELLS // max(depth * depth, 1))
    for start in range(0, size, step):
        a, b = first[start : start + step], second[start : start + step]
        equal = (a[:, :, None] == b[:, None, :]) & (a[:, :, None] >= 0)
        out[start : start + step].index_add_(1, later, equal.reshape(len(a), -1).double())
    return out.cumsum(1)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """|A ∩ B| / K for lists (B, K), -> (B,); K is the longer list's length where both are shorter."""
    length = torch.maximum((first >= 0).sum(1), (second >= 0).sum(1))
    return torch.where(length > 0, common(first, second)[:, -1] / length.clamp(min=1), 1.0)


def jaccard(first: Tensor, second: Tensor) -> Tensor:
    """|A ∩ B| / |A ∪ B|, o / (2 - o) for full lists of overlap o; 1 for two empty ones."""
    both = common(first, second)[:, -1]
    union = (first >= 0).sum(1) + (second >= 0).sum(1) - both
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


def rank_biased_overlap(first: Tensor, second: Tensor, p: float = PERSISTENCE) -> Tensor:
    r"""Rank-biased overlap of lists (B, K), extrapolated from depth K (Webber, Moffat, Zobel, ACM TOIS 2010, eq. 32).

    .. math:: \mathrm{RBO}_\mathrm{ext} = \frac{X_K}{K} p^K + \frac{1-p}{p} \sum_{d=1}^{K} \frac{X_d}{d} p^d

    The part of the infinite list that was not looked at agrees as the K places did; identical lists give 1, lists
    without a common item 0. With p = .9 the first ten places have about 86 % of the weight.
    """
    shared = common(first, second)
    depth = torch.arange(1, first.shape[1] + 1, dtype=torch.float64, device=first.device)
    agreement = shared / depth
    return agreement[:, -1] * p ** len(depth) + (1 - p) / p * (agreement * p**depth).sum(1)


def list_measures(
    lists: Mapping[Row, Sequence[Tensor]],
    ks: Sequence[int],
    groups: Mapping[str, Tensor],
    apart: Sequence[int] | None = None,
) -> list[Measure]:
    """Likeness to the retrained models' lists by group of users; of the retrained row between any two of them.

    That row is the ceiling: two trainings that differ in nothing but the seed agree no better.

    Args:
        lists: (B, K) of each model of each row, the same users.
        ks: lengths, each at most K.
        groups: (B,) bool by name.
        apart: which retrained models the other rows are compared with; None: all.
    """
    references = lists.get(RETRAINED, ())
    if not references:
        return []
    held = [references[n] for n in (range(len(references)) if apart is None else apart)]
    found: dict[tuple[str, str], dict[Row, list[float]]] = {}
    for k in ks:
        kinds: dict[str, Similarity] = {
            f"overlap@{k}": overlap,
            f"jaccard@{k}": jaccard,
            f"rbo@{k}": rank_biased_overlap,
        }
        for name, similarity in kinds.items():
            for row, models in lists.items():
                if row == RETRAINED:
                    compared = [
                        similarity(one[:, :k], other[:, :k])
                        for n, one in enumerate(models)
                        for other in models[n + 1 :]
                    ]
                else:
                    compared = [similarity(one[:, :k], other[:, :k]) for one in models for other in held]
                for group, users in groups.items():
                    values = [float(one[users].mean()) if bool(users.any()) else math.nan for one in compared]
                    if values:
                        kept = values if row == RETRAINED else [mean_and_sd(values)[0]]
                        found.setdefault((name, group), {})[row] = kept
    return [
        one
        for (name, group), rows in found.items()
        for one in measured("lists", name, rows, group=group, count=int(groups[group].sum()))
    ]
