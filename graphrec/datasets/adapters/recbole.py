"""RecBole's atomic files: ``NAME.inter``, ``.user``, ``.item``, ``.kg``, ``.link``, headers ``field:type``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.datasets.adapters.common import check_linked, one_hot, whole
from graphrec.datasets.adapters.delimited import Column, table, tokens
from graphrec.datasets.adapters.parsing import first_line, show
from graphrec.datasets.builder import Builder
from graphrec.errors import InputError

TYPES = ("token", "token_seq", "float", "float_seq")
PARTS = ("train", "valid", "test")


def _fields(path: Path) -> dict[str, str]:
    """Field name to its type, from the header; empty where it is no atomic file."""
    pairs = [field.rpartition(":") for field in first_line(path).split("\t")]
    return {name: kind.strip() for name, _, kind in pairs} if all(k.strip() in TYPES for _, _, k in pairs) else {}


def recognise(path: Path) -> bool:
    """A folder with an ``.inter`` file whose header is ``field:type``."""
    return path.is_dir() and any(_fields(file) for file in path.glob("*.inter"))


def read(path: Path, builder: Builder, *, behaviour: str | None = None, min_share: float = 0.01) -> None:
    """Read a folder of atomic files into ``builder``.

    An entity that ``.link`` ties to an item is that item. Text fields of ``.item`` are joined to its text, the
    first that speaks of a title or name is the name; categorical fields of ``.user`` become indicator features,
    floats features.

    Args:
        path: the folder; ``NAME.train.inter``, ``NAME.valid.inter``, ``NAME.test.inter`` are parts.
        builder: takes the data.
        behaviour: what the interactions are called.
        min_share: refuse a knowledge graph that speaks of a smaller share of the items.
    """
    inters = _inter_files(path)
    user, item = _id_fields(next(iter(inters.values())))
    about = {kind: file for kind in ("user", "item", "kg", "link") if (file := _only(path, kind)) is not None}
    rows = {part: _table(file, user, item) for part, file in inters.items()}
    named = {"user": (user,), "item": (item,), "link": (item, None), "kg": (None, None, None)}
    tables = {kind: _table(file, *named[kind]) for kind, file in about.items()}
    users = [read.column(user) for read in rows.values()] + _columns(tables, user, "user")
    items = [read.column(item) for read in rows.values()] + _columns(tables, item, "item", "link")
    users, items = _unified(users), _unified(items)
    if "user" in tables:
        builder.nodes("user", users[len(rows)])
        _add_user_fields(builder, users[len(rows)], tables["user"].drop_columns([user]), _fields(about["user"]))
    if "item" in tables:
        builder.nodes("item", items[len(rows)])
        _add_item_fields(builder, items[len(rows)], tables["item"].drop_columns([item]), _fields(about["item"]))
    for index, (part, read) in enumerate(rows.items()):
        ids = pa.table({"user": users[index], "item": items[index]})
        extra: dict[str, Any] = {}
        for name, field in (("rating", "rating"), ("time", "timestamp"), ("label", "label")):
            if field in read.column_names:
                values = read.column(field)
                ids = ids.append_column(name, whole(values) if name == "time" else values)
                extra[name] = name
        builder.interactions(ids, user="user", item="item", behaviour=behaviour, part=part or None, **extra)
    if "kg" in tables:
        linked = (items[-1], tables["link"].column(tables["link"].column_names[1])) if "link" in tables else None
        total = len(pc.unique(pa.concat_arrays([as_strings(pa.chunked_array([part])) for part in items])))
        count = _add_triples(builder, tables["kg"], linked)
        check_linked(builder, about.get("link", about["kg"]), count, total, min_share)


def _inter_files(path: Path) -> dict[str, Path]:
    """The interaction files by part, the empty string for a file that has none."""
    files = sorted(path.glob("*.inter"))
    parts = {part: file for part in PARTS for file in files if file.name.endswith(f".{part}.inter")}
    if parts:
        return parts
    if len(files) != 1:
        raise InputError(f"{path} has {len(files)} .inter files: {', '.join(f.name for f in files)}. Expected one.")
    return {"": files[0]}


def _only(path: Path, kind: str) -> Path | None:
    files = sorted(path.glob(f"*.{kind}"))
    if len(files) > 1:
        raise InputError(f"{path} has {len(files)} .{kind} files: {', '.join(f.name for f in files)}. Expected one.")
    return files[0] if files else None


def _id_fields(path: Path) -> tuple[str, str]:
    """The user and the item field: those named so, else the first two."""
    fields = list(_fields(path))
    user = next((name for name in fields if name.startswith("user")), fields[0] if fields else "user_id")
    others = [name for name in fields if name != user]
    item = next((name for name in others if name.startswith("item")), others[0] if others else "item_id")
    return user, item


def _table(path: Path, *ids: str | None) -> pa.Table:
    """An atomic file with bare field names; ids first and never empty, single floats as floats, all else as text.

    Args:
        path: the file.
        ids: the fields that hold ids; None stands for whichever field is at that place.
    """
    fields = _fields(path)
    if not fields:
        found = show(first_line(path)) if path.stat().st_size else "an empty file"
        raise InputError(f"{path}, line 1: {found}. Expected a header of tab-separated field:type.")
    if len(fields) < len(ids) or any(name is not None and name not in fields for name in ids):
        wanted = ", ".join(name or "another id" for name in ids)
        raise InputError(f"{path}, line 1: expected the fields {wanted}. Found: {', '.join(fields)}.")
    free = iter([name for name in fields if name not in ids])
    first = [name or next(free) for name in ids]
    asked = [Column(f"{name}:{fields[name]}", "token") for name in first]
    for name, kind in fields.items():
        if name not in first:
            asked.append(Column(f"{name}:{kind}", "float" if kind == "float" else "text"))
    read = table(path, asked)
    return read.rename_columns([name.rpartition(":")[0] for name in read.column_names])


def _columns(tables: Mapping[str, pa.Table], name: str, *kinds: str) -> list[pa.ChunkedArray]:
    return [tables[kind].column(name) for kind in kinds if kind in tables]


def as_strings(ids: pa.ChunkedArray) -> pa.Array:
    """Ids as text."""
    return pa.concat_arrays(ids.cast(pa.string()).chunks)


def _unified(parts: list[pa.ChunkedArray]) -> list[pa.Array]:
    """Ids of several files: whole numbers where all of them are, else text in all."""
    arrays = [as_strings(part) for part in parts]
    whole = [tokens(array) for array in arrays]
    return whole if all(pa.types.is_integer(array.type) for array in whole) else arrays


def _add_item_fields(builder: Builder, ids: pa.Array, read: pa.Table, kinds: dict[str, str]) -> None:
    words = [name for name in read.column_names if kinds[name].startswith("token")]
    title = next((name for name in words if "title" in name or "name" in name), None)
    if title:
        builder.names("item", ids, [value or None for value in read.column(title).to_pylist()])
    if words:
        rows = zip(*(read.column(name).to_pylist() for name in words), strict=True)
        builder.texts("item", ids, [". ".join(value for value in row if value) or None for row in rows])
    _add_floats(builder, "item", ids, read, kinds)


def _add_user_fields(builder: Builder, ids: pa.Array, read: pa.Table, kinds: dict[str, str]) -> None:
    for name in read.column_names:
        if kinds[name] == "token":
            add_category(builder, "user", ids, name, read.column(name).to_pylist())
    _add_floats(builder, "user", ids, read, kinds)


def add_category(builder: Builder, kind: str, ids: pa.Array, name: str, values: list[str]) -> None:
    """A categorical attribute as indicator columns; where it has too many values, said to be left out."""
    found = one_hot(values)
    if found is not None:
        builder.features(kind, ids, found[0], name=name)
    else:
        builder.note("left out", f"{kind} attribute {name}", len(values), "more than 1,024 different values")


def _add_floats(builder: Builder, kind: str, ids: pa.Array, read: pa.Table, kinds: dict[str, str]) -> None:
    for name in read.column_names:
        if kinds[name] == "float":
            builder.features(kind, ids, read.column(name).to_numpy().astype(np.float32)[:, None], name=name)


def _add_triples(builder: Builder, kg: pa.Table, linked: tuple[pa.Array, pa.ChunkedArray] | None) -> int:
    """Triples by the kinds of their ends, linked entities as the items they are; how many items have some."""
    head, relation, tail = (as_strings(kg.column(index)) for index in range(3))
    item_of: dict[str, int | str] = {}
    if linked is not None:
        item_of = dict(zip(as_strings(linked[1]).to_pylist(), linked[0].to_pylist(), strict=True))
    names = pa.array(list(item_of), pa.string())
    is_item = [np.asarray(pc.is_in(end, value_set=names)) for end in (head, tail)]
    for source in (True, False):
        for target in (True, False):
            rows = (is_item[0] == source) & (is_item[1] == target)
            if not rows.any():
                continue
            ends = []
            for end, item in ((head, source), (tail, target)):
                values = end.filter(pa.array(rows))
                ends.append(pa.array([item_of[value] for value in values.to_pylist()]) if item else values)
            triples = pa.table({"head": ends[0], "relation": relation.filter(pa.array(rows)), "tail": ends[1]})
            builder.triples(
                triples,
                head=("item" if source else "entity", "head"),
                relation="relation",
                tail=("item" if target else "entity", "tail"),
            )
    ends_of_all = pc.unique(pa.concat_arrays([head, tail]))
    spoken = ends_of_all.filter(pc.is_in(ends_of_all, value_set=names))
    return len({item_of[value] for value in spoken.to_pylist()})
