"""Dropout from a stream of one's own."""

from __future__ import annotations

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
