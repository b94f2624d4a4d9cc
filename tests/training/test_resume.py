from __future__ import annotations

import importlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, MissingFileError
from graphrec.runs import Run
from graphrec.training import Interrupted, fit, unfinished
from graphrec.training.checkpoint import read_checkpoint
from graphrec.training.resume import training_folder
from tests.training.killing import command, digest, stamp, started, train_until_killed, training, wait_for
from tests.training.tiny import TinyMF

Train = Callable[..., tuple[TinyMF, Run]]

# About two seconds of training with a checkpoint an epoch, in which much of the time goes to writing.
OPTIONS: dict[str, Any] = {"epochs": 40, "hparams": {"pause": 0.001}, "schedule": "cosine", "warmup": 5}
NUMBERS = ["epoch", "loss", "pairs/rank", "pairs/reg", "bias/rank", "valid/recall@2"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert train_until_killed(str(out), OPTIONS) == 0
    return Run.open(out)


def check_same(found: Run, expected: Run) -> None:
    """Weights byte for byte, and every number but the seconds."""
    assert digest(found.path) == digest(expected.path)
    assert found.history[NUMBERS].equals(expected.history[NUMBERS])
    for name, value in expected.metrics.items():
        if not name.endswith("seconds"):
            assert found.metrics[name] == value, name
    assert found.config["status"] == "complete"
    leftovers = [path.name for path in found.path.parent.iterdir()]
    assert leftovers == [found.path.name]


def test_killed_at_five_random_moments(unbroken: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    draws = random.Random()
    delays, reached = [], []
    for _ in range(5):
        # Each life lasts a random part of a fifth of the training, counted from its first sign of it.
        delays.append(draws.uniform(0, 0.2 * float(unbroken.metrics["seconds"])))
        with training(str(out), OPTIONS, resume=unfinished(out) is not None) as process:
            before = stamp(out)
            wait_for(lambda: stamp(out) != before)  # noqa: B023
            process.join(delays[-1])
            assert process.is_alive(), delays
            process.kill()
        checkpoint = read_checkpoint(training_folder(out))
        reached.append(checkpoint.standing.epoch if checkpoint else 0)
    assert 0 < reached[-1] < OPTIONS["epochs"], (delays, reached)
    assert train_until_killed(str(out), OPTIONS, resume=True) == 0
    check_same(Run.open(out), unbroken)


@pytest.mark.parametrize("moment", ["part.3", "written.1", "renamed.7", "run", "placed"])
def test_killed_while_it_writes(unbroken: Run, tmp_path: Path, moment: str) -> None:
    out = tmp_path / "run"
    assert train_until_killed(str(out), OPTIONS, moment=moment) == -signal.SIGKILL
    assert train_until_killed(str(out), OPTIONS, resume=True) == 0
    check_same(Run.open(out), unbroken)


def test_the_run_before_stays_whole_while_the_next_trains(unbroken: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = {"epochs": 2, "hparams": {"seed": 5}}
    assert train_until_killed(str(out), options) == 0
    before = digest(out)
    for moment in ("renamed.2", "run"):
        assert train_until_killed(str(out), OPTIONS, moment=moment) == -signal.SIGKILL
        assert digest(Run.open(out).path) == before
    assert train_until_killed(str(out), OPTIONS, resume=True) == 0
    check_same(Run.open(out), unbroken)


def test_ctrl_c_ends_with_a_usable_run_that_can_go_on(unbroken: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with training(str(out), OPTIONS) as process:
        wait_for(lambda: (tmp_path / "run.training" / "checkpoint.safetensors").exists())
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(60)
        # What Python makes of an interruption that nobody catches; the command line ends with 130.
        assert process.exitcode == 1
    run = Run.open(out)
    assert run.config["status"] == "interrupted"
    assert 0 < len(run.history) < 40
    assert torch.isfinite(run.model(model_class=TinyMF).score(torch.arange(3))).all()
    assert train_until_killed(str(out), OPTIONS, resume=True) == 0
    check_same(Run.open(out), unbroken)


def test_an_interruption_names_its_run(data: RecDataset, tmp_path: Path) -> None:
    class Impatient(TinyMF):
        def encode(self, **keywords: Any) -> Any:
            # The first evaluation.
            signal.raise_signal(signal.SIGINT)
            return super().encode(**keywords)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        fit(Impatient(data), data, out=tmp_path / "run", metric="recall@2", ks=(2,), progress=False, device="cpu")
    assert ended.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before

    class Once(TinyMF):
        def refresh(self, *arguments: Any, **keywords: Any) -> Any:
            signal.raise_signal(signal.SIGTERM)
            return {}

    with pytest.raises(Interrupted) as interrupted:
        fit(Once(data), data, out=tmp_path / "run", metric="recall@2", ks=(2,), progress=False, device="cpu")
    assert interrupted.value.exit_code == 143
    assert interrupted.value.run.config["status"] == "interrupted"
    assert str(tmp_path / "run") in str(interrupted.value)


def test_a_resumed_training_keeps_its_settings(train: Train, tmp_path: Path) -> None:
    assert train_until_killed(str(tmp_path / "run"), {"epochs": 9}, moment="renamed.2") < 0
    for changed, words in (
        ({"hparams": {"dim": 5}}, "dim was 4, is 5"),
        ({"accumulate": 2}, "accumulate was 1, is 2"),
        ({"seed": 4}, "seed was 0, is 4"),
    ):
        with pytest.raises(InputError, match=words):
            train(out=tmp_path / "run", resume=True, **{"epochs": 9, **changed})
    # A constant schedule can be carried on further than was meant.
    longer, _ = train(out=tmp_path / "run", resume=True, epochs=12)
    fresh, _ = train(epochs=12)
    assert torch.equal(longer.user_table, fresh.user_table)


def test_resuming_a_finished_run_changes_nothing(train: Train, tmp_path: Path) -> None:
    _, first = train(out=tmp_path / "run")
    _, second = train(resume=tmp_path / "run")
    assert first.metrics == second.metrics
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    with pytest.raises(InputError, match="dim was 4, is 6"):
        train(resume=tmp_path / "run", hparams={"dim": 6})


def test_resume_needs_something_to_go_on_from(train: Train, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nothing to resume"):
        train(resume=tmp_path / "elsewhere")
    _, run = train(out=tmp_path / "run", resume=True)
    assert run.config["status"] == "complete"
    config = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(config.replace("status: complete", "status: interrupted"))
    with pytest.raises(MissingFileError, match="nothing to resume"):
        train(resume=run.path)


def test_a_damaged_checkpoint_is_one_clear_error(train: Train, tmp_path: Path) -> None:
    assert train_until_killed(str(tmp_path / "run"), {"epochs": 9}, moment="renamed.2") < 0
    file = tmp_path / "run.training" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"checkpoint\.safetensors"):
        train(resume=tmp_path / "run", epochs=9)


def test_a_checkpoint_holds_all_there_is(tmp_path: Path) -> None:
    assert train_until_killed(str(tmp_path / "run"), OPTIONS, moment="renamed.3") < 0
    checkpoint = read_checkpoint(tmp_path / "run.training")
    assert checkpoint is not None
    assert checkpoint.standing.epoch == 3
    assert len(checkpoint.standing.history) == 3
    assert set(checkpoint.optimisers) == {"pairs", "bias"}
    assert checkpoint.standing.best
    assert unfinished(tmp_path / "run") == checkpoint.config


def test_due_by_epochs_or_by_seconds(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("graphrec.training.job")
    written: list[int] = []
    write = module.write_checkpoint
    monkeypatch.setattr(
        module,
        "write_checkpoint",
        lambda folder, **keywords: (written.append(keywords["standing"].epoch), write(folder, **keywords)),
    )
    train(out=tmp_path / "run", epochs=7, checkpoint_every=3, checkpoint_seconds=None)
    assert written == [3, 6, 7]
    written.clear()
    train(out=tmp_path / "run", epochs=3, checkpoint_seconds=0.0)
    assert written == [1, 2, 3]
    written.clear()
    train(out=tmp_path / "run", epochs=3)
    assert written == [3]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    draws = random.Random(0)
    rows = [f"u{user},s{item}" for user in range(50) for item in draws.sample(range(40), 12)]
    file = tmp_path / "clicks.csv"
    file.write_text("uid,sku\n" + "\n".join(rows) + "\n")
    return file


def words(table: Path, out: Path) -> list[str]:
    """A training of about three seconds that writes a checkpoint an epoch."""
    text = (
        f"train --model LightGCN --model.dim 8 --dataset {table} --columns user=uid,item=sku --split random:.8,.1,.1 "
        f"--epochs 150 --checkpoint-every 1 --schedule cosine --device cpu --out {out}"
    )
    return text.split()


def test_the_command_killed_five_times(table: Path, tmp_path: Path) -> None:
    with started(command, *words(table, tmp_path / "a" / "run")) as process:
        process.join(120)
        assert process.exitcode == 0
    unbroken = Run.open(tmp_path / "a" / "run")
    out = tmp_path / "b" / "run"
    draws = random.Random()
    delays = []
    for life in range(5):
        delays.append(draws.uniform(0, 0.15 * float(unbroken.metrics["seconds"])))
        arguments = ["train", "--resume", str(out)] if life else words(table, out)
        with started(command, *arguments) as process:
            before = stamp(out)
            wait_for(lambda: stamp(out) != before)  # noqa: B023
            process.join(delays[-1])
            assert process.is_alive(), delays
            process.kill()
    with started(command, "train", "--resume", str(out)) as process:
        process.join(120)
        assert process.exitcode == 0
    assert digest(out) == digest(unbroken.path), delays
    columns = ["epoch", "loss", "valid/recall@20"]
    assert Run.open(out).history[columns].equals(unbroken.history[columns])


@pytest.mark.slow
def test_the_command_interrupted(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [sys.executable, "-m", "graphrec.cli", *words(table, out)]
    with subprocess.Popen([*arguments, "--epochs", "100000"], stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: stamp(out))
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted; the run so far is in" in said
    assert "Traceback" not in said
    assert Run.open(out).config["status"] == "interrupted"
    assert unfinished(out) is not None
