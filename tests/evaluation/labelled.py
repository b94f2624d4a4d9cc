"""A small dataset of labelled pairs with planted taste."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset


def labelled(
    num_users: int = 60,
    num_items: int = 40,
    per_user: int = 10,
    groups: int = 4,
    loyalty: float = 0.9,
    split: str | None = "random_pairs:.6,.2,.2",
    seed: int = 0,
) -> RecDataset:
    """Each user likes ``per_user`` items, most of them of the own group, and dislikes as many others.

    Raw ids are 100, 101, … and i00, i01, …
    """
    draws = np.random.default_rng(seed)
    group = np.arange(num_items) % groups
    rows = []
    for user in range(num_users):
        appeal = np.where(group == user % groups, loyalty, (1 - loyalty) / (groups - 1))
        liked = draws.choice(num_items, size=per_user, replace=False, p=appeal / appeal.sum())
        others = draws.choice(np.setdiff1d(np.arange(num_items), liked), size=per_user, replace=False)
        rows += [(100 + user, f"i{item:02}", 1) for item in liked]
        rows += [(100 + user, f"i{item:02}", 0) for item in others]
    frame = pd.DataFrame(rows, columns=["user", "item", "label"])
    builder = Builder("labelled")
    builder.interactions(frame, user="user", item="item", label="label")
    data = builder.build()
    return data if split is None else data.split(split)
