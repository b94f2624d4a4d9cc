"""Accuracy metrics of ranked lists, as pure functions on (users x K) hit matrices, for all cut-offs at once.

Every function of lists takes

- ``hits``: (B, K) bool, whether the item at each rank belongs to the user's truth; K is the longest list that was made;
- ``truth``: (B,) int64, how many items the truth of each user has, at least 1;
- ``ks``: the cut-offs, each at most K;

and gives (B, len(ks)) float64, a value for each user; the metric of a model is their mean over users. Users without
truth have no value and are left out before. h is the number of hits among the first k, T the user's truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _at(values: Tensor, ks: Sequence[int]) -> Tensor:
    return values[:, torch.as_tensor([k - 1 for k in ks], device=values.device)]


def _found(hits: Tensor, ks: Sequence[int]) -> Tensor:
    return _at(hits.cumsum(1), ks).double()


def _cut(ks: Sequence[int], like: Tensor) -> Tensor:
    return torch.as_tensor(list(ks), dtype=torch.float64, device=like.device)


def recall(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Recall ``h / |T|``; a user with more than k relevant items cannot reach 1.

    >>> recall(torch.tensor([[True, False, True]]), torch.tensor([4]), [1, 3]).tolist()
    [[0.25, 0.5]]
    """
    return _found(hits, ks) / truth[:, None]


def capped_recall(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Recall out of what a list can hold, ``h / min(k, |T|)``."""
    return _found(hits, ks) / torch.minimum(_cut(ks, hits), truth[:, None])


def micro_recall(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Each user's part in the micro recall ``sum h / sum |T|``: ``h B / sum |T|``, so that the mean over users is it.

    MMRec's ``recall2`` and SELFRec's "Hit Ratio". The values depend on all users of the call.
    """
    return _found(hits, ks) * (len(hits) / truth.sum().double().clamp(min=1))


def precision(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Precision ``h / k``, also where the list is shorter than k."""
    return _found(hits, ks) / _cut(ks, hits)


def hit_rate(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """1 where at least one of the first k is relevant."""
    return (_found(hits, ks) > 0).double()


def f1(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Harmonic mean of the user's precision and recall, ``2 h / (k + |T|)`` (taken per user, then averaged)."""
    return 2 * _found(hits, ks) / (_cut(ks, hits) + truth[:, None])


def mrr(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Reciprocal rank of the first hit, 0 where there is none among the first k."""
    first = hits.to(torch.int8).argmax(1)
    value = torch.where(hits.any(1), 1.0 / (first + 1).double(), 0.0)
    return torch.where((first[:, None] + 1) <= _cut(ks, hits), value[:, None], 0.0)


def _average_precision(hits: Tensor, ks: Sequence[int]) -> Tensor:
    ranks = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    return _at((hits * hits.cumsum(1) / ranks).cumsum(1), ks)


def average_precision(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Average precision ``sum_j rel_j h_j / j`` over ``min(|T|, k)`` (RecBole, MMRec, SGL-Torch)."""
    return _average_precision(hits, ks) / torch.minimum(_cut(ks, hits), truth[:, None])


def average_precision_truth(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Average precision over ``|T|`` (LightGCN's TensorFlow code)."""
    return _average_precision(hits, ks) / truth[:, None]


def average_precision_hits(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Average precision over ``min(k, h)``, the number of hits (NGCF's and KGAT's code); larger than the others."""
    return _average_precision(hits, ks) / _found(hits, ks).clamp(min=1)


def _discounts(size: int, like: Tensor) -> Tensor:
    return 1.0 / torch.log2(torch.arange(2, size + 2, dtype=torch.float64, device=like.device))


def dcg(hits: Tensor, ks: Sequence[int]) -> Tensor:
    """Discounted cumulative gain ``sum_j rel_j / log2(j + 1)``."""
    return _at((hits * _discounts(hits.shape[1], hits)).cumsum(1), ks)


def _ideal(relevant: Tensor, ks: Sequence[int]) -> Tensor:
    """DCG of a list that starts with ``min(k, relevant)`` hits; ``relevant`` is (B,) or (B, len(ks))."""
    relevant = relevant if relevant.dim() == 2 else relevant[:, None].expand(-1, len(ks))
    gains = torch.cat([_discounts(1, relevant) * 0, _discounts(max(ks), relevant).cumsum(0)])
    return gains[torch.minimum(relevant, _cut(ks, relevant)).long()]


def ndcg(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """NDCG with the ideal from the truth: ``DCG / sum_{j <= min(k, |T|)} 1 / log2(j + 1)``.

    The convention of LightGCN, KGIN, RecBole, MMRec, SSLRec and SELFRec. ``ndcg <= ndcg_hit_kmax <= ndcg_hit``.

    >>> ndcg(torch.tensor([[True, True, False], [False, True, False]]), torch.tensor([2, 1]), [3]).tolist()
    [[1.0], [0.6309297535714575]]
    """
    return dcg(hits, ks) / _ideal(truth, ks)


def ndcg_hit_kmax(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """NDCG with the ideal of ``min(k, h_K)`` hits, K the longest list made (NGCF's and KGAT's code): depends on K."""
    return _over(dcg(hits, ks), _ideal(hits.sum(1), ks))


def ndcg_hit(hits: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """NDCG with the ideal of ``min(k, h)`` hits (the same code run with a single k); 0 where there is no hit."""
    return _over(dcg(hits, ks), _ideal(_found(hits, ks), ks))


def _over(value: Tensor, ideal: Tensor) -> Tensor:
    return torch.where(ideal > 0, value / ideal.clamp(min=1e-12), 0.0)
