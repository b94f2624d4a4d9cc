"""The latent model of the seeded world: what items are, what users want.

Genres contain topics; makers have a country and a style; a series is made by one maker about one topic. An item's place
in the latent space is a weighted sum of its genre's, its topic's, its maker's and its own vector, and whatever else is
known of it (words, tags, triples, picture) is drawn from the same genre, topic and maker. Users live in communities
that share genres, topics and taste, which is what trust links show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphrec.datasets.world.draws import Integers, integers, normals
from graphrec.datasets.world.words import COUNTRIES, GENRES

DIM = 16


@dataclass(frozen=True)
class Items:
    """What the items are; I items, D latent width.

    Attributes:
        genre: (I,) first genre.
        second_genre: (I,) another genre, or -1.
        topic: (I,) topic.
        maker: (I,) maker.
        series: (I,) series, or -1.
        episode: (I,) number within the series from 1 on, 0 outside a series.
        place: (I, D) latent vectors, integers with a standard deviation of about ``draws.UNIT``.
        popularity: (I,) positive integer weights with a power-law tail.
        release: (I,) days since the world began.
        topic_genre: (T,) the genre of each topic.
        topic_place: (T, D) genre and topic vectors together.
        maker_country: (M,) the country of each maker.
    """

    genre: Integers
    second_genre: Integers
    topic: Integers
    maker: Integers
    series: Integers
    episode: Integers
    place: Integers
    popularity: Integers
    release: Integers
    topic_genre: Integers
    topic_place: Integers
    maker_country: Integers

    def __len__(self) -> int:
        return len(self.genre)

    @property
    def num_topics(self) -> int:
        """T."""
        return len(self.topic_genre)

    @property
    def num_makers(self) -> int:
        """M."""
        return len(self.maker_country)


def _series(seed: int, topic: Integers) -> tuple[Integers, Integers]:
    """Series of two to four items that share a topic; about two items in five are in one."""
    order = np.argsort(topic, kind="stable")
    position = np.arange(len(topic))
    block = position // 4
    member = (integers(seed, "series", 5, block) < 2) & (topic[order] == topic[order][block * 4])
    member &= np.bincount(block[member], minlength=block[-1] + 1)[block] > 1
    series = np.full(len(topic), -1, dtype=np.int64)
    series[order[member]] = np.unique(block[member], return_inverse=True)[1]
    episode = np.zeros(len(topic), dtype=np.int64)
    episode[order[member]] = (position % 4 + 1)[member]
    return series, episode


def make_items(seed: int, count: int, days: int) -> Items:
    """Draw ``count`` items, released over ``days`` days."""
    ids = np.arange(count)
    num_genres = len(GENRES)
    num_topics = max(num_genres, count // 14)
    num_makers = max(8, count // 18)
    topic_genre = np.arange(num_topics) % num_genres
    topic = integers(seed, "topic", num_topics, ids)
    genre = topic_genre[topic]
    other = integers(seed, "second-genre", num_genres * 3, ids)
    second = np.where((other < num_genres) & (other != genre), other, -1)
    # A maker works in three genres; an item's maker is one of those that work in its genre.
    per_genre = max(2, num_makers // 5)
    pick = integers(seed, "maker", per_genre, ids)
    maker = integers(seed, "maker-of-genre", num_makers, genre, pick)
    series, episode = _series(seed, topic)
    member = series >= 0
    first_of_series = np.full(int(series.max(initial=-1)) + 1, count, dtype=np.int64)
    np.minimum.at(first_of_series, series[member], ids[member])
    maker[member] = maker[first_of_series[series[member]]]

    genre_place = normals(seed, "genre-place", num_genres, DIM)
    topic_place = (3 * genre_place[topic_genre] + 4 * normals(seed, "topic-place", num_topics, DIM)) // 5
    maker_place = normals(seed, "maker-place", num_makers, DIM)
    place = (4 * topic_place[topic] + 2 * maker_place[maker] + 2 * normals(seed, "item-place", count, DIM)) // 5
    rank = np.argsort(np.argsort(integers(seed, "popularity", 2**62, ids), kind="stable"), kind="stable")
    weight = [round(1e6 * math.pow(r + 10, -0.7)) for r in range(count)]
    popularity = np.maximum(np.array(weight, dtype=np.int64)[rank], 1)
    release = np.maximum(integers(seed, "release", days * 3 // 2, ids) - days * 3 // 4, 0)
    return Items(
        genre=genre,
        second_genre=second,
        topic=topic,
        maker=maker,
        series=series,
        episode=episode,
        place=place,
        popularity=popularity,
        release=release,
        topic_genre=topic_genre,
        topic_place=topic_place,
        maker_country=integers(seed, "country", len(COUNTRIES), np.arange(num_makers)),
    )


@dataclass(frozen=True)
class Communities:
    """What groups of users share; C communities.

    Attributes:
        topics: (C, 4) favourite topics.
        place: (C, D) shared taste.
    """

    topics: Integers
    place: Integers

    def __len__(self) -> int:
        return len(self.topics)


def make_communities(seed: int, users: int, items: Items) -> Communities:
    """One community for about forty users."""
    count = max(4, users // 40)
    ids = np.arange(count)
    genres = integers(seed, "community-genres", len(GENRES), ids[:, None], np.arange(2)[None, :])
    # Topics of the two genres: topic t has genre t mod G, so a genre's topics are evenly spaced.
    steps = items.num_topics // len(GENRES)
    step = integers(seed, "community-topics", steps, ids[:, None], np.arange(4)[None, :])
    topics = genres[:, [0, 0, 1, 1]] + step * len(GENRES)
    return Communities(topics=topics, place=normals(seed, "community-place", count, DIM))


@dataclass(frozen=True)
class Users:
    """What a block of users wants; B users.

    Attributes:
        ids: (B,) the users.
        community: (B,) community.
        topics: (B, 5) favourite topics, the first liked best.
        makers: (B, 2) favourite makers.
        taste: (B, D) latent vectors.
        activity: (B,) number of interactions wanted.
        start: (B,) first day.
        span: (B,) days of activity.
    """

    ids: Integers
    community: Integers
    topics: Integers
    makers: Integers
    taste: Integers
    activity: Integers
    start: Integers
    span: Integers


def activity_table(mean: float, most: int) -> Integers:
    """4096 equally likely numbers of interactions: a floor and a Lomax tail (shape 2.2), mean about ``mean``."""
    floor = max(3, round(mean * 0.3))
    scale = (mean - floor) * 1.2
    tail = [round(scale * (math.pow(1 - (k + 0.5) / 4096, -1 / 2.2) - 1)) for k in range(4096)]
    return np.minimum(np.array(tail, dtype=np.int64) + floor, most)


def make_users(seed: int, ids: Integers, items: Items, communities: Communities, table: Integers, days: int) -> Users:
    """Draw a block of users; each depends on the seed and its own id alone."""
    column = ids[:, None]
    community = integers(seed, "community", len(communities), ids)
    own = integers(seed, "own-topic", items.num_topics, column, np.arange(5)[None, :])
    shared = communities.topics[community[:, None], integers(seed, "shared-topic", 4, column, np.arange(5)[None])]
    topics = np.where(integers(seed, "shares", 5, column, np.arange(5)[None, :]) < 3, shared, own)
    wanted = 3 * items.topic_place[topics[:, 0]] + 2 * items.topic_place[topics[:, 1]]
    wanted += items.topic_place[topics[:, 2]] + 2 * communities.place[community]
    drawn = integers(seed, "own-taste", 2**62, column, np.arange(DIM)[None, :])
    own_taste = ((drawn[..., None] >> np.arange(0, 56, 8)) & 255).sum(axis=2) - 892
    start = integers(seed, "start", days * 3 // 4, ids)
    return Users(
        ids=ids,
        community=community,
        topics=topics,
        makers=integers(seed, "own-maker", items.num_makers, column, np.arange(2)[None, :]),
        taste=(wanted + own_taste * 32 // 195) // 4,
        activity=table[integers(seed, "activity", len(table), ids)],
        start=start,
        span=1 + integers(seed, "span", days - start, ids),
    )
