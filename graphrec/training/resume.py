"""Trainings that were broken off: where they lie, and whether what is asked for would go on with them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from graphrec.errors import InputError, MissingFileError
from graphrec.runs import Run
from graphrec.training.checkpoint import read_checkpoint
from graphrec.training.options import FREE_ON_RESUME, FitOptions


def training_folder(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoints of the training that writes to ``path`` lie."""
    path = Path(path)
    return path.with_name(f"{path.name}.training")


def unfinished(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The config (model, hparams, dataset, fit, seed) of a training that was broken off, None where there is none.

    Args:
        path: the run's folder, as given to ``out``.
    """
    folder = training_folder(path)
    checkpoint = read_checkpoint(folder)
    if checkpoint is not None:
        return checkpoint.config
    config = folder / "config.yaml"
    return yaml.safe_load(config.read_text(encoding="utf-8")) if config.exists() else None


def nothing_left(source: Path, strict: bool) -> bool:
    """Whether the run is finished already. ``strict``: raise where there is nothing to resume either."""
    if unfinished(source) is not None:
        return False
    if (source / "manifest.json").exists() and Run(source).config.get("status") == "complete":
        return True
    if strict:
        raise MissingFileError(
            f"there is nothing to resume: neither {source} nor {training_folder(source)} holds a training "
            "that can go on."
        )
    return False


def forget(folder: Path) -> None:
    """Remove the checkpoints of a training, where there are any."""
    if folder.exists():
        shutil.rmtree(folder)


def check_same(before: Mapping[str, Any], config: Mapping[str, Any], source: Path | None) -> None:
    """Raise where a resumed training would not be the one that was broken off."""
    differing = [
        f"{name} was {before.get(name)!r}, is {config.get(name)!r}"
        for name in ("model", "seed")
        if before.get(name) != config.get(name)
    ]
    if before["dataset"]["fingerprint"] != config["dataset"]["fingerprint"]:
        differing.append("the dataset has changed (its fingerprint)")
    # What an option is that did not exist when the training began.
    defaults = {"fit": FitOptions().as_config()}
    for part in ("hparams", "fit"):
        for name in sorted({*before[part], *config[part]}):
            old, new = before[part].get(name, defaults.get(part, {}).get(name)), config[part].get(name)
            longer = name == "epochs" and config["fit"]["schedule"] == "constant"
            if _same(old, new) or (part == "fit" and (name in FREE_ON_RESUME or name == "seed" or longer)):
                continue
            differing.append(f"{name} was {old!r}, is {new!r}")
    if differing:
        raise InputError(f"{source} cannot be resumed with other settings: {'; '.join(differing)}.")


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)
