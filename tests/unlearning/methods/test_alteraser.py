"""AltEraser: exact alternating least squares where the loss is squared; the remaining minimum with enough sweeps."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from graphrec.errors import InputError
from graphrec.models import BPRMF, EASE, NGCF, LightGCN
from graphrec.unlearning.methods.alteraser import AltEraser, alternate
from tests.unlearning.methods.conformance import MethodConformance
from tests.unlearning.methods.truth import Case, case, converged, small, some_edges


class TestAltEraser(MethodConformance):
    method = AltEraser(num_negatives=4, sweeps=1, iterations=10)


class TestSampled(MethodConformance):
    method = AltEraser(num_negatives=4, sweeps=1, iterations=10, sample=0.3, curvature="hessian")
    model_class = BPRMF
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "lr": 0.02, "seed": 3}


class TestOnNGCF(MethodConformance):
    method = AltEraser(num_negatives=4, sweeps=1, iterations=6)
    model_class = NGCF
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3}


def test_a_squared_loss_gives_alternating_least_squares() -> None:
    stream = torch.Generator().manual_seed(0)
    ratings = torch.randn(7, 5, generator=stream, dtype=torch.float64)
    there = torch.rand(7, 5, generator=stream) < 0.7
    ridge, width = 0.3, 2
    theta = torch.randn(12 * width, generator=stream, dtype=torch.float64)
    split = [torch.arange(7 * width), torch.arange(7 * width, 12 * width)]

    def value(theta: torch.Tensor) -> torch.Tensor:
        users, items = theta[: 7 * width].view(7, width), theta[7 * width :].view(5, width)
        return 0.5 * ((users @ items.T - ratings)[there].square().sum() + ridge * theta @ theta)

    def gradient(theta: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(value)(theta)

    def curvature(theta: torch.Tensor) -> Any:
        return lambda v: torch.func.jvp(gradient, (theta,), (v,))[1]

    found, _ = alternate(value, gradient, curvature, theta, split, sweeps=2, steps=20, iterations=500, tolerance=1e-11)
    users, items = theta[: 7 * width].view(7, width).clone(), theta[7 * width :].view(5, width).clone()
    for _ in range(2):
        for table, other, mask, target in ((users, items, there, ratings), (items, users, there.T, ratings.T)):
            for row in range(len(table)):
                x = other[mask[row]]
                gram = x.T @ x + ridge * torch.eye(width, dtype=torch.float64)
                table[row] = torch.linalg.solve(gram, x.T @ target[row, mask[row]])
    torch.testing.assert_close(found, torch.cat([users.reshape(-1), items.reshape(-1)]), rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module", params=[LightGCN, BPRMF])
def found(request: pytest.FixtureRequest) -> Case:
    data = small()
    settings = {"num_layers": 2, "reg": 0.05} if request.param is LightGCN else {"reg": 0.1}
    return case(converged(request.param, data, dim=4, **settings), data, some_edges(data))


def test_sweeps_go_from_doing_nothing_to_the_truth(found: Case) -> None:
    residual = []
    for sweeps in (1, 3, 10):
        made = AltEraser(sweeps=sweeps, damping=0.0, iterations=200, steps=3, tolerance=1e-7).unlearn(found.task)
        residual.append(found.residual(made.model))
        assert float(made.facts["gradient_norm_end"]) < float(made.facts["gradient_norm_start"])
    assert 1 > residual[0] > residual[1] > residual[2]
    assert residual[2] < 0.6


def test_damping_stops_short(found: Case) -> None:
    loose, tight = (AltEraser(damping=damping).unlearn(found.task) for damping in (1e-3, 1.0))
    assert float(tight.facts["step_norm"]) < float(loose.facts["step_norm"])
    assert found.residual(loose.model) < found.residual(tight.model) < 1


def test_closed_forms_are_refused() -> None:
    assert AltEraser.refuses(EASE) is not None and AltEraser.refuses(LightGCN) is None


def test_options_are_checked() -> None:
    for wrong in ({"sweeps": 0}, {"damping": -1.0}, {"iterations": 0}, {"sample": 0.0}, {"tolerance": 0.0}):
        with pytest.raises(InputError):
            AltEraser(**wrong)
