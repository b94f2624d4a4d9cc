"""One number of the evidence: what was measured, on which model, and how far it is from retraining."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Row = Literal["before", "before + mask", "unlearned", "retrained"]
BEFORE: Row = "before"
MASKED: Row = "before + mask"
UNLEARNED: Row = "unlearned"
RETRAINED: Row = "retrained"
ROWS: tuple[Row, ...] = (BEFORE, MASKED, UNLEARNED, RETRAINED)
"""The model as it was; the same with the forgotten pairs hidden when it is served; after forgetting; trained anew."""


@dataclass(frozen=True)
class Measure:
    """A value of one row.

    Attributes:
        section: what it is about ("utility", "scores", "membership", "lists", "distance", "fairness").
        metric: lower-case name ("recall@20").
        row: one of :data:`ROWS`.
        value: of the row; of several retrained models their mean.
        group: of users or pairs it was taken over.
        sd: standard deviation over the retrained models (n - 1); NaN where there is one model.
        low: lower end of a 95 % bootstrap interval, where there is one.
        high: its upper end.
        count: users or pairs behind it.
        models: models behind it.
        gap: value minus the retrained models' mean; NaN where there are none.
        gap_sd: the gap in standard deviations of the retrained models; NaN below two of them.
    """

    section: str
    metric: str
    row: Row
    value: float
    group: str = "all"
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    count: int = 0
    models: int = 1
    gap: float = math.nan
    gap_sd: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what is not finite becomes None."""
        return {name: plain(value) for name, value in asdict(self).items()}


def plain(value: Any) -> Any:
    """A value as JSON knows it: NaN and infinities are None, tuples lists, keys strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") and not isinstance(value, (int, float)) else value


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) of the values that are numbers; NaN where there are too few."""
    known = [float(value) for value in values if not math.isnan(value)]
    if not known:
        return math.nan, math.nan
    mean = math.fsum(known) / len(known)
    if len(known) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))


def measured(
    section: str,
    metric: str,
    values: Mapping[Row, Sequence[float]],
    *,
    group: str = "all",
    count: int = 0,
    intervals: Mapping[Row, tuple[float, float]] | None = None,
) -> list[Measure]:
    """The measures of one metric, one for each row that has a value, with their gaps to the retrained models.

    Args:
        section: see :class:`Measure`.
        metric: see :class:`Measure`.
        values: of each model of each row; a row without any is left out.
        group: see :class:`Measure`.
        count: see :class:`Measure`.
        intervals: lower and upper ends by row.
    """
    target, spread = mean_and_sd(values.get(RETRAINED, ()))
    out = []
    for row in ROWS:
        given = values.get(row, ())
        mean, sd = mean_and_sd(given)
        if math.isnan(mean):
            continue
        low, high = (intervals or {}).get(row, (math.nan, math.nan))
        gap = mean - target
        # A spread of nothing is no unit to measure by, unless there is nothing to measure.
        in_sd = gap / spread if spread > 0 else (0.0 if spread == 0 and gap == 0 else math.nan)
        out.append(Measure(section, metric, row, mean, group, sd, low, high, count, len(given), gap, in_sd))
    return out
