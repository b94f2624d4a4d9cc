"""Pairs labelled 0 for data that has positives alone: drawn among what a user has nothing to do with."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graphrec.datasets.cuts import hashes
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.notes import Note
from graphrec.datasets.tables import EdgeTable, edge_type_name
from graphrec.errors import InputError, unknown


def draw_negatives(
    data: RecDataset, count: int = 1, *, labelled: Literal["keep", "drop"] = "keep", seed: int = 0
) -> RecDataset:
    """Add pairs labelled 0: for each positive of a user ``count`` items, uniform among those the user has no row of.

    With ``data.filter_rating(4, as_label=True)`` before and ``labelled="drop"`` these are the pairs of RippleNet and
    KGCN: as many drawn as positives, none of them rated low, and those rated low left out.

    A drawn pair takes part and time of the positive it was drawn for, so that every split, and parts that came with the
    data, treat the two alike. It gets an edge id behind all others. A user's draws hang on the user alone: other users'
    rows do not change them.

    Args:
        data: the dataset.
        count: pairs for each positive.
        labelled: ``keep`` or ``drop`` the pairs that are labelled 0 already; they are never drawn.
        seed: of the draws.

    Raises:
        InputError: a count below 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"drawn negatives of each positive: expected a whole number of at least 1, found {count!r}.")
    if labelled not in ("keep", "drop"):
        raise unknown("policy for pairs labelled 0", str(labelled), ("keep", "drop"))
    table = data.tables[data.target]
    positive = np.flatnonzero(table.positive)
    known = np.unique(table.source.astype(np.int64) * data.num_items + table.target)
    wanted = count * np.bincount(table.source[positive], minlength=data.num_users)
    free = data.num_items - np.bincount(known // max(data.num_items, 1), minlength=data.num_users)
    drawn = _draw(known, np.minimum(wanted, free), free, data.num_items, seed)
    users, items = drawn // max(data.num_items, 1), drawn % max(data.num_items, 1)
    # The user's n-th draw goes with the user's positive number n // count; positives lie by user.
    starts = np.searchsorted(table.source[positive], np.arange(data.num_users))
    counts = np.bincount(users, minlength=data.num_users)
    number = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    model = positive[starts[users] + number // count]
    kept = table if labelled == "keep" else table.select(table.positive)
    subject = edge_type_name(data.target)
    notes = [Note("labelled negative", subject, len(users), f"drawn, {count} for each positive")]
    if len(kept) < len(table):
        notes.insert(0, Note("removed", subject, len(table) - len(kept), "labelled 0 before others were drawn"))
    lacking = int((wanted - np.minimum(wanted, free)).sum())
    if lacking:
        notes.append(Note("not drawn", subject, lacking, "users with almost all items have too few left"))
    return data.with_table(_joined(kept, table, users, items, model), *notes)


def _draw(
    known: NDArray[np.int64], wanted: NDArray[np.int64], free: NDArray[np.int64], num_items: int, seed: int
) -> NDArray[np.int64]:
    """Distinct keys ``user * num_items + item`` that are not known, by user and in the order of the draws.

    Each user has a sequence of draws; the first ones that are new count, as many as are wanted.
    """
    found = np.empty(0, np.int64)
    done = np.zeros(len(wanted), np.int64)
    left = wanted.copy()
    while left.any():
        open_items = np.maximum(free - (wanted - left), 1)
        size = np.where(left > 0, -(-left * num_items // open_items) + 4, 0)
        users = np.repeat(np.arange(len(wanted)), size)
        place = np.arange(len(users)) - np.repeat(np.cumsum(size) - size, size) + done[users]
        keys = users * num_items + hashes(seed, "negatives", users, place) % num_items
        done += size
        if len(known):
            at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            keys = keys[known[at] != keys]
        keys = np.concatenate([found, keys])
        _, first = np.unique(keys, return_index=True)
        keys = keys[np.sort(first)]
        keys = keys[np.argsort(keys // num_items, kind="stable")]
        counts = np.bincount(keys // num_items, minlength=len(wanted))
        number = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = keys[number < np.repeat(wanted, counts)]
        left = wanted - np.bincount(found // num_items, minlength=len(wanted))
    return found


def _joined(
    kept: EdgeTable, table: EdgeTable, users: NDArray[Any], items: NDArray[Any], model: NDArray[Any]
) -> EdgeTable:
    """The kept rows and the drawn ones in canonical order; ``model`` is the row each draw is like."""
    first = int(table.edge_id.max()) + 1 if len(table) else 0
    by_pair = np.lexsort((items, users))
    users, items, model = users[by_pair], items[by_pair], model[by_pair]
    new: dict[str, NDArray[Any]] = {
        "source": users,
        "target": items,
        "edge_id": first + np.arange(len(users)),
        "label": np.zeros(len(users), np.int8),
    }
    old = dict(kept.columns)
    old.setdefault("label", np.ones(len(kept), np.int8))
    for name in old:
        if name == "rating":
            new[name] = np.full(len(users), np.nan, np.float32)
        elif name not in new:
            new[name] = table.columns[name][model]
    joined = {name: np.concatenate([column, new[name].astype(column.dtype)]) for name, column in old.items()}
    order = np.lexsort((joined["target"], joined["source"]))
    return EdgeTable(table.edge_type, {name: column[order] for name, column in joined.items()})
