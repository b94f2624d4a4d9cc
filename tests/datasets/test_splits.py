from __future__ import annotations

import contextlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.datasets import Builder, RecDataset
from graphrec.datasets.cuts import draws, part_sizes
from graphrec.datasets.split_files import load_split, save_split, split_hash
from graphrec.datasets.splits import (
    SPLITS,
    ColdItems,
    FixedSplit,
    GlobalTimeSplit,
    LeaveOneOut,
    RandomSplit,
    parse_split,
)
from graphrec.errors import InputError, MissingFileError

T = ("user", "interacts", "item")
PAIRS = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 14)),
    st.tuples(st.integers(0, 9), st.integers(0, 1)),
    min_size=1,
    max_size=50,
)
RATIOS = st.sampled_from([(0.8, 0.1, 0.1), (0.7, 0.2, 0.1), (0.5, 0.0, 0.5), (0.9, 0.1, 0.0), (0.34, 0.33, 0.33)])


def built(pairs: dict[tuple[int, int], tuple[int, int]], labels: bool = False) -> RecDataset:
    rows: dict[str, Any] = {
        "user": [u for u, _ in pairs], "item": [i for _, i in pairs],
        "time": [t for t, _ in pairs.values()], "label": [y if labels else 1 for _, y in pairs.values()],
    }  # fmt: skip
    return Builder().interactions(rows, time="time", label="label").build()


def sizes(count: int, ratios: tuple[float, float, float]) -> list[int]:
    """RecBole's rounding, exactly, as a loop over one user."""
    exact = [Fraction(str(ratio)) for ratio in ratios]
    parts = [0, int(exact[1] * count), int(exact[2] * count)]
    parts[0] = count - sum(parts)
    for place in (2, 1):
        if parts[0] <= 1:
            break
        if 0 < exact[place] * count < 1:
            parts[place] += 1
            parts[0] -= 1
    return parts


def reference(data: RecDataset, ratios: tuple[float, float, float], keys: Any) -> list[int]:
    table = data.tables[T]
    groups: dict[tuple[int, int], list[int]] = {}
    for row in range(len(table)):
        groups.setdefault((int(table.source[row]), int(table.label[row])), []).append(row)
    parts = [0] * len(table)
    for rows in groups.values():
        rows.sort(key=lambda row: (keys[row], row))
        counts = sizes(len(rows), ratios)
        for place, row in enumerate(rows):
            parts[row] = 0 if place < counts[0] else 1 if place < counts[0] + counts[1] else 2
    return parts


@settings(deadline=None, max_examples=60)
@given(PAIRS, RATIOS, st.integers(0, 5), st.booleans())
def test_ratios_per_user_agree_with_the_plain_definition(
    pairs: dict[Any, Any], ratios: tuple[float, float, float], seed: int, labels: bool
) -> None:
    data = built(pairs, labels)
    table = data.tables[T]
    random = data.split(RandomSplit(ratios, seed))
    assert random.tables[T].part.tolist() == reference(data, ratios, draws(seed, table).tolist())
    by_time = data.split(f"time:{','.join(map(str, ratios))}")
    assert by_time.tables[T].part.tolist() == reference(data, ratios, table.time.tolist())
    for split in (random, by_time):
        train = split.tables[T].part == 0
        assert set(table.source.tolist()) == set(table.source[train].tolist())
        assert split.tables[T].edge_id.tolist() == table.edge_id.tolist()


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (9, [7, 1, 1]), (10, [8, 1, 1]), (30, [24, 3, 3])],
)
def test_the_rounding_rule_by_hand(count: int, expected: list[int]) -> None:
    train, valid = part_sizes(np.array([count]), (0.8, 0.1, 0.1))
    assert (
        [int(train[0]), int(valid[0]), count - int(train[0]) - int(valid[0])]
        == expected
        == sizes(count, (0.8, 0.1, 0.1))
    )


@settings(deadline=None, max_examples=60)
@given(PAIRS, st.sampled_from(["time", "random"]), st.integers(0, 3))
def test_leave_one_out_agrees_with_the_plain_definition(pairs: dict[Any, Any], by: Any, seed: int) -> None:
    data = built(pairs)
    table = data.tables[T]
    keys = table.time if by == "time" else draws(seed, table)
    expected = [0] * len(table)
    for user in set(table.source.tolist()):
        rows = sorted((row for row in range(len(table)) if table.source[row] == user), key=lambda row: (keys[row], row))
        if len(rows) > 1:
            expected[rows[-1]] = 2
        if len(rows) > 2:
            expected[rows[-2]] = 1
    assert data.split(LeaveOneOut(by, seed)).tables[T].part.tolist() == expected


