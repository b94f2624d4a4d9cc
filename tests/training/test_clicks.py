"""Training for click prediction: selection, stopping, resuming, and what the run says."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from lightning.pytorch import Callback

import graphrec
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation import CLICK_METRICS, evaluate_clicks
from graphrec.models import BPRMF, EASE
from graphrec.runs import Run
from graphrec.training import FitOptions, Interrupted, fit
from graphrec.training.resume import check_same
from tests.evaluation.labelled import labelled
from tests.models.planted import planted
from tests.models.point_mf import PointMF

OPTIONS: dict[str, Any] = {"task": "ctr", "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return labelled()


def test_a_run_for_clicks(data: RecDataset, tmp_path: Path) -> None:
    model = PointMF(data, lr=0.05)
    run = fit(model, data, epochs=40, out=tmp_path / "run", **OPTIONS)
    assert run.config["fit"]["task"] == "ctr" and run.config["fit"]["metric"] == "auc"
    assert run.config["selected_on"] == "valid"
    for key in CLICK_METRICS:
        assert run.metrics[key] >= 0 and run.metrics[f"valid/{key}"] >= 0, key
    assert run.metrics["objective"] == "cross entropy of labelled pairs"
    assert run.metrics["auc"] > 0.7 and "recall@20" not in run.metrics
    assert run.metrics["num_pairs"] == len(data.interactions("test", labels=True))
    history = run.history
    assert run.metrics["best_epoch"] == int(history["valid/auc"].idxmax()) + 1
    assert run.metrics["valid/auc"] == history["valid/auc"].max()
    per_user = run.per_user()
    assert per_user is not None and "auc_user" in per_user.column_names
    opened = run.model()
    again = graphrec.evaluate(run, data, task="ctr")
    assert again["auc"] == run.metrics["auc"]
    assert opened.graph_inputs.labelled is not None and run.files["inputs.safetensors"]["holds"]


def test_the_best_epoch_is_the_one_of_the_metric_asked_for(data: RecDataset) -> None:
    for metric in ("auc", "acc", "f1", "auc_user", "auc_batch", "gauc"):
        run = fit(PointMF(data, lr=0.2), data, epochs=8, metric=metric, auc_batch_size=50, **OPTIONS)
        assert run.metrics["best_epoch"] == int(run.history[f"valid/{metric}"].idxmax()) + 1, metric


def test_it_stops_early(data: RecDataset) -> None:
    run = fit(PointMF(data, lr=0.3, dim=32), data, epochs=60, patience=2, **OPTIONS)
    best = int(run.history["valid/auc"].idxmax()) + 1
    assert run.metrics["epochs"] == best + 2 < 60


def test_select_on_test_is_stated(data: RecDataset) -> None:
    run = fit(PointMF(data), data, epochs=3, select_on="test", **OPTIONS)
    assert run.config["selected_on"] == "test" and run.metrics["test/auc"] == run.metrics["auc"]


class Stop(Callback):
    """Ctrl-C after some epochs."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_train_epoch_end(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_resumed_training_ends_as_an_unbroken_one(data: RecDataset, tmp_path: Path) -> None:
    options = {**OPTIONS, "epochs": 8, "scaling": "platt"}
    unbroken = fit(PointMF(data), data, out=tmp_path / "unbroken", **options)
    with pytest.raises(Interrupted):
        fit(PointMF(data), data, out=tmp_path / "broken", callbacks=[Stop(3)], **options)
    broken = fit(PointMF(data), data, resume=tmp_path / "broken", **options)
    assert broken.config["status"] == "complete"
    for name, value in unbroken.weights().items():
        assert torch.equal(value, broken.weights()[name]), name
    for name, value in unbroken.metrics.items():
        if "seconds" not in name:
            assert broken.metrics[name] == value, name
    with pytest.raises(Interrupted):
        fit(PointMF(data), data, out=tmp_path / "third", callbacks=[Stop(2)], **options)
    with pytest.raises(InputError, match="scaling was 'platt', is 'none'"):
        fit(PointMF(data), data, resume=tmp_path / "third", **{**options, "scaling": "none"})


def test_a_training_from_before_there_were_tasks_can_be_resumed() -> None:
    now = {"model": "BPRMF", "seed": 0, "hparams": {}, "dataset": {"fingerprint": "a"}, "fit": FitOptions().as_config()}
    new = ("task", "auc_batch_size", "auc_batch_last", "scaling")
    before = {**now, "fit": {name: value for name, value in now["fit"].items() if name not in new}}  # type: ignore[attr-defined]
    check_same(before, now, None)
    with pytest.raises(InputError, match="task was 'rank', is 'ctr'"):
        check_same(before, {**now, "fit": FitOptions(task="ctr", metric="recall@20").as_config()}, None)


