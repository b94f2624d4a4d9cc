"""Small datasets with a knowledge graph that explains taste: what a model of triples must profit from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from tests.models.planted import choices

GENRES, MAKERS, PLACES = 4, 12, 20
RELATIONS = ("genre", "made_by", "set_in", "works_in", "follows")


def planted_kg(
    num_users: int = 160,
    num_items: int = 80,
    per_user: int = 12,
    loyalty: float = 0.85,
    seed: int = 0,
    user_ids: np.ndarray | None = None,
    item_ids: np.ndarray | None = None,
    entity_ids: np.ndarray | None = None,
    relation_names: Mapping[str, str] | None = None,
) -> RecDataset:
    """The planted interactions, with the groups of items in the triples.

    Every item has its group as a genre and one of the group's three makers, so that two relations tell taste; a place
    drawn at random tells nothing. Makers belong to genres (a triple between entities), and some items are sequels of
    others of their group (a triple between items). No two relations join the same nodes; ``relation_names`` gives
    them other names, in whose order they are numbered.
    """
    called = {name: name for name in RELATIONS} if relation_names is None else relation_names
    draws = np.random.default_rng(seed + 1)
    entities = np.arange(GENRES + MAKERS + PLACES) if entity_ids is None else entity_ids
    users = np.arange(num_users) if user_ids is None else user_ids
    items = np.arange(num_items) if item_ids is None else item_ids
    genres, makers, places = np.split(entities, [GENRES, GENRES + MAKERS])
    group = np.arange(num_items) % GENRES
    maker = GENRES * draws.integers(0, MAKERS // GENRES, num_items) + group
    builder = Builder()
    for node_type, ids in (("user", users), ("item", items), ("entity", entities)):
        builder.nodes(node_type, ids)
    user, item, part = choices(num_users, num_items, GENRES, per_user, loyalty, seed)
    frame = pd.DataFrame({"user": users[user], "item": items[item], "part": part})
    builder.interactions(frame, user="user", item="item", part="part")
    facts = [
        pd.DataFrame({"head": items, "relation": called["genre"], "tail": genres[group]}),
        pd.DataFrame({"head": items, "relation": called["made_by"], "tail": makers[maker]}),
        pd.DataFrame(
            {"head": items, "relation": called["set_in"], "tail": places[draws.integers(0, PLACES, num_items)]}
        ),
    ]
    builder.triples(pd.concat(facts), head=("item", "head"), relation="relation", tail=("entity", "tail"))
    about = pd.DataFrame({"head": makers, "relation": called["works_in"], "tail": genres[np.arange(MAKERS) % GENRES]})
    builder.triples(about, head=("entity", "head"), relation="relation", tail=("entity", "tail"))
    first = np.arange(num_items - GENRES)[::5]
    sequels = pd.DataFrame({"head": items[first + GENRES], "relation": called["follows"], "tail": items[first]})
    builder.triples(sequels, head=("item", "head"), relation="relation", tail=("item", "tail"))
    return builder.build()


def tiny_kg(seed: int = 0) -> RecDataset:
    """8 users, 10 items, 12 entities, 4 relations: small enough for a loop over triples in a test.

    One item and one entity have no triple, one user no interaction, two entities are joined by two relations, and one
    triple is a loop.
    """
    draws = np.random.default_rng(seed)
    builder = Builder()
    for node_type, size in (("user", 8), ("item", 10), ("entity", 12)):
        builder.nodes(node_type, np.arange(size))
    pairs = draws.permutation(7 * 10)[:28]
    frame = pd.DataFrame({"user": pairs // 10, "item": pairs % 10, "part": ["test"] * 4 + ["train"] * 24})
    builder.interactions(frame, user="user", item="item", part="part")
    to_entity = draws.permutation(9 * 3 * 11)[:26]
    builder.triples(
        pd.DataFrame({"head": to_entity % 9, "relation": to_entity // 9 % 3, "tail": to_entity // 27}),
        head=("item", "head"),
        relation="relation",
        tail=("entity", "tail"),
    )
    builder.triples(
        pd.DataFrame({"head": [0, 0, 1, 4, 5], "relation": [2, 3, 3, 3, 3], "tail": [1, 1, 3, 4, 0]}),
        head=("entity", "head"),
        relation="relation",
        tail=("entity", "tail"),
    )
    builder.triples(
        pd.DataFrame({"head": [0, 3], "relation": [3, 3], "tail": [2, 0]}),
        head=("item", "head"),
        relation="relation",
        tail=("item", "tail"),
    )
    return builder.build()