@settings(deadline=None, max_examples=40)
@given(PAIRS, st.data())
def test_taking_a_user_away_leaves_the_others_where_they_were(pairs: dict[Any, Any], draw: Any) -> None:
    data = built(pairs)
    table = data.tables[T]
    user = draw.draw(st.sampled_from(sorted(set(table.source.tolist()))))
    gone = table.edge_id[table.source == user]
    for spec in ("random:.6,.2,.2;seed=3", "time:.6,.2,.2", "leave_one_out:random"):
        before = dict(zip(table.edge_id.tolist(), data.split(spec).tables[T].part.tolist(), strict=True))
        less = data.without(gone).split(spec).tables[T]
        assert all(before[edge] == part for edge, part in zip(less.edge_id.tolist(), less.part.tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(PAIRS, st.data())
def test_taking_an_edge_away_moves_at_most_the_rounding(pairs: dict[Any, Any], draw: Any) -> None:
    data = built(pairs)
    table = data.tables[T]
    edge = draw.draw(st.sampled_from(table.edge_id.tolist()))
    before = dict(zip(table.edge_id.tolist(), data.split("random:.6,.2,.2").tables[T].part.tolist(), strict=True))
    less = data.without([edge]).split("random:.6,.2,.2").tables[T]
    moved = sum(before[e] != part for e, part in zip(less.edge_id.tolist(), less.part.tolist(), strict=True))
    assert moved <= 2


def world(users: int = 40, items: int = 60, count: int = 900, **options: Any) -> RecDataset:
    generator = np.random.default_rng(0)
    rows = {"user": generator.integers(0, users, count), "item": generator.integers(0, items, count),
            "time": generator.integers(0, 1000, count)}  # fmt: skip
    return Builder("w").interactions(rows, time="time", **options).build()


def test_seeds_and_only_seeds_change_a_split() -> None:
    data = world()
    one = data.split("random:.8,.1,.1", seed=1)
    assert one.fingerprint == data.split("random:.8,.1,.1;seed=1").fingerprint
    assert one.fingerprint != data.split("random:.8,.1,.1", seed=2).fingerprint


def test_global_time_cuts_one_timeline() -> None:
    data = world().split("global_time:500,800")
    table = data.tables[T]
    assert (table.part == np.where(table.time < 500, 0, np.where(table.time < 800, 1, 2))).all()
    shares = world().split("global_time:.8,.1,.1")
    counts = shares.part_counts()
    assert abs(counts["train"] / len(shares.tables[T]) - 0.8) < 0.02
    assert (
        shares.tables[T].time[shares.tables[T].part == 0].max()
        < shares.tables[T].time[shares.tables[T].part == 2].min()
    )
    assert world().split(GlobalTimeSplit(at=(500.0,))).parts == ("train", "test")


def test_cold_items_have_no_training_edge_of_any_behaviour() -> None:
    generator = np.random.default_rng(0)
    rows = {"user": generator.integers(0, 30, 500), "item": generator.integers(0, 50, 500),
            "what": generator.choice(["buys", "views"], 500)}  # fmt: skip
    data = Builder().interactions(rows, behaviour="what").target("buys").build().split("cold_items:.1,.2;seed=5")
    table = data.tables[data.target]
    held = {part: set(table.target[table.part == part].tolist()) for part in (0, 1, 2)}
    assert not held[0] & held[2] and not held[0] & held[1] and not held[1] & held[2]
    assert len(held[2]) == int(0.2 * len(set(table.target.tolist())))
    for edge_type in data.tables:
        assert not set(data.graph()[edge_type].edge_index[1].tolist()) & (held[1] | held[2])
    assert any("cold" in note.detail for note in data.notes)


def test_cold_users_have_no_training_edge() -> None:
    data = world().split("cold_users:.2")
    table = data.tables[T]
    assert not set(table.source[table.part == 0].tolist()) & set(table.source[table.part == 2].tolist())
    assert len(set(table.source[table.part == 2].tolist())) == 8


def test_pairs_at_random_have_the_exact_sizes() -> None:
    data = world()
    counts = data.split("random_pairs:.6,.2,.2").part_counts()
    size = len(data.tables[T])
    assert counts["valid"] == counts["test"] == int(0.2 * size + 1e-9)


def test_valid_is_held_out_of_train_and_test_stays() -> None:
    data = world().split("random:.8,.2")
    held = data.split("valid:.1;seed=2")
    before, after = data.tables[T].part, held.tables[T].part
    assert ((before == 2) == (after == 2)).all() and (after == 1).any()
    assert set(data.tables[T].source.tolist()) == set(data.tables[T].source[after == 0].tolist())
    assert held.split("fixed:valid=train").tables[T].part.tolist() == before.tolist()
    assert held.split("fixed").fingerprint == held.fingerprint
    assert world().split("valid:.1").parts == ("train", "valid")


def test_a_pair_in_two_parts_is_split_once() -> None:
    builder = Builder().interactions({"user": [1, 1, 1], "item": [1, 2, 3]}, part="train")
    data = builder.interactions({"user": [1], "item": [1]}, part="test").build()
    assert len(data.split("fixed").tables[T]) == 4
    split = data.split("random:.5,.5")
    assert len(split.tables[T]) == 3
    assert any(note.action == "removed" and note.count == 1 for note in split.notes)


@pytest.mark.parametrize(
    "spec",
    [
        "random:0.8,0.1,0.1", "random:0.8,0.1,0.1;seed=3", "random_pairs:0.6,0.2,0.2", "time:0.7,0.2,0.1",
        "global_time:100,200", "global_time:0.8,0.1,0.1", "leave_one_out", "leave_one_out:random;seed=1",
        "cold_items:0.1", "cold_items:0.05,0.1", "cold_users:0.1", "fixed", "fixed:valid=train", "valid:0.1",
    ],
)  # fmt: skip
def test_string_forms_come_back(spec: str) -> None:
    assert str(parse_split(spec)) == spec
    assert parse_split(str(parse_split(spec))) == parse_split(spec)
    assert {type(parse_split(name)) for name in SPLITS} == set(SPLITS.values())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("randon:.8,.2", "unknown split 'randon'. Did you mean 'random'"),
        ("random:.8,.1", "add up to 1"),
        ("random:.8,.1,.05,.05", "two or three ratios"),
        ("random:a,b", "expected numbers"),
        ("random:nan,.5", "finite"),
        ("random:0,1", "leave some for train"),
        ("leave_one_out:last", "unknown order of leave_one_out"),
        ("cold_items:1.5", "between 0 and 1"),
        ("cold_items:.7,.1,.2", r"those for valid and test \(cold_items:.1,.2\)"),
        ("cold_items:.6,.5", "nothing for train"),
        ("valid:.1,.2", "one fraction"),
        ("fixed:x", "fixed:valid=train"),
        ("global_time:9,3", "the earlier one first"),
        ("random:.8,.2;sead=3", "expected ;seed=N"),
    ],
)
def test_splits_that_make_no_sense_are_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_split(spec)


