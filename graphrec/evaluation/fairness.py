"""Individual item fairness: how evenly single items are shown, whoever likes them.

Measures and corrections of Rampisela, Maistro, Ruotsalo and Lioma, "Evaluation Measures of Individual Item Fairness for
Recommender Systems: A Critical Study" (ACM TORS 3(2), 2024, arXiv 2311.01013). A measure with ``corrected=True`` is
scaled so that the least fair lists that are possible with these sizes give one end of [0, 1] and the fairest ones the
other; it is NaN where both are the same (one user, or lists as long as the catalogue).

Letters: n items, m users, k the length of the lists, c (n,) the number of lists with each item, S = sum c = m k,
f = floor(S / n), r = S mod n.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphrec.evaluation import beyond_accuracy

GAMMA = 0.8
"""Patience of the reader in :func:`individual_disparity` and :func:`all_disparity`."""


def _scaled(value: float, worst: float, best: float) -> float:
    """Where ``value`` lies between ``worst`` (0) and ``best`` (1); NaN where there is nothing between them."""
    if not math.isfinite(value) or abs(best - worst) < 1e-12:
        return math.nan
    return (value - worst) / (best - worst)


def _sizes(counts: Tensor) -> tuple[int, int, int, int]:
    size, total = len(counts), int(counts.sum())
    return size, total, total // max(size, 1), total % max(size, 1)


def jain(counts: Tensor, k: int, corrected: bool = False) -> float:
    """Jain's index ``S^2 / (n sum c^2)``; larger is fairer. Possible: from ``k / n`` to the value of even counts."""
    n, total, f, rest = _sizes(counts)
    if total == 0:
        return math.nan
    value = total**2 / (n * float((counts.double() ** 2).sum()))
    if not corrected:
        return value
    return _scaled(value, k / n, total**2 / (n * (n * f**2 + rest * (2 * f + 1))))


def qualification(counts: Tensor, k: int, corrected: bool = False) -> float:
    """Qualification fairness: share of the items that are shown at all, ``q / n``; larger is fairer."""
    n, total, _, _ = _sizes(counts)
    shown = int((counts > 0).sum())
    if not corrected:
        return shown / n
    return _scaled(shown / n, k / n, min(n, total) / n) if total else math.nan


def entropy(counts: Tensor, k: int, corrected: bool = False) -> float:
    """Entropy of the exposure to base n, ``-sum p log_n p`` with 0 log 0 = 0; larger is fairer.

    The original is not defined where an item is never shown; with 0 log 0 = 0 it is.
    """
    n, total, f, rest = _sizes(counts)
    if total == 0 or n < 2:
        return math.nan
    value = beyond_accuracy.entropy(counts) / math.log(n)
    if not corrected:
        return value

    def part(count: int) -> float:
        return -(count / total) * math.log(count / total, n)

    best = (n - rest) * part(f) + (rest * part(f + 1) if rest else 0.0) if total >= n else math.log(total, n)
    return _scaled(value, math.log(k, n), best)


def gini(counts: Tensor, k: int, corrected: bool = False) -> float:
    """Gini index of the exposure; smaller is fairer. Corrected: 0 for the fairest, 1 for the least fair lists."""
    n, total, _, rest = _sizes(counts)
    value = beyond_accuracy.gini(counts)
    if not corrected or total == 0:
        return value
    best = (n - rest) * rest / (n * total)
    return 1 - _scaled(value, 1 - k / n, best)


def discounted_exposure(lists: Tensor, num_items: int) -> Tensor:
    """x (n,) float64, the sum of ``1 / log2(rank + 1)`` over the lists that contain each item."""
    weights = (1 / torch.log2(torch.arange(2, lists.shape[1] + 2, dtype=torch.float64, device=lists.device))).expand(
        lists.shape
    )
    there = lists >= 0
    zero = torch.zeros(num_items, dtype=torch.float64, device=lists.device)
    return zero.index_add(0, lists[there], weights[there])


def weighted_gini(lists: Tensor, num_items: int, corrected: bool = False) -> float:
    """Gini index of the discounted exposure; smaller is fairer.

    Least fair: the same k items in the same order for everybody. Fairest: every place another item where there are
    enough items (S <= n), otherwise taken as 0, which is an approximation.
    """
    value = beyond_accuracy.gini(discounted_exposure(lists, num_items))
    if not corrected:
        return value
    users, k = lists.shape
    weights = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))
    worst = torch.zeros(num_items, dtype=torch.float64)
    worst[: min(k, num_items)] = users * weights[:num_items]
    best = 0.0
    if users * k <= num_items:
        even = torch.zeros(num_items, dtype=torch.float64)
        even[: users * k] = weights.repeat(users)
        best = beyond_accuracy.gini(even)
    return 1 - _scaled(value, beyond_accuracy.gini(worst), best)


def satisfaction(counts: Tensor, k: int, corrected: bool = False) -> float:
    """FSat: share of the items that get at least the maximin share, ``#{c_i >= f} / n``; larger is fairer.

    Always 1 where S < n; its correction is NaN there.
    """
    n, _, f, _ = _sizes(counts)
    value = float((counts >= f).double().mean())
    if not corrected:
        return value
    return _scaled(value, k / n, 1.0) if f > 0 else math.nan


def violation(counts: Tensor) -> float:
    """VoCD with all items taken as alike: mean ``|c_i - c_j| / max(c_i, c_j)`` over pairs of shown items; 0 is fair."""
    shown = counts[counts > 0].double().sort().values
    size = len(shown)
    if size < 2:
        return math.nan
    # In ascending order the j-th item differs from those before it by sum_i (1 - c_i / c_j).
    before = shown.cumsum(0) - shown
    position = torch.arange(size, dtype=torch.float64, device=counts.device)
    return float((position - before / shown).sum() / (size * (size - 1) / 2))


def _patience(lists: Tensor, gamma: float) -> Tensor:
    return gamma ** torch.arange(lists.shape[1], dtype=torch.float64, device=lists.device)


def _even(lists: Tensor, num_items: int, gamma: float) -> float:
    return (1 - gamma ** lists.shape[1]) / ((1 - gamma) * num_items)


def individual_disparity(lists: Tensor, num_items: int, gamma: float = GAMMA) -> float:
    """II-D ``mean_{u,i} (E_ui - E)^2`` with ``E_ui = gamma^(rank - 1)``, 0 for items not in the list, E its mean.

    The same for all lists of k items: it says nothing about a model whose lists are full.
    """
    exposed = torch.where(lists >= 0, _patience(lists, gamma), 0.0)
    even = _even(lists, num_items, gamma)
    total = (exposed**2).sum(1) - 2 * even * exposed.sum(1) + num_items * even**2
    return float(total.mean() / num_items)


def all_disparity(lists: Tensor, num_items: int, gamma: float = GAMMA) -> float:
    """AI-D ``mean_i (mean_u E_ui - E)^2``: how far each item's mean exposure is from the even one; 0 is fair."""
    there = lists >= 0
    exposed = torch.zeros(num_items, dtype=torch.float64, device=lists.device)
    exposed = exposed.index_add(0, lists[there], _patience(lists, gamma).expand(lists.shape)[there]) / len(lists)
    return float(((exposed - _even(lists, num_items, gamma)) ** 2).mean())
