"""GraphEraser on planted data."""

from __future__ import annotations

from graphrec.unlearning.methods.grapheraser import GraphEraser
from tests.unlearning.methods.partitioned import PartitionedConformance


class TestGraphEraser(PartitionedConformance):
    method = GraphEraser(shards=3, aggregator_epochs=2)
    exact = GraphEraser(shards=3, partition="hash", slices=2, aggregator_epochs=2)
