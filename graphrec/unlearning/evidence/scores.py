"""Scores of the forgotten pairs beside those of others: gaps, ratios, places in the ranking, histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.evaluation.classification import auc
from graphrec.unlearning.evidence.measures import (
    BEFORE,
    RETRAINED,
    ROWS,
    Measure,
    Row,
    mean_and_sd,
    measured,
    plain,
)
from graphrec.unlearning.evidence.observed import Observed

POPULATIONS = {"forgotten": "f", "held_out": "h", "matched": "n", "random": "r", "kept": "p"}
BINS = 30

Seen = Mapping[Row, Sequence[Mapping[str, Observed]]]
"""Of each model of each row, what was observed of each population."""


@dataclass(frozen=True)
class Histogram:
    """Counts of scores in equal bins; of several retrained models their mean.

    Attributes:
        edges: (B + 1,) of the bins, the same for all rows; scores outside are counted in the first or last.
        counts: (B,) by row.
    """

    edges: list[float]
    counts: Mapping[str, list[float]]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"edges": plain(self.edges), "counts": plain(self.counts)}


def score_measures(seen: Seen, ranks: Mapping[Row, Sequence[Tensor]]) -> list[Measure]:
    r"""Everything about the scores of the forgotten pairs.

    With :math:`\bar p_X` the mean of σ(s) over the pairs X (F forgotten, N popularity-matched non-edges of the same
    users, R random non-edges, P kept, H held-out true ones), on each model:

    - ``probability_x`` and ``score_x``: :math:`\bar p_X` and the raw mean, for every X;
    - ``delta_n``: :math:`\Delta_N = \bar p_F - \bar p_N`, ``score_delta_n`` the same of raw means. The aim is that of
      retraining, not the smallest;
    - ``mi_bf``: :math:`\bar p_F(\text{before}) / \bar p_F`; ``mi_ng``: :math:`\bar p_N / \bar p_F` (UnlearnRec): larger
      is called more forgotten there, and very large is over-forgetting;
    - ``f_auc``: probability that a forgotten pair scores above a matched non-edge; the aim is that of retraining,
      usually above .5, because people's own items suit them;
    - ``rank_f``: mean share of the user's other unseen items that score higher;
    - ``ks_rank_f``: Kolmogorov-Smirnov distance of these shares to those of the retrained models (mean; the retrained
      row is between two of them);
    - ``score_gap_sd``: (raw mean of F - that of the retrained models) over the standard deviation of the retrained
      models' scores of R.

    Args:
        seen: what was observed.
        ranks: of each model the percentile of each forgotten pair among the user's unseen items.
    """
    found: dict[str, dict[Row, list[float]]] = {}

    def put(metric: str, row: Row, value: float) -> None:
        found.setdefault(metric, {}).setdefault(row, []).append(value)

    size = {name: len(one) for models in seen.values() for model in models for name, one in model.items()}
    first = seen.get(BEFORE)
    p_before = _probability(first[0]["forgotten"]) if first else math.nan
    for row, models in seen.items():
        for model in models:
            for name, letter in POPULATIONS.items():
                put(f"probability_{letter}", row, _probability(model[name]))
                put(f"score_{letter}", row, _mean(model[name].score))
            p_f, p_n = _probability(model["forgotten"]), _probability(model["matched"])
            put("delta_n", row, p_f - p_n)
            put("score_delta_n", row, _mean(model["forgotten"].score) - _mean(model["matched"].score))
            if not math.isnan(p_f) and p_f > 0:
                put("mi_bf", row, p_before / p_f)
                put("mi_ng", row, p_n / p_f)
            put("f_auc", row, separation(model["forgotten"].score, model["matched"].score))
    for row, shares in ranks.items():
        for share in shares:
            put("rank_f", row, _mean(share))
    for row, value in _distances(ranks).items():
        found.setdefault("ks_rank_f", {})[row] = value
    _score_gap(seen, found)
    count = size.get("forgotten", 0)
    letters = {
        f"{kind}_{letter}": size.get(name, 0)
        for name, letter in POPULATIONS.items()
        for kind in ("probability", "score")
    }
    return [
        one for name, rows in found.items() for one in measured("scores", name, rows, count=letters.get(name, count))
    ]


def _probability(seen: Observed) -> float:
    return _mean(seen.score.sigmoid())


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan


def separation(positive: Tensor, negative: Tensor) -> float:
    """AUC of two sets of scores, NaN where one is empty."""
    if not len(positive) or not len(negative):
        return math.nan
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
    return auc(torch.cat([positive, negative]), labels)


def kolmogorov_smirnov(first: Tensor, second: Tensor) -> float:
    """Largest distance of two empirical distribution functions, in [0, 1]; NaN where one sample is empty."""
    if not len(first) or not len(second):
        return math.nan
    at = torch.cat([first, second]).sort().values
    below = [torch.searchsorted(one.sort().values, at, right=True).double() / len(one) for one in (first, second)]
    return float((below[0] - below[1]).abs().max())


def _distances(ranks: Mapping[Row, Sequence[Tensor]]) -> dict[Row, list[float]]:
    references = ranks.get(RETRAINED, ())
    if not references:
        return {}
    out: dict[Row, list[float]] = {}
    for row, shares in ranks.items():
        if row != RETRAINED:
            apart = [kolmogorov_smirnov(share, other) for share in shares for other in references]
            out[row] = [mean_and_sd(apart)[0]]
    between = [kolmogorov_smirnov(one, other) for n, one in enumerate(references) for other in references[n + 1 :]]
    return {**out, RETRAINED: between} if between else out


def _score_gap(seen: Seen, found: dict[str, dict[Row, list[float]]]) -> None:
    references = seen.get(RETRAINED, ())
    target, _ = mean_and_sd(found.get("score_f", {}).get(RETRAINED, ()))
    unit, _ = mean_and_sd([float(one["random"].score.std()) for one in references if len(one["random"]) > 1])
    if math.isnan(target) or not unit > 0:
        return
    found["score_gap_sd"] = {
        row: [(value - target) / unit for value in values] for row, values in found["score_f"].items()
    }


def histograms(seen: Seen, ranks: Mapping[Row, Sequence[Tensor]]) -> dict[str, Histogram]:
    """Counts of the forgotten pairs' ``score`` and ``rank`` by row, and ``held_out`` scores of the same users."""
    out = {}
    for name, population in (("score", "forgotten"), ("held_out", "held_out")):
        values = {row: [model[population].score for model in models] for row, models in seen.items()}
        out[name] = _histogram(values, _range(seen))
    out["rank"] = _histogram(ranks, (0.0, 1.0))
    return out


def _range(seen: Seen) -> tuple[float, float]:
    """What all rows' scores of both populations span, but for half a per cent at each end."""
    every = [
        model[name].score for models in seen.values() for model in models for name in ("forgotten", "held_out")
        if len(model[name])
    ]  # fmt: skip
    if not every:
        return 0.0, 1.0
    low, high = torch.cat(every).quantile(torch.tensor([0.005, 0.995], dtype=torch.float64)).tolist()
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _histogram(values: Mapping[Row, Sequence[Tensor]], span: tuple[float, float]) -> Histogram:
    edges = np.linspace(*span, BINS + 1)
    counts: dict[str, list[float]] = {}
    for row in ROWS:
        tables = [np.histogram(one.clamp(*span).numpy(), bins=edges)[0] for one in values.get(row, ()) if len(one)]
        if tables:
            counts[row] = np.mean(tables, axis=0).tolist()
    return Histogram(edges.tolist(), counts)
