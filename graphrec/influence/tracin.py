r"""TracIn on a graph: what an edge's gradients did to a query along the training.

A step of gradient descent at rate η on edge e's share of the objective changes a query by
:math:`-\eta \nabla f \cdot c_e`; the sum over checkpoints says what the edge has contributed, and its absence the
opposite (Pruthi et al., NeurIPS 2020, https://arxiv.org/abs/2002.08484, section 3.2):

.. math:: I(e) = f(\text{without } e) - f \approx \sum_c \eta_c \, \nabla f(\theta_c) \cdot c_e(\theta_c)

In the paper :math:`c_e` is the gradient of the example's own loss. An edge of a graph also acts through propagation
and through the negatives of its user: here :math:`c_e = \partial_{w_e} \nabla_\theta L` has all three,
``parts=("loss",)`` is the paper's. Sign: the paper's proponents of a test loss are positive, and so are they here:
without a proponent the loss is higher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.influence.objective import Objective
from graphrec.influence.queries import Query, differentiated

PARTS = ("loss", "graph", "negatives")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Parameters on the way of a training, and the sum of the learning rates since the last one.

    Attributes:
        theta: (P,).
        rate: on the objective's scale (a sum over edges, not their mean).
    """

    theta: Tensor
    rate: float


def descent(made: Objective, start: Tensor, *, steps: int, rate: float, every: int) -> tuple[Checkpoint, ...]:
    """Checkpoints of plain gradient descent on the whole objective, one every ``every`` steps.

    Args:
        made: the objective.
        start: (P,).
        steps: how many.
        rate: learning rate; below 2 / λ_max of the Hessian for the descent to converge.
        every: steps from one checkpoint to the next.

    Raises:
        InputError: the descent diverged.
    """
    theta = start.detach().clone()
    kept: list[Checkpoint] = []
    height = float(made.value(theta))
    for step in range(1, steps + 1):
        theta = theta - rate * made.gradient(theta)
        if step % every == 0 or step == steps:
            kept.append(Checkpoint(theta, rate * (step - (len(kept)) * every)))
    reached = float(made.value(theta))
    if not reached <= height:
        raise InputError(f"gradient descent went from {height:.4g} to {reached:.4g}; take a rate below {rate:g}.")
    return tuple(kept)


@torch.no_grad()
def tracin(made: Objective, checkpoints: Sequence[Checkpoint], query: Query, *, parts: Sequence[str] = PARTS) -> Tensor:
    """I(e) of every edge on every query, (Q, E); see the module.

    Args:
        made: the objective.
        checkpoints: of its training.
        query: the quantities.
        parts: the ways in which an edge acts, see :meth:`graphrec.influence.objective.Objective.mixed`.

    Raises:
        InputError: no checkpoints.
    """
    if not checkpoints:
        raise InputError("TracIn needs at least one checkpoint.")
    total: Tensor | float = 0.0
    for checkpoint in checkpoints:
        slopes = differentiated(query, checkpoint.theta, made)[1]
        rows = [made.mixed(checkpoint.theta, slope, parts=parts) for slope in slopes]
        total = total + checkpoint.rate * torch.stack(rows)
    assert isinstance(total, Tensor)
    return total
