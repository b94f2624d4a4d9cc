"""The benchmark's two steps do the same thing, and its report has all figures."""

from __future__ import annotations

import json

import torch

from graphrec.layers.benchmark import benchmark, table
from tests.graphs.test_sampling import random_matrix


def test_both_steps_agree() -> None:
    threads = torch.get_num_threads()
    result = benchmark(random_matrix(60, 50, 700), dim=8, batch_size=64, steps=3, plain_steps=2, threads=1)
    assert result["gradient_error"] < 1e-5
    assert result["step"]["runs"] == 3 and result["epoch_seconds"] > 0 and result["speedup"] > 0
    assert result["peak_rss_mb"] > 50 and torch.get_num_threads() == threads
    assert json.loads(json.dumps(result)) == result
    assert "training step, plain" in table(result)
    alone = benchmark(random_matrix(60, 50, 700), dim=8, batch_size=64, steps=1, plain_steps=0, threads=1)
    assert "speedup" not in alone and "plain" not in table(alone)
