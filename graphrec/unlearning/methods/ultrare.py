"""UltraRE: parts of equal size at the least cost, the mean of standardised scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphrec.unlearning.methods.partitioned import Partitioned


@dataclass(frozen=True)
class UltraRE(Partitioned):
    """UltraRE (Li et al., NeurIPS 2023, https://arxiv.org/abs/2312.02820).

    Users are cut by optimal balanced clustering of their vectors: optimal transport to K places of equal size, means
    as centroids, in turn. The combiner is the mean of standardised scores; the paper's, whose exact form was not to be
    had, is simple too.

    Attributes: see :class:`Partitioned`.
    """

    name: ClassVar[str] = "ultrare"
    partition: str = "transport"
    aggregator: str = "normalised"
    absent: str = "history"
