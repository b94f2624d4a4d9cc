"""Small datasets, and slow references written from the definitions, one user and one item at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from graphrec.datasets import Builder
from graphrec.datasets.dataset import RecDataset


def dataset(
    train: Sequence[Sequence[int]],
    test: Sequence[Sequence[int]],
    num_items: int,
    valid: Sequence[Sequence[int]] | None = None,
    features: np.ndarray | None = None,
) -> RecDataset:
    """A dataset whose raw ids are 10 x number for users and 100 + number for items."""
    rows = [
        (10 * user, 100 + item, part)
        for part, lists in (("train", train), ("valid", valid or []), ("test", test))
        for user, items in enumerate(lists)
        for item in items
    ]
    builder = Builder()
    builder.interactions(pd.DataFrame(rows, columns=["user", "item", "part"]), part="part")
    builder.nodes("user", np.arange(len(train)) * 10)
    builder.nodes("item", np.arange(num_items) + 100)
    if features is not None:
        builder.features("item", np.arange(num_items) + 100, features, name="look")
    return builder.build()


def ranking(scores: np.ndarray, excluded: Sequence[int] = ()) -> list[int]:
    """Items by score, equal scores by number; what is excluded or scored -inf is left out."""
    out = set(excluded)
    return sorted(
        (item for item in range(len(scores)) if item not in out and scores[item] > -np.inf),
        key=lambda item: (-scores[item], item),
    )


def _gain(rank: int) -> float:
    return 1 / math.log2(rank + 1)


def reference(ranked: Sequence[int], truth: set[int], k: int, k_max: int) -> dict[str, float]:
    """All metrics of one user from their definitions."""
    top = list(ranked)[:k]
    rel = [int(item in truth) for item in top]
    hits = sum(rel)
    hits_max = sum(int(item in truth) for item in list(ranked)[:k_max])
    precisions = [sum(rel[: j + 1]) / (j + 1) for j in range(len(rel)) if rel[j]]
    dcg = sum(_gain(j + 1) for j in range(len(rel)) if rel[j])

    def ideal(count: int) -> float:
        return sum(_gain(j) for j in range(1, min(k, count) + 1))

    precision, recall = hits / k, hits / len(truth)
    first = next((j + 1 for j in range(len(rel)) if rel[j]), None)
    return {
        "recall": recall,
        "capped_recall": hits / min(k, len(truth)),
        "precision": precision,
        "hit_rate": float(hits > 0),
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "mrr": 1 / first if first else 0.0,
        "map": sum(precisions) / min(len(truth), k),
        "map_truth": sum(precisions) / len(truth),
        "map_hits": sum(precisions) / hits if hits else 0.0,
        "ndcg": dcg / ideal(len(truth)),
        "ndcg_hit": dcg / ideal(hits) if hits else 0.0,
        "ndcg_hit_kmax": dcg / ideal(hits_max) if hits else 0.0,
    }


def reference_auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The share of pairs in the right order, equal ones half."""
    won = [float(p > n) + 0.5 * float(p == n) for p in positive for n in negative]
    return sum(won) / len(won)
