"""What the lists are like beyond their hits: how much of the catalogue they show, how popular, how new, how varied.

Lists are (B, k) int64 item numbers, -1 where a list is shorter. n is the number of items of the catalogue (or of the
candidates where these were chosen), c_i the number of lists with item i, S = sum c_i.
"""

from __future__ import annotations

import torch
from torch import Tensor

TAIL_SHARE = 0.2
"""The tail: the least popular items that together hold this share of the training interactions."""


def exposure(lists: Tensor, num_items: int) -> Tensor:
    """c (n,) int64, the number of lists that contain each item."""
    return torch.bincount(lists[lists >= 0], minlength=num_items)


def coverage(counts: Tensor) -> float:
    """Share of the items that are in at least one list, ``|{i: c_i > 0}| / n``."""
    return float((counts > 0).double().mean())


def user_coverage(lists: Tensor) -> float:
    """Share of the users who get at least one item."""
    return float((lists >= 0).any(1).double().mean())


def gini(counts: Tensor) -> float:
    """Gini index of the exposure, ``sum_j (2 j - n - 1) c_(j) / (n S)``, c ascending, zeros included; 0 is equal.

    >>> gini(torch.tensor([2, 2, 2])), gini(torch.tensor([0, 0, 6]))
    (0.0, 0.6666666666666666)
    """
    size = len(counts)
    total = float(counts.sum())
    if total == 0:
        return float("nan")
    rank = torch.arange(1, size + 1, dtype=torch.float64, device=counts.device)
    return float(((2 * rank - size - 1) * counts.double().sort().values).sum() / (size * total))


def entropy(counts: Tensor) -> float:
    """Shannon entropy of the exposure in nats, ``-sum p_i ln p_i`` with p = c / S and 0 ln 0 = 0."""
    total = float(counts.sum())
    if total == 0:
        return float("nan")
    share = counts[counts > 0].double() / total
    return float(-(share * share.log()).sum())


def mean_of(values: Tensor, lists: Tensor) -> Tensor:
    """Mean of a value of the items (n,) over each list: (B,) float64, NaN for an empty list."""
    there = lists >= 0
    found = torch.where(there, values.double()[lists.clamp(min=0)], 0.0)
    return found.sum(1) / there.sum(1)


def average_popularity(lists: Tensor, popularity: Tensor) -> Tensor:
    """Mean training count of the items of each list (ARP): (B,) float64."""
    return mean_of(popularity, lists)


def tail_items(popularity: Tensor, share: float = TAIL_SHARE) -> Tensor:
    """The long tail: the items outside the head, which is the fewest items that hold ``1 - share`` of the interactions.

    Items of equal popularity at the edge go by number, the smaller ones into the head; items that were never seen
    belong to the tail.

    Returns:
        (n,) bool.
    """
    order = popularity.argsort(descending=True, stable=True)
    before = popularity[order].double().cumsum(0) - popularity[order]
    tail = torch.ones(len(popularity), dtype=torch.bool, device=popularity.device)
    head = (before < (1 - share) * popularity.sum()) & (popularity[order] > 0)
    tail[order[head]] = False
    return tail


def tail_share(lists: Tensor, tail: Tensor) -> Tensor:
    """Share of tail items in each list (APLT): (B,) float64."""
    return mean_of(tail, lists)


def tail_count(lists: Tensor, tail: Tensor) -> Tensor:
    """Number of tail items in each list (ACLT): (B,) float64."""
    return (tail[lists.clamp(min=0)] & (lists >= 0)).sum(1).double()


def novelty(lists: Tensor, popularity: Tensor, num_users: int) -> Tensor:
    """Mean self-information of each list, ``-log2(max(count_i, 1) / |U|)``: (B,) float64.

    Items without a training interaction count as if they had one.
    """
    information = -(popularity.clamp(min=1).double() / num_users).log2()
    return mean_of(information, lists)


def diversity(lists: Tensor, features: Tensor, *, block: int = 4096) -> Tensor:
    """Intra-list diversity ``2 / (k (k - 1)) sum_{j < l} (1 - cos(x_j, x_l))``: (B,) float64.

    The sum of the cosines of all pairs comes from the norm of the sum of the unit vectors, so no (k x k) matrix is
    made.

    Args:
        lists: (B, k).
        features: (n, D) the features that similarity is stated on; a row of zeros is like nothing.
        block: lists at a time.

    Returns:
        NaN for lists of fewer than two items.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    own = (unit * unit).sum(1)
    parts = []
    for part in lists.split(block):
        there = (part >= 0)[:, :, None]
        vectors = torch.where(there, unit[part.clamp(min=0)], 0.0)
        total = vectors.sum(1)
        self_similarity = torch.where(part >= 0, own[part.clamp(min=0)], 0.0).sum(1)
        size = (part >= 0).sum(1).double()
        pairs = size * (size - 1)
        similar = (total * total).sum(1) - self_similarity
        parts.append(torch.where(pairs > 0, 1 - similar / pairs, torch.nan))
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def personalisation(lists: Tensor, *, pairs: int = 100_000, seed: int = 0) -> float:
    """``1 -`` mean Jaccard similarity of the lists of two users, over all pairs or ``pairs`` drawn ones."""
    size = len(lists)
    if size < 2:
        return float("nan")
    if size * (size - 1) // 2 <= pairs:
        first, second = torch.triu_indices(size, size, 1, device=lists.device)
    else:
        generator = torch.Generator().manual_seed(seed)
        first = torch.randint(size, (pairs,), generator=generator).to(lists.device)
        second = torch.randint(size - 1, (pairs,), generator=generator).to(lists.device)
        second = second + (second >= first).long()
    total = 0.0
    for a, b in zip(first.split(8192), second.split(8192), strict=True):
        left, right = lists[a], lists[b]
        # Within one row of both lists, an item that occurs twice is in both.
        both = torch.where(left < 0, -1, left)
        other = torch.where(right < 0, -2, right)
        joined = torch.cat([both, other], 1).sort(1).values
        common = ((joined[:, 1:] == joined[:, :-1]) & (joined[:, 1:] >= 0)).sum(1).double()
        union = (left >= 0).sum(1) + (right >= 0).sum(1) - common
        total += float((common / union.clamp(min=1)).sum())
    return 1 - total / len(first)
