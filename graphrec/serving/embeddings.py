"""Vectors with their raw ids in files that other programs read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from graphrec.errors import InputError
from graphrec.runs.files import write_file

Rows = tuple[np.ndarray, np.ndarray]
"""Raw ids (N,) and float32 vectors (N, D)."""

ENDINGS = (".npz", ".safetensors", ".parquet")


def write(path: Path, *, users: Rows, items: Rows) -> Path:
    """Write the vectors; the file's ending chooses the format, and the file is whole or not there.

    Raises:
        InputError: the ending is none of :data:`ENDINGS`.
    """
    writers = {".npz": _npz, ".safetensors": _safetensors, ".parquet": _parquet}
    if path.suffix not in writers:
        raise InputError(f"{path}: a file ending in {', '.join(ENDINGS)} is expected")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda temporary: writers[path.suffix](temporary, users, items))
    return path


def _fixed_width(ids: np.ndarray) -> np.ndarray:
    return ids if ids.dtype.kind in "iu" else ids.astype(np.str_)


def _npz(path: Path, users: Rows, items: Rows) -> None:
    with path.open("wb") as stream:
        np.savez(
            stream,
            user_ids=_fixed_width(users[0]),
            users=users[1],
            item_ids=_fixed_width(items[0]),
            items=items[1],
        )


def _safetensors(path: Path, users: Rows, items: Rows) -> None:
    tensors = {"users": np.ascontiguousarray(users[1]), "items": np.ascontiguousarray(items[1])}
    for kind, (ids, _) in (("user", users), ("item", items)):
        if ids.dtype.kind in "iu":
            tensors[f"{kind}_ids"] = ids.astype(np.int64)
            continue
        words = [str(raw).encode() for raw in ids]
        tensors[f"{kind}_ids_utf8"] = np.frombuffer(b"".join(words), dtype=np.uint8)
        tensors[f"{kind}_ids_offsets"] = np.cumsum([0, *map(len, words)], dtype=np.int64)
    save_file(tensors, path)


def _parquet(path: Path, users: Rows, items: Rows) -> None:
    whole = all(ids.dtype.kind in "iu" for ids, _ in (users, items))
    id_type = pa.int64() if whole else pa.string()
    width = items[1].shape[1]
    schema = pa.schema([("kind", pa.string()), ("id", id_type), ("vector", pa.list_(pa.float32(), width))])
    with pq.ParquetWriter(path, schema) as writer:
        for kind, (ids, vectors) in (("user", users), ("item", items)):
            raw = pa.array(ids if whole else [str(entry) for entry in ids], type=id_type)
            values = pa.array(np.ascontiguousarray(vectors).reshape(-1), type=pa.float32())
            rows = [
                pa.array([kind] * len(ids), type=pa.string()),
                raw,
                pa.FixedSizeListArray.from_arrays(values, width),
            ]
            writer.write_table(pa.Table.from_arrays(rows, schema=schema))
