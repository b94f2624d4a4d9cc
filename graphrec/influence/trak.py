r"""TRAK on a graph: a linear model in randomly projected gradients, averaged over models of halves of the edges.

With :math:`p_e = e^{-\ell_e}` the probability of the edge and :math:`m_e = \log(p_e / (1 - p_e))` the model's output,
the features are :math:`\phi_e = \Pi^\top \nabla_\theta m_e` and (Park et al., ICML 2023, https://arxiv.org/abs/2303.14186,
eq. 17)

.. math:: \tau(f) = \Big(\frac1M \sum_m \phi_f (\Phi_m^\top \Phi_m + \rho I)^{-1} \Phi_m^\top\Big)
          \circ \frac1M \sum_m (1 - p_{m,e}), \qquad I(e) = -\tau_e

The paper has no ridge (ρ = 0) and leaves f's features to the query's own output; here f is any query and ρ a share of
the mean eigenvalue, so that fewer edges than columns are no error. :math:`\nabla m_e = -\nabla \ell_e / (1 - p_e)`;
with ``parts`` naming more than the loss, the gradient is :math:`c_e`, which has propagation and negatives in it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.influence.objective import Objective
from graphrec.influence.projection import Projection
from graphrec.influence.queries import Query, differentiated


@dataclass(frozen=True, eq=False)
class SubsetModel:
    """Parameters (P,) trained on the edges whose weight (E,) is 1."""

    theta: Tensor
    weight: Tensor


@torch.no_grad()
def trak(
    made: Objective,
    models: Sequence[SubsetModel],
    query: Query,
    *,
    width: int = 512,
    ridge: float = 1e-3,
    parts: Sequence[str] = ("loss",),
    seed: int = 0,
) -> Tensor:
    """I(e) of every edge on every query, (Q, E); see the module.

    Args:
        made: the objective.
        models: trained on random subsets; five to ten, the paper says.
        query: the quantities.
        width: k, columns of the projection.
        ridge: ρ as a share of the mean eigenvalue of the Gram matrix.
        parts: what an edge's gradient is made of; ``loss`` alone is the paper's.
        seed: of the projection, the same for all models.

    Raises:
        InputError: no models.
    """
    if not models:
        raise InputError("TRAK needs at least one model.")
    projection = Projection({name: tuple(shape) for name, shape in made.shapes.items()}, width, seed)
    kernel: Tensor | float = 0.0
    left: Tensor | float = 0.0
    for model in models:
        # Of all edges, those that the model has not seen too: their losses are those of a model without them.
        weight = model.weight
        losses = made.per_edge(model.theta, weight, weight)
        rest = -torch.expm1(-losses)
        rows = torch.empty(made.num_edges, width, dtype=made.dtype, device=made.device)
        for part, block in projection.blocks(dtype=made.dtype):
            for column, direction in zip(range(part.start, part.stop), block.T.to(made.device), strict=True):
                rows[:, column] = made.mixed(model.theta, direction, weight, weight, parts=parts)
        rows /= -rest.clamp_min(1e-12)[:, None]
        gram = rows.T @ rows
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        slopes = _slopes(made, model, query)
        kernel = kernel + torch.linalg.solve(gram, projection(slopes).T).T @ rows.T
        left = left + rest
    assert isinstance(kernel, Tensor)
    influence: Tensor = -(kernel / len(models)) * (left / len(models))
    return influence


def _slopes(made: Objective, model: SubsetModel, query: Query) -> Tensor:
    def on_its_edges(theta: Tensor, weight: Tensor | None) -> Tensor:
        return query(theta, model.weight)

    return differentiated(on_its_edges, model.theta, made)[1]
