"""Trainings in processes of their own that can be killed at any moment, without paying for an import each."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from graphrec.training.resume import training_folder

PRELOAD = [
    "graphrec.training.loop",
    "graphrec.evaluation",
    "graphrec.datasets",
    "graphrec.cli.train",
    "tests.training.tiny",
]


def context() -> Any:
    """Processes that start from one in which everything is imported already."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOAD)
    return server


def train(out: str, options: dict[str, Any], moment: str | None = None, resume: bool = False) -> None:
    """Train the tiny model in this process.

    Args:
        out: the run's folder.
        options: of ``fit``; ``hparams`` are the model's.
        moment: where to be killed: ``part.3`` when the third checkpoint is half written, ``written.3`` before it is
            renamed, ``renamed.3`` after; ``run`` before the run's folder is put in place, ``placed`` after.
        resume: whether to go on.
    """
    import torch

    from graphrec.training import fit
    from tests.training.tiny import TinyMF, tiny_data

    torch.set_num_threads(1)
    if moment is not None:
        _die_at(moment)
    data = tiny_data()
    given = dict(options)
    model = TinyMF(data, **given.pop("hparams", {}))
    fit(
        model,
        data,
        out=out,
        resume=out if resume else None,
        metric="recall@2",
        ks=(2,),
        progress=False,
        device="cpu",
        checkpoint_every=1,
        **given,
    )


def command(*words: str) -> None:
    """Run ``graphrec …`` in this process and end with its exit status."""
    import sys

    import torch

    from graphrec.cli import main

    torch.set_num_threads(1)
    sys.exit(main(words))


def _die_at(moment: str) -> None:
    from graphrec.runs import files

    kind, _, text = moment.partition(".")
    number = int(text or 0)
    written = 0
    replace, sync, put = os.replace, files.sync, files._put_in_place

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def counted_sync(path: Path) -> None:
        if "checkpoint.safetensors.tmp" in path.name and written + 1 == number:
            if kind == "part":
                os.truncate(path, path.stat().st_size // 2)
                die()
            if kind == "written":
                die()
        sync(path)

    def counted_replace(source: Any, target: Any) -> None:
        nonlocal written
        replace(source, target)
        if Path(target).name == "checkpoint.safetensors":
            written += 1
            if kind == "renamed" and written == number:
                die()

    def counted_put(new: Path, path: Path) -> None:
        if kind == "run":
            die()
        put(new, path)
        if kind == "placed":
            die()

    files.sync, files.os.replace, files._put_in_place = counted_sync, counted_replace, counted_put


@contextlib.contextmanager
def training(*arguments: Any, **keywords: Any) -> Iterator[BaseProcess]:
    """A training in a process, ended with the block."""
    with started(train, *arguments, **keywords) as process:
        yield process


@contextlib.contextmanager
def started(target: Callable[..., None], *arguments: Any, **keywords: Any) -> Iterator[BaseProcess]:
    """A function in a process, ended with the block."""
    process = context().Process(target=target, args=arguments, kwargs=keywords)
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            process.kill()
        process.join()


def train_until_killed(*arguments: Any, after: float | None = None, **keywords: Any) -> int:
    """Train in a process, kill it after some seconds if it is still there; its exit code."""
    with training(*arguments, **keywords) as process:
        process.join(after if after is not None else 120)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        return int(process.exitcode or 0)


def stamp(out: Path) -> int:
    """Changes whenever the training that writes to ``out`` has written something."""
    newest = 0
    for path in training_folder(out).glob("c*"):
        with contextlib.suppress(FileNotFoundError):  # a temporary file that has got its name since it was listed
            newest = max(newest, path.stat().st_mtime_ns)
    return newest


def digest(path: Path) -> str:
    """SHA-256 of the weights of a run."""
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.005)
