"""What an evaluation found: metrics by key, the values of each user, the lists, and metrics of groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from graphrec.evaluation.groups import equal_total_groups
from graphrec.evaluation.measured import Measured
from graphrec.evaluation.protocol import Protocol


@dataclass(frozen=True, eq=False)
class Evaluation(Measured):
    """Metrics by lower-case key (``recall@20``), and everything that says what they mean.

    Attributes:
        metrics: the values by key.
        protocol: users, truth, mask and candidates.
        ks: the cut-offs.
        per_user: a row for each evaluated user: ``user`` (raw id), ``truth`` and ``train`` (numbers of items), and the
            metrics that each user has a value of; its metadata names split, mask and what else has to be equal in a
            comparison.
        lists: (B, K) int64 item numbers of the longest lists, -1 where a list is shorter.
        scores: (B, K) their scores.
        hits: (B, K) bool.
        tie_rate: share of the users with equal scores among the first K + 1.
        seconds: how long scoring, ranking and measuring took.
        sampled_negatives: drawn negatives of each user where the ranking was not full.
    """

    metrics: dict[str, float]
    protocol: Protocol
    ks: tuple[int, ...]
    per_user: pa.Table
    lists: Tensor
    scores: Tensor
    hits: Tensor
    tie_rate: float
    seconds: float
    sampled_negatives: int | None = None

    def __repr__(self) -> str:
        return self._told(f"{self.split}, {self.num_users:,} users, mask {self.mask}")

    @property
    def split(self) -> str:
        """The part that was evaluated."""
        return self.protocol.split

    @property
    def mask(self) -> str:
        """What was left out of the ranking."""
        return self.protocol.mask

    @property
    def num_users(self) -> int:
        """Users with truth, over whom metrics are means."""
        return len(self.protocol.users)

    def _facts(self) -> dict[str, Any]:
        protocol = self.protocol
        extra: dict[str, Any] = {
            "num_users": self.num_users,
            "skipped_users": protocol.skipped_users,
            "split": protocol.split,
            "mask": protocol.mask,
            "candidates": protocol.candidates,
            "cold": protocol.cold,
            "tie_rate": self.tie_rate,
            "seconds": self.seconds,
        }
        if protocol.dropped_users or protocol.dropped_truth:
            extra |= {"dropped_users": protocol.dropped_users, "dropped_truth": protocol.dropped_truth}
        if self.sampled_negatives is not None:
            extra["sampled_negatives"] = self.sampled_negatives
        return extra

    def by_activity(self, groups: int = 4) -> pd.DataFrame:
        """Means of the per-user metrics for groups of users by activity.

        Users are sorted by their number of interactions (training and truth) and cut into groups of about equal
        totals of interactions (NGCF, KGAT).

        Returns:
            A row for each group: ``group``, ``from`` and ``to`` (interactions), ``users``, and the metrics.
        """
        frame = self.per_user.to_pandas()
        return by_activity(frame, groups)

    def by_popularity(self, groups: int = 4) -> pd.DataFrame:
        """Recall of groups of items by popularity.

        Items are sorted by training count and cut into groups of about equal totals of interactions.

        Returns:
            A row for each group: ``group``, ``from`` and ``to`` (training count), ``items``, ``relevant`` (pairs in the
            truth), and for each cut-off ``recall@k``, found pairs over relevant ones, and ``share@k``, the group's
            share of the lists.
        """
        return by_popularity(self.protocol, self.lists, self.hits, self.ks, groups)


def by_activity(per_user: pd.DataFrame, groups: int = 4) -> pd.DataFrame:
    """:meth:`Evaluation.by_activity` from a table of per-user metrics."""
    activity = per_user["truth"] + per_user["train"]
    label = equal_total_groups(torch.as_tensor(activity.to_numpy(copy=True)), groups).numpy()
    names = [name for name in per_user.columns if name not in ("user", "truth", "train")]
    rows = []
    for group in range(groups):
        part = per_user[label == group]
        low, high = (activity[label == group].min(), activity[label == group].max()) if len(part) else (0, 0)
        means = {name: float(part[name].mean()) for name in names}
        rows.append({"group": group + 1, "from": int(low), "to": int(high), "users": len(part), **means})
    return pd.DataFrame(rows)


def by_popularity(plan: Protocol, lists: Tensor, hits: Tensor, ks: Sequence[int], groups: int = 4) -> pd.DataFrame:
    """:meth:`Evaluation.by_popularity` from lists and hits (B, K)."""
    popularity = plan.popularity
    label = equal_total_groups(popularity, groups)
    _, relevant = plan.truth.gather(plan.users)
    counts = torch.bincount(label[relevant], minlength=groups).double()
    frame = pd.DataFrame({"group": range(1, groups + 1)})
    frame["from"] = [int(popularity[label == g].min()) if (label == g).any() else 0 for g in range(groups)]
    frame["to"] = [int(popularity[label == g].max()) if (label == g).any() else 0 for g in range(groups)]
    frame["items"] = torch.bincount(label, minlength=groups).numpy()
    frame["relevant"] = counts.long().numpy()
    for k in ks:
        short, hit = lists[:, :k], hits[:, :k]
        found = torch.bincount(label[short[hit]], minlength=groups).double()
        shown = torch.bincount(label[short[short >= 0]], minlength=groups).double()
        frame[f"recall@{k}"] = (found / counts).numpy()
        frame[f"share@{k}"] = (shown / shown.sum()).numpy()
    return frame
