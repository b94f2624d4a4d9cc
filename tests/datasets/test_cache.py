from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from graphrec.datasets import Builder, RecDataset
from graphrec.datasets.cache import cache_key, cache_root, cached, open_dataset, save_dataset
from graphrec.errors import InputError, MissingFileError

T = ("user", "interacts", "item")


def rich() -> RecDataset:
    builder = Builder("rich")
    generator = np.random.default_rng(0)
    rows = {"user": generator.integers(0, 500, 4000), "item": [f"i{k}" for k in generator.integers(0, 900, 4000)],
            "t": generator.random(4000), "r": generator.integers(1, 6, 4000)}  # fmt: skip
    builder.interactions(rows, time="t", rating="r")
    builder.triples(
        {"head": ["i1", "i2"], "relation": ["é", "r"], "tail": ["x", "y"]}, head=("item", "head"), source="wiki"
    )
    builder.tags({"item": ["i1"], "tag": ["fun"], "user": [3]}, user="user")
    builder.names("item", ["i1"], ["Éclair"]).texts("item", ["i2"], ["long"]).kinds("entity", ["x"], ["brand"])
    builder.features("item", ["i1", "i2"], np.ones((2, 64), np.float32), name="image")
    return builder.build().split("random:.8,.1,.1")


def test_a_dataset_comes_back_whole(tmp_path: Path) -> None:
    data = rich()
    again = open_dataset(save_dataset(data, tmp_path / "entry"))
    assert again._cache["fingerprint"] == data.fingerprint
    again._cache.clear()
    assert again.fingerprint == data.fingerprint
    assert again.summary() == data.summary() and again.digests() == data.digests()
    assert again.rows(T, [0, 5]).tolist() == data.rows(T, [0, 5]).tolist()
    assert again.names["item"].tolist() == data.names["item"].tolist()
    assert torch.equal(again.graph()[T].edge_index, data.graph()[T].edge_index)
    assert again.without([0]).fingerprint == data.without([0]).fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry"]


def test_a_changed_feature_does_not_reach_the_disk(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    folder = save_dataset(rich(), tmp_path / "entry")
    tensor = torch.as_tensor(open_dataset(folder).features["item", "image"])
    assert not [warning for warning in recwarn if "writ" in str(warning.message)]
    tensor += 1
    open_dataset(folder)


def test_the_cache_is_used_and_never_stale(tmp_path: Path) -> None:
    source = tmp_path / "source.csv"
    calls = []

    def get(content: str, version: int = 1, **options: object) -> RecDataset:
        source.write_text(content)
        os.utime(source, (1, 1))

        def build() -> RecDataset:
            calls.append(content)
            users = [int(line) for line in source.read_text().split()]
            return Builder().interactions({"user": users, "item": users}).build()

        return cached(cache_key([source], "test", version, options), build, root=tmp_path / "cache")

    assert get("1 2").num_users == 2 and get("1 2").num_users == 2
    assert calls == ["1 2"]
    # The same size and the same time, other content.
    assert get("1 1").num_users == 1
    assert get("1 2").num_users == 2 and calls == ["1 2", "1 1"]
    get("1 2", version=2)
    get("1 2", split="fixed")
    assert len(calls) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "manifest", "format", "outside"])
def test_a_damaged_entry_is_made_again_and_said(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    data = cached("key", rich, root=tmp_path)
    folder = tmp_path / "datasets" / "key"
    victim = folder / "table0.source.npy"
    manifest = folder / "manifest.json"
    described = json.loads(manifest.read_text())
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:-7])
    elif damage == "flip":
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
    elif damage == "missing":
        victim.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    elif damage == "format":
        manifest.write_text(json.dumps({**described, "format": 99}))
    else:
        manifest.write_text(json.dumps({**described, "files": {"../x": {"bytes": 0, "sha256": ""}}}))
    with pytest.raises(InputError):
        open_dataset(folder)
    again = cached("key", rich, root=tmp_path)
    assert again.fingerprint == data.fingerprint
    assert again.notes[-1].action == "rebuilt" and "made again" in caplog.text
    assert cached("key", lambda: pytest.fail("built again"), root=tmp_path).notes == data.notes


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert cached("key", rich, root=blocked).num_users == 500
    assert "cannot be written" in caplog.text


def test_a_failed_write_leaves_the_old_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_dataset(rich(), tmp_path / "entry")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_dataset(rich(), folder)
    open_dataset(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_an_empty_dataset_is_kept_too(tmp_path: Path) -> None:
    data = Builder().interactions({"user": [], "item": []}).build()
    assert open_dataset(save_dataset(data, tmp_path / "entry")).fingerprint == data.fingerprint


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("GRAPHREC_CACHE")
    assert cache_root().name == "graphrec"
    with pytest.raises(MissingFileError):
        cache_key([tmp_path / "none"], "x", 1)
