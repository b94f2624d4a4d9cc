"""Nodes of a dataset as a person would name them, and the other way."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.reports.explanation import Node


def named_node(data: RecDataset, node_type: str, code: int) -> Node:
    """The node of a type with a number."""
    names = data.names.get(node_type)
    raw = data.vocabularies[node_type].raw[code]
    return Node(node_type, raw.item() if isinstance(raw, np.generic) else raw, None if names is None else names[code])


def code_of(data: RecDataset, node_type: str, raw: Any) -> int:
    """The number of a raw id; digits will do for a whole number.

    Raises:
        InputError: the dataset does not know it.
    """
    vocabulary = data.vocabularies[node_type]
    wanted: Any = raw
    if isinstance(raw, str) and vocabulary.raw.dtype.kind in "iu" and raw.lstrip("-").isdigit():
        wanted = int(raw)
    found = int(np.asarray(vocabulary.encode(np.array([wanted]), unknown="mark"))[0])
    if found < 0:
        raise InputError(f"{node_type} {raw!r} is not in dataset {data.name!r}.")
    return found
