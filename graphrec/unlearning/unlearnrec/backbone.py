"""A recommender with its tables as an argument: the three hooks that the influence encoder needs.

``tables() -> E⁰``, ``encode(tables) -> Ē`` and ``terms(tables, phase, batch) -> loss`` serve every model whose only
parameters are a table of users and one of items; the graph is that of the model wrapped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import EdgeTable
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.models.base import Batch, GraphRecommender, Phase
from graphrec.models.deletion import without_edges
from graphrec.models.pairwise import Pair, PairwiseRecommender

TABLES = ("user_embedding", "item_embedding")

T = TypeVar("T")


def unsupported(model: GraphRecommender | type[GraphRecommender]) -> str | None:
    """Why the influence encoder cannot serve a model, in a clause; None where it can."""
    if isinstance(model, type):
        if model.row_parameters != {"user_embedding": "user", "item_embedding": "item"}:
            return "its parameters are not a table of users and one of items"
        return _reason_of_class(model)
    others = sorted({name for name, _ in model.named_parameters()} - set(TABLES))
    if others:
        return f"it has parameters beside its tables of users and items ({', '.join(others[:3])})"
    if len(list(model.parameters())) != 2 or not model.phases():
        return "it has no tables of users and items that are trained"
    return None if type(model).encodes() else "its score is no product of two representations"


def _reason_of_class(model: type[GraphRecommender]) -> str | None:
    """The answer for a model of this class with its default settings, asked of one on 32 users and items."""
    try:
        return unsupported(model(_small_dataset()))
    except InputError as error:
        return f"it cannot be made from interactions alone: {error}"


@functools.cache
def _small_dataset() -> RecDataset:
    users = np.repeat(np.arange(32), 8)
    items = (users + np.tile(np.arange(8) ** 2, 32)) % 32
    order = np.lexsort((items, users))
    kind = ("user", "interacts", "item")
    keys = np.unique(users[order] * 32 + items[order])
    columns = {"source": keys // 32, "target": keys % 32, "edge_id": np.arange(len(keys))}
    ids = {name: Vocabulary(np.arange(32), name) for name in ("user", "item")}
    return RecDataset("small", ids, {kind: EdgeTable(kind, columns)}, kind)


@dataclass(frozen=True, eq=False)
class TakenRows:
    """Rows that a step's loss took, and those of further nodes.

    Attributes:
        asked: (B,) and (P,) int64, the users and items of the loss.
        final: (B, D') and (P, D'), the rows that score.
        ego: (B, D) and (P, D), the rows that are regularised.
        further: (n, D') and (m, D'), the rows that score of the further users and items.
    """

    asked: Pair
    final: Pair
    ego: Pair
    further: Pair


class Backbone(nn.Module):
    """A model as a function of its tables; see the module.

    Args:
        model: one whose only parameters are ``user_embedding`` and ``item_embedding``.
    """

    def __init__(self, model: GraphRecommender) -> None:
        super().__init__()
        reason = unsupported(model)
        if reason:
            raise InputError(f"the influence encoder cannot serve {type(model).__name__}: {reason}.")
        self.model = model

    @classmethod
    def residual(cls, model: GraphRecommender, edge_id: Tensor) -> Backbone:
        """The model without some edges (M,) of the ranked behaviour; degrees and all that is made of them are new."""
        return cls(without_edges(model, {model.graph_inputs.target: edge_id}))

    @property
    def matrix(self) -> Adjacency:
        """The users x items matrix of the training edges."""
        return self.model.graph_inputs.adjacency()

    def tables(self) -> Tensor:
        """E⁰, (N, D), users first; detached."""
        parameters = dict(self.model.named_parameters())
        return torch.cat([parameters[name].detach() for name in TABLES])

    @functools.cached_property
    def trained(self) -> tuple[Tensor, Tensor]:
        """E⁰ and Ē, each (N, D), of a model that no longer changes; detached."""
        with torch.no_grad():
            return self.tables(), self.encode(self.tables())

    @functools.cached_property
    def initial(self) -> Tensor:
        """:func:`initial_tables` of the model."""
        return initial_tables(self.model)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (N, …) of users and of items."""
        return rows[: self.model.num_users], rows[self.model.num_users :]

    def encode(self, tables: Tensor) -> Tensor:
        """Final representations (N, D') of the model with these tables (N, D); differentiable in them."""

        def work(model: GraphRecommender) -> Tensor:
            encoded = model.encode()
            return torch.cat([encoded.users, encoded.items])

        return self._with(tables, work)

    def terms(self, tables: Tensor, phase: Phase, batch: Batch) -> Mapping[str, Tensor]:
        """The named terms of the model's own loss with these tables; differentiable in them."""
        return self._with(tables, lambda model: phase.loss(batch))

    def terms_and_rows(
        self, tables: Tensor, phase: Phase, batch: Batch, users: Tensor, items: Tensor, *, gathered: bool = False
    ) -> tuple[Mapping[str, Tensor], TakenRows | None]:
        """:meth:`terms`, and rows of further nodes, from the one propagation that the loss needs anyway.

        Args:
            tables: (N, D).
            phase: of the model.
            batch: of the phase.
            users: (n,) int64, further users.
            items: (m,) int64, further items.
            gathered: whether the loss is given rows of :meth:`GraphRecommender.encode` and of the tables, instead of
                its model's own training rows: quicker where a batch names more rows than there are nodes, and the same
                where the two agree.

        Returns:
            the terms, and the rows; None where the loss takes no training rows.
        """
        taken: list[TakenRows] = []

        def work(model: GraphRecommender) -> Mapping[str, Tensor]:
            if not isinstance(model, PairwiseRecommender):
                return phase.loss(batch)
            own = _gathered(model) if gathered else model.training_rows

            def wider(first: Tensor, second: Tensor, **options: Any) -> tuple[Pair, Pair]:
                final, ego = own(torch.cat([first, users]), torch.cat([second, items]), **options)
                (user, further_user), (item, further_item) = (
                    rows.split([len(asked), len(rows) - len(asked)])
                    for rows, asked in zip(final, (first, second), strict=True)
                )
                ego = ego[0].split([len(first), len(users)])[0], ego[1].split([len(second), len(items)])[0]
                taken.append(TakenRows((first, second), (user, item), ego, (further_user, further_item)))
                return (user, item), ego

            model.training_rows = wider  # type: ignore[method-assign, assignment]
            try:
                return phase.loss(batch)
            finally:
                del model.training_rows

        return self._with(tables, work), taken[0] if taken else None

    def phases(self) -> Sequence[Phase]:
        """The model's own phases."""
        return self.model.phases()

    @torch.no_grad()
    def fill(self, tables: Tensor) -> None:
        """Put tables (N, D) into the model."""
        parameters = dict(self.model.named_parameters())
        for name, rows in zip(TABLES, self.split(tables), strict=True):
            parameters[name].copy_(rows)

    def _with(self, tables: Tensor, work: Callable[[GraphRecommender], T]) -> T:
        rows = {f"model.{name}": part for name, part in zip(TABLES, self.split(tables), strict=True)}
        done: T = functional_call(self, rows, (work,))
        return done

    def forward(self, work: Callable[[GraphRecommender], T]) -> T:
        """What :func:`torch.func.functional_call` calls with the tables in their place."""
        return work(self.model)


def _gathered(model: PairwiseRecommender) -> Callable[..., tuple[Pair, Pair]]:
    """What stands for the model's training rows; see :meth:`Backbone.terms_and_rows`."""

    def rows(users: Tensor, items: Tensor, *, batch: Batch | None = None, **options: Any) -> tuple[Pair, Pair]:
        encoded = model.encode(**options)
        tables = model.user_embedding, model.item_embedding
        return (
            (encoded.users.index_select(0, users), encoded.items.index_select(0, items)),
            (tables[0].index_select(0, users), tables[1].index_select(0, items)),
        )

    return rows


def initial_tables(model: GraphRecommender) -> Tensor:
    """The rows (N, D) that a node without edges would start a training with.

    Singular vectors have rows of zeros there; other initial values are drawn from the seed and hang on no edge.
    """
    parameters = dict(model.named_parameters())
    if model.hparams.get("init") == "spectral":
        return torch.cat([torch.zeros_like(parameters[name]) for name in TABLES])
    fresh = dict(type(model)(model.graph_inputs, **model.hparams).named_parameters())
    return torch.cat([fresh[name].detach().to(parameters[name]) for name in TABLES])
