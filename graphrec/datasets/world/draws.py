"""Integer draws of the seeded world: hashes of keys, so that nobody's draws depend on how many others there are.

Everything is integer arithmetic, or float arithmetic on integers small enough to be exact: the same seed gives the same
bytes whatever the machine, the number of threads or the version of numpy.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from graphrec import randomness

Integers = NDArray[np.int64]

UNIT = 16
"""One standard deviation of :func:`normals`."""

GUMBEL_UNIT = 256
"""One unit of utility in the fixed-point numbers of :func:`gumbels`."""

_GUMBEL_BITS = 16
_GUMBEL_TABLE = np.array(
    [round(-math.log(-math.log((k + 0.5) / 2**_GUMBEL_BITS)) * GUMBEL_UNIT) for k in range(2**_GUMBEL_BITS)],
    dtype=np.int64,
)


def bits(seed: int, purpose: str, *keys: Integers | int) -> NDArray[np.uint64]:
    """Sixty-four random bits for each combination of keys (broadcast against each other)."""
    tensors = [torch.from_numpy(np.ascontiguousarray(np.atleast_1d(key), dtype=np.int64)) for key in keys]
    return randomness.hash_bits(randomness.derive(seed, f"world/{purpose}"), *tensors).numpy().view(np.uint64)


def integers(seed: int, purpose: str, high: Integers | int, *keys: Integers | int) -> Integers:
    """Uniform integers in [0, high)."""
    drawn = (bits(seed, purpose, *keys) >> np.uint64(1)).view(np.int64)
    return drawn % np.asarray(high, dtype=np.int64)


def normals(seed: int, purpose: str, count: int, dim: int) -> Integers:
    """Integers (count, dim), nearly normal with mean 0 and standard deviation :data:`UNIT`.

    Each is the sum of eight uniform bytes, centred (standard deviation 209) and scaled.
    """
    drawn = bits(seed, purpose, np.arange(count)[:, None], np.arange(dim)[None, :])
    total = drawn.view(np.uint8).reshape(count, dim, 8).sum(axis=2, dtype=np.int64) - 1020
    return (total * UNIT) // 209


def gumbels(drawn: NDArray[np.uint64]) -> Integers:
    """Standard Gumbel draws in units of 1 / :data:`GUMBEL_UNIT`, from the top bits of ``drawn``."""
    return _GUMBEL_TABLE[(drawn >> np.uint64(64 - _GUMBEL_BITS)).view(np.int64)]


class Shelves:
    """Items on shelves (a genre, a topic, a maker), drawn from a shelf in proportion to their weight.

    Args:
        shelf: (I,) the shelf of each item.
        weight: (I,) positive integers.
        count: number of shelves; a shelf without items hands out items of all shelves.
    """

    def __init__(self, shelf: Integers, weight: Integers, count: int) -> None:
        self._order = np.argsort(shelf, kind="stable")
        ends = np.cumsum(weight[self._order])
        sizes = np.bincount(shelf, minlength=count)
        stop = np.cumsum(sizes)
        padded = np.concatenate([[0], ends])
        self._ends = ends
        self._low = padded[stop - sizes]
        self._high = padded[stop]
        empty = sizes == 0
        self._low[empty], self._high[empty] = 0, padded[-1]

    def draw(self, shelf: Integers, drawn: NDArray[np.uint64]) -> Integers:
        """One item for each shelf asked for and each draw, int64 of the same shape."""
        low = self._low[shelf]
        target = low + (drawn >> np.uint64(1)).view(np.int64) % (self._high[shelf] - low)
        return self._order[np.searchsorted(self._ends, target, side="right")]
