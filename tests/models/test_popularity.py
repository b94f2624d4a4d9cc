from __future__ import annotations

import pandas as pd
import pytest
import torch

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models import Popularity
from tests.models.conformance import ModelConformance
from tests.models.planted import planted


class TestPopularity(ModelConformance):
    model_class = Popularity


def timed() -> RecDataset:
    # Item 10 at times 0 and 6, item 11 at 8, item 12 at 10: the last time is 10.
    frame = pd.DataFrame({"user": [1, 2, 1, 2], "item": [10, 10, 11, 12], "time": [0.0, 6.0, 8.0, 10.0]})
    return Builder().interactions(frame, user="user", item="item", time="time").build()


def popularity(data: RecDataset, **hparams: float) -> list[float]:
    model = Popularity(data, **hparams)
    model.solve()
    return model.score(torch.tensor([0]))[0].tolist()


def test_degrees_without_time() -> None:
    assert popularity(timed()) == [2.0, 1.0, 1.0]


def test_a_window_counts_what_lies_in_it() -> None:
    assert popularity(timed(), window=4.0) == [1.0, 1.0, 1.0]
    assert popularity(timed(), window=3.0) == [0.0, 1.0, 1.0]


def test_a_half_life_halves() -> None:
    assert popularity(timed(), half_life=2.0) == pytest.approx([2**-5 + 2**-2, 0.5, 1.0])


def test_a_window_needs_times() -> None:
    with pytest.raises(InputError, match="needs a time"):
        popularity(planted(), window=1.0)


def test_edge_weights_are_counted_and_differentiable() -> None:
    model = Popularity(timed())
    model.solve()
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0], requires_grad=True)
    scores = model.score(torch.tensor([0]), edge_weight=weight)
    scores.sum().backward()
    assert float(scores.detach().sum()) == 4.0
    assert weight.grad is not None and bool((weight.grad == 1).all())
