"""A small world in which somebody is forgotten: the data, the run before, the run after."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.models.base import GraphInputs, GraphRecommender
from graphrec.models.lightgcn import LightGCN
from graphrec.runs import Run
from graphrec.training.fit import fit
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import Resolved, compacted, resolve
from tests.models.planted import choices

GONE_USER, GONE_ITEM, GONE_NAME = "U005x", 7, "The Lost Valley 7"
REQUEST = ForgetRequest(
    users=(GONE_USER, "nobody-of-this-name"),
    items=(GONE_ITEM,),
    pairs=(("U009x", 4), ("U009x", 9), ("U012x", 1)),
    features=((11, "image"),),
)


class Pictured(LightGCN):
    """LightGCN that is given pictures of the items, which it does not look at."""

    @classmethod
    def inputs(cls, data: RecDataset, **hparams: Any) -> GraphInputs:
        return GraphInputs.from_dataset(data, features=[("item", "image")])


def films(num_users: int = 48, num_items: int = 32) -> RecDataset:
    """Planted interactions of users with ids that are words, and of numbered items with names and pictures."""
    users, items, parts = choices(num_users, num_items, 4, 9, 0.85, 0)
    ids = np.array([f"U{n:03}x" for n in range(num_users)])
    builder = Builder("films")
    builder.nodes("user", ids)
    builder.nodes("item", np.arange(num_items))
    frame = pd.DataFrame({"user": ids[users], "item": items, "part": parts, "stars": 1.0 + np.arange(len(items)) % 5})
    builder.interactions(frame, user="user", item="item", part="part", rating="stars")
    builder.names("item", range(num_items), [f"The Lost Valley {n}" for n in range(num_items)])
    builder.features("item", None, np.random.default_rng(1).normal(size=(num_items, 6)), "image")
    return builder.build()


@dataclass(frozen=True)
class World:
    """What a test starts from.

    Attributes:
        data: before the request.
        resolved: the request met with it.
        before: a run of all data.
        after: a run of what remains.
    """

    data: RecDataset
    resolved: Resolved
    before: Run
    after: Run

    def copy(self, folder: Path, name: str = "after") -> Run:
        """A run of one's own to spoil."""
        run: Run = getattr(self, name)
        shutil.copytree(run.path, folder / name)
        return Run(folder / name)


def world(
    folder: Path,
    model: type[GraphRecommender] = Pictured,
    request: ForgetRequest = REQUEST,
    data: RecDataset | None = None,
    **hparams: Any,
) -> World:
    """Train with and without what a request names."""
    data = films() if data is None else data
    resolved = resolve(request, data)
    runs = [
        fit(model(part, **hparams), part, epochs=2, out=folder / name, progress=False, report=name == "after")
        for name, part in (("before", data), ("after", compacted(data, resolved)))
    ]
    return World(data, resolved, *runs)
