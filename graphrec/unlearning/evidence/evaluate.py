"""``evaluate_unlearning``: the four rows, measured on the same users, pairs and lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation.ranking import UserItems
from graphrec.randomness import derive, hash_integers
from graphrec.unlearning.evidence.attack import Logistic
from graphrec.unlearning.evidence.distance import (
    distribution_measures,
    prediction_measures,
    residual_measures,
    scores_of,
    vector_measures,
)
from graphrec.unlearning.evidence.efficiency import Efficiency, Seconds, efficiency
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
    chosen = populations(data, left, every, max_pairs=max_pairs, seed=seed)
    who = stayed(data, left, gone, every, split)
    notes = _notes(data, chosen, who, views, split)

    measures: list[Measure] = []
    measures += _lists_and_utility(views, who, gone, data, lengths, masked, draws, seed, left)
    measures += _distances(views, who, chosen, left, data, seed, notes)
    attacks: list[Attack] = []
    pictures: dict[str, Histogram] = {}
    trained: Mapping[str, Any] | None = None
    if len(chosen.forgotten):
        rule, trained = _shadow(views[BEFORE][0], left, shadow, max_pairs, seed, notes)
        found, attacks, pictures = _pairs(views, chosen, who, data, rule, masked, margin, draws, seed, notes)
        measures += found
    about = _about(data, left, resolved, views, chosen, who, gone, lengths, split, seed, trained)
    cost = efficiency(seconds)
    rows = {row: "measured" for row in ROWS}
    if not masked:
        rows[MASKED] = "not run: no mask was asked about"
    if after is None:
        rows[UNLEARNED] = "not run: no unlearned model was given"
    if not len(retrained):
        rows[RETRAINED] = "not run: no retrained model was given"
    unfinished = Report(about, rows, measures, attacks, pictures, cost, (), (), (), margin)
    return Report(
        about=about,
        rows=rows,
        measures=tuple(measures),
        attacks=tuple(attacks),
        histograms=pictures,
        efficiency=cost,
        recovery=_recovered(unfinished, views, lengths) if injected else (),
        checks=_checks(unfinished, cost, lengths),
        notes=tuple(notes),
        margin=margin,
    )


def _lists_and_utility(
    views: Mapping[Row, Sequence[View]],
    who: Stayed,
    gone: PairSet,
    data: RecDataset,
    ks: tuple[int, ...],
    masked: bool,
    draws: int,
    seed: int,
    left: RecDataset,
) -> list[Measure]:
    depth = ks[-1]
    lists: dict[Row, list[Tensor]] = {
        row: [lists_of(one, who, depth) for one in models] for row, models in views.items()
    }
    if masked:
        hidden = with_pairs(who.exclude, gone, data.num_items)
        lists[MASKED] = [lists_of(views[BEFORE][0], who, depth, hidden)]
    out: list[Measure] = []
    if bool(who.has_truth.any()):
        values = {row: [per_user(one, who, ks, data.num_items) for one in models] for row, models in lists.items()}
        out += utility_measures(values, who, draws=draws, seed=seed)
        activity = UserItems.of(left.pairs("train")).counts(who.users[who.has_truth])
        out += fairness_measures(values, activity, [f"{name}@{depth}" for name in ("ndcg", "recall")])
    few = sampled_users(torch.arange(len(who.users)), LIST_USERS, seed, "evidence/list users")
    shown = {row: [one[few] for one in models] for row, models in lists.items()}
    return out + list_measures(shown, ks, {name: member[few] for name, member in who.groups.items()})


def _distances(
    views: Mapping[Row, Sequence[View]],
    who: Stayed,
    chosen: Populations,
    left: RecDataset,
    data: RecDataset,
    seed: int,
    notes: list[str],
) -> list[Measure]:
    every = [one for models in views.values() for one in models]
    items = torch.stack([one.items >= 0 for one in every]).all(0).nonzero().flatten()
    popular = torch.as_tensor(np.bincount(left.pairs("train").items, minlength=data.num_items))
    fixed = _drawn(who.users, items, PAIR_SAMPLE, seed, "evidence/fixed pairs")
    out = prediction_measures(_scored(views, fixed), "all", len(fixed))
    if len(chosen.forgotten):
        ends = torch.zeros(data.num_users, dtype=torch.bool), torch.zeros(data.num_items, dtype=torch.bool)
        ends[0][chosen.forgotten.users], ends[1][chosen.forgotten.items] = True, True
        near = fixed[ends[0][fixed.users] | ends[1][fixed.items]]
        # Rows of nodes that have no edge left are whatever they were drawn as; they are no one's prediction.
        alive = torch.zeros(data.num_users, dtype=torch.bool)
        alive[who.users] = True
        touched = PairSet.joined([chosen.forgotten[alive[chosen.forgotten.users]], near])
        scores = _scored(views, touched)
        out += prediction_measures(scores, "touched", len(touched))
        seeds = {row: [one.seed for one in models] for row, models in views.items()}
        found, same = residual_measures(scores, seeds, len(touched))
        out += found
        if found and not same:
            notes.append(
                "No retrained model has the seed of the first model: the relative residual is the mean over all of "
                "them, and holds the noise of the seed."
            )
    few = sampled_users(who.users, SOFTMAX_USERS, seed, "evidence/softmax users")
    if bool((torch.stack([one.items for one in every]) >= 0).all()):
        out += distribution_measures(views, few)
    out += vector_measures(views, who.users, items[popular[items] > 0])
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
    before: View, left: RecDataset, shadow: Mapping[str, Any] | bool, max_pairs: int, seed: int, notes: list[str]
) -> tuple[Logistic | None, Mapping[str, Any] | None]:
    if shadow is False:
        notes.append("The shadow-model attack was not asked for.")
        return None, None
    options = shadow_options(before, None if shadow is True else dict(shadow))
    if options is None:
        notes.append(
            "The shadow-model attack was not run: the model was given in memory, and how it was trained is not known "
            "(shadow= takes options of fit)."
        )
        return None, None
    trained = train_shadow(before.model, left, options, max_pairs=max_pairs, seed=seed)
    if trained is None:
        notes.append("The shadow-model attack was not run: half of the remaining data would be empty.")
        return None, None
    return trained.rule, {"pairs": trained.pairs, "epochs": trained.options.get("epochs")}


def _pairs(
    views: Mapping[Row, Sequence[View]],
    chosen: Populations,
    who: Stayed,
    data: RecDataset,
    rule: Logistic | None,
    masked: bool,
    margin: float,
    draws: int,
    seed: int,
    notes: list[str],
) -> tuple[list[Measure], list[Attack], dict[str, Histogram]]:
    pairs, places = chosen.joined()
    sample = sampled_users(who.users, 2048, seed, "evidence/item means")
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
    if masked:
        # Hiding changes what is shown and nothing of what the model says.
        out += [_as_masked(one) for one in out if one.row == BEFORE]
    attacks: list[Attack] = []
    if len(chosen.held_out):
        activity, popularity = degrees(data)
        values = attack_values(targets, pairs, places, activity, popularity, rule)
        found, attacks = membership(targets, chosen, values, masked=masked, margin=margin, draws=draws, seed=seed)
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
    return Measure(**{**{name: getattr(one, name) for name in one.__dataclass_fields__}, "row": MASKED})


def _notes(
    data: RecDataset, chosen: Populations, who: Stayed, views: Mapping[Row, Sequence[View]], split: str
) -> list[str]:
    notes = []
    if chosen.asked == 0:
        notes.append("The request takes no training interaction away: there are no pairs to rank or to attack.")
    if chosen.unscorable:
        notes.append(
            f"{chosen.unscorable:,} of {chosen.asked:,} forgotten pairs belong to users or items that some model has "
            "no row for any more; nothing can be asked about them, and they are in no number below."
        )
    if len(chosen.forgotten) and not len(chosen.held_out):
        notes.append("No held-out interactions: the membership attacks have no control and were not run.")
    elif chosen.same_users < len(chosen.held_out):
        notes.append(
            f"{len(chosen.held_out) - chosen.same_users:,} of {len(chosen.held_out):,} control pairs are of other "
            "users of about the same activity: the forgotten ones have too few held-out pairs of their own."
        )
    if len(chosen.held_out) and len(chosen.held_out) < 100:
        notes.append(
            f"With {len(chosen.held_out)} control pairs a false positive rate of 1 % means none at all; the true "
            "positive rate there is coarse."
        )
    if who.emptied:
        notes.append(
            f"{who.emptied:,} users have no training interaction left; they are not among those who stay. Their scores "
            "come from rows that no training touches, so that attacks on their pairs see noise in the retrained row."
        )
    for name in ("near", "far"):
        if not bool(who.groups[name].any()):
            notes.append(f"No user who stays is {name}: the data is so dense that all are closer to the request.")
    count = len(views.get(RETRAINED, ()))
    if count == 0:
        notes.append("Nothing was retrained: no gap, no ceiling and no leak can be given.")
    elif count < 3:
        notes.append(f"{count} retrained model{'s' if count > 1 else ''}: standard deviations over seeds mean little.")
    if split not in data.parts:
        notes.append(f"The dataset has no part {split!r}: the utility of those who stay was not measured.")
    return notes


def _about(
    data: RecDataset,
    left: RecDataset,
    resolved: Resolved,
    views: Mapping[Row, Sequence[View]],
    chosen: Populations,
    who: Stayed,
    gone: PairSet,
    ks: tuple[int, ...],
    split: str,
    seed: int,
    shadow: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        "fingerprint_after": left.fingerprint,
        "model": type(views[BEFORE][0].model).__name__,
        "seed_before": views[BEFORE][0].seed,
        "seeds_retrained": [one.seed for one in views.get(RETRAINED, ())],
        "retrained_models": len(views.get(RETRAINED, ())),
        "forgotten_edges": len(resolved),
        "forgotten_nodes": {name: len(codes) for name, codes in resolved.nodes.items()},
        "forgotten_pairs": len(gone),
        "forgotten_users": len(gone.users.unique()),
        "forgotten_items": len(gone.items.unique()),
        "training_edges": len(data.interactions("train")),
        "scored_pairs": len(chosen.forgotten),
        "unscorable_pairs": chosen.unscorable,
        "control_pairs": len(chosen.held_out),
        "control_pairs_of_same_users": chosen.same_users,
        "users_who_stay": len(who.users),
        "users_with_truth": int(who.has_truth.sum()),
        "users_emptied": who.emptied,
        "users_by_group": {name: int(member.sum()) for name, member in who.groups.items()},
        "rbo": "extrapolated, p = 0.9",
        "split": split,
        "ks": list(ks),
        "seed": seed,
        "shadow": None if shadow is None else dict(shadow),
    }


def _recovered(report: Report, views: Mapping[Row, Sequence[View]], ks: tuple[int, ...]) -> tuple[Recovery, ...]:
    """Recovery of every utility metric; refused for attacks that are no larger than the noise of the seeds."""
    out = []
    for metric in [f"{name}@{k}" for k in ks for name in ("recall", "ndcg")]:
        clean, attacked, after = (report.find("utility", metric, row) for row in (RETRAINED, BEFORE, UNLEARNED))
        if clean is None or attacked is None or after is None:
            out.append(Recovery(metric, math.nan, math.nan, math.nan, "not run"))
            continue
        out.append(recovered(metric, clean.value, clean.sd, poisoned=attacked.value, unlearned=after.value))
    return tuple(out)


def _checks(report: Report, cost: Efficiency, ks: tuple[int, ...]) -> tuple[Check, ...]:
    """The four bounds that approximate methods are held to."""
    k = ks[-1]
    kept, target = (report.value("utility", f"recall@{k}", row) for row in (UNLEARNED, RETRAINED))
    share = kept / target if target > 0 else math.nan
    gap = abs(report.value("scores", "score_gap_sd", UNLEARNED))
    leak = max((abs(one.leak) for one in report.attacks if not math.isnan(one.leak)), default=math.nan)
    asked = (
        (f"Recall@{k} over that of retraining, at least", share, 0.97, share >= 0.97),
        ("distance of the mean score of F to retraining in deviations, at most", gap, 0.5, gap <= 0.5),
        ("largest leak of an attack's AUC, at most", leak, 0.03, leak <= 0.03),
        ("times as fast as retraining, at least", cost.marginal, 10.0, cost.marginal >= 10),
    )
    return tuple(Check(name, value, bound, None if math.isnan(value) else met) for name, value, bound, met in asked)
