"""Starting from tables that were trained before: a run's by raw id, a published file's by its rows or its ids."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, MissingFileError
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run
from graphrec.runs.tensors import read_tensors

# What other programs call the table of a node type; {} is the node type. The first is the official LightGCN's.
_NAMES = (
    "embedding_{}.weight",
    "{}_embedding.weight",
    "{}_embedding",
    "{}_embeddings.weight",
    "{}_embeddings",
    "embedding_{}",
    "{}_emb.weight",
    "{}_emb",
    "{}_factors",
    "{}_factors.weight",
    "{}s",
    "{}",
)


@dataclass(frozen=True)
class Copied:
    """What was copied into one parameter.

    Attributes:
        parameter: its name in the model.
        source: its name in the file.
        rows: rows of the parameter (1 for one that has no row for each node).
        matched: rows that were copied; the others keep their initial values.
    """

    parameter: str
    source: str
    rows: int
    matched: int

    def __str__(self) -> str:
        return f"{self.parameter}: {self.matched} of {self.rows} rows from {self.source}"


def initialise_from(model: GraphRecommender, data: RecDataset, source: str | os.PathLike[str] | Run) -> list[Copied]:
    """Copy tables into a model.

    The rows of a run are matched by raw id. Those of a file (``.npz``, ``.safetensors``, or a state dict read with
    ``weights_only=True``) by its ``user_ids`` and ``item_ids``, and where it has none, by position: then it must have
    as many rows as the model. A parameter that has no row for each node is copied where name and shape agree.

    Args:
        model: changed in place; its ``row_parameters`` say which parameters have a row for each node.
        data: gives the raw ids of the model's rows.
        source: a run, its path, or a file.

    Returns:
        What was copied, parameter by parameter.

    Raises:
        InputError: the file cannot be read, nothing in it fits, or a table has another width.
    """
    tensors, ids, where = _read(source)
    parameters = dict(model.named_parameters())
    out = []
    for name, node_type in model.row_parameters.items():
        if name not in parameters:
            continue
        found = _find(name, node_type, tensors, model)
        if found is not None:
            matched = _copy_rows(
                parameters[name], tensors[found], data.vocabularies[node_type].raw, ids.get(node_type), where, found
            )
            out.append(Copied(name, found, len(parameters[name]), matched))
    for name, parameter in parameters.items():
        if name not in model.row_parameters and name in tensors and tensors[name].shape == parameter.shape:
            with torch.no_grad():
                parameter.copy_(tensors[name])
            out.append(Copied(name, name, 1, 1))
    if not any(copied.matched for copied in out):
        raise InputError(
            f"nothing in {where} fits {type(model).__name__}: it holds {', '.join(sorted(tensors)) or 'no tensors'}; "
            f"expected one of {', '.join(model.row_parameters) or 'its parameters'}, or names such as "
            "embedding_user.weight, with ids of this dataset."
        )
    return out


def _find(name: str, node_type: str, tensors: Mapping[str, Tensor], model: GraphRecommender) -> str | None:
    if name in tensors:
        return name
    # Another program's table can stand for the only one that this model has of the node type.
    if list(model.row_parameters.values()).count(node_type) > 1:
        return None
    return next((n for pattern in _NAMES if (n := pattern.format(node_type)) in tensors), None)


def _copy_rows(
    parameter: Tensor, table: Tensor, ours: np.ndarray, theirs: np.ndarray | None, where: str, name: str
) -> int:
    if table.dim() != parameter.dim() or table.shape[1:] != parameter.shape[1:]:
        raise InputError(
            f"{name!r} of {where} has shape {tuple(table.shape)}, the model's table {tuple(parameter.shape)}; make the "
            f"model with dim={table.shape[-1]}."
        )
    if theirs is None:
        if len(table) != len(parameter):
            raise InputError(
                f"{name!r} of {where} has {len(table)} rows and no ids, the model has {len(parameter)}; only a file "
                "with ids (user_ids, item_ids) can be matched."
            )
        own = rows = np.arange(len(table))
    else:
        if len(theirs) != len(table):
            raise InputError(f"{name!r} of {where} has {len(table)} rows for {len(theirs)} ids.")
        if (ours.dtype.kind in "iu") != (theirs.dtype.kind in "iu"):
            ours, theirs = ours.astype(str), theirs.astype(str)
        found = pd.Index(theirs).get_indexer(pd.Index(ours))
        own = np.flatnonzero(found >= 0)
        rows = found[own]
    with torch.no_grad():
        parameter[torch.as_tensor(own, device=parameter.device)] = table[torch.as_tensor(rows)].to(parameter)
    return len(own)


def _read(source: str | os.PathLike[str] | Run) -> tuple[dict[str, Tensor], dict[str, np.ndarray], str]:
    """Tensors by name, raw ids of their rows by node type, and what to call the source."""
    if isinstance(source, Run):
        ids = {node_type: vocabulary.raw for node_type, vocabulary in source.vocabularies.items()}
        return source.weights(), ids, str(source.path)
    path = Path(source)
    if not path.exists():
        raise MissingFileError(f"init_from: {path} is not there.")
    if path.is_dir():
        return _read(Run.open(path))
    tensors: dict[str, Tensor] = {}
    ids = {}
    for name, value in _arrays(path).items():
        if name.endswith("_ids"):
            raw = np.asarray(value)
            if raw.ndim != 1 or len(np.unique(raw)) != len(raw):
                raise InputError(f"{name!r} of {path} must be one row of ids without repetition, found {raw.shape}.")
            ids[name.removesuffix("_ids")] = raw
        elif isinstance(value, Tensor) or value.dtype.kind in "fiub":
            tensors[name] = torch.as_tensor(value)
    return tensors, ids, str(path)


def _arrays(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no npz of plain arrays: {error}.") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises whatever its parts do; the file is at fault in every case.
        raise InputError(
            f"{path} is no npz, safetensors or state dict that can be read without unpickling code: {error}"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path} holds a {type(loaded).__name__}, expected a state dict.")
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
