"""Fixtures of the training's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.runs import Run
from graphrec.training import fit
from tests.training.tiny import TinyMF, tiny_data


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The tests are tiny; more threads only cost."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data() -> RecDataset:
    return tiny_data()


@pytest.fixture
def train(data: RecDataset) -> Callable[..., tuple[TinyMF, Run]]:
    """Train a fresh tiny model: ``train(epochs=3, dim=4, …)``, hyper-parameters in ``hparams``."""

    def run(hparams: dict[str, Any] | None = None, **options: Any) -> tuple[TinyMF, Run]:
        model = TinyMF(data, **(hparams or {}))
        given = {"epochs": 3, "metric": "recall@2", "ks": (2,), "progress": False, "device": "cpu", **options}
        return model, fit(model, data, **given)

    return run
