"""The arithmetic of splits: draws by hash, order within groups, and where a group is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.datasets.tables import EdgeTable, stable_order
from graphrec.errors import InputError

Parts = NDArray[np.int8]
_BLOCK = 2**16


def user_groups(table: EdgeTable) -> NDArray[np.int64]:
    """One group for each user's positives and one for the labelled negatives."""
    users = table.source.astype(np.int64)
    return users if table.label is None else users * 2 + (table.label == 0)


def hashes(seed: int, purpose: str, *keys: NDArray[Any]) -> NDArray[np.int64]:
    """Uniform whole numbers below 2^40, each a hash of the seed and its keys."""
    import torch

    from graphrec import randomness

    derived = randomness.derive(seed, f"split/{purpose}")
    found = np.empty(len(keys[0]), np.int64)
    # In blocks that stay in the processor's cache: the hash is some thirty passes over its input.
    for start in range(0, len(found), _BLOCK):
        block = slice(start, start + _BLOCK)
        tensors = [torch.from_numpy(key[block].astype(np.int64)) for key in keys]
        # Forty bits leave room for the user's code in one 64-bit sort key; equal draws of a user go by item.
        found[block] = randomness.hash_integers(derived, 2**40, *tensors).numpy()
    return found


def draws(seed: int, table: EdgeTable) -> NDArray[np.int64]:
    """A draw for each (user, item)."""
    return hashes(seed, "pairs", table.source, table.target)


def times_of(table: EdgeTable, what: str) -> NDArray[Any]:
    """The times of a table, all of them there.

    Raises:
        InputError: some or all are missing; ``what`` is the split that needs them.
    """
    if table.time is None:
        raise InputError(f"split {what!r} needs a time for each interaction (Builder.interactions(time=…)).")
    if np.issubdtype(table.time.dtype, np.floating) and np.isnan(table.time).any():
        raise InputError(f"split {what!r}: {int(np.isnan(table.time).sum())} interactions have no time.")
    return table.time


def ranks(
    group: NDArray[np.int64], keys: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows by group and key: their order, and, in that order, the place within the group and the group's size."""
    if len(keys) and np.issubdtype(keys.dtype, np.integer) and int(keys.max()) - int(keys.min()) < 2**63:
        order = stable_order([group, keys - keys.min()])
    else:
        order = np.lexsort((keys, group))
    grouped = group[order]
    start = (
        np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]])) if len(order) else np.zeros(0, np.int64)
    )
    sizes = np.diff(np.append(start, len(order)))
    return order, np.arange(len(order)) - np.repeat(start, sizes), np.repeat(sizes, sizes)


def part_sizes(counts: NDArray[np.int64], ratios: Sequence[float]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of n interactions are train and valid (the rest is test), by the rounding of
    :mod:`graphrec.datasets.splits`.

    Args:
        counts: (G,) n of each group.
        ratios: of train, valid, test.

    Returns:
        train (G,), valid (G,).
    """
    # The small number makes .1 * 30 whole although its float is not quite.
    wanted = [ratio * counts + 1e-9 for ratio in ratios]
    valid, test = np.floor(wanted[1]).astype(np.int64), np.floor(wanted[2]).astype(np.int64)
    train = counts - valid - test
    lacks = (test == 0) & (ratios[2] > 0) & (train > 1)
    test, train = test + lacks, train - lacks
    lacks = (valid == 0) & (ratios[1] > 0) & (train > 1)
    return train - lacks, valid + lacks


def cut_by_group(group: NDArray[np.int64], keys: NDArray[Any], ratios: Sequence[float]) -> Parts:
    """The part of each row: each group in the order of its keys, cut at :func:`part_sizes`."""
    order, place, count = ranks(group, keys)
    train, valid = part_sizes(count, ratios)
    parts = np.empty(len(group), np.int8)
    parts[order] = (place >= train).astype(np.int8) + (place >= train + valid)
    return parts
