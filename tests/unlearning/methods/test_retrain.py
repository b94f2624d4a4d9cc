"""Retraining, and fine-tuning as its cheap neighbour."""

from __future__ import annotations

import torch

import graphrec
from graphrec.unlearning import METHODS, ForgetRequest
from graphrec.unlearning.methods import Finetune, Retrain
from graphrec.unlearning.methods.base import Outcome, Task
from tests.models.planted import planted
from tests.unlearning.methods.conformance import MethodConformance, scores


class TestRetrain(MethodConformance):
    method = Retrain()

    def test_it_equals_a_training_that_never_saw_the_data(self, outcome: tuple[Task, Outcome]) -> None:
        task, made = outcome
        model = self.model_class(task.remaining, **self.hparams)
        graphrec.fit(model, task.remaining, **self.fit)
        for name, tensor in model.state_dict().items():
            assert torch.equal(made.model.state_dict()[name], tensor), name

    def test_another_seed_gives_another_reference(self, outcome: tuple[Task, Outcome]) -> None:
        task, made = outcome
        other = Retrain(seed=11).unlearn(task)
        assert not torch.equal(scores(other.model), scores(made.model))
        assert other.model.hparams["seed"] == 11


class TestFinetune(MethodConformance):
    method = Finetune(epochs=2)

    def test_rows_of_the_forgotten_start_anew(self, outcome: tuple[Task, Outcome]) -> None:
        task, made = outcome
        rows = torch.from_numpy(task.resolved.nodes["user"])
        fresh = task.fresh().user_embedding[rows]
        # No example draws them any more; the regulariser on drawn rows leaves them where they started.
        torch.testing.assert_close(made.model.user_embedding[rows], fresh)


def test_methods_go_by_their_names() -> None:
    assert METHODS["retrain"] is Retrain and METHODS["finetune"] is Finetune


def test_what_nobody_has_changes_nothing() -> None:
    data = planted()
    model = TestRetrain.model_class(data, **TestRetrain.hparams)
    graphrec.fit(model, data, **TestRetrain.fit)
    task = TestRetrain().task(data, (model, None), ForgetRequest(users=(10**6,)))
    assert task.resolved.unknown == {"users": (10**6,)} and task.resolved.empty
    assert torch.equal(scores(Retrain().unlearn(task).model), scores(model))
