"""What is known of the seeded world's items beside interactions: names, texts, tags, triples, pictures and features.

All of it is drawn from the items' genre, topic, maker and series, so that it says something about who likes them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from graphrec.datasets.world.draws import Integers, integers
from graphrec.datasets.world.latent import Items
from graphrec.datasets.world.words import (
    ADJECTIVES,
    COUNTRIES,
    GENRE_WORDS,
    GENRES,
    MAKER_FIRST,
    MAKER_LAST,
    MAKER_STYLES,
    NOUNS,
    RANDOM_TAGS,
    THEMES,
)

TEXT_DIM = 128
_ROMAN = ("", " II", " III", " IV")


@dataclass(frozen=True)
class Words:
    """Words of the world's things.

    Attributes:
        names: (I,) title of each item; series share theirs but for the number.
        texts: (I,) title and description.
        topics: (T,) name of each topic, two themes.
        makers: (M,) name of each maker.
        series: names of the series.
        styles: (M, 2) index of a maker's two style words.
        themes: (T, 2) index of a topic's two themes.
    """

    names: NDArray[np.object_]
    texts: NDArray[np.object_]
    topics: list[str]
    makers: list[str]
    series: list[str]
    styles: Integers
    themes: Integers


def _distinct(base: list[str]) -> list[str]:
    """Names made distinct by a number where they repeat: "Cedar Films", "Cedar Films 2"."""
    seen: dict[str, int] = {}
    result = []
    for name in base:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return result


def make_words(seed: int, items: Items) -> Words:
    """Titles and descriptions composed from word lists."""
    count = len(items)
    ids = np.arange(count)
    topic_ids = np.arange(items.num_topics)[:, None]
    pair = np.arange(2)[None, :]
    first = integers(seed, "theme", len(THEMES), topic_ids)
    other = 1 + integers(seed, "theme-2", len(THEMES) - 1, topic_ids)
    themes = np.concatenate([first, (first + other) % len(THEMES)], axis=1)
    topics = _distinct([f"{THEMES[a]} and {THEMES[b]}" for a, b in themes.tolist()])
    makers_drawn = integers(seed, "maker-name", len(MAKER_FIRST) * len(MAKER_LAST), np.arange(items.num_makers))
    makers = _distinct([f"{MAKER_FIRST[n // 10]} {MAKER_LAST[n % 10]}" for n in makers_drawn.tolist()])
    styles = integers(seed, "style-word", len(MAKER_STYLES), np.arange(items.num_makers)[:, None], pair)

    # A series' title is the title of its first item.
    in_series = items.series >= 0
    lead = ids.copy()
    head = np.flatnonzero(in_series & (items.episode == 1))
    first_item = np.zeros(int(items.series.max(initial=-1)) + 1, dtype=np.int64)
    first_item[items.series[head]] = head
    lead[in_series] = first_item[items.series[in_series]]
    adjective = integers(seed, "title-adjective", len(ADJECTIVES), lead)
    noun = integers(seed, "title-noun", len(NOUNS), lead)
    theme = themes[items.topic[lead], integers(seed, "title-theme", 2, lead)]
    form = integers(seed, "title-form", 5, lead)
    base = []
    for a, n, t, f in zip(adjective.tolist(), noun.tolist(), theme.tolist(), form.tolist(), strict=True):
        word = THEMES[t].capitalize()
        base.append(
            (
                f"The {ADJECTIVES[a]} {NOUNS[n]}",
                f"{ADJECTIVES[a]} {word}",
                f"The {NOUNS[n]} of {word}",
                f"{word} and the {NOUNS[n]}",
                f"{NOUNS[n]} without {word}",
            )[f]
        )
    number = [_ROMAN[e - 1] if e > 1 else "" for e in items.episode.tolist()]
    names = _distinct([title + suffix for title, suffix in zip(base, number, strict=True)])
    series = [names[i] for i in first_item.tolist()]
    texts = _descriptions(seed, items, names, makers, styles, themes)
    return Words(np.array(names, dtype=object), texts, topics, makers, series, styles, themes)


def _descriptions(
    seed: int, items: Items, names: list[str], makers: list[str], styles: Integers, themes: Integers
) -> NDArray[np.object_]:
    ids = np.arange(len(items))
    words = integers(seed, "genre-word", 6, ids[:, None], np.arange(3)[None, :]).tolist()
    noise = integers(seed, "noise-word", len(THEMES), ids).tolist()
    style = styles[items.maker, integers(seed, "which-style", 2, ids)].tolist()
    country = items.maker_country[items.maker].tolist()
    form = integers(seed, "text-form", 3, ids).tolist()
    theme = themes[items.topic].tolist()
    genre, maker = items.genre.tolist(), items.maker.tolist()
    texts = np.empty(len(items), dtype=object)
    for i, name in enumerate(names):
        g = GENRE_WORDS[genre[i]]
        a, b, c = (g[w] for w in words[i])
        t, u = (THEMES[w] for w in theme[i])
        style_word, about = MAKER_STYLES[style[i]], THEMES[noise[i]]
        genre_name, place = GENRES[genre[i]], COUNTRIES[country[i]]
        texts[i] = (
            f"{name}. A {style_word} {genre_name} of {t} and {u}: {a}, {b} and a glimpse of {about}. "
            f"From {makers[maker[i]]}, {place}.",
            f"{name}. {t.capitalize()}, {u}, {a}. {makers[maker[i]]} of {place} at its most {style_word}, "
            f"with {b}, {c} and {about}.",
            f"{name}. What have {t} to do with {about}? A {genre_name} full of {a} and {b}, {style_word} to "
            f"the last, and never far from {u}.",
        )[form[i]]
    return texts


_COMMON = frozenset(
    ("a", "an", "and", "at", "do", "far", "from", "full", "glimpse", "have", "its", "last", "most", "never")
).union(("of", "the", "to", "what", "with", "without"))


def text_features(texts: NDArray[np.object_]) -> NDArray[np.float32]:
    """Hashed bags of words, (I, :data:`TEXT_DIM`) float32 rows of length 1: log2(I / document frequency) per word.

    A stand-in for an encoder that needs no weights; every step is exact in integers until the rows are scaled.
    """
    slots: dict[str, tuple[int, int]] = {}
    numbers: dict[str, int] = {}
    row, word = [], []
    for i, text in enumerate(texts):
        for token in {piece.strip(".,:?").casefold() for piece in text.split()} - _COMMON:
            row.append(i)
            word.append(numbers.setdefault(token, len(numbers)))
    for token in numbers:
        digest = hashlib.blake2b(token.encode(), digest_size=4).digest()
        slots[token] = int.from_bytes(digest[:3], "little") % TEXT_DIM, 1 - 2 * (digest[3] & 1)
    place = np.array([slots[token] for token in numbers], dtype=np.int64).reshape(-1, 2)
    rows, words = np.array(row, dtype=np.int64), np.array(word, dtype=np.int64)
    frequency = np.bincount(words, minlength=len(numbers))
    rarity = np.array([(len(texts) // int(f)).bit_length() for f in frequency], dtype=np.int64)
    counts = np.zeros(len(texts) * TEXT_DIM, dtype=np.int64)
    np.add.at(counts, rows * TEXT_DIM + place[words, 0], place[words, 1] * rarity[words])
    return unit_rows(counts.reshape(len(texts), TEXT_DIM))


def unit_rows(counts: Integers) -> NDArray[np.float32]:
    """Integer rows scaled to length 1 (rows of zeros stay)."""
    square = (counts * counts).sum(axis=1)
    return (counts / np.sqrt(np.maximum(square, 1))[:, None]).astype(np.float32)


def tag_table(seed: int, items: Items, words: Words) -> pd.DataFrame:
    """Tags of items, two to seven each: a theme of the topic, a word of the genre, the maker's style, or any word."""
    ids = np.arange(len(items))
    count = 2 + integers(seed, "tag-count", 6, ids)
    item = np.repeat(ids, count)
    column = np.arange(len(item)) - np.repeat(np.cumsum(count) - count, count)
    kind = integers(seed, "tag-kind", 20, item, column)
    drawn = integers(seed, "tag", 2**30, item, column)
    vocabulary = [*THEMES, *(w for g in GENRE_WORDS for w in g), *MAKER_STYLES, *RANDOM_TAGS]
    starts = np.cumsum([0, len(THEMES), sum(map(len, GENRE_WORDS)), len(MAKER_STYLES)])
    code = starts[3] + drawn % len(RANDOM_TAGS)
    code = np.where(kind < 17, starts[2] + words.styles[items.maker[item], drawn % 2], code)
    code = np.where(kind < 14, starts[1] + items.genre[item] * 6 + drawn % 6, code)
    code = np.where(kind < 9, words.themes[items.topic[item], drawn % 2], code)
    key = np.unique(item * len(vocabulary) + code)
    names = np.array(vocabulary, dtype=object)
    frame = pd.DataFrame({"item": key // len(vocabulary), "tag": names[key % len(vocabulary)]})
    return frame.drop_duplicates(ignore_index=True)  # some words are in two lists


@dataclass(frozen=True)
class Facts:
    """A knowledge graph: triples between items and entities, and what the entities are.

    Attributes:
        of_items: frame with ``item``, ``relation``, ``entity``.
        of_entities: frame with ``head``, ``relation``, ``tail``.
        sequels: frame with ``item``, ``earlier``.
        entities: frame with ``entity``, ``kind`` and ``name``.
    """

    of_items: pd.DataFrame
    of_entities: pd.DataFrame
    sequels: pd.DataFrame
    entities: pd.DataFrame


def _ids(kind: str, count: int) -> NDArray[np.object_]:
    return np.array([f"{kind}:{n}" for n in range(count)], dtype=object)


def facts(items: Items, words: Words) -> Facts:
    """Genres, makers, topics and series of items; countries of makers; genres of topics; sequels."""
    ids = np.arange(len(items))
    genre, topic = _ids("genre", len(GENRES)), _ids("topic", items.num_topics)
    maker, country = _ids("maker", items.num_makers), _ids("country", len(COUNTRIES))
    series = _ids("series", len(words.series))
    second, member = items.second_genre >= 0, items.series >= 0
    parts = [
        (ids, "has_genre", genre[items.genre]),
        (ids[second], "has_genre", genre[items.second_genre[second]]),
        (ids, "made_by", maker[items.maker]),
        (ids, "is_about", topic[items.topic]),
        (ids[member], "part_of", series[items.series[member]]),
    ]
    of_items = pd.concat(
        [pd.DataFrame({"item": i, "relation": relation, "entity": e}) for i, relation, e in parts],
        ignore_index=True,
    )
    of_entities = pd.concat(
        [
            pd.DataFrame({"head": maker, "relation": "based_in", "tail": country[items.maker_country]}),
            pd.DataFrame({"head": topic, "relation": "belongs_to", "tail": genre[items.topic_genre]}),
        ],
        ignore_index=True,
    )
    at = np.full((len(words.series) + 1, 6), -1, dtype=np.int64)
    at[items.series[member], items.episode[member]] = ids[member]
    before = np.where(member, at[items.series, np.maximum(items.episode - 1, 0)], -1)
    sequel = before >= 0
    named = (
        ("genre", genre, list(GENRES)),
        ("topic", topic, words.topics),
        ("maker", maker, words.makers),
        ("country", country, list(COUNTRIES)),
        ("series", series, words.series),
    )
    entities = pd.concat(
        [pd.DataFrame({"entity": e, "kind": kind, "name": names}) for kind, e, names in named],
        ignore_index=True,
    )
    return Facts(of_items, of_entities, pd.DataFrame({"item": ids[sequel], "earlier": before[sequel]}), entities)
