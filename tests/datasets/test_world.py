"""The seeded world: the same bytes from the same seed, skewed sizes, and side information that says who likes what."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.splits import LeaveOneOut
from graphrec.datasets.world import SIDES, num_items, pictures, world
from graphrec.datasets.world.choices import Market
from graphrec.datasets.world.content import unit_rows
from graphrec.datasets.world.draws import GUMBEL_UNIT, UNIT, Shelves, bits, gumbels, normals
from graphrec.datasets.world.latent import make_items
from graphrec.errors import InputError

ROOT = Path(__file__).parents[2]
KG, TAGS, TRUST = ("item", "related", "entity"), ("item", "tagged", "tag"), ("user", "trusts", "user")

# Of the world with 300 users and seed 3: every draw is an integer hash, so this holds on any machine and any numpy.
PINNED = "5a054a93a9ed6386b1b42b1c1146c41acb8ddb7fc5a90dda26c04d5083294e83"


@cache
def default() -> RecDataset:
    return world(split=None)


def digest(data: RecDataset) -> str:
    """Of all columns, features, texts and names, independently of how a fingerprint is defined."""
    result = hashlib.sha256()
    for edge_type, table in sorted(data.tables.items()):
        result.update("/".join(edge_type).encode())
        for column in table.columns.values():
            result.update(np.ascontiguousarray(column).tobytes())
    for key, matrix in sorted(data.features.items()):
        result.update("/".join(key).encode() + matrix.tobytes())
    for strings in (data.texts, data.names, data.kinds):
        for node_type in sorted(strings):
            result.update("\n".join(map(str, strings[node_type])).encode())
    return result.hexdigest()


def matrix(data: RecDataset, edge_type: tuple[str, str, str]) -> sp.csr_matrix:
    table = data.tables[edge_type]
    shape = data.num_nodes[edge_type[0]], data.num_nodes[edge_type[2]]
    return sp.csr_matrix((np.ones(len(table)), (table.source, table.target)), shape=shape)


def cosine(rows: sp.spmatrix) -> np.ndarray:
    rows = rows.toarray()
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return unit @ unit.T


def similarity(data: RecDataset, side: str) -> np.ndarray:
    """Items by items: cosine of the side's vectors, rare entities and tags weighing more."""
    if side in ("text", "image"):
        unit = data.features["item", side]
        unit = unit - unit.mean(axis=0)
        return cosine(sp.csr_matrix(unit))
    links = matrix(data, KG if side == "kg" else TAGS)
    rare = np.log(links.shape[0] / np.maximum(np.asarray(links.sum(axis=0)).ravel(), 1))
    return cosine(links @ sp.diags(rare))


