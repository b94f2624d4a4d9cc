from __future__ import annotations

import gzip
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

from graphrec.datasets import Builder, RecDataset
from graphrec.datasets.frames import from_table
from graphrec.datasets.roles import as_mapping
from graphrec.errors import InputError, MissingFileError

ROLES = {"user": "uid", "item": "sku", "time": "ts"}
T = ("user", "interacts", "item")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def build(path: Path, roles: dict[str, str] | None = None, **options: Any) -> RecDataset:
    roles = roles or {"user": "uid", "item": "sku"}
    table = from_table(path, roles, **options)
    extra = {role: role for role in roles if role not in ("user", "item")}
    return Builder("file").interactions(table, **extra).build()


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_separators_line_ends_and_gzip_are_seen(tmp_path: Path, separator: str, end: str, packed: bool) -> None:
    lines = [["x", "sku", "uid", "ts"], ["1", "b", "7", "30"], ["2", "a", "7", "10"], ["3", "b", "12", "20"]]
    content = (end.join(separator.join(line) for line in lines) + end).encode()
    data = build(write(tmp_path, "data.txt", gzip.compress(content) if packed else content), ROLES)
    assert data.vocabularies["user"].raw.tolist() == [7, 12] and data.vocabularies["item"].raw.tolist() == ["a", "b"]
    assert data.tables[T].time.tolist() == [10, 30, 20] and data.tables[T].time.dtype == np.int64


def test_a_file_and_its_frames_give_the_same_dataset(tmp_path: Path) -> None:
    frame = pd.DataFrame({"uid": [3, 1, 2], "sku": ["x", "y", "x"], "ts": [5, 6, 7], "unused": [object()] * 3})
    clean = frame.drop(columns="unused")
    clean.to_csv(tmp_path / "a.csv", index=False)
    clean.to_parquet(tmp_path / "a.parquet")
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, pa.Table.from_pandas(clean).schema) as out,
    ):
        out.write(pa.Table.from_pandas(clean))
    sources = [tmp_path / "a.csv", str(tmp_path / "a.parquet"), tmp_path / "a.arrow", frame, pl.from_pandas(clean),
               pa.Table.from_pandas(clean)]  # fmt: skip
    prints = {build(source, ROLES).fingerprint for source in sources}
    assert len(prints) == 1
    assert from_table(tmp_path / "a.csv").column_names == from_table(clean).column_names == ["uid", "sku", "ts"]


def test_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    data = build(write(tmp_path, "a.csv", 'uid,sku\n007,"a, b"\n7,"say ""x"""\n'))
    assert data.vocabularies["user"].raw.tolist() == ["007", "7"]
    assert data.vocabularies["item"].raw.tolist() == ["a, b", 'say "x"']


def test_a_file_without_a_header_has_numbered_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "7\tb\n8\ta\n")
    assert build(path, {"user": "0", "item": "1"}, header=False).num_users == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("uid,skuu\n1,2\n", r"no column 'sku'. Did you mean 'skuu'\? Found: 'uid', 'skuu'"),
        ("uid/sku\n1/2\n", r"no column 'uid'.*Found: 'uid/sku'.*say which one with separator="),
        ("uid,uid,sku\n1,2,3\n", "column 'uid' occurs 2 times"),
        ("uid,sku\n1,2\n3\n", "line 3: 1 fields separated by ',', expected 2"),
        ("uid,sku\n1,2\n3,4,5\n", "line 3: 3 fields separated by ',', expected 2"),
        ("uid,sku\n1,2\n3,\n", "line 3, column 'sku': an empty id"),
        ("", "is empty"),
        ("\n\n  \n", "is empty"),
        ("uid,sku\n", "a header but no rows"),
        ("uid,sku\n1,2\n1,\x003\n", "line 3: a NUL byte"),
        (gzip.compress(b"uid,sku\n1,2\n" * 900, mtime=0)[:-20], "gzip file is cut short"),
        ("uid,sku\n1,2\n-3,4\n", "line 3, column 'uid': id '-3' is negative"),
        ("uid,sku\n1,2\n2.5,4\n", "line 3, column 'uid': id '2.5' is a decimal number"),
        ("uid,sku\n1,2\n99999999999999999999,4\n", "line 3, column 'uid': id 9{20} is above"),
        (b"PAR1 is not all", "damaged or cut file"),
        (b"ARROW1 is not all", "damaged or cut file"),
        (b"uid,sku\n1,\xff\n", "line 2: no utf-8 text"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path, "bad.csv", content)
    with pytest.raises(InputError, match=message) as caught:
        build(path)
    assert str(path) in str(caught.value)


