"""Built datasets on disk, named by what they were made from: opened again in a fraction of the time, never stale.

An entry is a folder of ``.npy`` columns and arrow files, memory-mapped when opened, and a ``manifest.json`` with the
size and sha256 of each. Its name is a hash of the source files' contents, the adapter and its version, and the
options, so that a changed source has another name. An entry is written beside its place and renamed; one that was
damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.fingerprint import file_sha256
from graphrec.datasets.notes import Note
from graphrec.datasets.tables import EdgeTable, EdgeType, Provenance
from graphrec.datasets.texts import Texts
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError

FORMAT = 1
_LOG = logging.getLogger("graphrec.datasets")
_SMALL = 4096


def cache_root() -> Path:
    """``$GRAPHREC_CACHE``, or the user's cache folder (``~/.cache/graphrec`` on Linux)."""
    named = os.environ.get("GRAPHREC_CACHE")
    if named:
        return Path(named).expanduser()
    import pooch

    return Path(pooch.os_cache("graphrec"))


def cache_key(
    files: Iterable[str | os.PathLike[str]], adapter: str, version: int | str, options: Mapping[str, Any] | None = None
) -> str:
    """The name of an entry: sha256 over the files' names and contents, the adapter, its version and the options.

    Args:
        files: every file the adapter reads, in its order.
        adapter: its name.
        version: raised whenever the adapter would make something else of the same files.
        options: all that bears on the result; JSON values, others by their ``repr``.
    """
    described = {
        "format": FORMAT,
        "adapter": adapter,
        "version": version,
        "options": dict(options or {}),
        "files": [[Path(path).name, file_sha256(path)] for path in files],
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=repr).encode()).hexdigest()


def cached(key: str, build: Callable[[], RecDataset], *, root: Path | None = None) -> RecDataset:
    """The dataset of an entry; built and put there where the entry is missing or damaged.

    A damaged entry is said in a note and in the log. Where the cache cannot be written the dataset comes all the same.

    Args:
        key: of :func:`cache_key`.
        build: makes the dataset from its sources.
        root: of the cache; default: :func:`cache_root`.
    """
    folder = (root or cache_root()) / "datasets" / key
    notes: list[Note] = []
    if folder.is_dir():
        try:
            return open_dataset(folder)
        except InputError as error:
            _LOG.warning("The cache entry is damaged and is made again: %s", error)
            notes.append(Note("rebuilt", "cache entry", 1, str(error)))
            shutil.rmtree(folder, ignore_errors=True)
    data = build()
    try:
        save_dataset(data, folder)
    except OSError as error:
        _LOG.warning("The cache %s cannot be written: %s", folder.parent, error)
    return data.changed(notes) if notes else data


