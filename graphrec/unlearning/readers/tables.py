"""Tables of a run: ids and names, the metrics of each user, the history."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.models.base import GraphInputs
from graphrec.unlearning.readers.findings import Notes, some
from graphrec.unlearning.readers.sought import Subject

PER_USER = "per_user.parquet"


def open_table(file: Path, where: str, notes: Notes) -> pa.Table | None:
    """A parquet file's table, None where it cannot be read."""
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        notes.find("unreadable file", where, f"it is no parquet file ({type(error).__name__})")
        return None


def _vocabulary(column: pa.ChunkedArray, node_type: str) -> Vocabulary:
    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return Vocabulary(column.to_numpy() if pa.types.is_integer(column.type) else values.drop_null(), node_type)


def gone_ids(subject: Subject, column: pa.ChunkedArray, node_type: str) -> tuple[int, int]:
    """How many entries of a column are ids of nodes that are gone wholly, and how many ids the run does not have."""
    column = column.drop_null()
    own = subject.run.vocabularies.get(node_type)
    if not len(column):
        return 0, 0
    # Ids of a column need not be sorted or distinct, so only what encodes them is a vocabulary.
    strange = 0 if own is None else int((own.encode(column.to_pylist(), unknown="mark") < 0).sum())
    if subject.sought is None:
        return 0, strange
    vocabulary = subject.sought.data.vocabularies[node_type]
    codes = vocabulary.encode(column.to_pylist(), unknown="mark")
    gone = np.isin(codes, subject.sought.resolved.nodes.get(node_type, ()))
    return int(gone.sum()), strange


def read_metadata(subject: Subject, file: Path, where: str, notes: Notes) -> None:
    """Text beside a table's columns: its schema's metadata, and values of dictionaries that no row uses."""
    if subject.sought is None:
        return
    schema = pq.read_schema(file)
    told = {**(schema.metadata or {})}
    for entry in schema:
        told.update(entry.metadata or {})
    text = "\n".join(
        f"{key.decode(errors='replace')}: {value.decode(errors='replace')}"
        for key, value in told.items()
        if key != b"ARROW:schema"
    )
    if subject.sought.identifiers.mentions(text):
        notes.find("raw id", where, "its metadata mentions who is gone")
    strings = [entry.name for entry in schema if pa.types.is_string(entry.type) or pa.types.is_dictionary(entry.type)]
    if strings:
        table = pq.read_table(file, columns=strings, read_dictionary=strings)
        for name in strings:
            kept = [chunk.dictionary for chunk in table[name].chunks if pa.types.is_dictionary(chunk.type)]
            words = {str(value) for chunk in kept for value in chunk.to_pylist() if value is not None}
            identifiers = subject.sought.identifiers
            if words & (identifiers.words | set(identifiers.phrases)):
                notes.find("raw id", where, f"the stored values of column {name!r} name who is gone")


def read_ids(subject: Subject, name: str, notes: Notes) -> None:
    """``ids/*.parquet``: a row for each node and none of those that are gone; no names or texts that are gone."""
    file, node_type = subject.run.path / name, Path(name).stem
    table = open_table(file, name, notes)
    if table is None:
        return
    for column in set(table.column_names) - {"id", "name"}:
        notes.find("unknown file", name, f"column {column!r}, which no id table has")
    sought = subject.sought
    if sought is None:
        notes.check(name, "columns", full=False)
        return
    gone, _ = gone_ids(subject, table["id"], node_type)
    if gone:
        notes.find("raw id", name, f"{some(gone, 'id')} of who is gone")
    codes = sought.codes_of(_vocabulary(table["id"], node_type), node_type)
    if (codes < 0).any():
        notes.find("row", name, f"{some(int((codes < 0).sum()), 'id')} that the dataset does not have")
    missing = sought.data.num_nodes.get(node_type, 0) - len(sought.resolved.nodes.get(node_type, ()))
    if len(np.unique(codes[codes >= 0])) - gone < missing:
        notes.find("row", name, "ids of others are missing")
    # Texts that go are not in a run; the names of nodes that go wholly are.
    known, names = sought.kept.names.get(node_type), table["name"].to_numpy(zero_copy_only=False)
    wanted = np.full(len(codes), None, object)
    if known is not None:
        wanted[codes >= 0] = known[codes[codes >= 0]]
    if not all(a == b or (a is None and b is None) for a, b in zip(names, wanted, strict=True)):
        notes.find("text", name, "names that are not those that remain")
    read_metadata(subject, file, name, notes)
    notes.check(name, "ids and names against what remains")


