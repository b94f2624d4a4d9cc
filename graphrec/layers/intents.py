"""How independent several mixtures over the same things are: the regularisers of intent models.

Letters: F mixtures (intents), R things mixed (relations).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.errors import InputError, unknown

Independence = Literal["distance", "cosine", "mutual_information"]


def independence(rows: Tensor, kind: Independence = "distance", *, temperature: float = 0.2) -> Tensor:
    r"""One number that is smaller the less the rows tell of each other; a scalar, differentiable.

    ``distance``: :math:`\sum_{f<g} \mathrm{dCor}(Q_f, Q_g)`. ``cosine``: :math:`\sum_{f<g} \cos^2(Q_f, Q_g)`.
    ``mutual_information``: :math:`-\sum_f \log \frac{\exp(1/τ)}{\sum_g \exp(\cos(Q_f, Q_g)/τ)}`, the contrast of each
    row with all rows (Wang et al., WWW 2021, equations 4 to 6).

    The paper takes distances and cosines of intent vectors, the authors' code of the raw logits; what ``rows`` are is
    the caller's choice. The code's mutual information sums similarities before it exponentiates them, which is
    linear and has no lower bound; the paper's form is computed here.

    Args:
        rows: (F, R) float.
        kind: see above.
        temperature: τ.

    Raises:
        InputError: an unknown kind, rows that are no matrix, a temperature that is not positive.
    """
    if rows.dim() != 2:
        raise InputError(f"rows must be (F, R), found {tuple(rows.shape)}.")
    if kind not in get_args(Independence):
        raise unknown("measure of independence", kind, get_args(Independence))
    if temperature <= 0:
        raise InputError(f"temperature must be above 0, found {temperature}.")
    if kind == "mutual_information":
        unit = functional.normalize(rows)
        contrast = torch.logsumexp(unit @ unit.T / temperature, dim=1)
        return (contrast - unit.square().sum(1) / temperature).sum()
    if kind == "cosine":
        unit = functional.normalize(rows)
        return (unit @ unit.T).triu(1).square().sum()
    return distance_correlations(rows).triu(1).sum()


def distance_correlations(rows: Tensor) -> Tensor:
    r"""Distance correlation of each two rows (Székely, Rizzo, Bakirov 2007), from the R entries as samples.

    With :math:`A^f_{ij} = |x_i - x_j|` centred by rows and columns,
    :math:`V_{fg} = R^{-2} \sum_{ij} A^f_{ij} A^g_{ij}` and
    :math:`\mathrm{dCor}_{fg} = \sqrt{V_{fg}} / (V_{ff} V_{gg})^{1/4}`; 0 where a row is constant.
    It lies in [0, 1] and is 1 for affine copies.

    Args:
        rows: (F, R) float.

    Returns:
        (F, F), symmetric, with zeros as gradients where a value is 0.
    """
    distance = (rows.unsqueeze(2) - rows.unsqueeze(1)).abs()
    row_mean = distance.mean(2, keepdim=True)
    centred = (distance - row_mean - row_mean.transpose(1, 2) + distance.mean((1, 2), keepdim=True)).flatten(1)
    covariance = (centred @ centred.T) / max(rows.shape[1], 1) ** 2
    variance = covariance.diagonal()
    return _power(covariance, 0.5) * _power(variance, -0.25).unsqueeze(1) * _power(variance, -0.25)


def _power(x: Tensor, exponent: float) -> Tensor:
    """``x ** exponent`` with 0 where x is not above rounding, in the gradient too."""
    positive = x > torch.finfo(x.dtype).tiny ** 0.5
    return torch.where(positive, x.where(positive, torch.ones_like(x)).pow(exponent), 0.0)
