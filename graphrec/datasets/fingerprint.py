"""Names for content: sha256 over what a dataset holds, whatever order its rows came in."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphrec.datasets.tables import PART_NAMES, EdgeTable, edge_type_name
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from graphrec.datasets.dataset import RecDataset


def _array(digest: Any, name: str, array: NDArray[Any]) -> None:
    array = np.ascontiguousarray(array)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    digest.update(f"{name}/{little.dtype.str}/{little.shape}\n".encode())
    digest.update(little.reshape(-1).view(np.uint8).data)


def _strings(digest: Any, name: str, strings: pa.Array) -> None:
    """Strings as their lengths (-1: none) and their bytes."""
    strings = strings.cast(pa.large_string())
    present = strings.drop_null()
    lengths = np.full(len(strings), -1, np.int64)
    lengths[strings.is_valid().to_numpy(zero_copy_only=False)] = pa.compute.binary_length(present).to_numpy()
    _array(digest, name, lengths)
    offsets = np.frombuffer(present.buffers()[1] or b"\0" * 8, np.int64)[
        present.offset : present.offset + len(present) + 1
    ]
    values = present.buffers()[2]
    if values is not None and len(present):
        digest.update(memoryview(values)[int(offsets[0]) : int(offsets[-1])])


def _vocabulary(digest: Any, name: str, vocabulary: Vocabulary) -> None:
    if vocabulary.numeric:
        _array(digest, name, vocabulary.raw)
    else:
        _strings(digest, name, vocabulary.arrow)


def _table(digest: Any, name: str, table: EdgeTable, leave_out: tuple[str, ...] = ()) -> None:
    digest.update(f"table/{name}/{len(table)}\n".encode())
    for column, values in table.columns.items():
        if column not in leave_out:
            _array(digest, column, values)


def fingerprint(data: RecDataset, *, parts: bool = True) -> str:
    """sha256 of the content of a dataset: everything but its name, its notes and the order of the input.

    Args:
        data: the dataset.
        parts: whether the parts count too; without them the fingerprint is that of the data before it was split.
    """
    digest = hashlib.sha256(b"graphrec dataset 1\n")
    for node_type in sorted(data.vocabularies):
        _vocabulary(digest, f"vocabulary/{node_type}", data.vocabularies[node_type])
    _vocabulary(digest, "relations", data.relations)
    _vocabulary(digest, "origins", data.origins)
    digest.update(f"target/{data.target}\n".encode())
    for edge_type in sorted(data.tables):
        _table(digest, edge_type_name(edge_type), data.tables[edge_type], () if parts else ("part",))
    for key in sorted(data.features):
        _array(digest, f"features/{key}", data.features[key])
        _array(digest, f"feature mask/{key}", data.feature_masks[key])
    for kind in ("texts", "names", "kinds"):
        texts = getattr(data, kind)
        for node_type in sorted(texts):
            _strings(digest, f"{kind}/{node_type}", texts.arrow[node_type])
    return digest.hexdigest()


def digests(data: RecDataset) -> dict[str, str]:
    """sha256 of each piece of a dataset, for a registry: vocabularies, each part of each table, features, texts, names.

    Rows are hashed in canonical order without their edge ids, so that the digest of a part does not depend on the
    others.
    """
    found: dict[str, str] = {}

    def put(name: str, write: Any, *values: Any) -> None:
        digest = hashlib.sha256()
        write(digest, name, *values)
        found[name] = digest.hexdigest()

    for node_type in sorted(data.vocabularies):
        put(f"vocabulary/{node_type}", _vocabulary, data.vocabularies[node_type])
    if len(data.relations):
        put("vocabulary/relation", _vocabulary, data.relations)
    for edge_type in sorted(data.tables):
        table = data.tables[edge_type]
        name = edge_type_name(edge_type)
        if table.part is None:
            put(name, _table, table, ("edge_id", "part"))
            continue
        for code, part in enumerate(PART_NAMES):
            mask = table.part == code
            if mask.any():
                put(f"{name}/{part}", _table, table.select(mask), ("edge_id", "part"))
    for node_type, feature in sorted(data.features):
        put(f"features/{node_type}/{feature}", _array, data.features[node_type, feature])
    for kind in ("texts", "names", "kinds"):
        texts = getattr(data, kind)
        for node_type in sorted(texts):
            put(f"{kind}/{node_type}", _strings, texts.arrow[node_type])
    return found


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's content.

    Raises:
        MissingFileError: it is not there.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} is not there.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