def save_dataset(data: RecDataset, folder: str | os.PathLike[str]) -> Path:
    """Write a dataset to a folder, all at once: it is written beside it and renamed.

    Raises:
        OSError: the disk is full or the place cannot be written; nothing is left behind.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}.", dir=folder.parent))
    try:
        _write(data, work)
        if folder.exists():
            shutil.rmtree(folder)
        try:
            work.rename(folder)
        except OSError:
            # Somebody else put the same entry there meanwhile.
            if not (folder / "manifest.json").is_file():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _write(data: RecDataset, work: Path) -> None:
    files: dict[str, dict[str, Any]] = {}

    def array(name: str, values: NDArray[Any]) -> str:
        np.save(work / name, np.ascontiguousarray(values), allow_pickle=False)
        return name

    def strings(name: str, values: pa.Array) -> str:
        table = pa.table({"value": values.cast(pa.large_string())})
        with pa.OSFile(str(work / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(len(values), 1))
        return name

    def vocabulary(name: str, known: Vocabulary) -> dict[str, str]:
        if known.numeric:
            return {"kind": known.kind, "array": array(f"{name}.npy", known.raw)}
        return {"kind": known.kind, "strings": strings(f"{name}.arrow", known.arrow)}

    tables = []
    for number, (edge_type, table) in enumerate(data.tables.items()):
        entry: dict[str, Any] = {"edge_type": list(edge_type), "columns": {}}
        for column, values in table.columns.items():
            entry["columns"][column] = array(f"table{number}.{column}.npy", values)
        if edge_type in data.provenance:
            origin = data.provenance[edge_type]
            entry["provenance"] = [
                array(f"table{number}.rows.{part}.npy", values)
                for part, values in (
                    ("row", origin.row),
                    ("merged_edge", origin.merged_edge),
                    ("merged_row", origin.merged_row),
                )
            ]
        tables.append(entry)
    described = {
        "format": FORMAT,
        "name": data.name,
        "target": list(data.target),
        "fingerprint": data.fingerprint,
        "vocabularies": {
            node_type: vocabulary(f"ids{number}", known)
            for number, (node_type, known) in enumerate(data.vocabularies.items())
        },
        "relations": vocabulary("relations", data.relations),
        "origins": vocabulary("origins", data.origins),
        "tables": tables,
        "features": [
            [*key, array(f"feature{number}.npy", matrix), array(f"feature{number}.mask.npy", data.feature_masks[key])]
            for number, (key, matrix) in enumerate(data.features.items())
        ],
        **{
            kind: {
                node_type: strings(f"{kind}{number}.arrow", values)
                for number, (node_type, values) in enumerate(getattr(data, kind).arrow.items())
            }
            for kind in ("texts", "names", "kinds")
        },
        "notes": [[note.action, note.subject, note.count, note.detail] for note in data.notes],
    }
    for path in sorted(work.iterdir()):
        files[path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    described["files"] = files
    (work / "manifest.json").write_text(json.dumps(described, indent=1) + "\n")


def is_saved(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one that :func:`save_dataset` wrote."""
    manifest = Path(folder) / "manifest.json"
    if not manifest.is_file():
        return False
    try:
        described = json.loads(manifest.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return False  # another program's file; whoever reads the folder says what is wrong with it
    return isinstance(described, dict) and {"tables", "vocabularies", "target", "files"} <= set(described)


def open_dataset(folder: str | os.PathLike[str]) -> RecDataset:
    """Open a dataset that :func:`save_dataset` wrote; columns are memory-mapped.

    Raises:
        InputError: another format, or a file that is missing, changed or cut.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / "manifest.json").read_text())
        if described["format"] != FORMAT:
            raise InputError(f"{folder}: format {described['format']}, this version of graphrec reads {FORMAT}.")
        for name, wanted in described["files"].items():
            if Path(name).name != name:
                raise InputError(f"{folder}: the manifest names {name!r}, which is no file of the folder.")
            if (folder / name).stat().st_size != wanted["bytes"] or file_sha256(folder / name) != wanted["sha256"]:
                raise InputError(f"{folder / name} is not what was written: size or sha256 differ.")
        return _read(folder, described)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} is no readable dataset ({type(error).__name__}: {error}).") from error


def _read(folder: Path, described: Mapping[str, Any]) -> RecDataset:
    def array(name: str, mode: Literal["r", "c"] = "r") -> NDArray[Any]:
        small = described["files"][name]["bytes"] <= _SMALL
        return np.asarray(np.load(folder / name, mmap_mode=None if small else mode, allow_pickle=False))

    def strings(name: str) -> pa.Array:
        assert name in described["files"]
        column = pa.ipc.open_file(pa.memory_map(str(folder / name))).read_all()["value"]
        return column.chunk(0) if column.num_chunks else pa.array([], pa.large_string())

    def vocabulary(entry: Mapping[str, str]) -> Vocabulary:
        return Vocabulary(array(entry["array"]) if "array" in entry else strings(entry["strings"]), entry["kind"])

    tables: dict[EdgeType, EdgeTable] = {}
    provenance: dict[EdgeType, Provenance] = {}
    for entry in described["tables"]:
        source, name, target = entry["edge_type"]
        edge_type = (source, name, target)
        tables[edge_type] = EdgeTable(edge_type, {column: array(file) for column, file in entry["columns"].items()})
        if "provenance" in entry:
            provenance[edge_type] = Provenance(*(array(file) for file in entry["provenance"]))
    source, name, target = described["target"]
    data = RecDataset(
        name=described["name"],
        vocabularies={node_type: vocabulary(entry) for node_type, entry in described["vocabularies"].items()},
        tables=tables,
        target=(source, name, target),
        relations=vocabulary(described["relations"]),
        origins=vocabulary(described["origins"]),
        # Copy on write: torch takes no read-only arrays without a warning, and the file stays as it is.
        features={(node, feature): array(file, "c") for node, feature, file, _ in described["features"]},
        feature_masks={(node, feature): array(file) for node, feature, _, file in described["features"]},
        notes=tuple(Note(*entry) for entry in described["notes"]),
        provenance=provenance,
        **{
            kind: Texts({node_type: strings(file) for node_type, file in described[kind].items()})
            for kind in ("texts", "names", "kinds")
        },
    )
    data._cache["fingerprint"] = described["fingerprint"]
    return data
