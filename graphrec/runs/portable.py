"""A run as others may have it: nothing in it says where things lay on the machine that made it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphrec.runs.manifest import MANIFEST, json_bytes, sealed, yaml_bytes
from graphrec.runs.run import Run


def portable_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config without ``root``, and with the name of a file or folder in place of its path.

    Whoever has the data gives their own ``root`` to load it again; names of known datasets and paths below ``root``
    stay as they are.
    """
    made = dict(config)
    dataset = config.get("dataset")
    if isinstance(dataset, Mapping):
        made["dataset"] = {
            key: _name(value) if key in ("source", "kg") else value for key, value in dataset.items() if key != "root"
        }
    start = config.get("init_from")
    if isinstance(start, Mapping) and "source" in start:
        made["init_from"] = {**start, "source": Path(start["source"]).name}
    return made


def portable_files(run: Run) -> dict[str, Path | bytes]:
    """Every file of a run, the manifest included: the path of what goes as it is, the bytes of what is changed."""
    files: dict[str, Path | bytes] = {name: run.path / name for name in [*run.files, MANIFEST]}
    manifest = {**run.manifest, "files": dict(run.files)}
    config = portable_config(run.config)
    if config != run.config:
        content = files["config.yaml"] = yaml_bytes(config)
        digest = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        manifest["files"]["config.yaml"] = {**run.files["config.yaml"], **digest}
    caches = manifest.get("caches", [])
    manifest["caches"] = [{**cache, "path": Path(cache["path"]).name} for cache in caches]
    if manifest != run.manifest:
        files[MANIFEST] = json_bytes(sealed(manifest))
    return files


def _name(source: str) -> str:
    return Path(source).name if os.path.isabs(source) or source.startswith("~") else source
