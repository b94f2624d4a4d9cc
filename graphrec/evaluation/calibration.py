"""Whether probabilities are what they say: calibration in bins, and Platt's scaling of scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.errors import InputError

_STEPS = 100
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Calibration:
    """Probabilities beside what came true, in M bins of equal width.

    Attributes:
        edges: (M + 1,) float64, ends of the bins; a probability on an inner end belongs to the bin above it.
        count: (M,) int64, pairs in each bin.
        predicted: (M,) float64, mean probability; NaN where the bin is empty.
        observed: (M,) float64, share of positives; NaN where the bin is empty.
    """

    edges: Tensor
    count: Tensor
    predicted: Tensor
    observed: Tensor

    @property
    def error(self) -> float:
        """Expected calibration error, ``sum_m n_m / N |observed_m - predicted_m|`` (Naeini et al., AAAI 2015)."""
        there = self.count > 0
        share = self.count[there].double() / self.count.sum()
        return float((share * (self.observed - self.predicted)[there].abs()).sum())


def calibration(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Calibration:
    """Sort pairs into bins by their probability.

    Args:
        probabilities: (N,) in 0 to 1.
        labels: (N,) 0 or 1.
        bins: M.

    Raises:
        InputError: no bin at all.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}; calibration needs at least one.")
    value, label = probabilities.double(), labels.double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=value.device)
    place = (torch.bucketize(value, edges, right=True) - 1).clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins)
    zero = torch.zeros(bins, dtype=torch.float64, device=value.device)
    return Calibration(
        edges.cpu(),
        count.cpu(),
        (zero.index_add(0, place, value) / count).cpu(),
        (zero.index_add(0, place, label) / count).cpu(),
    )


def log_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each pair in nats, (N,) float64, from scores before the sigmoid: never infinite by rounding."""
    return functional.binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="none")


@dataclass(frozen=True)
class Platt:
    """Scores to probabilities, ``sigmoid(slope * score + intercept)``."""

    slope: float
    intercept: float

    def logits(self, scores: Tensor) -> Tensor:
        """Scaled scores, before the sigmoid."""
        return self.slope * scores.double() + self.intercept


def platt(scores: Tensor, labels: Tensor) -> Platt:
    r"""Platt's scaling (Platt 1999, by Newton's steps as in Lin, Lin and Weng, Machine Learning 2007).

    Minimises the cross entropy of :math:`\sigma(a y + b)` against the smoothed targets :math:`(N_1 + 1)/(N_1 + 2)` of
    positives and :math:`1/(N_0 + 2)` of negatives, which has a finite minimum even where the scores tell the classes
    apart without a mistake.

    Args:
        scores: (N,).
        labels: (N,) 0 or 1.

    Raises:
        InputError: a class is missing.
    """
    positive = labels > 0
    ones = int(positive.sum())
    zeros = len(labels) - ones
    if ones == 0 or zeros == 0:
        raise InputError(f"Platt's scaling needs pairs of both labels, found {ones} of 1 and {zeros} of 0.")
    y = scores.double()
    centre, spread = y.mean(), y.std(correction=0)
    flat = not float(spread) > 0
    z = torch.zeros_like(y) if flat else (y - centre) / spread
    target = torch.where(positive, (ones + 1) / (ones + 2), 1 / (zeros + 2)).to(y)
    rows = torch.stack([z, torch.ones_like(z)])
    ridge = 1e-12 * torch.eye(2, dtype=torch.float64, device=y.device)
    found = torch.tensor([0.0, torch.logit(target.mean()).item()], dtype=torch.float64, device=y.device)

    def loss(at: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(at @ rows, target)

    value = loss(found)
    for _ in range(_STEPS):
        probability = torch.sigmoid(found @ rows)
        gradient = rows @ (probability - target) / len(y)
        if float(gradient.abs().max()) < _TOLERANCE:
            break
        curvature = (rows * (probability * (1 - probability))) @ rows.T / len(y)
        step = torch.linalg.solve(curvature + ridge, gradient)
        length = 1.0
        # The loss is convex: half a step that does not go down far enough until one does.
        while (new := loss(found - length * step)) > value - 1e-4 * length * (gradient @ step) and length > 1e-10:
            length /= 2
        found, value = found - length * step, new
    slope = 0.0 if flat else float(found[0] / spread)
    return Platt(slope, float(found[1]) - slope * float(centre))
