"""How well the model serves those who stay: metrics of their lists, by how near they are to what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.evaluation.comparison import bootstrap
from graphrec.evaluation.protocol import protocol
from graphrec.evaluation.ranking import rank
from graphrec.evaluation.specs import Lists, measure, resolve
from graphrec.evaluation.user_items import UserItems
from graphrec.unlearning.evidence.measures import RETRAINED, UNLEARNED, Measure, Row, mean_and_sd, measured
from graphrec.unlearning.evidence.pairs import PairSet, keys_of, pair_set
from graphrec.unlearning.evidence.views import View

HOPS = 3
METRICS = ("recall", "ndcg", "hit_rate", "mrr")


@dataclass(frozen=True, eq=False)
class Stayed:
    """The users who stay and what they are measured on.

    Attributes:
        users: (B,) int64, users with a remaining training edge that every model has a row for.
        groups: (B,) bool by name: ``all``; ``own`` lost a pair of their own; ``touched`` lost one or share an item
            with a forgotten pair; ``near`` within 3 hops of a forgotten pair's ends, touched ones left out; ``far``.
        truth: their remaining test items.
        has_truth: (B,) bool.
        exclude: their remaining training items.
        emptied: users who are in the table and have no training edge left.
    """

    users: Tensor
    groups: Mapping[str, Tensor]
    truth: UserItems
    has_truth: Tensor
    exclude: UserItems
    emptied: int


def distance_to(data: RecDataset, pairs: PairSet, hops: int = HOPS) -> Tensor:
    """(U,) int64: steps from each user to the nearest end of a pair over training edges, ``hops`` + 1 for more."""
    known = UserItems.of(data.pairs("train"))
    users = torch.arange(data.num_users).repeat_interleave(known.counts())
    user_at = torch.full((data.num_users,), hops + 1)
    item_at = torch.full((data.num_items,), hops + 1)
    user_at[pairs.users], item_at[pairs.items] = 0, 0
    for _ in range(hops):
        next_user = user_at.scatter_reduce(0, users, item_at[known.items] + 1, "amin")
        item_at = item_at.scatter_reduce(0, known.items, user_at[users] + 1, "amin")
        user_at = next_user
    return user_at


def stayed(data: RecDataset, left: RecDataset, gone: PairSet, views: Sequence[View], split: str = "test") -> Stayed:
    """Who stays, grouped.

    Args:
        data: with what is to be forgotten.
        left: without it.
        gone: forgotten training pairs.
        views: every model.
        split: the part that holds the truth.
    """
    counts = np.diff(left.pairs("train").indptr)
    there = torch.stack([one.users >= 0 for one in views]).all(0)
    users = torch.as_tensor(counts > 0).logical_and(there).nonzero().flatten()
    steps = distance_to(data, gone)[users]
    own = torch.zeros(data.num_users, dtype=torch.bool)
    own[gone.users] = True
    groups = {
        "all": torch.ones(len(users), dtype=torch.bool),
        "own": own[users],
        "touched": steps <= 1,
        "near": (steps > 1) & (steps <= HOPS),
        "far": steps > HOPS,
    }
    if split in left.parts:
        plan = protocol(left, split=split, mask="train", cold="keep", candidates="all")
        truth = plan.truth
    else:
        truth = UserItems(torch.zeros(data.num_users + 1, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    exclude = UserItems.of(left.pairs("train"))
    emptied = int(((counts == 0) & (np.diff(data.pairs("train").indptr) > 0)).sum())
    return Stayed(users, groups, truth, truth.counts(users) > 0, exclude, emptied)


def with_pairs(known: UserItems, pairs: PairSet, num_items: int) -> UserItems:
    """Items of each user with those of some pairs added."""
    users = torch.arange(len(known)).repeat_interleave(known.counts())
    keys = torch.cat([keys_of(PairSet(users, known.items), num_items), keys_of(pairs, num_items)]).unique()
    counts = torch.bincount(keys // num_items, minlength=len(known))
    return UserItems(torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]), keys % num_items)


def forgotten_pairs(data: RecDataset, left: RecDataset) -> PairSet:
    """Training pairs of ``data`` that ``left`` has no more."""
    before, after = pair_set(data, "train"), pair_set(left, "train")
    return before[~torch.isin(keys_of(before, data.num_items), keys_of(after, data.num_items))]


def lists_of(view: View, who: Stayed, k: int, exclude: UserItems | None = None) -> Tensor:
    """(B, k) int64, the best items of those who stay; their remaining training items (or ``exclude``) are left out."""
    return rank(view.scores, who.users, k, who.exclude if exclude is None else exclude)[0].cpu()


def per_user(lists: Tensor, who: Stayed, ks: Sequence[int], num_items: int) -> dict[str, Tensor]:
    """Recall, NDCG, hit rate and MRR of each user with truth, (T,) float64 by key."""
    users = who.users[who.has_truth]
    hits = who.truth.contains(users, lists[who.has_truth], num_items)
    truth = who.truth.counts(users)

    def no_lists(k: int) -> Lists:
        return Lists(lists[:, :k], num_items, torch.empty(0), len(users), torch.empty(0, dtype=torch.bool))

    return measure(resolve(METRICS), hits, truth, sorted(ks), no_lists)[1]


def utility_measures(
    values: Mapping[Row, Sequence[Mapping[str, Tensor]]], who: Stayed, *, draws: int = 1000, seed: int = 0
) -> list[Measure]:
    """Means by row and group, with bootstrap intervals over users.

    Also ``difference/…`` of the unlearned row: the mean over users of its value minus the retrained models' mean, with
    its paired interval.

    Args:
        values: of :func:`per_user`, for each model of each row.
        who: those who stay.
        draws: resamples.
        seed: of the resamples.
    """
    out: list[Measure] = []
    keys = next((list(model) for models in values.values() for model in models), [])
    for group, member in who.groups.items():
        inside = member[who.has_truth]
        count = int(inside.sum())
        if not count:
            continue
        rows = list(values)
        table = {key: {row: torch.stack([model[key][inside] for model in values[row]]) for row in rows} for key in keys}
        columns = [table[key][row].mean(0) for key in keys for row in rows]
        paired = [key for key in keys if UNLEARNED in rows and RETRAINED in rows]
        columns += [table[key][UNLEARNED].mean(0) - table[key][RETRAINED].mean(0) for key in paired]
        low, high = bootstrap(torch.stack(columns, 1).numpy(), resamples=draws, seed=seed)
        ends = list(zip(low.tolist(), high.tolist(), strict=True))
        for n, key in enumerate(keys):
            means = {row: table[key][row].mean(1).tolist() for row in rows}
            intervals = dict(zip(rows, ends[n * len(rows) : (n + 1) * len(rows)], strict=True))
            out += measured("utility", key, means, group=group, count=count, intervals=intervals)
        for n, key in enumerate(paired):
            gap = float((table[key][UNLEARNED].mean(0) - table[key][RETRAINED].mean(0)).mean())
            _, sd = mean_and_sd(table[key][RETRAINED].mean(1).tolist())
            interval = ends[len(keys) * len(rows) + n]
            in_sd = gap / sd if sd > 0 else float("nan")
            out.append(
                Measure(
                    "utility", f"difference/{key}", UNLEARNED, gap, group, float("nan"), *interval, count, 1, gap, in_sd
                )
            )
    return out
