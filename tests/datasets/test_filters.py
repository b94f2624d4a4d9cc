from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.datasets import Builder, RecDataset
from graphrec.datasets.filters import core_mask
from graphrec.errors import InputError

T = ("user", "interacts", "item")


def plain_core(pairs: set[tuple[int, int]], min_users: int, min_items: int) -> set[tuple[int, int]]:
    """One node at a time, any order: the result is unique."""
    pairs = set(pairs)
    while True:
        for place, fewest in ((0, min_users), (1, min_items)):
            nodes = {pair[place] for pair in pairs}
            weak = next((n for n in nodes if sum(pair[place] == n for pair in pairs) < fewest), None)
            if weak is not None:
                pairs = {pair for pair in pairs if pair[place] != weak}
                break
        else:
            return pairs


@settings(deadline=None, max_examples=100)
@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_the_core_agrees_with_the_plain_definition(pairs: set[tuple[int, int]], k_users: int, k_items: int) -> None:
    ordered = sorted(pairs)
    users, items = np.array([u for u, _ in ordered], np.int32), np.array([i for _, i in ordered], np.int32)
    mask = core_mask(users, items, 8, 8, k_users, k_items)
    kept = {pair for pair, keep in zip(ordered, mask, strict=True) if keep}
    assert kept == plain_core(pairs, k_users, k_items)
    again = core_mask(users[mask], items[mask], 8, 8, k_users, k_items)
    assert again.all()


def toy() -> RecDataset:
    builder = Builder("toy")
    rows = {
        "user": [1, 1, 2, 2, 3, 3, 4], "item": [10, 11, 10, 11, 10, 12, 11],
        "rating": [5, 4, 3, 5, 4, 2, 1], "time": [1, 2, 3, 4, 5, 6, 7],
    }  # fmt: skip
    builder.interactions(rows, rating="rating", time="time")
    builder.triples({"head": [10, 12], "relation": ["r", "r"], "tail": ["x", "y"]}, head=("item", "head"))
    builder.tags({"item": [10, 11], "tag": ["a", "b"], "user": [1, 4]}, user="user")
    builder.names("item", [10, 12], ["ten", "twelve"]).features("item", [10, 11, 12], np.eye(3), name="image")
    return builder.build()


def test_a_core_drops_nodes_and_all_that_hung_on_them() -> None:
    data = toy()
    core = data.filter_k_core(2)
    assert core.vocabularies["user"].raw.tolist() == [1, 2] and core.vocabularies["item"].raw.tolist() == [10, 11]
    assert core.tables[T].edge_id.tolist() == [0, 1, 2, 3]
    assert core.tables["item", "related", "entity"].edge_id.tolist() == [0]
    assert core.tables["item", "tagged", "tag"].edge_id.tolist() == [0, 1]
    assert core.tables["item", "tagged", "tag"].user.tolist() == [0, -1]
    assert core.names["item"].tolist() == ["ten", None]
    assert core.features["item", "image"].tolist() == [[1, 0, 0], [0, 1, 0]]
    counts = {note.subject: note.count for note in core.notes if "outside" in note.detail}
    assert counts["user"] == 2 and counts["item"] == 1 and counts["item__related__entity"] == 1
    assert data.num_users == 4 and len(data.tables[T]) == 7
    assert core.filter_k_core(2).tables[T].edge_id.tolist() == [0, 1, 2, 3]
    kept = data.filter_k_core(2, isolated="keep")
    assert kept.num_users == 4 and len(kept.tables[T]) == 4
    assert kept.rows(T, 3).tolist() == [3]


def test_labelled_negatives_do_not_count_for_a_core() -> None:
    rows = {"user": [1, 1, 2, 2, 3], "item": [1, 2, 1, 2, 1], "label": [1, 1, 1, 1, 0]}
    core = Builder().interactions(rows, label="label").build().filter_k_core(2)
    assert core.vocabularies["user"].raw.tolist() == [1, 2]


def test_a_rating_threshold_is_explicit_and_counted() -> None:
    data = toy()
    filtered = data.filter_rating(4)
    assert filtered.tables[T].edge_id.tolist() == [0, 1, 3, 4]
    assert str(filtered.notes[-1]) == "3 interactions removed: rated below 4"
    labelled = data.filter_rating(4, as_label=True)
    assert labelled.tables[T].label.tolist() == [1, 1, 0, 1, 1, 0, 0]
    assert labelled.graph()[T].edge_id.tolist() == [0, 1, 3, 4]
    with pytest.raises(InputError, match="has no ratings"):
        Builder().interactions({"user": [1], "item": [1]}).build().filter_rating(4)
    with pytest.raises(InputError, match=r"no rating of at least 9; they go from 1 to 5"):
        data.filter_rating(9)


def test_a_time_range() -> None:
    assert toy().filter_time(3).tables[T].edge_id.tolist() == [2, 3, 4, 5, 6]
    assert toy().filter_time(3, 5).tables[T].edge_id.tolist() == [2, 3]
    with pytest.raises(InputError, match="has no times"):
        Builder().interactions({"user": [1], "item": [1]}).build().filter_time(3)


def cold_world() -> RecDataset:
    builder = Builder().interactions({"user": [1, 2], "item": [1, 2]}, part="train")
    return builder.interactions({"user": [1, 3, 1], "item": [2, 1, 9]}, part="test").build()


@pytest.mark.parametrize(("policy", "left"), [("keep", 3), ("drop", 1)])
def test_cold_users_and_items_are_counted_either_way(policy: Any, left: int) -> None:
    data = cold_world().filter_cold(policy)
    assert data.part_counts()["test"] == left
    assert data.notes[-1].count == 2 and "1 users and 1 items" in data.notes[-1].detail


def test_isolated_nodes_are_counted_either_way() -> None:
    builder = Builder().interactions({"user": [1], "item": [1]}).nodes("item", [1, 2, 3]).nodes("user", [0, 1])
    data = builder.tags({"item": [2], "tag": ["x"]}).build()
    dropped = data.filter_isolated()
    assert dropped.vocabularies["item"].raw.tolist() == [1, 2] and dropped.vocabularies["user"].raw.tolist() == [1]
    assert dropped.tables["item", "tagged", "tag"].source.tolist() == [1]
    assert data.filter_isolated(node_types=["user"]).num_items == 3
    kept = data.filter_isolated("keep")
    assert kept.num_items == 3 and {note.subject: note.count for note in kept.notes[-2:]} == {"user": 1, "item": 1}
    with pytest.raises(InputError, match=r"unknown policy 'dorp'. Did you mean 'drop'"):
        data.filter_isolated("dorp")
    with pytest.raises(InputError, match="unknown node type"):
        data.filter_isolated(node_types=["users"])


def test_filters_that_take_everything_leave_an_empty_dataset() -> None:
    empty = toy().filter_k_core(50)
    assert len(empty.tables[T]) == 0 and empty.num_users == 0 and "0 interactions" in empty.summary()
