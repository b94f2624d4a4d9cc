"""A catalogue's columns become triples: against a slow reference, cell by cell, and as a new user meets it."""

from __future__ import annotations

import doctest
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.datasets import Attribute, Builder, KnowledgeGraph, kg_from_table, knowledge_table, load
from graphrec.datasets.spelling import spelling_key
from graphrec.datasets.triple_files import read_link
from graphrec.errors import InputError

CATALOGUE: dict[str, list[Any]] = {
    "sku": ["a1", "a2", "a3", "a4"],
    "brand": ["Acme", "ACME", "Zeta", "zeta "],
    "category": ["Home > Bath", "home>Bath", "Home > Kitchen > Knives", "Home > Kitchen"],
    "price": [1.5, 2.0, 10.0, 20.0],
}


def said(kg: KnowledgeGraph) -> set[tuple[str, str, str]]:
    return set(map(tuple, kg.frame()[["head", "relation", "tail"]].to_numpy().tolist()))


def notes(kg: KnowledgeGraph) -> dict[tuple[str, str], int]:
    return {(note.action, note.subject): note.count for note in kg.notes}


def test_the_example_of_the_docstring_runs() -> None:
    result = doctest.testmod(knowledge_table)
    assert result.attempted >= 8 and result.failed == 0


# -- against a slow reference ------------------------------------------------------------------------------------------


def slow(
    rows: list[tuple[int, str | None]], separator: str, level: str, min_count: int, max_share: float
) -> set[tuple[str, str, str]]:
    """The triples of one hierarchical, multi-valued column, one cell at a time."""
    paths: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    spelt: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    seen: Counter[tuple[int, str]] = Counter()
    for item, cell in rows:
        for value in (cell or "").split(separator):
            value = value.strip()
            if value.lower() in knowledge_table.MISSING:
                continue
            seen[item, value] += 1
            path: tuple[str, ...] = ()
            for name in value.split(level):
                if not spelling_key(name):
                    continue
                path = (*path, spelling_key(name))
                spelt[path][" ".join(name.split())] += 1
            if path:
                paths[item].add(path)
    items_of: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for item, found in paths.items():
        for path in found:
            for depth in range(1, len(path) + 1):
                items_of[path[:depth]].add(item)
    total = len({item for item, _ in rows})

    def label(path: tuple[str, ...]) -> str:
        names = []
        for depth in range(1, len(path) + 1):
            counts = spelt[path[:depth]]
            names.append(min(counts, key=lambda name: (-counts[name], name)))
        return "c:" + " > ".join(names)

    triples = set()
    for item, found in paths.items():
        for path in found:
            while path and len(items_of[path]) < min_count:
                path = path[:-1]
            if not path or len(items_of[path]) > max_share * total:
                continue
            triples.add((str(item), "in", label(path)))
            while len(path) > 1 and len(items_of[path[:-1]]) <= max_share * total:
                triples.add((label(path), "part_of", label(path[:-1])))
                path = path[:-1]
    return triples


LEVELS = st.sampled_from(["a", "A", "b", "B ", " b", "c.", "c", "D's", "ds", "", "None", "?"])
CELLS = st.one_of(
    st.none(),
    st.lists(st.lists(LEVELS, max_size=3).map(">".join), max_size=3).map("|".join),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 6), CELLS), min_size=1, max_size=14),
    st.integers(1, 3),
    st.sampled_from([0.3, 0.5, 1.0]),
)
def test_triples_equal_a_slow_reference(rows: list[tuple[int, str | None]], min_count: int, max_share: float) -> None:
    expected = slow(rows, "|", ">", min_count, max_share)
    table = pa.table({"id": [item for item, _ in rows], "c": pa.array([cell for _, cell in rows], pa.string())})
    attribute = Attribute("in", separator="|", hierarchy=">")
    if not expected:
        with pytest.raises(InputError, match="empty"):
            kg_from_table(table, {"c": attribute}, min_count=min_count, max_share=max_share)
        return
    kg = kg_from_table(table, {"c": attribute}, min_count=min_count, max_share=max_share)
    assert said(kg) == expected


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=20))
def test_spelling_keys_do_not_change_again(text: str) -> None:
    key = spelling_key(text)
    assert spelling_key(key) == key
    assert spelling_key(f"  {text.upper()} ") == spelling_key(text.upper())
    assert spelling_key(unicodedata.normalize("NFKC", text)) == key


def test_spellings_that_are_one_and_that_are_not() -> None:
    same = [
        ("Sci-Fi", "sci fi"),
        ("Children's", "CHILDRENS"),
        ("ＡＢＣ", "abc"),
        ("Straße", "STRASSE"),
        ("a  b", "A B."),
    ]
    assert all(spelling_key(one) == spelling_key(other) for one, other in same)
    apart = [("C#", "C"), ("AT&T", "ATT"), ("-5", "5"), ("1.5", "15"), ("!!", "??")]
    assert all(spelling_key(one) != spelling_key(other) for one, other in apart)


