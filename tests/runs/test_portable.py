from __future__ import annotations

import os
from pathlib import Path

import pytest

import graphrec
from graphrec.datasets import load
from graphrec.models.popularity import Popularity
from graphrec.runs import Run
from graphrec.runs.portable import portable_config, portable_files
from graphrec.serving import Recommender

ROWS = [(user, item) for user in range(6) for item in range(5) if (user + item) % 3]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run on a file, trained with a report."""
    file = tmp_path / "secret place" / "clicks.csv"
    file.parent.mkdir()
    file.write_text("user,item\n" + "\n".join(f"{user},{item}" for user, item in ROWS) + "\n")
    data = load(file, split="random:.6,0,.4", cache=False)
    assert data.loaded is not None and data.loaded["source"] == str(file)
    return graphrec.fit(Popularity(data), data, ks=(2,), metric="recall@2", out=tmp_path / "run", progress=False)


def test_paths_become_names() -> None:
    config = {
        "model": "LightGCN",
        "dataset": {"source": "/home/someone/clicks.csv", "split": "time:.8,.1,.1", "fingerprint": "f"},
        "init_from": {"source": "runs/older", "copied": []},
    }
    assert portable_config(config) == {
        "model": "LightGCN",
        "dataset": {"source": "clicks.csv", "split": "time:.8,.1,.1", "fingerprint": "f"},
        "init_from": {"source": "older", "copied": []},
    }
    assert config["dataset"]["source"] == "/home/someone/clicks.csv"
    for source, kept in (("~/sets/ml", "ml"), ("gowalla", "gowalla"), ("world:users=50", "world:users=50")):
        assert portable_config({"dataset": {"source": source}}) == {"dataset": {"source": kept}}
    below = {"source": "sets/ml-100k", "root": "/home/someone"}
    assert portable_config({"dataset": below}) == {"dataset": {"source": "sets/ml-100k"}}
    assert portable_config({"dataset": {"name": "made in memory"}}) == {"dataset": {"name": "made in memory"}}


def test_a_saved_copy_says_nothing_of_where_the_data_lay(run: Run, tmp_path: Path) -> None:
    place = run.config["dataset"]["source"]
    copy = Run.open(Recommender.from_pretrained(run).save_pretrained(tmp_path / "copy"))
    assert set(copy.files) == set(run.files) >= {"report.html", "config.yaml"}
    assert copy.config["dataset"] == {**run.config["dataset"], "source": "clicks.csv"}
    assert Run(run.path).config["dataset"]["source"] == place
    for file in copy.path.rglob("*"):
        assert file.is_dir() or b"secret" not in file.read_bytes(), file
    assert copy.dataset(root=tmp_path / "secret place").fingerprint == run.fingerprint
    again = Run.open(Recommender.from_pretrained(copy).save_pretrained(tmp_path / "again"))
    assert all(os.path.samefile(path, copy.path / name) for name, path in portable_files(copy).items())
    assert again.manifest == copy.manifest