def test_rankers_and_closed_forms_are_measured_on_clicks(data: RecDataset, tmp_path: Path) -> None:
    ranker = fit(BPRMF(data, dim=8, lr=2e-2), data, epochs=40, scaling="platt", **OPTIONS)
    assert ranker.metrics["objective"] == "bpr" and ranker.metrics["scaled_on"] == "valid"
    assert ranker.metrics["auc"] > 0.75
    closed = fit(EASE(data, reg=5.0), data, out=tmp_path / "run", **OPTIONS)
    assert closed.metrics["objective"] == "closed form" and closed.metrics["valid/auc"] > 0.75
    assert (tmp_path / "run" / "report.html").is_file()


def test_scaling_changes_the_probabilities_alone(data: RecDataset) -> None:
    runs = [fit(BPRMF(data, dim=8), data, epochs=3, scaling=scaling, **OPTIONS) for scaling in ("none", "platt")]
    assert runs[0].metrics["auc"] == runs[1].metrics["auc"]
    assert runs[0].metrics["logloss"] != runs[1].metrics["logloss"]
    assert runs[0].metrics["valid/logloss"] == runs[1].metrics["valid/logloss"]


def test_options_reach_the_test(data: RecDataset) -> None:
    model = PointMF(data)
    run = fit(model, data, epochs=1, auc_batch_size=32, auc_batch_last="drop", **OPTIONS)
    expected = evaluate_clicks(model, data, auc_batch_size=32, auc_batch_last="drop")
    assert run.metrics["auc_batch"] == expected["auc_batch"]
    assert run.metrics["auc_batch_size"] == 32 and run.metrics["auc_batch_last"] == "drop"


class OnlyRanks(BPRMF):
    tasks: ClassVar[frozenset[str]] = frozenset({"rank"})


def test_what_is_wrong_is_said_before_any_work(data: RecDataset, tmp_path: Path) -> None:
    unlabelled = planted()
    table = data.tables[data.target]
    assert table.part is not None
    no_valid = data.with_table(table.replaced(part=(table.part * 2).clip(max=2)))
    cases: list[tuple[RecDataset, dict[str, Any], str]] = [
        (unlabelled, {}, "no pair labelled 0"),
        (labelled(split="random:.8,.2"), {"scaling": "platt"}, "no part 'valid'"),
        (no_valid, {"patience": 2}, "patience needs a part"),
        (data, {"metric": "recall@20"}, "unknown metric of task 'ctr' 'recall@20'"),
        (data, {"metric": "logloss"}, "larger values of it are not better"),
        (data, {"auc_batch_size": 0}, "auc_batch_size must be a whole number of at least 1"),
        (data, {"task": "crt"}, "unknown task 'crt'. Did you mean 'ctr'"),
    ]
    for given, options, message in cases:
        with pytest.raises(InputError, match=message):
            fit(PointMF(given), given, epochs=1, out=tmp_path / "run", **{**OPTIONS, **options})
    with pytest.raises(InputError, match="unknown task of OnlyRanks 'ctr'"):
        fit(OnlyRanks(data), data, epochs=1, out=tmp_path / "run", **OPTIONS)
    positives = data.without(table.edge_id[(table.part == 2) & ~table.positive])
    with pytest.raises(InputError, match=r"part 'test' .* 0 labelled 0"):
        fit(PointMF(positives), positives, epochs=1, out=tmp_path / "run", **OPTIONS)
    assert not any(tmp_path.iterdir())


def test_the_config_of_a_run_gives_the_same_run(data: RecDataset, tmp_path: Path) -> None:
    run = fit(PointMF(data), data, epochs=2, out=tmp_path / "run", **OPTIONS)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    again = fit(PointMF(data, **config["hparams"]), data, **{**config["fit"], "progress": False})
    assert again.metrics["auc"] == run.metrics["auc"]
    assert isinstance(Run.open(run.path), Run)


@pytest.mark.slow
def test_labels_reach_every_process(data: RecDataset) -> None:
    alone, together = PointMF(data, batch_size=100), PointMF(data, batch_size=100)
    fit(alone, data, epochs=3, **OPTIONS)
    fit(together, data, epochs=3, devices=2, **OPTIONS)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value, rtol=0, atol=1e-5)
