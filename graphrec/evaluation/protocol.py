"""What an evaluation ranks and against what: its users, their truth, what is left out, and the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.evaluation.user_items import UserItems

Mask = Literal["train", "train+valid", "none"]
Cold = Literal["keep", "drop"]
Candidates = Literal["all", "seen", "cold"] | Tensor | np.ndarray | Sequence[int]


@dataclass(frozen=True)
class Protocol:
    """Who is evaluated and how.

    Attributes:
        split: the part that holds the truth.
        mask: what is left out of the ranking.
        cold: what happens to users and items without a training edge.
        candidates: in words: ``all``, ``seen``, ``cold``, ``given``.
        users: (B,) int64, the users with truth, ascending.
        truth: items of each user (U+1 rows) that count as hits.
        exclude: items of each user that are left out; None: none.
        items: (P,) int64 ascending, the candidates; None: all.
        num_items: items in the catalogue, or candidates.
        popularity: (I,) int64, training interactions of each item.
        activity: (U,) int64, training interactions of each user.
        skipped_users: users without truth.
        dropped_users: users that had truth and were dropped as cold.
        dropped_truth: relevant pairs that do not count because their item is cold and dropped, or no candidate.
    """

    split: str
    mask: str
    cold: str
    candidates: str
    users: Tensor
    truth: UserItems
    exclude: UserItems | None
    items: Tensor | None
    num_items: int
    popularity: Tensor
    activity: Tensor
    skipped_users: int
    dropped_users: int
    dropped_truth: int


def protocol(
    data: RecDataset,
    *,
    split: str,
    mask: str,
    cold: str,
    candidates: Candidates,
) -> Protocol:
    """Work out users, truth, mask and candidates.

    Args:
        data: the dataset.
        split: ``train``, ``valid`` or ``test``.
        mask: ``train``, ``train+valid`` or ``none``.
        cold: ``keep``, or ``drop`` users and items without a training edge from the truth.
        candidates: ``all`` items; those ``seen`` in training (with a split by time: the items that existed before);
            ``cold`` ones only, that no training edge touches; or item numbers. Truth outside does not count.
    """
    for name, value, choices in (
        ("mask", mask, ("train", "train+valid", "none")),
        ("policy for cold users and items", cold, ("keep", "drop")),
    ):
        if value not in choices:
            raise unknown(name, value, choices)
    if split not in data.parts:
        raise InputError(
            f"dataset {data.name!r} has no part {split!r}; it has {', '.join(data.parts)}. "
            "Pass split= to load, as in split='random:.8,.1,.1'."
        )
    if split in mask.split("+"):
        raise InputError(f"mask {mask!r} would leave out the very items of split {split!r} that should be found.")
    train = data.pairs("train")
    num_users, num_items = data.num_users, data.num_items
    activity = np.diff(train.indptr)
    popularity = np.bincount(train.items, minlength=num_items)
    truth = data.pairs(split)
    user, item = truth.users, truth.items
    had = np.zeros(num_users, dtype=bool)
    had[user] = True
    keep = np.ones(len(item), dtype=bool)
    if cold == "drop":
        keep &= (activity[user] > 0) & (popularity[item] > 0)
    chosen, word = _candidates(candidates, popularity)
    if chosen is not None:
        allowed = np.zeros(num_items, dtype=bool)
        allowed[chosen] = True
        keep &= allowed[item]
    user, item = user[keep], item[keep]
    counts = np.bincount(user, minlength=num_users)
    users = np.flatnonzero(counts)
    cold_users = int(((activity == 0) & had).sum()) if cold == "drop" else 0
    exclude = None
    if mask != "none":
        known = train if mask == "train" or "valid" not in data.parts else data.pairs("train+valid")
        exclude = UserItems.of(known)
    return Protocol(
        split=split,
        mask=mask,
        cold=cold,
        candidates=word,
        users=torch.as_tensor(users),
        truth=UserItems(
            torch.as_tensor(np.concatenate([[0], counts.cumsum()]), dtype=torch.int64), torch.as_tensor(item)
        ),
        exclude=exclude,
        items=None if chosen is None else torch.as_tensor(chosen),
        num_items=num_items if chosen is None else len(chosen),
        popularity=torch.as_tensor(popularity),
        activity=torch.as_tensor(activity),
        skipped_users=num_users - len(users) - cold_users,
        dropped_users=cold_users,
        dropped_truth=int((~keep).sum()),
    )


def _candidates(candidates: Candidates, popularity: np.ndarray) -> tuple[np.ndarray | None, str]:
    if isinstance(candidates, str):
        if candidates == "all":
            return None, candidates
        if candidates in ("seen", "cold"):
            chosen = np.flatnonzero((popularity > 0) == (candidates == "seen"))
        else:
            raise unknown("set of candidates", candidates, ("all", "seen", "cold"))
        word: str = candidates
    else:
        chosen = np.unique(np.asarray(candidates, dtype=np.int64))
        word = "given"
        wrong = chosen[(chosen < 0) | (chosen >= len(popularity))]
        if len(wrong):
            raise InputError(f"candidate item number {wrong[0]} does not exist: there are {len(popularity)} items.")
    if len(chosen) == 0:
        raise InputError(f"candidates={word!r} leaves no item to rank.")
    return chosen, word
