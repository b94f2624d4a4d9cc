"""Membership inference: can somebody who sees the scores tell forgotten pairs from true ones never trained on?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from graphrec.evaluation.classification import roc
from graphrec.unlearning.evidence.attack import Logistic, attack_features, fit_logistic
from graphrec.unlearning.evidence.measures import (
    BEFORE,
    MASKED,
    RETRAINED,
    UNLEARNED,
    Measure,
    Row,
    mean_and_sd,
    measured,
    plain,
)
from graphrec.unlearning.evidence.observed import Observed
from graphrec.unlearning.evidence.pairs import PairSet, Populations
from graphrec.unlearning.evidence.roc import Curve, curve, interval, mean_of, resamples
from graphrec.unlearning.evidence.views import View

STRONG = 0.7
"""The AUC that an attack must reach on the model trained with the pairs, or it shows nothing."""

ONE_SIDED = ("threshold", "rank", "known_members", "shadow")
ATTACKS: Mapping[str, str] = {
    "threshold": "the score itself",
    "rank": "the place of the item in the user's ranking",
    "known_members": "logistic regression on 15 features, learnt on the same model from kept and held-out pairs",
    "shadow": "logistic regression on 15 features, learnt on a shadow model",
    "deletion_diff": "how much the score fell from the first model to this one (both are given to the attacker)",
    "two_sided": "distance of the score, either way, from what is usual for a true pair of this user and item",
    "two_sided_reference": "distance of the score, either way, from its mean over the retrained models",
}
"""What each attack looks at."""


@dataclass(frozen=True)
class Attack:
    """One attack on every model.

    Attributes:
        name: one of :data:`ATTACKS`.
        auc_before: on the model trained with the pairs; NaN where the attack needs two models.
        strong: whether that is at least .7; None where the attack cannot be tried on that model.
        leak: AUC on the unlearned model minus the mean AUC on the retrained ones.
        low: lower end of its 95 % interval: paired resamples of the pairs, and the retrained models' own spread.
        high: its upper end.
        verdict: ``within`` the margin with its whole interval, ``beyond`` it, ``undecided``, or ``too weak``.
        roc: the curve (false, true positive rates) of each row; of one of the retrained models.
    """

    name: str
    auc_before: float
    strong: bool | None
    leak: float
    low: float
    high: float
    verdict: str
    roc: Mapping[str, tuple[list[float], list[float]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**plain(asdict(self)), "about": ATTACKS[self.name]}


@dataclass(frozen=True, eq=False)
class Target:
    """A model as the attacker sees it: which row it belongs to, and what was observed of all pairs."""

    row: Row
    view: View
    seen: Observed


def attack_values(
    targets: Sequence[Target],
    pairs: PairSet,
    places: Mapping[str, slice],
    activity: Tensor,
    popularity: Tensor,
    rule: Logistic | None,
    apart: Sequence[int] | None = None,
) -> dict[str, list[tuple[Tensor, Tensor] | None]]:
    """What each attack says of the forgotten and of the held-out pairs, larger is more suspicious.

    Args:
        targets: the models.
        pairs: all pairs that were observed.
        places: where each population is among them.
        activity: (U,) training items of each user before the request.
        popularity: (I,) training users of each item before the request.
        rule: learnt on a shadow model; None: that attack is not run.
        apart: which retrained models the others' expected scores are taken from; None: all. A retrained model's own
            come from the other ones.

    Returns:
        By attack, for each target the values (F,) and (H,), or None where it does not apply.
    """
    both = torch.cat([torch.arange(places[name].start, places[name].stop) for name in ("forgotten", "held_out")])
    count = places["forgotten"].stop - places["forgotten"].start
    learn = torch.cat([torch.arange(places[name].start, places[name].stop) for name in ("kept", "others")])
    kept = places["kept"].stop - places["kept"].start
    labels = (torch.arange(len(learn)) < kept).double()
    learnable = 0 < kept < len(learn)
    first = next((target for target in targets if target.row == BEFORE), None)
    references = [target for target in targets if target.row == RETRAINED]
    held = [references[n] for n in (range(len(references)) if apart is None else apart)]
    out: dict[str, list[tuple[Tensor, Tensor] | None]] = {name: [] for name in ATTACKS}
    for target in targets:
        seen = target.seen[both]
        features = attack_features(target.view, pairs[both], seen, activity, popularity)
        said: dict[str, Tensor | None] = dict.fromkeys(ATTACKS)
        said["threshold"] = seen.score
        said["rank"] = -seen.percentile
        if learnable:
            known = attack_features(target.view, pairs[learn], target.seen[learn], activity, popularity)
            said["known_members"] = fit_logistic(known, labels)(features)
        if rule is not None:
            said["shadow"] = rule(features)
        if first is not None and target is not first:
            said["deletion_diff"] = _scaled(first.seen[both].score) - _scaled(seen.score)
        expected = _usual(target.seen, places, popularity, pairs)
        said["two_sided"] = (seen.score - expected[both]).abs()
        known_by = references if target.row == RETRAINED else held
        others = [one.seen[both].score for one in known_by if one is not target]
        if others:
            said["two_sided_reference"] = (seen.score - torch.stack(others).mean(0)).abs()
        for name, values in said.items():
            out[name].append(None if values is None else (values[:count], values[count:]))
    return out


def _scaled(score: Tensor) -> Tensor:
    """Scores of two trainings differ in size; both are taken to mean 0 and variance 1 over the candidates."""
    return (score - score.mean()) / score.std().clamp(min=1e-12)


def _usual(seen: Observed, places: Mapping[str, slice], popularity: Tensor, pairs: PairSet) -> Tensor:
    """E[s | u, i] of every pair, (P,): least squares of the score of held-out true pairs of other users on the means
    and deviations of user and item and the log popularity; where these are below 50, of the popularity-matched pairs.
    """
    columns = [
        torch.ones_like(seen.score), seen.user_mean, seen.user_sd, seen.item_mean, seen.item_sd,
        popularity[pairs.items].double().log1p(),
    ]  # fmt: skip
    table = torch.stack(columns, 1).nan_to_num(0.0)
    known = places["others"] if places["others"].stop - places["others"].start >= 50 else places["matched"]
    x, y = table[known], seen.score[known]
    if not len(x):
        return seen.user_mean
    scale = x.abs().amax(0).clamp(min=1e-12)
    gram = (x / scale).T @ (x / scale) + 1e-6 * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    return (table / scale) @ torch.linalg.solve(gram, (x / scale).T @ y)


def membership(
    targets: Sequence[Target],
    populations: Populations,
    values: Mapping[str, Sequence[tuple[Tensor, Tensor] | None]],
    *,
    apart: Sequence[int] | None = None,
    masked: bool = True,
    margin: float = 0.05,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[list[Measure], list[Attack]]:
    """Measure every attack on every row.

    Args:
        targets: the models.
        populations: whose forgotten and held-out pairs the values are of.
        values: of :func:`attack_values`.
        apart: which retrained models share no start with the first model; None: all. The curve is of the first.
        masked: whether the row of the mask is wanted too.
        margin: the leak that is still called none.
        draws: resamples of the intervals.
        seed: of the resamples.
    """
    drawn = resamples(populations.forgotten.users, populations.held_out.users, count=draws, seed=seed)
    count = len(populations.forgotten) + len(populations.held_out)
    measures: list[Measure] = []
    attacks: list[Attack] = []
    for name, given in values.items():
        curves: dict[Row, list[Curve]] = {}
        lines: dict[str, tuple[list[float], list[float]]] = {}
        for target, pair in zip(targets, given, strict=True):
            if pair is None:
                continue
            found = curves.setdefault(target.row, [])
            found.append(curve(*pair, drawn))
            shown = apart[0] if apart and target.row == RETRAINED else 0
            if len(found) == shown + 1 and len(pair[0]) and len(pair[1]):
                labels = torch.cat([torch.ones(len(pair[0])), torch.zeros(len(pair[1]))])
                false, true = roc(torch.cat(pair), labels)
                lines[target.row] = (false.tolist(), true.tolist())
        if not curves:
            continue
        rows = dict(curves)
        if masked and BEFORE in rows:
            # The attack asks the model, not the shop window: a mask at serving changes nothing.
            rows[MASKED] = rows[BEFORE]
        for metric, value, sample in (("auc", "auc", "auc_draws"), ("tpr@1%", "tpr", "tpr_draws")):
            intervals = {row: interval(mean_of([getattr(one, sample) for one in own])) for row, own in rows.items()}
            numbers = {row: [getattr(one, value) for one in own] for row, own in rows.items()}
            measures += measured("membership", f"{name}/{metric}", numbers, count=count, intervals=intervals)
        attacks.append(_judged(name, rows, lines, margin))
    return measures, attacks


def seed_noise(values: Sequence[float]) -> float:
    """How far one more training may fall from the mean of n: half a 95 % prediction interval, t_{n-1} s (1 + 1/n)^½.

    0 for a single value: nothing is known of the spread then.
    """
    _, sd = mean_and_sd(values)
    size = len(values)
    return 0.0 if size < 2 else float(stats.t.ppf(0.975, size - 1)) * sd * math.sqrt(1 + 1 / size)


def _judged(
    name: str, rows: Mapping[Row, Sequence[Curve]], lines: Mapping[str, tuple[list[float], list[float]]], margin: float
) -> Attack:
    before = rows[BEFORE][0].auc if BEFORE in rows else math.nan
    strong = None if math.isnan(before) else before >= STRONG
    leak = low = high = math.nan
    if UNLEARNED in rows and RETRAINED in rows:
        references = rows[RETRAINED]
        leak = rows[UNLEARNED][0].auc - sum(one.auc for one in references) / len(references)
        low, high = interval(rows[UNLEARNED][0].auc_draws - mean_of([one.auc_draws for one in references]))
        seeds = seed_noise([one.auc for one in references])
        low, high = leak - math.hypot(leak - low, seeds), leak + math.hypot(high - leak, seeds)
    if math.isnan(leak) or math.isnan(low):
        verdict = "not run"
    elif low > margin or high < -margin:
        verdict = "beyond"
    elif name in ONE_SIDED and not strong:
        verdict = "too weak"
    elif -margin <= low and high <= margin:
        verdict = "within"
    else:
        verdict = "undecided"
    return Attack(name, before, strong, leak, low, high, verdict, dict(lines))
