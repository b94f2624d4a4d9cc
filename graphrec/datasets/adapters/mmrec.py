"""The form of MMRec: an ``.inter`` file with ``x_label`` (0 train, 1 validation, 2 test), features as ``.npy``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from graphrec.datasets.adapters.common import (
    add_features,
    add_user_map,
    columns,
    feature_rows,
    item_table,
    universe,
    whole,
)
from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.lightgcn_names import add_item_table
from graphrec.datasets.adapters.parsing import first_line
from graphrec.datasets.builder import Builder
from graphrec.errors import MissingFileError

PARTS = ("train", "valid", "test")


def inter_file(path: Path) -> Path | None:
    """The ``.inter`` file of a folder whose header has ``x_label``."""
    for file in sorted(path.glob("*.inter")) if path.is_dir() else ():
        if "x_label" in first_line(file).split("\t"):
            return file
    return None


def recognise(path: Path) -> bool:
    """A folder with an ``.inter`` file whose header has ``x_label``."""
    return inter_file(path) is not None


def read(path: Path, builder: Builder) -> None:
    """Read interactions with their parts, features, titles, texts and brands (as triples) into ``builder``."""
    file = inter_file(path) or next(iter(sorted(path.glob("*.inter"))), None)
    if file is None:
        raise MissingFileError(f"{path} has no .inter file. Expected one with the columns userID, itemID, x_label.")
    asked = [
        Column("userID", "id"),
        Column("itemID", "id"),
        Column("x_label", "id", 0, 2),
        Column("rating", "float", optional=True),
        Column("timestamp", "float", optional=True),
    ]
    rows = table(file, asked)
    items = [rows.column("itemID").to_numpy(), np.arange(feature_rows(path))]
    listing = path / "items.tsv"
    listed = item_table(listing) if listing.is_file() else None
    if listed is not None:
        items.append(listed.column("itemID").to_numpy())
    all_items = universe(*items)
    builder.nodes("user", universe(rows.column("userID").to_numpy()))
    builder.nodes("item", all_items)
    words = pa.array(PARTS).take(rows.column("x_label").combine_chunks())
    if "timestamp" in rows.column_names:
        place = rows.column_names.index("timestamp")
        rows = rows.set_column(place, "timestamp", whole(rows.column("timestamp")))
    builder.interactions(
        rows.append_column("part", words),
        user="userID",
        item="itemID",
        part="part",
        rating="rating" if "rating" in rows.column_names else None,
        time="timestamp" if "timestamp" in rows.column_names else None,
    )
    if listed is not None:
        add_item_table(builder, listing)
        if "brand" in listed.column_names:
            _add_brands(builder, listed)
    add_user_map(builder, path / "user_map.tsv")
    add_features(builder, path, all_items)


def _add_brands(builder: Builder, listed: pa.Table) -> None:
    """One triple (item, brand, name of the brand) for each item that has one."""
    pairs = zip(listed.column("itemID").to_pylist(), listed.column("brand").to_pylist(), strict=True)
    rows = [(item, brand) for item, brand in pairs if brand.strip()]
    triples = columns(
        item=np.array([item for item, _ in rows], dtype=np.int64),
        relation=["brand"] * len(rows),
        entity=[f"brand:{brand}" for _, brand in rows],
    )
    names = sorted({brand for _, brand in rows})
    if names:
        builder.triples(triples, head=("item", "item"), relation="relation", tail=("entity", "entity"))
        ids = [f"brand:{name}" for name in names]
        builder.names("entity", ids, names).kinds("entity", ids, ["brand"] * len(ids))
