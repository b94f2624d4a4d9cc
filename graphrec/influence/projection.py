"""Random projections of parameter space that are hashes of where a coordinate stands, so that nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.randomness import derive, hash_bits

_BITS = 63  # of a draw that are used: one sign each


@dataclass(frozen=True, eq=False)
class Projection:
    r"""A matrix Π (P, k) of :math:`\pm 1/\sqrt k`, with :math:`E[\Pi\Pi^\top] = I` (Johnson-Lindenstrauss).

    An entry is a bit of a hash of (seed, parameter, row, column within the row, k): it is the same whatever other rows
    there are, so that models of a node more or less are projected alike, and Π (5 GB for a million rows of 64 and
    k = 10) is made block by block as it is needed.

    Attributes:
        shapes: the parameters that the flat vector is made of, in its order.
        width: k.
        seed: of the hash.
    """

    shapes: Mapping[str, tuple[int, ...]]
    width: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"the width of a projection must be a positive whole number, found {self.width}.")

    @property
    def size(self) -> int:
        """P."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    def columns(self, start: int, stop: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Columns ``start`` to ``stop`` of Π, (P, stop - start)."""
        parts = []
        for name, shape in self.shapes.items():
            width = torch.Size(shape[1:]).numel()
            rows, inner = torch.arange(torch.Size(shape[:1]).numel()), torch.arange(width)
            seed = derive(self.seed, f"projection/{name}")
            columns = torch.arange(start, stop)
            bits = hash_bits(seed, rows[:, None, None], inner[:, None], columns // _BITS)
            parts.append((((bits >> (columns % _BITS)) & 1) * 2 - 1).reshape(-1, stop - start))
        return torch.cat(parts).to(dtype) / self.width**0.5

    def blocks(self, size: int = 64, *, dtype: torch.dtype = torch.float64) -> Iterator[tuple[slice, Tensor]]:
        """Π in blocks of ``size`` columns: which, and the block."""
        for start in range(0, self.width, size):
            stop = min(start + size, self.width)
            yield slice(start, stop), self.columns(start, stop, dtype=dtype)

    def __call__(self, vectors: Tensor) -> Tensor:
        """``vectors @ Π``, (M, P) to (M, k)."""
        if vectors.shape[-1] != self.size:
            raise InputError(f"the projection is of {self.size} coordinates, found {vectors.shape[-1]}.")
        made = [vectors @ block.to(vectors) for _, block in self.blocks(dtype=vectors.dtype)]
        return torch.cat(made, -1)
