"""Solvers against dense algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.influence.blocks import block_diagonal
from graphrec.influence.solvers import (
    Rotations,
    arnoldi,
    arnoldi_spectrum,
    conjugate_gradient,
    largest_eigenvalue,
    lissa,
    solve,
)
from tests.influence.small_graph import dense, minimum, small_objective

torch.set_num_threads(1)


def positive(size: int = 30, low: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A positive matrix with eigenvalues from ``low`` to 5, and a right-hand side."""
    stream = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(size, size, generator=stream, dtype=torch.float64))[0]
    values = torch.linspace(low, 5.0, size, dtype=torch.float64)
    return (turn * values) @ turn.T, torch.randn(size, generator=stream, dtype=torch.float64)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_all_solvers_agree_with_the_dense_solution(damping: float) -> None:
    matrix, v = positive()
    truth = torch.linalg.solve(matrix + damping * torch.eye(30, dtype=torch.float64), v)
    found = {
        "cg": conjugate_gradient(lambda x: matrix @ x, v, damping=damping, tolerance=1e-7),
        "lissa": lissa(lambda x: matrix @ x, v, damping=damping, tolerance=1e-7),
        "arnoldi": arnoldi(lambda x: matrix @ x, v, damping=damping, steps=30, rank=30, tolerance=1e-7),
    }
    for name, solution in found.items():
        assert solution.converged, name
        assert float((solution.x - truth).norm() / truth.norm()) < 1e-4, name
        rest = matrix @ solution.x + damping * solution.x - v
        assert solution.relative_residual == pytest.approx(float(rest.norm() / v.norm()), rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("layers", [0, 2])
def test_they_agree_on_the_curvature_of_a_model(layers: int) -> None:
    made = small_objective(layers)
    product = made.curvature(made.theta)
    v = made.gradient(made.theta)
    truth = torch.linalg.solve(dense(product, v), v)
    for solver in ("cg", "lissa"):
        found = solve(product, v, solver=solver, tolerance=1e-6, max_iterations=20000)
        assert found.converged and float((found.x - truth).norm() / truth.norm()) < 1e-4, solver
    # The ridge alone acts on many directions: of an eigenvalue that is there many times a Krylov space has one vector,
    # and what it leaves out is said.
    found = arnoldi(product, v, steps=36, rank=36)
    assert found.relative_residual == pytest.approx(float((product(found.x) - v).norm() / v.norm()))
    assert found.relative_residual < 0.1


def test_zero_directions_are_projected_out_or_damped() -> None:
    made = small_objective()
    theta = minimum(made)
    hessian = made.curvature(theta, gauss_newton=False)
    matrix = dense(hessian, theta)
    turns = Rotations(*made.tables(theta))
    v = made.mixed_step(theta, torch.eye(18, dtype=torch.float64)[0])
    shortest = torch.linalg.pinv(matrix, rtol=1e-8, hermitian=True) @ v
    found = conjugate_gradient(hessian, v, tolerance=1e-10, project=turns)
    torch.testing.assert_close(found.x, shortest, atol=1e-7, rtol=1e-6)
    # With a part that the singular matrix cannot reach, the projection still answers; damping bounds the rest.
    noisy = v + 1e-3 * (torch.randn(len(v), generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    projected = conjugate_gradient(hessian, noisy, tolerance=1e-10, project=turns)
    assert projected.converged and float((turns(projected.x) - projected.x).norm()) < 1e-9
    damped = conjugate_gradient(hessian, noisy, damping=1e-2, tolerance=1e-10)
    assert damped.converged


def test_the_projection_takes_away_every_rotation_and_nothing_else() -> None:
    stream = torch.Generator().manual_seed(0)
    tables = [torch.randn(n, 4, generator=stream, dtype=torch.float64) for n in (7, 5)]
    turns = Rotations(*tables)
    matrix = dense(turns, torch.cat([table.flatten() for table in tables]))
    assert turns.count == 6
    torch.testing.assert_close(matrix, matrix.T, atol=1e-12, rtol=0)
    torch.testing.assert_close(matrix @ matrix, matrix, atol=1e-12, rtol=0)
    assert float(matrix.trace()) == pytest.approx(48 - 6)
    skew = torch.randn(4, 4, generator=stream, dtype=torch.float64)
    rotated = torch.cat([(table @ (skew - skew.T)).flatten() for table in tables])
    assert float(turns(rotated).norm()) < 1e-12


def test_the_leading_eigenpairs_are_those_of_the_matrix() -> None:
    matrix, v = positive(60)
    found = arnoldi_spectrum(lambda x: matrix @ x, v, steps=60, rank=10)
    values = torch.linalg.eigvalsh(matrix).flip(0)[:10]
    torch.testing.assert_close(found.values, values)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(10, dtype=torch.float64), atol=1e-10, rtol=0)
    torch.testing.assert_close(matrix @ found.vectors.T, found.vectors.T * found.values, atol=1e-8, rtol=0)
    assert largest_eigenvalue(lambda x: matrix @ x, v) == pytest.approx(5.0, rel=0.03)


def test_a_preconditioner_saves_products_and_gives_the_same() -> None:
    stream = torch.Generator().manual_seed(0)
    diagonal = torch.logspace(0, 4, 50, dtype=torch.float64)
    matrix = torch.diag(diagonal) + 0.1 * positive(50)[0]
    v = torch.randn(50, generator=stream, dtype=torch.float64)
    plain = conjugate_gradient(lambda x: matrix @ x, v, tolerance=1e-8, max_iterations=2000)
    helped = conjugate_gradient(lambda x: matrix @ x, v, tolerance=1e-8, preconditioner=lambda x: x / diagonal)
    assert helped.iterations < plain.iterations / 3
    torch.testing.assert_close(helped.x, plain.x, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("loss", ["bpr", "bce"])
def test_blocks_are_those_of_the_dense_gauss_newton_matrix(loss: str) -> None:
    made = small_objective(layers=0, loss=loss)
    made_blocks = block_diagonal(made, made.theta, damping=0.01)
    matrix = dense(made.curvature(made.theta), made.theta) + 0.01 * torch.eye(36, dtype=torch.float64)
    inverse = dense(made_blocks, made.theta)
    for row in range(12):
        part = slice(3 * row, 3 * row + 3)
        torch.testing.assert_close(inverse[part, part] @ matrix[part, part], torch.eye(3, dtype=torch.float64))
    between = torch.ones(12, 12) - torch.eye(12)
    assert float((inverse.abs() * between.repeat_interleave(3, 0).repeat_interleave(3, 1)).max()) == 0


def test_blocks_alone_solve_the_users_of_fixed_items_and_help_with_the_rest() -> None:
    made = small_objective(layers=0)
    product = made.curvature(made.theta)
    blocks = block_diagonal(made, made.theta)
    users = torch.zeros_like(made.theta)
    users[:18] = 1
    v = made.gradient(made.theta) * users
    found = blocks.solve(lambda x: product(x * users) * users, v)
    assert found.relative_residual < 1e-10  # nothing joins users to each other
    whole = blocks.solve(product, made.gradient(made.theta))
    assert whole.relative_residual > 1e-3 and not whole.converged  # and what joins users to items is left out, and said
    assert float(whole.x @ made.gradient(made.theta)) > 0


def test_leverage_is_the_relative_error_of_the_first_order_step() -> None:
    """Ridge regression, leave one out: the exact change is G^-1 x r / (1 - h), the first order lacks 1 / (1 - h)."""
    stream = torch.Generator().manual_seed(3)
    rows = torch.randn(8, 4, generator=stream, dtype=torch.float64)
    targets = torch.randn(8, generator=stream, dtype=torch.float64)
    gram = rows.T @ rows + 0.5 * torch.eye(4, dtype=torch.float64)
    whole = torch.linalg.solve(gram, rows.T @ targets)
    seen = []
    for n in range(8):
        x, rest = rows[n], targets[n] - rows[n] @ whole
        left = gram - torch.outer(x, x)
        truth = torch.linalg.solve(left, rows.T @ targets - x * targets[n]) - whole
        first = conjugate_gradient(lambda v: gram @ v, -x * rest, tolerance=1e-12).x
        newton = conjugate_gradient(lambda v, left=left: left @ v, -x * rest, tolerance=1e-12).x
        leverage = float(x @ torch.linalg.solve(gram, x))
        error = float((first - truth).norm() / truth.norm())
        assert error == pytest.approx(leverage, rel=1e-9)
        torch.testing.assert_close(newton, truth)
        seen.append(leverage)
    assert min(seen) < 0.4 < 0.6 < max(seen)


def test_a_matrix_that_is_not_positive_is_refused() -> None:
    matrix, v = positive()
    matrix = matrix - 2.0 * torch.eye(30, dtype=torch.float64)
    with pytest.raises(InputError, match="not positive"):
        conjugate_gradient(lambda x: matrix @ x, v)
    with pytest.raises(InputError, match="diverges"):
        lissa(lambda x: matrix @ x, v, scale=3.0)
    with pytest.raises(InputError, match="diverges"):
        lissa(lambda x: positive()[0] @ x, v, scale=1.0)
    with pytest.raises(InputError, match="unknown solver"):
        solve(lambda x: x, v, solver="qr")


def test_nothing_to_solve_takes_no_product() -> None:
    zero = torch.zeros(5, dtype=torch.float64)
    for found in (conjugate_gradient(lambda x: x, zero), lissa(lambda x: x, zero)):
        assert found.iterations == 0 and torch.equal(found.x, zero)
