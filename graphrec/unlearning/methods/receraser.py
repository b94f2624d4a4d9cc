"""RecEraser: shards of similar interactions, attention over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphrec.unlearning.methods.partitioned import Partitioned


@dataclass(frozen=True)
class RecEraser(Partitioned):
    """RecEraser (Chen et al., WWW 2022, https://arxiv.org/abs/2201.06820).

    Balanced clusters of users (``ubp``), of interactions (``inbp``) or of items (``ibp``) by vectors of a whole-data
    matrix factorisation; users by default, since what one user asks then touches one shard, where interactions lie in
    several. The shards' vectors are transformed and put together by attention. Under LightGCN the result
    is propagated over all interactions once more, so that the aggregator is trained anew at every request. Centroids
    are means in each dimension (the authors' code averages over dimensions too), and a shard that does not know a user
    takes no part in the user's attention (in the code its untrained row does).

    Attributes: see :class:`Partitioned`.
    """

    name: ClassVar[str] = "receraser"
    partition: str = "ubp"
    aggregator: str = "attention"
