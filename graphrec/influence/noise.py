r"""Edges that do not belong: found by what each would change about its own loss.

The self-influence of an edge, :math:`c_e^\top H^{-1} c_e`, is how much the edge's own loss rises when it is removed,
with the parameters that its absence leads to (to first order): large where the model has to keep something by heart
that nothing else speaks for, as for a wrong label (Koh and Liang, ICML 2017, section 5.4; Feldman and Zhang, NeurIPS
2020). One solve for each edge would be out of reach. With draws y whose covariance is H,

.. math:: x = H^{-1} y \;\Rightarrow\; \mathrm{Cov}(x) = H^{-1}, \qquad c_e^\top H^{-1} c_e = E[(c_e^\top x)^2],

and one solve and one double backward serve all edges. H is the Gauss-Newton matrix, a sum of outer products, so that y
is a gradient with random signs: :math:`y = J^\top (F'')^{1/2} \varepsilon + \Lambda^{1/2} \xi`. S draws give each value
with a relative standard deviation of :math:`\sqrt{2/S}`, without bias.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.influence.inverse import Inverse
from graphrec.influence.linear_objective import LinearObjective
from graphrec.influence.objective import Objective
from graphrec.randomness import generator

Parts = Sequence[str]


@dataclass(frozen=True, eq=False)
class SelfInfluence:
    """Self-influences of all training edges.

    Attributes:
        values: (E,) :math:`c_e^\\top H^{-1} c_e`, in edge-list order.
        deviation: (E,) standard deviation of each by the draws.
        losses: (E,) the edges' own losses, the control: an edge that the model contradicts has a large one.
        draws: S.
        damping: δ, absolute, which is part of H.
        relative_residual: the largest of the systems.
        products: with the curvature.
        gradient_norm: how far the parameters are from stationary.
        seconds: in all.
    """

    values: NDArray[np.float64]
    deviation: NDArray[np.float64]
    losses: NDArray[np.float64]
    draws: int
    damping: float
    relative_residual: float
    products: int
    gradient_norm: float
    seconds: float


@torch.no_grad()
def self_influence(
    made: Objective,
    theta: Tensor | None = None,
    *,
    draws: int = 32,
    parts: Parts = ("loss",),
    damping: float = 1e-3,
    tolerance: float = 1e-3,
    max_iterations: int = 500,
    seed: int = 0,
) -> SelfInfluence:
    """Self-influence of every edge; see the module.

    Args:
        made: the objective; its loss must be ``bpr``, a sum over triples.
        theta: (P,); None: the parameters that the objective was made with.
        draws: S.
        parts: of an edge's gradient: ``loss``, ``graph``, ``negatives``. A wrong edge shows in its loss; the effect of
            an edge on the normalisation, which is largest at nodes of small degree, says little about that.
        damping: δ as a share of the curvature's largest eigenvalue.
        tolerance: relative residual.
        max_iterations: products for one draw.
        seed: of the draws.

    Raises:
        InputError: another loss, a model without a closed form, or fewer than two draws.
    """
    if draws < 2:
        raise InputError(f"self-influence needs two draws or more, found {draws}.")
    if made.terms.loss != "bpr" or not isinstance(made, LinearObjective):
        raise InputError(
            "self-influence needs a BPR loss and a model whose representations are linear in its tables (BPRMF, "
            f"LightGCN); found {made.terms.loss} and {type(made.model).__name__}."
        )
    started = time.perf_counter()
    theta = made.theta if theta is None else theta
    inverse = Inverse(made, theta, damping=damping, tolerance=tolerance, max_iterations=max_iterations)
    total = torch.zeros(made.num_edges, dtype=made.dtype, device=made.device)
    squared = torch.zeros_like(total)
    for number in range(draws):
        drawn = _draw(made, theta, inverse.damping, seed, number)
        found = made.mixed(theta, inverse(drawn), parts=parts).square()
        total, squared = total + found, squared + found.square()
    mean = total / draws
    spread = ((squared / draws - mean.square()).clamp_min(0) / (draws - 1)).sqrt()
    return SelfInfluence(
        values=mean.double().cpu().numpy(),
        deviation=spread.double().cpu().numpy(),
        losses=made.per_edge(theta).double().cpu().numpy(),
        draws=draws,
        damping=inverse.damping,
        relative_residual=inverse.worst,
        products=inverse.products,
        gradient_norm=float(made.gradient(theta).norm()),
        seconds=time.perf_counter() - started,
    )


def suspicious_edges(made: Objective, data: RecDataset, found: SelfInfluence, *, k: int = 20) -> pd.DataFrame:
    """The k edges of largest self-influence.

    Columns: user, item (raw ids), edge_id, self_influence, loss, and the training edges of the user and of the item.
    """
    order = np.argsort(-found.values, kind="stable")[:k]
    users, items = (ends.cpu().numpy() for ends in made.edge_index)
    counts = np.bincount(users), np.bincount(items)
    source, _, target = made.target
    return pd.DataFrame(
        {
            "user": data.vocabularies[source].raw[users[order]],
            "item": data.vocabularies[target].raw[items[order]],
            "edge_id": made.edge_id.cpu().numpy()[order],
            "self_influence": found.values[order],
            "loss": found.losses[order],
            "user_edges": counts[0][users[order]],
            "item_edges": counts[1][items[order]],
        }
    )


def _draw(made: LinearObjective, theta: Tensor, damping: float, seed: int, number: int) -> Tensor:
    """y (P,) with covariance H + δ I."""
    terms = made.terms
    ones = made.ones()
    stream = generator(seed, "self-influence", number)
    scores = made._scores(theta, None)
    margins = scores[terms.positive][terms.owner] - scores[terms.negative]
    bent = torch.sigmoid(margins) * torch.sigmoid(-margins)
    signs = torch.randn(len(bent), generator=stream, dtype=torch.float64).to(bent)
    weight = (terms.coefficients(ones)[terms.owner] * terms.shares(ones) * bent).sqrt() * signs
    # The derivative of Σ weight · (s_positive - s_negative) in the scores, and through them in the tables.
    slopes = torch.zeros_like(scores).index_add(0, terms.negative, -weight)
    slopes = slopes.index_add(0, terms.positive, torch.zeros_like(ones).index_add(0, terms.owner, weight))
    final, back = made._transposed(theta, None)
    noise = torch.randn(len(theta), generator=stream, dtype=torch.float64).to(theta)
    return back(*made._spread(slopes, final)) + (made.ridge(ones, ones) + damping).sqrt() * noise
