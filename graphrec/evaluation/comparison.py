"""Whether one model is better than another: paired tests over users, corrected for their number, with intervals."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from graphrec.errors import InputError, unknown
from graphrec.evaluation.click import ClickEvaluation
from graphrec.evaluation.result import Evaluation, by_activity
from graphrec.evaluation.specs import METRICS
from graphrec.randomness import derive
from graphrec.runs import Run

PerUser: TypeAlias = Evaluation | ClickEvaluation | Run | pa.Table | pd.DataFrame | str | os.PathLike[str]
FACTS = ("dataset", "split", "mask", "cold", "candidates", "sampled_negatives", "scaling")
KEYS = ("user", "truth", "train")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models against a baseline.

    Attributes:
        frame: a row for each model and metric: ``model``, ``baseline``, ``metric``, ``mean``, ``baseline_mean``,
            ``difference``, ``relative`` (difference over the baseline's mean), ``low`` and ``high`` (bootstrap
            interval of the difference), ``t`` and ``t_p`` (paired t-test), ``wilcoxon_p``, ``t_holm`` and
            ``wilcoxon_holm`` (corrected over all rows), ``wins``, ``losses``, ``ties`` (users), ``users``.
        activity: means of every model for groups of users by activity: ``model``, ``group``, ``from``, ``to``,
            ``users`` and the metrics.
        popularity: recall of every model for groups of items by popularity; None where a table does not say.
        level: of the interval.
    """

    frame: pd.DataFrame
    activity: pd.DataFrame
    popularity: pd.DataFrame | None
    level: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values: ``rows``, ``by_activity``, ``by_popularity`` and ``level``."""
        return {
            "level": self.level,
            "rows": _records(self.frame),
            "by_activity": _records(self.activity),
            "by_popularity": None if self.popularity is None else _records(self.popularity),
        }

    def __str__(self) -> str:
        return self.frame.to_string(index=False)


def compare(
    runs: Mapping[str, PerUser] | Sequence[PerUser],
    baseline: int | str = 0,
    *,
    metrics: Iterable[str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    groups: int = 4,
    seed: int = 0,
) -> Comparison:
    """Compare models user by user.

    Args:
        runs: at least two: runs, paths of runs, evaluations, or tables of per-user metrics (``Evaluation.per_user``);
            by name where a mapping is given.
        baseline: the position or the name of the one that the others are compared with.
        metrics: keys such as ``recall@20``; None: every key that all have and that is better larger or smaller.
        level: of the bootstrap interval over users.
        resamples: how often users are drawn again for the interval.
        groups: how many groups of users by activity (and of items by popularity, where evaluations are given).
        seed: of the bootstrap.

    Raises:
        InputError: fewer than two models, no per-user metrics, or other users, truth, split or mask.
    """
    names, tables, evaluations = _tables(runs)
    base = _position(baseline, names)
    _same_protocol(names, tables, base)
    frames = [table.to_pandas().sort_values("user", kind="stable", ignore_index=True) for table in tables]
    _same_users(names, frames, base)
    keys = _keys(frames, metrics)
    rows, differences = [], []
    for position, frame in enumerate(frames):
        if position == base:
            continue
        for key in keys:
            ours, theirs = frame[key].to_numpy(float), frames[base][key].to_numpy(float)
            there = ~(np.isnan(ours) | np.isnan(theirs))
            differences.append(np.where(there, ours - theirs, np.nan))
            rows.append(
                {
                    "model": names[position],
                    "baseline": names[base],
                    "metric": key,
                    **_paired(ours[there], theirs[there]),
                }
            )
    low, high = bootstrap(np.stack(differences, 1), level=level, resamples=resamples, seed=seed)
    result = pd.DataFrame(rows)
    place = result.columns.get_loc("t")
    assert isinstance(place, int)
    result.insert(place, "low", low)
    result.insert(place + 1, "high", high)
    result["t_holm"] = holm(result["t_p"].to_numpy())
    result["wilcoxon_holm"] = holm(result["wilcoxon_p"].to_numpy())
    activity = pd.concat(
        [_named(by_activity(frame[[*KEYS, *keys]], groups), name) for name, frame in zip(names, frames, strict=True)],
        ignore_index=True,
    )
    parts = [_popularity(table, evaluation, groups) for table, evaluation in zip(tables, evaluations, strict=True)]
    known = [_named(part, name) for name, part in zip(names, parts, strict=True) if part is not None]
    popularity = pd.concat(known, ignore_index=True) if len(known) == len(names) else None
    return Comparison(result, activity, popularity, level)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction: the i-th smallest of m p-values times m - i + 1, never decreasing, at most 1; NaN stays.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    corrected = np.full(len(p), math.nan)
    there = np.flatnonzero(~np.isnan(p))
    order = there[np.argsort(p[there], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected


def bootstrap(
    values: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of means over users, the same draws for every column.

    Args:
        values: (N,) or (N, M) a value for each user; NaN is left out of the mean.
        level: the share of the resampled means within the interval.
        resamples: how often N users are drawn with replacement.
        seed: of the draws.

    Returns:
        Lower and upper ends, (M,); NaN where no user has a value.

    Raises:
        InputError: a level that is no share, or no resamples.
    """
    table = values[:, None] if values.ndim == 1 else values
    if len(table) == 0:
        return np.full(table.shape[1], math.nan), np.full(table.shape[1], math.nan)
    there = ~np.isnan(table)
    filled = np.where(there, table, 0.0)
    random = np.random.Generator(np.random.PCG64(derive(seed, "bootstrap")))
    size = len(table)
    if not 0 < level < 1 or resamples < 1:
        raise InputError(
            f"level must lie between 0 and 1, and resamples be at least 1; found {level:g} and {resamples}."
        )
    means = np.empty((resamples, table.shape[1]))
    whole = bool(there.all())
    step = max(1, (1 << 24) // max(size, 1) // 8)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = np.stack(
            [np.bincount(random.integers(size, size=size), minlength=size) for _ in range(start, stop)]
        ).astype(float)
        counted = float(size) if whole else np.maximum(drawn @ there, 1)
        means[start:stop] = (drawn @ filled) / counted
    outside = (1 - level) / 2
    low, high = np.quantile(means, [outside, 1 - outside], axis=0)
    none = ~there.any(axis=0)
    return np.where(none, math.nan, low), np.where(none, math.nan, high)


