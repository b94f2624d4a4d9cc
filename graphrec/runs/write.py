"""``write_run``: a trained model, its data's ids, its metrics and settings, as a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.base import GraphRecommender
from graphrec.runs.environment import environment
from graphrec.runs.files import clear_errors, recover, write_folder
from graphrec.runs.manifest import MANIFEST, Content, json_bytes, write_extra, write_manifest, yaml_bytes
from graphrec.runs.run import Run
from graphrec.runs.tensors import write_inputs, write_tensors


def write_run(
    path: str | os.PathLike[str],
    *,
    model: GraphRecommender,
    data: RecDataset,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]] = (),
    per_user: pa.Table | None = None,
    extra_files: Mapping[str, Content] | None = None,
    holds: Mapping[str, Sequence[str]] | None = None,
    caches: Sequence[Mapping[str, Any]] = (),
) -> Run:
    """Write a run folder in one step.

    Args:
        path: the folder; a run that is there is replaced when the new one is complete, anything else is refused.
        model: whose weights and inputs are saved.
        data: gives ids and names.
        config: ``dataset``, ``fit``, ``seed``, ``status``; ``model`` and ``hparams`` are taken from the model.
        metrics: flat, JSON values.
        history: a mapping an epoch.
        per_user: the metrics of each user.
        extra_files: further files by name: content or the path of a file to copy.
        holds: what the extra files hold.
        caches: every cache outside the folder that was made from the data: ``path``, ``sha256``, ``holds``.

    Raises:
        InputError: the folder cannot be written (full, read-only), or holds something that is no run.
    """
    path = Path(path)
    with clear_errors(path, "run", "What was there before is whole."):
        recover(path)
        check_replaceable(path)

        def fill(folder: Path) -> None:
            (folder / "config.yaml").write_bytes(yaml_bytes({**model_config(model), **config}))
            (folder / "metrics.json").write_bytes(json_bytes(metrics))
            (folder / "environment.json").write_bytes(json_bytes(environment()))
            pd.DataFrame(list(history)).to_csv(folder / "history.csv", index=False)
            write_tensors(folder / "model.safetensors", model.state_dict())
            write_inputs(folder / "seen.safetensors", folder / "inputs.safetensors", model.graph_inputs)
            (folder / "ids").mkdir()
            for node_type in model.graph_inputs.graph.node_types:
                if node_type in data.vocabularies:
                    _write_ids(folder / "ids" / f"{node_type}.parquet", data, node_type)
            if per_user is not None:
                pq.write_table(per_user, folder / "per_user.parquet")
            write_extra(folder, extra_files or {})
            kept = {"model.safetensors": _model_holds(model), **(holds or {})}
            write_manifest(folder, data.fingerprint, kept, caches)

        write_folder(path, fill)
    return Run(path)


def model_config(model: GraphRecommender) -> dict[str, Any]:
    """``model`` and ``hparams`` as a run's config holds them."""
    cls = type(model)
    own = cls.__module__.startswith("graphrec.models.")
    return {"model": cls.__name__ if own else f"{cls.__module__}:{cls.__qualname__}", "hparams": model.hparams}


def _model_holds(model: GraphRecommender) -> list[str]:
    saved = set(model.state_dict())
    learned = any(True for _ in model.parameters())
    made = saved.intersection(model.derived())
    return ["parameters"] * (learned or not made) + ["derived"] * bool(made)


def check_replaceable(path: Path) -> None:
    """Raise where ``path`` holds something that is no run, which writing a run there would remove."""
    if path.is_dir() and not (path / MANIFEST).exists() and any(path.iterdir()):
        raise InputError(f"{path} is not empty and no run folder; choose another output folder.")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; choose another output folder.")


def _write_ids(path: Path, data: RecDataset, node_type: str) -> None:
    ids = data.vocabularies[node_type].arrow
    names = data.names.get(node_type)
    name = pa.nulls(len(ids), pa.string()) if names is None else pa.array(list(names), type=pa.string())
    pq.write_table(pa.table({"id": ids, "name": name}), path)
