"""The shadow model: the same training on half of other data, where the attacker knows what was in and what was out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.evaluation.user_items import UserItems
from graphrec.models.base import GraphRecommender
from graphrec.randomness import derive, hash_uniform
from graphrec.training.fit import fit
from graphrec.training.options import FitOptions
from graphrec.unlearning.evidence.attack import Logistic, attack_features, fit_logistic
from graphrec.unlearning.evidence.observed import observe, sampled_users
from graphrec.unlearning.evidence.pairs import PairSet, keys_of, pair_set
from graphrec.unlearning.evidence.views import View, view


@dataclass(frozen=True, eq=False)
class Shadow:
    """A trained shadow and the rule learnt on it.

    Attributes:
        rule: log odds of membership from the attack's features.
        pairs: how many it was learnt on.
        options: of its training.
    """

    rule: Logistic
    pairs: int
    options: Mapping[str, Any]


def shadow_options(before: View, given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Options of ``fit`` for the shadow: those that were given, else those of the run that ``before`` comes from.

    A shadow has no validation part: it is trained for the epochs that the run's kept weights had.

    Returns:
        None where neither is known.
    """
    if given is not None:
        chosen = dict(given)
    elif before.run is not None and before.run.config.get("fit"):
        chosen = dict(before.run.config["fit"])
        best = before.run.metrics.get("best_epoch") or before.run.metrics.get("epochs")
        if best:
            chosen["epochs"] = int(best)
    else:
        return None
    chosen |= {"select_on": None, "patience": None, "progress": False, "checkpoint_seconds": None, "devices": 1}
    FitOptions.from_config({name: tuple(v) if isinstance(v, list) else v for name, v in chosen.items()})
    return chosen


def train_shadow(
    model: GraphRecommender,
    left: RecDataset,
    options: Mapping[str, Any],
    *,
    max_pairs: int = 20_000,
    seed: int = 0,
) -> Shadow | None:
    """Train the model's kind on half of what is left, and learn to tell its halves apart.

    Which half a pair is in is a hash of it. Nothing of what was forgotten goes into the shadow.

    Args:
        model: its class and hyper-parameters are taken.
        left: the dataset without what is to be forgotten.
        options: of :func:`graphrec.fit`.
        max_pairs: the most pairs of each half that the rule is learnt on.
        seed: of the halves and of the training.

    Returns:
        None where a half would be empty.
    """
    known = pair_set(left, "train")
    inside = hash_uniform(derive(seed, "evidence/shadow"), known.users, known.items) < 0.5
    if not bool(inside.any()) or bool(inside.all()):
        return None
    half = _only(left, known[inside])
    made = type(model)(
        model.inputs_on(half),
        **{
            **model.hparams,
            **({"seed": derive(seed, "evidence/shadow model") % 2**31} if "seed" in model.hparams else {}),
        },
    )
    fit(made, half, report=False, seed=derive(seed, "evidence/shadow fit") % 2**31, **_without_seed(options))
    seen_by = view(made, half)
    members = known[inside].sampled(max_pairs, seed, "evidence/shadow in")
    others = known[~inside].sampled(max_pairs, seed, "evidence/shadow out")
    pairs = PairSet.joined([members, others])
    users = torch.as_tensor(np.flatnonzero(np.diff(left.pairs("train").indptr)))
    activity, popularity = degrees(left)
    sample = sampled_users(users, 2048, seed, "evidence/item means")
    features = attack_features(seen_by, pairs, observe(seen_by, pairs, sample=sample), activity, popularity)
    labels = torch.cat([torch.ones(len(members)), torch.zeros(len(others))])
    return Shadow(fit_logistic(features, labels), len(pairs), dict(options))


def _without_seed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in options.items() if name not in ("seed", "out")}


def _only(data: RecDataset, pairs: PairSet) -> RecDataset:
    """``data`` with these pairs as the only ranked interactions."""
    table = data.tables[data.target]
    keys = torch.as_tensor(table.source.astype(np.int64) * data.num_items + table.target)
    inside = torch.isin(keys, keys_of(pairs, data.num_items)).numpy()
    train = np.isin(table.edge_id, data.interactions("train", labels=True).edge_id)
    return data.without(table.edge_id[~(inside & train)])


def degrees(data: RecDataset) -> tuple[Tensor, Tensor]:
    """Training items of each user (U,) and users of each item (I,), int64."""
    pairs = UserItems.of(data.pairs("train"))
    return pairs.counts(), torch.bincount(pairs.items, minlength=data.num_items)
