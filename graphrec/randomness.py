"""Random streams that are derived, never shared: each from (seed, purpose, epoch).

Two kinds are offered. A :class:`torch.Generator` serves draws whose number does not depend on the data's edges
(initial embeddings, dropout masks). The counter-based draws serve everything about edges: a draw is a hash of its keys
(seed and, say, user and item), so that taking one edge away leaves the draws of all others as they were.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

# Constants of splitmix64 (Steele, Lea, Flood 2014), as signed 64-bit integers because torch has no full unsigned set.
_GAMMA = -7046029254386353131
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685


def derive(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed for one purpose and one epoch, the first bytes of SHA-256 over the three.

    Args:
        seed: the seed a person gave.
        purpose: what the stream is for ("initialisation", "negatives", …).
        epoch: the epoch, 0 where the stream is drawn once.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, purpose: str, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device``, seeded with :func:`derive`."""
    return torch.Generator(device=device).manual_seed(derive(seed, purpose, epoch))


def _logical_right_shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64, a bijection on 64-bit integers."""
    x = (x ^ _logical_right_shift(x, 30)) * _MIX_1
    x = (x ^ _logical_right_shift(x, 27)) * _MIX_2
    return x ^ _logical_right_shift(x, 31)


def hash_bits(seed: int | Tensor, *keys: Tensor | int) -> Tensor:
    """Sixty-four pseudo-random bits for each combination of keys (broadcast against each other).

    Args:
        seed: a derived seed; a tensor of one number spares a transfer from its device.
        keys: int64 tensors or integers; the draw depends on their values and order alone.

    Returns:
        int64 tensor of the broadcast shape, every bit uniform.
    """
    state: Tensor = _mix(torch.as_tensor(seed, dtype=torch.int64))
    for key in keys:
        key = torch.as_tensor(key, dtype=torch.int64)
        if key.dim() > 0 and state.device != key.device:
            state = state.to(key.device)
        state = _mix(state + _GAMMA + _mix(key + _GAMMA))
    return state


def hash_uniform(seed: int | Tensor, *keys: Tensor | int) -> Tensor:
    """Uniform float64 numbers in [0, 1), one for each combination of keys (see :func:`hash_bits`)."""
    return _logical_right_shift(hash_bits(seed, *keys), 11).to(torch.float64) * 2.0**-53


def hash_pairs(seed: int, rows: Tensor, cols: Tensor, shape: tuple[int, int]) -> Tensor:
    """``hash_bits(seed, rows, cols)`` for many pairs of few rows and columns, the same bits in a third of the time.

    What a pair's two keys come to alone is computed once for each key.

    Args:
        seed: a derived seed.
        rows: (E,) integers in [0, R).
        cols: (E,) integers in [0, C).
        shape: (R, C).
    """
    own = hash_bits(seed, torch.arange(shape[0], device=rows.device))
    other = _mix(torch.arange(shape[1], device=cols.device) + _GAMMA) + _GAMMA
    return joined_bits(own.index_select(0, rows), other.index_select(0, cols))


def joined_bits(*parts: Tensor) -> Tensor:
    """Sixty-four pseudo-random bits for each combination of parts that were hashed one by one.

    Args:
        parts: int64 tensors (broadcast against each other), each from :func:`hash_bits` with a seed of its own.
    """
    state = parts[0]
    for part in parts[1:]:
        state = _mix(state + part)
    return state


def hash_integers(seed: int | Tensor, high: Tensor | int, *keys: Tensor | int) -> Tensor:
    """Uniform int64 numbers in [0, high), one for each combination of keys; ``high`` broadcasts with them.

    The bias of the modulo is below ``high`` / 2**63.
    """
    return _logical_right_shift(hash_bits(seed, *keys), 1) % high
