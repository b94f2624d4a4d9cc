"""Recommended lists in parquet files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError
from graphrec.runs.files import clear_errors, write_file


def list_schema(users: Vocabulary, items: Vocabulary, named: bool) -> pa.Schema:
    """The columns of a file of lists; raw ids are int64 or strings, ``named`` items have a column ``name``."""

    def kind(vocabulary: Vocabulary) -> pa.DataType:
        return pa.int64() if vocabulary.raw.dtype.kind in "iu" else pa.string()

    fields = [
        ("user", kind(users)),
        ("rank", pa.int32()),
        ("item", kind(items)),
        ("score", pa.float32()),
    ]
    return pa.schema(fields + ([("name", pa.string())] if named else []))


def write_lists(frames: Iterable[pd.DataFrame], out: str | os.PathLike[str], schema: pa.Schema | None = None) -> Path:
    """Write frames of lists to one parquet file, a row group each; the file is whole or not there.

    Args:
        frames: of :meth:`Recommender.recommend` and the like, with the same columns.
        out: the file.
        schema: of the file; None: that of the first frame.

    Raises:
        InputError: ``out`` is a folder or cannot be written.
    """
    path = Path(out)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the parquet file to write.")

    def write(temporary: Path) -> None:
        with contextlib.ExitStack() as stack:
            writer = None if schema is None else stack.enter_context(pq.ParquetWriter(temporary, schema))
            for frame in frames:
                table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
                writer = writer or stack.enter_context(pq.ParquetWriter(temporary, table.schema))
                writer.write_table(table)

    with clear_errors(path, "recommendations", "What was there before is whole."):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, write)
    return path
