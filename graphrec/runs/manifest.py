"""What a run folder is made of: its files, what each holds, and the manifest that lists them."""

from __future__ import annotations

import fcntl
import hashlib
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
from graphrec.runs.files import write_file

FORMAT = 1
"""The version of the folder's format; raised when an older graphrec could not read what is written."""

MANIFEST = "manifest.json"
SUPERSEDED = "superseded.json"

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
    "explanations.json": ("ids", "pairs", "edge ids", "texts"),
    "audit.jsonl": ("aggregates",),
    "audit.salt": ("salt",),
    "forgetting.json": ("aggregates",),
    "forgetting.html": ("aggregates",),
    "mask.safetensors": ("pairs",),
    "superseded.json": (),
}
"""What each file of a run holds about the people and things in the data."""

KINDS: Mapping[str, str] = {
    "ids": "raw ids of users, items and other nodes",
    "pairs": "who met what: edges of the training graph",
    "edge ids": "numbers of edges in the dataset",
    "aggregates": "counts, means, metrics",
    "parameters": "what was learned by gradients",
    "derived": "what is made of edges: neighbour lists, attention, solutions in closed form",
    "optimiser": "moments of an optimiser",
    "vectors": "final vectors of users and items, or an index of them",
    "lists": "recommended items",
    "features": "feature rows",
    "texts": "names and texts",
    "salt": "what a digest in the audit log was made with",
    "dataset": "a dataset in whole: ids, edges, features, texts",
}
"""The words that say what a file or a cache holds."""

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
    folder: Path,
    fingerprint: str,
    holds: Mapping[str, Sequence[str]],
    caches: Sequence[Mapping[str, Any]],
    kept: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """List every file of the folder with its size, its SHA-256 and what it holds.

    Args:
        folder: of the run.
        fingerprint: of its dataset.
        holds: by file.
        caches: see :func:`record_cache`.
        kept: entries of files that were taken over as they are: they are not read again, so that the SHA-256 stays that
            of what was once written, whatever has become of the file.

    Raises:
        InputError: a file that was taken over has another size than its entry says.
    """
    files = {}
    for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        name = file.relative_to(folder).as_posix()
        size, known = file.stat().st_size, (kept or {}).get(name)
        if known is not None and known["size"] != size:
            raise InputError(f"{name} was changed: {size} bytes, the run's manifest says {known['size']}.")
        files[name] = {
            "sha256": file_sha256(file) if known is None else known["sha256"],
            "size": size,
            "holds": list(holds.get(name, _holds(name))),
        }
    manifest = {
        "format": FORMAT,
        "graphrec": version("graphrec"),
        "fingerprint": fingerprint,
        "files": files,
        "caches": [as_json(cache) for cache in caches],
    }
    (folder / MANIFEST).write_bytes(json_bytes(sealed(manifest)))


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the SHA-256 of its own content as ``digest``."""
    content = {key: value for key, value in as_json(manifest).items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, "digest": hashlib.sha256(text.encode()).hexdigest()}


def seal_problem(raw: bytes) -> str | None:
    """What is wrong with the bytes of a manifest, in a clause; None where they are those that were written."""
    try:
        manifest = json.loads(raw)
    except ValueError as error:
        return f"it is no JSON ({error})"
    if not isinstance(manifest, dict) or "digest" not in manifest:
        return "it carries no digest of its own content"
    if sealed(manifest)["digest"] != manifest["digest"]:
        return "its content is not that of its digest"
    return None if json_bytes(manifest) == raw else "it is not written as graphrec writes it"


def record_cache(folder: Path, path: str | os.PathLike[str], holds: Sequence[str], **about: Any) -> dict[str, Any]:
    """Name a file or folder outside a run that was made from it (lists, vectors, logs) in the run's manifest.

    Args:
        folder: of the run; its manifest is replaced in one step.
        path: of what was made; an entry of the same path is replaced.
        holds: words of :data:`KINDS`.
        **about: more to say, JSON values.

    Returns:
        The entry: ``path``, ``sha256`` (None for a folder), ``holds``.
    """
    for word in holds:
        if word not in KINDS:
            raise InputError(f"caches hold {', '.join(KINDS)}; found {word!r}.")
    made = Path(path).absolute()
    digest = file_sha256(made) if made.is_file() else None
    entry = {"path": str(made), "sha256": digest, "holds": list(holds), **as_json(about)}
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Two exports at once must not lose each other's line.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        manifest = json.loads((folder / MANIFEST).read_bytes())
        others = [known for known in manifest.get("caches", []) if known["path"] != entry["path"]]
        content = json_bytes(sealed({**manifest, "caches": [*others, entry]}))
        write_file(folder / MANIFEST, lambda temporary: temporary.write_bytes(content))
    finally:
        os.close(descriptor)
    return entry
