"""The experiment on explanations, small: both orders side by side, and a model without slopes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

import graphrec
from graphrec.cli import main

FILE = Path(__file__).parents[2] / "experiments" / "explanations.py"


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("experiments_explanations", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run_of(model: str, folder: Path) -> Path:
    words = ["--dataset", "world", "--epochs", "2", "--out", str(folder), "--model.dim", "8", "--report", "false"]
    assert main(["train", "--model", model, *words]) == 0
    return folder


def test_orders_stand_side_by_side(experiment: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_of("KGIN", tmp_path / "run")
    assert experiment.main([str(folder), "--pairs", "12", "--out", str(tmp_path / "found.json")]) == 0
    text = (tmp_path / "found.json").read_text(encoding="utf-8")
    result = json.loads(text)
    assert str(tmp_path) not in text
    assert result["pairs"] == 12 and result["strength_by"] == "degree" and result["deletions_by_weights"]
    assert "--model KGIN" in result["command"] and "--pairs 12" in result["command"]
    orders = result["orders"]
    assert set(orders) == {"strength", "estimate", "effect"}
    # What is shown is the largest of the measured, the first of the two other orders among them.
    assert orders["effect"]["path"]["mean"] >= max(orders[name]["path"]["mean"] for name in ("strength", "estimate"))
    assert orders["effect"]["best_elsewhere"]["mean"] >= orders["effect"]["elsewhere"]["mean"]
    for order in orders.values():
        assert 0 <= order["elsewhere"]["path_larger"] <= 1 and order["elsewhere"]["pairs"] == 12
    assert orders["effect"]["strength"]["wilcoxon_p"] <= 0.5


def test_a_model_without_slopes_has_one_order(experiment: ModuleType, tmp_path: Path) -> None:
    run = graphrec.Run.open(run_of("CKE", tmp_path / "run"))
    result = experiment.measure(run, 3, 0, None)
    assert set(result["orders"]) == {"strength"}
    assert "no slope" in result["no_effect_because"]
    assert result["orders"]["strength"]["path"]["mean"] == 0
    assert result["orders"]["strength"]["elsewhere"]["wilcoxon_p"] == 1
