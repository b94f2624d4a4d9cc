"""Each format on files small enough to be read by eye: what becomes of every line."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from graphrec.datasets import RecDataset, adapters, load
from graphrec.datasets.adapters.common import name_list, pair_keys, replaced, universe
from graphrec.datasets.adapters.unlearning_sets import forget_pairs, forget_sets
from graphrec.errors import InputError


def made(folder: Path, files: Mapping[str, str | bytes], **options: Any) -> RecDataset:
    """A folder with some files, loaded past the cache."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load(folder, cache=False, **options)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def npz(dense: list[list[float]]) -> bytes:
    out = io.BytesIO()
    scipy.sparse.save_npz(out, scipy.sparse.csr_matrix(np.array(dense)))
    return out.getvalue()


def edges(data: RecDataset, kind: tuple[str, str, str]) -> set[tuple[Any, Any]]:
    """The edges of a type in raw ids."""
    table = data.tables[kind]
    source = data.vocabularies[kind[0]].decode(table.source)
    target = data.vocabularies[kind[2]].decode(table.target)
    return set(zip(source.tolist(), target.tolist(), strict=True))


def test_lightgcn_text(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "train.txt": "0 2 0\n2 1\n3\n",
            "valid.txt": "0 1\n",
            "test.txt": "2 0 4\n",
            "user_list.txt": "org_id remap_id\nann 0\nbob 2\n",
            "item_list.txt": "org_id remap_id freebase_id\nB00A 0 m.1\nB00C 5 m.2\n",
        },
    )
    assert (data.num_users, data.num_items) == (4, 6)  # user 1 and item 3 never occur, item 5 is only listed
    assert data.part_counts() == {"train": 3, "valid": 1, "test": 2}
    assert data.pairs("train").items.tolist() == [0, 2, 1]
    assert data.names["user"].tolist() == ["ann", None, "bob", None]
    assert data.names["item"].tolist() == ["B00A", None, None, None, None, "B00C"]


def test_kgat_text(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "train.txt": "0 0 1\n",
            "test.txt": "0 2\n",
            "kg_final.txt": "0 0 3\n3 1 1\n3 1 4\n0 1 2\n",
            "relation_list.txt": "org_id remap_id\nmade by 0\nhttp://x/y 1\n",
            "entity_list.txt": "org_id remap_id\ni0 0\nAcme 3\nAcme Ltd 4\nunused 5\n",
        },
    )
    assert (data.num_items, data.num_nodes["entity"]) == (3, 3)
    assert data.relations.raw.tolist() == ["http://x/y", "made by"]
    assert edges(data, ("item", "related", "entity")) == {(0, 3)}
    assert edges(data, ("entity", "related", "item")) == {(3, 1)}
    assert edges(data, ("entity", "related", "entity")) == {(3, 4)}
    assert edges(data, ("item", "related", "item")) == {(0, 2)}
    assert data.names["entity"].tolist() == ["Acme", "Acme Ltd", "unused"]


def test_labelled_pairs_beside_a_split(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "train.txt": "0 0\n",
            "test.txt": "1 1\n",
            "kg_final.txt": "0 0 3\n",
            "ratings_final.txt": "0\t0\t1\n1\t1\t1\n0\t2\t0\n1\t2\t0\n",
        },
    )
    assert [len(data.interactions(part)) for part in ("train", "test")] == [1, 1]
    table = data.interactions(labels=True)
    assert sorted(zip(table.source.tolist(), table.target.tolist(), table.label.tolist(), strict=True)) == [
        (0, 0, 1), (0, 2, 0), (1, 1, 1), (1, 2, 0),
    ]  # fmt: skip
    assert data.graph()["user", "interacts", "item"].edge_index.tolist() == [[0], [0]]


def test_labelled_pairs_alone(tmp_path: Path) -> None:
    data = made(tmp_path, {"ratings_final.txt": "0 0 1\n0 1 0\n", "kg_final.txt": "0 0 2\n"})
    assert data.parts == ("train",)
    assert (len(data.interactions()), len(data.interactions(labels=True))) == (1, 2)


