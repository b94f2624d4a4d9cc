"""Relations made of tested interactions are found, relations that are not, are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphrec.datasets import Builder, RecDataset, load, relation_leaks
from graphrec.datasets.leaks import behaviour_leaks, item_pairs, leak_notes, speaks_of_behaviour
from graphrec.errors import InputError


def planted() -> RecDataset:
    """200 users with 6 items of 120 each, two of them in test; a relation of test pairs, and a random one."""
    random = np.random.default_rng(0)
    items = np.stack([random.choice(120, 6, replace=False) for _ in range(200)])
    part = np.tile(["train"] * 4 + ["test"] * 2, (200, 1))
    builder = Builder("planted")
    users = np.repeat(np.arange(200), 6)
    builder.interactions({"user": users, "item": items.ravel(), "part": part.ravel()}, part="part")
    held = items[:, 4:]
    builder.triples({"h": held[:, 0], "t": held[:, 1]}, head=("item", "h"), relation="linked", tail=("item", "t"))
    drawn = random.integers(0, 120, (200, 2))
    builder.triples({"h": drawn[:, 0], "t": drawn[:, 1]}, head=("item", "h"), relation="random", tail=("item", "t"))
    codes = {"h": np.arange(120), "t": np.arange(120) % 10}
    builder.triples(codes, head=("item", "h"), relation="coloured", tail=("entity", "t"))
    builder.interactions({"user": users[::6], "item": held[:, 0]}, behaviour="cart")
    return builder.target("interacts").build()


def slow_share(data: RecDataset, pairs: np.ndarray) -> float:
    """The share of pairs with a user who tests one and has the other in test or train."""
    test = [set(items.tolist()) for items in np.split(data.pairs("test").items, data.pairs("test").indptr[1:-1])]
    train = [set(items.tolist()) for items in np.split(data.pairs("train").items, data.pairs("train").indptr[1:-1])]
    hits = 0
    for one, other in pairs.tolist():
        hits += any(
            (one in held and (other in held or other in known)) or (other in held and one in known)
            for held, known in zip(test, train, strict=True)
        )
    return hits / len(pairs)


def test_a_relation_of_test_pairs_is_told_from_a_random_one() -> None:
    data = planted()
    leaks = {leak.relation: leak for leak in relation_leaks(data)}
    assert leaks["linked"].share == 1.0 and leaks["linked"].test_share == 1.0 and leaks["linked"].possible
    assert leaks["linked"].lift > 3 and leaks["linked"].z > 10
    assert not leaks["random"].possible and abs(leaks["random"].z) < 3
    assert not leaks["coloured"].possible and leaks["coloured"].through == "entity"
    for (name, _), pairs in item_pairs(data).items():
        assert leaks[name].share == pytest.approx(slow_share(data, pairs))
        assert leaks[name].pairs == len(pairs)
    assert relation_leaks(data) == relation_leaks(data)
    assert "linked: 100.00% of" in str(leaks["linked"])


def test_pairs_over_an_entity_share_it() -> None:
    pairs = item_pairs(planted())["coloured", "entity"]
    assert len(pairs) == 120 and (pairs[:, 0] != pairs[:, 1]).all() and (pairs[:, 0] % 10 == pairs[:, 1] % 10).all()


def test_other_behaviours_that_hold_test_pairs() -> None:
    (cart,) = behaviour_leaks(planted())
    assert (cart.behaviour, cart.pairs, cart.shared, cart.share) == ("user__cart__item", 200, 200, 0.5)


def test_without_a_test_part_or_pairs() -> None:
    builder = Builder().interactions({"user": [0, 1], "item": [0, 1]})
    with pytest.raises(InputError, match="no test part"):
        relation_leaks(builder.build())
    split = Builder().interactions({"user": [0, 1], "item": [0, 1], "p": ["train", "test"]}, part="p").build()
    assert relation_leaks(split) == ()


def test_names_that_speak_of_behaviour() -> None:
    assert all(map(speaks_of_behaviour, ("also_bought", "alsoViewed", "bought together", "CART")))
    assert not any(map(speaks_of_behaviour, ("made_by", "film.film.genre", "instruments_played", "cartoon", "0")))


@pytest.mark.realdata
def test_also_bought_is_noted_and_measured(data_root: Path) -> None:
    if not (data_root / "amazon-beauty-kg").is_dir():
        pytest.skip("amazon-beauty-kg is not at hand")
    data = load("amazon-beauty-kg", root=data_root, merge_related=True)
    told = [note.subject for note in leak_notes(data)]
    assert told == [f"triples of {name}" for name in ("also_bought", "also_viewed", "bought_together")]
    assert {str(note) for note in leak_notes(data)} <= {str(note) for note in data.notes}
    found = {(leak.relation, leak.through): leak for leak in relation_leaks(data, draws=1)}
    assert found["also_bought", "pair"].lift > 5 and found["also_bought", "pair"].possible
    assert not found["produced_by", "entity"].possible
