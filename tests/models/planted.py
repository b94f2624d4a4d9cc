"""A small dataset with planted taste: groups of users that like groups of items, and items that everybody meets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset


def choices(
    num_users: int, num_items: int, groups: int, per_user: int, loyalty: float, seed: int
) -> tuple[list[int], list[int], list[str]]:
    """User, item and part of each interaction: a share ``loyalty`` within the user's own group, three for the test."""
    draws = np.random.default_rng(seed)
    users, items, parts = [], [], []
    group_of_item = np.arange(num_items) % groups
    popularity = 1.0 / (1 + np.arange(num_items) // groups) ** 0.6
    for user in range(num_users):
        appeal = popularity * np.where(group_of_item == user % groups, loyalty, (1 - loyalty) / (groups - 1))
        taken = draws.choice(num_items, size=per_user, replace=False, p=appeal / appeal.sum())
        users += [user] * per_user
        items += taken.tolist()
        parts += ["test"] * 3 + ["train"] * (per_user - 3)
    return users, items, parts


def planted(
    num_users: int = 160,
    num_items: int = 80,
    groups: int = 4,
    per_user: int = 12,
    loyalty: float = 0.85,
    seed: int = 0,
    user_ids: np.ndarray | None = None,
    item_ids: np.ndarray | None = None,
) -> RecDataset:
    """Each user takes ``per_user`` items, a share ``loyalty`` of them from the own group, three of them for the test.

    ``user_ids`` and ``item_ids`` give the raw ids, so that the same content can be had under permuted ids.
    """
    users, items, parts = choices(num_users, num_items, groups, per_user, loyalty, seed)
    user_ids = np.arange(num_users) if user_ids is None else user_ids
    item_ids = np.arange(num_items) if item_ids is None else item_ids
    builder = Builder()
    builder.nodes("user", user_ids)
    builder.nodes("item", item_ids)
    frame = pd.DataFrame({"user": user_ids[users], "item": item_ids[items], "part": parts})
    builder.interactions(frame, user="user", item="item", part="part")
    return builder.build()
