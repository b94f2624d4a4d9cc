"""Raw ids as people give them, and the rows they stand for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np

from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, unknown

Unknown = Literal["skip", "error", "popular"]
"""What happens with an id that the model does not know."""


def id_array(ids: Iterable[Any]) -> np.ndarray:
    """Raw ids as a 1-D array; a single string is one id, not a list of its letters."""
    if isinstance(ids, (str, bytes, int)):
        ids = [ids]
    if isinstance(ids, np.ndarray):
        return ids.reshape(-1)
    listed = list(ids)
    if listed and all(isinstance(entry, (int, np.integer)) and not isinstance(entry, bool) for entry in listed):
        return np.array(listed)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def codes_of(
    vocabulary: Vocabulary, raw: np.ndarray, kind: str, policy: str, blocked: np.ndarray | None = None
) -> np.ndarray:
    """Codes of raw ids, -1 for unknown ones, which are refused or said by the policy; ``blocked`` codes are unknown."""
    if policy not in get_args(Unknown):
        raise unknown("value of unknown", str(policy), get_args(Unknown))
    codes = np.asarray(vocabulary.encode(raw, unknown="mark"))
    if blocked is not None and len(blocked):
        codes = np.where(np.isin(codes, blocked), -1, codes)
    strange = np.flatnonzero(codes < 0)
    if len(strange):
        some = ", ".join(repr(_plain(raw[i])) for i in strange[:5]) + (", …" if len(strange) > 5 else "")
        text = f"{len(strange)} of {len(raw)} {kind} ids are unknown to the model: {some}"
        if policy == "error":
            raise InputError(text)
        done = "they get the most popular items" if policy == "popular" and kind == "user" else "left out"
        warnings.warn(f"{text} ({done})", stacklevel=3)
    return codes


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
