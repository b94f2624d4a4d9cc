"""What the phases of many models are made of: an optimiser, work done once an epoch, batches drawn one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from graphrec.models.base import Batch

Drawn = TypeVar("Drawn", bound=Batch)


def adam(lr: float, weight_decay: float = 0.0) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """Makes Adam with a learning rate from a phase's parameters; ``weight_decay`` λ adds λθ to every gradient."""

    def made(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        # The fused kernel reads and writes each table once instead of once for each operation.
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)

    return made


def once(device: torch.device) -> Callable[[int, torch.Generator], Sequence[Batch]]:
    """The batches of a phase that is work done once an epoch: one, without examples."""

    def batches(epoch: int, generator: torch.Generator) -> Sequence[Batch]:
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        return [Batch(edge_id=nothing, weight=nothing.float(), generator=generator)]

    return batches


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
