"""What a report shows, as plain values: it can be made by hand, without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphrec.evaluation.beyond_accuracy import gini
from graphrec.reports.explanation import Explanation


@dataclass(frozen=True)
class EdgeCount:
    """The edges of one type.

    Attributes:
        source: node type they start from.
        name: of the edge type.
        target: node type they end at.
        edges: how many.
        density: edges over possible pairs.
    """

    source: str
    name: str
    target: str
    edges: int
    density: float


@dataclass(frozen=True)
class GraphStatistics:
    """The training graph.

    Attributes:
        nodes: number of nodes by type.
        edges: edge types, the ranked one first.
        degrees: by label ("users", "items") how many interactions each node has, int.
    """

    nodes: Mapping[str, int]
    edges: Sequence[EdgeCount] = ()
    degrees: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class PopularityBias:
    """Popular items in the training part beside popular items in the recommendations.

    Attributes:
        training: share of the training interactions of each tenth of the items, most popular tenth first.
        recommended: share of the recommended places of the same tenths.
        coverage: share of the items that are recommended to anybody.
        gini: Gini coefficient of how often items are recommended (0: all alike, 1: one takes all).
        gini_training: Gini coefficient of the training interactions.
        k: length of the lists.
    """

    training: Sequence[float]
    recommended: Sequence[float]
    coverage: float
    gini: float
    gini_training: float
    k: int


@dataclass(frozen=True)
class Entry:
    """An item of a list.

    Attributes:
        name: what to call it.
        detail: something beside it (a score, a time).
        hit: whether it is in the test part.
    """

    name: str
    detail: str = ""
    hit: bool = False


@dataclass(frozen=True)
class Example:
    """A user's history beside the recommended items.

    Attributes:
        user: what to call the user.
        history: items of the training part, the ones to show.
        recommended: the list, best first.
        history_size: how many items the whole history has.
    """

    user: str
    history: Sequence[Entry]
    recommended: Sequence[Entry]
    history_size: int


@dataclass(frozen=True)
class ClickCurves:
    """How well the labelled pairs of click prediction are told apart.

    Attributes:
        false_positive: (P,) of the ROC curve, ascending.
        true_positive: (P,) of the ROC curve.
        predicted: (M,) mean probability of each bin of the calibration, NaN where it is empty.
        observed: (M,) share of pairs labelled 1 of each bin.
        count: (M,) pairs in each bin.
        about: in a sentence, what the probabilities are.
    """

    false_positive: Sequence[float]
    true_positive: Sequence[float]
    predicted: Sequence[float]
    observed: Sequence[float]
    count: Sequence[int]
    about: str = ""


@dataclass(frozen=True)
class ReportParts:
    """Everything a report shows. What is empty is left out.

    Attributes:
        model: name of the model.
        dataset: name of the dataset.
        metrics: by key, as in ``metrics.json``: test metrics bare, others prefixed.
        intervals: 95 % intervals by key.
        baselines: metrics of other models by name, same keys.
        history: a mapping an epoch: ``epoch``, ``loss``, ``seconds``, ``valid/…``, named terms.
        per_user: (U,) values by metric key; the first one is drawn.
        graph: statistics of the training graph.
        popularity: popularity bias of the lists.
        clicks: curves of click prediction.
        examples: users with their lists.
        explanations: of single recommendations.
        config: all settings, nested mappings allowed.
        environment: versions and machine, nested mappings allowed.
        command: what to type to run it again.
        notes: what was removed, merged or kept by a policy.
        fingerprint: of the dataset.
        title: default: "MODEL on DATASET".
    """

    model: str
    dataset: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    per_user: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    graph: GraphStatistics | None = None
    popularity: PopularityBias | None = None
    clicks: ClickCurves | None = None
    examples: Sequence[Example] = ()
    explanations: Sequence[Explanation] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    notes: Sequence[str] = ()
    fingerprint: str = ""
    title: str = ""


def popularity_bias(training: NDArray[Any], lists: NDArray[Any]) -> PopularityBias:
    """The bias of lists towards what is popular in training.

    Args:
        training: (I,) training interactions of each item.
        lists: (B, K) recommended items, -1 where a list is shorter.
    """
    shown = np.bincount(lists[lists >= 0].ravel(), minlength=len(training))
    tenths = np.array_split(np.argsort(-training, kind="stable"), 10)
    totals = max(training.sum(), 1), max(shown.sum(), 1)
    return PopularityBias(
        training=[float(training[tenth].sum() / totals[0]) for tenth in tenths],
        recommended=[float(shown[tenth].sum() / totals[1]) for tenth in tenths],
        coverage=float((shown > 0).mean()),
        gini=gini(torch.as_tensor(shown)),
        gini_training=gini(torch.as_tensor(training)),
        k=lists.shape[1],
    )
