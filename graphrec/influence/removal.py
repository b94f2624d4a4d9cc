r"""One step from a trained model to the one without some edges: parameters after a deletion, without retraining.

    theta = removal_step(made, edge_ids)                          # (n,) new parameters; mode="gif"
    found = removal(made, edge_ids, mode="newton")                # the same with what the solver did
    found.theta, found.step, found.solution.relative_residual, found.gradient_norm, found.damping

For removed edges F and weights :math:`w_F` (0 on F), with the curvature H of the objective (Gauss-Newton, or the exact
Hessian) plus damping:

- ``derivative``: :math:`\Delta\theta = H^{-1} \sum_{e \in F} c_e`, the derivative in the weights, taken all the way;
- ``gif``: :math:`-H^{-1} (\nabla L(\theta; w_F) - \nabla L(\theta; 1))`, the difference in place of the derivative
  (Wu et al., "GIF: A General Graph Unlearning Strategy via Influence Function", WWW 2023,
  https://arxiv.org/abs/2304.02835);
- ``newton``: the same with the curvature of the objective without F: a Newton step on what remains.

The gradient that the trained model still has (early stopping, Adam) is taken away, so that an empty request gives θ
back bit by bit; at an optimum it is 0 and the formulas are the textbook's. ``subtract_gradient=False`` leaves it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import EdgeType
from graphrec.influence.objective import Objective, Removed
from graphrec.influence.solvers import Operator, Solution, largest_eigenvalue, solve

Mode = Literal["derivative", "gif", "newton"]
MODES = ("derivative", "gif", "newton")


@dataclass(frozen=True)
class Removal:
    """What a removal gives.

    Attributes:
        theta: (n,) parameters after it.
        step: (n,) the change.
        solution: what the solver did.
        gradient_norm: ‖∇L(θ; 1)‖ of the trained model, how far from an optimum it is.
        damping: δ, absolute.
    """

    theta: Tensor
    step: Tensor
    solution: Solution
    gradient_norm: float
    damping: float


def removal_step(objective: Objective, removed: Removed, *, mode: Mode = "gif", **options: object) -> Tensor:
    """New parameters (n,) after the deletion of edges; options of :func:`removal`."""
    return removal(objective, removed, mode=mode, **options).theta  # type: ignore[arg-type]


def removal(
    objective: Objective,
    removed: Removed,
    *,
    mode: Mode = "gif",
    theta: Tensor | None = None,
    gauss_newton: bool = True,
    damping: float = 1e-3,
    solver: str = "cg",
    tolerance: float = 1e-4,
    max_iterations: int = 500,
    preconditioner: Operator | None = None,
    project: Operator | None = None,
    subtract_gradient: bool = True,
) -> Removal:
    """See the module.

    Args:
        objective: of the trained model, with every edge.
        removed: edge ids (M,) of the ranked behaviour, or by edge type (``gif`` and ``newton`` take every type).
        mode: see the module.
        theta: the trained parameters; None: those the objective was made with.
        gauss_newton: False for the exact Hessian, which is positive near an optimum alone.
        damping: δ as a share of the curvature's largest eigenvalue.
        solver: ``cg``, ``lissa`` or ``arnoldi``.
        tolerance: relative residual.
        max_iterations: products with the curvature at most.
        preconditioner: see :func:`graphrec.influence.solvers.conjugate_gradient`.
        project: see there.
        subtract_gradient: see the module.

    Raises:
        InputError: an unknown mode, an edge that the model's graph does not have, a curvature that is not positive.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    theta = objective.theta if theta is None else theta
    before = objective.gradient(theta)
    norm = float(before.norm())
    if count_removed(removed) == 0:
        nothing = torch.zeros_like(theta)
        return Removal(theta.clone(), nothing, Solution(nothing, 0.0, 0, True, 0.0), norm, 0.0)
    w_loss, w_graph = objective.weights(removed)
    if mode == "derivative":
        if isinstance(removed, Mapping) and any(len(ids) for kind, ids in removed.items() if kind != objective.target):
            raise InputError(
                "mode='derivative' removes edges of the ranked behaviour; use 'gif' or 'newton' for others."
            )
        change = objective.mixed_step(theta, w_loss - 1)
        if not subtract_gradient:
            change = change + before
    else:
        change = objective.gradient(theta, w_loss, w_graph)
        if subtract_gradient:
            change = change - before
    if mode == "newton":
        product = objective.curvature(theta, w_loss, w_graph, gauss_newton=gauss_newton)
    else:
        product = objective.curvature(theta, gauss_newton=gauss_newton)
    absolute = damping * largest_eigenvalue(product, theta) if damping else 0.0
    solution = solve(
        product,
        -change,
        solver=solver,
        damping=absolute,
        tolerance=tolerance,
        max_iterations=max_iterations,
        preconditioner=preconditioner,
        project=project,
    )
    return Removal(theta + solution.x, solution.x, solution, norm, absolute)


def count_removed(removed: Removed | Mapping[EdgeType, Tensor]) -> int:
    """How many edge ids there are."""
    if isinstance(removed, Mapping):
        return sum(len(ids) for ids in removed.values())
    return len(removed)
