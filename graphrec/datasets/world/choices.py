"""What users of the seeded world choose, and when: candidates come from shelves, the best liked of them are taken.

A user meets candidates (four for each interaction wanted) on the shelves of favourite topics, of their genres, of
favourite makers, among what the community talks about, and among what is popular everywhere; and takes those with the
highest utility

    u(user, item) = a <taste, place> + b [user follows the item's series] + Gumbel noise,

which is drawing without replacement from a softmax, restricted to the candidates. Time and memory grow with the number
of interactions, not with users x items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphrec.datasets.world.draws import GUMBEL_UNIT, UNIT, Integers, Shelves, bits, gumbels, integers
from graphrec.datasets.world.latent import (
    DIM,
    Communities,
    Items,
    Users,
    activity_table,
    make_communities,
    make_users,
)
from graphrec.datasets.world.words import GENRES

CANDIDATES = 4
"""Candidates met for each interaction wanted."""

TASTE = 2
"""How much utility a unit of <taste, place> gives, in tenths."""

FOLLOWS = GUMBEL_UNIT * 5 // 4
"""Utility of an item whose series the user follows."""

# Per cent of the candidates that come from each kind of shelf; what is left is popular everywhere.
_TOPIC, _GENRE, _COMMUNITY, _MAKER = 22, 20, 14, 10

_BLOCK = 1 << 21


@dataclass(frozen=True)
class Choices:
    """Interactions of a block of users, sorted by (user, time, item); N rows.

    Attributes:
        user: (N,) int64.
        item: (N,) int64.
        rating: (N,) int64, 1 to 5.
        time: (N,) int64, seconds since 1970.
        view_user: (V,) int64, users of views that ended in no interaction.
        view_item: (V,) int64.
        view_time: (V,) int64.
    """

    user: Integers
    item: Integers
    rating: Integers
    time: Integers
    view_user: Integers
    view_item: Integers
    view_time: Integers


class Market:
    """Everything choices rest on: items, communities and the shelves."""

    def __init__(self, seed: int, users: int, items: Items, mean: float, days: int, views: int) -> None:
        self.seed = seed
        self.items = items
        self.days = days
        self.views = views
        self.communities: Communities = make_communities(seed, users, items)
        self.table = activity_table(mean, most=max(4, len(items) // 6))
        weight = items.popularity
        self._topic = Shelves(items.topic, weight, items.num_topics)
        self._genre = Shelves(items.genre, weight, len(GENRES))
        self._maker = Shelves(items.maker, weight, items.num_makers)
        self._all = Shelves(np.zeros(len(items), dtype=np.int64), weight, 1)
        # What a community talks about: sixteen items of its favourite topics.
        ids = np.arange(len(self.communities))[:, None]
        column = np.arange(16)[None, :]
        topic = self.communities.topics[ids, integers(seed, "talk-topic", 4, ids, column)]
        self._talk = self._topic.draw(topic, bits(seed, "talk", ids, column))

    def users(self, ids: Integers) -> Users:
        """The users with these ids."""
        return make_users(self.seed, ids, self.items, self.communities, self.table, self.days)

    def _candidates(self, users: Users, row: Integers, column: Integers) -> Integers:
        """The item of each (user row, number of the candidate)."""
        who = users.ids[row]
        drawn = bits(self.seed, "candidate", who, column)
        kind = integers(self.seed, "shelf", 100, who, column)
        slot = integers(self.seed, "slot", 16, who, column)
        item = np.empty(len(row), dtype=np.int64)
        low, which = 0, kind
        # Half of the topic's candidates are of the best liked one, a quarter of the next, …
        favourite = np.array([0] * 7 + [1] * 4 + [2] * 2 + [3] * 2 + [4], dtype=np.int64)[slot]
        for share, source in ((_TOPIC, "topic"), (_GENRE, "genre"), (_COMMUNITY, "talk"), (_MAKER, "maker")):
            here = np.flatnonzero((which >= low) & (which < low + share))
            low += share
            r, d, f = row[here], drawn[here], favourite[here]
            if source == "topic":
                item[here] = self._topic.draw(users.topics[r, f], d)
            elif source == "genre":
                item[here] = self._genre.draw(self.items.topic_genre[users.topics[r, f]], d)
            elif source == "maker":
                item[here] = self._maker.draw(users.makers[r, slot[here] % 2], d)
            else:
                item[here] = self._talk[users.community[r], slot[here]]
        here = np.flatnonzero(which >= low)
        item[here] = self._all.draw(np.zeros(len(here), dtype=np.int64), drawn[here])
        return item

    def choose(self, users: Users) -> Choices:
        """The interactions of a block of users."""
        wanted = users.activity
        met = wanted * CANDIDATES
        row = np.repeat(np.arange(len(wanted)), met)
        column = np.arange(len(row)) - np.repeat(np.cumsum(met) - met, met)
        item = self._candidates(users, row, column)
        key = np.unique(row * len(self.items) + item)
        row, item = key // len(self.items), key % len(self.items)
        who = users.ids[row]

        liking = np.zeros(len(row), dtype=np.int64)
        for d in range(DIM):  # one latent dimension at a time: no (pairs x D) temporary
            liking += users.taste[row, d] * self.items.place[item, d]
        utility = liking * (TASTE * GUMBEL_UNIT) // (10 * UNIT * UNIT)
        series = self.items.series[item]
        follows = integers(self.seed, "follows", 4, who, series) == 0
        utility[follows & (series >= 0)] += FOLLOWS
        noise = bits(self.seed, "noise", who, item)
        total = utility + gumbels(noise)

        # Rank within each user by utility, larger first; equal ones by item.
        order = np.lexsort((-total, row))
        row, item, utility, who = row[order], item[order], utility[order], who[order]
        have = np.bincount(row, minlength=len(wanted))
        place = np.arange(len(row)) - np.repeat(np.cumsum(have) - have, have)
        taken = place < wanted[row]
        viewed = ~taken & (place < wanted[row] * (1 + self.views)) if self.views else np.zeros_like(taken)

        first = users.start[row]
        day = first + bits(self.seed, "day", who, item).view(np.int64) % users.span[row]
        released = self.items.release[item]
        late = day < released
        day[late] = released[late] + integers(self.seed, "late", self.days - released[late], who[late], item[late])
        time = _EPOCH + day * 86_400 + integers(self.seed, "second", 86_400, who, item)
        rating = self._rating(who[taken], item[taken], utility[taken], row[taken])
        order = np.lexsort((item[taken], time[taken], row[taken]))
        return Choices(
            user=who[taken][order],
            item=item[taken][order],
            rating=rating[order],
            time=time[taken][order],
            view_user=who[viewed],
            view_item=item[viewed],
            view_time=time[viewed],
        )

    def _rating(self, who: Integers, item: Integers, utility: Integers, row: Integers) -> Integers:
        """Stars: how much better than the user's mean the item is liked, with noise of the same size."""
        count = np.maximum(np.bincount(row), 1)
        total = np.zeros(len(count), dtype=np.int64)
        np.add.at(total, row, utility)
        noise = integers(self.seed, "rating", 3 * GUMBEL_UNIT, who, item) - (3 * GUMBEL_UNIT) // 2
        above = utility - (total // count)[row] + noise
        limits = np.array([-3, -1, 0, 1], dtype=np.int64) * GUMBEL_UNIT
        return np.searchsorted(limits, above, side="right") + 1

    def blocks(self, users: int) -> Iterator[Choices]:
        """All users' interactions, in blocks of about two million candidates."""
        size = max(1, int(_BLOCK // (CANDIDATES * self.table.mean())))
        for start in range(0, users, size):
            yield self.choose(self.users(np.arange(start, min(start + size, users))))


_EPOCH = 1_600_000_000


def trust(market: Market, users: int) -> tuple[Integers, Integers]:
    """Who trusts whom: two to seven links a user, three in four within the community.

    Members of a community are found through a fixed shuffle, so a link costs no table of pairs.
    """
    ids = np.arange(users)
    community = market.users(ids).community
    members = np.argsort(community, kind="stable")
    size = np.bincount(community, minlength=len(market.communities))
    start = np.cumsum(size) - size
    count = 2 + integers(market.seed, "links", 6, ids)
    source = np.repeat(ids, count)
    column = np.arange(len(source)) - np.repeat(np.cumsum(count) - count, count)
    near = start[community[source]] + integers(market.seed, "friend", size[community[source]], source, column)
    far = integers(market.seed, "stranger", users, source, column)
    inside = integers(market.seed, "inside", 4, source, column) < 3
    target = np.where(inside, members[near], far)
    pairs = np.unique(source * users + target)
    source, target = pairs // users, pairs % users
    return source[source != target], target[source != target]
