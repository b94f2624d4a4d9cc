"""Files of triples: what is written is read again, and whatever is wrong with one is one InputError with its line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphrec.datasets import KnowledgeGraph, read_link, read_triples, write_triples
from graphrec.datasets.ntriples import read_ntriples
from graphrec.datasets.ogb_layout import read_ogb, read_split, write_ogb
from graphrec.datasets.pykeen import from_pykeen, to_pykeen
from graphrec.datasets.triple_files import write_link
from graphrec.errors import InputError, MissingFileError

FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
LINE = "<http://a/1> <http://r> <http://a/2> .\n"


def graph() -> KnowledgeGraph:
    return KnowledgeGraph.of(
        ["i1", "i2", "i1", "b:x"],
        ["made by", "made by", "in", "part_of"],
        ["b:x", "b:x", 'c, "d"', "b:all"],
        items={"i1": 1, "i2": 2},
        names={"b:x": "X"},
        kinds={"i1": "item", "i2": "item", "b:x": "brand", "b:all": "brand", 'c, "d"': "category"},
        part=["train", "valid", "train", "test"],
    )


def assert_same(one: KnowledgeGraph, other: KnowledgeGraph, *, parts: bool = False) -> None:
    assert one.entities.equals(other.entities) and one.relations.equals(other.relations)
    assert np.array_equal(one.triples, other.triples)
    if parts:
        assert one.part is not None and other.part is not None and np.array_equal(one.part, other.part)


@pytest.mark.parametrize("name", ["kg.tsv", "kg.tsv.gz", "kg.txt", "kg.parquet", "folder"])
def test_written_and_read_again(name: str, tmp_path: Path) -> None:
    assert_same(graph(), read_triples(write_triples(graph(), tmp_path / name)), parts=name == "folder")


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(str.strip)


@FUZZ
@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=6))
def test_any_names_go_through_a_tsv(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    kg = KnowledgeGraph.of(*map(list, zip(*rows, strict=True)), self_loops="keep")
    path = write_triples(kg, tmp_path / "kg.tsv")
    assert_same(kg, read_triples(path, self_loops="keep"))


IRIS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).map("x:".__add__)
LITERALS = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=8),
    st.sampled_from(["", "@en", "@de-AT", "^^<http://www.w3.org/2001/XMLSchema#int>"]),
).map(lambda both: f'"{both[0]}"{both[1]}')


@FUZZ
@given(st.lists(st.tuples(IRIS, IRIS, st.one_of(IRIS, LITERALS)), min_size=1, max_size=6))
def test_any_terms_go_through_n_triples(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    kg = KnowledgeGraph.of(*map(list, zip(*rows, strict=True)), self_loops="keep")
    for name in ("kg.nt", "kg.nt.gz"):
        assert_same(kg, read_triples(write_triples(kg, tmp_path / name), self_loops="keep"))


def test_names_come_back_from_n_triples(tmp_path: Path) -> None:
    kg = KnowledgeGraph.of(["a 1", "b"], ["made by", "x:in"], ["Grün & Co", "x:c"])
    for base in ("urn:graphrec:", "http://shop/"):
        path = write_triples(kg, tmp_path / "kg.nt", base=base)
        assert f"<{base}b> <x:in> <x:c> ." in path.read_text()
        assert_same(kg, read_triples(path, base=base))
    assert "http://shop/a 1" in read_triples(path).entities.to_pylist()


def test_what_n_triples_may_hold(tmp_path: Path) -> None:
    (tmp_path / "a.nt").write_text(
        f"# a comment\n\n{LINE}"
        '<http://a/1> <http://r> "x \\"y\\" \\u00e9\\U0001F600\\n"@en-GB . # behind\n'
        "_:b1<x:r>_:b2.\n"
        '  <http://a/1>\t<http://r> "5"^^<http://int>  .  \r\n'
        "<http://a/1> <http://r> <http://a/1> .\n"
    )
    head, relation, tail = read_ntriples(tmp_path / "a.nt")
    assert head.to_pylist() == ["http://a/1", "http://a/1", "_:b1", "http://a/1", "http://a/1"]
    assert relation.to_pylist() == ["http://r", "http://r", "x:r", "http://r", "http://r"]
    assert tail.to_pylist() == ["http://a/2", '"x "y" é😀\n"@en-GB', "_:b2", '"5"^^<http://int>', "http://a/1"]
    kg = read_triples(tmp_path / "a.nt", item_prefix="http://a/")
    assert kg.items == {"http://a/1": "1", "http://a/2": "2"}
    assert [(note.action, note.count) for note in kg.notes] == [("removed", 1)]
    with pytest.raises(InputError, match="no entity begins with item_prefix 'http://b/'"):
        read_triples(tmp_path / "a.nt", item_prefix="http://b/")


FAULTS = [
    ("<a> <b> <c>\n", "no '.' at the end"),
    ("<a> <b> .\n", "2 terms"),
    ("<a> <b> <c> <d> .\n", "4 terms"),
    ('"x" <b> <c> .\n', "a literal as the subject"),
    ("<a> _:b <c> .\n", "a predicate that is no IRI"),
    ('<a> <b> "x .\n', "2 terms"),
    ('<a> <b> "\\uD800" .\n', "\\uD800 is no character"),
    ('<a> <b> "\\q" .\n', "is no triple"),
    ("<a b> <c> <d> .\n", "is no triple"),
    ("a b c\n", "0 terms"),
]


@pytest.mark.parametrize(("line", "said"), FAULTS)
def test_lines_that_are_no_triple(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.nt").write_text(f"{LINE}# \n\n{line}")
    with pytest.raises(InputError) as error:
        read_triples(tmp_path / "a.nt")
    assert said in str(error.value) and "a.nt, line 4" in str(error.value)


ROWS = [
    ("a\tb\n", "line 2: 2 fields"),
    ("a\tb\tc\td\n", "line 2: 4 fields"),
    ("a\t \tc\n", "line 2, column 'relation': an empty id"),
]


@pytest.mark.parametrize(("line", "said"), ROWS)
def test_rows_that_are_no_triple(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(f"x\ty\tz\n{line}")
    with pytest.raises(InputError) as error:
        read_triples(tmp_path / "a.tsv")
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["a.tsv", "a.nt"])
@pytest.mark.parametrize(
    "content", [b"", b"\n \n", b"a\tb\t\xff\n", b"a\0b\n", gzip.compress(b"a\tb\tc\n" * 99, mtime=0)[:-9]]
)
def test_files_that_are_none(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_triples(tmp_path / name)


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=120),
        st.text('<>"\\_:.#@^ab \t\nu0', max_size=80).map(str.encode),
        st.lists(st.sampled_from([LINE.encode(), b"<a", b'"', b"\\u12", b"\t", b"a", b"\n", b" ."]), max_size=12).map(
            b"".join
        ),
    )
)
def test_random_bytes_give_triples_or_an_input_error(tmp_path: Path, content: bytes) -> None:
    for name in ("x.nt", "x.tsv", "x.link"):
        (tmp_path / name).write_bytes(content)
        try:
            if name == "x.link":
                assert isinstance(read_link(tmp_path / name), dict)
            else:
                assert len(read_triples(tmp_path / name)) > 0
        except InputError as error:
            assert len(str(error)) < 800


def test_links_of_three_forms(tmp_path: Path) -> None:
    for name, text in {
        "plain": "e1 5\ne2 6\n",
        "tabs": "entity\titem\ne1\t5\ne2\t6\n",
        "recbole": "item_id:token\tentity_id:token\n5\te1\n6\te2\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert read_link(tmp_path / name) == {"e1": "5", "e2": "6"}
    assert read_link(write_link(graph(), tmp_path / "own.tsv")) == {"i1": "1", "i2": "2"}
    (tmp_path / "twice").write_text("e1\t5\ne1\t6\n")
    with pytest.raises(InputError, match="'e1' is linked to the items '5' and '6'"):
        read_link(tmp_path / "twice")


def test_what_cannot_be_written_or_found(tmp_path: Path) -> None:
    tabbed = KnowledgeGraph.of(["a\tb"], "r", ["c"])
    with pytest.raises(InputError, match="has a tab or a line end"):
        write_triples(tabbed, tmp_path / "a.tsv")
    with pytest.raises(MissingFileError):
        read_triples(tmp_path / "nowhere.nt")
    with pytest.raises(InputError, match="Did you mean 'ntriples'"):
        read_triples(tmp_path, format="ntriple")


# -- PyKEEN ------------------------------------------------------------------------------------------------------------


def test_pykeen_both_ways() -> None:
    triples = pytest.importorskip("pykeen.triples", reason="PyKEEN is not installed (extra pykeen)")
    kg = graph()
    factory = to_pykeen(kg)
    assert factory.num_entities == len(kg.entities) and factory.num_relations == len(kg.relations)
    assert_same(kg, from_pykeen(factory))
    parts = [to_pykeen(kg, part) for part in ("train", "valid", "test")]
    assert_same(kg, from_pykeen(*parts), parts=True)
    labelled = np.array([list(row) for row in zip(*(column.to_pylist() for column in kg.columns()), strict=True)])
    inverse = triples.TriplesFactory.from_labeled_triples(labelled, create_inverse_triples=True)
    assert_same(kg, from_pykeen(inverse))
    with pytest.raises(InputError, match="no labels"):
        from_pykeen(triples.CoreTriplesFactory(factory.mapped_triples, 9, 9))


# -- ogb ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [False, True])
def test_ogb_folders_are_read_again_here_and_by_ogb(typed: bool, tmp_path: Path) -> None:
    kg = graph()
    write_ogb(kg, tmp_path, typed=typed)
    assert_same(kg, read_ogb(tmp_path), parts=True)
    if typed:
        kinds = read_ogb(tmp_path).kinds
        assert kinds is not None and kinds.equals(kg.kinds)
    readers = pytest.importorskip("ogb.io.read_graph_raw", reason="ogb is not installed (extra ogb)")
    reader = readers.read_csv_heterograph_raw if typed else readers.read_csv_graph_raw
    read = reader(str(tmp_path / "raw"), additional_edge_files=["edge_reltype"])[0]
    if typed:
        assert read["num_nodes_dict"] == {"brand": 2, "category": 1, "item": 2}
        assert {kind: edges.tolist() for kind, edges in read["edge_index_dict"].items()} == {
            ("item", "made by", "brand"): [[0], [1]],
            ("item", "in", "category"): [[0], [0]],
        }
    else:
        train = kg.triples[kg.part == 0]
        assert read["num_nodes"] == 5 and read["edge_index"].T.tolist() == train[:, [0, 2]].tolist()
        assert read["edge_reltype"].ravel().tolist() == train[:, 1].tolist()


def test_ogb_split_files_are_never_unpickled(tmp_path: Path) -> None:
    write_ogb(graph(), tmp_path)
    path = tmp_path / "split" / "random" / "test.pt"
    content = torch.load(path, weights_only=True)
    torch.save({name: values.numpy() for name, values in content.items()}, path)  # as ogb publishes them
    assert torch.equal(read_split(tmp_path)["test"]["head"], content["head"])
    assert_same(graph(), read_ogb(tmp_path), parts=True)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"head": Evil()}, path)
    with pytest.raises(InputError, match=r"test\.pt cannot be read without unpickling"):
        read_ogb(tmp_path)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"test\.pt"):
        read_ogb(tmp_path)


def test_ogb_numbers_out_of_range(tmp_path: Path) -> None:
    write_ogb(graph(), tmp_path)
    (tmp_path / "raw" / "edge.csv.gz").write_bytes(gzip.compress(b"0,1\n1,7\n"))
    with pytest.raises(InputError, match=r"edge\.csv\.gz, row 1 \(from 0\): node 7 is outside 0 to 4"):
        read_ogb(tmp_path)
    write_ogb(graph(), tmp_path)
    path = tmp_path / "split" / "random" / "valid.pt"
    torch.save({"head": torch.tensor([0]), "relation": torch.tensor([3]), "tail": torch.tensor([1])}, path)
    with pytest.raises(InputError, match=r"valid\.pt, row 0 \(from 0\): relation 3 is outside 0 to 2"):
        read_ogb(tmp_path)
    (tmp_path / "raw" / "edge_reltype.csv.gz").write_bytes(gzip.compress(b"0\n"))
    with pytest.raises(InputError, match="1 relations for 2 edges"):
        read_ogb(tmp_path)
    with pytest.raises(MissingFileError, match="no folder of ogb"):
        read_ogb(tmp_path / "split")


# -- networkx ----------------------------------------------------------------------------------------------------------


def test_networkx_both_ways() -> None:
    kg = graph()
    made = kg.to_networkx()
    assert made.has_edge("i1", "b:x", key="made by") and made.nodes["b:x"] == {"name": "X", "kind": "brand"}
    back = KnowledgeGraph.from_networkx(made)
    assert_same(kg, back)
    assert back.items == kg.items and back.labels().equals(kg.labels())
    assert back.kinds is not None and back.kinds.equals(kg.kinds)
