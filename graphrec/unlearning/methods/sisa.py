"""SISA: shards by a hash of ids, slices with checkpoints, the mean of scores; exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphrec.unlearning.methods.base import Exactness
from graphrec.unlearning.methods.partitioned import Partitioned


@dataclass(frozen=True)
class SISA(Partitioned):
    """Sharded, isolated, sliced and aggregated training (Bourtoule et al., S&P 2021).

    Users are cut, as in CURE4Rec, so that a user's request touches one shard; slices are R parts of a shard's users,
    each stage with its own number of epochs, so that all of them are as many passes as a training without slices. A
    deletion goes back to the tables before the first slice it touches. The published method takes slices at random
    from the shard; here they are a hash of the id too, which nobody else's deletion moves.

    Attributes: see :class:`Partitioned`.
    """

    name: ClassVar[str] = "sisa"
    exactness: ClassVar[Exactness] = "exact"
    slices: int = 3
