"""The experiment files: each parses, names what exists, and the runner chooses, resumes and reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from graphrec.datasets import registry
from graphrec.models import resolve

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments" / "published").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_published_row_names_what_exists(file: Path) -> None:
    row = yaml.safe_load(file.read_text(encoding="utf-8"))
    model = resolve(row["model"])
    # A row that is not run by default may be on data that whoever runs it brings along; its note says which.
    assert row["dataset"] in registry.entries() or (row["run"] is False and row["dataset"] in row["note"])
    assert row["published"]
    assert row["source"]
    if "preset" in row:
        assert row["preset"] in model.presets


def test_a_grid_is_chosen_on_validation_and_refitted(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    row = {
        "model": "ItemKNN",
        "dataset": "world",
        "grid": {"k": [2, 50]},
        "published": {"recall@20": 0.1},
    }
    file.write_text(yaml.safe_dump(row), encoding="utf-8")
    command = [sys.executable, str(ROOT / "experiments" / "run.py"), str(file), "--runs", str(tmp_path / "runs")]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    values = {trial["hparams"]["k"]: trial["value"] for trial in result["trials"]}
    assert set(values) == {2, 50}
    assert result["hparams"]["k"] == max(values, key=lambda k: values[k])
    written = sorted((tmp_path / "runs").rglob("manifest.json"))
    stamps = [path.stat().st_mtime_ns for path in written]
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert [path.stat().st_mtime_ns for path in written] == stamps, "a finished row was trained again"
    assert json.loads(again.stdout)["mean"]["recall@20"] == result["mean"]["recall@20"]


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("model: EASE\ndataset: world\ngrit: {}\n", encoding="utf-8")
    command = [sys.executable, str(ROOT / "experiments" / "run.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "Did you mean 'grid'" in done.stderr
    assert "Traceback" not in done.stderr
