"""Starting the other processes of a training, and being one of them.

A worker is a fresh interpreter that rebuilds the model from a folder of safetensors and JSON: no script is run twice
and nothing is pickled.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from graphrec.errors import InputError
from graphrec.models.base import GraphRecommender
from graphrec.runs.tensors import load_weights, read_inputs, read_tensors, write_inputs, write_tensors
from graphrec.training.options import FitOptions
from graphrec.training.processes import Processes
from graphrec.training.trainer import run_loop

# Process 0 may evaluate for long while the others wait.
_PATIENCE = timedelta(days=7)
_START_SECONDS = 600.0


@contextlib.contextmanager
def processes_for(
    model: GraphRecommender, options: FitOptions, seed: int, device: torch.device, resume: Path | None
) -> Iterator[Processes]:
    """The processes of a training, this one being number 0; the others end with the block.

    Args:
        model: on its device; each process starts from its present weights.
        options: of the training.
        seed: of the training.
        device: of this process.
        resume: folder of the checkpoint to go on from.
    """
    if options.devices == 1:
        yield Processes(device=device)
        return
    if dist.is_initialized():
        raise InputError(
            "devices above 1 starts processes of its own; torch.distributed is in use already. Use devices=1."
        )
    world = options.devices
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="graphrec-") as name:
        folder = Path(name)
        _write_task(folder, model, options, seed, device, resume)
        workers = [_start(folder, rank, max(threads // world, 1)) for rank in range(1, world)]
        loopback = _use_loopback()
        try:
            _await_ready(folder, workers)
            if device.type == "cpu":
                torch.set_num_threads(max(threads // world, 1))
            dist.init_process_group(
                _backend(device),
                init_method=f"file://{folder}/meeting",
                rank=0,
                world_size=world,
                timeout=_PATIENCE,
            )
            yield Processes(0, world, device)
            for worker in workers:
                worker.wait(timeout=60)
        finally:
            torch.set_num_threads(threads)
            for worker in workers:
                if worker.poll() is None:
                    worker.kill()
                    worker.wait()
            if dist.is_initialized():
                dist.destroy_process_group()
            if loopback:
                del os.environ["GLOO_SOCKET_IFNAME"]


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def _use_loopback() -> bool:
    """Have gloo use the loopback interface: the host's name need not resolve. True where this set it."""
    if "GLOO_SOCKET_IFNAME" in os.environ or sys.platform != "linux":
        return False
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    return True


def _write_task(
    folder: Path,
    model: GraphRecommender,
    options: FitOptions,
    seed: int,
    device: torch.device,
    resume: Path | None,
) -> None:
    cls = type(model)
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise InputError(
            f"devices above 1 needs {cls.__qualname__} in a module that can be imported; it is defined in "
            "the script itself or in a function."
        )
    write_tensors(folder / "model.safetensors", model.state_dict())
    write_inputs(folder / "seen.safetensors", folder / "inputs.safetensors", model.graph_inputs)
    task = {
        "module": cls.__module__,
        "class": cls.__qualname__,
        "hparams": model.hparams,
        "options": options.as_config(),
        "seed": seed,
        "device": device.type,
        "resume": str(resume) if resume else None,
        "parent": os.getpid(),
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")


def _start(folder: Path, rank: int, threads: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": str(threads),
        # Lightning asks for it to decide who may speak.
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    command = [sys.executable, "-m", "graphrec.training.worker", str(folder), str(rank)]
    with (folder / f"errors-{rank}").open("wb") as errors:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=errors)


def _await_ready(folder: Path, workers: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    waiting = set(range(1, len(workers) + 1))
    while waiting:
        for rank in sorted(waiting):
            if (folder / f"ready-{rank}").exists():
                waiting.discard(rank)
            elif workers[rank - 1].poll() is not None or time.monotonic() > deadline:
                said = (folder / f"errors-{rank}").read_text(errors="replace").strip().splitlines()
                raise InputError(
                    f"process {rank} of {len(workers) + 1} did not start: {said[-1] if said else 'no word'}"
                )
        time.sleep(0.02)


def work(folder: Path, rank: int) -> None:
    """Be process ``rank`` of the training that ``folder`` describes."""
    # Ctrl-C reaches every process of the terminal; process 0 decides and tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task: dict[str, Any] = json.loads((folder / "task.json").read_text())
    options = FitOptions.from_config({**task["options"], "progress": False})
    found: Any = importlib.import_module(task["module"])
    for part in task["class"].split("."):
        found = getattr(found, part)
    model: GraphRecommender = found(
        read_inputs(folder / "seen.safetensors", folder / "inputs.safetensors"), **task["hparams"]
    )
    load_weights(model, read_tensors(folder / "model.safetensors")[0], "the task")
    device = torch.device(task["device"], rank) if task["device"] == "cuda" else torch.device("cpu")
    model.to(device)
    resume = Path(task["resume"]) if task["resume"] else None
    _use_loopback()
    (folder / f"ready-{rank}").touch()
    dist.init_process_group(
        _backend(device),
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=options.devices,
        timeout=_PATIENCE,
    )
    try:
        run_loop(model, options, task["seed"], Processes(rank, options.devices, device), resume=resume)
    finally:
        if os.getppid() != task["parent"]:
            # Process 0 was killed and cannot clear up; the folder holds training pairs.
            shutil.rmtree(folder, ignore_errors=True)
        dist.destroy_process_group()
