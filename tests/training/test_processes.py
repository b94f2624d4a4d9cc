from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.runs import Run
from graphrec.training import fit
from graphrec.training.processes import Processes
from tests.training.killing import train_until_killed, training, wait_for
from tests.training.tiny import TinyMF

Train = Callable[..., tuple[TinyMF, Run]]


def test_two_processes_make_the_steps_of_one(train: Train, tmp_path: Path) -> None:
    # 40 examples in batches of 13: the last batch has one, so that one process has none of it.
    hparams = {"dropout": 0.2, "sgd": True, "batch_size": 13}
    alone, expected = train(hparams=hparams, epochs=4, clip=0.5)
    assert len(alone.graph_inputs.graph[alone.graph_inputs.target].edge_id) % 13 == 1
    together, found = train(hparams=hparams, epochs=4, clip=0.5, devices=2, out=tmp_path / "run")
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value, rtol=0, atol=1e-5)
    for column in ("loss", "pairs/rank", "pairs/reg", "bias/rank"):
        assert found.history[column].to_numpy() == pytest.approx(expected.history[column].to_numpy(), abs=1e-6)
    assert found.metrics["recall@2"] == expected.metrics["recall@2"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not torch.distributed.is_initialized()
    assert "GLOO_SOCKET_IFNAME" not in os.environ


@pytest.mark.slow
def test_workers_end_when_the_training_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options: dict[str, Any] = {"epochs": 10_000, "devices": 2, "hparams": {"pause": 0.002}}
    with training(str(out), options) as process:
        wait_for(lambda: (tmp_path / "run.training" / "checkpoint.safetensors").exists())
        tasks = Path(tempfile.gettempdir()).glob("graphrec-*/task.json")
        (folder,) = [task.parent for task in tasks if json.loads(task.read_text())["parent"] == process.pid]
        process.kill()
        wait_for(lambda: not folder.exists())


@pytest.mark.slow
def test_processes_resume_and_heed_ctrl_c(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options: dict[str, Any] = {"epochs": 60, "devices": 2, "hparams": {"sgd": True, "pause": 0.002}}
    with training(str(out), options) as process:
        wait_for(lambda: (tmp_path / "run.training" / "checkpoint.safetensors").exists())
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 1
    done = len(Run.open(out).history)
    assert 0 < done < 60
    assert train_until_killed(str(out), options, resume=True) == 0
    _, expected = train(epochs=60, hparams={"sgd": True, "pause": 0.0})
    found = Run.open(out)
    assert found.history["loss"].to_numpy() == pytest.approx(expected.history["loss"].to_numpy(), abs=1e-4)


def test_a_worker_that_cannot_start_is_reported(data: RecDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(TinyMF):
        pass

    with pytest.raises(InputError, match="module that can be imported"):
        fit(
            Local(data),
            data,
            epochs=1,
            devices=2,
            select_on=None,
            metric="recall@2",
            ks=(2,),
            progress=False,
            device="cpu",
        )
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="process 1 of 2 did not start"):
        fit(
            TinyMF(data),
            data,
            epochs=1,
            devices=2,
            select_on=None,
            metric="recall@2",
            ks=(2,),
            progress=False,
            device="cpu",
        )


def test_more_gpus_than_there_are(train: Train) -> None:
    with pytest.raises(InputError, match="GPUs are here"):
        train(device="cuda", devices=99)


def test_sparse_gradients_are_added_up_as_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: flat.mul_(2))
    table, other = torch.nn.Parameter(torch.ones(4, 2)), torch.nn.Parameter(torch.ones(3))
    torch.nn.functional.embedding(torch.tensor([2, 2, 0]), table, sparse=True).sum().backward()
    assert not Processes().add_gradients([table, other], False)
    assert table.grad is not None and other.grad is None
    assert table.grad.tolist() == [[2.0, 2.0], [0.0, 0.0], [4.0, 4.0], [0.0, 0.0]]
