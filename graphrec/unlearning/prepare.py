"""``prepare``: a run that can forget by a method which needs something made beforehand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.runs import Run
from graphrec.runs.files import clear_errors
from graphrec.runs.manifest import json_bytes, yaml_bytes
from graphrec.runs.write import check_replaceable
from graphrec.serving import Recommender
from graphrec.training.checkpoint import Standing
from graphrec.training.job import Job
from graphrec.training.options import FitOptions
from graphrec.unlearning.carrying_out import STATE
from graphrec.unlearning.forget import method_of, run_of
from graphrec.unlearning.methods.base import Unlearner


def prepare(
    rec: Run | Recommender | str | os.PathLike[str],
    data: RecDataset | None = None,
    *,
    method: str | Unlearner,
    out: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
    allow_superseded: bool = False,
) -> Run:
    """Write a run that can forget by a method: with its shards, or its influence encoder.

    Partitioned methods train a partitioned model with the settings of the run's; its quality is another than the
    run's, and is measured and written. Methods that keep the model add files beside it.

    Args:
        rec: a trained run.
        data: what it was trained on; None: loaded again as the run says.
        method: the name of a method that needs a preparation, or one with its options.
        out: folder of the new run.
        options: of the method, where it is given by name.
        device: where to compute; None: the CPU.
        progress: whether to show progress on standard error.
        allow_superseded: whether a superseded run may be prepared.

    Raises:
        InputError: the method needs no preparation, or does not support the model; the run is superseded.
    """
    run = run_of(rec, allow_superseded)
    data = run.dataset() if data is None else data
    run.check_data(data)
    chosen = method_of(method, options)
    model = run.model(device or "cpu")
    why = chosen.refuses(model)
    if why is not None:
        raise InputError(f"{chosen.name} does not support {type(model).__name__}: {why}.")
    path = Path(out)
    with clear_errors(path, "run", "Nothing was changed."):
        check_replaceable(path)
    fit, seed = dict(run.config.get("fit", {})), int(run.config.get("seed", 0))
    with TemporaryDirectory(prefix=f".{path.name}-", dir=path.absolute().parent) as folder:
        made = chosen.prepare(model, data, seed=seed, fit=fit, folder=Path(folder), progress=progress)
        job = Job(made.model, data, FitOptions.from_config({**fit, "progress": progress}), report=True)
        job.seed = seed
        standing = Standing(epoch=int(run.metrics.get("epochs", 0)), seconds=made.seconds, finished=True)
        new = job.write(path, standing, None)
        config = {**new.config, "prepared": {"method": chosen.name, "options": asdict(chosen), "from": run.path.name}}
        # Where the data came from and what was spent before go on from the run.
        config |= {name: run.config[name] for name in ("dataset", "unlearning") if name in run.config}
        metrics = {**new.metrics, "unlearning/prepare_seconds": made.seconds}
        metrics["seconds"] = float(run.metrics.get("seconds", 0.0)) or made.seconds
        files = {STATE + name: content for name, content in made.files.items()}
        holds = {STATE + name: words for name, words in made.holds.items()}
        return new.add({**files, "config.yaml": yaml_bytes(config), "metrics.json": json_bytes(metrics)}, holds)
