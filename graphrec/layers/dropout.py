"""Dropout from a stream of one's own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphrec.errors import InputError


def dropout(x: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """Each entry zero with probability ``p``, the others divided by 1 - p, so that the expectation is ``x``.

    Args:
        x: any shape, floating.
        p: share left out, in [0, 1).
        generator: where the draws come from, on ``x``'s device; None: nothing is dropped.

    Raises:
        InputError: ``p`` lies outside [0, 1).
    """
    if not 0 <= p < 1:
        raise InputError(f"dropout must lie in [0, 1), found {p}.")
    if p == 0 or generator is None:
        return x
    kept = torch.empty_like(x, requires_grad=False).bernoulli_(1 - p, generator=generator)
    return x * kept.div_(1 - p)


def kept_entries(shape: tuple[int, ...], p: float, generator: torch.Generator) -> Tensor:
    """Which entries dropout keeps, (…) bool on the generator's device: each is False with probability ``p``.

    Sixteen random bits decide for an entry, so that ``p`` holds to 2^-17; a tenth of the time that drawing a number for
    each entry takes on the CPU.

    Raises:
        InputError: ``p`` lies outside [0, 1).
    """
    return random_words(shape, generator) >= _dropped(p) - 32768


def random_words(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Sixteen random bits for each entry, (…) int16 on the generator's device."""
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:count].view(shape)


def dropout_factors(words: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """What dropout multiplies entries by, of the words' shape: 0 where :func:`kept_entries` is False, else 1 / (1 - p).

    Numbers and no booleans: on the CPU a product of floats with booleans takes as long as half of a layer's product.

    Args:
        words: :func:`random_words`.
        p: share left out, in [0, 1).
        dtype: floating.
    """
    exact = dtype if dtype == torch.float64 else torch.float32
    factors = words.to(exact).add_(32769 - _dropped(p)).clamp_(0, 1).mul_(1 / (1 - p))
    return factors.to(dtype)


def _dropped(p: float) -> int:
    """How many of the 65,536 values of sixteen bits are dropped."""
    if not 0 <= p < 1:
        raise InputError(f"dropout must lie in [0, 1), found {p}.")
    return round(p * 65536)
