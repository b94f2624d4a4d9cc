"""The minimiser: convex and indefinite functions, down to the last digits, the same way twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.influence.converge import Converged, converge


def minimise(value: object, start: Tensor, **options: float) -> Converged:
    assert callable(value)

    def gradient(theta: Tensor) -> Tensor:
        return torch.func.grad(value)(theta)

    def curvature(theta: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda direction: torch.func.jvp(torch.func.grad(value), (theta,), (direction,))[1]

    return converge(value, gradient, curvature, start, **options)  # type: ignore[arg-type]


def test_logistic_regression_to_the_last_digits() -> None:
    stream = torch.Generator().manual_seed(0)
    rows = torch.randn(80, 6, dtype=torch.float64, generator=stream)
    signs = torch.sign(torch.randn(80, dtype=torch.float64, generator=stream))

    def value(theta: Tensor) -> Tensor:
        return torch.nn.functional.softplus(-signs * (rows @ theta)).sum() + 0.05 * theta @ theta

    start = torch.full((6,), 3.0, dtype=torch.float64)
    found = minimise(value, start, tolerance=1e-11)
    assert found.converged
    assert found.gradient_norm <= 1e-11
    assert torch.equal(start, torch.full((6,), 3.0, dtype=torch.float64))
    assert torch.equal(minimise(value, start, tolerance=1e-11).theta, found.theta)
    by_scipy = pytest.importorskip("scipy.optimize").minimize(
        lambda x: float(value(torch.as_tensor(x))), start.numpy(), method="BFGS", options={"gtol": 1e-9}
    )
    assert found.value <= by_scipy.fun + 1e-9


def test_a_saddle_is_left() -> None:
    """(x² - 1)² + y² from the saddle's side, where the Hessian is negative, and a bilinear form with rotations."""
    found = minimise(
        lambda t: (t[0] ** 2 - 1) ** 2 + t[1] ** 2, torch.tensor([0.05, 1.0], dtype=torch.float64), tolerance=1e-10
    )
    assert found.converged
    assert found.theta.tolist() == pytest.approx([1.0, 0.0], abs=1e-8)

    target = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def factors(theta: Tensor) -> Tensor:
        left, right = theta[:10].view(5, 2), theta[10:].view(4, 2)
        return (left @ right.T - target).square().sum() + 0.1 * theta.square().sum()

    small = 0.1 * torch.randn(18, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = minimise(factors, small, tolerance=1e-9)
    assert found.converged
    # The optimum is known: singular values shrunk by the penalty, the first two kept.
    values = torch.linalg.svdvals(target)
    kept = (values[:2] - 0.1).clamp_min(0)
    best = (values[:2] - kept).square().sum() + values[2:].square().sum() + 0.2 * kept.sum()
    assert found.value == pytest.approx(float(best), abs=1e-9)


def test_limits_and_bad_starts() -> None:
    def value(theta: Tensor) -> Tensor:
        return ((theta[0] - 1) ** 2 + 100 * (theta[1] - theta[0] ** 2) ** 2).log1p()

    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    short = minimise(value, start, max_steps=2)
    assert not short.converged
    assert short.steps == 2
    assert short.gradient_norm > 1e-6
    assert minimise(value, start).theta.tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    with pytest.raises(InputError, match="float64"):
        minimise(value, start.float())
    with pytest.raises(InputError, match="not finite"):
        minimise(value, start * torch.nan)
