"""Whatever is wrong with a file gives one InputError that names the file, the place and the cure; never a crash."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphrec.datasets import Builder, adapters
from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import integers, ragged, read_bytes
from graphrec.datasets.archives import extract
from graphrec.datasets.load import load
from graphrec.errors import InputError, MissingFileError


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """A folder with some files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(folder: Path, kind: str) -> object:
    builder = Builder("test")
    adapters.adapter(kind).read(folder, builder)
    return builder.build()


TEXT = [
    ("", "is empty"),
    (" \n\n", "is empty"),
    ("0 1 2\n1 two\n", "line 2: 'two' is no number"),
    ("0 1\n1 2.5\n", "line 2: '2.5' is no whole number"),
    ("0 1\n\n1 -2\n", "line 3: '-2' is negative"),
    ("0 1\n1 +2\n", "line 2: '+2' has a sign"),
    ("0 9223372036854775808\n", "line 1: '9223372036854775808' is above 2^63 - 1"),
    ("0 " + "9" * 5000 + "\n", "is above 2^63 - 1"),
    ("0 1\n1 2\0\n", "line 2: a NUL byte"),
    ("0,1,2\n", "line 1: '0,1,2' is no number (separated by ','?)"),
    ("0 1\n1 nan\n", "line 2: 'nan' is no whole number"),
    ("0 1\n1 é\n", "line 2: 'é' is no number"),
    ("\ufeff0 1\n1 x\n", "line 2: 'x'"),
]


@pytest.mark.parametrize(("text", "said"), TEXT)
def test_lines_of_numbers(tmp_path: Path, text: str, said: str) -> None:
    folder = write(tmp_path / "set", {"train.txt": text, "test.txt": "0 1\n"})
    with pytest.raises(InputError) as error:
        read(folder, "lightgcn")
    assert said in str(error.value)
    assert "train.txt" in str(error.value)
    assert len(str(error.value)) < 600


def test_the_largest_id_is_fine(tmp_path: Path) -> None:
    lines = ragged(write(tmp_path, {"train.txt": f"0 {2**63 - 1} 0000000000000000000000007\n"}) / "train.txt")
    assert lines.values.tolist() == [0, 2**63 - 1, 7]


def test_line_ends_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    for name, content in {
        "crlf": b"0 1 2\r\n1 3\r\n",
        "cr": b"0 1 2\r1 3\r",
        "bom": b"\xef\xbb\xbf0 1 2\n1 3",
        "gzip": gzip.compress(b"0 1\t2 \n\n1 3\n"),
    }.items():
        (tmp_path / name).write_bytes(content)
        users, items = ragged(tmp_path / name).pairs()
        assert (users.tolist(), items.tolist()) == ([0, 0, 1], [1, 2, 3])


def test_truncated_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b"0 1 2\n" * 1000)
    (tmp_path / "kg_final.txt.gz").write_bytes(whole[:-12])
    with pytest.raises(InputError, match=r"kg_final\.txt\.gz: the gzip file is cut short"):
        integers(tmp_path / "kg_final.txt.gz", ("head", "relation", "tail"))


def test_ragged_triples_name_the_line(tmp_path: Path) -> None:
    folder = write(tmp_path, {"train.txt": "0 1\n", "test.txt": "0 2\n", "kg_final.txt": "0 0 3\n\n1 0\n"})
    with pytest.raises(InputError, match=r"kg_final\.txt, line 3: 2 numbers\. Expected 3 on each line: head relation"):
        read(folder, "lightgcn")


def test_labels_outside_their_scale(tmp_path: Path) -> None:
    folder = write(tmp_path, {"ratings_final.txt": "0\t1\t1\n0\t2\t3\n", "kg_final.txt": "0 0 3\n"})
    with pytest.raises(InputError, match=r"ratings_final\.txt, line 2: label 3 is outside the scale 0 to 1"):
        read(folder, "lightgcn")


