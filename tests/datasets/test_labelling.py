from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphrec.datasets import load
from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.labelling import draw_negatives
from graphrec.datasets.split_files import load_split, save_split
from graphrec.errors import InputError


def rated(num_users: int = 30, num_items: int = 25, seed: int = 0) -> RecDataset:
    """Ratings of 1 to 5 with times; the last user has rated all items but one."""
    draws = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        count = num_items - 1 if user == num_users - 1 else int(draws.integers(1, 10))
        for item in draws.choice(num_items, size=count, replace=False):
            rows.append((user, item, int(draws.integers(1, 6)), 1000 + len(rows)))
    builder = Builder("rated")
    builder.nodes("item", np.arange(num_items))
    frame = pd.DataFrame(rows, columns=["user", "item", "rating", "time"])
    builder.interactions(frame, user="user", item="item", rating="rating", time="time")
    return builder.build()


def sets(data: RecDataset, label: int) -> dict[int, set[int]]:
    """Items of each user with a label."""
    table = data.tables[data.target]
    assert table.label is not None
    found: dict[int, set[int]] = {user: set() for user in range(data.num_users)}
    for user, item, value in zip(table.source.tolist(), table.target.tolist(), table.label.tolist(), strict=True):
        if value == label:
            assert item not in found[user]
            found[user].add(item)
    return found


def test_as_many_as_positives_and_none_rated_low() -> None:
    before = rated()
    judged = before.filter_rating(4, as_label=True)
    liked, disliked = sets(judged, 1), sets(judged, 0)
    data = judged.draw_negatives(labelled="drop")
    drawn = sets(data, 0)
    assert sets(data, 1) == liked
    for user in range(data.num_users):
        assert not drawn[user] & (liked[user] | disliked[user])
        free = data.num_items - len(liked[user]) - len(disliked[user])
        assert len(drawn[user]) == min(len(liked[user]), free)
    assert len(drawn[data.num_users - 1]) == 1 < len(liked[data.num_users - 1])
    told = [str(note) for note in data.notes]
    assert any("not drawn" in note and "too few left" in note for note in told)
    assert any("labelled 0 before others were drawn" in note for note in told)
    table = data.tables[data.target]
    assert (np.diff(table.source.astype(int) * data.num_items + table.target) > 0).all()
    assert len(set(table.edge_id.tolist())) == len(table)


def test_old_rows_keep_their_ids_and_new_ones_are_found() -> None:
    before = rated()
    data = before.draw_negatives(2)
    old, new = before.tables[before.target], data.tables[data.target]
    assert (new.positions(new.edge_id) == np.arange(len(new))).all()
    assert new.edge_id[new.positions(old.edge_id)].tolist() == old.edge_id.tolist()
    at = new.positions(old.edge_id)
    assert (new.source[at] == old.source).all() and (new.target[at] == old.target).all()
    assert new.rating is not None and new.time is not None and new.label is not None
    assert np.isnan(new.rating[new.label == 0]).all()
    # A draw has the time of one of its user's positives.
    for user in range(data.num_users):
        mine = new.source == user
        assert set(new.time[mine & (new.label == 0)]) <= set(new.time[mine & (new.label == 1)])
    gone = data.without(new.edge_id[new.label == 0])
    assert gone.tables[gone.target].edge_id.tolist() == old.edge_id.tolist()
    assert data.graph(part=None)[data.target].edge_index.shape[1] == len(old)


def test_labelled_negatives_that_are_kept_are_not_drawn_again() -> None:
    judged = rated().filter_rating(4, as_label=True)
    disliked = sets(judged, 0)
    data = draw_negatives(judged, 1)
    for user, items in sets(data, 0).items():
        assert disliked[user] <= items


def test_draws_follow_the_seed_and_the_user_alone() -> None:
    before = rated()
    first, again, other = (sets(before.draw_negatives(seed=seed), 0) for seed in (0, 0, 1))
    assert first == again != other
    table = before.tables[before.target]
    fewer = sets(before.without(table.edge_id[table.source == 3]).draw_negatives(), 0)
    assert not fewer[3]
    assert {user: items for user, items in fewer.items() if user != 3} == {
        user: items for user, items in first.items() if user != 3
    }


def test_draws_are_uniform() -> None:
    users = np.repeat(np.arange(4000), 2)
    frame = pd.DataFrame({"user": users, "item": np.tile([0, 1], 4000)})
    builder = Builder()
    builder.nodes("item", np.arange(10))
    builder.interactions(frame, user="user", item="item")
    data = builder.build().draw_negatives()
    table = data.tables[data.target]
    assert table.label is not None
    counts = np.bincount(table.target[table.label == 0], minlength=10)
    assert counts[:2].tolist() == [0, 0]
    # Standard deviation about 27.
    assert abs(counts[2:] - 1000).max() < 130


def test_a_draw_takes_the_part_of_its_positive() -> None:
    data = rated().split("random:.6,.2,.2").draw_negatives(3)
    table = data.tables[data.target]
    assert table.part is not None and table.label is not None
    free = np.array([data.num_items - (table.label[table.source == u] == 1).sum() for u in range(data.num_users)])
    for user in range(data.num_users):
        mine = table.source == user
        liked = np.bincount(table.part[mine & (table.label == 1)], minlength=3)
        drawn = np.bincount(table.part[mine & (table.label == 0)], minlength=3)
        if 3 * liked.sum() <= free[user]:
            assert drawn.tolist() == (3 * liked).tolist()


def test_a_split_of_drawn_pairs_is_saved_and_read(tmp_path: Path) -> None:
    drawn = rated().draw_negatives()
    data = drawn.split("random_pairs:.6,.2,.2", seed=4)
    save_split(data, tmp_path / "split")
    assert load_split(drawn, tmp_path / "split").fingerprint == data.fingerprint


def test_load_draws_and_can_do_it_again(tmp_path: Path) -> None:
    from graphrec.datasets.load import load_again

    before = rated()
    table = before.tables[before.target]
    frame = pd.DataFrame({"user": table.source, "item": table.target, "stars": table.rating})
    frame.to_csv(tmp_path / "stars.csv", index=False)
    options = {"columns": "user=user,item=item,rating=stars", "split": "random_pairs:.6,.2,.2", "seed": 3}
    data = load(tmp_path / "stars.csv", min_rating=4, drawn_negatives=1, **options)
    labels = data.tables[data.target].label
    assert labels is not None and data.loaded is not None
    assert int((labels == 1).sum()) == int((frame["stars"] >= 4).sum()) >= int((labels == 0).sum()) > 0
    assert data.loaded["drawn_negatives"] == 1
    assert load_again(data.loaded).fingerprint == data.fingerprint
    other = load(tmp_path / "stars.csv", min_rating=4, drawn_negatives=1, **{**options, "seed": 4})
    assert sets(other, 0) != sets(data, 0)


def test_what_is_wrong_is_said() -> None:
    for count in (0, True, 1.5):
        with pytest.raises(InputError, match="whole number of at least 1"):
            rated().draw_negatives(count)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Did you mean 'drop'"):
        rated().draw_negatives(labelled="dropp")  # type: ignore[arg-type]
