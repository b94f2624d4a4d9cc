"""A knowledge graph in a dataset: matched items, what was there before, filters against slow ones, bad graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.datasets import Builder, KnowledgeGraph, RecDataset, kg_from_table, load
from graphrec.datasets.load import load_again
from graphrec.errors import InputError
from graphrec.models.base import Needs

T = ("user", "interacts", "item")


def shop(**more: Any) -> Builder:
    rows = {"user": ["u", "u", "v", "w"], "item": [1, 2, 3, 4], **more}
    return Builder("shop").interactions(rows, part="part" if "part" in more else None)


def brands() -> KnowledgeGraph:
    table = {"id": [1, 2, 3, 4], "brand": ["x", "x", "y", "y"], "title": ["one", "two", "three", "four"]}
    return kg_from_table(table, {"brand": "made_by"}, name="title")


def named(data: RecDataset) -> set[tuple[str, str, str]]:
    return set(map(tuple, data.knowledge().frame()[["head", "relation", "tail"]].to_numpy().tolist()))


def note(data: RecDataset, action: str, subject: str) -> int:
    return next(entry.count for entry in data.notes if (entry.action, entry.subject) == (action, subject))


EXPECTED = {(str(item), "made_by", f"brand:{brand}") for item, brand in zip((1, 2, 3, 4), "xxyy", strict=True)}


def test_the_same_by_a_builder_and_onto_a_dataset() -> None:
    built = brands().add_to(shop()).build()
    joined = shop().build().with_knowledge(brands())
    assert built.fingerprint == joined.fingerprint
    assert named(joined) == EXPECTED
    assert joined.names["entity"].tolist() == ["x", "y"] and joined.kinds["entity"].tolist() == ["brand", "brand"]
    assert np.array_equal(joined.tables[T].edge_id, shop().build().tables[T].edge_id)
    assert joined.rows("related", [0, 3]).tolist() == [0, 3]
    with pytest.raises(InputError, match="no items yet"):
        brands().add_to(Builder())


def test_extending_keeps_what_was_there() -> None:
    builder = shop()
    builder.triples({"h": [1, 4], "r": [7, 8], "t": [50, 60]}, head=("item", "h"), relation="r", tail="t")
    builder.links({"s": [1], "t": [3]}, source=("item", "s"), relation="similar", target=("item", "t"))
    builder.triples({"h": ["u"], "r": ["lives"], "t": [60]}, head=("user", "h"), relation="r", tail="t")
    builder.names("entity", [60], ["sixty"]).features("entity", [50], np.ones((1, 2)), name="size")
    before = builder.names("relation", [7], ["seven"]).build()
    after = before.with_knowledge(brands())
    assert named(after) == named(before) | EXPECTED
    assert named(before) == {("1", "seven", "50"), ("4", "8", "60"), ("1", "similar", "3")}
    where = after.vocabularies["entity"].encode(["50", "60"])
    assert after.names["entity"][where].tolist() == [None, "sixty"]
    assert after.feature_masks["entity", "size"][where].tolist() == [True, False]
    lives = after.table(("user", "related", "entity"))
    assert after.vocabularies["entity"].decode(lives.target).tolist() == ["60"]
    assert note(after, "renumbered", "item__related__entity") == 2
    replaced = before.with_knowledge(brands(), existing="replace")
    assert named(replaced) == EXPECTED and note(replaced, "removed", "triples") == 3
    assert set(replaced.vocabularies["entity"].raw) == {"60", "brand:x", "brand:y"}


def test_items_that_the_dataset_lacks() -> None:
    table = {"id": [1, 2, 8, 9], "brand": ["x", "x", "x", "z"]}
    kg = kg_from_table(table, {"brand": "made_by"}, min_count=1, max_share=1)
    dropped = shop().build().with_knowledge(kg)
    assert named(dropped) == {("1", "made_by", "brand:x"), ("2", "made_by", "brand:x")}
    assert note(dropped, "removed", "triples") == 2 and note(dropped, "matched", "items") == 2
    kept = shop().build().with_knowledge(kg, unknown_items="entity")
    assert ("9", "made_by", "brand:z") in named(kept) and kept.num_items == 4
    apart = KnowledgeGraph.of(["a", "b"], "r", ["x", "x"], items={"a": 8, "b": 9, "c": 1})
    with pytest.raises(InputError, match="all 2 triples of the knowledge graph are of 2 items of the graph that"):
        shop().build().with_knowledge(apart)


def test_graphs_of_other_items_are_refused() -> None:
    data = shop().build()
    other = kg_from_table({"id": ["a", "b"], "brand": ["x", "x"]}, {"brand": "made_by"}, max_share=1)
    with pytest.raises(InputError, match=r"matches 0 of 4 items .*0 of 2 items of the graph.*such as 1, 2, 3, of the"):
        data.with_knowledge(other)
    one = kg_from_table({"id": [1, 11], "brand": ["x", "x"]}, {"brand": "made_by"}, max_share=1)
    with pytest.raises(InputError, match=r"1 of 4 items of the dataset \(25\.0%\).*at least 50\.0%"):
        data.with_knowledge(one, min_share=0.5)
    assert len(data.with_knowledge(one).table("related")) == 1
    linked = other.with_items({"a": 3, "b": 4})
    assert named(data.with_knowledge(linked)) == {("3", "made_by", "brand:x"), ("4", "made_by", "brand:x")}
    with pytest.raises(InputError, match="none of the 1 linked entities"):
        other.with_items({"c": 3})
    titled = shop().names("item", [1, 2, 3, 4], ["two", "three", "four", "one"]).build()
    with pytest.raises(InputError, match=r"4 of 4 cases: '1' is 'one' in the graph and 'two' in the dataset"):
        titled.with_knowledge(brands())


def test_counts_from_zero_against_numbers_with_gaps_are_noted() -> None:
    data = Builder().interactions({"user": [0, 1], "item": [0, 1]}).build()
    kg = kg_from_table({"id": [0, 1, 7], "brand": ["x", "x", "x"]}, {"brand": "made_by"}, max_share=1)
    assert note(data.with_knowledge(kg), "check", "ids of items") == 2


def test_entities_with_raw_ids_of_items_are_items() -> None:
    kg = KnowledgeGraph.of(["1", "2", "x"], "r", ["x", "1", "y"])
    data = shop().build().with_knowledge(kg)
    assert {kind: len(table) for kind, table in data.tables.items() if kind != T} == {
        ("item", "related", "item"): 1,
        ("item", "related", "entity"): 1,
        ("entity", "related", "entity"): 1,
    }


def test_what_a_graph_may_not_be() -> None:
    with pytest.raises(InputError, match="empty: no triple was given"):
        KnowledgeGraph.of([], [], [])
    with pytest.raises(InputError, match="all 1 triples are self-loops"):
        KnowledgeGraph.of(["a"], "r", ["a"])
    with pytest.raises(InputError, match="1 heads, 2 relations and 1 tails"):
        KnowledgeGraph.of(["a"], ["r", "s"], ["b"])
    with pytest.raises(InputError, match="row 1: an empty string"):
        KnowledgeGraph.of(["a", ""], "r", ["b", "c"])
    kg = KnowledgeGraph.of(["a", "a", "b"], "r", ["b", "b", "b"], declared=["r", "s"])
    assert [(entry.action, entry.subject, entry.count) for entry in kg.notes] == [
        ("removed", "self-loops", 1),
        ("merged", "triples", 1),
        ("left out", "relations", 1),
    ]
    assert KnowledgeGraph.of(["a"], "r", ["a"], self_loops="keep").notes[0].action == "kept"


def test_a_model_without_its_graph_says_how_to_get_one() -> None:
    with pytest.raises(InputError, match=r"needs a knowledge graph \(graphrec\.datasets\.kg_from_table"):
        Needs(kg=True).check(shop().build(), "KGAT")
    with pytest.raises(InputError, match="kg_from_table"):
        shop().build().filter_knowledge(core=2)


# -- filters -----------------------------------------------------------------------------------------------------------

Edge = tuple[str, str, str]


def slow_cut(edges: set[Edge], max_degree: int | None, hops: int | None, core: int | None) -> set[Edge]:
    """The cuts as they are defined, one node at a time; items begin with i."""

    def degree(node: str) -> int:
        return sum(node in (head, tail) for head, _, tail in edges)

    nodes = {end for head, _, tail in edges for end in (head, tail)}
    if max_degree is not None:
        hubs = {node for node in nodes if node[0] != "i" and degree(node) > max_degree}
        edges = {edge for edge in edges if not hubs & {edge[0], edge[2]}}
    if hops is not None:
        distance = {node: 0 for node in nodes if node[0] == "i"}
        for step in range(1, hops + 1):
            for head, _, tail in sorted(edges):
                for one, other in ((head, tail), (tail, head)):
                    if distance.get(one, hops) == step - 1:
                        distance.setdefault(other, step)
        edges = {edge for edge in edges if min(distance.get(edge[0], hops), distance.get(edge[2], hops)) < hops}
    while core is not None:
        weak = next((n for n in sorted(nodes) if n[0] != "i" and 0 < degree(n) < core), None)
        if weak is None:
            break
        edges = {edge for edge in edges if weak not in (edge[0], edge[2])}
    return edges


ENDS = st.sampled_from(["i1", "i2", "e1", "e2", "e3", "e4", "e5"])


@settings(deadline=None, max_examples=80)
@given(
    st.sets(st.tuples(ENDS, st.sampled_from(["r", "s"]), ENDS), min_size=1, max_size=14),
    st.one_of(st.none(), st.integers(1, 4)),
    st.one_of(st.none(), st.integers(1, 3)),
    st.one_of(st.none(), st.integers(1, 3)),
)
def test_cuts_equal_slow_ones(edges: set[Edge], max_degree: int | None, hops: int | None, core: int | None) -> None:
    data = Builder().interactions({"user": [0, 0], "item": ["i1", "i2"]}).build()
    kg = KnowledgeGraph.of(*map(list, zip(*sorted(edges), strict=True)), self_loops="keep")
    full = data.with_knowledge(kg, min_share=0) if {"i1", "i2"} & set(kg.entities.to_pylist()) else None
    if full is None:
        return
    left = slow_cut(edges, max_degree, hops, core)
    if not left:
        with pytest.raises(InputError, match="none of the"):
            full.filter_knowledge(max_degree=max_degree, hops=hops, core=core)
        return
    cut = full.filter_knowledge(max_degree=max_degree, hops=hops, core=core)
    assert named(cut) == left
    counted = sum(entry.count for entry in cut.notes[len(full.notes) :] if "__" in entry.subject)
    assert counted == len(edges) - len(left)
    for kind, table in cut.tables.items():
        was = full.tables[kind].select(full.tables[kind].positions(table.edge_id))
        for side, node_type in (("source", kind[0]), ("target", kind[2])):
            now = cut.vocabularies[node_type].decode(table.columns[side])
            assert now.tolist() == full.vocabularies[node_type].decode(was.columns[side]).tolist()


def test_relations_to_keep_and_to_drop() -> None:
    data = Builder().interactions({"user": [0, 0], "item": ["i1", "i2"]})
    data.triples({"h": ["i1", "i1"], "r": [0, 1], "t": ["x", "y"]}, head=("item", "h"), relation="r", tail="t")
    built = data.names("relation", [0, 1], ["made_by", "also_bought"]).build()
    assert named(built.filter_knowledge(keep="made_by")) == {("i1", "made_by", "x")}
    assert named(built.filter_knowledge(drop=["also_bought"])) == named(built.filter_knowledge(keep=["0"]))
    assert built.filter_knowledge(keep="made_by").num_nodes["entity"] == 1
    with pytest.raises(InputError, match=r"unknown relation 'made_buy'\. Did you mean 'made_by'"):
        built.filter_knowledge(keep=["made_buy"])
    with pytest.raises(InputError, match="core=0: expected at least 1"):
        built.filter_knowledge(core=0)


# -- load --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "shop"
    path.mkdir()
    (path / "train.txt").write_text("0 0 1\n1 1 2\n")
    (path / "test.txt").write_text("0 2\n2 0\n")
    (path / "goods.csv").write_text("sku,brand,tags\n10,x,a|b\n11,X,a\n12,y,b\n")
    (path / "ids.tsv").write_text("10\t0\n11\t1\n12\t2\n")
    return path


def test_load_notes_how_to_load_it_again(folder: Path) -> None:
    data = load(
        "shop",
        root=folder.parent,
        kg="goods.csv",
        kg_columns="brand=made_by,tags=has:separator=|",
        kg_options={"link": str(folder / "ids.tsv"), "max_share": 1.0},
        kg_filter="drop=has",
    )
    assert named(data) == {("0", "made_by", "brand:X"), ("1", "made_by", "brand:X")}
    assert data.loaded is not None and data.loaded["kg"] == "goods.csv"
    assert data.loaded["kg_options"] == '{"link": "ids.tsv", "max_share": 1.0}'
    assert load_again(data.loaded).fingerprint == data.fingerprint
    moved = folder.parent / "elsewhere"
    moved.mkdir()
    folder.rename(moved / "shop")
    assert load_again(data.loaded, root=moved).fingerprint == data.fingerprint
    (moved / "shop" / "kg.nt").write_text("<i:0> <x:in> <x:a> .\n<i:1> <x:in> <x:a> .\n")
    triples = load(moved / "shop", kg=moved / "shop" / "kg.nt", kg_options="item_prefix=i:")
    assert named(triples) == {("0", "x:in", "x:a"), ("1", "x:in", "x:a")}


WRONG = [
    ({"kg_columns": "brand=made_by"}, "say kg=FILE"),
    ({"kg": "nowhere.tsv"}, r"nowhere\.tsv is not there \(nor "),
    ({"kg": "goods.csv", "kg_columns": "brand=made_by", "kg_options": "itm=sku"}, "Did you mean 'item'"),
    ({"kg": "goods.csv", "kg_columns": "brand=made_by", "kg_options": "min_share=x"}, "expected a number"),
    (
        {"kg": "goods.csv", "kg_columns": "brand=made_by", "kg_options": "max_share=1"},
        r"matches 0 of 3 items.*read_link\(FILE\)",
    ),
    ({"kg": "goods.csv", "kg_columns": "brand=made_by"}, "empty: no triple is left"),
    ({"kg": "ids.tsv"}, "2 fields"),
    ({"kg": "goods.csv"}, r"goods\.csv: a csv holds a table of items; .*kg_columns='brand=made_by'"),
    ({"kg_filter": "core=2"}, "has no knowledge graph"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_load_refuses(options: dict[str, Any], said: str, folder: Path) -> None:
    with pytest.raises(InputError, match=said):
        load(folder, **options)


def test_kg_text_of_other_items_is_refused(folder: Path) -> None:
    (folder / "kg_final.txt").write_text("0 0 3\n1 0 3\n2 1 4\n")
    assert note(load(folder), "matched", "items with the knowledge graph") == 3
    (folder / "relation_list.txt").write_text("org_id remap_id\nr 0\ns 1\nidle 2\n")
    assert note(load(folder), "left out", "relations") == 1
    (folder / "kg_final.txt").write_text("0 0 3\n1 7 3\n")
    with pytest.raises(
        InputError, match=r"relation 7 of triple 1 \(from 0\) is out of range: relation_list\.txt has 0"
    ):
        load(folder)
    (folder / "kg_final.txt").write_text("30 0 31\n")
    with pytest.raises(InputError, match=r"0 of 3 items have triples, expected at least 1\.0%"):
        load(folder)
    assert load(folder, min_share=0).num_items == 3
    (folder / "kg_final.txt").write_text("0 0 3\n")
    (folder / "entity_list.txt").write_text("org_id remap_id\na 0\nb 1\n")
    with pytest.raises(InputError, match=r"entity 3 of triple 0 \(from 0\) is out of range"):
        load(folder)
