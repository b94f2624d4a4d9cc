"""What is to be forgotten, as people say it: users, items, pairs, behaviours, times, triples, features, edges."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from graphrec.errors import InputError, MissingFileError, unknown

if TYPE_CHECKING:
    import pandas as pd

Id = int | str


@dataclass(frozen=True)
class TimeRange:
    """Interactions with ``start <= time < end``, of one user or of all.

    Attributes:
        start: in the unit of the dataset's times.
        end: likewise.
        user: raw id; None: everybody.
    """

    start: float
    end: float
    user: Id | None = None


@dataclass(frozen=True)
class ForgetRequest:
    """What is to be forgotten; what several selectors name is forgotten once.

    Attributes:
        users: raw ids; all that is known of them: interactions of every part, tags they assigned, links, features,
            texts, and their row in the id table.
        items: raw ids; likewise, with their triples.
        pairs: (user, item), every behaviour.
        behaviours: (behaviour, user), the user None for everybody's.
        time: ranges of time.
        relations: raw ids or names of relations of the knowledge graph.
        triples: (head, relation, tail), raw ids.
        features: (item, name of the feature), the name None for all of the item's features.
        texts: items whose text goes.
        edges: edge ids by the name of the edge type (``user__interacts__item``).
        fingerprint: of the dataset that ``edges`` counts in; None: not said.
    """

    users: tuple[Id, ...] = ()
    items: tuple[Id, ...] = ()
    pairs: tuple[tuple[Id, Id], ...] = ()
    behaviours: tuple[tuple[str, Id | None], ...] = ()
    time: tuple[TimeRange, ...] = ()
    relations: tuple[Id, ...] = ()
    triples: tuple[tuple[Id, Id, Id], ...] = ()
    features: tuple[tuple[Id, str | None], ...] = ()
    texts: tuple[Id, ...] = ()
    edges: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        # Ids taken from an array are numpy's; a request has to be written as JSON.
        for entry in fields(self):
            object.__setattr__(self, entry.name, _plain(getattr(self, entry.name)))

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return any(getattr(self, entry.name) for entry in fields(self) if entry.name != "fingerprint")

    # -- reading -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "request") -> Self:
        """A request from JSON values; every key is optional.

        ``{"users": [], "items": [], "pairs": [["u", "i"]], "behaviours": ["views", {"behaviour": "views", "user":
        "u"}], "time": [{"user": null, "from": 0, "to": 1}], "relations": [], "triples": [["h", "r", "t"]],
        "features": [{"item": "i", "name": "image"}], "texts": [], "edges": {"user__interacts__item": [5]},
        "fingerprint": "…"}``

        Raises:
            InputError: an unknown key, or a value of another shape; names the place.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{where}: expected an object with keys such as users, found {_said(values)}.")
        known = [entry.name for entry in fields(cls)]
        for key in values:
            if key not in known:
                raise unknown(f"key of {where}", str(key), known)
        at = _Places(values, where)
        edges = values.get("edges") or {}
        if not isinstance(edges, Mapping):
            raise InputError(f"{where}: edges must be lists of edge ids by edge type, found {_said(edges)}.")
        fingerprint = values.get("fingerprint")
        if fingerprint is not None and not isinstance(fingerprint, str):
            raise InputError(f"{where}: fingerprint must be a string, found {_said(fingerprint)}.")
        return cls(
            users=tuple(_id(value, place) for place, value in at.each("users")),
            items=tuple(_id(value, place) for place, value in at.each("items")),
            pairs=tuple((v[0], v[1]) for v in (_ids(value, 2, place) for place, value in at.each("pairs"))),
            behaviours=tuple(_behaviour(value, place) for place, value in at.each("behaviours")),
            time=tuple(_time_range(value, place) for place, value in at.each("time")),
            relations=tuple(_id(value, place) for place, value in at.each("relations")),
            triples=tuple((v[0], v[1], v[2]) for v in (_ids(value, 3, place) for place, value in at.each("triples"))),
            features=tuple(_feature(value, place) for place, value in at.each("features")),
            texts=tuple(_id(value, place) for place, value in at.each("texts")),
            edges={str(name): _edge_ids(ids, f"{where}: edges[{name!r}]") for name, ids in edges.items()},
            fingerprint=fingerprint,
        )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], columns: Mapping[str, str] | None = None) -> Self:
        """A request from a file: ``.json``, or ``.csv`` / ``.tsv`` as in :meth:`from_frame`.

        Args:
            path: the file.
            columns: of a table, what is in which column, as in ``{"user": "uid", "item": "iid"}``; None: columns called
                user, item, behaviour, head, relation, tail are used and no others may be there.

        Raises:
            MissingFileError: it is not there.
            InputError: it is malformed; names line and column.
        """
        import pandas as pd

        path = Path(path)
        if not path.is_file():
            raise MissingFileError(f"request {path} is not there.")
        if path.suffix == ".json":
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{path}, line {error.lineno}, column {error.colno}: malformed JSON: {error.msg}."
                ) from error
            except UnicodeDecodeError as error:
                raise InputError(f"{path}: byte {error.start} is no UTF-8.") from error
            return cls.from_dict(values, str(path))
        if path.suffix not in (".csv", ".tsv"):
            raise InputError(f"request {path}: expected a .json, .csv or .tsv file.")
        separator = "\t" if path.suffix == ".tsv" else ","
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter=separator))
        if not rows:
            raise InputError(f"{path} is empty; expected a header such as user,item.")
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(rows[0]):
                raise InputError(f"{path}, line {number}: {len(row)} fields, the header has {len(rows[0])}.")
        return cls.from_frame(pd.DataFrame(rows[1:], columns=rows[0]), columns, where=str(path))

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, columns: Mapping[str, str] | None = None, where: str = "frame") -> Self:
        """A request from a table with a row for each thing to forget.

        A row with a user and an item names the pair, with a user alone the user, with an item alone the item; with a
        user (or nobody) and a behaviour, that behaviour of the user (of everybody). A row with head, relation and tail
        names a triple, with a relation alone the relation.

        Args:
            frame: the table; empty cells name nothing.
            columns: see :meth:`from_file`.
            where: what to call it in messages.
        """
        roles = ("user", "item", "behaviour", "head", "relation", "tail")
        if columns is None:
            columns = {str(name): str(name) for name in frame.columns}
        for role in columns:
            if role not in roles:
                raise unknown(f"column of {where}", role, roles)
        for name in columns.values():
            if name not in frame.columns:
                raise unknown(f"column of {where}", name, [str(column) for column in frame.columns])
        lists: dict[str, list[Any]] = {"users": [], "items": [], "pairs": [], "behaviours": [], "triples": []}
        lists["relations"] = []
        cells = {role: [_cell(value) for value in frame[name]] for role, name in columns.items()}
        for number in range(len(frame)):
            row = {role: values[number] for role, values in cells.items() if values[number] is not None}
            given = frozenset(row)
            if given == {"user", "item"}:
                lists["pairs"].append((row["user"], row["item"]))
            elif given in ({"user"}, {"item"}):
                lists["users" if "user" in row else "items"].append(next(iter(row.values())))
            elif given in ({"behaviour"}, {"user", "behaviour"}):
                lists["behaviours"].append((str(row["behaviour"]), row.get("user")))
            elif given == {"head", "relation", "tail"}:
                lists["triples"].append((row["head"], row["relation"], row["tail"]))
            elif given == {"relation"}:
                lists["relations"].append(row["relation"])
            else:
                found = ", ".join(sorted(given)) or "nothing"
                raise InputError(
                    f"{where}, row {number + 1}: {found} is no selector; expected a user, an item, both, a behaviour "
                    "with or without a user, a triple, or a relation."
                )
        distinct: dict[str, Any] = {name: tuple(dict.fromkeys(values)) for name, values in lists.items()}
        return cls(**distinct)

    # -- writing -------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The request as JSON values, keys that ask for nothing left out; :meth:`from_dict` reads it."""
        out: dict[str, Any] = {
            "users": list(self.users),
            "items": list(self.items),
            "pairs": [list(pair) for pair in self.pairs],
            "behaviours": [
                name if user is None else {"behaviour": name, "user": user} for name, user in self.behaviours
            ],
            "time": [{"user": entry.user, "from": entry.start, "to": entry.end} for entry in self.time],
            "relations": list(self.relations),
            "triples": [list(triple) for triple in self.triples],
            "features": [{"item": item, "name": name} for item, name in self.features],
            "texts": list(self.texts),
            "edges": {name: list(ids) for name, ids in self.edges.items()},
        }
        out = {name: value for name, value in out.items() if value}
        if self.fingerprint is not None:
            out["fingerprint"] = self.fingerprint
        return out

    def digest(self, salt: bytes) -> str:
        """SHA-256 of the salt and the request, the same for any order of its entries; nothing is to be read from it.

        Args:
            salt: at least 16 random bytes that are destroyed when nobody needs to match requests any more.
        """
        plain = self.to_dict()
        ordered = {
            name: sorted(value, key=lambda entry: json.dumps(entry, sort_keys=True))
            if isinstance(value, list)
            else {key: sorted(ids) for key, ids in sorted(value.items())}
            if isinstance(value, dict)
            else value
            for name, value in sorted(plain.items())
        }
        return hashlib.sha256(salt + json.dumps(ordered, sort_keys=True).encode()).hexdigest()


