"""Checkpoints: one safetensors file with weights and optimiser states, everything else as JSON in its header.

One file, so that one rename replaces all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.runs.files import clear_errors, remove_leftovers, write_file
from graphrec.runs.tensors import read_tensors, write_tensors

FILE = "checkpoint.safetensors"
FORMAT = 1


@dataclass
class Standing:
    """Where a training stands between two epochs; all JSON values but ``best``.

    Attributes:
        epoch: epochs that are done.
        seconds: spent so far, over all processes that worked on it one after another.
        history: a row an epoch.
        best_value: of the selection metric; None before the first evaluation.
        best_epoch: the epoch (from 1) it was reached in.
        best_metrics: all metrics of that evaluation.
        waited: evaluations since without a better value.
        finished: whether no epoch is left to do.
        stopped_early: whether it ended before its last epoch, for want of a better value or because a callback asked.
        best: the weights of the best epoch, on the CPU.
    """

    epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_value: float | None = None
    best_epoch: int | None = None
    best_metrics: dict[str, Any] = field(default_factory=dict)
    waited: int = 0
    finished: bool = False
    stopped_early: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read."""

    standing: Standing
    config: dict[str, Any]
    weights: dict[str, Tensor]
    optimisers: dict[str, dict[str, Any]]
    scalers: dict[str, dict[str, Any]]
    steps: dict[str, list[int | None]]


def write_checkpoint(
    folder: Path,
    *,
    standing: Standing,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    optimisers: Mapping[str, torch.optim.Optimizer],
    scalers: Mapping[str, Mapping[str, Any]],
    steps: Mapping[str, list[int | None]],
) -> None:
    """Replace the checkpoint in ``folder``; the one there stays until the new one is complete.

    Args:
        folder: of the training.
        standing: where it stands.
        config: model, hyper-parameters, dataset and options: what a resumed training has to agree with.
        weights: the model's state dict.
        optimisers: by phase.
        scalers: state dicts of the loss scalers, by phase.
        steps: steps done and steps per epoch, by phase.
    """
    tensors = {f"model/{name}": value for name, value in weights.items()}
    tensors.update({f"best/{name}": value for name, value in standing.best.items()})
    groups: dict[str, Any] = {}
    plain: dict[str, dict[str, Any]] = {}
    for phase, optimiser in optimisers.items():
        state = optimiser.state_dict()
        groups[phase] = state["param_groups"]
        plain[phase] = {}
        for index, entries in state["state"].items():
            for name, value in entries.items():
                key = f"{phase}/{index}/{name}"
                if isinstance(value, Tensor):
                    tensors[f"optimiser/{key}"] = value
                else:
                    plain[phase][f"{index}/{name}"] = value
    values = asdict(Standing(**{**vars(standing), "best": {}}))
    del values["best"]
    header = {
        "format": FORMAT,
        "standing": values,
        "config": dict(config),
        "param_groups": groups,
        "optimiser_values": plain,
        "scalers": {name: dict(state) for name, state in scalers.items()},
        "steps": dict(steps),
    }
    with clear_errors(folder / FILE, "checkpoint", "The one before is whole."):
        remove_leftovers(folder / FILE)
        write_file(folder / FILE, lambda path: write_tensors(path, tensors, header))


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in a training's folder, None where there is none yet."""
    file = folder / FILE
    if not file.exists():
        return None
    tensors, header = read_tensors(file)
    if header.get("format", 0) > FORMAT:
        raise InputError(f"{file} has format {header['format']}; this graphrec reads formats up to {FORMAT}.")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    optimisers: dict[str, dict[str, Any]] = {}
    for phase, groups in header["param_groups"].items():
        state: dict[int, dict[str, Any]] = {}
        entries = {
            name.removeprefix(f"{phase}/"): value
            for name, value in parts["optimiser"].items()
            if name.startswith(f"{phase}/")
        }
        for name, value in {**header["optimiser_values"][phase], **entries}.items():
            index, _, key = name.partition("/")
            state.setdefault(int(index), {})[key] = value
        optimisers[phase] = {"state": state, "param_groups": groups}
    return Checkpoint(
        standing=Standing(**header["standing"], best=parts["best"]),
        config=header["config"],
        weights=parts["model"],
        optimisers=optimisers,
        scalers=header["scalers"],
        steps=header["steps"],
    )
