r"""All estimators of influence behind one call, so that they can stand in one table.

    inverse = Inverse(made, theta, gauss_newton=False)
    found = attribute(made, theta, query, estimator="derivative", inverse=inverse)
    found.influence          # (Q, M): f(without e) - f of each query and edge

Everything is in the sign of the influence, :math:`I(e) = f(\text{without } e) - f`; with
:math:`q = C^{-1} \nabla f` and weights :math:`w_{-e}` (0 on e, else 1):

- ``nothing``: :math:`f(\theta; w_{-e}) - f(\theta)`, the same parameters on the smaller graph; a control;
- ``random``: normal draws; a control;
- ``loss_term``: :math:`q \cdot \nabla\ell_e`, as if examples were independent: the rest that an edge does is left out;
  a control;
- ``derivative``: :math:`q \cdot c_e - \partial_{w_e} f` with :math:`c_e = \partial_{w_e} \nabla L`, all that an edge
  does, to first order; one solve a query, all edges at once;
- ``gif``: :math:`f(\theta - C^{-1} (\nabla L(\theta; w_{-e}) - \nabla L); w_{-e}) - f`, the difference of gradients in
  place of the derivative, the query evaluated anew; one solve an edge;
- ``newton``: the same with the curvature of what is left;
- ``tracin``: :mod:`graphrec.influence.tracin`, of ``checkpoints``;
- ``trak``: :mod:`graphrec.influence.trak`, of ``models``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.influence.inverse import Inverse
from graphrec.influence.objective import Objective
from graphrec.influence.queries import Query, differentiated
from graphrec.influence.tracin import PARTS, Checkpoint, tracin
from graphrec.influence.trak import SubsetModel, trak
from graphrec.randomness import generator

EstimatorName = Literal["nothing", "random", "loss_term", "derivative", "gif", "newton", "tracin", "trak"]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Influences of edges on queries, and what they cost.

    Attributes:
        estimator: its name.
        influence: (Q, M).
        edges: (M,) positions in the objective's edge list.
        seconds: of this call.
        products: with the curvature in this call.
        relative_residual: the largest of the linear systems solved; None where there were none.
        gradient_norm: of the objective at θ: how far from stationary the formulas' point is.
        damping: δ, absolute; None where nothing was solved.
        solver: name; None where nothing was solved.
        raised: systems that needed more damping, see :meth:`graphrec.influence.inverse.Inverse.on`.
    """

    estimator: str
    influence: NDArray[np.float64]
    edges: NDArray[np.int64]
    seconds: float
    products: int
    relative_residual: float | None
    gradient_norm: float
    damping: float | None
    solver: str | None
    raised: int = 0


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a call is about."""

    made: Objective
    theta: Tensor
    query: Query
    edges: Tensor
    inverse: Inverse | None
    checkpoints: Sequence[Checkpoint]
    models: Sequence[SubsetModel]
    width: int
    parts: Sequence[str]
    seed: int

    def solved(self) -> Inverse:
        if self.inverse is None:
            raise InputError("this estimator solves a linear system: pass inverse=, an Inverse at theta.")
        return self.inverse

    def without(self, edge: Tensor) -> Tensor:
        weight = self.made.ones()
        weight[edge] = 0
        return weight


def attribute(
    made: Objective,
    theta: Tensor,
    query: Query,
    *,
    estimator: EstimatorName = "derivative",
    inverse: Inverse | None = None,
    edges: NDArray[np.int64] | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    models: Sequence[SubsetModel] = (),
    width: int = 512,
    parts: Sequence[str] | None = None,
    seed: int = 0,
) -> Attribution:
    """Influences by one estimator; see the module.

    Args:
        made: the objective.
        theta: (P,) the trained parameters, best a stationary point.
        query: the quantities.
        estimator: see the module.
        inverse: of the curvature at ``theta``, for those that solve.
        edges: (M,) positions in the edge list; None: all.
        checkpoints: for ``tracin``.
        models: for ``trak``.
        width: of TRAK's projection.
        parts: of an edge's gradient, for ``tracin`` (default: all) and ``trak`` (default: its loss).
        seed: of ``random`` and of TRAK's projection.

    Raises:
        InputError: an unknown estimator, or what it needs is not given.
    """
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    everything = np.arange(made.num_edges)
    edges = everything if edges is None else np.asarray(edges, dtype=np.int64)
    if len(edges) and not 0 <= edges.min() <= edges.max() < made.num_edges:
        raise InputError(f"edges are positions from 0 to {made.num_edges - 1}, found {edges.min()} to {edges.max()}.")
    before, worst, raised = (0, 0.0, 0) if inverse is None else (inverse.products, inverse.worst, inverse.raised)
    if inverse is not None:
        inverse.worst = 0.0
    own = ("loss",) if estimator == "trak" else PARTS
    chosen = torch.as_tensor(edges, device=made.device)
    asked = _Asked(
        made, theta, query, chosen, inverse, checkpoints, models, width, own if parts is None else parts, seed
    )
    started = time.perf_counter()
    influence = ESTIMATORS[estimator](asked).double().cpu().numpy()
    seconds = time.perf_counter() - started
    solved = inverse is not None and inverse.products > before
    residual = inverse.worst if solved and inverse is not None else None
    products = inverse.products - before if inverse is not None else 0
    if inverse is not None:
        inverse.worst = max(worst, inverse.worst)
    return Attribution(
        estimator,
        influence,
        edges,
        seconds,
        products,
        residual,
        float(made.gradient(theta).norm()),
        inverse.damping if solved and inverse is not None else None,
        inverse.solver if solved and inverse is not None else None,
        inverse.raised - raised if inverse is not None else 0,
    )


def _nothing(asked: _Asked) -> Tensor:
    return _evaluated(asked, lambda edge: asked.theta)


def _random(asked: _Asked) -> Tensor:
    with torch.no_grad():
        count = len(asked.query(asked.theta, None))
    stream = generator(asked.seed, "influence/random")
    return torch.randn(count, asked.made.num_edges, generator=stream, dtype=torch.float64)[:, asked.edges.cpu()]


def _loss_term(asked: _Asked) -> Tensor:
    inverse = asked.solved()
    slopes = differentiated(asked.query, asked.theta, asked.made)[1]
    rows = [asked.made.mixed(asked.theta, inverse(slope), parts=("loss",)) for slope in slopes]
    return torch.stack(rows)[:, asked.edges]


def _derivative(asked: _Asked) -> Tensor:
    inverse = asked.solved()
    _, slopes, direct = differentiated(asked.query, asked.theta, asked.made)
    rows = [asked.made.mixed(asked.theta, inverse(slope)) for slope in slopes]
    return (torch.stack(rows) - direct)[:, asked.edges]


def _gif(asked: _Asked) -> Tensor:
    inverse, before = asked.solved(), asked.made.gradient(asked.theta)

    def moved(edge: Tensor) -> Tensor:
        weight = asked.without(edge)
        return asked.theta - inverse(asked.made.gradient(asked.theta, weight, weight) - before)

    return _evaluated(asked, moved)


def _newton(asked: _Asked) -> Tensor:
    inverse, before = asked.solved(), asked.made.gradient(asked.theta)

    def moved(edge: Tensor) -> Tensor:
        weight = asked.without(edge)
        return asked.theta - inverse.on(weight, asked.made.gradient(asked.theta, weight, weight) - before)

    return _evaluated(asked, moved)


def _tracin(asked: _Asked) -> Tensor:
    return tracin(asked.made, asked.checkpoints, asked.query, parts=asked.parts)[:, asked.edges]


def _trak(asked: _Asked) -> Tensor:
    found = trak(asked.made, asked.models, asked.query, width=asked.width, parts=asked.parts, seed=asked.seed)
    return found[:, asked.edges]


@torch.no_grad()
def _evaluated(asked: _Asked, moved: Callable[[Tensor], Tensor]) -> Tensor:
    """(Q, M): the queries with parameters of each edge's removal on the graph without it, less those as they are."""
    before = asked.query(asked.theta, None)
    columns = [asked.query(moved(edge), asked.without(edge)) - before for edge in asked.edges]
    return torch.stack(columns, 1) if columns else before.new_empty(len(before), 0)


ESTIMATORS: Mapping[str, Callable[[_Asked], Tensor]] = {
    "nothing": _nothing,
    "random": _random,
    "loss_term": _loss_term,
    "derivative": _derivative,
    "gif": _gif,
    "newton": _newton,
    "tracin": _tracin,
    "trak": _trak,
}
