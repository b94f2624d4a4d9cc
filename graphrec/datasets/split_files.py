"""Splits on disk: a parquet file of parts by edge id, and a JSON file that names the data they belong to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from graphrec.datasets.cuts import Parts
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.fingerprint import fingerprint
from graphrec.datasets.notes import Note
from graphrec.datasets.tables import edge_type_name
from graphrec.errors import InputError, MissingFileError

SPLIT_FORMAT = 1


def _digest(parts: Mapping[str, tuple[NDArray[np.int64], Parts]]) -> str:
    digest = hashlib.sha256(b"graphrec split 1\n")
    for name in sorted(parts):
        digest.update(f"{name}\n".encode())
        digest.update(parts[name][0].astype("<i8").tobytes())
        digest.update(parts[name][1].tobytes())
    return digest.hexdigest()


def split_hash(data: RecDataset) -> str:
    """sha256 over the edge ids and their parts: names a split of one dataset."""
    return _digest(_assignments(data))


def _assignments(data: RecDataset) -> dict[str, tuple[NDArray[np.int64], Parts]]:
    return {
        edge_type_name(edge_type): (table.edge_id, table.part)
        for edge_type, table in data.tables.items()
        if table.part is not None
    }


def save_split(data: RecDataset, path: str | os.PathLike[str]) -> Path:
    """Write the parts of a dataset to a parquet file, with a JSON file beside it that names the data and the hash.

    Args:
        data: a dataset with parts.
        path: of the parquet file; the JSON file has the same name with ``.json``.

    Returns:
        The path of the JSON file.
    """
    assigned = _assignments(data)
    if edge_type_name(data.target) not in assigned:
        raise InputError(
            f"{data.name} has no parts to save. Split it first, for instance with split('random:.8,.1,.1')."
        )
    path = Path(path)
    columns = {
        "edge_type": pa.array(
            np.repeat(list(assigned), [len(ids) for ids, _ in assigned.values()])
        ).dictionary_encode(),
        "edge_id": np.concatenate([ids for ids, _ in assigned.values()]),
        "part": np.concatenate([parts for _, parts in assigned.values()]),
    }
    described = {
        "format": SPLIT_FORMAT,
        "dataset": data.name,
        "fingerprint": fingerprint(data, parts=False),
        "hash": _digest(assigned),
        "target": list(data.target),
        "counts": data.part_counts(),
        "notes": [asdict(note) for note in data.notes if note.action == "split"],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, lambda target: pq.write_table(pa.table(columns), target))
        beside = path.with_suffix(".json")
        _replace(beside, lambda target: target.write_text(json.dumps(described, indent=1) + "\n"))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
    return beside


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, then put it there in one step."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_split(data: RecDataset, path: str | os.PathLike[str]) -> RecDataset:
    """The dataset with the parts of a saved split.

    Raises:
        InputError: the files are damaged, or the split is of another version of the data.
    """
    path = Path(path)
    path = path.with_suffix(".parquet") if path.suffix == ".json" else path
    beside = path.with_suffix(".json")
    for needed in (path, beside):
        if not needed.is_file():
            raise MissingFileError(f"{needed} is not there; a split is a parquet and a JSON file of the same name.")
    try:
        described = json.loads(beside.read_text())
        rows = pq.read_table(path)
        names = rows["edge_type"].cast(pa.string()).to_numpy()
        ids, parts = rows["edge_id"].to_numpy(), rows["part"].to_numpy().astype(np.int8)
        wanted, found_hash = described["fingerprint"], described["hash"]
        version = described["format"]
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: no readable split ({str(error).splitlines()[0] if str(error) else error!r})."
        ) from error
    if version != SPLIT_FORMAT:
        raise InputError(f"{beside}: format {version}; this version of graphrec reads {SPLIT_FORMAT}.")
    assigned = {str(name): (ids[names == name], parts[names == name]) for name in np.unique(names)}
    if _digest(assigned) != found_hash:
        raise InputError(f"{path} was changed after it was written: its hash is not that of {beside}.")
    tables = dict(data.tables)
    for name, (edge_id, part) in assigned.items():
        known = {edge_type_name(edge_type): table for edge_type, table in data.tables.items()}
        table = known.get(name)
        # A split may have left out rows (a pair kept once), never have more.
        if table is not None and np.isin(edge_id, table.edge_id, assume_unique=True).all():
            tables[table.edge_type] = table.select(table.positions(edge_id)).replaced(part=part)
    loaded = data.changed(tables=tables)
    if fingerprint(loaded, parts=False) != wanted:
        raise InputError(
            f"{path} is a split of another version of {described.get('dataset', 'the data')!r}: it was made for "
            f"fingerprint {wanted[:12]}…, the data has {fingerprint(data, parts=False)[:12]}…."
        )
    count = len(loaded.tables[data.target])
    return loaded.changed([Note("split", edge_type_name(data.target), count, f"read, {found_hash[:12]}")])
