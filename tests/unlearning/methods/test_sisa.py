"""SISA on planted data."""

from __future__ import annotations

from graphrec.unlearning.methods.sisa import SISA
from tests.unlearning.methods.partitioned import PartitionedConformance


class TestSISA(PartitionedConformance):
    method = SISA(shards=3, slices=2)
    exact = SISA(shards=3, partition="hash", slices=3)
