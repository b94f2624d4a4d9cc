"""UltraRE on planted data."""

from __future__ import annotations

from graphrec.unlearning.methods.ultrare import UltraRE
from tests.unlearning.methods.partitioned import PartitionedConformance


class TestUltraRE(PartitionedConformance):
    method = UltraRE(shards=3, aggregator_epochs=5)
    exact = UltraRE(shards=3, partition="hash", slices=2, aggregator_epochs=3)
