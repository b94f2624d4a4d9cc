r"""How good attributions are, measured against retraining.

Letters: Q queries, E edges, m subsets. An influence of an edge on a query f is everywhere
:math:`I(e) = f(\text{without } e) - f`, so that a positive number says that f rises when the edge goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, stats

from graphrec.errors import InputError
from graphrec.evaluation.comparison import bootstrap
from graphrec.randomness import derive

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """Predicted changes beside actual ones.

    Attributes:
        spearman: rank correlation; NaN where one side is constant.
        low: of its bootstrap interval over edges.
        high: of that interval.
        pearson: linear correlation.
        slope: of the regression of the actual on the predicted changes through 0; 1 where magnitudes are right, above 1
            where the prediction is too small.
        relative_error: mean absolute error over the mean absolute actual change.
        count: how many edges.
    """

    spearman: float
    low: float
    high: float
    pearson: float
    slope: float
    relative_error: float
    count: int


def leave_one_out(
    predicted: Floats, actual: Floats, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Agreement:
    """How well predicted changes agree with those of leave-one-out retraining.

    Args:
        predicted: (M,) of an estimator.
        actual: (M,) of :func:`graphrec.influence.truth.leave_one_out`.
        level: of the interval.
        resamples: of the bootstrap over edges.
        seed: of the bootstrap.

    Raises:
        InputError: shapes differ, or fewer than three edges.
    """
    predicted, actual = np.asarray(predicted, np.float64), np.asarray(actual, np.float64)
    if predicted.shape != actual.shape or predicted.ndim != 1 or len(predicted) < 3:
        raise InputError(
            f"predicted and actual changes must be (M,) with M of 3 or more, found {predicted.shape} and "
            f"{actual.shape}."
        )
    stream = np.random.default_rng(derive(seed, "attribution/bootstrap"))
    drawn = stream.integers(len(actual), size=(resamples, len(actual)))
    again = _rowwise_spearman(predicted[drawn], actual[drawn])
    again = again[~np.isnan(again)]
    low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2]) if len(again) else (np.nan, np.nan)
    power = float(predicted @ predicted)
    size = float(np.abs(actual).mean())
    return Agreement(
        spearman=spearman(predicted, actual),
        low=float(low),
        high=float(high),
        pearson=_pearson(predicted, actual),
        slope=float(predicted @ actual) / power if power else float("nan"),
        relative_error=float(np.abs(predicted - actual).mean()) / size if size else float("nan"),
        count=len(actual),
    )


def spearman(one: Floats, other: Floats) -> float:
    """Rank correlation, equal values at their mean rank; NaN where one side is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    return float(_rowwise_spearman(np.asarray(one)[None], np.asarray(other)[None])[0])


@dataclass(frozen=True, eq=False)
class DatamodelScore:
    """The linear datamodelling score.

    Attributes:
        mean: over queries.
        low: of its bootstrap interval over queries.
        high: of that interval.
        per_query: (Q,).
        subsets: m.
    """

    mean: float
    low: float
    high: float
    per_query: Floats
    subsets: int


