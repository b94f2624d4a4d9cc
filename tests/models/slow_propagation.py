"""Propagation edge by edge, and contrasts node by node: what the tests of contrastive models compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphrec import randomness
from graphrec.models import GraphRecommender
from graphrec.models.base import PairBatch

Rows = list[Tensor]
Changed = Callable[[Rows, int, int], Rows]


def edges_of(model: GraphRecommender) -> list[tuple[int, int]]:
    """(user, item) of every edge, in edge-list order."""
    return [(user, item) for user, item in model.graph_inputs.graph[model.graph_inputs.target].edge_index.T.tolist()]


def slow_layers(
    model: Any, count: int, weight: Sequence[float] | None = None, changed: Changed | None = None
) -> list[tuple[Rows, Rows]]:
    """Layers 0 to ``count`` of users and items; ``changed(rows, layer, side)`` is applied to all but the first."""
    edges = edges_of(model)
    weight = [1.0] * len(edges) if weight is None else weight
    degree: dict[tuple[int, int], float] = {}
    for edge, amount in zip(edges, weight, strict=True):
        for side in (0, 1):
            degree[side, edge[side]] = degree.get((side, edge[side]), 0.0) + amount
    layers = [(list(model.user_embedding), list(model.item_embedding))]
    for layer in range(1, count + 1):
        tables = [[torch.zeros_like(rows[0]) for _ in rows] for rows in layers[-1]]
        for (user, item), amount in zip(edges, weight, strict=True):
            if amount:
                entry = amount / math.sqrt(degree[0, user] * degree[1, item])
                tables[0][user] = tables[0][user] + entry * layers[-1][1][item]
                tables[1][item] = tables[1][item] + entry * layers[-1][0][user]
        if changed is not None:
            tables = [changed(rows, layer, side) for side, rows in enumerate(tables)]
        layers.append((tables[0], tables[1]))
    return layers


def combined(layers: list[tuple[Rows, Rows]], scales: Sequence[float]) -> tuple[Rows, Rows]:
    """The sum of layers, each times its scale."""
    users, items = (
        [sum((scale * row for scale, row in zip(scales, rows, strict=True)), start=torch.zeros(())) for rows in side]
        for side in (list(zip(*(layer[side] for layer in layers), strict=True)) for side in (0, 1))
    )
    return users, items


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


def slow_info_nce(anchor: Tensor, own: Tensor, candidates: Sequence[Tensor], temperature: float) -> Tensor:
    """``log sum_c exp(cos(a, c) / τ) - cos(a, own) / τ``."""
    scores = torch.stack([cosine(anchor, candidate) / temperature for candidate in candidates])
    return scores.exp().sum().log() - cosine(anchor, own) / temperature


def log_sigmoid(gap: Tensor) -> Tensor:
    return (1 / (1 + (-gap).exp())).log()


def first_batch(model: GraphRecommender, size: int = 20, *, weighted: bool = True, seed: int = 1) -> PairBatch:
    """Some examples with users and items that repeat, weights that differ, one of them 0, and a stream."""
    batch = next(iter(model.phases()[-1].batches(0, randomness.generator(seed, "batches"))))
    assert isinstance(batch, PairBatch)
    users, items = batch.users[:size].clone(), batch.items[:size].clone()
    users[1], items[2] = users[0], items[0]
    weight = torch.ones(len(users), dtype=torch.float64)
    if weighted:
        weight = torch.linspace(0.5, 1.5, len(users), dtype=torch.float64)
        weight[3] = 0
    return PairBatch(
        edge_id=batch.edge_id[:size],
        weight=weight,
        users=users,
        items=items,
        negatives=batch.negatives[:size],
        generator=torch.Generator().manual_seed(seed),
    )


def total_loss(model: Any, batch: PairBatch, edge_weight: Tensor | None = None) -> Tensor:
    """The sum of the terms; the batch's stream starts where it did."""
    batch.generator.manual_seed(1)
    return torch.stack(list(model.pair_loss(batch, edge_weight).values())).sum()
