"""The metrics that an evaluation can be asked for, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.evaluation import beyond_accuracy, fairness, metrics


@dataclass(frozen=True)
class Lists:
    """Lists of one length, and what is known about the items in them.

    Attributes:
        items: (B, k) int64, -1 where a list is shorter.
        num_items: n, the items of the catalogue, or the candidates where these were chosen (numbered from 0 then).
        popularity: (n,) int64, training interactions of each item.
        num_users: users of the dataset.
        tail: (n,) bool, the long tail.
        features: (n, D), what intra-list diversity is measured on; None: not given.
    """

    items: Tensor
    num_items: int
    popularity: Tensor
    num_users: int
    tail: Tensor
    features: Tensor | None = None

    @property
    def k(self) -> int:
        """The length of the lists."""
        return self.items.shape[1]

    @cached_property
    def counts(self) -> Tensor:
        """(n,) int64, the lists that contain each item."""
        return beyond_accuracy.exposure(self.items, self.num_items)


HitFunction = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
ListFunction = Callable[[Lists], float | Tensor]


@dataclass(frozen=True)
class MetricSpec:
    """A metric.

    Attributes:
        name: lower-case; its key is ``name@k``, or ``name`` for those of the whole ranking.
        kind: ``hits`` (of hit matrices, a value for each user), ``lists`` (of the items in the lists) or ``ranking``
            (of the whole ranking, so that every score is looked at again).
        higher_is_better: False where smaller values are wished for; None where it depends.
        bounds: the smallest and the largest value there can be.
        summary: one line.
        hits: the function of a metric of kind ``hits``.
        lists: the function of a metric of kind ``lists``; a value, or one for each user.
    """

    name: str
    kind: Literal["hits", "lists", "ranking"]
    higher_is_better: bool | None
    bounds: tuple[float, float]
    summary: str
    hits: HitFunction | None = None
    lists: ListFunction | None = None

    def key(self, k: int) -> str:
        """``recall@20``; rankings as a whole have no cut-off."""
        return self.name if self.kind == "ranking" else f"{self.name}@{k}"


def _hits(name: str, function: HitFunction, summary: str) -> MetricSpec:
    return MetricSpec(name, "hits", True, (0.0, 1.0), summary, hits=function)


def _lists(
    name: str,
    function: ListFunction,
    higher: bool | None,
    summary: str,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> MetricSpec:
    return MetricSpec(name, "lists", higher, bounds, summary, lists=function)


def _diversity(lists: Lists) -> Tensor:
    if lists.features is None:
        raise InputError("metric 'diversity' compares items by features: pass features= (a name or an array (I, D)).")
    return beyond_accuracy.diversity(lists.items, lists.features)


_ALL = (
    _hits("recall", metrics.recall, "hits / |T|"),
    _hits("capped_recall", metrics.capped_recall, "hits / min(k, |T|)"),
    _hits("micro_recall", metrics.micro_recall, "sum of hits / sum of |T|"),
    _hits("precision", metrics.precision, "hits / k"),
    _hits("hit_rate", metrics.hit_rate, "1 where there is a hit"),
    _hits("f1", metrics.f1, "harmonic mean of the user's precision and recall"),
    _hits("mrr", metrics.mrr, "reciprocal rank of the first hit"),
    _hits("map", metrics.average_precision, "average precision over min(|T|, k)"),
    _hits("map_truth", metrics.average_precision_truth, "average precision over |T|"),
    _hits("map_hits", metrics.average_precision_hits, "average precision over the hits"),
    _hits("ndcg", metrics.ndcg, "NDCG, ideal from the truth"),
    _hits("ndcg_hit", metrics.ndcg_hit, "NDCG, ideal from the hits among the first k"),
    _hits("ndcg_hit_kmax", metrics.ndcg_hit_kmax, "NDCG, ideal from the hits of the longest list"),
    MetricSpec("auc_user", "ranking", True, (0.0, 1.0), "mean over users of the AUC of all candidates"),
    MetricSpec("gauc", "ranking", True, (0.0, 1.0), "users' AUC weighted by |T|"),
    _lists("coverage", lambda x: beyond_accuracy.coverage(x.counts), True, "share of the items that are shown"),
    _lists("user_coverage", lambda x: beyond_accuracy.user_coverage(x.items), True, "share of users with a list"),
    _lists("gini", lambda x: beyond_accuracy.gini(x.counts), False, "inequality of the items' exposure"),
    _lists(
        "entropy", lambda x: beyond_accuracy.entropy(x.counts), True, "entropy of the exposure, nats", (0.0, math.inf)
    ),
    _lists(
        "arp",
        lambda x: beyond_accuracy.average_popularity(x.items, x.popularity),
        None,
        "mean training count of the items in the lists",
        (0.0, math.inf),
    ),
    _lists("tail_share", lambda x: beyond_accuracy.tail_share(x.items, x.tail), None, "share of tail items (APLT)"),
    _lists(
        "tail_count",
        lambda x: beyond_accuracy.tail_count(x.items, x.tail),
        None,
        "number of tail items in a list (ACLT)",
        (0.0, math.inf),
    ),
    _lists(
        "novelty",
        lambda x: beyond_accuracy.novelty(x.items, x.popularity, x.num_users),
        None,
        "mean self-information of the items in the lists, bits",
        (-math.inf, math.inf),
    ),
    _lists("diversity", _diversity, True, "1 - mean cosine of the items within a list, on given features", (0.0, 2.0)),
    _lists(
        "personalisation",
        lambda x: beyond_accuracy.personalisation(x.items),
        True,
        "1 - mean Jaccard similarity of two users' lists",
    ),
    _lists("jain", lambda x: fairness.jain(x.counts, x.k), True, "Jain's index of the exposure"),
    _lists("jain_corr", lambda x: fairness.jain(x.counts, x.k, True), True, "Jain's index, corrected"),
    _lists("qf", lambda x: fairness.qualification(x.counts, x.k), True, "qualification fairness"),
    _lists("qf_corr", lambda x: fairness.qualification(x.counts, x.k, True), True, "qualification fairness, corrected"),
    _lists("entropy_n", lambda x: fairness.entropy(x.counts, x.k), True, "entropy of the exposure to base n"),
    _lists("entropy_corr", lambda x: fairness.entropy(x.counts, x.k, True), True, "entropy, corrected"),
    _lists("gini_corr", lambda x: fairness.gini(x.counts, x.k, True), False, "Gini index, corrected"),
    _lists("gini_w", lambda x: fairness.weighted_gini(x.items, x.num_items), False, "Gini of the discounted exposure"),
    _lists(
        "gini_w_corr",
        lambda x: fairness.weighted_gini(x.items, x.num_items, True),
        False,
        "Gini of the discounted exposure, corrected",
    ),
    _lists("fsat", lambda x: fairness.satisfaction(x.counts, x.k), True, "share of items with the maximin share"),
    _lists("fsat_corr", lambda x: fairness.satisfaction(x.counts, x.k, True), True, "FSat, corrected"),
    _lists("vocd", lambda x: fairness.violation(x.counts), False, "mean relative difference of shown items' exposure"),
    _lists(
        "ii_d", lambda x: fairness.individual_disparity(x.items, x.num_items), False, "individual-individual disparity"
    ),
    _lists("ai_d", lambda x: fairness.all_disparity(x.items, x.num_items), False, "all-individual disparity"),
)

METRICS: dict[str, MetricSpec] = {spec.name: spec for spec in _ALL}
"""Every metric by name."""

DEFAULT = (
    *("recall", "precision", "hit_rate", "mrr", "map", "ndcg"),
    *("coverage", "gini", "entropy", "arp", "tail_share", "novelty"),
)
"""What is measured where nothing was asked for."""

FAIRNESS = tuple(METRICS)[list(METRICS).index("jain") :]
"""The measures of individual item fairness."""


def resolve(names: str | Iterable[str] | None) -> tuple[MetricSpec, ...]:
    """The metrics of these names, in this order, once each.

    Args:
        names: names; ``all`` for all that need nothing but the lists, ``fairness`` for those of individual item
            fairness; None: :data:`DEFAULT`.

    Raises:
        InputError: a name is unknown.
    """
    if names is None:
        names = DEFAULT
    listed = [names] if isinstance(names, str) else list(names)
    chosen: dict[str, MetricSpec] = {}
    for name in listed:
        if name == "all":
            every = (s for s in _ALL if s.kind != "ranking" and s.name != "diversity")
            chosen.update({spec.name: spec for spec in every})
        elif name == "fairness":
            chosen.update({each: METRICS[each] for each in FAIRNESS})
        elif name in METRICS:
            chosen[name] = METRICS[name]
        else:
            raise unknown("metric", str(name), [*METRICS, "all", "fairness"])
    return tuple(chosen.values())


def measure(
    specs: Iterable[MetricSpec],
    hits: Tensor,
    truth: Tensor,
    ks: Sequence[int],
    lists: Callable[[int], Lists],
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Values of metrics of the kinds ``hits`` and ``lists``.

    Args:
        specs: what to measure.
        hits: (B, K) bool.
        truth: (B,) int64.
        ks: the cut-offs.
        lists: gives the lists cut at k.

    Returns:
        Each key's value, and for those that have one the values of the users (B,) float64. A mean is one sum over all
        users, divided once; users without a value (NaN) are left out of it.
    """
    total: dict[str, float] = {}
    per_user: dict[str, Tensor] = {}
    at = {k: lists(k) for k in ks}
    for spec in specs:
        if spec.hits is not None:
            columns = spec.hits(hits, truth, ks)
            values: list[float | Tensor] = [columns[:, i] for i in range(len(ks))]
        elif spec.lists is not None:
            values = [spec.lists(at[k]) for k in ks]
        else:
            continue
        for k, value in zip(ks, values, strict=True):
            if isinstance(value, Tensor):
                per_user[spec.key(k)] = value
                total[spec.key(k)] = float(torch.nanmean(value)) if len(value) else math.nan
            else:
                total[spec.key(k)] = value
    return total, per_user