# -- cells -------------------------------------------------------------------------------------------------------------


def test_lists_and_paths_of_lists() -> None:
    table = {"id": [1, 2, 3], "tags": [["x", "y"], ["X"], []], "path": [[["a", "b"], ["a", "c"]], [["A", "b"]], None]}
    kg = kg_from_table(table, {"tags": "tag", "path": Attribute("in", hierarchy=">")}, min_count=1, max_share=1)
    assert said(kg) == {
        *((item, "tag", tag) for item, tag in (("1", "tags:X"), ("1", "tags:y"), ("2", "tags:X"))),
        *((item, "in", path) for item, path in (("1", "path:a > b"), ("1", "path:a > c"), ("2", "path:a > b"))),
        *((f"path:a > {leaf}", "part_of", "path:a") for leaf in "bc"),
    }
    flat = kg_from_table(table, {"path": "in"}, min_count=1, max_share=1)
    assert {tail for _, _, tail in said(flat)} == {"path:a", "path:b", "path:c"}


def test_levels_under_other_parents_are_other_entities() -> None:
    table = {"id": [1, 2], "c": ["Hair > Oil", "Car > Oil"]}
    kg = kg_from_table(table, {"c": {"relation": "in", "hierarchy": ">"}}, min_count=1, max_share=1)
    assert {tail for _, relation, tail in said(kg) if relation == "in"} == {"c:Hair > Oil", "c:Car > Oil"}
    assert set(kg.labels().to_pylist()) == {"1", "2", "Oil", "Hair", "Car"}


def test_numbers_are_binned_and_the_bins_named() -> None:
    table = {"id": list(range(8)), "price": ["$1", "2", "3.0", "1,000", "5", "x", None, "4"]}
    kg = kg_from_table(table, {"price": Attribute("priced", bins=2)}, min_count=1)
    assert {tail for _, _, tail in said(kg)} == {"price:below 3.5", "price:3.5 and above"}
    assert ("3", "priced", "price:3.5 and above") in said(kg)
    assert notes(kg)["left out", "values of price"] == 1 and notes(kg)["without", "rows of price"] == 1
    stated = kg_from_table(table, {"price": Attribute("priced", bins=(2, 5))}, min_count=1)
    assert {tail for _, _, tail in said(stated)} == {"price:below 2", "price:2 to below 5", "price:5 and above"}
    wide = kg_from_table(table, {"price": Attribute("priced", bins=2, binning="width")}, min_count=1)
    assert Counter(tail for _, _, tail in said(wide)) == {"price:below 500.5": 5, "price:500.5 and above": 1}


def test_decimals_are_binned_unasked_and_whole_numbers_are_values() -> None:
    table = pd.DataFrame({"id": [1, 2, 3, 4], "year": [1990.0, np.nan, 1990.0, 2001.0], "size": [0.5, 1.5, 0.5, 2.5]})
    kg = kg_from_table(table, {"year": "from", "size": "sized"}, min_count=1, max_share=1)
    assert ("1", "from", "year:1990") in said(kg)
    assert any(note.action == "binned" and note.subject == "values of size" for note in kg.notes)


def test_hubs_and_rare_values_are_counted() -> None:
    table = {"id": list(range(10)), "lang": ["en"] * 7 + ["fr"] * 2 + ["xx"]}
    kg = kg_from_table(table, {"lang": "spoken"})
    assert said(kg) == {("7", "spoken", "lang:fr"), ("8", "spoken", "lang:fr")}
    assert notes(kg)["removed", "hub values of lang"] == 1 and notes(kg)["removed", "rare values of lang"] == 1
    hub = next(note for note in kg.notes if note.subject == "hub values of lang")
    assert "7 triples" in hub.detail and "en (70%)" in hub.detail


def test_columns_of_one_kind_share_their_entities() -> None:
    table = {"id": [1, 2, 3], "director": ["Ann Lee", "Bo", "Cy"], "actor": ["Bo|Cy", "ann lee", "Bo"]}
    columns = {"director": Attribute("by", kind="person"), "actor": Attribute("with", separator="|", kind="person")}
    kg = kg_from_table(table, columns, max_share=1)
    assert ("1", "by", "person:Ann Lee") in said(kg) and ("2", "with", "person:Ann Lee") in said(kg)
    assert kg.kinds is not None and set(kg.kinds.to_pylist()) == {"item", "person"}


