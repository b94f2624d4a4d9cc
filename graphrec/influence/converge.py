"""Finding a stationary point to the last digits: Newton steps by conjugate gradients within a trust region."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError

Function = Callable[[Tensor], Tensor]
Operator = Callable[[Tensor], Tensor]

# Below this share of the value, a difference of two values is rounding error and says nothing about a step.
_NOISE = 1e-11


@dataclass(frozen=True, eq=False)
class Converged:
    """Where a minimisation ended.

    Attributes:
        theta: (P,) the point.
        value: of the objective there.
        gradient_norm: Euclidean norm of the gradient there.
        converged: whether the norm is within the tolerance.
        steps: Newton steps.
        hvps: Hessian-vector products.
        seconds: wall time.
    """

    theta: Tensor
    value: float
    gradient_norm: float
    converged: bool
    steps: int
    hvps: int
    seconds: float


def converge(
    value: Function,
    gradient: Function,
    curvature: Callable[[Tensor], Operator],
    theta: Tensor,
    *,
    tolerance: float = 1e-6,
    max_steps: int = 500,
    max_hvps: int = 100_000,
    radius: float = 1.0,
) -> Converged:
    r"""Minimise a smooth function from a start by the trust-region Newton method.

    Each step minimises the quadratic model :math:`g^\top s + \tfrac12 s^\top H s` over :math:`\|s\| \le r` by truncated
    conjugate gradients (Steihaug, SIAM J. Numer. Anal. 1983), which follow a direction of negative curvature to the
    edge of the region, so that H may be indefinite or singular on the way. A step is judged by the fall of the value
    as long as that can be told from rounding error, after that by the fall of the gradient: a method that compares
    values alone (``scipy.optimize``'s ``trust-ncg``) stalls short of 1e-6. No draw is made: the same start gives the
    same end.

    Args:
        value: (P,) to a number.
        gradient: (P,) to (P,).
        curvature: (P,) point to the operator ``v -> H v``, (P,) to (P,); called once a step.
        theta: (P,) float64, the start; not changed.
        tolerance: on the Euclidean norm of the gradient.
        max_steps: of Newton.
        max_hvps: Hessian-vector products in all.
        radius: of the first region.

    Raises:
        InputError: ``theta`` is not float64 (float32 stagnates near 1e-4), or the start has no finite value.
    """
    if theta.dtype != torch.float64:
        raise InputError(f"converge needs float64, found {theta.dtype}; make the objective with dtype=torch.float64.")
    started = time.perf_counter()
    theta = theta.detach().clone()
    height, slope = float(value(theta)), gradient(theta)
    norm = float(slope.norm())
    if not (math.isfinite(height) and math.isfinite(norm)):
        raise InputError("the objective or its gradient is not finite at the start.")
    steps = products = 0
    while norm > tolerance and steps < max_steps and products < max_hvps:
        # The forcing term of Eisenstat and Walker: superlinear near the end, no waste far from it.
        hvp = curvature(theta)
        step, image, used, edge = _truncated(hvp, slope, radius, min(0.1, norm**0.5) * norm, max_hvps - products)
        products, steps = products + used, steps + 1
        predicted = -float(slope @ step + 0.5 * (step @ image))
        candidate = theta + step
        there = float(value(candidate))
        after = gradient(candidate)
        if predicted > _NOISE * max(abs(height), 1.0):
            ratio = (height - there) / predicted if math.isfinite(there) else 0.0
        else:
            ratio = 1.0 if float(after.norm()) < norm else 0.0
        if ratio > 1e-4:
            theta, height, slope, norm = candidate, there, after, float(after.norm())
        if ratio < 0.25:
            radius = 0.25 * float(step.norm())
        elif ratio > 0.75 and edge:
            radius = 2.0 * radius
        if radius < 1e-14 * max(1.0, float(theta.norm())):
            break
    return Converged(theta, height, norm, norm <= tolerance, steps, products, time.perf_counter() - started)


def _truncated(
    hvp: Operator, slope: Tensor, radius: float, tolerance: float, limit: int
) -> tuple[Tensor, Tensor, int, bool]:
    """Steihaug's step, H times it, the products it took, and whether it ends at the region's edge."""
    step, image = torch.zeros_like(slope), torch.zeros_like(slope)
    residual = slope.clone()
    direction = -residual
    squared = residual @ residual
    used = 0
    while used < max(limit, 1):
        curved = hvp(direction)
        used += 1
        curvature = direction @ curved
        length = squared / curvature if curvature > 0 else curvature.new_tensor(torch.inf)
        if curvature <= 0 or float((step + length * direction).norm()) >= radius:
            length = _to_the_edge(step, direction, radius)
            return step + length * direction, image + length * curved, used, True
        step, image = step + length * direction, image + length * curved
        residual = residual + length * curved
        before, squared = squared, residual @ residual
        if float(squared) ** 0.5 <= tolerance:
            break
        direction = squared / before * direction - residual
    return step, image, used, False


def _to_the_edge(step: Tensor, direction: Tensor, radius: float) -> Tensor:
    """The positive t with ``|step + t direction| = radius``."""
    a, b, c = direction @ direction, step @ direction, step @ step - radius**2
    root: Tensor = (b * b - a * c).clamp_min(0).sqrt()
    # The form without cancellation.
    return (-c) / (b + root) if b > 0 else (root - b) / a
