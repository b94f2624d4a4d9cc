"""The form of S3-Rec: a user's items in time order on a line of ``NAME.txt``, and ``NAME_item2attributes.json``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphrec.datasets.adapters.common import columns, strings, universe
from graphrec.datasets.adapters.parsing import Ints, fault_of_id, ragged, read_bytes, show
from graphrec.datasets.builder import Builder
from graphrec.errors import InputError, MissingFileError

SUFFIX = "_item2attributes.json"


def attribute_file(path: Path) -> Path | None:
    """The attribute file of a folder."""
    return next(iter(sorted(path.glob(f"*{SUFFIX}"))), None) if path.is_dir() else None


def recognise(path: Path) -> bool:
    """A folder with a ``*_item2attributes.json``."""
    return attribute_file(path) is not None


def read(path: Path, builder: Builder) -> None:
    """Read sequences and attributes into ``builder``.

    The last item of a sequence is test, the one before it validation, the rest training; a user with fewer than three
    items has training alone. ``time`` is the place in the sequence, from 0. Attributes are triples
    (item, attribute, ``attribute:<id>``).
    """
    file = attribute_file(path)
    if file is None:
        raise MissingFileError(f"{path} has no *{SUFFIX}. Expected one beside the sequences.")
    sequences = path / f"{file.name.removesuffix(SUFFIX)}.txt"
    if not sequences.is_file():
        raise MissingFileError(f"{sequences} is not there. Expected the sequences beside {file.name}.")
    lines = ragged(sequences)
    users, items = lines.pairs()
    lengths = lines.counts - 1
    begin = np.cumsum(lengths) - lengths
    place = np.arange(len(items)) - np.repeat(begin, lengths)
    left = np.repeat(lengths, lengths) - place
    long = np.repeat(lengths >= 3, lengths)
    part = np.where(long & (left == 1), 2, np.where(long & (left == 2), 1, 0))
    item, attribute = _attributes(file)
    builder.nodes("user", universe(lines.first, first=1))
    builder.nodes("item", universe(items, item, first=1))
    rows = columns(user=users, item=items, time=place)
    rows = rows.append_column("part", pa.array(("train", "valid", "test")).take(pa.array(part)))
    builder.interactions(rows, user="user", item="item", time="time", part="part")
    if len(item):
        triples = columns(item=item, relation=["attribute"] * len(item), entity=strings("attribute", attribute))
        builder.triples(triples, head=("item", "item"), relation="relation", tail=("entity", "entity"))
        ids = strings("attribute", np.unique(attribute))
        builder.kinds("entity", ids, ["attribute"] * len(ids))


def _attributes(path: Path) -> tuple[Ints, Ints]:
    """(item, attribute) of every entry of the JSON object."""
    try:
        content = json.loads(read_bytes(path).decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: no JSON: {error.msg} at column {error.colno}.") from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path}: no JSON that can be read: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON {type(content).__name__}. Expected item id to list of attribute ids.")
    items: list[int] = []
    attributes: list[int] = []
    for key, values in content.items():
        fault = fault_of_id(key)
        if fault is None and not isinstance(values, list):
            fault = f"{show(str(values))} is no list"
        for value in values if fault is None else ():
            if type(value) is int and 0 <= value < 2**63:
                continue
            fault = f"{show(str(value)) if type(value) is not int else 'a number out of range'} is no attribute id"
            break
        if fault:
            raise InputError(f"{path}, item {show(key)}: {fault}. Expected an item id and its list of attribute ids.")
        items.extend([int(key)] * len(values))
        attributes.extend(values)
    return np.array(items, dtype=np.int64), np.array(attributes, dtype=np.int64)
