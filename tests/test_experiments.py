"""The experiment files: each parses, names what exists, and the runner chooses, resumes and reports."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import graphrec
from graphrec.datasets import registry
from graphrec.models import resolve
from graphrec.unlearning import METHODS

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


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "experiments" / "tables").glob("*.yaml")))
def test_every_table_names_what_exists(name: str) -> None:
    content = yaml.safe_load((ROOT / "experiments" / "tables" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert content["dataset"] in registry.entries()
    for row in content["rows"]:
        signature = inspect.signature(resolve(row["model"]).__init__).parameters
        assert set(row.get("hparams", {})) <= set(signature)
    labels = [row.get("label", row["model"]) for row in content["rows"]]
    assert len(set(labels)) == len(labels)
    assert set(content["fit"]) <= set(inspect.signature(graphrec.fit).parameters)


def test_a_table_is_run_resumed_and_shown(tmp_path: Path) -> None:
    """Two rows and a permuted one on the world; what is finished is not trained again."""
    home = tmp_path / "experiments"
    shutil.copytree(ROOT / "experiments", home, ignore=shutil.ignore_patterns("results", "published"))
    table = {
        "dataset": "world",
        "load": {"users": 200},
        "seconds": 30,
        "metrics": ["recall@20", "seen/recall@20"],
        "also": {"seen": {"candidates": "seen", "ks": 20}},
        "hparams": {"dim": 8},
        "fit": {"epochs": 1, "progress": False},
        "rows": ["Popularity", {"model": "KGIN"}],
    }
    (home / "tables" / "small.yaml").write_text(yaml.safe_dump(table), encoding="utf-8")
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    command = [sys.executable, str(home / "table.py"), "small", "--reference", "Popularity", *folders]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "results" / "table-small.json").read_text(encoding="utf-8"))["rows"]
    assert set(rows) == {"Popularity", "KGIN", "KGIN (permuted)"}
    assert rows["KGIN"]["0"]["recall@20"] != rows["KGIN (permuted)"]["0"]["recall@20"]
    assert 0 < rows["KGIN"]["0"]["recall@20"] <= rows["KGIN"]["0"]["seen/recall@20"]
    assert "| KGIN" in first.stdout
    stamps = [path.stat().st_mtime_ns for path in sorted((tmp_path / "runs").rglob("manifest.json"))]
    assert len(stamps) == 3
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "runs").rglob("manifest.json"))] == stamps


def test_an_unknown_table_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "experiments" / "table.py"), "nothing", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "music-ctr" in done.stderr


def test_an_unknown_part_of_the_scale_is_named() -> None:
    command = [sys.executable, str(ROOT / "experiments" / "diffkg_scale.py"), "items", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "'nothing' is no part; there are epoch, items" in done.stderr


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "experiments" / "unlearning").glob("*.yaml")))
def test_every_setting_of_forgetting_names_what_exists(name: str) -> None:
    content = yaml.safe_load((ROOT / "experiments" / "unlearning" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert content["dataset"] in registry.entries()
    assert set(content["hparams"]) <= set(inspect.signature(resolve(content["model"]).__init__).parameters)
    assert set(content["fit"]) <= set(inspect.signature(graphrec.fit).parameters)
    rows = [row if isinstance(row, dict) else {"method": row} for row in content["rows"]]
    for row in rows:
        assert set(row.get("options", {})) <= set(METHODS[row["method"]].__dataclass_fields__)
    assert "retrain" in {row["method"] for row in rows}


def test_methods_of_forgetting_are_run_resumed_and_shown(tmp_path: Path) -> None:
    """Injected edges taken back by three methods, one of which refuses the model; what is there is not run again."""
    home = tmp_path / "experiments"
    shutil.copytree(ROOT / "experiments", home, ignore=shutil.ignore_patterns("results", "published"))
    setting = {
        "dataset": "world:users=150",
        "model": "BPRMF",
        "inject": 0.3,
        "hparams": {"dim": 8, "lr": 0.01},
        "fit": {"epochs": 2, "progress": False},
        "rows": ["retrain", {"method": "finetune", "options": {"epochs": 1}}, "gnndelete"],
    }
    (home / "unlearning" / "small.yaml").write_text(yaml.safe_dump(setting), encoding="utf-8")
    results = tmp_path / "results"
    results.mkdir()
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(results)]
    command = [sys.executable, str(home / "unlearning.py"), "small", "--seeds", "2", *folders]
    first = subprocess.run([*command, "--rows", "retrain"], capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    assert "| finetune |" in first.stdout and "not run" in first.stdout
    before = json.loads((results / "unlearning-small.json").read_text(encoding="utf-8"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    after = json.loads((results / "unlearning-small.json").read_text(encoding="utf-8"))
    assert after["rows"]["retrain"] == before["rows"]["retrain"]
    assert set(after["rows"]) == {"retrain", "finetune", "gnndelete"}
    assert after["rows"]["retrain"]["exactness"] == "exact" and after["about"]["seeds"] == 2
    assert all(isinstance(row["score_gap_sd"], float) for row in after["rows"].values())
    wrong = subprocess.run([*command, "--rows", "magic"], capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2 and "unknown row 'magic'" in wrong.stderr
