"""GIF: nearer to the truth than doing nothing, for interactions and triples; at the present parameters each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import graphrec
from graphrec.datasets import RecDataset
from graphrec.errors import InputError
from graphrec.influence.solvers import Operator, largest_eigenvalue
from graphrec.models import BPRMF, EASE, KGAT, KGIN, NCL, NGCF, SGL, DirectAU, LightGCL, LightGCN, SimGCL, XSimGCL
from graphrec.models.base import GraphRecommender
from graphrec.unlearning import ForgetRequest, remaining, resolve
from graphrec.unlearning.methods.base import Outcome, Task
from graphrec.unlearning.methods.gif import GIF, Step
from tests.models.planted import planted
from tests.models.planted_kg import planted_kg
from tests.unlearning.methods.conformance import MethodConformance, scores
from tests.unlearning.methods.truth import Case, case, converged, small, some_edges

NEGATIVES = 4


class TestGif(MethodConformance):
    method = GIF(num_negatives=NEGATIVES, iterations=20)


class TestNewtonOnTables(MethodConformance):
    method = GIF(step="newton", num_negatives=NEGATIVES, iterations=20)
    model_class = BPRMF
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "lr": 0.02, "seed": 3}


class TestGifOnNGCF(MethodConformance):
    method = GIF(num_negatives=NEGATIVES, iterations=10)
    model_class = NGCF
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3}


class TestGifOnSGL(MethodConformance):
    method = GIF(num_negatives=NEGATIVES, iterations=10)
    model_class = SGL
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3}

    def test_the_contrast_is_said_to_be_left_out(self, outcome: tuple[Task, Outcome]) -> None:
        assert outcome[1].facts["objective"] == "ranking loss alone"


class OnKnowledge(MethodConformance):
    """The same, and a request for triples."""

    method = GIF(num_negatives=2, iterations=8)

    @pytest.fixture(scope="class")
    def data(self) -> RecDataset:
        return planted_kg(num_users=60, num_items=40)

    def test_triples_are_forgotten(self, data: RecDataset, prepared: tuple[Any, Any]) -> None:
        kind = ("item", "related", "entity")
        task = self.task(data, prepared, ForgetRequest(relations=("made_by",)))
        assert set(task.removed) == {kind} and len(task.removed[kind]) == data.num_items
        made = self.method.unlearn(task)
        gone = made.model.graph_inputs.graph[kind].edge_id
        assert not torch.isin(gone, task.removed[kind]).any()
        assert float(made.facts["right_norm"]) > 0 and float(made.facts["step_norm"]) > 0
        # The parameters moved too, not only the graph beneath them.
        assert not torch.equal(scores(made.model), scores(task.rebuilt()))


class TestGifOnKGAT(OnKnowledge):
    model_class = KGAT
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "layer_dims": [8], "lr": 0.02, "batch_size": 64, "seed": 3}


class TestGifOnKGIN(OnKnowledge):
    model_class = KGIN
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3}


STEPS: tuple[Step, ...] = ("gif", "newton")
SMALL_DAMPING: dict[str, Any] = {"damping": 1e-3, "iterations": 300, "tolerance": 1e-6}


@pytest.fixture(scope="module", params=[LightGCN, BPRMF])
def found(request: pytest.FixtureRequest) -> Case:
    data = small()
    settings = {"num_layers": 2, "reg": 0.05} if request.param is LightGCN else {"reg": 0.1}
    return case(converged(request.param, data, dim=4, **settings), data, some_edges(data))


def test_the_step_is_nearer_to_the_truth_than_doing_nothing(found: Case) -> None:
    residual = {}
    for step in STEPS:
        for curvature in ("hessian", "gauss_newton"):
            made = GIF(step=step, curvature=curvature, **SMALL_DAMPING).unlearn(found.task)
            residual[step, curvature] = found.residual(made.model)
    assert max(residual.values()) < 0.9
    assert residual["gif", "hessian"] < 0.6
    # The positive part of the curvature alone is too stiff, wherever it is taken.
    assert residual["gif", "hessian"] < residual["gif", "gauss_newton"]
    assert residual["newton", "gauss_newton"] < residual["gif", "gauss_newton"]


def test_a_newton_step_follows_a_single_edge_best() -> None:
    data = small()
    single = case(converged(LightGCN, data, dim=4, num_layers=2, reg=0.05), data, some_edges(data, 1000))
    options = {**SMALL_DAMPING, "damping": 1e-2}  # with less, the curvature that remains is not positive here
    gif, newton = (single.residual(GIF(step=step, **options).unlearn(single.task).model) for step in STEPS)
    assert newton < 0.7 * gif < 0.3


def test_the_graph_is_part_of_what_is_forgotten(found: Case) -> None:
    without, with_graph = (GIF(step=step, **SMALL_DAMPING).unlearn(found.task) for step in ("if", "gif"))
    if isinstance(found.task.model, LightGCN):
        assert found.residual(with_graph.model) < found.residual(without.model)
    else:  # no edge enters the scores of plain tables
        assert torch.equal(scores(with_graph.model), scores(without.model))


def test_the_published_series_falls_short_of_a_solution(found: Case) -> None:
    largest = largest_eigenvalue(found.made.curvature(found.made.theta, gauss_newton=False), found.made.theta)
    made = GIF(paper_exact=True, scale=1.2 * largest).unlearn(found.task)
    assert made.facts["iterations"] == 6
    assert 0.05 < float(made.facts["relative_residual"]) < 1
    assert found.residual(made.model) < 1


def test_the_series_says_when_it_diverges(found: Case) -> None:
    with pytest.raises(InputError, match="diverges"):
        GIF(paper_exact=True, scale=1e-3).unlearn(found.task)


def test_sequential_requests_start_from_the_present_parameters() -> None:
    data = small()
    model = converged(LightGCN, data, dim=4, num_layers=2, reg=0.05)
    method = GIF(**SMALL_DAMPING)
    both = some_edges(data)
    ((name, ids),) = both.edges.items()
    requests = [resolve(ForgetRequest(edges={name: part}), data) for part in (ids[:4], ids[4:])]
    apart = [method.unlearn(Task(model, data, remaining(data, part), part)).model for part in requests]
    left = remaining(data, requests[0])
    second = resolve(ForgetRequest(edges={name: ids[4:]}), left)
    end = method.unlearn(Task(apart[0], left, remaining(left, second), second)).model
    assert case(model, data, both).residual(end) < 0.6
    # Gradients and curvature of the present parameters: not the sum of two steps from the first ones.
    first, *single, last = (made.get_parameter("item_embedding").detach() for made in (model, *apart, end))
    summed = single[0] + single[1] - 2 * first
    assert float((last - first - summed).norm()) > 1e-3 * float(summed.norm())


def test_a_request_that_takes_no_training_edge_leaves_the_scores() -> None:
    data = planted(num_users=30, num_items=20, per_user=6)
    model = LightGCN(data, dim=4, num_layers=1)
    graphrec.fit(model, data, epochs=2, progress=False)
    edge = int(data.interactions("test").edge_id[0])
    found = resolve(ForgetRequest(edges={"__".join(data.target): (edge,)}), data)
    made = GIF().unlearn(Task(model, data, remaining(data, found), found))
    assert torch.equal(scores(made.model), scores(model))
    assert made.model.graph_inputs.fingerprint == remaining(data, found).fingerprint


EXACT = GIF(damping=0.0, iterations=100, tolerance=1e-13)


def fixed(matrix: Tensor) -> Callable[[bool], Operator]:
    """A curvature that is one matrix."""
    return lambda gauss_newton: lambda v: matrix @ v


def test_on_a_ridge_the_first_order_step_is_short_by_the_leverage_and_newton_is_exact() -> None:
    stream = torch.Generator().manual_seed(2)
    x = torch.randn(9, 3, generator=stream, dtype=torch.float64)
    y = torch.randn(9, generator=stream, dtype=torch.float64)
    ridge = 0.7 * torch.eye(3, dtype=torch.float64)

    def gram(first: int) -> Tensor:
        return x[first:].T @ x[first:] + ridge

    p, refit = (torch.linalg.solve(gram(first), x[first:].T @ y[first:]) for first in (0, 1))
    right = -x[0] * (y[0] - x[0] @ p)
    first_order, newton = (EXACT.solve_with(fixed(gram(n)), right, {}) for n in (0, 1))
    lever = float(x[0] @ torch.linalg.solve(gram(0), x[0]))
    torch.testing.assert_close(p + newton, refit, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p + first_order / (1 - lever), refit, rtol=1e-12, atol=1e-12)
    assert abs(float((p + first_order - refit).norm() / (refit - p).norm()) - lever) < 1e-10


def test_on_logistic_fits_a_newton_step_misses_a_small_part_of_what_the_first_order_step_misses() -> None:
    stream = torch.Generator().manual_seed(5)
    errors = []
    for _ in range(6):  # users with six items each, the items' vectors fixed, ridge 1
        signed = torch.randn(6, 3, generator=stream, dtype=torch.float64)

        def slope(p: Tensor, first: int, signed: Tensor = signed) -> Tensor:
            return p - signed[first:].T @ torch.sigmoid(-signed[first:] @ p)

        def bend(p: Tensor, first: int, signed: Tensor = signed) -> Tensor:
            odds = torch.sigmoid(signed[first:] @ p)
            return torch.eye(3, dtype=torch.float64) + signed[first:].T @ (
                signed[first:] * (odds * (1 - odds))[:, None]
            )

        p, refit = torch.zeros(2, 3, dtype=torch.float64)
        for _ in range(20):
            p = p - torch.linalg.solve(bend(p, 0), slope(p, 0))
            refit = refit - torch.linalg.solve(bend(refit, 1), slope(refit, 1))
        steps = [EXACT.solve_with(fixed(bend(p, first)), -slope(p, 1), {}) for first in (0, 1)]
        errors.append([float((p + step - refit).norm() / (refit - p).norm()) for step in steps])
    first_order, newton = (sum(error[n] for error in errors) / len(errors) for n in (0, 1))
    assert 0.05 < first_order < 0.4
    assert newton < 0.3 * first_order


def test_models_without_a_ranking_loss_are_refused() -> None:
    assert "not trained to rank" in str(GIF.refuses(EASE))
    assert all(GIF.refuses(kind) is None for kind in (LightGCN, BPRMF, NGCF, SGL, KGAT, KGIN))


def test_options_are_checked() -> None:
    for wrong in ({"step": "some"}, {"damping": -1.0}, {"iterations": 0}, {"curvature": "none"}, {"tolerance": 0.0}):
        with pytest.raises(InputError):
            GIF(**wrong)


@pytest.mark.parametrize("kind", [SimGCL, XSimGCL, LightGCL, NCL])
def test_contrastive_models_follow_their_ranking_loss(kind: Callable[..., GraphRecommender]) -> None:
    data = small()
    model = kind(data, dim=4).eval()
    request = some_edges(data)
    found = resolve(request, data)
    made = GIF(num_negatives=2, iterations=5).unlearn(Task(model, data, remaining(data, found), found))
    assert made.facts["objective"] == "ranking loss alone" and float(made.facts["step_norm"]) > 0
    assert torch.isfinite(scores(made.model)).all()


def test_a_loss_that_ranks_nothing_is_refused() -> None:
    for model in (DirectAU, DirectAU(small(), dim=4)):
        assert "no ranking loss" in str(GIF.refuses(model))
