"""Area under the ROC curve and its relatives, for labelled pairs and full rankings; equal scores share ranks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def average_ranks(scores: Tensor, groups: Tensor | None = None) -> Tensor:
    """Ascending ranks from 1 within each group, equal scores sharing the mean of their ranks.

    Args:
        scores: (N,).
        groups: (N,) int64; None: one group.

    Returns:
        (N,) float64.
    """
    size = len(scores)
    order = scores.argsort(stable=True)
    if groups is None:
        groups = torch.zeros(size, dtype=torch.int64, device=scores.device)
    else:
        order = order[groups[order].argsort(stable=True)]
    value, group = scores[order], groups[order]
    new_group = torch.ones(size, dtype=torch.bool, device=scores.device)
    new_group[1:] = group[1:] != group[:-1]
    new_run = new_group.clone()
    new_run[1:] |= value[1:] != value[:-1]
    run = new_run.cumsum(0) - 1
    position = torch.arange(size, dtype=torch.float64, device=scores.device)
    starts = position[new_run]
    lengths = torch.bincount(run, minlength=len(starts)).double()
    group_start = position[new_group][new_group.cumsum(0) - 1]
    ranks = torch.empty(size, dtype=torch.float64, device=scores.device)
    ranks[order] = (starts + (lengths - 1) / 2)[run] - group_start + 1
    return ranks


def auc_by_group(scores: Tensor, labels: Tensor, groups: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """AUC of each group and its number of positives.

    Args:
        scores: (N,).
        labels: (N,) 0 or 1.
        groups: (N,) int64 below ``size``.
        size: G.

    Returns:
        (G,) float64, NaN where a group has one class only; (G,) float64.
    """
    positive = labels.double()
    ranks = average_ranks(scores, groups if size > 1 else None)
    zero = torch.zeros(size, dtype=torch.float64, device=scores.device)
    count = zero.index_add(0, groups, positive)
    other = zero.index_add(0, groups, 1 - positive)
    ranked = zero.index_add(0, groups, ranks * positive)
    pairs = count * other
    value = (ranked - count * (count + 1) / 2) / pairs
    return torch.where(pairs > 0, value, torch.nan), count


def _groups(users: Tensor) -> tuple[Tensor, int]:
    known, groups = users.unique(return_inverse=True)
    return groups, len(known)


def auc(scores: Tensor, labels: Tensor) -> float:
    """The probability that a positive pair scores above a negative one, over all labelled pairs; equal ones count half.

    Args:
        scores: (N,).
        labels: (N,) 0 or 1.

    Returns:
        NaN where there is one class only.

    >>> auc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]))
    0.875
    """
    value, _ = auc_by_group(scores, labels, torch.zeros(len(scores), dtype=torch.int64, device=scores.device), 1)
    return float(value[0])


def auc_user(scores: Tensor, labels: Tensor, users: Tensor) -> float:
    """Mean over users of their own AUC; users with one class only are left out."""
    groups, size = _groups(users)
    return float(auc_by_group(scores, labels, groups, size)[0].nanmean())


def gauc(scores: Tensor, labels: Tensor, users: Tensor) -> float:
    """Users' AUC weighted by their number of positives, ``sum |T_u| AUC_u / sum |T_u|``."""
    groups, size = _groups(users)
    return weighted_mean(*auc_by_group(scores, labels, groups, size))


def auc_batch(scores: Tensor, labels: Tensor, batch_size: int, *, last: Literal["keep", "drop"] = "keep") -> float:
    """Mean of the AUC of consecutive minibatches: not the AUC of all pairs, and not steady where batches are small.

    Args:
        scores: (N,).
        labels: (N,) 0 or 1.
        batch_size: pairs of a minibatch.
        last: what becomes of an incomplete last batch: RippleNet's code keeps it, KGCN's drops it.

    Returns:
        The mean over the batches that have both classes, NaN where none has.
    """
    size = len(scores) // batch_size if last == "drop" else -(-len(scores) // batch_size)
    used = min(size * batch_size, len(scores))
    groups = torch.arange(used, device=scores.device) // batch_size
    return float(auc_by_group(scores[:used], labels[:used], groups, size)[0].nanmean())


