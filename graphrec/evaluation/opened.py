"""What an evaluation is given: a model in any of its forms, and the dataset, checked against each other."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation.scoring import Scores
from graphrec.models.base import Encoded, GraphRecommender
from graphrec.runs import Run, as_model


def opened(
    model: Any, data: RecDataset | None, device: str | torch.device | None
) -> tuple[GraphRecommender | Encoded | Scores, RecDataset]:
    """What gives scores, and the dataset; a run is checked against it.

    Args:
        model: what an evaluation takes.
        data: the dataset; None: the run's own.
        device: where to compute; None: where the model is.

    Raises:
        InputError: something else than a model, or a dataset of other users and items than the run's.
    """
    if isinstance(model, Encoded):
        if device is not None:
            model = Encoded(model.users.to(device), model.items.to(device))
    elif isinstance(model, (GraphRecommender, Run, str, os.PathLike)) or hasattr(model, "model"):
        model, run = as_model(model, device)
        if run is not None:
            data = _checked(run, data)
    elif not callable(model):
        raise InputError(f"expected a model, run, recommender or path of a run, found a {type(model).__name__}.")
    if data is None:
        raise InputError("evaluate needs the dataset: pass data= (only a run knows where its own is).")
    if not isinstance(model, (Encoded, GraphRecommender)):
        model = _of_all_items(model, data.num_items)
    return model, data


def _of_all_items(function: Scores, num_items: int) -> Scores:
    """A score function that refuses to score another number of items."""

    def scores(users: Tensor) -> Tensor:
        found = function(users)
        if found.shape != (len(users), num_items):
            raise InputError(
                f"the score function gave {tuple(found.shape)} scores for {len(users)} users and {num_items} items."
            )
        return found

    return scores


def _checked(run: Run, data: RecDataset | None) -> RecDataset:
    if data is None:
        return run.dataset()
    if data.fingerprint == run.fingerprint:
        return data
    user_type, _, item_type = data.target
    for node_type in (user_type, item_type):
        if run.vocabularies.get(node_type) != data.vocabularies[node_type]:
            raise InputError(
                f"{run.path} was trained on other {node_type} ids than those of dataset {data.name!r} "
                f"(fingerprints {run.fingerprint} and {data.fingerprint}); pass the dataset it was trained on."
            )
    warnings.warn(
        f"dataset {data.name!r} is not the one {run.path} was trained on (fingerprints {data.fingerprint} and "
        f"{run.fingerprint}), though its ids are the same",
        stacklevel=5,
    )
    return data


def same_size(model: GraphRecommender | Encoded, data: RecDataset) -> None:
    """Raise where the model has other numbers of users and items than the dataset."""
    if isinstance(model, Encoded):
        users, items = len(model.users), len(model.items)
    else:
        users, items = model.num_users, model.num_items
    if (users, items) != (data.num_users, data.num_items):
        raise InputError(
            f"the model has {users} users and {items} items, dataset {data.name!r} has {data.num_users} and "
            f"{data.num_items}; pass the dataset the model was made for."
        )
