r"""Noise on the rows of a table, of fixed length and within each row's orthant (Yu et al., arXiv 2112.08679, eq. 9).

.. math:: x' = x + \varepsilon \, \mathrm{sign}(x) \odot \frac{\Delta}{\|\Delta\|}, \qquad \Delta \sim U(0, 1)^D

The draws of a row are a hash of the seed and of the row's node, so that the noise of some rows alone is what they get
among all, and nothing about edges enters it. The derivative in x is the identity: nothing is kept for it.

Letters: N rows, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.randomness import hash_bits

# Words of noise made at a time: on a CPU they should stay in the cache, on a GPU they may fill it.
_CPU_WORDS = 2**14
_WORDS = 2**22


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise for one pass over a bipartite graph.

    Attributes:
        seed: of the pass, int64; another view has another one.
        length: ε, the length of each row's noise.
    """

    seed: Tensor
    length: float

    @classmethod
    def drawn(cls, generator: torch.Generator, length: float) -> Noise:
        """Noise with a seed from a stream, on the stream's device."""
        seed = torch.empty((), dtype=torch.int64, device=generator.device)
        return cls(seed.random_(-(2**63), None, generator=generator), length)

    def added(self, x: Tensor, layer: int, side: int, nodes: Tensor | None = None) -> Tensor:
        """``x`` with noise, (N, D); differentiable.

        Args:
            x: (N, D).
            layer: the layer that ``x`` is, 1 or more.
            side: 0 for users, 1 for items.
            nodes: (N,) int64, whose rows these are; None: all nodes in order.
        """
        return x + (self.add_(x.detach().clone(), layer, side, nodes) - x.detach())

    @torch.no_grad()
    def add_(self, x: Tensor, layer: int, side: int, nodes: Tensor | None = None) -> Tensor:
        """:meth:`added` in place, outside autograd, by blocks of rows."""
        if self.length == 0 or len(x) == 0:
            return x
        nodes = torch.arange(len(x), device=x.device) if nodes is None else nodes
        seed = hash_bits(self.seed, layer, side)
        words = -(-x.shape[1] // 4)
        block = max(1, (_CPU_WORDS if x.device.type == "cpu" else _WORDS) // words)
        for rows, some in zip(x.split(block), nodes.split(block), strict=True):
            noise = positive_rows(seed, some, x.shape[1], x.dtype)
            scale = self.length / torch.linalg.vector_norm(noise, dim=1, keepdim=True)
            rows.addcmul_(rows.sign(), noise.mul_(scale))
        return x


def positive_rows(seed: Tensor, nodes: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Rows of independent uniform entries in (0, 65536), (N, ``dim``): a hash of the seed and of ``nodes`` (N,).

    Sixteen random bits make an entry, never 0; a fourth of the time that a hash for each entry takes.
    """
    words = hash_bits(seed, nodes.unsqueeze(1), torch.arange(-(-dim // 4), device=nodes.device))
    return words.view(torch.int16)[:, :dim].to(dtype).add_(32768.5)
