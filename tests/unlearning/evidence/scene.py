"""A small planted dataset, a request, and models on both sides of it, overfitted on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

import graphrec
from graphrec.datasets.dataset import RecDataset
from graphrec.models.base import GraphRecommender
from graphrec.unlearning import ForgetRequest, remaining, resolve
from tests.models.conformance import trained
from tests.models.planted import planted

EPOCHS = 40
HPARAMS = {"dim": 32, "lr": 0.05, "reg": 0.0, "batch_size": 256}


@dataclass(frozen=True)
class World:
    """Data, a request for three training pairs of half the users, models before and retrained with seeds 0, 1, 2."""

    data: RecDataset
    left: RecDataset
    request: ForgetRequest
    before: GraphRecommender
    retrained: list[GraphRecommender]


def model(data: RecDataset, seed: int = 0, epochs: int = EPOCHS) -> GraphRecommender:
    return trained(graphrec.models.BPRMF(data, seed=seed, **HPARAMS), epochs, seed)


@cache
def world() -> World:
    ids = np.array([f"person-{n:03d}" for n in range(160)], dtype=object)
    items = np.array([f"thing-{n:03d}" for n in range(80)], dtype=object)
    data = planted(user_ids=ids, item_ids=items)
    train = data.pairs("train")
    draws = np.random.default_rng(1)
    pairs = []
    for user in range(0, 160, 2):
        own = train.items[train.indptr[user] : train.indptr[user + 1]]
        pairs += [(ids[user], items[item]) for item in draws.choice(own, 3, replace=False)]
    request = ForgetRequest(pairs=tuple(pairs))
    left = remaining(data, resolve(request, data))
    return World(data, left, request, model(data), [model(left, seed) for seed in range(3)])
