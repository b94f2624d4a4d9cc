"""The experiment on influence, small: it runs, and what it writes is what a reader needs to run it again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest

from graphrec.influence.pruning import PruningCurve

FILE = Path(__file__).parents[2] / "experiments" / "influence.py"


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("experiments_influence", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_estimators_stand_in_one_table(
    experiment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in experiment.ROWS if row[2] in (None, "hessian cg")]
    monkeypatch.setattr(experiment, "ROWS", rows)
    sizes = ["--users", "20", "--edges", "4", "--subsets", "3", "--queries", "2", "--models", "1", "--width", "4"]
    assert experiment.main(["attribution", *sizes, "--results", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "influence-attribution-world.json").read_text(encoding="utf-8"))
    assert [row["estimator"] for row in result["rows"]] == [row[0] for row in rows]
    assert result["gradient_norm"] <= 1e-6
    assert result["truth"]["largest_gradient_norm"] <= 1e-6
    assert {"seed", "date", "command", "environment", "fingerprint"} <= set(result)
    by_name = {row["estimator"]: row for row in result["rows"]}
    derivative = by_name["derivative, Hessian, CG"]
    assert derivative["relative_residual"] <= 1e-3
    assert derivative["edges"] == result["edges"]
    assert derivative["loo_relative_error"] < by_name["random"]["loo_relative_error"]
    table = (tmp_path / "influence-attribution-world.md").read_text(encoding="utf-8")
    assert all(f"| {row[0]} |" in table for row in rows)
    assert "python experiments/influence.py attribution" in table
    capsys.readouterr()
    assert experiment.main(["noise", "--dataset", "no-such-set", "--results", str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_picture_of_pruning_stands_alone(experiment: ModuleType) -> None:
    values = {
        kind: {"recall@20": np.array([[0.2], [start], [0.1]])} for kind, start in (("influence", 0.3), ("random", 0.15))
    }
    curve = PruningCurve((0.0, 0.1, 0.2), values)
    drawn = experiment.pruning_picture({"shares": list(curve.shares), "values": curve.to_dict()["values"]})
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"influence", "random"} <= set(words)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 2
