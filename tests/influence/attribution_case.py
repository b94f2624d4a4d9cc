"""A small converged model that the tests of attributions share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

import graphrec
from graphrec.datasets.dataset import RecDataset
from graphrec.influence.objective import Objective, objective
from graphrec.influence.queries import Query, score_query
from graphrec.influence.truth import fresh_start, minimise
from tests.models.planted import planted


@dataclass(frozen=True, eq=False)
class Case:
    data: RecDataset
    made: Objective
    theta: Tensor
    query: Query


@cache
def case(name: str = "LightGCN", negatives: str = "frozen") -> Case:
    """A hundred and eighty edges, two columns, every negative; three scores as the query."""
    torch.set_num_threads(1)
    data = planted(num_users=30, num_items=16, groups=2, per_user=9)
    hparams = {"num_layers": 1} if name == "LightGCN" else {}
    model = graphrec.models.resolve(name)(data, dim=2, reg=0.0, positives="edge", **hparams)
    made = objective(model, data, num_negatives="all", reg=0.3, negatives=negatives)  # type: ignore[arg-type]
    found = minimise(made, fresh_start(made, 0), tolerance=1e-9)
    assert found.converged
    test = data.pairs("test")
    users, items = torch.as_tensor(test.users[::30].copy()), torch.as_tensor(test.items[::30].copy())
    return Case(data, made, found.theta, score_query(made, users, items))
