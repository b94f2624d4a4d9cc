from __future__ import annotations

import pytest
import torch

from graphrec.evaluation.benchmark import benchmark
from tests.evaluation.test_evaluator import world


def test_both_make_the_same_lists() -> None:
    pytest.importorskip("implicit")
    data, _, _ = world()
    threads = torch.get_num_threads()
    found = benchmark(data, dim=4, k=5, repeats=3, threads=1)
    assert found["agreement"] == 1.0
    assert 0 < found["seconds_min"] <= found["seconds"] <= found["seconds_max"]
    assert found["ratio"] == pytest.approx(found["implicit_seconds"] / found["seconds"])
    assert torch.get_num_threads() == threads


def test_without_the_peer() -> None:
    data, _, _ = world()
    found = benchmark(data, dim=4, k=5, repeats=1, threads=1, peer=False)
    assert found["implicit_seconds"] is None and found["ratio"] is None and found["seconds"] > 0
