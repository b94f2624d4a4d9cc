"""The truth on a small planted dataset: a model at the minimum of its objective, and the minimum without some edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphrec.datasets import RecDataset
from graphrec.influence.objective import Objective
from graphrec.influence.truth import minimise
from graphrec.models.base import GraphRecommender
from graphrec.unlearning import ForgetRequest, remaining, resolve
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.second_order import training_objective, with_parameters
from tests.models.planted import planted
from tests.unlearning.methods.conformance import scores


def converged(kind: type[GraphRecommender], data: RecDataset, **hparams: Any) -> GraphRecommender:
    """A model whose parameters minimise its own fixed objective, to float32's last digits."""
    model = kind(data, **hparams).eval()
    found = resolve(ForgetRequest(), data)
    made = training_objective(Task(model, data, data, found))
    end = minimise(made, tolerance=1e-7)
    assert end.converged
    with torch.no_grad():
        for name, value in made.unflatten(end.theta).items():
            model.get_parameter(name).copy_(value)
    model.train(model.training)
    return model


@dataclass(frozen=True)
class Case:
    """A request to a converged model, and scores when it is met by nothing but the graph, and in truth."""

    task: Task
    made: Objective
    nothing: Tensor
    truth: Tensor

    def residual(self, model: GraphRecommender) -> float:
        """Distance of the scores to the truth over that of doing nothing; of users who keep edges."""
        touched = torch.ones(len(self.truth), dtype=torch.bool)
        touched[self.task.remaining.pairs("train").indptr[1:] == self.task.remaining.pairs("train").indptr[:-1]] = False
        left = (scores(model) - self.truth)[touched].norm() / (self.nothing - self.truth)[touched].norm()
        return float(left)


def case(model: GraphRecommender, data: RecDataset, request: ForgetRequest) -> Case:
    """Minimise what remains from the trained parameters."""
    found = resolve(request, data)
    task = Task(model, data, remaining(data, found), found)
    made = training_objective(task)
    weight, _ = made.weights(task.removed)
    end = minimise(made, made.theta, weight, tolerance=1e-7)
    assert end.converged
    return Case(
        task,
        made,
        scores(with_parameters(task, made, made.theta)),
        scores(with_parameters(task, made, end.theta)),
    )


def small() -> RecDataset:
    """40 users, 24 items, 200 training edges."""
    return planted(num_users=40, num_items=24, per_user=8)


def some_edges(data: RecDataset, every: int = 25) -> ForgetRequest:
    """Every so-manieth training edge."""
    ids = data.interactions("train").edge_id[::every]
    return ForgetRequest(edges={"__".join(data.target): tuple(ids.tolist())})