TABLES = [
    ("", "is empty"),
    ("user\titem\trating\n", "has a header and no rows"),
    ("user,item,rating\n1,2,3\n", "no column 'user', 'item', 'rating'. Found, split at '\\t': 'user,item,rating'"),
    ("user\titem\tscore\n1\t2\t3\n", "no column 'rating'. Found, split at '\\t': 'user', 'item', 'score'"),
    ("user\tuser\titem\trating\n1\t1\t2\t3\n", "two columns are named 'user'"),
    ("user\titem\trating\n1\t2\t3\n1\t2\n", "line 3: 2 fields when split at '\\t'. Expected 3: user, item, rating"),
    ("user\titem\trating\n1\t2\t3\n\n\n1\t2\t3\t4\n", "line 5: 4 fields"),
    ("user\titem\trating\nann\t2\t3\n", "line 2, column 'user': 'ann' is no number"),
    ("user\titem\trating\n1\t2.0\t3\n", "line 2, column 'item': '2.0' is no whole number"),
    ("user\titem\trating\n1\t-2\t3\n", "line 2, column 'item': '-2' is negative"),
    ("user\titem\trating\n1\t0x1F\t3\n", "line 2, column 'item': '0x1F' is no number"),
    ("user\titem\trating\n1\t99999999999999999999\t3\n", "is above 2^63 - 1"),
    ("user\titem\trating\n1\t\t3\n", "column 'item': an empty field"),
    ("user\titem\trating\n1\t2\tnan\n", "line 2, column 'rating': 'nan' is not finite"),
    ("user\titem\trating\n1\t2\tinf\n", "line 2, column 'rating': 'inf' is not finite"),
    ("user\titem\trating\n1\t2\t5\n1\t3\t5.5\n", "line 3, column 'rating': '5.5' is outside the scale 1 to 5"),
    ("user\titem\trating\n1\t2\tfive\n", "line 2, column 'rating': 'five' is no number"),
    ("user\titem\trating\n1\t2\0\t3\n", "line 2: a NUL byte"),
]


