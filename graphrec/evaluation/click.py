"""Click prediction: scores of labelled pairs, and how well they tell the pairs labelled 1 from those labelled 0."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.evaluation import classification
from graphrec.evaluation.calibration import Calibration, Platt, calibration, log_loss, platt
from graphrec.evaluation.measured import Measured, user_table
from graphrec.evaluation.opened import opened, same_size
from graphrec.evaluation.pair_scores import score_pairs
from graphrec.evaluation.scoring import Scores
from graphrec.models.base import Encoded, GraphRecommender
from graphrec.models.labelled import LabelledPairs
from graphrec.randomness import derive, hash_bits
from graphrec.runs import Run

if TYPE_CHECKING:
    from os import PathLike

    from graphrec.serving import Recommender

Scaling = Literal["none", "platt"]
Last = Literal["keep", "drop"]

CLICK_METRICS: Mapping[str, bool] = {
    "auc": True,
    "auc_batch": True,
    "auc_user": True,
    "gauc": True,
    "acc": True,
    "f1": True,
    "logloss": False,
    "ece": False,
}
"""The metrics of click prediction, and whether larger values are better."""


@dataclass(frozen=True, eq=False)
class ClickEvaluation(Measured):
    """Metrics of labelled pairs by lower-case key (``auc``), and everything that says what they mean.

    Attributes:
        metrics: the values by key.
        per_user: a row for each user with pairs: ``user`` (raw id), ``truth`` and ``train`` (numbers of positives in
            the part and in training), ``auc_user`` (NaN for a user with one class only) and ``acc_user``; its metadata
            names what has to be equal in a comparison.
        pairs: the N pairs and their labels.
        scores: (N,) the model's scores of them.
        calibration: probabilities beside shares of positives, in bins.
        about: part, counts and choices, as ``metrics.json`` says them.
        seconds: how long scoring and measuring took.
    """

    metrics: dict[str, float]
    per_user: pa.Table
    pairs: LabelledPairs
    scores: Tensor
    calibration: Calibration
    about: dict[str, Any]
    seconds: float

    def __repr__(self) -> str:
        return self._told(f"{self.about['split']}, {len(self.pairs):,} pairs")

    def _facts(self) -> dict[str, Any]:
        return {**self.about, "seconds": self.seconds}

    def roc(self, points: int = 100) -> tuple[Tensor, Tensor]:
        """The ROC curve; see :func:`graphrec.evaluation.classification.roc`."""
        return classification.roc(self.scores, self.pairs.labels, points)


def evaluate_clicks(
    model: GraphRecommender | Encoded | Scores | Run | Recommender | str | PathLike[str],
    data: RecDataset | None = None,
    *,
    split: str = "test",
    auc_batch_size: int = 1024,
    auc_batch_last: Last = "keep",
    bins: int = 15,
    scaling: Scaling = "none",
    scaled_on: str = "valid",
    cold: Literal["keep", "drop"] = "keep",
    block: int | None = None,
    device: str | torch.device | None = None,
) -> ClickEvaluation:
    r"""Score the labelled pairs of a part, and measure how well they are told apart.

    ``auc`` is over all pairs together, equal scores counting half; ``auc_batch`` is the mean of the AUC of minibatches,
    which RippleNet's and KGCN's papers report as AUC; ``auc_user`` the mean of users' own AUC, and ``gauc`` that mean
    weighted by positives, over users who have pairs of both labels. ``acc``, ``f1`` (of the positives), ``logloss``
    (nats) and ``ece`` are of the probabilities :math:`\sigma(y)` with threshold .5. A model that was trained to rank
    (BPR) gives scores, not probabilities: its AUC is meant, the others are what they are until ``scaling="platt"``.

    Args:
        model: a model, a run, a recommender or the path of a run; or final representations, or a function of users
            (B,) that gives scores (B, I).
        data: the dataset; None: the run's own, loaded again.
        split: the part whose pairs are scored.
        auc_batch_size: pairs in a minibatch of ``auc_batch``; they are shuffled first, the same way each time.
        auc_batch_last: ``keep`` the incomplete last minibatch (RippleNet's code) or ``drop`` it (KGCN's).
        bins: of the calibration.
        scaling: ``platt`` fits ``sigmoid(a y + b)`` on the pairs of ``scaled_on`` first.
        scaled_on: the part that the scaling is fitted on.
        cold: ``drop`` the pairs of users without a training positive (RippleNet); counted.
        block: pairs scored at a time.
        device: where to compute; None: where the model is.

    Raises:
        InputError: no labels, no such part, a part that lacks a class, a score that is NaN, or a model of other users
            and items than the dataset's.
    """
    for name, value, choices in (
        ("auc_batch_last", auc_batch_last, ("keep", "drop")),
        ("scaling", scaling, ("none", "platt")),
        ("policy for cold users", cold, ("keep", "drop")),
    ):
        if value not in choices:
            raise unknown(name, value, choices)
    for name, size in (("auc_batch_size", auc_batch_size), ("block", 1 if block is None else block)):
        if size < 1:
            raise InputError(f"{name} is {size}; it has to be at least 1.")
    scored, data = opened(model, data, device)
    if isinstance(scored, (GraphRecommender, Encoded)):
        same_size(scored, data)
    start = time.perf_counter()
    pairs = labelled_part(data, split)
    trained = torch.as_tensor(np.diff(data.pairs("train").indptr))
    known_items = torch.zeros(data.num_items, dtype=torch.bool)
    known_items[torch.from_numpy(data.pairs("train").items.copy())] = True
    dropped = 0
    if cold == "drop":
        warm = trained[pairs.users] > 0
        dropped = int((~warm).sum())
        pairs = pairs.apply(lambda column: column[warm])
        _check_classes(pairs, f"part {split!r} of {data.name!r} without its cold users")
    scores = score_pairs(scored, pairs.users, pairs.items, block=block)
    fitted: Platt | None = None
    if scaling == "platt":
        if scaled_on == split:
            raise InputError(f"scaling on {scaled_on!r} would fit the very labels of the part that is evaluated.")
        held = labelled_part(data, scaled_on)
        fitted = platt(score_pairs(scored, held.users, held.items, block=block), held.labels)
    logits = scores if fitted is None else fitted.logits(scores)
    metrics, users = _measure(pairs, scores, logits, auc_batch_size, auc_batch_last)
    calibrated = calibration(torch.sigmoid(logits.double()), pairs.labels, bins)
    metrics["ece"] = calibrated.error
    about: dict[str, Any] = {
        "task": "ctr",
        "split": split,
        "num_users": len(users.ids),
        "num_pairs": len(pairs),
        "num_positives": pairs.positives,
        "auc_users": int((~users.auc.isnan()).sum()),
        "cold_pairs": int(((trained[pairs.users] == 0) | ~known_items[pairs.items]).sum()),
        "auc_batch_size": auc_batch_size,
        "auc_batch_last": auc_batch_last,
        "scaling": scaling,
    }
    if cold == "drop":
        about["dropped_pairs"] = dropped
    if fitted is not None:
        about |= {"scaled_on": scaled_on, "platt_slope": fitted.slope, "platt_intercept": fitted.intercept}
    facts = {"split": split, "cold": cold, "candidates": "labelled pairs", "scaling": scaling, "dataset": data.name}
    columns = {"truth": users.truth, "train": trained[users.ids], "auc_user": users.auc, "acc_user": users.accuracy}
    return ClickEvaluation(
        metrics={key: metrics[key] for key in CLICK_METRICS},
        per_user=user_table(data, users.ids, columns, facts),
        pairs=pairs,
        scores=scores,
        calibration=calibrated,
        about=about,
        seconds=time.perf_counter() - start,
    )


def labelled_part(data: RecDataset, part: str) -> LabelledPairs:
    """The labelled pairs of a part, both classes there.

    Raises:
        InputError: the dataset has no labels or no such part, or the part lacks a class; says what to do.
    """
    if part not in data.parts:
        raise InputError(
            f"dataset {data.name!r} has no part {part!r}; it has {', '.join(data.parts)}. Click prediction draws its "
            "parts over all labelled pairs: split='random_pairs:.6,.2,.2'."
        )
    pairs = LabelledPairs.of(data, part)
    if pairs is None:
        raise InputError(
            f"dataset {data.name!r} has no pair labelled 0, and click prediction needs some: a ratings_final.txt, a "
            "column of labels (Builder.interactions(label=…)), or drawn ones (drawn_negatives=1 or --drawn-negatives "
            "1, with min_rating where there are ratings)."
        )
    _check_classes(pairs, f"part {part!r} of {data.name!r}")
    return pairs


def _check_classes(pairs: LabelledPairs, where: str) -> None:
    if pairs.positives in (0, len(pairs)):
        raise InputError(
            f"{where} has {pairs.positives:,} pairs labelled 1 and {len(pairs) - pairs.positives:,} labelled 0; click "
            "prediction needs both. split='random_pairs:.6,.2,.2' draws the parts over all labelled pairs."
        )


@dataclass(frozen=True)
class _Users:
    """Users with pairs: numbers, their positives, AUC and accuracy, each (B,)."""

    ids: Tensor
    truth: Tensor
    auc: Tensor
    accuracy: Tensor


def _measure(
    pairs: LabelledPairs, scores: Tensor, logits: Tensor, batch_size: int, last: Last
) -> tuple[dict[str, float], _Users]:
    labels = pairs.labels
    ids, group = pairs.users.unique(return_inverse=True)
    own, truth = classification.auc_by_group(scores, labels, group, len(ids))
    right = ((logits > 0) == (labels > 0)).double()
    zero = torch.zeros(len(ids), dtype=torch.float64)
    accuracy = zero.index_add(0, group, right) / torch.bincount(group)
    mixed = hash_bits(derive(0, "minibatches of auc_batch"), pairs.users, pairs.items).argsort(stable=True)
    metrics = {
        "auc": classification.auc(scores, labels),
        "auc_batch": classification.auc_batch(scores[mixed], labels[mixed], batch_size, last=last),
        "auc_user": classification.weighted_mean(own, torch.ones_like(own)),
        "gauc": classification.weighted_mean(own, truth),
        "acc": classification.accuracy(logits, labels),
        "f1": classification.click_f1(logits, labels),
        "logloss": float(log_loss(logits, labels).mean()),
    }
    return metrics, _Users(ids, truth.long(), own, accuracy)
