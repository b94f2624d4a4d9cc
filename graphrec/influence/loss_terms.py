"""What a model's own training loss is made of: whether an objective of ranking and regulariser is all of it."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Literal, get_args

import torch

from graphrec.errors import InputError
from graphrec.models.base import Batch, GraphRecommender, PairBatch, Phase
from graphrec.models.pairwise import Loss, PairwiseRecommender
from graphrec.models.sharded import Sharded

_OURS = frozenset({"rank", "reg"})


def own_loss(model: GraphRecommender) -> Loss:
    """The ranking loss that a model is trained on.

    Raises:
        InputError: it is a closed form, or trained on something else.
    """
    name = type(model).__name__
    if isinstance(model, Sharded):
        raise InputError(f"{name} is trained shard by shard: take the influence within a shard's own model.")
    if not model.phases():
        raise InputError(
            f"{name} is a closed form: it has no loss to take influence from. Delete the edges and solve again "
            "(graphrec.models.deletion.without_edges), which is exact."
        )
    words: Any = getattr(model, "loss_name", None), model.objective
    for word in words:
        if word in get_args(Loss):
            return word
    raise InputError(
        f"{name} is trained on {model.objective or 'a loss of its own'!r}, which is no ranking loss over (user, item, "
        "negatives); pass loss='bpr', 'bce' or 'softmax' to take one in its place."
    )


def check_terms(model: GraphRecommender, terms: Literal["all", "rank"], given: bool) -> None:
    """Refuse, or warn of, what a model's loss has beyond ranking and regulariser.

    A term is told to depend on which examples share a batch by comparing its value on a batch with those on halves.
    What other phases train on (triples of a knowledge graph) is warned of alone.

    Args:
        model: the model.
        terms: ``rank`` says that the ranking loss alone is wanted.
        given: whether the caller named the ranking loss.

    Raises:
        InputError: a term without a fixed objective and ``terms='all'``; a loss that ranks nothing, and none was given.
    """
    kind = type(model)
    if issubclass(kind, PairwiseRecommender) and (
        kind.pair_loss is PairwiseRecommender.pair_loss and kind.phases is PairwiseRecommender.phases
    ):
        return
    probe = copy.deepcopy(model).eval()
    ranks = given
    for phase in probe.phases():
        if not phase.parameters:
            continue
        batch = next(iter(phase.batches(0, torch.Generator(device=probe.device).manual_seed(0))))
        found = _values(phase, batch)
        pairs = isinstance(batch, PairBatch)
        ranks = ranks or (pairs and "rank" in found)
        extra = sorted(found if not pairs else set(found) - _OURS)
        if terms == "rank" or not extra:
            continue
        if pairs and (loose := _without_fixed_value(phase, batch, extra)):
            raise InputError(
                f"the loss of {kind.__name__} has the term {', '.join(loose)}, whose value depends on which examples "
                "share a batch or on views that are drawn anew: there is no fixed objective. Pass terms='rank' for the "
                "influence on its ranking loss alone."
            )
        warnings.warn(
            f"the objective of {kind.__name__} is its ranking loss; what its phase {phase.name!r} adds "
            f"({', '.join(extra)}) is not part of it (terms='rank' says that this is meant).",
            stacklevel=3,
        )
    if not ranks:
        raise InputError(
            f"{kind.__name__} is trained on {model.objective!r}, which ranks no pairs; pass loss='bpr', 'bce' or "
            "'softmax' and terms='rank' to take a ranking loss in its place."
        )


def _without_fixed_value(phase: Phase, batch: Batch, names: list[str]) -> list[str]:
    """Contrast between views, and terms of a batch that are not the mean of those of its halves."""
    if len(batch) < 2:
        return [name for name in names if name == "contrast"]
    whole = _values(phase, batch)
    halves = [batch.shard(rank, 2) for rank in (0, 1)]
    parts = [_values(phase, half) for half in halves]
    loose = []
    for name in names:
        mean = sum(len(half) * part.get(name, 0.0) for half, part in zip(halves, parts, strict=True)) / len(batch)
        if name == "contrast" or abs(whole[name] - mean) > 1e-3 * max(abs(whole[name]), abs(mean)):
            loose.append(name)
    return loose


@torch.no_grad()
def _values(phase: Phase, batch: Batch) -> dict[str, float]:
    if batch.generator is not None:
        batch.generator.manual_seed(0)
    return {name: float(value) for name, value in phase.loss(batch).items()}
