"""Which models can be those of shards, and what they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.base import GraphInputs, GraphRecommender
from graphrec.models.pairwise import PairwiseRecommender


def base_class(name: str) -> type[PairwiseRecommender]:
    """The class of a shard's model.

    Raises:
        InputError: there is none of that name, or it cannot be cut into shards.
    """
    from graphrec.models import resolve

    found = resolve(name)
    reason = not_a_base(found)
    if reason is not None:
        raise InputError(f"{found.__name__} cannot be the model of a shard: {reason}.")
    assert issubclass(found, PairwiseRecommender)
    return found


def not_a_base(model: type[GraphRecommender]) -> str | None:
    """Why a class cannot be the model of a shard, in a clause; None where it can."""
    from graphrec.models import MODELS

    if not issubclass(model, PairwiseRecommender):
        return "its score is no dot product of vectors that are trained on pairs"
    if MODELS.get(model.__name__) is not model:
        return "it is not one of graphrec's own, so that a saved model could not name it"
    return None


def base_inputs(data: RecDataset, base: str, base_hparams: Mapping[str, Any] | None) -> GraphInputs:
    """What the model of a shard reads of all of ``data``, without an assignment."""
    model = base_class(base)
    model.needs.check(data, model.__name__)
    return model.inputs(data, **(base_hparams or {}))
