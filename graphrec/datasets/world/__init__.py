"""The seeded world: a made-up catalogue and its audience, drawn from one latent model.

It is the data that is always there: for the demonstration, for tests, and, as large as one likes, for measurements of
scale. Every kind of side information says something about who likes what, because all of it is drawn from the same
genres, topics, makers and communities as the interactions:

    data = world(users=2000, seed=0)
    data.tables        # user interacts item; item related entity; item tagged tag; user trusts user; …
    data.features      # ("item", "text"), ("item", "image")
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.splits import Split
from graphrec.datasets.world import pictures as _pictures
from graphrec.datasets.world.choices import Market, trust
from graphrec.datasets.world.content import facts, make_words, tag_table, text_features
from graphrec.datasets.world.latent import Items, make_items
from graphrec.errors import InputError, unknown

SIDES: tuple[str, ...] = ("kg", "tags", "trust", "text", "image")
"""The kinds of side information."""

DAYS = 1000
"""How long the world has lasted."""


def num_items(users: int) -> int:
    """The default size of the catalogue, 26 for each square root of a user: 1,162 for 2,000, 26,000 for a million."""
    return max(60, int(26 * users**0.5))


def _items(users: int, items: int | None, seed: int) -> Items:
    return make_items(seed, num_items(users) if items is None else items, DAYS)


def world(
    users: int = 2000,
    items: int | None = None,
    seed: int = 0,
    *,
    interactions: float = 25.0,
    views: int = 0,
    sides: str | Collection[str] = SIDES,
    split: str | Split | None = "random:.8,.1,.1",
) -> RecDataset:
    """Draw a world. The same arguments give the same bytes, on every machine.

    Ids of users and items are whole numbers from 0. Entities are named by kind and number (``"genre:3"``), and have a
    kind and a name. Item popularity and user activity are skewed: a Zipf-like law with exponent 0.7, and a Lomax tail
    with shape 2.2 above a floor of 0.3 ``interactions``.

    Args:
        users: number of users, from 20 to millions.
        items: number of items, at least 60; default: :func:`num_items`.
        seed: of every draw.
        interactions: mean number of interactions of a user, at least 5 (small catalogues cap the most active users).
        views: for each interaction, how many views of things that were looked at and not chosen (at most 3), as edges
            ``("user", "views", "item")``. An interaction is not recorded as a view too: that would give the test part
            away.
        sides: which kinds of side information to make (see :data:`SIDES`), also joined by ``+``: ``"kg+text"``.
        split: of the interactions into parts, drawn with ``seed`` where it is a word; None: none.

    Raises:
        InputError: a size that is too small, or an unknown kind.
    """
    users, items = _whole("users", users), None if items is None else _whole("items", items)
    sides = [side for side in sides.split("+") if side] if isinstance(sides, str) else list(sides)
    for name, value, least in (("users", users, 20), ("items", items, 60), ("interactions", interactions, 5)):
        if value is not None and value < least:
            raise InputError(f"world: {name} is {value}; expected at least {least}.")
    if not 0 <= views <= 3:
        raise InputError(f"world: views is {views}; expected 0 to 3 for each interaction.")
    for side in sides:
        if side not in SIDES:
            raise unknown("side information", side, SIDES)
    catalogue = _items(users, items, seed)
    market = Market(seed, users, catalogue, interactions, DAYS, views)
    builder = Builder("world")
    builder.nodes("user", np.arange(users)).nodes("item", np.arange(len(catalogue)))
    _add_interactions(builder, market, users, bool(views))
    _add_sides(builder, market, users, frozenset(sides))
    data = builder.build()
    if split is None:
        return data
    return data.split(split, seed=seed) if isinstance(split, str) else data.split(split)


def _whole(name: str, value: float) -> int:
    """A number of things, which may have come as 1e6."""
    if value != int(value):
        raise InputError(f"world: {name} is {value}; expected a whole number.")
    return int(value)


def _add_interactions(builder: Builder, market: Market, users: int, views: bool) -> None:
    blocks = [
        {
            "user": block.user.astype(np.int32),
            "item": block.item.astype(np.int32),
            "rating": block.rating.astype(np.int8),
            "time": block.time,
            "view_user": block.view_user.astype(np.int32),
            "view_item": block.view_item.astype(np.int32),
            "view_time": block.view_time,
        }
        for block in market.blocks(users)
    ]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    builder.interactions(
        {name: columns[name] for name in ("user", "item", "rating", "time")},
        rating="rating",
        time="time",
        duplicates="error",
        scale=(1, 5),
    )
    if views:
        builder.interactions(
            {name: columns[f"view_{name}"] for name in ("user", "item", "time")},
            behaviour="views",
            time="time",
            duplicates="error",
        )


def _add_sides(builder: Builder, market: Market, users: int, sides: frozenset[str]) -> None:
    items, seed = market.items, market.seed
    ids = np.arange(len(items))
    words = make_words(seed, items)
    builder.names("item", ids, words.names)
    if "text" in sides:
        builder.texts("item", ids, words.texts)
        builder.features("item", ids, text_features(words.texts), name="text")
    if "image" in sides:
        builder.features("item", ids, _pictures.item_picture_features(seed, items), name="image")
    if "tags" in sides:
        builder.tags(tag_table(seed, items, words))
    if "kg" in sides:
        known = facts(items, words)
        builder.triples(known.of_items, head=("item", "item"), tail=("entity", "entity"))
        builder.triples(known.of_entities, head=("entity", "head"), tail=("entity", "tail"))
        builder.triples(known.sequels, head=("item", "item"), relation="follows", tail=("item", "earlier"))
        # Things that no triple names (a genre without items) are no nodes.
        mentioned = pd.concat([known.of_items["entity"], known.of_entities["head"], known.of_entities["tail"]])
        entities = known.entities[known.entities["entity"].isin(mentioned)]
        builder.kinds("entity", entities["entity"], entities["kind"])
        builder.names("entity", entities["entity"], entities["name"])
    if "trust" in sides:
        source, target = trust(market, users)
        builder.links({"source": source.astype(np.int32), "target": target.astype(np.int32)})


def pictures(
    users: int = 2000,
    items: int | None = None,
    seed: int = 0,
    *,
    size: int = 16,
    which: NDArray[np.int64] | None = None,
) -> NDArray[np.uint8]:
    """The pictures of a world's items, (N, size, size, 3) uint8.

    The ``image`` feature is computed from those of size 16.

    Args:
        users: of the world.
        items: of the world.
        seed: of the world.
        size: height and width in pixels.
        which: (N,) items; default: all.
    """
    return _pictures.draw_pictures(seed, _items(users, items, seed), size, which)
