"""A graph of six users and six items, small enough for dense algebra: its objective, optimum and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.influence.linear_objective import LinearObjective
from graphrec.influence.objective import objective
from graphrec.influence.solvers import Operator
from graphrec.models.bpr_mf import BPRMF
from graphrec.models.lightgcn import LightGCN

LISTS = [[0, 1, 2], [0, 1, 3], [1, 2, 4], [3, 4, 5], [2, 4, 5], [0, 3, 5]]


def small_graph(lists: list[list[int]] = LISTS, num_items: int = 6) -> RecDataset:
    """Users with the items of ``lists``, all training edges; edge ids number them in that order."""
    pairs = [(user, item) for user, items in enumerate(lists) for item in items]
    builder = Builder()
    builder.nodes("user", np.arange(len(lists)))
    builder.nodes("item", np.arange(num_items))
    frame = pd.DataFrame({"user": [u for u, _ in pairs], "item": [i for _, i in pairs], "part": "train"})
    builder.interactions(frame, user="user", item="item", part="part")
    return builder.build()


def small_model(layers: int = 2, seed: int = 0, **options: Any) -> LightGCN | BPRMF:
    """Width 3, entries N(0, .5²); no layers: BPRMF."""
    if layers == 0:
        return BPRMF(small_graph(), dim=3, init_scale=0.5, seed=seed, **options)
    return LightGCN(small_graph(), dim=3, num_layers=layers, init_scale=0.5, seed=seed, **options)


def small_objective(layers: int = 2, seed: int = 0, **options: Any) -> LinearObjective:
    """Sums over edges, all negatives, λ = .05 unless given otherwise."""
    made = objective(small_model(layers, seed), **{"num_negatives": "all", "reg": 0.05, "positives": "edge", **options})
    assert isinstance(made, LinearObjective)
    return made


def dense(product: Operator, like: Tensor) -> Tensor:
    """The matrix of a product."""
    return torch.stack([product(row) for row in torch.eye(len(like), dtype=like.dtype)])


def pseudo_inverse(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix, with what is below 1e-8 of its largest eigenvalue taken for 0."""
    return torch.linalg.pinv((matrix + matrix.T) / 2, rtol=1e-8, hermitian=True)


def stationary(made: LinearObjective, start: Tensor, weight: Tensor | None = None) -> Tensor:
    """Where Newton's method ends that shortens steps until the gradient falls: near its start for a good one."""
    point = start.clone()
    for _ in range(200):
        slope = made.gradient(point, weight, weight)
        if float(slope.norm()) < 1e-12:
            break
        step = pseudo_inverse(dense(made.curvature(point, weight, weight, gauss_newton=False), point)) @ slope
        length = 1.0
        while length > 1e-3:
            after = made.gradient(point - length * step, weight, weight)
            if float(after.norm()) < float(slope.norm()):
                break
            length /= 2
        if length <= 1e-3:
            break  # rounding
        point = point - length * step
    return point


def minimum(made: LinearObjective, start: Tensor | None = None) -> Tensor:
    """A minimum: falling steps with the Gauss-Newton matrix first, then Newton's."""
    point = made.theta.clone() if start is None else start
    for _ in range(60):
        slope = made.gradient(point)
        if float(slope.norm()) < 1e-2:
            break
        step = torch.linalg.solve(dense(made.curvature(point), point), slope)
        length, value = 1.0, float(made.value(point))
        while length > 1e-6 and float(made.value(point - length * step)) > value:
            length /= 2
        point = point - length * step
    return stationary(made, point)


def scores(made: LinearObjective, theta: Tensor, weight: Tensor | None = None) -> Tensor:
    """All scores, (U, I)."""
    users, items = made.propagate(*made.tables(theta), weight)
    return (users @ items.T).detach()


def without(made: LinearObjective, edge: int) -> Tensor:
    """Weights with one edge gone."""
    weight = made.ones()
    weight[edge] = 0
    return weight
