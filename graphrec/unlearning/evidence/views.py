"""A model read through the id table of a dataset, so that models of different id tables can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError
from graphrec.evaluation.scoring import Scorer, Scores
from graphrec.models.base import Encoded, GraphRecommender
from graphrec.runs import Run, as_model


@dataclass(frozen=True, eq=False)
class View:
    """A model whose users and items are numbered as the dataset numbers them.

    A run that forgot a user wholly has no row for that user any more; it is matched by raw ids.

    Attributes:
        model: in evaluation mode.
        users: (U,) int64, the model's row of each user of the dataset, -1 where it has none.
        items: (I,) int64, likewise.
        run: the run it comes from, where there is one.
    """

    model: GraphRecommender
    users: Tensor
    items: Tensor
    run: Run | None = None

    @property
    def seed(self) -> int | None:
        """Of its training, as far as it is known."""
        seed = self.run.config.get("seed") if self.run is not None else self.model.hparams.get("seed")
        return None if seed is None else int(seed)

    @cached_property
    def encoded(self) -> Encoded | None:
        """Final representations in the dataset's order, rows of absent nodes zero; None for models without."""
        if not self.model.encodes():
            return None
        with torch.no_grad():
            found = self.model.encoded()
        return Encoded(_rows(found.users.detach(), self.users), _rows(found.items.detach(), self.items))

    def tables(self) -> dict[str, Tensor]:
        """Parameters with a row for each user or item, in the dataset's order, by name."""
        maps = {"user": self.users, "item": self.items}
        own = dict(self.model.named_parameters())
        return {
            name: _rows(own[name].detach(), maps[kind])
            for name, kind in self.model.row_parameters.items()
            if kind in maps and name in own and own[name].dim() == 2
        }

    @cached_property
    def scores(self) -> Encoded | Scores:
        """What ranking takes: representations where the score is their dot product, else a function of users."""
        plain = type(self.model).score is GraphRecommender.score
        if plain and self.encoded is not None and bool((self.items >= 0).all()):
            return self.encoded
        return self._score

    def _score(self, users: Tensor) -> Tensor:
        rows = self.users.to(users.device)[users]
        found = self.model.score(rows.clamp(min=0).to(self.model.device)).detach().float()
        out = found.new_full((len(users), len(self.items)), -torch.inf)
        there = (self.items >= 0).to(found.device)
        out[:, there] = found[:, self.items.to(found.device)[there]]
        out[(rows < 0).to(out.device)] = -torch.inf
        return out.to(users.device)

    def scorer(self) -> Scorer:
        """Scores by blocks of users."""
        return Scorer(self.scores)


def _rows(table: Tensor, places: Tensor) -> Tensor:
    places = places.to(table.device)
    return torch.where((places >= 0)[:, None], table[places.clamp(min=0)], 0.0)


def view(model: Any, data: RecDataset, device: str | torch.device | None = None, name: str = "model") -> View:
    """A model, a run, a recommender or the path of a run, seen through the id table of ``data``.

    Args:
        model: one of these.
        data: the dataset with what is to be forgotten.
        device: where to compute; None: where the model is.
        name: what to call it in messages.

    Raises:
        InputError: a model in memory of other numbers of users and items, or a run of other ids.
    """
    opened, run = as_model(model, device)
    vocabularies: Mapping[str, Vocabulary] | None = getattr(model, "vocabularies", None)
    if run is not None and not vocabularies:
        vocabularies = run.vocabularies
    own = (opened.num_users, opened.num_items)
    ends = data.target[0], data.target[2]
    if not vocabularies:
        if own != (data.num_users, data.num_items):
            raise InputError(
                f"{name} has {own[0]} users and {own[1]} items, dataset {data.name!r} has {data.num_users} and "
                f"{data.num_items}; a model in memory brings no ids, so pass the run or the recommender it is in."
            )
        places = [torch.arange(size) for size in own]
    else:
        places = []
        for node_type, size in zip(ends, own, strict=True):
            known = vocabularies.get(node_type)
            if known is None or len(known) != size:
                raise InputError(f"{name} has no {node_type} ids that fit its model of {size} {node_type}s.")
            found = known.encode(data.vocabularies[node_type].raw, unknown="mark")
            if size != int((found >= 0).sum()):
                raise InputError(
                    f"{name} has {node_type} ids that dataset {data.name!r} lacks; pass the dataset that the first "
                    "model was trained on."
                )
            places.append(torch.as_tensor(np.asarray(found, dtype=np.int64)))
    return View(opened.eval(), places[0], places[1], run)
