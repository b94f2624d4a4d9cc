"""IFRU: two-part gradient, important rows alone, and a quadratic that is solved unless the paper's way is asked for."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from graphrec.errors import InputError
from graphrec.models import BPRMF, EASE, NGCF, LightGCN
from graphrec.unlearning.methods.base import Outcome, Task
from graphrec.unlearning.methods.gif import GIF
from graphrec.unlearning.methods.ifru import IFRU
from tests.unlearning.methods.conformance import MethodConformance, scores
from tests.unlearning.methods.truth import Case, case, converged, small, some_edges


class TestIfru(MethodConformance):
    method = IFRU(num_negatives=4, iterations=20)


class TestIfruOnTables(MethodConformance):
    method = IFRU(num_negatives=4, iterations=20)
    model_class = BPRMF
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "lr": 0.02, "seed": 3}

    def test_no_edge_of_another_user_is_computed_anew(self, outcome: tuple[Task, Outcome]) -> None:
        # On plain tables the only spillover is what readmitted negatives change, which is in the direct part.
        assert float(outcome[1].facts["spillover_norm"]) < 1e-9 < float(outcome[1].facts["direct_norm"])


class TestIfruOnNGCF(MethodConformance):
    method = IFRU(num_negatives=4, iterations=10)
    model_class = NGCF
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3}


class TestPublished(MethodConformance):
    method = IFRU(num_negatives=4, paper_exact=True, lr=0.5, adam_steps=60)

    def test_the_quadratic_is_not_solved_to_its_end(self, outcome: tuple[Task, Outcome]) -> None:
        facts = outcome[1].facts
        assert facts["curvature"] == "plain MF hessian"
        assert float(facts["relative_residual"]) > 0.1 and int(facts["iterations"]) <= 60


@pytest.fixture(scope="module", params=[LightGCN, BPRMF])
def found(request: pytest.FixtureRequest) -> Case:
    data = small()
    settings = {"num_layers": 2, "reg": 0.05} if request.param is LightGCN else {"reg": 0.1}
    return case(converged(request.param, data, dim=4, **settings), data, some_edges(data, 100))


def test_it_is_nearer_to_the_truth_than_doing_nothing(found: Case) -> None:
    made = IFRU(damping=1e-3, iterations=300, tolerance=1e-6).unlearn(found.task)
    assert found.residual(made.model) < 0.9
    assert float(made.facts["relative_residual"]) < 1e-5


def test_rows_of_other_nodes_stay_bit_for_bit(found: Case) -> None:
    method = IFRU(damping=1e-3, quantile=0.4)
    important = method.important(found.task)
    made = method.unlearn(found.task).model
    for name, node_type in made.row_parameters.items():
        moved = (made.get_parameter(name) != found.task.model.get_parameter(name)).any(1)
        assert torch.equal(moved, important[node_type])
        assert not important[node_type].all()


def test_all_rows_give_the_step_of_gif(found: Case) -> None:
    options: dict[str, Any] = {"damping": 1e-2, "iterations": 500, "tolerance": 1e-8}
    whole = IFRU(quantile=0.0, hops=12, **options)
    assert all(mask.all() for mask in whole.important(found.task).values())
    torch.testing.assert_close(
        scores(whole.unlearn(found.task).model), scores(GIF(**options).unlearn(found.task).model), rtol=1e-4, atol=1e-5
    )


def test_adam_comes_to_the_solution_of_conjugate_gradients(found: Case) -> None:
    # Adam has no damping of its own, so the Gauss-Newton curvature with its ridge is what both solve.
    by_adam = IFRU(solver="adam", curvature="gauss_newton", lr=2.0, tolerance=1e-2, patience=200).unlearn(found.task)
    by_cg = IFRU(curvature="gauss_newton", damping=0.0, iterations=500, tolerance=1e-8).unlearn(found.task)
    assert float(by_adam.facts["relative_residual"]) <= 1e-2
    near = scores(by_cg.model) - scores(found.task.rebuilt())
    assert float((scores(by_adam.model) - scores(by_cg.model)).norm()) < 0.2 * float(near.norm())


def test_a_plain_mf_hessian_knows_no_other_parameters() -> None:
    data = small()
    task = case(converged(LightGCN, data, dim=4, num_layers=1, reg=0.05), data, some_edges(data, 100)).task
    other = Task(NGCF(data, dim=4, num_layers=1).eval(), data, task.remaining, task.resolved)
    with pytest.raises(InputError, match="transforms"):
        IFRU(paper_exact=True).unlearn(other)


def test_options_are_checked() -> None:
    assert IFRU.refuses(EASE) is not None
    for wrong in ({"solver": "some"}, {"quantile": 1.0}, {"lr": 0.0}, {"hops": -1}, {"patience": 0}):
        with pytest.raises(InputError):
            IFRU(**wrong)