class _Places:
    """The entries of each list of a request with what to call them in messages."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def each(self, key: str) -> list[tuple[str, Any]]:
        listed = self.values.get(key)
        if listed is None:
            return []
        if isinstance(listed, (str, bytes)) or not isinstance(listed, Sequence):
            raise InputError(f"{self.where}: {key} must be a list, found {_said(listed)}.")
        return [(f"{self.where}: {key}[{number}]", value) for number, value in enumerate(listed)]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, TimeRange):
        return TimeRange(_plain(value.start), _plain(value.end), _plain(value.user))
    return value


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _id(value: Any, place: str) -> Id:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise InputError(f"{place} must be a whole number or a string, found {_said(value)}.")
    return value


def _ids(value: Any, count: int, place: str) -> list[Id]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != count:
        raise InputError(f"{place} must be a list of {count} ids, found {_said(value)}.")
    return [_id(entry, place) for entry in value]


def _keys(value: Any, allowed: Sequence[str], place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{place} must be an object with {', '.join(allowed)}, found {_said(value)}.")
    for key in value:
        if key not in allowed:
            raise unknown(f"key of {place}", str(key), allowed)
    return value


def _behaviour(value: Any, place: str) -> tuple[str, Id | None]:
    if isinstance(value, str) and value:
        return value, None
    entry = _keys(value, ("behaviour", "user"), place)
    name, user = entry.get("behaviour"), entry.get("user")
    if not isinstance(name, str) or not name:
        raise InputError(f"{place}: behaviour must be a name, found {_said(name)}.")
    return name, None if user is None else _id(user, place)


def _time_range(value: Any, place: str) -> TimeRange:
    entry = _keys(value, ("user", "from", "to"), place)
    ends = {}
    for key, default in (("from", -math.inf), ("to", math.inf)):
        number = entry.get(key)
        number = default if number is None else number
        if isinstance(number, bool) or not isinstance(number, (int, float)) or math.isnan(number):
            raise InputError(f"{place}: {key} must be a number, found {_said(number)}.")
        ends[key] = number
    if not ends["from"] < ends["to"]:
        raise InputError(f"{place}: from must be below to, found {ends['from']} and {ends['to']}.")
    user = entry.get("user")
    return TimeRange(ends["from"], ends["to"], None if user is None else _id(user, place))


def _feature(value: Any, place: str) -> tuple[Id, str | None]:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return _id(value, place), None
    entry = _keys(value, ("item", "name"), place)
    name = entry.get("name")
    if name is not None and not isinstance(name, str):
        raise InputError(f"{place}: name must be the name of a feature, found {_said(name)}.")
    return _id(entry.get("item"), place), name


def _edge_ids(value: Any, place: str) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise InputError(f"{place} must be a list of edge ids, found {_said(value)}.")
    for entry in value:
        if isinstance(entry, bool) or not isinstance(entry, (int, np.integer)) or entry < 0:
            raise InputError(f"{place}: an edge id is a whole number from 0 on, found {_said(entry)}.")
    return tuple(int(entry) for entry in value)


def _cell(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)) or value == "":
        return None
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value if isinstance(value, (int, str)) else str(value)
