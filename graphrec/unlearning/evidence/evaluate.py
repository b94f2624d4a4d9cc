"""``evaluate_unlearning``: the four rows, measured on the same users, pairs and lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation.user_items import UserItems
from graphrec.randomness import derive, hash_integers
from graphrec.unlearning.evidence.about import facts_about, limits
from graphrec.unlearning.evidence.attack import Logistic
from graphrec.unlearning.evidence.distance import (
    distribution_measures,
    prediction_measures,
    residual_measures,
    scores_of,
    vector_measures,
)
from graphrec.unlearning.evidence.efficiency import Seconds, efficiency
from graphrec.unlearning.evidence.fairness import fairness_measures
from graphrec.unlearning.evidence.lists import list_measures
from graphrec.unlearning.evidence.measures import (
    BEFORE,
    MASKED,
    RETRAINED,
    ROWS,
    UNLEARNED,
    Measure,
    Row,
)
from graphrec.unlearning.evidence.membership import ONE_SIDED, Attack, Target, attack_values, membership
from graphrec.unlearning.evidence.observed import observe, sampled_users
from graphrec.unlearning.evidence.pairs import PairSet, Populations, populations
from graphrec.unlearning.evidence.recovery import Recovery, recovered
from graphrec.unlearning.evidence.report import Check, Report
from graphrec.unlearning.evidence.scores import Histogram, histograms, score_measures
from graphrec.unlearning.evidence.shadow import degrees, shadow_options, train_shadow
from graphrec.unlearning.evidence.utility import (
    Stayed,
    forgotten_pairs,
    lists_of,
    per_user,
    stayed,
    utility_measures,
    with_pairs,
)
from graphrec.unlearning.evidence.views import View, view
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import Resolved, remaining, resolve

PAIR_SAMPLE = 20_000
SOFTMAX_USERS = 512
LIST_USERS = 20_000


def evaluate_unlearning(
    before: Any,
    after: Any | None,
    retrained: Sequence[Any] | Any,
    data: RecDataset,
    request: ForgetRequest | Resolved,
    *,
    masked: bool = True,
    seconds: Seconds | Mapping[str, float] | None = None,
    ks: Sequence[int] = (20,),
    split: str = "test",
    shadow: Mapping[str, Any] | bool = True,
    injected: bool = False,
    margin: float = 0.05,
    max_pairs: int = 20_000,
    draws: int = 1000,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> Report:
    """Measure what forgetting did, beside doing nothing, hiding, and training anew.

    Every number is of one of four rows: the model before, the same with the forgotten pairs hidden at serving, the
    unlearned model, and models trained anew without the data (mean and standard deviation over their seeds). All see
    the same users, pairs and resamples. Scores, ranks and attacks are taken without any mask; items of forgotten pairs
    are legal recommendations in every row but the second.

    Args:
        before: trained on ``data``: a model, a :class:`graphrec.Run`, a recommender or the path of a run.
        after: the unlearned one; None: that row says that it was not run. A run whose id table lacks users or items
            that were forgotten wholly is matched by raw ids; their pairs cannot be asked for and are counted.
        retrained: models trained without the data, best three to five seeds; one with the seed of ``before`` serves
            the relative residual. Empty: the row says that it was not run.
        data: with what is to be forgotten.
        request: what was forgotten.
        masked: whether the mask at serving is one of the rows.
        seconds: what was timed; see :class:`graphrec.unlearning.evidence.Seconds`.
        ks: lengths of the lists.
        split: the part that holds the truth of those who stay.
        shadow: options of :func:`graphrec.fit` for the shadow model's training; True: those of the run ``before``
            (without a run that attack is not run, and the report says so); False: it is not run.
        injected: whether the request takes back injected edges, so that recovery is asked for; the retrained models
            are the clean ones then.
        margin: the leak of an attack's AUC that is called none.
        max_pairs: the most pairs of each kind.
        draws: resamples of the intervals.
        device: where to compute; None: where the models are.
        seed: of all draws.

    Raises:
        InputError: a request that names nothing of the dataset, models of other ids, or a ``k`` above the catalogue.
    """
    resolved = resolve(request, data) if isinstance(request, ForgetRequest) else request
    resolved.check(data)
    if resolved.empty:
        raise InputError("the request names nothing of the dataset: there is no forgetting to show evidence of.")
    lengths = tuple(sorted({int(k) for k in ks}))
    if not lengths or lengths[0] < 1 or lengths[-1] > data.num_items:
        raise InputError(f"ks is {tuple(ks)}; lengths from 1 to {data.num_items} are expected.")
    left = remaining(data, resolved)
    if isinstance(retrained, (str, bytes)) or not isinstance(retrained, Sequence):
        retrained = [retrained]
    views: dict[Row, list[View]] = {BEFORE: [view(before, data, device, "before")]}
    if after is not None:
        views[UNLEARNED] = [view(after, data, device, "after")]
    if len(retrained):
        views[RETRAINED] = [view(one, data, device, f"retrained[{n}]") for n, one in enumerate(retrained)]
    every = [one for models in views.values() for one in models]
    gone = forgotten_pairs(data, left)
    scene = Scene(
        data=data,
        left=left,
        views=views,
        gone=gone,
        chosen=populations(data, left, every, max_pairs=max_pairs, seed=seed),
        who=stayed(data, left, gone, every, split),
        ks=lengths,
        masked=masked,
        margin=margin,
        max_pairs=max_pairs,
        draws=draws,
        seed=seed,
    )
    notes = limits(data, scene.chosen, scene.who, views, split)
    measures = _lists_and_utility(scene) + _distances(scene, notes)
    attacks: list[Attack] = []
    pictures: dict[str, Histogram] = {}
    trained: Mapping[str, Any] | None = None
    if len(scene.chosen.forgotten):
        rule, trained = _shadow(scene, shadow, notes)
        found, attacks, pictures = _pairs(scene, rule, notes)
        measures += found
    rows = {row: "measured" for row in ROWS}
    if not masked:
        rows[MASKED] = "not run: no mask was asked about"
    if after is None:
        rows[UNLEARNED] = "not run: no unlearned model was given"
    if not len(retrained):
        rows[RETRAINED] = "not run: no retrained model was given"
    report = Report(
        about=facts_about(data, left, resolved, views, scene.chosen, scene.who, gone, lengths, split, seed, trained),
        rows=rows,
        measures=tuple(measures),
        attacks=tuple(attacks),
        histograms=pictures,
        efficiency=efficiency(seconds),
        notes=tuple(notes),
        margin=margin,
    )
    return replace(report, recovery=_recovered(report, lengths) if injected else (), checks=_checks(report, lengths))


@dataclass(frozen=True, eq=False)
class Scene:
    """What all sections share.

    Attributes:
        data: with what is to be forgotten.
        left: without it, on the same id tables.
        views: the models by row.
        gone: the forgotten training pairs.
        chosen: the pairs that are looked at.
        who: those who stay.
        ks: lengths of the lists, ascending.
        masked: whether the row of the mask is wanted.
        margin: the leak that is called none.
        max_pairs: the most pairs of each kind.
        draws: resamples.
        seed: of all draws.
    """

    data: RecDataset
    left: RecDataset
    views: Mapping[Row, Sequence[View]]
    gone: PairSet
    chosen: Populations
    who: Stayed
    ks: tuple[int, ...]
    masked: bool
    margin: float
    max_pairs: int
    draws: int
    seed: int

    @property
    def every(self) -> list[View]:
        """All models."""
        return [one for models in self.views.values() for one in models]

    @cached_property
    def same_seed(self) -> int | None:
        """The retrained model that was started as the first model was; None: there is none."""
        own = self.views[BEFORE][0].seed
        seeds = [one.seed for one in self.views.get(RETRAINED, ())]
        return seeds.index(own) if own is not None and own in seeds else None

    @property
    def apart(self) -> list[int]:
        """Retrained models that share no start with the first model, or all where there are no such ones.

        A model that was made from the first one is more like a retraining from the same start than two retrainings
        are like each other; only the others can be held against the noise of the seeds.
        """
        size = len(self.views.get(RETRAINED, ()))
        return [n for n in range(size) if n != self.same_seed] or list(range(size))


def _lists_and_utility(scene: Scene) -> list[Measure]:
    depth, who, views = scene.ks[-1], scene.who, scene.views
    lists: dict[Row, list[Tensor]] = {
        row: [lists_of(one, who, depth) for one in models] for row, models in views.items()
    }
    size = scene.data.num_items
    if scene.masked:
        lists[MASKED] = [lists_of(views[BEFORE][0], who, depth, with_pairs(who.exclude, scene.gone, size))]
    out: list[Measure] = []
    if bool(who.has_truth.any()):
        values = {row: [per_user(one, who, scene.ks, size) for one in models] for row, models in lists.items()}
        out += utility_measures(values, who, draws=scene.draws, seed=scene.seed)
        activity = UserItems.of(scene.left.pairs("train")).counts(who.users[who.has_truth])
        out += fairness_measures(values, activity, [f"{name}@{depth}" for name in ("ndcg", "recall")])
    few = sampled_users(torch.arange(len(who.users)), LIST_USERS, scene.seed, "evidence/list users")
    shown = {row: [one[few] for one in models] for row, models in lists.items()}
    groups = {name: member[few] for name, member in who.groups.items()}
    out += list_measures(shown, scene.ks, groups, scene.apart)
    if scene.same_seed is not None and len(scene.apart) < len(views[RETRAINED]):
        alone = {row: models for row, models in shown.items() if row != RETRAINED}
        alone[RETRAINED] = [shown[RETRAINED][scene.same_seed]]
        out += list_measures(alone, scene.ks, {"same seed": groups["all"]}, [0])
    return out


def _distances(scene: Scene, notes: list[str]) -> list[Measure]:
    views, who, size = scene.views, scene.who, (scene.data.num_users, scene.data.num_items)
    items = torch.stack([one.items >= 0 for one in scene.every]).all(0).nonzero().flatten()
    fixed = _drawn(who.users, items, PAIR_SAMPLE, scene.seed, "evidence/fixed pairs")
    out = prediction_measures(_scored(views, fixed), "all", len(fixed), scene.apart)
    gone = scene.chosen.forgotten
    if len(gone):
        alive, own, ends = (torch.zeros(n, dtype=torch.bool) for n in (size[0], size[0], size[1]))
        # Rows of nodes that have no edge left are whatever they were drawn as; they are no one's prediction.
        alive[who.users], own[gone.users], ends[gone.items] = True, True, True
        touched = PairSet.joined([gone[alive[gone.users]], fixed[own[fixed.users] | ends[fixed.items]]])
        scores = _scored(views, touched)
        out += prediction_measures(scores, "touched", len(touched), scene.apart)
        out += residual_measures(scores, scene.same_seed, len(touched))
        if views.get(RETRAINED) and scene.same_seed is None:
            notes.append(
                "No retrained model has the seed of the first model: the relative residual is the mean over all of "
                "them, and holds the noise of the seed."
            )
    few = sampled_users(who.users, SOFTMAX_USERS, scene.seed, "evidence/softmax users")
    out += distribution_measures(views, few, items, scene.apart)
    popularity = torch.as_tensor(np.bincount(scene.left.pairs("train").items, minlength=size[1]))
    out += vector_measures(views, who.users, items[popularity[items] > 0], scene.apart)
    return out


def _drawn(users: Tensor, items: Tensor, count: int, seed: int, purpose: str) -> PairSet:
    if not len(users) or not len(items):
        return PairSet.empty()
    numbers = torch.arange(count)
    first = hash_integers(derive(seed, f"{purpose}/users"), len(users), numbers)
    second = hash_integers(derive(seed, f"{purpose}/items"), len(items), numbers)
    return PairSet(users[first], items[second])


def _scored(views: Mapping[Row, Sequence[View]], pairs: PairSet) -> dict[Row, list[Tensor]]:
    return {row: [scores_of(one, pairs) for one in models] for row, models in views.items()}


def _shadow(
    scene: Scene, shadow: Mapping[str, Any] | bool, notes: list[str]
) -> tuple[Logistic | None, Mapping[str, Any] | None]:
    if shadow is False:
        notes.append("The shadow-model attack was not asked for.")
        return None, None
    before = scene.views[BEFORE][0]
    options = shadow_options(before, None if shadow is True else dict(shadow))
    if options is None:
        notes.append(
            "The shadow-model attack was not run: the model was given in memory, and how it was trained is not known "
            "(shadow= takes options of fit)."
        )
        return None, None
    trained = train_shadow(before.model, scene.left, options, max_pairs=scene.max_pairs, seed=scene.seed)
    if trained is None:
        notes.append("The shadow-model attack was not run: half of the remaining data would be empty.")
        return None, None
    return trained.rule, {"pairs": trained.pairs, "epochs": trained.options.get("epochs")}


def _pairs(
    scene: Scene, rule: Logistic | None, notes: list[str]
) -> tuple[list[Measure], list[Attack], dict[str, Histogram]]:
    views, chosen, who = scene.views, scene.chosen, scene.who
    pairs, places = chosen.joined()
    sample = sampled_users(who.users, 2048, scene.seed, "evidence/item means")
    targets = [Target(row, one, observe(one, pairs, sample=sample)) for row, models in views.items() for one in models]
    seen = {
        row: [{name: target.seen[place] for name, place in places.items()} for target in targets if target.row == row]
        for row in views
    }
    ranks = {
        row: [observe(one, chosen.forgotten, exclude=who.exclude).percentile for one in models]
        for row, models in views.items()
    }
    out = score_measures(seen, ranks)
    if scene.masked:
        # Hiding changes what is shown and nothing of what the model says.
        out += [_as_masked(one) for one in out if one.row == BEFORE]
    attacks: list[Attack] = []
    if len(chosen.held_out):
        values = attack_values(targets, pairs, places, *degrees(scene.data), rule, scene.apart)
        found, attacks = membership(
            targets,
            chosen,
            values,
            apart=scene.apart,
            masked=scene.masked,
            margin=scene.margin,
            draws=scene.draws,
            seed=scene.seed,
        )
        out += found
        weak = [one.name for one in attacks if one.strong is False and one.name in ONE_SIDED]
        if weak:
            notes.append(
                f"Too weak on the model trained with the pairs (AUC below .7): {', '.join(weak)}. That they find "
                "nothing elsewhere shows nothing."
            )
        if len(views.get(RETRAINED, ())) == 1:
            notes.append("One retrained model: the leak's intervals hold the pairs' noise and not the seeds'.")
    return out, attacks, histograms(seen, ranks)


def _as_masked(one: Measure) -> Measure:
    return replace(one, row=MASKED)


def _recovered(report: Report, ks: tuple[int, ...]) -> tuple[Recovery, ...]:
    """Recovery of every utility metric; refused for attacks that are no larger than the noise of the seeds."""
    out = []
    for metric in [f"{name}@{k}" for k in ks for name in ("recall", "ndcg")]:
        clean, attacked, after = (report.find("utility", metric, row) for row in (RETRAINED, BEFORE, UNLEARNED))
        if clean is None or attacked is None or after is None:
            out.append(Recovery(metric, math.nan, math.nan, math.nan, "not run"))
            continue
        out.append(recovered(metric, clean.value, clean.sd, poisoned=attacked.value, unlearned=after.value))
    return tuple(out)


def _checks(report: Report, ks: tuple[int, ...]) -> tuple[Check, ...]:
    """The four bounds that approximate methods are held to."""
    k = ks[-1]
    kept, target = (report.value("utility", f"recall@{k}", row) for row in (UNLEARNED, RETRAINED))
    share = kept / target if target > 0 else math.nan
    gap = abs(report.value("scores", "score_gap_sd", UNLEARNED))
    fast = report.efficiency.marginal
    leak = max((abs(one.leak) for one in report.attacks if not math.isnan(one.leak)), default=math.nan)
    asked = (
        (f"Recall@{k} over that of retraining, at least", share, 0.97, share >= 0.97),
        ("distance of the mean score of F to retraining in deviations, at most", gap, 0.5, gap <= 0.5),
        ("largest leak of an attack's AUC, at most", leak, 0.03, leak <= 0.03),
        ("times as fast as retraining, at least", fast, 10.0, fast >= 10),
    )
    return tuple(Check(name, value, bound, None if math.isnan(value) else met) for name, value, bound, met in asked)
