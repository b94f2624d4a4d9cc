"""``load`` finds, recognises, converts and caches; and says what it could not do."""

from __future__ import annotations

import gzip
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graphrec.datasets import load
from graphrec.errors import InputError, MissingFileError

CSV = "uid,sku,ts,stars\nann,7,100,5\nbob,8,90,1\nann,8,120,4\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "shop"
    path.mkdir()
    (path / "train.txt").write_text("0 0 1\n1 1 2\n")
    (path / "test.txt").write_text("0 2\n2 0\n")
    return path


def test_a_folder_by_path_by_name_and_by_one_of_its_files(folder: Path) -> None:
    by_path = load(folder)
    by_name = load("shop", root=folder.parent)
    by_file = load(folder / "train.txt")
    assert by_path.fingerprint == by_name.fingerprint == by_file.fingerprint
    assert by_path.name == by_name.name == "shop"
    assert by_path.part_counts() == {"train": 4, "test": 2}
    assert (by_path.num_users, by_path.num_items) == (3, 3)


def test_data_root_in_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHREC_DATA", str(folder.parent))
    assert load("shop").num_users == 3


def test_a_changed_source_is_never_served_stale(folder: Path) -> None:
    before = load(folder)
    assert load(folder).fingerprint == before.fingerprint
    (folder / "train.txt").write_text("0 0 1\n1 1 0\n")
    after = load(folder)
    assert after.fingerprint != before.fingerprint
    assert after.fingerprint == load(folder, cache=False).fingerprint


def test_the_cache_keeps_options_apart(folder: Path) -> None:
    (folder / "train.txt").write_text("0 0 1 1\n1 1 2\n")
    merged = load(folder)
    assert any(note.action == "merged" for note in merged.notes)
    with pytest.raises(InputError, match=r"occur twice"):
        load(folder, duplicates="error")
    assert load(folder, duplicates="first").fingerprint == merged.fingerprint
    renamed = folder.rename(folder.with_name("other"))
    assert load(renamed).name == "other"


@pytest.mark.parametrize("columns", ["user=uid,item=sku,time=ts", {"user": "uid", "item": "sku", "time": "ts"}])
def test_a_csv_with_named_columns(tmp_path: Path, columns: str | dict[str, str]) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    data = load(tmp_path / "a.csv", columns=columns)
    assert data.vocabularies["user"].raw.tolist() == ["ann", "bob"]
    assert data.vocabularies["item"].raw.tolist() == [7, 8]
    assert data.interactions().time.tolist() == [100, 120, 90]
    assert data.interactions().rating is None
    assert not [note for note in data.notes if note.action == "guessed"]


def test_every_kind_of_single_file_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "a.tsv").write_text(CSV.replace(",", "\t"))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    frame = pa.table({"uid": ["ann", "bob", "ann"], "sku": [7, 8, 8], "ts": [100, 90, 120], "stars": [5.0, 1.0, 4.0]})
    pq.write_table(frame, tmp_path / "a.parquet")
    columns = "user=uid,item=sku,time=ts,rating=stars"
    found = {load(path, columns=columns).fingerprint for path in sorted(tmp_path.glob("a.*"))}
    assert len(found) == 1


