r"""The truth that influence is measured against: the objective minimised again without some edges.

Two questions are told apart. *Where does this solution move to* when edges go is answered by a warm start from the
trained parameters (the stationary point is followed, nothing is drawn): that is what influence functions estimate.
*What would a training without the edges have given* is answered by fresh starts with several seeds; between them lies
what the objective's other minima add. Either way every retraining ends at a stated gradient norm, and says which.

A deletion is a weight of 0 in the loss, in the propagation with its degrees, and in the negatives as the objective
counts them; the regulariser stays λ/2 |θ|² (or counts rows, as the objective does).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import InputError
from graphrec.influence.converge import Converged, converge
from graphrec.influence.objective import Objective
from graphrec.influence.queries import Query
from graphrec.randomness import derive


@dataclass(frozen=True, eq=False)
class Truth:
    """Queries after retraining.

    Attributes:
        values: (Q, M), of each query after each of M retrainings.
        before: (Q,), with every edge.
        gradient_norm: (M,), where each retraining ended.
        steps: (M,) Newton steps.
        hvps: in all.
        seconds: in all.
    """

    values: NDArray[np.float64]
    before: NDArray[np.float64]
    gradient_norm: NDArray[np.float64]
    steps: NDArray[np.int64]
    hvps: int
    seconds: float

    @property
    def change(self) -> NDArray[np.float64]:
        """(Q, M), the values less those with every edge."""
        return self.values - self.before[:, None]


def minimise(
    made: Objective,
    theta: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    tolerance: float = 1e-6,
    max_steps: int = 500,
) -> Converged:
    """The objective's stationary point nearest to a start, with some weights of edges.

    Args:
        made: in float64.
        theta: the start; None: the parameters that the objective was made with.
        weight: (E,) of the edges, 1 there and 0 deleted; None: all there.
        tolerance: on the gradient norm.
        max_steps: of Newton; see :func:`graphrec.influence.converge.converge`.
    """
    return converge(
        lambda point: made.value(point, weight, weight).detach(),
        lambda point: made.gradient(point, weight, weight),
        lambda point: made.curvature(point, weight, weight, gauss_newton=False),
        made.theta if theta is None else theta,
        tolerance=tolerance,
        max_steps=max_steps,
    )


def fresh_start(made: Objective, seed: int, scale: float = 0.1) -> Tensor:
    """(P,) entries N(0, scale²), as a training starts; the same for every subset of the edges."""
    stream = torch.Generator().manual_seed(derive(seed, "truth/start"))
    return scale * torch.randn(len(made.theta), generator=stream, dtype=torch.float64).to(made.device)


def leave_one_out(
    made: Objective, theta: Tensor, query: Query, edges: NDArray[np.int64], *, tolerance: float = 1e-6
) -> Truth:
    """Retraining without each of some edges alone, from a warm start.

    Args:
        made: the objective.
        theta: (P,) a stationary point of it, within ``tolerance``.
        query: what is looked at.
        edges: (M,) positions in the objective's edge list.
        tolerance: on the gradient norm of each retraining.

    Raises:
        InputError: ``theta`` is not stationary, or a retraining did not get there.
    """
    norm = float(made.gradient(theta).norm())
    if norm > tolerance:
        raise InputError(
            f"the gradient norm at the start is {norm:.2g}, {tolerance:.2g} is asked for: minimise the objective first "
            "(the change would mix the edge's removal with training on)."
        )
    weights = (_without(made, edge) for edge in np.asarray(edges).tolist())
    return _retrained(made, theta, query, weights, tolerance)


def on_subsets(
    made: Objective,
    theta: Tensor,
    query: Query,
    kept: NDArray[np.bool_],
    *,
    tolerance: float = 1e-6,
    seeds: int = 0,
    scale: float = 0.1,
) -> Truth:
    """Retraining on each of some subsets of the edges.

    Args:
        made: the objective.
        theta: (P,) the warm start.
        query: what is looked at.
        kept: (M, E) bool.
        tolerance: on the gradient norm.
        seeds: 0 for the warm start; else how many fresh starts a subset has, over which the values are averaged.
        scale: of the fresh starts.

    Raises:
        InputError: a retraining did not get there.
    """
    weights = [torch.as_tensor(row, dtype=made.dtype, device=made.device) for row in kept]
    if seeds == 0:
        return _retrained(made, theta, query, iter(weights), tolerance)
    by_seed = [
        _retrained(made, fresh_start(made, seed, scale), query, iter(weights), tolerance) for seed in range(seeds)
    ]
    with torch.no_grad():
        before = query(theta, None).double().cpu().numpy()
    return Truth(
        np.mean([truth.values for truth in by_seed], 0),
        before,
        np.max([truth.gradient_norm for truth in by_seed], 0),
        np.sum([truth.steps for truth in by_seed], 0),
        sum(truth.hvps for truth in by_seed),
        sum(truth.seconds for truth in by_seed),
    )


def _without(made: Objective, edge: int) -> Tensor:
    weight = made.ones()
    weight[edge] = 0
    return weight


def _retrained(made: Objective, start: Tensor, query: Query, weights: Iterator[Tensor], tolerance: float) -> Truth:
    with torch.no_grad():
        before = query(start, None).double().cpu().numpy()
    values, norms, steps, hvps, seconds = [], [], [], 0, 0.0
    for number, weight in enumerate(weights):
        found = minimise(made, start, weight, tolerance=tolerance)
        if not found.converged:
            raise InputError(
                f"retraining {number} stopped at a gradient norm of {found.gradient_norm:.2g} after {found.steps} "
                f"steps; {tolerance:.2g} is asked for."
            )
        with torch.no_grad():
            values.append(query(found.theta, weight).double().cpu().numpy())
        norms.append(found.gradient_norm)
        steps.append(found.steps)
        hvps, seconds = hvps + found.hvps, seconds + found.seconds
    return Truth(np.stack(values, 1), before, np.array(norms), np.array(steps), hvps, seconds)
