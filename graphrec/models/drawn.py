"""Batches of an epoch, one drawn after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from graphrec.models.base import Batch

Drawn = TypeVar("Drawn", bound=Batch)


class DrawnBatches(Generic[Drawn]):
    """Batches that are drawn when they are asked for, of a known number.

    Args:
        count: how many.
        draw: the batch of a number.
        finish: called when the last was used, or when the iteration is broken off.
    """

    def __init__(self, count: int, draw: Callable[[int], Drawn], finish: Callable[[], None] | None = None) -> None:
        self.count, self.draw, self.finish = count, draw, finish

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Drawn]:
        try:
            for number in range(self.count):
                yield self.draw(number)
        finally:
            if self.finish is not None:
                self.finish()