def test_bad_values_are_named_with_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "uid,sku,r\n1,2,3\n1,3,many\n")
    with pytest.raises(InputError, match="line 3, column 'r': 'many' is no number"):
        Builder().interactions(from_table(path, {"user": "uid", "item": "sku", "rating": "r"}), rating="rating")
    blank = write(tmp_path, "b.csv", "uid,sku,r\n1,2,3\n\n1,3,many\n")
    with pytest.raises(InputError, match=r"row 1 \(from 0\), column 'r'"):
        Builder().interactions(from_table(blank, {"user": "uid", "item": "sku", "rating": "r"}), rating="rating")


def test_parquet_rows_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": [1, -1], "sku": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet, row 1 \(from 0\), column 'uid': id -1 is negative"):
        build(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no column 'sku2'. Did you mean 'sku'"):
        build(tmp_path / "a.parquet", {"user": "uid", "item": "sku2"})
    whole = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(InputError, match="damaged or cut"):
        build(write(tmp_path, "cut.parquet", whole[:-5]))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="is not there"):
        from_table(tmp_path / "none.csv")
    with pytest.raises(MissingFileError, match="is a folder"):
        from_table(tmp_path)
    with pytest.raises(InputError, match="expected a frame"):
        from_table(3)


def test_another_encoding_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "uid,sku\n1,caf\xe9\n".encode("latin-1"))
    assert build(path, encoding="latin-1").vocabularies["item"].raw.tolist() == ["café"]
    with pytest.raises(InputError, match="unknown encoding"):
        build(path, encoding="latin-0")


TEXTS = st.text('uidsk,;\t|"\n\r 0123456789.-\0é', max_size=60)


@settings(deadline=None, max_examples=250)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=80).map(lambda rest: b"PAR1" + rest + b"PAR1"),
        st.binary(max_size=80).map(lambda rest: b"ARROW1\0\0" + rest + b"ARROW1"),
        st.binary(max_size=80).map(lambda rest: b"\x1f\x8b\x08" + rest),
        TEXTS.map(str.encode),
        TEXTS.map(lambda rest: ("uid,sku\n" + rest).encode()),
        st.binary(max_size=80).map(lambda rest: b"uid\tsku\n1\t2\n" + rest),
        TEXTS.map(lambda rest: gzip.compress(("uid;sku\n" + rest).encode())),
    ),
    st.sampled_from([None, {"user": "uid", "item": "sku"}]),
)
def test_only_input_errors_come_out_of_random_bytes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, roles: dict[str, str] | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.csv"
    path.write_bytes(content)
    try:
        table = from_table(path, roles)
        if roles is not None:
            data = Builder().interactions(table).build()
            assert len(data.tables[T]) > 0
    except InputError as error:
        assert len(str(error)) < 2000


def test_roles_as_they_are_typed() -> None:
    roles = {"user": "uid", "item": "sku"}
    assert as_mapping("user=uid, item=sku") == as_mapping(roles) == roles
    assert as_mapping(None) == {}
    for text in ("user", "user=", "=uid", "", "user=a,,"):
        with pytest.raises(InputError, match=r"--columns '.*': expected role=column pairs"):
            as_mapping(text, "--columns")