def intervals(
    evaluation: PerUser, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Bootstrap interval over users of each per-user metric of one run."""
    _, (table,), _ = _tables([evaluation])
    frame = table.to_pandas()
    keys = [name for name in frame.columns if name not in KEYS]
    low, high = bootstrap(frame[keys].to_numpy(float), level=level, resamples=resamples, seed=seed)
    return {key: (float(a), float(b)) for key, a, b in zip(keys, low, high, strict=True)}


def _paired(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    difference = ours - theirs
    mean, base = float(ours.mean()), float(theirs.mean())
    t, t_p, wilcoxon_p = 0.0, 1.0, 1.0
    if np.any(difference != 0):
        if np.ptp(difference) > 0:
            tested = stats.ttest_rel(ours, theirs)
            t, t_p = float(tested.statistic), float(tested.pvalue)
        else:
            # The same difference for every user: the test has no variance to compare it with.
            t, t_p = math.copysign(math.inf, difference[0]), (0.0 if len(difference) > 1 else math.nan)
        wilcoxon_p = float(stats.wilcoxon(difference, zero_method="wilcox", method="auto").pvalue)
    return {
        "mean": mean,
        "baseline_mean": base,
        "difference": mean - base,
        "relative": (mean - base) / base if base else math.nan,
        "t": t,
        "t_p": t_p,
        "wilcoxon_p": wilcoxon_p,
        "wins": int((difference > 0).sum()),
        "losses": int((difference < 0).sum()),
        "ties": int((difference == 0).sum()),
        "users": len(difference),
    }


def _tables(
    runs: Mapping[str, PerUser] | Sequence[PerUser],
) -> tuple[list[str], list[pa.Table], list[Evaluation | None]]:
    if isinstance(runs, (str, os.PathLike, Run, Evaluation, ClickEvaluation, pa.Table, pd.DataFrame)):
        raise InputError("compare takes a list of runs, or a mapping of names to runs.")
    given = list(runs.items()) if isinstance(runs, Mapping) else [("", run) for run in runs]
    names, tables, evaluations = [], [], []
    for position, (name, source) in enumerate(given):
        evaluation = source if isinstance(source, Evaluation) else None
        if isinstance(source, (str, os.PathLike)):
            source = Run.open(source)
        if isinstance(source, Run):
            name = name or source.path.name
            table = source.per_user()
            if table is None:
                raise InputError(f"{source.path} has no per_user.parquet: it was not evaluated on a test part.")
        elif isinstance(source, (Evaluation, ClickEvaluation)):
            table = source.per_user
        elif isinstance(source, pd.DataFrame):
            table = pa.Table.from_pandas(source, preserve_index=False)
        elif isinstance(source, pa.Table):
            table = source
        else:
            raise InputError(f"expected a run, an evaluation or a table, found a {type(source).__name__}.")
        lacking = [key for key in KEYS if key not in table.column_names]
        if lacking:
            raise InputError(
                f"the per-user table of {name or f'number {position + 1}'} has no column {lacking[0]!r}; it has "
                f"{', '.join(table.column_names)}."
            )
        name = name or f"model {position + 1}"
        # Two runs of the same folder name stay apart.
        names.append(name if name not in names else f"{name} ({position + 1})")
        tables.append(table)
        evaluations.append(evaluation)
    return names, tables, evaluations


def _position(baseline: int | str, names: list[str]) -> int:
    if len(names) < 2:
        raise InputError(f"a comparison needs at least two models, found {len(names)}.")
    if isinstance(baseline, str):
        if baseline in names:
            return names.index(baseline)
        folder = os.path.basename(os.path.normpath(baseline))
        if folder in names:
            return names.index(folder)
        raise unknown("baseline", baseline, names)
    if not 0 <= baseline < len(names):
        raise InputError(f"baseline is {baseline}; the models are numbered from 0 to {len(names) - 1}.")
    return baseline


def _same_protocol(names: list[str], tables: list[pa.Table], base: int) -> None:
    said = [_facts(table) for table in tables]
    for name, facts in zip(names, said, strict=True):
        for fact in FACTS:
            here, there = facts.get(fact), said[base].get(fact)
            if here is not None and there is not None and here != there:
                raise InputError(
                    f"{name} and {names[base]} cannot be compared: {fact} is {here!r} in one and {there!r} in "
                    "the other. Evaluate both in the same way."
                )


def _popularity(table: pa.Table, evaluation: Evaluation | None, groups: int) -> pd.DataFrame | None:
    """Groups of items by popularity: counted again from an evaluation, as it was written down from a table."""
    if evaluation is not None:
        return evaluation.by_popularity(groups)
    written = _facts(table).get("by_popularity")
    return None if written is None else pd.DataFrame(json.loads(written))


def _facts(table: pa.Table) -> dict[str, str]:
    metadata = table.schema.metadata or {}
    return {
        key.decode().removeprefix("graphrec."): value.decode()
        for key, value in metadata.items()
        if key.startswith(b"graphrec.")
    }


def _same_users(names: list[str], frames: list[pd.DataFrame], base: int) -> None:
    reference = frames[base]
    for name, frame in zip(names, frames, strict=True):
        if len(frame) != len(reference) or not (frame["user"].to_numpy() == reference["user"].to_numpy()).all():
            ours, theirs = set(frame["user"]), set(reference["user"])
            raise InputError(
                f"{name} and {names[base]} cannot be compared: they were evaluated on {len(frame)} and "
                f"{len(reference)} users, {len(ours & theirs)} of them the same."
            )
        if not (frame["truth"].to_numpy() == reference["truth"].to_numpy()).all():
            raise InputError(
                f"{name} and {names[base]} cannot be compared: some users have more relevant items in one than in the "
                "other, so the splits differ."
            )


def _keys(frames: list[pd.DataFrame], metrics: Iterable[str] | None) -> list[str]:
    common = [name for name in frames[0].columns if all(name in frame.columns for frame in frames) and name not in KEYS]
    if metrics is not None:
        chosen = [metrics] if isinstance(metrics, str) else list(metrics)
        for key in chosen:
            if key not in common:
                raise unknown("metric", key, common)
        return chosen
    judged = [key for key in common if _judged(key)]
    if not judged:
        raise InputError("the per-user tables have no metric in common.")
    return judged


def _judged(key: str) -> bool:
    spec = METRICS.get(key.split("@")[0])
    return spec is None or spec.higher_is_better is not None


def _named(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    frame.insert(0, "model", name)
    return frame


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON values; what is not finite becomes None."""

    def plain(value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{str(key): plain(value) for key, value in row.items()} for row in frame.to_dict("records")]
