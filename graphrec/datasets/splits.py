"""Splits of the ranked interactions into train, valid and test, made before any graph is: their string form, and their
application to a dataset.

The ways of splitting themselves are in :mod:`graphrec.datasets.split_kinds`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.notes import Note
from graphrec.datasets.split_kinds import (
    TRAIN,
    ColdItems,
    ColdUsers,
    FixedSplit,
    GlobalTimeSplit,
    HoldOutValid,
    LeaveOneOut,
    RandomPairs,
    RandomSplit,
    RatioSplit,
    Split,
    TimeSplit,
)
from graphrec.datasets.tables import PART_NAMES, EdgeTable, edge_type_name
from graphrec.errors import InputError, unknown

SPLITS: Mapping[str, type[Split]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            RandomSplit,
            RandomPairs,
            TimeSplit,
            GlobalTimeSplit,
            LeaveOneOut,
            ColdItems,
            ColdUsers,
            FixedSplit,
            HoldOutValid,
        )
    }
)


def parse_split(spec: str | Split, seed: int | None = None) -> Split:
    """A split from its string form.

    ``random:.8,.1,.1`` · ``random_pairs:.6,.2,.2`` · ``time:.8,.1,.1`` · ``global_time:.8,.1,.1`` or
    ``global_time:FIRST,SECOND`` · ``leave_one_out`` · ``leave_one_out:random`` · ``cold_items:.1`` (or valid and test:
    ``cold_items:.05,.1``) · ``cold_users:.1`` · ``fixed`` · ``fixed:valid=train`` · ``valid:.1``; each may be followed
    by ``;seed=N``.

    Raises:
        InputError: an unknown name, or numbers that make no sense.
    """
    if isinstance(spec, Split):
        split = spec
    elif not isinstance(spec, str):
        raise InputError(f"split: expected a string such as 'random:.8,.1,.1' or a Split, got {type(spec).__name__}.")
    else:
        body, _, rest = spec.partition(";")
        name, _, text = body.strip().partition(":")
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        words = [word.strip() for word in text.split(",") if word.strip()]
        split = _from_words(SPLITS[name], words, spec)
        if rest:
            found = re.fullmatch(r"\s*seed=([0-9]+)\s*", rest)
            if not found:
                raise InputError(f"split {spec!r}: expected ;seed=N behind the numbers, found {rest!r}.")
            split = _with_seed(split, int(found[1]))
    return split if seed is None else _with_seed(split, seed)


def _with_seed(split: Split, seed: int) -> Split:
    if not any(entry.name == "seed" for entry in fields(split)):
        return split
    return replace(split, **{"seed": seed})


def _from_words(kind: type[Split], words: list[str], spec: str) -> Split:
    if kind is LeaveOneOut:
        if len(words) > 1:
            raise InputError(f"split {spec!r}: expected leave_one_out or leave_one_out:random.")
        return LeaveOneOut(*words)  # type: ignore[arg-type]
    if kind is FixedSplit:
        if words not in ([], ["valid=train"]):
            raise InputError(f"split {spec!r}: expected fixed or fixed:valid=train.")
        return FixedSplit("train" if words else "keep")
    try:
        values = tuple(float(word) for word in words)
    except ValueError as error:
        raise InputError(f"split {spec!r}: expected numbers behind the colon ({error}).") from error
    if any(not np.isfinite(value) for value in values):
        raise InputError(f"split {spec!r}: expected finite numbers behind the colon.")
    if not values:
        return kind()
    if kind is GlobalTimeSplit:
        return GlobalTimeSplit(ratios=values) if _are_ratios(values) else GlobalTimeSplit(at=values)
    if kind in (ColdItems, ColdUsers):
        if len(values) > 2:
            name = str(spec).partition(":")[0]
            raise InputError(
                f"split {spec!r}: expected the fraction for test ({name}:.2), or those for valid and test "
                f"({name}:.1,.2)."
            )
        return kind(values[-1], values[0] if len(values) == 2 else 0.0)
    if kind is HoldOutValid:
        if len(values) != 1:
            raise InputError(f"split {spec!r}: expected one fraction.")
        return HoldOutValid(values[0])
    assert issubclass(kind, RatioSplit)
    return kind(values)


def _are_ratios(values: tuple[float, ...]) -> bool:
    return len(values) in (2, 3) and all(0 <= value <= 1 for value in values) and abs(sum(values) - 1) < 1e-6


def _once(table: EdgeTable) -> tuple[EdgeTable, int]:
    """A table in which each (user, item) stands once: a split decides about pairs, so that no pair is in two parts."""
    again = np.zeros(len(table), bool)
    again[1:] = (table.source[1:] == table.source[:-1]) & (table.target[1:] == table.target[:-1])
    return (table.select(~again), int(again.sum())) if again.any() else (table, 0)


def apply_split(data: RecDataset, spec: str | Split, *, seed: int | None = None) -> RecDataset:
    """The dataset with its ranked interactions assigned to train, valid and test.

    A pair that stood in two parts is kept once, except by ``fixed`` and ``valid``. Edge ids stay.
    """
    split = parse_split(spec, seed)
    table, doubled = data.tables[data.target], 0
    if not isinstance(split, (FixedSplit, HoldOutValid)):
        table, doubled = _once(table)
    parts = split.assign(table)
    subject = edge_type_name(data.target)
    notes = [Note("removed", subject, doubled, "the pair stood in several parts, kept once")] if doubled else []
    new = table.replaced(part=parts)
    tables = {**data.tables, data.target: new}
    behaviours = {
        edge_type[1]: other
        for edge_type, other in data.tables.items()
        if edge_type != data.target and (edge_type[0], edge_type[2]) == (data.target[0], data.target[2])
    }
    for name, other_parts in split.others(behaviours, table).items():
        other = behaviours[name]
        tables[other.edge_type] = other.replaced(part=other_parts)
        held = int((other_parts != TRAIN).sum())
        notes.append(Note("held out", edge_type_name(other.edge_type), held, f"split {split} concerns them too"))
    counts = np.bincount(parts, minlength=3)
    sizes = ", ".join(f"{part} {count:,}" for part, count in zip(PART_NAMES, counts, strict=True))
    notes.append(Note("split", subject, len(new), f"{split}: {sizes}"))
    for node_type, codes in ((data.target[0], new.source), (data.target[2], new.target)):
        positive = new.positive
        trained = np.zeros(data.num_nodes[node_type], bool)
        trained[codes[(parts == TRAIN) & positive]] = True
        held_out = np.zeros_like(trained)
        held_out[codes[(parts != TRAIN) & positive]] = True
        cold = int((held_out & ~trained).sum())
        if cold:
            notes.append(Note("kept", node_type, cold, "cold: valid or test interactions but none in train"))
    return data.changed(notes, tables=tables)
