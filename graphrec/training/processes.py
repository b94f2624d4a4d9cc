"""Several processes that share each batch: their sums and their one will."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """The processes of one training; alone by default.

    Attributes:
        rank: which one this is; 0 evaluates, shows progress and writes.
        world: how many there are.
        device: where the tensors that are exchanged lie.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def add_gradients(self, parameters: Sequence[nn.Parameter], stop: bool) -> bool:
        """Replace gradients by their sums over all processes, in one exchange; and agree whether to stop.

        A parameter that no process has a gradient for keeps None. Gradients of a share of a batch are taken to be
        weighted by the share already.

        Args:
            parameters: the same on every process.
            stop: whether this process was asked to stop.

        Returns:
            Whether any process was.
        """
        present = [parameter.grad is not None for parameter in parameters]
        # Counts go with the gradients as floats: exact up to 2**24 processes.
        counts = torch.tensor([float(stop), *map(float, present)], device=self.device)
        # Sparse gradients differ in their rows from process to process: they are added up as dense ones.
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        grads = [grad.to_dense() if grad.is_sparse else grad for grad in grads]
        pieces = [grad.reshape(-1).to(torch.float32) for grad in grads]
        flat = torch.cat([counts, *pieces])
        dist.all_reduce(flat)
        position = len(counts)
        for number, parameter in enumerate(parameters):
            end = position + parameter.numel()
            if flat[1 + number] > 0:
                parameter.grad = flat[position:end].view_as(parameter).to(parameter.dtype)
            position = end
        return bool(flat[0] > 0)

    def add(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: int) -> int:
        """What process 0 says."""
        if self.world == 1:
            return value
        told = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(told, src=0)
        return int(told.item())