def test_same_seed_same_bytes_also_in_another_process() -> None:
    code = (
        "from tests.datasets.test_world import digest; from graphrec.datasets.world import world;"
        "d = world(300, seed=3, views=1, split=None); print(d.fingerprint, digest(d))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    here = world(300, seed=3, views=1, split=None)
    assert there == [here.fingerprint, digest(here)]
    assert digest(here) == PINNED
    assert digest(world(300, seed=4, views=1, split=None)) != PINNED


def test_users_are_drawn_independently_of_how_many_are_drawn_together() -> None:
    market = Market(1, 200, make_items(1, 150, 1000), 20, 1000, 1)
    whole = market.choose(market.users(np.arange(200)))
    for ids in (np.arange(50, 90), np.array([7])):
        part = market.choose(market.users(ids))
        here = np.isin(whole.user, ids)
        np.testing.assert_array_equal(part.item, whole.item[here])
        np.testing.assert_array_equal(part.time, whole.time[here])
        np.testing.assert_array_equal(part.view_item, whole.view_item[np.isin(whole.view_user, ids)])


def test_side_information_and_views_leave_the_interactions_as_they_are() -> None:
    rich = world(120, seed=5, views=2, split=None)
    bare = world(120, seed=5, sides=(), split=None)
    assert set(bare.tables) == {bare.target} and not bare.features
    for name, column in bare.tables[bare.target].columns.items():
        np.testing.assert_array_equal(column, rich.tables[rich.target].columns[name])


def test_sizes_are_skewed_and_near_what_was_asked_for() -> None:
    data = default()
    assert (data.num_users, data.num_items) == (2000, num_items(2000)) == (2000, 1162)
    by_user, by_item = (np.sort(np.bincount(ends)) for ends in (data.interactions().source, data.interactions().target))
    assert 40_000 < by_user.sum() < 60_000
    assert by_user[0] >= 8 and by_user[-200:].sum() > 0.3 * by_user.sum()
    tenth = len(by_item) // 10
    assert 0.25 < by_item[-tenth:].sum() / by_item.sum() < 0.5
    ratings = np.bincount(data.interactions().rating.astype(int), minlength=6)
    assert ratings[0] == 0 and (ratings[2:] > 0.1 * ratings.sum()).all()


def test_views_outnumber_interactions_and_are_never_of_what_was_taken() -> None:
    data = world(200, seed=2, views=2, split=None)
    taken, viewed = data.table("interacts"), data.table("views")
    assert data.target == taken.edge_type and len(viewed) > 1.4 * len(taken)
    assert not set(zip(taken.source, taken.target, strict=True)) & set(zip(viewed.source, viewed.target, strict=True))


def test_no_interaction_before_the_release_and_all_within_the_world() -> None:
    items = make_items(0, 200, 1000)
    market = Market(0, 300, items, 20, 1000, 0)
    choices = market.choose(market.users(np.arange(300)))
    day = (choices.time - 1_600_000_000) // 86_400
    assert (day >= items.release[choices.item]).all() and (day < 1000).all() and (day >= 0).all()


@pytest.mark.parametrize(("side", "margin"), [("text", 2.0), ("image", 2.0), ("kg", 2.5), ("tags", 1.8)])
def test_neighbours_by_side_information_are_chosen_together(side: str, margin: float) -> None:
    """Pairs of near items are co-chosen clearly more than random pairs of the same popularity."""
    data = default()
    chosen = matrix(data, data.target)
    together = (chosen.T @ chosen).toarray()
    near = similarity(data, side)
    np.fill_diagonal(near, -np.inf)
    neighbours = np.argsort(-near, axis=1, kind="stable")[:, :5]
    rows = np.arange(len(near))[:, None]
    # The item of the next popularity rank stands for a random one that is as popular.
    order = np.argsort(np.asarray(chosen.sum(axis=0)).ravel(), kind="stable")
    rank = np.argsort(order, kind="stable")
    matched = order[(rank[neighbours] + 1) % len(order)]
    distinct = matched != rows
    assert (
        together[rows, neighbours][distinct].mean()
        > margin * together[np.broadcast_to(rows, matched.shape), matched][distinct].mean()
    )


def test_trusted_users_choose_the_same_things() -> None:
    data = default()
    chosen = matrix(data, data.target)
    link = data.tables[TRUST]
    other = link.target[np.random.default_rng(0).permutation(len(link))]  # the same users, linked at random
    shared = [np.asarray(chosen[link.source].multiply(chosen[ends]).sum()) for ends in (link.target, other)]
    assert shared[0] > 1.5 * shared[1]


@pytest.mark.parametrize("side", ["text", "image", "kg", "tags"])
def test_content_ranks_cold_items(side: str) -> None:
    """A fifth of the items has no interactions; similarity to the rest of a history finds them (chance: 0.5)."""
    data = default()
    chosen = matrix(data, data.target).toarray()
    cold = np.random.default_rng(1).random(data.num_items) < 0.2
    scores = chosen[:, ~cold] @ np.maximum(similarity(data, side)[~cold][:, cold], 0) ** 2
    truth = chosen[:, cold] > 0
    # AUC against items of any popularity, averaged over users.
    ranks = np.argsort(np.argsort(scores, axis=1), axis=1)
    positive = truth.sum(axis=1)
    usable = (positive > 0) & (positive < truth.shape[1])
    below = (ranks * truth).sum(axis=1) - positive * (positive - 1) / 2
    auc = below[usable] / (positive * (truth.shape[1] - positive))[usable]
    assert auc.mean() > 0.6


def test_a_neighbourhood_model_beats_popularity_on_a_task_that_is_not_trivial() -> None:
    data = default()
    table = data.interactions()
    rng = np.random.default_rng(0)
    test = rng.random(len(table)) < 0.1
    shape = data.num_users, data.num_items
    train, truth = (
        sp.csr_matrix((np.ones(part.sum()), (table.source[part], table.target[part])), shape=shape).toarray()
        for part in (~test, test)
    )
    popularity = train.sum(axis=0)
    norm = np.sqrt(np.maximum(popularity, 1))
    near = (train.T @ train) / norm[:, None] / norm[None, :]
    np.fill_diagonal(near, 0)
    recalls = []
    for scores in (np.broadcast_to(popularity, shape), train @ near):
        scores = np.where(train > 0, -np.inf, scores)
        top = np.argpartition(-scores, 20, axis=1)[:, :20]
        hits = np.take_along_axis(truth, top, axis=1).sum(axis=1)
        recalls.append((hits / np.maximum(truth.sum(axis=1), 1))[truth.sum(axis=1) > 0].mean())
    assert 0.05 < recalls[0] < 0.10
    assert 2 * recalls[0] < recalls[1] < 0.4


def test_things_have_readable_names_and_kinds() -> None:
    data = default()
    names = data.names["item"]
    assert len(set(names)) == len(names) and all(names)
    assert all(
        str(text).startswith(f"{name}.")
        for name, text in zip(names, data.texts["item"], strict=True)
        if "…" not in name
    )
    assert set(data.kinds["entity"]) == {"genre", "topic", "maker", "country", "series"}
    assert all(data.names["entity"])
    assert set(data.relations.raw) == {
        "has_genre", "made_by", "is_about", "part_of", "based_in", "belongs_to", "follows",
    }  # fmt: skip


def test_pictures_can_be_drawn_one_by_one_and_larger() -> None:
    all_of_them = pictures(100, 80, seed=6)
    assert all_of_them.shape == (80, 16, 16, 3) and all_of_them.dtype == np.uint8
    np.testing.assert_array_equal(pictures(100, 80, seed=6, which=np.array([5, 2])), all_of_them[[5, 2]])
    assert pictures(100, 80, seed=6, size=40, which=np.array([0])).shape == (1, 40, 40, 3)


def test_the_default_split_gives_every_user_a_training_part() -> None:
    data = world(100, seed=1)
    assert data.parts == ("train", "valid", "test")
    sizes = [len(data.interactions(part)) for part in data.parts]
    assert 0.75 < sizes[0] / sum(sizes) < 0.85
    assert (np.diff(data.pairs("train").indptr) > 0).all()
    other = world(100, seed=1, split=LeaveOneOut())
    assert len(other.interactions("test")) == other.num_users


def test_small_and_odd_worlds() -> None:
    tiny = world(20, 60, seed=9, interactions=5, sides=("kg",), split=None)
    assert tiny.num_users == 20 and tiny.num_items == 60
    same = world(20.0, 6e1, seed=9, interactions=5, sides="kg", split=None)
    assert same.fingerprint == tiny.fingerprint
    wide = world(30, 5000, seed=9, sides=("trust",), split=None)
    assert wide.num_items == 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": 3}, "users is 3"),
        ({"items": 10}, "items is 10"),
        ({"interactions": 1}, "interactions is 1"),
        ({"views": 9}, "views is 9"),
        ({"sides": ("kgs",)}, "Did you mean 'kg'"),
        ({"sides": "kg+texts"}, "Did you mean 'text'"),
        ({"users": 20.5}, "whole number"),
    ],
)
def test_impossible_worlds_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        world(**options)


def test_draws() -> None:
    sample = normals(0, "x", 4000, 4)
    assert abs(sample.mean()) < 0.5 and abs(sample.std() - UNIT) < 0.5
    noise = gumbels(bits(0, "g", np.arange(20_000))) / GUMBEL_UNIT
    assert abs(noise.mean() - 0.5772) < 0.05 and abs(noise.std() - 1.2825) < 0.05
    shelves = Shelves(np.array([0, 2, 0]), np.array([1, 5, 3]), 3)
    drawn = shelves.draw(np.repeat([0, 1, 2], 4000), bits(0, "s", np.arange(12_000))).reshape(3, 4000)
    assert set(drawn[0]) == {0, 2} and abs((drawn[0] == 2).mean() - 0.75) < 0.03
    assert set(drawn[1]) == {0, 1, 2} and set(drawn[2]) == {1}
    np.testing.assert_array_equal(unit_rows(np.array([[3, 4], [0, 0]])), np.array([[0.6, 0.8], [0, 0]], np.float32))
    assert set(SIDES) == {"kg", "tags", "trust", "text", "image"}
