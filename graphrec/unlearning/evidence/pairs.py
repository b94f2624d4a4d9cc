"""The pairs of users and items that the evidence is taken from, and how they were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.evaluation.user_items import UserItems
from graphrec.randomness import derive, hash_integers, hash_uniform
from graphrec.unlearning.evidence.views import View

TRIES = 64
WINDOW = 0.05
MIN_CONTROLS = 50


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs: users (P,) and items (P,) int64, numbered as in the dataset."""

    users: Tensor
    items: Tensor

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, which: Tensor | slice) -> PairSet:
        return PairSet(self.users[which], self.items[which])

    @classmethod
    def empty(cls) -> PairSet:
        """No pair."""
        none = torch.empty(0, dtype=torch.int64)
        return cls(none, none)

    @classmethod
    def joined(cls, sets: Sequence[PairSet]) -> PairSet:
        """One after another."""
        if not sets:
            return cls.empty()
        return cls(torch.cat([one.users for one in sets]), torch.cat([one.items for one in sets]))

    def sampled(self, most: int, seed: int, purpose: str) -> PairSet:
        """At most ``most`` of them; whether a pair is among them depends on the pair, not on the others' order."""
        if len(self) <= most:
            return self
        draw = hash_uniform(derive(seed, purpose), self.users, self.items)
        return self[draw.argsort(stable=True)[:most].sort().values]


@dataclass(frozen=True, eq=False)
class Populations:
    """The pairs that are looked at.

    Attributes:
        forgotten: F, training pairs that the request takes away and that every model has rows for.
        held_out: true interactions that no model was trained on, of the same users where there are some: the control
            of the membership attacks.
        matched: N, for each forgotten pair an item of about the same popularity that its user never met.
        random: non-edges drawn evenly.
        kept: P, training pairs that stay.
        others: true interactions that no model was trained on, of other users: what an attacker may know.
        asked: forgotten training pairs in all.
        unscorable: those of them that some model has no row for.
        same_users: controls whose user is one of the forgotten pairs'.
    """

    forgotten: PairSet
    held_out: PairSet
    matched: PairSet
    random: PairSet
    kept: PairSet
    others: PairSet
    asked: int
    unscorable: int
    same_users: int

    NAMES = ("forgotten", "held_out", "matched", "random", "kept", "others")

    def joined(self) -> tuple[PairSet, dict[str, slice]]:
        """All of them as one, and where each is."""
        sets = [getattr(self, name) for name in self.NAMES]
        ends = np.cumsum([len(one) for one in sets]).tolist()
        starts = [0, *ends[:-1]]
        return PairSet.joined(sets), {
            name: slice(start, stop) for name, start, stop in zip(self.NAMES, starts, ends, strict=True)
        }


def pair_set(data: RecDataset, part: str | None) -> PairSet:
    """The distinct positive pairs of a part."""
    pairs = data.pairs(part)
    return PairSet(torch.as_tensor(pairs.users.copy()), torch.as_tensor(pairs.items.copy()))


def keys_of(pairs: PairSet, num_items: int) -> Tensor:
    """(P,) int64, one number for each pair."""
    return pairs.users * num_items + pairs.items


