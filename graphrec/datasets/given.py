"""What a builder was given, checked: rows of edges, declared nodes, features and texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphrec.datasets.arrow import Place
from graphrec.datasets.columns import RawIds, raw_ids, strings
from graphrec.datasets.tables import Duplicates
from graphrec.errors import InputError, unknown


@dataclass
class Rows:
    """The rows of one call that go to one family of edge types."""

    source: tuple[str, RawIds]
    target: tuple[str, RawIds]
    name: str
    duplicates: Duplicates
    first_row: int
    place: Place
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    raw: dict[str, RawIds] = field(default_factory=dict)
    behaviour: tuple[NDArray[np.int32], list[str]] | None = None

    def __len__(self) -> int:
        return len(self.source[1])


@dataclass(frozen=True)
class Features:
    """One call of ``Builder.features``; ``policy`` says what becomes of unknown ids."""

    node_type: str
    name: str
    ids: RawIds
    matrix: NDArray[np.float32]
    policy: str


@dataclass(frozen=True)
class Strings:
    """One call of ``Builder.texts``, ``names`` or ``kinds``."""

    call: str
    node_type: str
    ids: RawIds
    values: pa.Array
    policy: str


@dataclass
class Collected:
    """All that a builder was given.

    Attributes:
        rows: calls that added edges.
        nodes: declared nodes, by node type.
        same: node type, ids, other node type, its ids: what stands for what.
        features: calls that added features.
        strings: calls that added texts, names or kinds.
    """

    rows: list[Rows] = field(default_factory=list)
    nodes: list[tuple[str, RawIds]] = field(default_factory=list)
    same: list[tuple[str, RawIds, str, RawIds]] = field(default_factory=list)
    features: list[Features] = field(default_factory=list)
    strings: list[Strings] = field(default_factory=list)


def is_strict(node_type: str) -> bool:
    """Whether strings that look like numbers, but are none that an id can be, are refused."""
    return node_type in ("user", "item")


def given_features(node_type: str, ids: Any, array: Any, name: str, policy: str) -> Features:
    """A call of ``Builder.features``, checked."""
    call = f"features({name!r})"
    matrix = np.asarray(array)
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number) or np.iscomplexobj(matrix):
        raise InputError(f"{call}: expected (N, D) numbers, got shape {matrix.shape} of {matrix.dtype}.")
    matrix = matrix.astype(np.float32)
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        raise InputError(f"{call}: row {int(np.argmax(bad))} has NaN or an infinite number.")
    given = raw_ids(np.arange(len(matrix)) if ids is None else ids, Place(call, "ids"), strict=is_strict(node_type))
    if len(given) != len(matrix):
        raise InputError(f"{call}: {len(given)} ids but {len(matrix)} rows.")
    return Features(node_type, name, given, matrix, _policy(policy))


def given_strings(call: str, node_type: str, ids: Any, values: Any, policy: str) -> Strings:
    """A call of ``Builder.texts``, ``names`` or ``kinds``, checked."""
    given = raw_ids(ids, Place(call, "ids"), strict=is_strict(node_type))
    texts = strings(values, Place(call, "values"))
    if len(given) != len(texts):
        raise InputError(f"{call}: {len(given)} ids of {node_type} but {len(texts)} values.")
    return Strings(call, node_type, given, texts, _policy(policy))


def _policy(policy: str) -> str:
    if policy not in ("skip", "add"):
        raise unknown("policy for unknown ids", policy, ("skip", "add"))
    return policy
