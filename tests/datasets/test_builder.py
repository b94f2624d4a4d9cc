from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.datasets import Builder, RecDataset
from graphrec.errors import InputError

T = ("user", "interacts", "item")
ROWS = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 4), st.integers(0, 3), st.integers(0, 1), st.integers(0, 1), st.integers(1, 9)
    ),
    min_size=1,
    max_size=40,
)
NAMES = ("user", "item", "time", "part", "label", "weight")


def frame(rows: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[place] for row in rows]) for place, name in enumerate(NAMES)}


def built(rows: list[tuple[int, ...]], duplicates: Any) -> RecDataset:
    builder = Builder()
    builder.interactions(frame(rows), time="time", part="part", label="label", weight="weight", duplicates=duplicates)
    return builder.build()


def reference(rows: list[tuple[int, ...]], duplicates: str) -> list[tuple[Any, ...]]:
    """Edges in canonical order as (user, item, time, part, label, weight, source rows)."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault((row[0], row[1], row[3]), []).append(number)
    edges = []
    for (user, item, part), members in groups.items():
        members.sort(key=lambda number: (rows[number][2], number))
        weight: float
        if duplicates == "sum":
            best = max(rows[number][4] for number in members)
            chosen = [number for number in members if rows[number][4] == best]
            weight = sum(rows[number][5] for number in chosen)
            time, label = rows[chosen[-1]][2], best
        else:
            one = members[0] if duplicates == "first" else members[-1]
            time, label, weight = rows[one][2], rows[one][4], rows[one][5]
        edges.append((user, item, time, part, label, weight, tuple(sorted(members))))
    return sorted(edges, key=lambda edge: (edge[0], edge[1], edge[2], edge[3]))


@settings(deadline=None, max_examples=120)
@given(ROWS, st.sampled_from(["first", "last", "sum"]))
def test_duplicates_agree_with_the_plain_definition(rows: list[tuple[int, ...]], duplicates: str) -> None:
    data = built(rows, duplicates)
    table = data.tables[T]
    users, items = data.vocabularies["user"].raw, data.vocabularies["item"].raw
    found = [
        (
            int(users[table.source[e]]), int(items[table.target[e]]), int(table.time[e]), int(table.part[e]),
            int(table.label[e]), float(table.weight[e]), tuple(data.rows(T, e).tolist()),
        )
        for e in range(len(table))
    ]  # fmt: skip
    assert found == reference(rows, duplicates)
    assert table.edge_id.tolist() == list(range(len(table)))
    merged = sum(note.count for note in data.notes if note.action == "merged")
    assert merged == len(rows) - len(table)
    pairs: dict[tuple[int, int], set[int]] = {}
    for row in rows:
        pairs.setdefault(row[:2], set()).add(row[3])
    shared = sum(note.count for note in data.notes if "more than one part" in note.detail)
    assert shared == sum(len(parts) > 1 for parts in pairs.values())


@settings(deadline=None, max_examples=60)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[tuple[int, ...]], random: Any) -> None:
    # Rows with equal user, item, part and time are told apart by the input's order alone.
    rows = list({(row[0], row[1], row[2], row[3]): row for row in rows}.values())
    shuffled = list(rows)
    random.shuffle(shuffled)
    for duplicates in ("first", "last", "sum"):
        one, other = built(rows, duplicates), built(shuffled, duplicates)
        assert one.fingerprint == other.fingerprint
        assert one.digests() == other.digests()


def test_an_error_on_duplicates_names_both_rows() -> None:
    with pytest.raises(InputError, match=r"user 7 and item 'b' occur twice \(.*row 0.*row 2\)"):
        Builder().interactions({"user": [7, 7, 7], "item": ["b", "a", "b"]}, duplicates="error").build()


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pl.DataFrame, pa.table, lambda c: pa.table(c).to_batches()[0]])
def test_every_kind_of_frame_is_taken(make: Any) -> None:
    data = (
        Builder()
        .interactions(
            make(
                {"user": ["a", "b"], "item": [3, 1], "other": [object, object]}
                if make is dict
                else {"user": ["a", "b"], "item": [3, 1]}
            )
        )
        .build()
    )
    assert data.vocabularies["item"].raw.tolist() == [1, 3]
    assert data.tables[T].target.tolist() == [1, 0]


def test_anything_with_the_arrow_stream_interface_is_taken() -> None:
    class Stream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.table({"user": [1], "item": [2]}).__arrow_c_stream__(requested_schema)

    assert len(Builder().interactions(Stream()).build().tables[T]) == 1


def test_behaviours_become_edge_types() -> None:
    rows = {"user": [1, 1, 2], "item": [1, 2, 1], "what": ["views", "buys", "views"]}
    data = Builder().interactions(rows, behaviour="what").target("buys").build()
    assert data.target == ("user", "buys", "item")
    assert {name[1]: len(table) for name, table in data.tables.items()} == {"buys": 1, "views": 2}
    assert data.rows("views", [0, 1]).tolist() == [0, 2]
    with pytest.raises(InputError, match="say which one is ranked"):
        Builder().interactions(rows, behaviour="what").build()
    with pytest.raises(InputError, match="Did you mean 'buys'"):
        Builder().interactions(rows, behaviour="what").target("buy").build()
    with pytest.raises(InputError, match=r"is no column. Did you mean 'what'"):
        Builder().interactions(rows, behaviour="whta")


def test_parts_come_from_columns_words_and_calls() -> None:
    builder = Builder()
    builder.interactions({"user": [1, 1, 1], "item": [1, 2, 3], "p": ["train", "test", "Validation"]}, part="p")
    builder.interactions({"user": [2, 2], "item": [1, 2], "p": [2, 1]}, part="p")
    builder.interactions({"user": [3], "item": [1]}, part="test")
    builder.interactions({"user": [3], "item": [3]})
    data = builder.build()
    assert data.tables[T].part.tolist() == [0, 2, 1, 2, 1, 2, 0]
    assert any("kept as train" in str(note) for note in data.notes)
    with pytest.raises(InputError, match="row 1: part 'tset'"):
        Builder().interactions({"user": [1, 1], "item": [1, 2], "p": ["train", "tset"]}, part="p")
    with pytest.raises(InputError, match="neither a column nor one of train, valid, test"):
        Builder().interactions({"user": [1], "item": [1]}, part="tset")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"uid": [1], "item": [1]}, {}, "no column 'user'.*Found: 'uid', 'item'"),
        ({"user": [1], "items": [1]}, {}, "no column 'item'. Did you mean 'items'"),
        ({"rating": [3, 6]}, {"rating": "rating", "scale": (1, 5)}, "row 1: 6 is outside the scale 1 to 5"),
        ({"rating": [3, None]}, {"rating": "rating"}, "row 1: no number"),
        ({"rating": ["3", "x"]}, {"rating": "rating"}, "row 1: 'x' is no number"),
        ({"rating": [3, np.inf]}, {"rating": "rating"}, "row 1: inf is not a finite number"),
        ({"rating": [3, 1e300]}, {"rating": "rating"}, "row 1: 1e.300 is too large"),
        ({"time": [3.0, np.nan]}, {"time": "time"}, "row 1: no (time|number)"),
        ({"time": pa.array([3.0, np.nan])}, {"time": "time"}, "row 1: nan is not a finite number"),
        ({"time": ["2020-01-01", "soon"]}, {"time": "time"}, "is no time|no number"),
        ({"label": [1, 2]}, {"label": "label"}, "row 1: label 2"),
        ({"user": [1, 2, 3]}, {}, "unequal lengths"),
        ({}, {"duplicates": "lsat"}, "unknown policy for duplicates 'lsat'. Did you mean 'last'"),
    ],
)
def test_bad_columns_are_named(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    base = {"user": [1, 1], "item": [1, 2]} if not {"uid", "items"} & set(columns) else {}
    with pytest.raises(InputError, match=message):
        Builder().interactions({**base, **columns}, **options)


def test_times_of_all_kinds_become_seconds() -> None:
    for values in (
        [86400, 86401],
        ["86400", "86401"],
        pd.to_datetime(["1970-01-02 00:00:00", "1970-01-02 00:00:01"]),
        ["1970-01-02", "1970-01-02 00:00:01"],
        (pl.Series([86400, 86401]) * 1000).cast(pl.Datetime("ms")),
    ):
        table = Builder().interactions({"user": [1, 1], "item": [1, 2], "t": values}, time="t").build().tables[T]
        assert table.time.dtype == np.int64 and table.time.tolist() == [86400, 86401]
    half = Builder().interactions({"user": [1], "item": [1], "t": [0.5]}, time="t").build().tables[T]
    assert half.time.tolist() == [0.5]


def kg() -> RecDataset:
    builder = Builder()
    builder.interactions({"user": [1, 2], "item": ["a", "b"]})
    builder.triples(
        {"h": ["m.1", "m.2", "m.3", "m.1"], "r": ["x", "y", "x", "x"], "t": ["m.2", "m.4", "m.1", "m.2"]},
        head="h", relation="r", tail="t",
    )  # fmt: skip
    builder.triples(
        {"sku": ["c"], "brand": ["acme"]}, head=("item", "sku"), relation="made_by", tail=("entity", "brand")
    )
    builder.same(["m.1", "m.2"], ["a", "b"])
    builder.names("entity", ["m.1", "m.3"], ["item too", "three"]).kinds("entity", ["acme"], ["brand"])
    builder.features("entity", ["m.2", "m.4"], np.array([[1.0], [2.0]]), name="size")
    return builder.build()


def test_an_item_is_one_node_in_the_knowledge_graph_too() -> None:
    data = kg()
    items, entities = data.vocabularies["item"].raw.tolist(), data.vocabularies["entity"].raw.tolist()
    assert items == ["a", "b", "c"] and entities == ["acme", "m.3", "m.4"]
    relations = data.relations.raw.tolist()
    found = {
        (source, target): [
            (data.vocabularies[source].raw[s], relations[r], data.vocabularies[target].raw[t])
            for s, r, t in zip(table.source, table.relation, table.target, strict=True)
        ]
        for (source, name, target), table in data.tables.items()
        if name == "related"
    }
    assert found == {
        ("item", "item"): [("a", "x", "b")],
        ("item", "entity"): [("b", "y", "m.4"), ("c", "made_by", "acme")],
        ("entity", "item"): [("m.3", "x", "a")],
    }
    assert data.names["item"].tolist() == ["item too", None, None]
    assert data.names["entity"].tolist() == [None, "three", None]
    assert data.kinds["entity"].tolist() == ["brand", None, None]
    assert data.features["item", "size"].tolist() == [[0], [1], [0]]
    assert data.features["entity", "size"].tolist() == [[0], [0], [2]]
    assert data.rows(("item", "related", "item"), 0).tolist() == [0, 3]


def test_an_entity_that_is_two_items_becomes_the_first_and_is_said() -> None:
    builder = Builder().interactions({"user": [1, 1], "item": [1, 2]})
    builder.triples({"head": ["e"], "relation": ["r"], "tail": ["f"]}).same(["e", "e"], [2, 1])
    data = builder.build()
    assert data.tables["item", "related", "entity"].source.tolist() == [0]
    assert any(note.action == "ignored" and note.count == 1 for note in data.notes)


def test_tags_keep_who_assigned_them() -> None:
    builder = Builder().interactions({"user": [1], "item": [5]})
    builder.tags({"i": [5, 5, 6, 5], "t": ["fun", "fun", "fun", "fun"], "u": [1, 2, 2, 1]}, item="i", tag="t", user="u")
    data = builder.build()
    table = data.tables["item", "tagged", "tag"]
    assert list(zip(table.target.tolist(), table.source.tolist(), table.user.tolist(), strict=True)) == [
        (0, 0, 0), (0, 0, 1), (0, 1, 1)
    ]  # fmt: skip
    assert data.num_users == 2 and data.num_items == 2


def test_links_have_an_edge_type_of_their_own() -> None:
    builder = Builder().interactions({"user": [1], "item": [5]})
    builder.links({"a": [1, 2], "b": [2, 3]}, source=("user", "a"), target=("user", "b"))
    assert builder.build().tables["user", "trusts", "user"].target.tolist() == [1, 2]


def test_who_stated_a_triple_is_kept() -> None:
    builder = Builder().interactions({"user": [1], "item": [5]})
    rows = {"head": ["a", "b"], "tail": ["c", "c"], "from": ["wiki", "shop"]}
    data = builder.triples(rows, relation="near", source="from").build()
    table = data.tables["entity", "related", "entity"]
    assert data.origins.decode(table.origin).tolist() == ["wiki", "shop"]
    assert data.relations.raw.tolist() == ["near"]


def test_features_of_unknown_ids_are_left_out_or_added() -> None:
    def make(policy: Any) -> RecDataset:
        builder = Builder().interactions({"user": [1], "item": [5]})
        return builder.features("item", [5, 9], np.ones((2, 3), np.float16), name="image", unknown=policy).build()

    skipped, added = make("skip"), make("add")
    assert skipped.features["item", "image"].shape == (1, 3) and skipped.num_items == 1
    assert any(note.action == "left out" and note.count == 1 for note in skipped.notes)
    assert added.num_items == 2 and added.features["item", "image"].dtype == np.float32
    with pytest.raises(InputError, match="row 1 has NaN"):
        Builder().features("item", [5, 9], np.array([[1.0], [np.nan]]), name="image")
    with pytest.raises(InputError, match="3 ids but 2 rows"):
        Builder().features("item", [5, 9, 1], np.ones((2, 1)), name="image")


def test_declared_nodes_need_no_edges_and_are_counted() -> None:
    data = Builder().interactions({"user": [1], "item": [5]}).nodes("item", range(10)).build()
    assert data.num_items == 10
    assert any(note.subject == "item" and note.count == 9 and "isolated" in note.detail for note in data.notes)


def test_a_vocabulary_of_words_and_numbers_is_one_of_strings() -> None:
    builder = Builder().interactions({"user": [10, 9], "item": [1, 2]}).interactions({"user": ["x"], "item": ["1"]})
    data = builder.build()
    assert data.vocabularies["user"].raw.tolist() == ["10", "9", "x"]
    assert data.vocabularies["item"].raw.tolist() == [1, 2]


def test_nothing_to_build_is_said() -> None:
    with pytest.raises(InputError, match="no interactions"):
        Builder().build()


def test_an_empty_frame_builds_an_empty_dataset() -> None:
    data = Builder().interactions({"user": [], "item": []}).build()
    assert len(data.tables[T]) == 0 and data.num_users == 0
    assert data.fingerprint and data.summary() and data.graph()[T].edge_index.shape == (2, 0)


def test_odd_frames_are_taken() -> None:
    numbered = pd.DataFrame([[1, 2.5], [2, 3.5]])
    numbered["2"] = ["a", "b"]
    table = Builder().interactions(numbered, user="0", item="2", rating="1").build().tables[T]
    assert table.rating.tolist() == [2.5, 3.5]
    lazy = pl.DataFrame({"user": ["u", "v"], "item": [1, 2], "r": ["4", "5"]}).lazy()
    assert Builder().interactions(lazy, rating="r").build().tables[T].rating.tolist() == [4, 5]
    views = pa.table({"user": pa.array(["u"], pa.string_view()), "item": pa.array(["7"], pa.string_view())})
    assert Builder().interactions(views).build().vocabularies["item"].raw.tolist() == [7]
    reader = pa.table({"user": [1], "item": [2]}).to_reader()
    assert len(Builder().interactions(reader).build().tables[T]) == 1
    nullable = pd.DataFrame({"user": pd.array([1, 2], "Int64"), "item": pd.Categorical([5, 5])})
    assert Builder().interactions(nullable).build().num_items == 1


def test_a_missing_relation_is_said() -> None:
    with pytest.raises(InputError, match=r"triples: no column 'relation'.*Found: 'head', 'rel', 'tail'"):
        Builder().triples({"head": ["a"], "rel": ["r"], "tail": ["b"]})
