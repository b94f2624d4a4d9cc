"""What every method of forgetting keeps, whatever it does inside."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

import graphrec
from graphrec.datasets import RecDataset
from graphrec.models import LightGCN
from graphrec.models.base import GraphRecommender
from graphrec.unlearning import ForgetRequest, remaining, resolve
from graphrec.unlearning.methods.base import Outcome, Task, Unlearner
from tests.models.planted import planted


def scores(model: GraphRecommender) -> torch.Tensor:
    """All scores (U, I), float."""
    with torch.no_grad():
        return model.eval().score(torch.arange(model.num_users))


class MethodConformance:
    """Inherit, and set ``method``; ``model_class`` and ``hparams`` where LightGCN is not what it is for."""

    method: ClassVar[Unlearner]
    model_class: ClassVar[type[GraphRecommender]] = LightGCN
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3}
    fit: ClassVar[dict[str, Any]] = {"epochs": 8, "progress": False, "select_on": None}

    @pytest.fixture(scope="class")
    def data(self) -> RecDataset:
        return planted()

    @pytest.fixture(scope="class")
    def prepared(self, data: RecDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[GraphRecommender, Any]:
        """The trained model, and the folder of the method's state (None where it needs none)."""
        model = self.model_class(data, **self.hparams)
        graphrec.fit(model, data, **self.fit)
        if not self.method.needs_state:
            return model, None
        from graphrec.runs.manifest import write_contents

        made = self.method.prepare(model, data, seed=3, fit=self.fit, folder=tmp_path_factory.mktemp("work"))
        folder = tmp_path_factory.mktemp("state")
        write_contents(folder, made.files)
        return made.model, folder

    def task(self, data: RecDataset, prepared: tuple[GraphRecommender, Any], request: ForgetRequest) -> Task:
        found = resolve(request, data)
        model, state = prepared
        return Task(model, data, remaining(data, found), found, seed=3, fit=self.fit, state=state)

    @pytest.fixture(scope="class")
    def outcome(self, data: RecDataset, prepared: tuple[GraphRecommender, Any]) -> tuple[Task, Outcome]:
        users = data.vocabularies["user"].raw[[2, 5]].tolist()
        task = self.task(data, prepared, ForgetRequest(users=tuple(users)))
        before = scores(task.model).clone()
        made = self.method.unlearn(task)
        assert torch.equal(scores(task.model), before), "the method changed the model it was given"
        return task, made

    def test_an_empty_request_changes_nothing(self, data: RecDataset, prepared: tuple[GraphRecommender, Any]) -> None:
        made = self.method.unlearn(self.task(data, prepared, ForgetRequest()))
        assert torch.equal(scores(made.model), scores(prepared[0]))

    def test_the_outcome_stands_on_what_remains(self, outcome: tuple[Task, Outcome]) -> None:
        task, made = outcome
        inputs = made.model.graph_inputs
        assert inputs.fingerprint == task.remaining.fingerprint
        gone = task.removed[task.data.target]
        assert len(gone) and not torch.isin(inputs.graph[inputs.target].edge_id, gone).any()
        assert not made.model.training
        assert made.exactness in ("exact", "conditional", "approximate", "heuristic")
        assert made.seconds["request"] > 0
        assert torch.isfinite(scores(made.model)).all()

    def test_what_the_model_derives_is_of_what_remains(self, outcome: tuple[Task, Outcome]) -> None:
        _, made = outcome
        state = made.model.state_dict()
        for name, derived in made.model.derived().items():
            if name in state:
                torch.testing.assert_close(state[name], derived.rebuild(), msg=name)

    def test_the_scores_of_those_who_stay_are_moved_but_still_rank(self, outcome: tuple[Task, Outcome]) -> None:
        task, made = outcome
        stay = torch.ones(task.data.num_users, dtype=torch.bool)
        stay[torch.from_numpy(task.resolved.nodes["user"])] = False
        before, after = scores(task.model)[stay], scores(made.model)[stay]
        assert not torch.equal(before, after)
        metric = graphrec.evaluate(made.model, task.remaining, split="test", ks=(10,))["recall@10"]
        held = graphrec.evaluate(task.model, task.data, split="test", ks=(10,))["recall@10"]
        assert metric > 0.5 * held

    def test_the_same_request_gives_the_same_outcome(
        self, data: RecDataset, prepared: tuple[GraphRecommender, Any], outcome: tuple[Task, Outcome]
    ) -> None:
        users = data.vocabularies["user"].raw[[5, 2]].tolist()
        again = self.method.unlearn(self.task(data, prepared, ForgetRequest(users=tuple(users))))
        torch.testing.assert_close(scores(again.model), scores(outcome[1].model), rtol=0, atol=0)