def read_per_user(subject: Subject, inputs: GraphInputs | None, notes: Notes) -> None:
    """``per_user.parquet``: nobody who is gone, counts as they are now, the means that ``metrics.json`` says."""
    file = subject.run.path / PER_USER
    table = open_table(file, PER_USER, notes)
    if table is None:
        return
    user_type = subject.model.graph_inputs.target[0]
    gone, strange = gone_ids(subject, table["user"], user_type)
    if gone:
        notes.find("metric", PER_USER, f"metrics of {some(gone, 'user')} who should be gone")
    if strange - gone > 0:
        notes.find("metric", PER_USER, f"metrics of {some(strange - gone, 'user')} whom the run does not have")
    read_metadata(subject, file, PER_USER, notes)
    _counts(subject, table, inputs, user_type, notes)
    _means(subject, table, notes)
    notes.check(PER_USER, "users, their counts and the means of their metrics", subject.sought is not None)


def _counts(subject: Subject, table: pa.Table, inputs: GraphInputs | None, user_type: str, notes: Notes) -> None:
    own = subject.run.vocabularies[user_type].encode(table["user"].to_pylist(), unknown="mark")
    if inputs is not None and "train" in table.column_names:
        users, items = inputs.graph[inputs.target].edge_index.numpy()
        rows = np.bincount(users, minlength=inputs.num_users)
        distinct = np.bincount(
            np.unique(users * inputs.num_items + items) // inputs.num_items, minlength=inputs.num_users
        )
        said = table["train"].to_numpy()
        if not any(np.array_equal(said[own >= 0], counts[own[own >= 0]]) for counts in (rows, distinct)):
            notes.find("degree", PER_USER, "the users' numbers of training items are not those of the training graph")
    if subject.sought is None or "truth" not in table.column_names:
        return
    facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    truth = _truth(subject.sought.kept, facts.get("graphrec.split", "test"))
    codes = subject.sought.data.vocabularies[user_type].encode(table["user"].to_pylist(), unknown="mark")
    said, counted = table["truth"].to_numpy()[codes >= 0], truth[codes[codes >= 0]]
    if (counted == 0).any():
        notes.find("metric", PER_USER, f"metrics of {some(int((counted == 0).sum()), 'user')} without any truth left")
    # A policy for cold nodes or candidates may count less.
    if (said > counted).any():
        notes.find("metric", PER_USER, "more truth is counted than remains")


def _truth(data: RecDataset, part: str) -> np.ndarray:
    if part not in data.parts:
        return np.zeros(data.num_users, np.int64)
    table = data.interactions(part)
    pairs = np.unique(table.source.astype(np.int64) * data.num_items + table.target)
    return np.bincount(pairs // data.num_items, minlength=data.num_users)


def _means(subject: Subject, table: pa.Table, notes: Notes) -> None:
    for key in table.column_names:
        said = subject.run.metrics.get(key)
        if "@" not in key or not isinstance(said, float):
            continue
        values = table[key].to_numpy().astype(np.float64)
        if len(values) and abs(float(np.nanmean(values)) - said) > 1e-6 * max(1.0, abs(said)):
            notes.find("metric", "metrics.json", f"{key} is not the mean over the users of {PER_USER}")


def read_history(subject: Subject, text: str, where: str, notes: Notes) -> None:
    """``history.csv`` and the like: no words that say who."""
    if subject.sought is None:
        return
    rows = list(csv.reader(io.StringIO(text)))
    header = rows[0] if rows else []
    if subject.sought.identifiers.mentions("\n".join([*header, *(cell for row in rows[1:] for cell in row)])):
        notes.find("raw id", where, "a column or a cell mentions who is gone")
    for number, name in enumerate(header):
        cells = [row[number] for row in rows[1:] if len(row) > number]
        if subject.sought.identifiers.mentioned_in(cells, inside=name):
            notes.find("raw id", where, f"column {number + 1} holds ids of who is gone")
    notes.check(where, "words and ids")