def test_mmrec(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "a.inter": "userID\titemID\tx_label\r\n0\t1\t0\r\n0\t0\t2\r\n1\t1\t1\r\n",
            "image_feat.npy": npy(np.arange(6, dtype=np.float16).reshape(3, 2)),
            "items.tsv": 'itemID\ttitle\tbrand\tdescription\n0\tA "B"\tAcme\tgood\n1\t"say ""hi"""\t\t\n2\tC\tAcme\t\n',
        },
    )
    assert data.part_counts() == {"train": 1, "valid": 1, "test": 1}
    assert data.num_items == 3
    assert data.features["item", "image"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert data.names["item"].tolist() == ['A "B"', 'say "hi"', "C"]
    assert data.texts["item"].tolist() == ['A "B". Acme. good', 'say "hi"', "C. Acme"]
    assert edges(data, ("item", "related", "entity")) == {(0, "brand:Acme"), (2, "brand:Acme")}
    assert data.kinds["entity"].tolist() == ["brand"]


ATOMIC = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def test_recbole(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "a.inter": f"{ATOMIC}u1\t10\t4\t100\nu2\t9\t2.5\t101\n",
            "a.item": "item_id:token\ttitle:token_seq\tprice:float\tclass:token_seq\n10\tTen\t1.5\tX Y\n11\tL\t2\t\n",
            "a.user": "user_id:token\tgender:token\tage:float\nu1\tM\t30\nu2\tF\t40\n",
            "a.kg": "head_id:token\trelation_id:token\ttail_id:token\nm.a\tr\tm.b\nm.b\tr\tm.c\n",
            "a.link": "item_id:token\tentity_id:token\n10\tm.a\n",
        },
    )
    assert data.vocabularies["item"].raw.tolist() == [9, 10, 11]
    assert data.interactions().time.tolist() == [100, 101] and data.interactions().time.dtype == np.int64
    assert data.interactions().rating.tolist() == [4, 2.5]
    assert edges(data, ("item", "related", "entity")) == {(10, "m.b")}
    assert edges(data, ("entity", "related", "entity")) == {("m.b", "m.c")}
    assert data.num_nodes["entity"] == 2
    assert data.features["user", "gender"].tolist() == [[0, 1], [1, 0]]
    assert data.features["user", "age"].tolist() == [[30], [40]]
    assert data.features["item", "price"].tolist() == [[0], [1.5], [2]]
    assert data.names["item"].tolist() == [None, "Ten", "L"]
    assert data.texts["item"].tolist() == [None, "Ten. X Y", "L"]


def test_recbole_parts(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "a.train.inter": f"{ATOMIC}1\t1\t1\t1\n",
            "a.valid.inter": f"{ATOMIC}1\t2\t1\t2\n",
            "a.test.inter": f"{ATOMIC}1\tx\t1\t3\n",
        },
    )
    assert data.part_counts() == {"train": 1, "valid": 1, "test": 1}
    assert data.vocabularies["item"].raw.tolist() == ["1", "2", "x"]


def test_two_interaction_files_are_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 \.inter files: a\.inter, b\.inter"):
        made(tmp_path, {"a.inter": f"{ATOMIC}1\t1\t1\t1\n", "b.inter": f"{ATOMIC}1\t1\t1\t1\n"})


def test_movielens_dat_with_tags(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "ratings.dat": "1::5::4.5::838985046\n2::5::3::838983525\n",
            "movies.dat": "5::Café: The Film (1995)::Comedy|Drama\n6::None (1996)::(no genres listed)\n".encode(
                "latin-1"
            ),
            "tags.dat": "1::5::so good::1215184630\n",
        },
    )
    assert data.names["item"].tolist() == ["Café: The Film (1995)", "None (1996)"]
    assert edges(data, ("item", "related", "entity")) == {(5, "genre:Comedy"), (5, "genre:Drama")}
    assert edges(data, ("item", "tagged", "tag")) == {(5, "so good")}
    assert data.interactions().rating.tolist() == [4.5, 3]


def test_movielens_1m_users(tmp_path: Path) -> None:
    files = {"ratings.dat": "1::5::4::1\n", "users.dat": "1::F::1::10::48067\n3::M::56::16::70072\n"}
    data = made(tmp_path, files)
    assert data.num_users == 2
    assert data.features["user", "gender"].tolist() == [[1, 0], [0, 1]]


def test_movielens_csv(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "ratings.csv": "userId,movieId,rating,timestamp\r\n1,1,0.5,9\r\n",
            "movies.csv": 'movieId,title,genres\r\n1,"One, or Two",Drama\r\n2,"Say ""x""",(no genres listed)\r\n',
            "tags.csv": 'userId,movieId,tag,timestamp\r\n7,2,"a, b",5\r\n',
            "links.csv": "movieId,imdbId,tmdbId\r\n1,0114709,862\r\n",
        },
    )
    assert data.names["item"].tolist() == ["One, or Two", 'Say "x"']
    assert data.vocabularies["tag"].raw.tolist() == ["a, b"]
    assert data.num_users == 2  # user 7 has tagged, not rated
    assert data.tables["item", "tagged", "tag"].time.tolist() == [5]


