"""A single csv, tsv, parquet or arrow file of interactions: which of its columns is what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from graphrec.datasets.builder import Builder
from graphrec.datasets.frames import from_table, is_binary
from graphrec.errors import InputError, unknown

FORMATS: Mapping[str, str | None] = MappingProxyType(
    {"csv": ",", "tsv": "\t", "parquet": None, "arrow": None, "table": None}
)
SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather")
SETTINGS = ("separator", "header", "encoding", "scale")

# The names a column may go by when nobody says which it is, compared without case, blanks, dashes and underscores.
GUESSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "user": ("user", "userid", "uid", "useridx", "username", "customer", "customerid", "visitorid", "reviewerid"),
        "item": ("item", "itemid", "iid", "itemidx", "sku", "product", "productid", "movieid", "asin", "artistid"),
        "rating": ("rating", "ratings", "stars", "score"),
        "label": ("label", "click", "clicked"),
        "behaviour": ("behaviour", "behavior", "event", "eventtype", "action"),
        "time": ("time", "timestamp", "ts", "date", "datetime", "unixtime"),
        "weight": ("weight", "count", "plays"),
        "part": ("part", "split", "xlabel"),
    }
)


def is_table(path: Path, format: str | None, columns: Mapping[str, str] | str | None) -> bool:
    """Whether a file is to be read on its own, rather than as part of the folder it lies in."""
    if format is not None:
        return format in FORMATS
    if columns is not None:
        return True
    name = path.name.removesuffix(".gz")
    if name.endswith(SUFFIXES):
        return True
    from graphrec.datasets.adapters import recognise

    return recognise(path.absolute().parent) is None


def check_table(path: Path, format: str | None, roles: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for reading a file, its roles and options checked."""
    for option in options:
        if option not in SETTINGS:
            raise unknown("option of a single file", option, SETTINGS)
    for role in roles:
        if role not in GUESSES:
            raise unknown("role of a column", role, GUESSES)
    for role in ("user", "item"):
        if roles and role not in roles:
            raise InputError(f"{path}: columns {dict(roles)} do not say which is the {role}. Expected {role}=COLUMN.")
    binary = is_binary(path)
    if format in (("csv", "tsv") if binary else ("parquet", "arrow")):
        found = "parquet or arrow" if binary else "text"
        raise InputError(f"{path}: format={format!r} was asked for, but the file is {found}.")
    settings = dict(options)
    if format is not None and FORMATS[format] is not None:
        settings.setdefault("separator", FORMATS[format])
    return settings


def add_table(builder: Builder, path: Path, roles: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Read a file into the builder; columns that were guessed are noted.

    Args:
        builder: takes the interactions.
        path: the file.
        roles: role to column; empty: guessed from the names.
        settings: ``separator``, ``header``, ``encoding`` of the text, ``scale`` of the ratings.
    """
    text = {name: value for name, value in settings.items() if name != "scale"}
    if roles:
        table = from_table(path, roles, **text)
    else:
        table = from_table(path, **text)
        roles = guessed(path, table.column_names)
        found = ", ".join(f"{role}={column}" for role, column in roles.items())
        builder.note("guessed", "columns", len(roles), f"{found}; say columns=… if that is wrong")
        table = _renamed(table, roles)
    named: dict[str, Any] = {role: role for role in roles}
    builder.interactions(table, scale=settings.get("scale"), **named)


def _renamed(table: pa.Table, roles: Mapping[str, str]) -> pa.Table:
    chosen = pa.table([table[column] for column in roles.values()], names=list(roles))
    return chosen.replace_schema_metadata(table.schema.metadata)


def guessed(path: Path, names: list[str]) -> dict[str, str]:
    """Role to column, by the columns' names.

    Raises:
        InputError: no column, or more than one, could be the user, the item, or another role.
    """
    plain = {name: "".join(mark for mark in name.casefold() if mark.isalnum()) for name in names}
    roles = {}
    for role, words in GUESSES.items():
        found = [name for name in names if plain[name] in words]
        if len(found) > 1 or (not found and role in ("user", "item")):
            what = f"{', '.join(map(repr, found))} could each be" if found else "no column has a known name for"
            raise InputError(
                f"{path}: {what} the {role}. Columns found: {', '.join(map(repr, names))}. "
                "Say which is which: columns='user=…,item=…,time=…'."
            )
        if found:
            roles[role] = found[0]
    return roles