def test_columns_are_guessed_only_when_unambiguous_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    data = load(tmp_path / "a.csv")
    said = [note.detail for note in data.notes if note.action == "guessed"]
    assert said == ["user=uid, item=sku, rating=stars, time=ts; say columns=… if that is wrong"]
    (tmp_path / "b.csv").write_text("user,user_id,item\n1,2,3\n")
    with pytest.raises(InputError, match=r"'user', 'user_id' could each be the user.*columns='user=…"):
        load(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("who,what\n1,2\n")
    with pytest.raises(InputError, match=r"no column has a known name for the user. Columns found: 'who', 'what'"):
        load(tmp_path / "c.csv")


def test_settings_of_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1;2;9\n3;4;2\n")
    data = load(tmp_path / "a.txt", columns="user=0,item=1,rating=2", header=False, separator=";")
    assert len(data.interactions()) == 2
    with pytest.raises(InputError, match=r"9 is outside the scale 1 to 5"):
        load(tmp_path / "a.txt", columns="user=0,item=1,rating=2", header=False, separator=";", scale=(1, 5))


def test_wrong_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    for columns, said in {
        "user=uuid,item=sku": "no column 'uuid'. Did you mean 'uid'? Found: 'uid', 'sku', 'ts', 'stars'",
        "user=uid": "do not say which is the item",
        "user=uid,item=sku,tme=ts": "unknown role of a column 'tme'. Did you mean 'time'?",
        "uid,sku": "expected role=column pairs",
    }.items():
        with pytest.raises(InputError) as error:
            load(tmp_path / "a.csv", columns=columns)
        assert said in str(error.value)
    with pytest.raises(InputError, match=r"unknown option of a single file 'seperator'. Did you mean 'separator'"):
        load(tmp_path / "a.csv", columns="user=uid,item=sku", seperator=",")


def test_faults_in_a_single_file_name_the_line(tmp_path: Path) -> None:
    for text, said in {
        CSV.replace("bob,8", "bob,-8"): "line 3",
        CSV.replace("bob,8,90", "bob,8"): "line 3: 3 fields",
        CSV.replace("90", "nan"): "line 3",
        "": "is empty",
        "uid,sku,ts,stars\n": "no rows",
    }.items():
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(InputError) as error:
            load(tmp_path / "a.csv", columns="user=uid,item=sku,time=ts")
        assert said in str(error.value)
        assert "a.csv" in str(error.value)


def test_split_rating_and_cold(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    columns = "user=uid,item=sku,time=ts,rating=stars"
    data = load(tmp_path / "a.csv", columns=columns, min_rating=4, split="leave_one_out")
    assert data.part_counts() == {"train": 1, "test": 1}
    kept, dropped = load(folder), load(folder, cold="drop")
    assert len(kept.interactions("test")) == 2
    assert len(dropped.interactions("test")) == 1
    with pytest.raises(InputError, match=r"unknown policy for cold users and items 'dorp'. Did you mean 'drop'"):
        load(folder, cold="dorp")
    with pytest.raises(InputError, match=r"unknown policy for duplicates"):
        load(folder, duplicates="both")


def test_the_same_seed_gives_the_same_split(folder: Path) -> None:
    made = [load(folder, split="random:.5,.25,.25", seed=seed).fingerprint for seed in (1, 1)]
    assert made[0] == made[1]


def test_an_archive(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"shop/{path.name}")
    assert load(tmp_path / "shop.zip").fingerprint == load(tmp_path / "shop.zip").fingerprint
    assert load(tmp_path / "shop.zip").part_counts() == load(folder).part_counts()


def test_a_format_is_forced(folder: Path) -> None:
    assert load(folder, format="lightgcn").num_users == 3
    with pytest.raises(InputError, match=r"unknown format 'lightgc'. Did you mean 'lightgcn'"):
        load(folder, format="lightgc")
    with pytest.raises(MissingFileError, match=r"no \.inter file"):
        load(folder, format="mmrec")
    with pytest.raises(InputError, match=r"columns= is for a single csv"):
        load(folder, columns="user=0,item=1")
    with pytest.raises(InputError, match=r"unknown option of format 'lightgcn' 'merge_relatd'"):
        load(folder, merge_relatd=True)
    with pytest.raises(InputError, match=r"unknown option of format 'lightgcn' 'split_sed'.*\bseed, split\b"):
        load(folder, split_sed=1)


def test_a_format_that_the_file_contradicts_is_refused(tmp_path: Path) -> None:
    text, binary = tmp_path / "a.csv", tmp_path / "a.parquet"
    text.write_text(CSV)
    pq.write_table(pa.table({"uid": ["ann"], "sku": ["7"]}), binary)
    columns = "user=uid,item=sku"
    assert load(text, format="csv", columns=columns).num_users == 2
    assert load(binary, format="parquet", columns=columns).num_users == 1
    with pytest.raises(InputError, match=r"format='parquet' was asked for, but the file is text"):
        load(text, format="parquet", columns=columns)
    with pytest.raises(InputError, match=r"format='csv' was asked for, but the file is parquet or arrow"):
        load(binary, format="csv", columns=columns)


def test_unknown_names_and_places(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"unknown dataset 'gowala'. Did you mean 'gowalla'"):
        load("gowala")
    with pytest.raises(InputError, match=r"unknown dataset 'shp'. Did you mean 'shop'"):
        load("shp", root=folder.parent)
    with pytest.raises(MissingFileError, match=r"none\.csv is not there"):
        load(tmp_path / "none.csv")
    with pytest.raises(MissingFileError) as error:
        load("ml-1m", root=tmp_path)
    assert f"Put test.txt, train.txt into {tmp_path / 'ml-1m'}" in str(error.value)
    assert "GroupLens" in str(error.value)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "notes.doc").write_text("hello")
    with pytest.raises(InputError, match=r"no known format. It holds notes\.doc. Formats: mmrec"):
        load(tmp_path / "strange")


def test_a_known_folder_that_lacks_files_says_which(tmp_path: Path) -> None:
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "test.txt").write_text("0 1\n")
    with pytest.raises(MissingFileError, match=r"ml-1m lacks train\.txt"):
        load("ml-1m", root=tmp_path)


def test_the_seeded_world() -> None:
    by_keyword = load("world", users=60, seed=7)
    assert by_keyword.num_users == 60
    assert load("seeded-world:users=60,seed=7").fingerprint == by_keyword.fingerprint
    assert load("world:users=60", seed=8).fingerprint != by_keyword.fingerprint
    with pytest.raises(InputError, match=r"unknown option of the seeded world 'user'. Did you mean 'users'"):
        load("world", user=5)
    with pytest.raises(InputError, match=r"expected NAME:option=value"):
        load("world:60")


@pytest.mark.realdata
def test_gowalla_cold_and_from_the_cache(data_root: Path) -> None:
    begin = time.perf_counter()
    cold = load("gowalla", root=data_root)
    between = time.perf_counter()
    warm = load("gowalla", root=data_root)
    end = time.perf_counter()
    assert warm.fingerprint == cold.fingerprint
    assert between - begin < 5
    assert end - between < 0.5
    np.testing.assert_array_equal(warm.pairs("train").items, cold.pairs("train").items)


@pytest.mark.realdata
def test_options_of_a_known_set(data_root: Path) -> None:
    data = load("ml-100k:fold=u1", root=data_root)
    assert data.part_counts() == {"train": 80000, "test": 20000}
    with pytest.raises(MissingFileError, match=r"Folds that are: u1, u2"):
        load("ml-100k", root=data_root, fold="u9")
