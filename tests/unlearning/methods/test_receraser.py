"""RecEraser on planted data."""

from __future__ import annotations

from graphrec.unlearning.methods.receraser import RecEraser
from tests.unlearning.methods.partitioned import PartitionedConformance


class TestRecEraser(PartitionedConformance):
    method = RecEraser(shards=3, aggregator_epochs=5)
    exact = RecEraser(shards=3, partition="hash", slices=2, aggregator_epochs=3)
