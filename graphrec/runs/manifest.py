"""What a run folder is made of: its files, what each holds, and the manifest that lists them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import Tensor

from graphrec.datasets.fingerprint import file_sha256
from graphrec.errors import InputError

FORMAT = 1
"""The version of the folder's format; raised when an older graphrec could not read what is written."""

MANIFEST = "manifest.json"

HOLDS: Mapping[str, tuple[str, ...]] = {
    "config.yaml": (),
    "metrics.json": ("aggregates",),
    "history.csv": ("aggregates",),
    "environment.json": (),
    "model.safetensors": ("parameters",),
    "seen.safetensors": ("pairs", "edge ids"),
    "inputs.safetensors": ("pairs", "edge ids", "features"),
    "per_user.parquet": ("ids", "aggregates"),
    "report.html": ("ids", "aggregates"),
}
"""What each file of a run holds about the people and things in the data."""

Content = bytes | str | os.PathLike[str]


def _holds(name: str) -> list[str]:
    return ["ids"] if name.startswith("ids/") else list(HOLDS.get(name, ("unknown",)))


def as_json(value: Any) -> Any:
    """Numpy scalars, tuples, paths and tensors of one number as JSON values."""
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (np.generic, Tensor)):
        return value.item()
    return value


def json_bytes(value: Any) -> bytes:
    """A value as JSON."""
    return (json.dumps(as_json(value), indent=2) + "\n").encode()


def yaml_bytes(value: Any) -> bytes:
    """A value as YAML, keys in their order."""
    return yaml.safe_dump(as_json(value), sort_keys=False, allow_unicode=True).encode()


def write_extra(folder: Path, files: Mapping[str, Content]) -> None:
    """Write or copy further files into a run's folder; their names must stay within it."""
    for name in files:
        if not (folder / name).resolve().is_relative_to(folder.resolve()) or name == MANIFEST:
            raise InputError(f"{name!r} is no name for a file of a run.")
    write_contents(folder, files)


def write_contents(folder: Path, files: Mapping[str, Content]) -> None:
    """Write or copy files into a folder, by their names within it."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif isinstance(content, str):
            file.write_text(content, encoding="utf-8")
        else:
            shutil.copyfile(content, file)


def write_manifest(
    folder: Path, fingerprint: str, holds: Mapping[str, Sequence[str]], caches: Sequence[Mapping[str, Any]]
) -> None:
    """List every file of the folder with its size, its SHA-256 and what it holds."""
    files = {}
    for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        name = file.relative_to(folder).as_posix()
        files[name] = {
            "sha256": file_sha256(file),
            "size": file.stat().st_size,
            "holds": list(holds.get(name, _holds(name))),
        }
    manifest = {
        "format": FORMAT,
        "graphrec": version("graphrec"),
        "fingerprint": fingerprint,
        "files": files,
        "caches": list(caches),
    }
    (folder / MANIFEST).write_bytes(json_bytes(manifest))