def test_sslrec_behaviours(tmp_path: Path) -> None:
    second = 1_433_223_390.0
    data = made(
        tmp_path,
        {
            "train_mat_buy.npz": npz([[second, 0, 0], [0, second + 1, 0]]),
            "train_mat_view.npz": npz([[second, second, 0], [0, 0, second]]),
            "train_mat_view_buy.npz": npz([[1, 0, 0], [0, 0, 0]]),
            "test_mat.npz": npz([[0, 0, 1], [0, 0, 0]]),
            "kg.txt": "0 0 1\n1 1 2\n",
        },
    )
    assert data.target == ("user", "buy", "item")
    assert data.part_counts() == {"train": 2, "test": 1}
    assert data.interactions("train").time.tolist() == [second, second + 1]
    assert edges(data, ("user", "view", "item")) == {(0, 0), (0, 1), (1, 2)}
    assert edges(data, ("item", "related", "item")) == {(0, 1), (1, 2)}
    assert [note.subject for note in data.notes if note.action == "left out"] == ["path view_buy"]
    paths = load(tmp_path, cache=False, paths=True, target="view")
    assert ("user", "view_buy", "item") in paths.tables and paths.target == ("user", "view", "item")


def test_sslrec_keeps_nodes_without_edges(tmp_path: Path) -> None:
    data = made(tmp_path, {"train_mat.npz": npz([[1, 0, 0], [0, 0, 0]]), "test_mat.npz": npz([[0, 1, 0], [0, 0, 0]])})
    assert (data.num_users, data.num_items, data.part_counts()) == (2, 3, {"train": 1, "test": 1})


def test_lastfm(tmp_path: Path) -> None:
    files = {"data1.txt": "2\t1\t3.2e+05\r\n", "test1.txt": "2\t3\t5\r\n", "trustnetwork.txt": "1\t2\r\n2\t1\r\n"}
    data = made(tmp_path, files)
    assert data.vocabularies["user"].raw.tolist() == [1, 2]
    assert data.vocabularies["item"].raw.tolist() == [1, 2, 3]
    assert data.interactions("train").weight.tolist() == [320000]
    assert edges(data, ("user", "trusts", "user")) == {(1, 2), (2, 1)}


def test_hin(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "user_movie.dat": "1\t1\t5\n2\t3\t1\n",
            "movie_actor.dat": "1\t1\t1\n3\t1\t1\n",
            "movie_type.dat": "1\t1\n",
            "user_user.dat": "1\t2\t1\n",
            "user_group.dat": "1\t1\t2\n",
        },
    )
    assert data.num_items == 3
    assert edges(data, ("item", "related", "entity")) == {(1, "actor:1"), (3, "actor:1"), (1, "type:1")}
    assert edges(data, ("user", "related", "entity")) == {(1, "group:1")}
    assert data.tables["user", "related", "entity"].weight.tolist() == [2]
    assert sorted(data.kinds["entity"].tolist()) == ["actor", "group", "type"]


def test_citeulike(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "users.dat": "2 0 1\n0\n1 2\n",
            "item-tag.dat": "1 0\n0\n2 1 0\n",
            "tags.dat": "a\nb\nc\n",
            "citations.dat": "0\n0\n2 0 2\n",
        },
    )
    assert data.num_users == 3
    assert edges(data, ("user", "interacts", "item")) == {(0, 0), (0, 1), (2, 2)}
    assert edges(data, ("item", "tagged", "tag")) == {(0, 0), (2, 0), (2, 1)}
    assert edges(data, ("item", "cites", "item")) == {(2, 0), (2, 2)}
    assert data.names["tag"].tolist() == ["a", "b", "c"]


def test_s3rec(tmp_path: Path) -> None:
    data = made(tmp_path, {"A.txt": "1 5 3 4 1\n2 3 1\n", "A_item2attributes.json": '{"1": [7, 8], "6": [7]}'})
    assert data.vocabularies["item"].raw.tolist() == [1, 2, 3, 4, 5, 6]
    parts = {part: edges_of(data, part) for part in ("train", "valid", "test")}
    assert parts == {"train": {(1, 5), (1, 3), (2, 3), (2, 1)}, "valid": {(1, 4)}, "test": {(1, 1)}}
    assert edges(data, ("item", "related", "entity")) == {(1, "attribute:7"), (1, "attribute:8"), (6, "attribute:7")}