@pytest.mark.parametrize("form", ["pandas", "polars", "arrow", "csv", "tsv", "parquet"])
def test_every_form_of_the_table_gives_the_same(form: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(CATALOGUE)
    path = tmp_path / f"items.{form}"
    tables: dict[str, Any] = {
        "pandas": lambda: frame,
        "polars": lambda: pl.DataFrame(CATALOGUE),
        "arrow": lambda: pa.table(CATALOGUE),
        "csv": lambda: (frame.to_csv(path, index=False), path)[1],
        "tsv": lambda: (frame.to_csv(path, index=False, sep="\t"), path)[1],
        "parquet": lambda: (pq.write_table(pa.table(CATALOGUE), path), path)[1],
    }
    columns = "brand=made_by,category=in_category:hierarchy=>:max_share=1,price=priced:bins=2"
    kg = kg_from_table(tables[form](), columns)
    expected = kg_from_table(CATALOGUE, columns)
    assert said(kg) == said(expected) and [str(n) for n in kg.notes] == [str(n) for n in expected.notes]
    assert ("a3", "in_category", "category:Home > Kitchen") in said(kg)
    assert notes(kg)["moved", "values of category"] == 1


def test_what_can_be_several_values_and_is_not_said_to_be_is_noted() -> None:
    kg = kg_from_table({"id": [1, 2], "g": ["a|b", "a|b"]}, {"g": "genre"}, max_share=1)
    assert any("separator='|'" in note.detail for note in kg.notes)


WRONG: list[tuple[dict[str, Any], Any, dict[str, Any], str]] = [
    ({"id": [1], "b": ["x"]}, {"c": "r"}, {}, "no column 'c'"),
    ({"id": [1], "b": ["x"]}, {}, {}, "no columns"),
    ({"key": [1], "b": ["x"]}, {"b": "r"}, {}, "no column has a known name for the item"),
    ({"id": [1, None], "b": ["x", "x"]}, {"b": "r"}, {}, "no id"),
    ({"id": [1, 2], "b": [None, " "]}, {"b": "r"}, {}, "empty: no triple is left"),
    ({"id": [1], "b": ["x"]}, {"b": {"relation": "r", "seperator": "|"}}, {}, "Did you mean 'separator'"),
    ({"id": [1], "b": ["x"]}, "b", {}, "expected column=relation"),
    ({"id": [1], "b": ["x"]}, "b=r:bins=x", {}, "expected a number"),
    ({"id": [1], "b": ["x"]}, {"b": Attribute("r", bins=3)}, {}, "no numbers to bin; found 1 values such as 'x'"),
    ({"id": [1], "b": [{"x": 1}]}, {"b": "r"}, {}, "Expected texts, numbers, or lists"),
    ({"id": [1], "b": ["x"]}, {"b": "r"}, {"max_share": 0}, "max_share 0"),
    ({"id": ["b:x", "z"], "b": ["x", "x"]}, {"b": "r"}, {"max_share": 1}, "'b:x' is an item and a value"),
]


@pytest.mark.parametrize(("table", "columns", "options", "message"), WRONG)
def test_what_is_wrong_is_named(table: dict[str, Any], columns: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        kg_from_table(table, columns, **options)
    assert message in str(error.value)


# -- as a new user -----------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_films_by_their_genres(data_root: Path) -> None:
    folder = data_root / "ml-1m-kg"
    if not folder.is_dir():
        pytest.skip("ml-1m-kg is not at hand")
    reading: dict[str, Any] = {"item": "0", "name": "1", "separator": "::", "header": False, "encoding": "latin-1"}
    kg = kg_from_table(folder / "movies.dat", "2=has_genre:separator=|", **reading)
    assert len(kg) == 6408 and len(kg.relations) == 1
    data = load("ml-1m-kg", root=data_root)
    with pytest.raises(InputError, match=r"'Toy Story \(1995\)' in the graph and 'Jumanji \(1995\)' in the dataset"):
        data.with_knowledge(kg)
    linked = kg.with_items(read_link(folder / "item_index2entity_id.txt"))
    made = data.with_knowledge(linked, existing="replace")
    assert made.num_nodes["entity"] == 18 and made.num_items == data.num_items
    titles, texts = made.names["item"], made.texts["item"]
    table = made.table("related")
    for edge in (0, 1000, len(table) - 1):
        item, genre = table.source[edge], made.names["entity"][table.target[edge]]
        assert titles[item] in texts[item] and genre in texts[item]


@pytest.mark.realdata
def test_office_supplies_by_their_brands(data_root: Path) -> None:
    path = data_root / "amazon-office" / "items.tsv"
    if not path.is_file():
        pytest.skip("amazon-office is not at hand")
    source = pd.read_csv(path, sep="\t", keep_default_na=False)
    kg = kg_from_table(path, "brand=made_by", name="title", min_count=1)
    present = ~source.brand.str.strip().str.lower().isin(knowledge_table.MISSING)
    assert len(kg) == int(present.sum())
    builder = Builder("office").interactions({"user": ["u"] * len(source), "item": source.itemID.to_numpy()})
    data = kg.add_to(builder).build()
    assert data.num_items == len(source) and len(data.table("related")) == len(kg)


def test_an_attribute_refuses_shares_and_counts_that_mean_nothing() -> None:
    for share in (2, 0, -0.1):
        with pytest.raises(InputError, match="max_share"):
            Attribute("made_by", max_share=share)
    with pytest.raises(InputError, match="min_count"):
        Attribute("made_by", min_count=0)
    assert Attribute("made_by", max_share=1, min_count=1).max_share == 1
