"""AltEraser: the remaining objective is minimised again from where the training ended, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.influence.converge import converge
from graphrec.influence.objective import Objective
from graphrec.influence.solvers import Operator, largest_eigenvalue
from graphrec.randomness import derive, hash_uniform
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.methods.estimates import conjugate_gradient_products
from graphrec.unlearning.second_order import POWER_STEPS, Curvature, Facts, OnObjective


@dataclass(frozen=True)
class AltEraser(OnObjective):
    r"""AltEraser (Liu et al., "Making Recommender Systems Forget", 2022, https://arxiv.org/abs/2208.06875).

    Forgetting as optimisation on what remains, from the trained parameters, in blocks that are small problems each:
    the users' table with all else fixed, the items' table with all else fixed, and, where there are any, the other
    parameters. A visit to a block b takes Newton steps :math:`\Delta_b = -H_b^{-1} g_b` by conjugate gradients on
    products with the block's Hessian, which may be summed over a sample of the edges. A trust region keeps every step
    from raising the objective. For a pointwise squared loss H_b is block-diagonal, and a visit that is carried to its
    end is an exact half of alternating least squares; with enough sweeps the end is a stationary point of the remaining
    objective. (No official code was at hand.)

    What is minimised is, with L the fixed objective of the model (:mod:`graphrec.influence.objective`) and F to forget,

    .. math:: J(\theta) = L(\theta; D \setminus F) - \langle \nabla L(\theta^*; D), \theta\rangle
              + \frac\delta2 \|\theta - \theta^*\|^2

    At a minimum θ* of L the second term is 0, and with δ = 0 this is the remaining objective itself. A training that
    was stopped early is at no minimum; the terms then make θ* the minimum for an empty F, so that no step trains on
    instead of forgetting. ``paper_exact`` leaves both out. What is far from the end is left of F: the outcome is
    ``approximate``, and ``facts`` states the gradient norms of J at the start and at the end.

    Attributes:
        sweeps: visits of every block.
        steps: of Newton in a visit, at most.
        iterations: products with the Hessian in a visit, at most.
        tolerance: gradient norm of a block, as a share of that of J at the start, at which a visit ends.
        damping: δ as a share of the largest eigenvalue of the Gauss-Newton curvature at the start.
        curvature: ``gauss_newton`` or ``hessian``. They are one for tables that score by themselves (BPRMF), where each
            block is a convex problem; with a propagation the Hessian has directions of negative curvature, which the
            trust region follows to its edge.
        sample: share of the edges that a step's Hessian is summed over; the gradient takes all.
        paper_exact: J is the remaining objective alone.
    """

    name: ClassVar[str] = "alteraser"
    sweeps: int = 3
    steps: int = 1
    iterations: int = 30
    tolerance: float = 1e-3
    damping: float = 0.1
    curvature: Curvature = "gauss_newton"
    sample: float = 1.0
    paper_exact: bool = False

    def __post_init__(self) -> None:
        for name in ("sweeps", "steps", "iterations"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, found {getattr(self, name)}.")
        if self.damping < 0 or not self.tolerance > 0:
            raise InputError(
                f"damping must be 0 or more and tolerance above 0, found {self.damping} and {self.tolerance}."
            )
        if self.curvature not in ("gauss_newton", "hessian"):
            raise unknown("curvature", self.curvature, ("gauss_newton", "hessian"))
        if not 0 < self.sample <= 1:
            raise InputError(f"sample must lie in (0, 1], found {self.sample}.")

    def products(self, task: Task) -> int:
        """Of every visit of a block, for each step what the solver takes at most and three gradients and values."""
        # An undamped block is as badly conditioned as can be.
        a_step = conjugate_gradient_products(0.0 if self.paper_exact else self.damping, self.tolerance, self.iterations)
        tables = {"user_embedding", "item_embedding"}
        names = {name for name, _ in task.model.named_parameters()}
        visits = self.sweeps * (len(names & tables) + bool(names - tables))
        return POWER_STEPS + visits * min(self.steps * (a_step + 3), self.iterations + 3 * self.steps)

    def moved(self, task: Task, made: Objective, facts: Facts) -> Tensor:
        """See the class."""
        start = made.theta
        w_loss, w_graph = made.weights(task.removed)
        tilt, damping = torch.zeros_like(start), 0.0
        if not self.paper_exact:
            tilt = made.gradient(start)
            if self.damping:
                product = made.curvature(start, w_loss, w_graph)
                damping = self.damping * largest_eigenvalue(product, start, steps=POWER_STEPS)

        def value(theta: Tensor) -> Tensor:
            apart = theta - start
            return made.value(theta, w_loss, w_graph).detach() - tilt @ apart + 0.5 * damping * (apart @ apart)

        def gradient(theta: Tensor) -> Tensor:
            return made.gradient(theta, w_loss, w_graph) - tilt + damping * (theta - start)

        drawn = 0

        def curvature(theta: Tensor) -> Operator:
            nonlocal drawn
            weight = w_loss
            if self.sample < 1:
                seed = derive(task.seed, "alteraser", drawn)
                kept = hash_uniform(seed, made.edge_index[0], made.edge_index[1]) < self.sample
                weight, drawn = w_loss * kept / self.sample, drawn + 1
            product = made.curvature(theta, weight, w_graph, w_loss, gauss_newton=self.curvature == "gauss_newton")
            return lambda v: product(v) + damping * v

        first = float(gradient(start).norm())
        theta, products = alternate(
            value,
            gradient,
            curvature,
            start,
            blocks(made),
            sweeps=self.sweeps,
            steps=self.steps,
            iterations=self.iterations,
            tolerance=self.tolerance * first,
        )
        facts |= {
            "gradient_norm_start": first,
            "gradient_norm_end": float(gradient(theta).norm()),
            "iterations": products,
            "damping": damping,
            "step_norm": float((theta - start).norm()),
        }
        return theta


def blocks(made: Objective) -> list[Tensor]:
    """Places in θ of the users' table, of the items' table, and of all other parameters, (n_b,) int64 each."""
    sizes = {name: shape.numel() for name, shape in made.shapes.items()}
    names = {name: number for number, name in enumerate(("user_embedding", "item_embedding"))}
    owner = torch.cat([torch.full((size,), names.get(name, 2), device=made.device) for name, size in sizes.items()])
    return [places for number in range(3) if len(places := torch.nonzero(owner == number)[:, 0])]


def alternate(
    value: Callable[[Tensor], Tensor],
    gradient: Callable[[Tensor], Tensor],
    curvature: Callable[[Tensor], Operator],
    theta: Tensor,
    blocks: Sequence[Tensor],
    *,
    sweeps: int,
    steps: int,
    iterations: int,
    tolerance: float,
) -> tuple[Tensor, int]:
    """Minimise a function of θ (n,) by Newton steps in one block of coordinates after another.

    Args:
        value: θ to a number.
        gradient: θ to (n,).
        curvature: θ to the product with the Hessian there.
        theta: the start, float64.
        blocks: places of the coordinates of each block.
        sweeps: visits of each block.
        steps: Newton steps of a visit at most.
        iterations: products of a visit at most.
        tolerance: gradient norm of a block at which a visit ends.

    Returns:
        θ, and how many products were taken.
    """
    products = 0
    for _ in range(sweeps):
        for places in blocks:
            block = _Block(value, gradient, curvature, theta, places)
            start = theta[places]
            found = converge(
                block.value,
                block.gradient,
                block.curvature,
                start,
                tolerance=tolerance,
                max_steps=steps,
                max_hvps=iterations,
                radius=max(1.0, float(start.norm())),
            )
            theta, products = block.whole(found.theta), products + found.hvps
    return theta, products


@dataclass(frozen=True, eq=False)
class _Block:
    """A function of θ as one of some coordinates, the others as they are in ``point``."""

    of: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    bend: Callable[[Tensor], Operator]
    point: Tensor
    places: Tensor

    def whole(self, x: Tensor) -> Tensor:
        return self.point.index_copy(0, self.places, x)

    def value(self, x: Tensor) -> Tensor:
        return self.of(self.whole(x))

    def gradient(self, x: Tensor) -> Tensor:
        return self.slope(self.whole(x))[self.places]

    def curvature(self, x: Tensor) -> Operator:
        product, zeros = self.bend(self.whole(x)), torch.zeros_like(self.point)
        return lambda v: product(zeros.index_copy(0, self.places, v))[self.places]
