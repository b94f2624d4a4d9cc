"""GraphEraser: balanced parts of the graph, one learned weight for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphrec.unlearning.methods.partitioned import Partitioned


@dataclass(frozen=True)
class GraphEraser(Partitioned):
    """GraphEraser (Chen et al., CCS 2022, https://arxiv.org/abs/2103.14991), for a recommender.

    Users are cut by balanced k-means of vectors (``bekm``) or by balanced label propagation (``blpa``), with the
    paper's slack of .005; the aggregator learns a weight for each shard (LBAggr). The paper classifies nodes, about
    which every shard has something to say; here a shard scores for a user it never saw by the user's items.

    Attributes: see :class:`Partitioned`.
    """

    name: ClassVar[str] = "grapheraser"
    partition: str = "bekm"
    aggregator: str = "weights"
    absent: str = "history"
