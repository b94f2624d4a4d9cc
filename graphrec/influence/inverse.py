"""The inverse of an objective's curvature at a point, made once and applied to many vectors, with what it cost."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.influence.linear_objective import LinearObjective
from graphrec.influence.objective import Objective
from graphrec.influence.solvers import (
    Operator,
    Rotations,
    Solution,
    arnoldi,
    arnoldi_spectrum,
    conjugate_gradient,
    largest_eigenvalue,
    lissa,
)

SolverName = Literal["cg", "lissa", "arnoldi", "dense"]
SOLVER_NAMES = ("cg", "lissa", "arnoldi", "dense")

DENSE_UP_TO = 6000
"""Parameters up to which the whole matrix is formed: 290 MB at 6,000."""


class Inverse:
    r"""``(C + δ I)^{-1}`` with C the Gauss-Newton matrix or the exact Hessian.

    Args:
        made: the objective.
        theta: (P,) the point.
        solver: ``cg``; ``lissa``; ``arnoldi``: the leading eigenpairs of one Krylov space, for all vectors; ``dense``:
            the matrix from P products and its Cholesky factor, for small models.
        gauss_newton: False for the exact Hessian. At a stationary point it is singular in the rotations of the tables;
            for a model of two tables these are projected out.
        damping: δ as a share of the curvature's largest eigenvalue.
        tolerance: relative residual that ``cg`` and ``lissa`` stop at.
        max_iterations: products for one vector, or for the Krylov space, half of whose pairs are kept.

    Attributes:
        damping: δ, absolute.
        products: with C so far, preparation included.
        worst: the largest relative residual so far, of the damped system.
        raised: systems of :meth:`on` so far that needed more damping than δ.
        prepared: seconds that the constructor took.

    Raises:
        InputError: an unknown solver, more parameters than ``dense`` takes, or a matrix that is not positive.
    """

    def __init__(
        self,
        made: Objective,
        theta: Tensor,
        *,
        solver: SolverName = "cg",
        gauss_newton: bool = True,
        damping: float = 1e-3,
        tolerance: float = 1e-4,
        max_iterations: int = 500,
    ) -> None:
        if solver not in SOLVER_NAMES:
            raise unknown("solver", solver, SOLVER_NAMES)
        if solver == "dense" and len(theta) > DENSE_UP_TO:
            raise InputError(
                f"solver='dense' forms at most {DENSE_UP_TO:,} rows, the model has {len(theta):,}; use 'cg'."
            )
        started = time.perf_counter()
        self.made, self.theta, self.solver, self.gauss_newton = made, theta, solver, gauss_newton
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.products, self.worst, self.raised = 0, 0.0, 0
        self._project = None
        if not gauss_newton and isinstance(made, LinearObjective):
            self._project = Rotations(*made.tables(theta))
        self._product = self._counted(made.curvature(theta, gauss_newton=gauss_newton))
        self._top = largest_eigenvalue(self._product, theta)
        self.damping = damping * self._top
        if solver == "arnoldi":
            steps = min(max_iterations, len(theta))
            self._spectrum = arnoldi_spectrum(self._product, theta, steps=steps, rank=max(1, steps // 2))
        elif solver == "dense":
            self._factor = self._cholesky()
        self.prepared = time.perf_counter() - started

    def __call__(self, v: Tensor) -> Tensor:
        """The product with v, (P,) to (P,)."""
        solution = self._solve(v)
        self.worst = max(self.worst, solution.relative_residual)
        return solution.x

    def on(self, weight: Tensor, v: Tensor) -> Tensor:
        """The product of v with the inverse for other weights (E,) of the edges at the same point.

        By conjugate gradients; a ``dense`` inverse serves as their preconditioner, since a few edges change little.
        The point is no minimum for other weights, so that the exact Hessian may have a negative direction there: δ is
        then raised until it has none, which :attr:`raised` counts.
        """
        product = self._counted(self.made.curvature(self.theta, weight, weight, gauss_newton=self.gauss_newton))
        near = self._substituted if self.solver == "dense" else None
        damping = self.damping
        while True:
            try:
                solution = self._by_gradients(product, v, near, damping)
                break
            except InputError:
                if damping > self._top:
                    raise
                damping = max(10 * damping, 1e-3 * self._top)
        self.raised += damping > self.damping
        self.worst = max(self.worst, solution.relative_residual)
        return solution.x

    def _solve(self, v: Tensor) -> Solution:
        if self.solver == "cg":
            return self._by_gradients(self._product, v, None, self.damping)
        if self.solver == "lissa":
            return lissa(
                self._product,
                v,
                damping=self.damping,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
                project=self._project,
            )
        right = v if self._project is None else self._project(v)
        if self.solver == "arnoldi":
            return arnoldi(self._product, right, damping=self.damping, spectrum=self._spectrum)
        x = self._substituted(right)
        size = float(right.norm())
        rest = self._product(x) + self.damping * x - right
        return Solution(x, float(rest.norm()) / size if size else 0.0, 1, True, self.damping)

    def _by_gradients(self, product: Operator, v: Tensor, preconditioner: Operator | None, damping: float) -> Solution:
        return conjugate_gradient(
            product,
            v,
            damping=damping,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            preconditioner=preconditioner,
            project=self._project,
        )

    def _substituted(self, v: Tensor) -> Tensor:
        return torch.cholesky_solve(v[:, None], self._factor)[:, 0]

    def _cholesky(self) -> Tensor:
        size = len(self.theta)
        matrix = self.theta.new_empty(size, size)
        unit = torch.zeros_like(self.theta)
        for row in range(size):
            unit[row] = 1.0
            matrix[row] = self._product(unit)
            unit[row] = 0.0
        matrix = (matrix + matrix.T) / 2
        matrix.diagonal().add_(self.damping)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed):
            raise InputError(
                "the curvature is not positive: use the Gauss-Newton matrix, more damping, or a point nearer a minimum."
            )
        return factor

    def _counted(self, product: Operator) -> Operator:
        def counted(v: Tensor) -> Tensor:
            self.products += 1
            return product(v)

        return counted