def linear_datamodelling_score(
    influence: Floats, kept: Bools, actual: Floats, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> DatamodelScore:
    r"""Rank correlation of what is left to what a sum of single influences says of it (Park et al., ICML 2023, eq. 3).

    For a subset S of the edges the prediction is :math:`\sum_{e \in S} \tau_e` with :math:`\tau_e = -I(e)`, what the
    edge's presence gives to the query; the actual value is the query of a model trained on S alone.

    Args:
        influence: (Q, E).
        kept: (m, E), the edges of each subset.
        actual: (Q, m), of :func:`graphrec.influence.truth.on_subsets`.
        level: of the interval.
        resamples: of the bootstrap over queries.
        seed: of the bootstrap.

    Raises:
        InputError: shapes do not fit, or there are fewer than three subsets.
    """
    influence, actual = np.atleast_2d(influence), np.atleast_2d(actual)
    if actual.shape != (len(influence), len(kept)) or kept.shape[1] != influence.shape[1] or len(kept) < 3:
        raise InputError(
            f"influence (Q, E), kept (m, E) and actual (Q, m) with m of 3 or more are expected, found "
            f"{influence.shape}, {kept.shape} and {actual.shape}."
        )
    predicted = -influence @ kept.T.astype(np.float64)
    per_query = _rowwise_spearman(predicted, actual)
    low, high = bootstrap(per_query[:, None], level=level, resamples=resamples, seed=seed)
    return DatamodelScore(float(np.nanmean(per_query)), float(low[0]), float(high[0]), per_query, len(kept))


def draw_subsets(count: int, edges: int, share: float, *, seed: int, groups: NDArray[np.int64] | None = None) -> Bools:
    """Random subsets, (count, edges) bool, each with a share of the edges or of whole groups of them.

    Args:
        count: m.
        edges: E.
        share: of the edges, or of the groups, that a subset keeps; the number is rounded.
        seed: of the draws; subset number j is the same whatever ``count`` is.
        groups: (E,) a group for each edge, such as its user: where the edges of a user can stand for one another,
            single edges say little.

    Raises:
        InputError: a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise InputError(f"share must lie in (0, 1), found {share}.")
    names, place = (np.arange(edges),) * 2 if groups is None else np.unique(groups, return_inverse=True)
    kept = np.zeros((count, edges), dtype=bool)
    for number in range(count):
        stream = np.random.default_rng(derive(seed, "attribution/subsets", number))
        chosen = np.zeros(len(names), dtype=bool)
        chosen[stream.permutation(len(names))[: round(share * len(names))]] = True
        kept[number] = chosen[place]
    return kept


Retrained = Callable[[Bools], float]
"""The query of a model trained on the edges that are True, (E,) bool."""


@dataclass(frozen=True, eq=False)
class RemovalCurve:
    """The query after removing more and more edges, in three orders.

    Attributes:
        shares: of the edges removed; 0 first.
        values: by order, a value for each share.
        area: between the curve of the edges said to support the query and the random one, over the range of shares;
            positive where removing them lowers the query faster than chance does.
    """

    shares: tuple[float, ...]
    values: Mapping[str, tuple[float, ...]]
    area: float


def removal_curve(influence: Floats, retrained: Retrained, shares: Sequence[float], *, seed: int = 0) -> RemovalCurve:
    """Remove the edges that an attribution names, retrain, and look at the query.

    Orders: ``supporting`` (most negative influence first: the query should fall), ``opposing`` (most positive first:
    it should rise), ``random``.

    Args:
        influence: (E,).
        retrained: trains on what is left.
        shares: of the edges to remove, ascending, without 0.
        seed: of the random order.

    Raises:
        InputError: shares that do not ascend within (0, 1).
    """
    shares = [float(share) for share in shares]
    if not shares or shares != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] < 1:
        raise InputError(f"shares must ascend within (0, 1), found {shares}.")
    whole = retrained(np.ones(len(influence), dtype=bool))
    stream = np.random.default_rng(derive(seed, "attribution/removal"))
    orders = {
        "supporting": np.argsort(influence, kind="stable"),
        "opposing": np.argsort(-influence, kind="stable"),
        "random": stream.permutation(len(influence)),
    }
    values = {}
    for name, order in orders.items():
        curve = [whole]
        for share in shares:
            kept = np.ones(len(influence), dtype=bool)
            kept[order[: round(share * len(influence))]] = False
            curve.append(retrained(kept))
        values[name] = tuple(curve)
    at = np.array([0.0, *shares])
    gap = np.array(values["random"]) - np.array(values["supporting"])
    return RemovalCurve(tuple(at.tolist()), values, float(integrate.trapezoid(gap, at)))


def brittleness(influence: Floats, flipped: Callable[[Bools], bool], *, most: int | None = None) -> int | None:
    """The smallest number of edges whose removal flips a prediction, among those an attribution names first.

    The number is doubled until the prediction flips, then halved in on (flips are taken to be monotone in between, as
    in Ilyas et al., ICML 2022, section 4.1): about 2 log2(E) trainings.

    Args:
        influence: (E,); edges go in the order of how much they support the prediction, most negative first. Edges that
            are said to oppose it never go.
        flipped: whether a model trained on the edges that are True predicts otherwise (the item has dropped out of the
            list).
        most: the largest number to try; None: all that support it.

    Returns:
        the number, or None where not even ``most`` edges flip it.
    """
    order = np.argsort(influence, kind="stable")
    limit = int((influence < 0).sum())
    limit = limit if most is None else min(most, limit)

    def flips(count: int) -> bool:
        kept = np.ones(len(influence), dtype=bool)
        kept[order[:count]] = False
        return flipped(kept)

    low, high = 0, 1
    while high <= limit and not flips(high):
        low, high = high, 2 * high
    if high > limit:
        if low >= limit or not flips(limit):
            return None
        high = limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if flips(middle) else (middle, high)
    return high


def stability(influence: Floats) -> float:
    """Mean rank correlation between the influences of trainings with other seeds, (seeds, E)."""
    if influence.ndim != 2 or len(influence) < 2:
        raise InputError(f"influences of at least two trainings are needed, (seeds, E), found {influence.shape}.")
    first, second = np.triu_indices(len(influence), 1)
    return float(np.mean(_rowwise_spearman(influence[first], influence[second])))


def _rowwise_spearman(one: Floats, other: Floats) -> Floats:
    """(R, N) and (R, N) to (R,)."""
    ranks = [stats.rankdata(rows, axis=1) for rows in (one, other)]
    centred = [rank - rank.mean(1, keepdims=True) for rank in ranks]
    across = (centred[0] * centred[1]).sum(1)
    size = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = across / size
    return found


def _pearson(one: Floats, other: Floats) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])
