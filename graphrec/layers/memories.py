"""Memories that a query reads hop by hop, changed by what it has read: RippleNet's addressing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError


@dataclass(frozen=True)
class Memory:
    """What can be read at one hop: B memories of M places.

    Attributes:
        keys: (B, M, D).
        values: (B, M, D).
        held: (B, M) bool, places that hold something.
        weight: (B, M) float of 0 or more, a factor on each place's exponential in the softmax; None: 1.
    """

    keys: Tensor
    values: Tensor
    held: Tensor
    weight: Tensor | None = None

    def shares(self, queries: Tensor) -> Tensor:
        """Softmax over the places that hold something, (B, Q, M) for queries (B, Q, D); zeros where none does."""
        logits = (queries @ self.keys.transpose(1, 2)).masked_fill(~self.held.unsqueeze(1), -torch.inf)
        # A memory that is empty has no largest logit; its exponentials are zeros all the same.
        largest = logits.detach().amax(-1, keepdim=True)
        sizes = (logits - largest.where(largest.isfinite(), 0.0)).exp()
        if self.weight is not None:
            sizes = sizes * self.weight.unsqueeze(1)
        total = sizes.sum(-1, keepdim=True)
        return sizes / total.where(total > 0, 1.0)


def read_memories(
    hops: Sequence[Memory],
    queries: Tensor,
    transform: Tensor | None,
    *,
    update: str = "plus_transform",
    last: bool = False,
) -> Tensor:
    r"""The score of each query with what it reads.

    .. math:: p = \mathrm{softmax}(v^{k-1} \cdot key), \qquad o^k = \sum p \, value, \qquad
              y = v^H \cdot \sum_k o^k

    Args:
        hops: H memories of B readers each.
        queries: (B, Q, D) or (1, Q, D), v⁰.
        transform: (D, D), T; None where ``update`` has none.
        update: of v: ``plus_transform`` (v + o) T, ``replace_transform`` o T, ``plus`` v + o, ``replace`` o.
        last: whether o of the last hop takes the place of the sum.

    Returns:
        (B, Q), 0 for readers whose memories are empty.
    """
    if update.endswith("transform") != (transform is not None):
        raise InputError(f"update {update!r} goes {'with' if transform is None else 'without'} a transform.")
    total: Tensor | None = None
    vector = queries
    for memory in hops:
        read = memory.shares(vector) @ memory.values
        vector = vector + read if update.startswith("plus") else read
        if transform is not None:
            vector = vector @ transform
        total = read if total is None or last else total + read
    if total is None:
        raise InputError("there is no memory to read.")
    return (vector * total).sum(-1)