@pytest.mark.parametrize(("text", "said"), TABLES)
def test_tables(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(InputError) as error:
        table(tmp_path / "x.tsv", [Column("user", "id"), Column("item", "id"), Column("rating", "float", 1, 5)])
    assert said in str(error.value)
    assert "x.tsv" in str(error.value)


def test_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes("id\tname\n1\tcafé\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"line 2: byte 0xe9 is not UTF-8"):
        table(tmp_path / "x.tsv", [Column("id", "id"), Column("name")])
    read = table(tmp_path / "x.tsv", [Column("id", "id"), Column("name")], encoding="latin-1")
    assert read.column("name").to_pylist() == ["café"]


def test_a_quotation_mark_left_open(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('id,name\n1,"a\nb"\n2,"c\n')
    with pytest.raises(InputError, match=r"line 4: .*quotation mark"):
        table(tmp_path / "x.csv", [Column("id", "id"), Column("name")], separator=",", quoted=True)
    (tmp_path / "y.csv").write_text('id,name\n1,"a\nb"\nx,c\n')
    with pytest.raises(InputError, match="line 4, column 'id': 'x' is no number"):
        table(tmp_path / "y.csv", [Column("id", "id"), Column("name")], separator=",", quoted=True)


def npz(matrix: object) -> bytes:
    out = io.BytesIO()
    scipy.sparse.save_npz(out, matrix)
    return out.getvalue()


def pickled() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return out.getvalue()


MATRIX = scipy.sparse.csr_matrix(np.array([[1.0, 0, 1], [0, 1, 0]]))
VAST = scipy.sparse.coo_matrix(([1], ([0], [0])), shape=(2**40, 2**40))
WRONG = MATRIX.copy()
WRONG.indices = WRONG.indices + 1000


def file_of(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


INTER = "userID\titemID\tx_label\n0\t0\t0\n0\t1\t2\n"
FOLDERS: list[tuple[str, dict[str, str | bytes], str]] = [
    ("sslrec", {"train_mat.npz": b"nothing"}, "train_mat.npz is no SciPy sparse matrix"),
    ("sslrec", {"train_mat.npz": npz(MATRIX)[:-40]}, "train_mat.npz is no SciPy sparse matrix"),
    ("sslrec", {"train_mat.npz": pickled()}, "train_mat.npz is no SciPy sparse matrix"),
    ("sslrec", {"train_mat.npz": npz(WRONG)}, "train_mat.npz is no SciPy sparse matrix"),
    ("sslrec", {"train_mat.npz": npz(VAST)}, "Expected users x items; is it damaged?"),
    ("sslrec", {"train_mat.npz": npz(MATRIX), "test_mat.npz": npz(MATRIX.T.tocsr())}, "differ in shape: train 2 x 3"),
    ("mmrec", {"a.inter": INTER, "image_feat.npy": pickled()}, "image_feat.npy is no .npy array"),
    ("mmrec", {"a.inter": INTER, "image_feat.npy": b""}, "image_feat.npy is no .npy array"),
    ("mmrec", {"a.inter": INTER, "image_feat.npy": file_of(np.ones((1, 4)))}, "1 rows for 2 items"),
    ("mmrec", {"a.inter": INTER, "image_feat.npy": file_of(np.ones(4))}, "Expected a matrix of floats"),
    ("mmrec", {"a.inter": INTER, "image_feat.npy": file_of(np.full((2, 1), np.nan))}, "row 0: a value that is not"),
    (
        "mmrec",
        {"a.inter": INTER.replace("\t2\n", "\t3\n")},
        "line 3, column 'x_label': '3' is outside the scale 0 to 2",
    ),
    ("mmrec", {"a.inter": INTER.replace("\t2\n", "\t1.5\n")}, "line 3, column 'x_label'"),
    ("movielens", {"u.data": "1\t1\t6\t1\n"}, "u.data, line 1, column 'rating': '6' is outside the scale 1 to 5"),
    ("movielens", {"u.data": "1\t1\t5\t1\n1\t1\t5\tnan\n"}, "u.data, line 2, column 'timestamp': 'nan'"),
    ("movielens", {"ratings.dat": "1::1::5::1\n1::1::5\n"}, "ratings.dat, line 2: 3 fields when split at '::'"),
    ("movielens", {"ratings.csv": "userId,movieId,rating,timestamp\n1,1,0,1\n"}, "'0' is outside the scale 0.5 to 5"),
    ("hin", {"user_business.dat": "1\t1\t5\n1\t2\t9\n"}, "line 2, column 'weight': '9' is outside the scale 1 to 5"),
    ("lastfm", {"data1.txt": "1\t1\t5\n", "test1.txt": "1\t2\t-5\n"}, "test1.txt, line 1, column 'count'"),
    ("lastfm", {"data1.txt": "1\t1\t5\n"}, "test1.txt is not there"),
    (
        "citeulike",
        {"users.dat": "2 1 2\n2 1\n", "item-tag.dat": "0\n", "tags.dat": "a\n"},
        "the count says 2, 1 ids follow",
    ),
    ("citeulike", {"users.dat": "1 0\n", "item-tag.dat": "1 5\n", "tags.dat": "a\n"}, "tag 5, but"),
    ("s3rec", {"A.txt": "1 1\n", "A_item2attributes.json": "{"}, "A_item2attributes.json, line 1: no JSON"),
    ("s3rec", {"A.txt": "1 1\n", "A_item2attributes.json": "[" * 100_000}, "A_item2attributes.json"),
    ("s3rec", {"A.txt": "1 1\n", "A_item2attributes.json": "[1]"}, "a JSON list. Expected item id to list"),
    ("s3rec", {"A.txt": "1 1\n", "A_item2attributes.json": '{"x": [1]}'}, "item 'x': 'x' is no number"),
    ("s3rec", {"A.txt": "1 1\n", "A_item2attributes.json": '{"1": ["a"]}'}, "item '1': 'a' is no attribute id"),
    ("s3rec", {"A.txt": "1 1\n", "A_item2attributes.json": '{"1": 7}'}, "item '1': '7' is no list"),
    ("s3rec", {"A_item2attributes.json": '{"1": [7]}'}, "A.txt is not there"),
    ("recbole", {"a.inter": "user_id:token\titem_id:token\n1\t\n"}, "line 2"),
    ("recbole", {"a.inter": "user_id:token\n1\n"}, "expected the fields user_id, item_id. Found: user_id"),
    ("hetrec", {"user_artists.dat": "userID\tartistID\tweight\n1\t1\t1\n"}, "artists.dat is not there"),
    ("unlearning", {"train.csv": "uid,iid,val\n1,1,1\n", "test.csv": "uid,iid,val\n1,x,1\n"}, "line 2, column 'iid'"),
]


@pytest.mark.parametrize(("kind", "files", "said"), FOLDERS)
def test_folders(tmp_path: Path, kind: str, files: dict[str, str | bytes], said: str) -> None:
    folder = write(tmp_path / "set", files)
    with pytest.raises(InputError) as error:
        read(folder, kind)
    assert said in str(error.value)
    assert str(folder) in str(error.value)


def test_archives_stay_in_their_folder(tmp_path: Path) -> None:
    def zipped(name: str) -> Path:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("ok.txt", "0 1")
            archive.writestr(name, "0 1")
        return tmp_path / "a.zip"

    def tarred(change: Callable[[tarfile.TarInfo], None]) -> Path:
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo("inside.txt")
            member.size = 3
            change(member)
            archive.addfile(member, io.BytesIO(b"0 1"))
        return tmp_path / "a.tar.gz"

    def link(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0

    def named(name: str) -> Callable[[tarfile.TarInfo], None]:
        return lambda member: setattr(member, "name", name)

    bad = ["../out.txt", "/out.txt", "a/../../out.txt", "C:\\out.txt", "..\\out.txt"]
    for make in [lambda name=name: zipped(name) for name in bad] + [
        lambda name=name: tarred(named(name)) for name in bad
    ]:
        with pytest.raises(InputError, match="outside its folder"):
            extract(make(), tmp_path / "into")
        assert not (tmp_path / "into").exists()
        assert not (tmp_path / "out.txt").exists()
    with pytest.raises(InputError, match="link or device"):
        extract(tarred(link), tmp_path / "into")
    with pytest.raises(InputError, match="more than 2 bytes"):
        extract(zipped("b.txt"), tmp_path / "into", limit=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "a.zip"]


def test_damaged_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.txt", "0 1 2 3\n" * 5000)
    whole = (tmp_path / "whole.zip").read_bytes()
    for name, content in {"cut.zip": whole[:-30], "empty.zip": b"", "junk.tar.gz": b"junk"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="damaged or cut short"):
            extract(tmp_path / name, tmp_path / "into")
    with pytest.raises(MissingFileError):
        extract(tmp_path / "none.zip", tmp_path / "into")


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="is not there"):
        read_bytes(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_bytes(tmp_path)


# Random bytes, and random mixtures of what such files are made of.
PIECES = [
    b"0",
    b"1",
    b"17",
    b" ",
    b"\t",
    b"\n",
    b"\r\n",
    b",",
    b"::",
    b'"',
    b"-",
    b".",
    b"nan",
    b"\0",
    b"\xff",
    b"userID",
]
BYTES = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join).map(gzip.compress),
    st.binary(max_size=60).map(lambda content: gzip.compress(content)[:-3]),
)
NAMES = {
    "lightgcn": ["train.txt", "test.txt", "kg_final.txt", "ratings_final.txt", "item_list.txt", "relation_list.txt"],
    "mmrec": ["a.inter", "items.tsv", "image_feat.npy", "user_map.tsv"],
    "recbole": ["a.inter", "a.item", "a.user", "a.kg", "a.link"],
    "movielens": ["u.data", "u.item", "u.user"],
    "hetrec": ["user_artists.dat", "artists.dat", "tags.dat", "user_taggedartists.dat", "user_friends.dat"],
    "lastfm": ["data1.txt", "test1.txt", "trustnetwork.txt"],
    "hin": ["user_business.dat", "user_user.dat", "business_city.dat"],
    "citeulike": ["users.dat", "item-tag.dat", "tags.dat", "citations.dat"],
    "s3rec": ["A.txt", "A_item2attributes.json"],
    "sslrec": ["train_mat.npz", "test_mat.npz", "kg.txt.gz"],
    "unlearning": ["train.csv", "test.csv", "ratings.csv"],
}
VALID: dict[str, list[str | bytes]] = {
    "lightgcn": ["0 1 2\n1 2\n", "0 3\n", "0 0 4\n", "0 1 1\n0 2 0\n", "a 0\nb 1\n", "r 0\n"],
    "mmrec": [INTER, "itemID\ttitle\tbrand\n0\ta\tb\n1\tc\t\n", file_of(np.ones((2, 3))), "userID\tname\n0\ta\n"],
    "recbole": [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\ta\t3\t4\n2\tb\t4\t5\n",
        "item_id:token\ttitle:token_seq\tprice:float\na\tone\t2\nb\ttwo\t3\n",
        "user_id:token\tage:token\n1\t5\n2\t6\n",
        "head_id:token\trelation_id:token\ttail_id:token\nm.1\tr\tm.2\nm.2\tr\tm.1\n",
        "item_id:token\tentity_id:token\na\tm.1\n",
    ],
    "movielens": [
        "1\t1\t5\t9\n1\t2\t3\t10\n",
        "".join(f"{i}|t{i}|1||u" + "|0" * 18 + "|1\n" for i in (1, 2)),
        "1|24|M|cook|0\n",
    ],
    "hetrec": [
        "userID\tartistID\tweight\n1\t1\t5\n",
        "id\tname\turl\tpictureURL\n1\ta\tb\tc\n",
        "tagID\ttagValue\n1\trock\n",
        "userID\tartistID\ttagID\tday\tmonth\tyear\n1\t1\t1\t1\t4\t2009\n",
        "userID\tfriendID\n1\t2\n",
    ],
    "lastfm": ["1\t1\t5\n1\t2\t3.2e+05\n", "1\t3\t4\n", "1\t2\n2\t1\n"],
    "hin": ["1\t1\t5\n", "1\t2\t1\n", "1\t7\t1\n"],
    "citeulike": ["2 0 1\n0\n", "1 0\n0\n", "a\n", "1 1\n1 0\n"],
    "s3rec": ["1 1 2 3\n2 3 4 1\n", '{"1": [1, 2], "4": [2]}'],
    "sslrec": [npz(MATRIX), npz(MATRIX), gzip.compress(b"0 0 1\n")],
    "unlearning": ["uid,iid,val\n0,1,1\n", "uid,iid,val\n0,2,1\n", "uid,iid,val,tag\n0,1,4,9\n0,2,5,9\n"],
}


@pytest.mark.parametrize("kind", NAMES)
def test_the_smallest_folder_of_each_format_is_read(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path, dict(zip(NAMES[kind], VALID[kind], strict=True)))
    assert adapters.recognise(folder) == kind
    assert read(folder, kind)


@pytest.mark.parametrize("kind", NAMES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_bytes_give_input_errors_alone(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """One file of a good folder becomes random bytes, or has some put into it: read or refused, never a crash."""
    files = dict(zip(NAMES[kind], VALID[kind], strict=True))
    victim = data.draw(st.sampled_from(NAMES[kind]))
    noise = data.draw(BYTES)
    good = files[victim]
    good = good.encode() if isinstance(good, str) else good
    place = data.draw(st.integers(0, len(good)))
    width = data.draw(st.integers(0, 3))
    files[victim] = data.draw(st.sampled_from([noise, good[:place] + noise[:9] + good[place + width :], good[:place]]))
    folder = write(tmp_path / "set", files)
    for known in adapters.ADAPTERS.values():
        assert known.recognise(folder) in (True, False)
    try:
        read(folder, kind)
    except InputError as error:
        assert len(str(error)) < 1500


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=BYTES, name=st.sampled_from(["a.csv", "a.tsv", "a.parquet", "a.zip", "a.tar.gz"]))
def test_random_single_files(tmp_path: Path, content: bytes, name: str) -> None:
    folder = write(tmp_path / "single", {name: content})
    try:
        load(folder / name, cache=False, columns="user=0,item=1" if name == "a.csv" else None)
    except InputError:
        return


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6), min_size=1, max_size=8))
def test_both_paths_of_the_number_reader_agree(tmp_path: Path, rows: list[list[int]]) -> None:
    text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    lines = ragged(write(tmp_path, {"x.txt": text}) / "x.txt")
    assert [lines.values[a:b].tolist() for a, b in zip(lines.indptr, lines.indptr[1:], strict=False)] == rows


def test_deep_json_is_refused(tmp_path: Path) -> None:
    nested = "{" + '"1": {' * 5000
    folder = write(tmp_path, {"A.txt": "1 1\n", "A_item2attributes.json": nested})
    with pytest.raises(InputError):
        read(folder, "s3rec")
    assert json.loads('{"1": [1]}')