def populations(
    data: RecDataset, left: RecDataset, views: Sequence[View], *, max_pairs: int = 20_000, seed: int = 0
) -> Populations:
    """Choose the pairs.

    Args:
        data: with what is to be forgotten.
        left: without it, on the same id tables.
        views: every model; pairs that one of them has no row for are left out.
        max_pairs: the most of each kind.
        seed: of the draws, each a hash of the pair it is for.
    """
    size = data.num_items
    before, after = pair_set(data, "train"), pair_set(left, "train")
    # A pair that keeps another training edge (another time, say) is still what the model is trained on.
    gone = before[~torch.isin(keys_of(before, size), keys_of(after, size))]
    user_there = torch.stack([one.users >= 0 for one in views]).all(0)
    item_there = torch.stack([one.items >= 0 for one in views]).all(0)

    def there(pairs: PairSet) -> PairSet:
        return pairs[user_there[pairs.users] & item_there[pairs.items]]

    forgotten = there(gone)
    unscorable = len(gone) - len(forgotten)
    forgotten = forgotten.sampled(max_pairs, seed, "evidence/forgotten")
    own_users = torch.zeros(data.num_users, dtype=torch.bool)
    own_users[forgotten.users] = True
    later = [name for name in data.parts if name != "train"]
    held = pair_set(data, "+".join(later)) if later else PairSet.empty()
    held = there(held[~torch.isin(keys_of(held, size), keys_of(before, size))])
    own = held[own_users[held.users]]
    rest = held[~own_users[held.users]]
    same = min(len(own), max_pairs)
    controls = own.sampled(max_pairs, seed, "evidence/controls")
    if len(forgotten) and len(controls) < MIN_CONTROLS:
        # Too few of their own: pairs of the users whose activity is nearest.
        activity = torch.as_tensor(np.diff(data.pairs("train").indptr))
        typical = activity[forgotten.users].double().median()
        far = (activity[rest.users].double() - typical).abs()
        near = far.argsort(stable=True)[: MIN_CONTROLS - len(controls)]
        chosen = torch.zeros(len(rest), dtype=torch.bool)
        chosen[near] = True
        controls, rest = PairSet.joined([controls, rest[chosen]]), rest[~chosen]
    known = UserItems.of(data.pairs(None))
    return Populations(
        forgotten=forgotten,
        held_out=controls if len(forgotten) else PairSet.empty(),
        matched=there(matched_non_edges(data, forgotten, known, seed)),
        random=there(random_non_edges(data, max(min(4 * len(forgotten), max_pairs), 2000), known, seed)),
        kept=there(after).sampled(min(max(len(forgotten), 2000), max_pairs), seed, "evidence/kept"),
        others=rest.sampled(max_pairs, seed, "evidence/others"),
        asked=len(gone),
        unscorable=unscorable,
        same_users=same if len(forgotten) else 0,
    )


def _first_unknown(users: Tensor, candidates: Tensor, known: UserItems, num_items: int) -> PairSet:
    """For each user (P,) the first of the candidates (P, T) that is none of the user's items; pairs without go."""
    free = ~known.contains(users, candidates, num_items)
    first = free.int().argmax(1)
    found = free.any(1)
    items = candidates.gather(1, first[:, None]).squeeze(1)
    return PairSet(users[found], items[found])


def matched_non_edges(data: RecDataset, pairs: PairSet, known: UserItems, seed: int) -> PairSet:
    """For each pair an item that its user never met, among the 5 % of items nearest in popularity (at least 20)."""
    size = data.num_items
    popularity = torch.as_tensor(np.bincount(data.pairs("train").items, minlength=size))
    order = popularity.argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(size)
    width = min(max(round(WINDOW * size), 20), size)
    start = (place[pairs.items] - width // 2).clamp(min=0, max=size - width)
    draw = hash_integers(
        derive(seed, "evidence/matched"), width, pairs.users[:, None], pairs.items[:, None], torch.arange(TRIES)
    )
    return _first_unknown(pairs.users, order[start[:, None] + draw], known, size)


def random_non_edges(data: RecDataset, count: int, known: UserItems, seed: int) -> PairSet:
    """About ``count`` distinct pairs that are in no part of the data, drawn evenly."""
    numbers = torch.arange(count)
    users = hash_integers(derive(seed, "evidence/random users"), data.num_users, numbers)
    items = hash_integers(
        derive(seed, "evidence/random items"), data.num_items, numbers[:, None], torch.arange(TRIES // 8)
    )
    found = _first_unknown(users, items, known, data.num_items)
    once = keys_of(found, data.num_items).unique()
    return PairSet(once // data.num_items, once % data.num_items)