def edges_of(data: RecDataset, part: str) -> set[tuple[int, int]]:
    table = data.interactions(part)
    users = data.vocabularies["user"].decode(table.source)
    return set(zip(users.tolist(), data.vocabularies["item"].decode(table.target).tolist(), strict=True))


def test_unlearning_sets(tmp_path: Path) -> None:
    data = made(
        tmp_path,
        {
            "train.csv": "uid,iid,val\n0,0,1\n1,1,1\n",
            "test.csv": "uid,iid,val\n0,2,1\n",
            "ratings.csv": "uid,iid,val,tag\n0,2,3,30\n0,0,5,10\n",
            "unlearn_set/core_data_5%.csv": "uid,iid,val,tag\n0,0,5,10\n0,2,3,30\n",
        },
    )
    assert data.part_counts() == {"train": 2, "test": 1}
    np.testing.assert_array_equal(data.interactions("train").rating, [5, np.nan])
    assert data.interactions("test").time.tolist() == [30]
    assert forget_sets(tmp_path) == ["core_data_5%"]
    assert [ids.tolist() for ids in forget_pairs(tmp_path, "core_data_5%")] == [[0], [0]]
    with pytest.raises(InputError, match="unknown forget set 'core'"):
        forget_pairs(tmp_path, "core")


def test_hetrec(tmp_path: Path) -> None:
    files = {
        "user_artists.dat": "userID\tartistID\tweight\r\n2\t51\t13883\r\n",
        "artists.dat": 'id\tname\turl\tpictureURL\n51\tDuran "D" Duran\tx\ty\n',
        "tags.dat": "tagID\ttagValue\r\n1\tmúsica\r\n9\tunused\r\n".encode("latin-1"),
        "user_taggedartists.dat": (
            "userID\tartistID\ttagID\tday\tmonth\tyear\r\n2\t51\t1\t2\t1\t1970\r\n2\t7\t1\t1\t4\t2009\r\n"
        ),
        "user_friends.dat": "userID\tfriendID\r\n2\t3\r\n3\t2\r\n",
    }
    data = made(tmp_path, files)
    assert data.names["item"].tolist() == ['Duran "D" Duran']
    assert data.names["tag"].tolist() == ["música", "unused"]
    assert data.tables["item", "tagged", "tag"].time.tolist() == [86400]
    assert [(note.action, note.count) for note in data.notes if note.subject == "tag assignments"] == [("dropped", 1)]
    assert load(tmp_path, cache=False, unlisted="keep").num_items == 2


def test_universes() -> None:
    assert universe(np.array([3, 1])).tolist() == [0, 1, 2, 3]
    assert universe(np.array([3]), first=1).tolist() == [1, 2, 3]
    assert universe(np.array([0, 2]), first=1).tolist() == [0, 1, 2]
    assert universe(np.array([7, 10**15]), np.array([7])).tolist() == [7, 10**15]
    assert universe(np.empty(0, np.int64)).tolist() == []


def test_pairs_get_the_same_key_in_all_lists() -> None:
    top = 2**62
    first, second = pair_keys((np.array([top, 0]), np.array([top, 1])), (np.array([0, top]), np.array([top, top])))
    assert first[0] == second[1]
    assert len({*first.tolist(), *second.tolist()}) == 3
    assert replaced(np.array([5, 1, 9]), np.array([1, 9]), np.array([100, 900])).tolist() == [5, 100, 900]


def test_name_lists(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("has part 3\nx 0\n")
    names, ids = name_list(tmp_path / "a.txt")
    assert (names, ids.tolist()) == (["has part", "x"], [3, 0])
    (tmp_path / "a.txt").write_text("org_id remap_id\nx zero\n")
    with pytest.raises(InputError, match=r"a\.txt, line 2: 'zero' is no number"):
        name_list(tmp_path / "a.txt")


def test_every_adapter_is_documented_and_named() -> None:
    for name, adapter in adapters.ADAPTERS.items():
        assert adapter.name == name and adapter.read.__doc__ and adapter.recognise.__doc__
    assert adapters.recognise(Path("/nowhere")) is None
