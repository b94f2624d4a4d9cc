"""Click prediction as a person uses it: train, evaluate, compare, go on with it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphrec.cli import main
from graphrec.runs import Run
from tests.evaluation.labelled import labelled

Call = Callable[..., tuple[int, str, str]]
TRAIN = ["train", "--dataset", "pairs.csv", "--columns", "user=user,item=item,label=label", "--task", "ctr"]
SMALL = ["--epochs", "3", "--model.dim", "4", "--progress=false"]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Commands in a folder with labelled pairs, and one with ratings."""
    data = labelled(split=None)
    table = data.tables[data.target]
    assert table.label is not None
    rows = list(zip(table.source.tolist(), table.target.tolist(), table.label.tolist(), strict=True))
    (tmp_path / "pairs.csv").write_text("\n".join(["user,item,label", *(f"u{u},i{i},{y}" for u, i, y in rows)]))
    stars = (f"u{u},i{i},{4 + (u + i) % 2 if y else 1 + i % 3}" for u, i, y in rows)
    (tmp_path / "stars.csv").write_text("\n".join(["user,item,stars", *stars]))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        caught = capfd.readouterr()
        return status, caught.out, caught.err

    return run


def test_train_evaluate_compare(call: Call) -> None:
    words = SMALL
    for model in ("BPRMF", "LightGCN"):
        status, out, error = call(*TRAIN, *words, "--model", model, "--split-seed", "2", "--out", model, "--json")
        assert status == 0, error
        assert "split by random_pairs:.6,.2,.2" in error
        found = json.loads(out)
        assert {"auc", "auc_batch", "auc_user", "acc", "f1", "logloss", "ece"} <= set(found)
        assert found["objective"] == "bpr" and all(key == key.lower() for key in found)
    run = Run.open("LightGCN")
    assert run.config["dataset"]["split"] == "random_pairs:.6,.2,.2" and run.config["dataset"]["seed"] == 2
    report = (run.path / "report.html").read_text()
    assert "<h2>Click prediction</h2>" in report and "--task ctr" in report and "--split-seed 2" in report
    status, out, error = call("evaluate", "LightGCN", "--json")
    again = json.loads(out)
    assert status == 0 and again["task"] == "ctr", error
    for key in ("auc", "auc_batch", "acc", "f1", "num_pairs"):
        assert again[key] == run.metrics[key], key
    status, out, _ = call("evaluate", "LightGCN", "--scaling", "platt", "--auc-batch-size", "50", "--json")
    scaled = json.loads(out)
    assert scaled["auc"] == again["auc"] and scaled["scaled_on"] == "valid" and scaled["auc_batch_size"] == 50
    status, out, _ = call("evaluate", "LightGCN", "--split", "valid", "--json")
    assert json.loads(out)["auc"] == run.metrics["valid/auc"]
    status, out, _ = call("evaluate", "LightGCN", "--task", "rank", "--ks", "5", "--json")
    assert status == 0 and "recall@5" in json.loads(out)
    status, out, error = call("compare", "BPRMF", "LightGCN", "--json")
    assert status == 0, error
    assert {row["metric"] for row in json.loads(out)["rows"]} == {"auc_user", "acc_user"}
    # The config of a run is the recipe of the next.
    status, out, error = call("train", "--config", "LightGCN/config.yaml", "--out", "again", "--json")
    assert status == 0, error
    assert json.loads(out)["auc"] == run.metrics["auc"] and "comes without parts" not in error


def test_ratings_with_a_threshold_and_drawn_negatives(call: Call) -> None:
    words = ["train", "--model", "BPRMF", "--dataset", "stars.csv", "--columns", "user=user,item=item,rating=stars"]
    words += ["--task", "ctr", "--min-rating", "4", "--epochs", "2", "--progress=false"]
    status, _, error = call(*words, "--out", "none")
    assert status == 2 and "no pair labelled 0" in error and not Path("none").exists()
    status, out, error = call(*words, "--drawn-negatives", "1", "--out", "run", "--json")
    assert status == 0, error
    found = json.loads(out)
    # 60 users with ten positives and as many drawn, a fifth of them in the test part.
    assert found["num_pairs"] == 240 and 100 < found["num_positives"] < 140
    status, out, error = call("evaluate", "run", "--json")
    assert status == 0 and json.loads(out)["auc"] == found["auc"], error


def test_parts_of_its_own_are_kept(call: Call) -> None:
    split = ["--split", "random_pairs:.5,.5", "--split-seed", "4"]
    status, out, error = call(*TRAIN, "--model", "BPRMF", "--epochs", "1", "--progress=false", *split, "--json")
    assert status == 0 and "comes without parts" not in error, error
    assert json.loads(out)["num_pairs"] == 600 and "valid/auc" not in json.loads(out)


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        ([*TRAIN, "--metric", "recall@20"], ["unknown metric of task 'ctr' 'recall@20'", "auc"]),
        ([*TRAIN, "--metric", "ece"], ["'ece' cannot pick the best epoch"]),
        ([*TRAIN, "--scaling", "plat"], ["--scaling", "plat"]),
        ([*TRAIN, "--split", "random_pairs:.8,.2", "--scaling", "platt"], ["no part 'valid'"]),
        ([*TRAIN, "--drawn-negatives", "0"], ["whole number of at least 1, found 0"]),
        (["train", "--dataset", "bad.csv", *TRAIN[3:]], ["bad.csv", "label 2", "Expected 1"]),
        (["train", "--dataset", "ones.csv", *TRAIN[3:]], ["no pair labelled 0"]),
    ],
)
def test_what_is_refused(call: Call, words: list[str], pieces: list[str]) -> None:
    Path("bad.csv").write_text("user,item,label\nu1,i1,1\nu1,i2,2\n")
    Path("ones.csv").write_text("user,item,label\nu1,i1,1\nu1,i2,1\nu2,i1,1\n")
    status, out, error = call(*words, "--model", "BPRMF", "--out", "run")
    assert status == 2 and out == "" and not Path("run").exists()
    last = error.splitlines()[-1]
    for piece in pieces:
        assert piece in last, last


class PowerCut(Exception):
    """The end of a process, but for the process."""


def test_a_training_that_was_broken_off_goes_on_with_its_task(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphrec.training import loop

    select: Any = loop.Loop._select
    calls = 0

    def failing(self: Any, metrics: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise PowerCut
        select(self, metrics)

    options = ["--model", "BPRMF", "--epochs", "5", "--progress=false", "--checkpoint-every", "1"]
    status, out, _ = call(*TRAIN, *options, "--out", "whole", "--json")
    whole = json.loads(out)
    monkeypatch.setattr(loop.Loop, "_select", failing)
    with pytest.raises(PowerCut):
        call(*TRAIN, *options, "--out", "run")
    monkeypatch.setattr(loop.Loop, "_select", select)
    assert Path("run.training").is_dir() and not Path("run").exists()
    status, out, error = call("train", "--resume", "run", "--json")
    assert status == 0, error
    found = json.loads(out)
    for key in ("auc", "acc", "f1", "logloss", "valid/auc", "best_epoch", "epochs"):
        assert found[key] == whole[key], key
