r"""Solutions of ``(H + δ I) x = v`` for a matrix that is known by its products alone.

A product is a function from (n,) to (n,); ``v`` is (n,). δ (``damping``) is absolute: :func:`largest_eigenvalue` tells
the scale. At an optimum of a loss of dot products the exact Hessian of tables of width d has d (d - 1) / 2 directions
of curvature 0 (rotations of the tables, which change no score); δ > 0 fixes them, or ``project``
(:class:`Rotations`) solves on what is orthogonal to them. The Gauss-Newton matrix with a ridge has no such direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.randomness import generator

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    r"""A solution and how good it is.

    Attributes:
        x: (n,).
        relative_residual: ‖(H + δ I) x - v‖ / ‖v‖, computed from x itself; 0 for v = 0.
        iterations: products with H that were taken.
        converged: whether the tolerance was met (Arnoldi and blocks have none: True where the residual is below it).
        damping: δ.
    """

    x: Tensor
    relative_residual: float
    iterations: int
    converged: bool
    damping: float = 0.0


def conjugate_gradient(
    hvp: Operator,
    v: Tensor,
    *,
    damping: float = 0.0,
    tolerance: float = 1e-5,
    max_iterations: int = 200,
    preconditioner: Operator | None = None,
    project: Operator | None = None,
    start: Tensor | None = None,
) -> Solution:
    """Conjugate gradients (Hestenes and Stiefel 1952); H + δ I must be positive on what ``project`` leaves.

    Args:
        hvp: product with H.
        v: right-hand side.
        damping: δ.
        tolerance: relative residual to stop at.
        max_iterations: products at most.
        preconditioner: a product with a symmetric positive matrix near the inverse; see :mod:`.block_diagonal`.
        project: an orthogonal projection; the system is solved on its image.
        start: first guess; None: 0, which gives the shortest solution where H is singular.

    Raises:
        InputError: a direction of negative curvature, which says that H + δ I is not positive.
    """
    keep: Operator = (lambda x: x) if project is None else project
    apply: Operator = lambda x: keep(hvp(keep(x)) + damping * keep(x))  # noqa: E731
    v = keep(v)
    size = float(v.norm())
    if size == 0.0:
        return Solution(torch.zeros_like(v), 0.0, 0, True, damping)
    x = torch.zeros_like(v) if start is None else keep(start).clone()
    residual = v.clone() if start is None else v - apply(x)
    taken = 0 if start is None else 1
    searched = residual if preconditioner is None else keep(preconditioner(residual))
    direction, product = searched.clone(), float(residual @ searched)
    best, smallest = x.clone(), float(residual.norm())
    while smallest > tolerance * size and taken < max_iterations:
        turned = apply(direction)
        taken += 1
        curvature = float(direction @ turned)
        if curvature <= 0:
            if curvature < -1e-9 * float(direction @ direction) or product > (1e-12 * size) ** 2:
                raise InputError(
                    f"conjugate gradients met curvature {curvature / float(direction @ direction):.3g} after {taken} "
                    "products: the matrix is not positive. Use the Gauss-Newton matrix, more damping, or project out "
                    "the rotations."
                )
            break
        step = product / curvature
        x = x + step * direction
        residual = residual - step * turned
        norm = float(residual.norm())
        if norm < smallest:
            best, smallest = x, norm
        searched = residual if preconditioner is None else keep(preconditioner(residual))
        following = float(residual @ searched)
        direction = searched + (following / product) * direction
        product = following
    reached = float((apply(best) - v).norm()) / size
    return Solution(best, reached, taken, reached <= 2 * tolerance, damping)


def lissa(
    hvp: Operator,
    v: Tensor,
    *,
    damping: float = 0.0,
    scale: float | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 5000,
    project: Operator | None = None,
) -> Solution:
    r"""The Neumann series (Agarwal et al., JMLR 2017): :math:`h \leftarrow v + h - (H + \delta I) h / s`, x = h / s.

    It converges where s exceeds half of the largest eigenvalue of H + δ I (``scale``; None: that eigenvalue itself,
    estimated from above), at the rate of s over the smallest. Published settings take 5 steps and a damping *within*
    the series, :math:`(1 - \delta_0) h - H h / s`, which is this with δ = δ₀ s.

    Raises:
        InputError: the series diverges: the scale is too small, or H + δ I is not positive.
    """
    keep: Operator = (lambda x: x) if project is None else project
    v = keep(v)
    size = float(v.norm())
    if size == 0.0:
        return Solution(torch.zeros_like(v), 0.0, 0, True, damping)
    taken = 0
    if scale is None:
        taken = 12
        scale = 1.05 * (largest_eigenvalue(hvp, v, steps=taken) + damping)
    x = torch.zeros_like(v)
    residual, first = v, size
    reached = 1.0
    while taken < max_iterations:
        # The step is the residual: h + (v - (H + δ I) h / s) in terms of x = h / s.
        x = x + residual / scale
        residual = v - keep(hvp(x) + damping * x)
        taken += 1
        reached = float(residual.norm()) / size
        if not reached < 1e3 * first:
            raise InputError(f"the series diverges with scale {scale:.3g}; give a larger one, or more damping.")
        if reached <= tolerance:
            break
    return Solution(x, reached, taken, reached <= tolerance, damping)


@dataclass(frozen=True)
class Spectrum:
    """Leading eigenpairs of H: :attr:`values` (r,) and orthonormal :attr:`vectors` (r, n)."""

    values: Tensor
    vectors: Tensor


def arnoldi_spectrum(hvp: Operator, like: Tensor, *, steps: int = 100, rank: int = 50, seed: int = 0) -> Spectrum:
    """The ``rank`` largest eigenpairs (by size) from a Krylov space of ``steps`` products (Schioppa et al., AAAI 2022).

    H is symmetric, so that Arnoldi's recursion is Lanczos's, made orthogonal again against all vectors. Memory is
    ``steps`` vectors.

    Args:
        hvp: product with H.
        like: (n,) for size, type and device.
        steps: dimension of the Krylov space.
        rank: how many pairs are kept.
        seed: of the random start.
    """
    start = torch.randn(like.shape, generator=generator(seed, "arnoldi"), dtype=torch.float64).to(like)
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, len(like))):
        image = hvp(basis[-1])
        diagonal.append(float(basis[-1] @ image))
        known = torch.stack(basis)
        for _ in range(2):  # once is not enough in floating point
            image = image - known.T @ (known @ image)
        length = float(image.norm())
        if length <= 1e-10 * max(1e-300, max(abs(x) for x in diagonal)) or len(basis) == len(like):
            break
        beside.append(length)
        basis.append(image / length)
    size = len(diagonal)
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    off = torch.tensor(beside[: size - 1], dtype=torch.float64)
    small = small + torch.diag(off, 1) + torch.diag(off, -1)
    values, turns = torch.linalg.eigh(small)
    order = torch.argsort(values.abs(), descending=True)[:rank]
    vectors = turns[:, order].T.to(like) @ torch.stack(basis[:size])
    return Spectrum(values[order].to(like), vectors)


def arnoldi(
    hvp: Operator,
    v: Tensor,
    *,
    damping: float = 0.0,
    steps: int = 100,
    rank: int = 50,
    seed: int = 0,
    tolerance: float = 1e-3,
    spectrum: Spectrum | None = None,
) -> Solution:
    """x in the span of the leading eigenvectors, Σ ⟨v, q⟩ / (μ + δ) q; what lies outside of it is left at 0.

    The residual says how much of v that is. ``spectrum`` reuses eigenpairs for many right-hand sides.
    """
    taken = 0
    if spectrum is None:
        spectrum = arnoldi_spectrum(hvp, v, steps=steps, rank=rank, seed=seed)
        taken = min(steps, len(v))
    shifted = spectrum.values + damping
    kept = shifted > 1e-10 * shifted.abs().max()
    inner = (spectrum.vectors @ v)[kept] / shifted[kept]
    x = spectrum.vectors[kept].T @ inner
    size = float(v.norm())
    reached = 0.0 if size == 0 else float((hvp(x) + damping * x - v).norm()) / size
    return Solution(x, reached, taken + 1, reached <= tolerance, damping)


def largest_eigenvalue(hvp: Operator, like: Tensor, *, steps: int = 12, seed: int = 0) -> float:
    """An estimate of the largest eigenvalue, from below, by ``steps`` products.

    Lanczos's recursion with three vectors: that they lose their orthogonality repeats eigenvalues and moves none.
    """
    start = torch.randn(like.shape, generator=generator(seed, "arnoldi"), dtype=torch.float64).to(like)
    own, before = start / start.norm(), torch.zeros_like(start)
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, len(like))):
        image = hvp(own) - (beside[-1] if beside else 0.0) * before
        diagonal.append(float(own @ image))
        image = image - diagonal[-1] * own
        length = float(image.norm())
        if length <= 1e-10 * max(abs(x) for x in diagonal):
            break
        beside.append(length)
        own, before = image / length, own
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(small)[-1])


class Rotations:
    r"""The projection away from rotations of two tables, :math:`\{E S : S^\top = -S\}` with E both tables stacked.

    A loss of dot products is the same for E and E Q with Q orthogonal, whatever the ridge, so that these d (d - 1) / 2
    directions have curvature 0 at every optimum. The nearest E S to V solves :math:`M S + S M = E^\top V - V^\top E`,
    :math:`M = E^\top E`: one eigendecomposition of (d, d), and no basis of n-vectors.

    Args:
        tables: (N, d) of every table that turns together.
    """

    def __init__(self, *tables: Tensor) -> None:
        self.tables = tables
        self.width = tables[0].shape[1]
        gram = sum((table.T @ table for table in tables), tables[0].new_zeros(self.width, self.width))
        values, self.turn = torch.linalg.eigh(gram)
        sums = values[:, None] + values[None, :]
        self.weight = torch.where(sums > 1e-12 * values.max(), 1 / sums.clamp_min(1e-300), 0.0)

    @property
    def count(self) -> int:
        """d (d - 1) / 2."""
        return self.width * (self.width - 1) // 2

    def __call__(self, v: Tensor) -> Tensor:
        """What of v (n,), the tables one after another, is orthogonal to every rotation."""
        parts = [
            x.view(table.shape) for x, table in zip(v.split([t.numel() for t in self.tables]), self.tables, strict=True)
        ]
        inner = sum((table.T @ x for table, x in zip(self.tables, parts, strict=True)), torch.zeros_like(self.turn))
        skew = self.turn @ (self.weight * (self.turn.T @ (inner - inner.T) @ self.turn)) @ self.turn.T
        return torch.cat([(x - table @ skew).reshape(-1) for x, table in zip(parts, self.tables, strict=True)])


SOLVERS = ("cg", "lissa", "arnoldi")


def solve(
    hvp: Operator,
    v: Tensor,
    *,
    solver: str = "cg",
    damping: float = 0.0,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
    preconditioner: Operator | None = None,
    project: Operator | None = None,
) -> Solution:
    """One of the solvers by name: ``cg``, ``lissa`` or ``arnoldi`` (``max_iterations`` steps, half of them kept)."""
    if solver == "cg":
        return conjugate_gradient(
            hvp,
            v,
            damping=damping,
            tolerance=tolerance,
            max_iterations=max_iterations,
            preconditioner=preconditioner,
            project=project,
        )
    if solver == "lissa":
        return lissa(hvp, v, damping=damping, tolerance=tolerance, max_iterations=max_iterations, project=project)
    if solver == "arnoldi":
        right = v if project is None else project(v)
        steps = max(2, min(max_iterations, 200))
        return arnoldi(hvp, right, damping=damping, steps=steps, rank=max(1, steps // 2), tolerance=tolerance)
    raise unknown("solver", solver, SOLVERS)
