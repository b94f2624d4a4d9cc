"""The attacker's features of a pair, and the logistic regression that tells members from others by them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from graphrec.unlearning.evidence.observed import Observed
from graphrec.unlearning.evidence.pairs import PairSet
from graphrec.unlearning.evidence.views import View

FEATURES = (
    "score", "probability", "percentile", "margin_10", "margin_20", "z_in_user", "z_in_item", "user_norm", "item_norm",
    "cosine", "log_user_degree", "log_item_degree", "popularity_percentile", "loss", "gradient_norm",
)  # fmt: skip
"""What the attack looks at; the last two need the model itself, the norms and the cosine its representations."""


def attack_features(view: View, pairs: PairSet, seen: Observed, activity: Tensor, popularity: Tensor) -> Tensor:
    """(P, 15) float64, columns as in :data:`FEATURES`, scaled to mean 0 and variance 1 over these pairs.

    Scaling within the candidates (all of which the attacker has) makes a rule learnt on one model fit another whose
    scores are of another size. ``loss`` is softplus(-s), ``gradient_norm`` that of its gradient with respect to both
    representations, σ(-s) (‖z_u‖² + ‖z_i‖²)^½. A column that says nothing (one value, or none) is 0.

    Args:
        view: the model.
        pairs: P pairs.
        seen: what was observed of them.
        activity: (U,) number of training items of each user, as it was before anything was forgotten.
        popularity: (I,) likewise of items.
    """
    score = seen.score
    nothing = torch.full_like(score, torch.nan)
    user_norm = item_norm = cosine = gradient = nothing
    encoded = view.encoded
    if encoded is not None:
        users = encoded.users[pairs.users.to(encoded.users.device)].double().cpu()
        items = encoded.items[pairs.items.to(encoded.items.device)].double().cpu()
        user_norm, item_norm = users.norm(dim=1), items.norm(dim=1)
        cosine = (users * items).sum(1) / (user_norm * item_norm).clamp(min=1e-12)
        gradient = (-score).sigmoid() * (user_norm**2 + item_norm**2).sqrt()
    rank = popularity.double().argsort(stable=True).argsort().double() / max(len(popularity), 1)
    columns = [
        score, score.sigmoid(), seen.percentile, *seen.margins.unbind(1),
        (score - seen.user_mean) / seen.user_sd.clamp(min=1e-12),
        (score - seen.item_mean) / seen.item_sd.clamp(min=1e-12),
        user_norm, item_norm, cosine, activity[pairs.users].double().log1p(), popularity[pairs.items].double().log1p(),
        rank[pairs.items], softplus(-score), gradient,
    ]  # fmt: skip
    table = torch.stack(columns, 1)
    table = torch.where(table.isfinite(), table, torch.nan)
    centred = table - table.nanmean(0)
    spread = centred.square().nanmean(0).sqrt()
    scaled = torch.where(spread > 1e-9, centred / spread.clamp(min=1e-9), 0.0)
    return scaled.nan_to_num(0.0)


@dataclass(frozen=True, eq=False)
class Logistic:
    """log odds = x w + b; ``weight`` (F,), ``bias`` ()."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Log odds (P,) of membership."""
        return features @ self.weight + self.bias


def fit_logistic(features: Tensor, labels: Tensor, *, ridge: float = 1e-2, steps: int = 50) -> Logistic:
    r"""Logistic regression by Newton steps on the class-balanced likelihood with a ridge; no draws, one solution.

    .. math:: \min_{w,b}\ \tfrac12\sum_{c\in\{0,1\}} \frac1{n_c}\sum_{y_j=c} -\log\sigma(\pm(x_j^\top w+b))
              + \tfrac{\lambda}2 \|w\|^2

    Args:
        features: (P, F).
        labels: (P,) 0 or 1, both present.
        ridge: λ.
        steps: the most Newton steps; each is halved until it lowers the objective.
    """
    x = torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], 1)
    y = labels.double()
    counts = torch.stack([(y == 0).sum(), (y == 1).sum()]).double()
    weight = torch.where(y > 0, 0.5 / counts[1], 0.5 / counts[0])
    penalty = torch.full((x.shape[1],), ridge, dtype=torch.float64)
    penalty[-1] = 1e-9
    sign = 2 * y - 1

    def objective(theta: Tensor) -> Tensor:
        return -(weight * logsigmoid(sign * (x @ theta))).sum() + 0.5 * (penalty * theta**2).sum()

    theta = torch.zeros(x.shape[1], dtype=torch.float64)
    value = objective(theta)
    for _ in range(steps):
        p = (x @ theta).sigmoid()
        gradient = x.T @ (weight * (p - y)) + penalty * theta
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + torch.diag(penalty)
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and objective(theta - size * step) > value:
            size /= 2
        theta = theta - size * step
        before, value = value, objective(theta)
        if float(before - value) < 1e-12:
            break
    return Logistic(theta[:-1], theta[-1])