def weighted_mean(values: Tensor, weights: Tensor) -> float:
    """Mean of the values that are not NaN, with weights; NaN where there are none."""
    there = ~values.isnan()
    total = weights[there].sum()
    return float((values[there] * weights[there]).sum() / total) if float(total) > 0 else float("nan")


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of pairs whose click is foretold, at threshold .5 on the sigmoid of the score."""
    return float(((scores > 0) == (labels > 0)).double().mean())


def click_f1(scores: Tensor, labels: Tensor) -> float:
    """F1 of the positive class at threshold .5 on the sigmoid of the score; 0 where nothing is positive."""
    found, true = scores > 0, labels > 0
    total = float(found.sum() + true.sum())
    return 2 * float((found & true).sum()) / total if total else 0.0


def roc(scores: Tensor, labels: Tensor, points: int = 100) -> tuple[Tensor, Tensor]:
    """The ROC curve: share of negatives and of positives that score at least a threshold, from (0, 0) to (1, 1).

    Args:
        scores: (N,), both classes.
        labels: (N,) 0 or 1.
        points: largest number of points; of more distinct scores the curve keeps so many, evenly along its way.

    Returns:
        (P,) float64 false positive rates and (P,) float64 true positive rates, both ascending.
    """
    order = scores.argsort(descending=True, stable=True)
    value, positive = scores[order], labels[order].double()
    last = torch.ones(len(value), dtype=torch.bool, device=scores.device)
    last[:-1] = value[1:] != value[:-1]
    true, false = positive.cumsum(0)[last], (1 - positive).cumsum(0)[last]
    start = torch.zeros(1, dtype=torch.float64, device=scores.device)
    true, false = torch.cat([start, true / true[-1]]), torch.cat([start, false / false[-1]])
    if len(true) > points:
        # Along the way (right and up) steps are alike where the curve is steep and where it is flat.
        wanted = torch.linspace(0, 2, points, dtype=torch.float64, device=scores.device)
        kept = torch.searchsorted((true + false).contiguous(), wanted).clamp(max=len(true) - 1).unique()
        true, false = true[kept], false[kept]
    return false, true


def auc_of_ranks(rank_sum: Tensor, truth: Tensor, candidates: Tensor) -> Tensor:
    """AUC of users whose relevant items' ranks are known.

    ``AUC = (T (n + 1) - T (T + 1) / 2 - sum r) / (T (n - T))`` with descending ranks r, shared by equal scores, among n
    candidates of which T are relevant.

    Args:
        rank_sum: (B,) float64.
        truth: (B,) T.
        candidates: (B,) n.

    Returns:
        (B,) float64, NaN where every candidate is relevant or none is.
    """
    t, n = truth.double(), candidates.double()
    pairs = t * (n - t)
    value = (t * (n + 1) - t * (t + 1) / 2 - rank_sum) / pairs
    return torch.where(pairs > 0, value, torch.nan)


def rank_sums(scores: Tensor, rows: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the descending ranks, shared by equal scores, of chosen items of each row.

    Args:
        scores: (B, P), -inf where an item is no candidate; **its rows are sorted in place**.
        rows: (M,) int64 ascending.
        items: (M,) int64, the column of each chosen item.

    Returns:
        (B,) float64 sums, and (B,) int64 how many chosen items are candidates; others are left out.
    """
    size, width = scores.shape
    value = scores[rows, items]
    there = value > -torch.inf
    rows, value = rows[there], value[there]
    counts = torch.bincount(rows, minlength=size)
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    asked = torch.full(
        (size, max(int(counts.max()) if size else 0, 1)), torch.inf, dtype=scores.dtype, device=scores.device
    )
    asked[rows, place] = value
    ascending = _sort_rows(scores)
    below_or_equal = torch.searchsorted(ascending, asked, right=True)
    below = torch.searchsorted(ascending, asked)
    ranks = (width - below_or_equal) + (below_or_equal - below + 1).double() / 2
    sums = torch.zeros(size, dtype=torch.float64, device=scores.device).index_add(0, rows, ranks[rows, place])
    return sums, counts


def _sort_rows(scores: Tensor) -> Tensor:
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64):
        # numpy's vectorised sort is twenty times faster than torch's here, and needs no second block.
        scores.numpy().sort(axis=1)
        return scores
    return scores.sort(dim=1).values