@settings(deadline=None, max_examples=100)
@given(
    st.text(max_size=30)
    | st.sampled_from(sorted(SPLITS)).flatmap(
        lambda name: st.text(":,;.0123456789e-", max_size=12).map(lambda rest: name + rest)
    )
)
def test_only_input_errors_come_out_of_the_parser(spec: str) -> None:
    with contextlib.suppress(InputError):
        parse_split(spec)


def test_what_a_split_needs_is_said() -> None:
    with pytest.raises(InputError, match="expected a string such as"):
        parse_split(3)
    data = Builder().interactions({"user": [1], "item": [1]}).build()
    with pytest.raises(InputError, match="needs a time"):
        data.split("time:.8,.1,.1")
    with pytest.raises(InputError, match="came without parts"):
        data.split(FixedSplit())


@pytest.mark.parametrize("spec", sorted(SPLITS))
def test_every_split_takes_an_empty_dataset(spec: str) -> None:
    data = Builder().interactions({"user": [], "item": [], "t": [], "p": []}, time="t", part="p").build()
    if spec != "fixed":
        assert len(data.split(spec).tables[T]) == 0


def test_a_saved_split_comes_back(tmp_path: Path) -> None:
    data = world()
    split = data.split("random:.8,.1,.1", seed=4)
    beside = save_split(split, tmp_path / "deep" / "split.parquet")
    described = json.loads(beside.read_text())
    assert described["hash"] == split_hash(split)
    for path in (beside, tmp_path / "deep" / "split.parquet"):
        assert load_split(data, path).fingerprint == split.fingerprint
    assert load_split(data.split("leave_one_out"), beside).fingerprint == split.fingerprint
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["split.json", "split.parquet"]


def test_a_split_of_other_data_or_a_changed_one_is_refused(tmp_path: Path) -> None:
    data = world()
    path = tmp_path / "split.parquet"
    save_split(data.split("random:.8,.1,.1"), path)
    for other in (data.without([0]), world(count=901)):
        with pytest.raises(InputError, match="another version"):
            load_split(other, path)
    rows = pq.read_table(path)
    part = rows["part"].to_numpy().copy()
    part[0] = (part[0] + 1) % 3
    pq.write_table(rows.set_column(2, "part", pa.array(part)), path)
    with pytest.raises(InputError, match="was changed"):
        load_split(data, path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="no readable split"):
        load_split(data, path)
    with pytest.raises(MissingFileError):
        load_split(data, tmp_path / "other.parquet")
    with pytest.raises(InputError, match="no parts to save"):
        save_split(data, path)


def test_ratio_splits_do_not_depend_on_other_settings() -> None:
    assert ColdItems(0.1, seed=1) == ColdItems(0.1, 0.0, 1)
    assert RandomSplit((0.8, 0.2)).ratios == (0.8, 0.0, 0.2)
