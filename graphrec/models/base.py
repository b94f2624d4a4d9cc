"""The contract that every model keeps: what it reads, how it trains, how it scores.

The parts are small and say what a model can do. A model that is trained by gradients offers
:meth:`GraphRecommender.phases`, a closed form offers :meth:`GraphRecommender.solve`; both score by
:meth:`GraphRecommender.score`. Letters used below: U users, I items, E edges of the ranked behaviour, B batch, D
width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency, EdgeType
from graphrec.graphs.relational import RelationalGraph
from graphrec.models.batches import Batch, PairBatch, PointBatch, TripleBatch
from graphrec.models.inputs import EdgeWeight, GraphInputs, Needs, target_weight

__all__ = [
    "Batch",
    "Derived",
    "EdgeWeight",
    "Encoded",
    "GraphInputs",
    "GraphRecommender",
    "Needs",
    "PairBatch",
    "Phase",
    "PointBatch",
    "Preset",
    "TripleBatch",
    "target_weight",
]


@dataclass(frozen=True)
class Phase:
    """One part of an epoch: its batches, its loss, what it trains.

    An epoch runs the phases in order. A phase without parameters is work done once an epoch (refreshing attention,
    drawing a graph): its loss is called for each of its batches without gradients, and nothing is stepped.

    Attributes:
        name: unique within the model; names the stream of its random draws and its loss in the history.
        batches: ``(epoch, generator) -> batches`` of that epoch, made on the model's device. The same (epoch, generator
            state) gives the same batches.
        loss: ``loss(batch, edge_weight=None) -> named terms``, each a mean over the batch's weights; their sum is
            minimised.
        parameters: what the phase's optimiser steps.
        optimiser: makes the optimiser from the parameters.
    """

    name: str
    batches: Callable[[int, torch.Generator], Iterable[Batch]]
    loss: Callable[..., Mapping[str, Tensor]]
    parameters: Sequence[nn.Parameter] = ()
    optimiser: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None


@dataclass(frozen=True)
class Encoded:
    """Final representations whose dot product is the score: users (U, D), items (I, D)."""

    users: Tensor
    items: Tensor


@dataclass(frozen=True)
class Derived:
    """Something made from edges that has to be made anew when they change.

    Attributes:
        edge_types: the edge types it was made from.
        rebuild: makes it again from the model's present inputs and gives it back.
    """

    edge_types: tuple[EdgeType, ...]
    rebuild: Callable[[], object]


@dataclass(frozen=True)
class Preset:
    """A named recipe: hyper-parameters of the model, and options of ``fit`` that go with them.

    Attributes:
        model: keyword arguments of the model.
        fit: keyword arguments of ``fit``.
        note: what it is for and what it was chosen on.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


class GraphRecommender(nn.Module):
    """Base of all models.

    A subclass lists its hyper-parameters as keyword arguments of ``__init__`` and hands every one of them to
    ``super().__init__(inputs, …)``, which keeps them in :attr:`hparams`; they are what a run writes to its config.

    Args:
        inputs: the dataset, or the inputs taken from it earlier.
        **hparams: the hyper-parameters of the subclass, JSON values.
    """

    needs: ClassVar[Needs] = Needs()
    # Whatever scores pairs can rank items and tell labelled pairs apart.
    tasks: ClassVar[frozenset[str]] = frozenset({"rank", "ctr"})
    presets: ClassVar[Mapping[str, Preset]] = {}
    # Parameters with a row for each node, and whose rows they are: what can be copied by raw id from another run.
    row_parameters: ClassVar[Mapping[str, str]] = {}
    # Whether a user's scores, the parameters given, rest on no other user's interactions.
    own_interactions: ClassVar[bool] = False
    # Whether the constructor computes what loading would overwrite.
    fills: bool = True

    def __init__(self, inputs: GraphInputs | RecDataset, **hparams: Any) -> None:
        super().__init__()
        for name in ("lr", "reg"):
            value = hparams.get(name)
            if isinstance(value, (int, float)) and not 0 <= value < float("inf"):
                raise InputError(f"{name} must be a number of at least 0, found {value}.")
        if isinstance(inputs, RecDataset):
            self.needs.check(inputs, type(self).__name__)
            inputs = self.inputs(inputs, **hparams)
        self.graph_inputs = inputs
        self.hparams: dict[str, Any] = hparams
        self._encoded: tuple[tuple[tuple[int, int], ...], Encoded] | None = None

    @classmethod
    def inputs(cls, data: RecDataset, **hparams: Any) -> GraphInputs:
        """What the model reads of ``data``: by default the training edges of the ranked behaviour."""
        return GraphInputs.from_dataset(data)

    def inputs_on(
        self,
        data: RecDataset,
        keep: Mapping[str, NDArray[np.bool_]] | None = None,
        rows: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> GraphInputs:
        """What this model reads of its dataset once edges, or nodes too, are gone from it.

        Args:
            data: with fewer edges, and the edge ids it had.
            keep: which of the model's nodes its id tables still have, (N,) bool by node type; types that are not there
                have all.
            rows: the other way round, where the id tables have more nodes than the model: the code in ``data`` of each
                of the model's nodes, by node type, below 0 for one that it has not.
        """
        return type(self).inputs(data, **self.hparams)

    @property
    def num_users(self) -> int:
        """U."""
        return self.graph_inputs.num_users

    @property
    def num_items(self) -> int:
        """I."""
        return self.graph_inputs.num_items

    @property
    def objective(self) -> str:
        """What its training makes small, in a word ("bpr"), so that a table can say it; empty for closed forms."""
        return ""

    @property
    def device(self) -> torch.device:
        """Where the model's edges are, and its parameters with them."""
        return self.graph_inputs.graph[self.graph_inputs.target].edge_index.device

    def phases(self) -> Sequence[Phase]:
        """The parts of an epoch; empty for a closed form."""
        return ()

    def solve(self) -> None:
        """Compute a closed-form model; a model with phases has nothing to solve."""
        if not self.phases():
            raise InputError(f"{type(self).__name__} defines neither phases() nor solve().")

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """Final representations, for models whose score is their dot product.

        Raises:
            InputError: the model's score is no dot product of fixed representations.
        """
        raise InputError(f"{type(self).__name__} has no representations whose dot product is its score.")

    @classmethod
    def encodes(cls) -> bool:
        """Whether :meth:`encode` is there."""
        return cls.encode is not GraphRecommender.encode

    def encoded(self) -> Encoded:
        """:meth:`encode` without gradients, kept until a parameter changes or the mode is switched."""
        key = tuple((parameter.data_ptr(), parameter._version) for parameter in self.parameters())
        if self._encoded is None or self._encoded[0] != key:
            with torch.no_grad():
                self._encoded = (key, self.encode())
        return self._encoded[1]

    def score(self, users: Tensor, items: Tensor | None = None, *, edge_weight: EdgeWeight = None) -> Tensor:
        """Scores of users for items; larger is better.

        Args:
            users: (B,) int64.
            items: None for all items; (P,) the same candidates for all users; (B, P) candidates of each user.
            edge_weight: a weight for each edge the scores rest on; differentiable.

        Returns:
            (B, I), (B, P) and (B, P) float.
        """
        live = self.training or torch.is_grad_enabled() or edge_weight is not None
        encoded = self.encode(edge_weight=edge_weight) if live else self.encoded()
        rows = encoded.users[users]
        if items is None:
            return rows @ encoded.items.T
        if items.dim() == 1:
            return rows @ encoded.items[items].T
        return torch.einsum("bd,bpd->bp", rows, encoded.items[items])

    def score_history(self, items: Tensor, weight: Tensor | None = None) -> Tensor:
        """Scores of all items for somebody new who is known by a list of items.

        Args:
            items: (H,) int64, the history.
            weight: (H,) float, how much each counts; None: 1.

        Returns:
            (I,) float.

        Raises:
            InputError: the model has no fold-in.
        """
        raise InputError(f"{type(self).__name__} cannot score a history of a user it was not trained on.")

    @classmethod
    def folds_in(cls) -> bool:
        """Whether :meth:`score_history` is there."""
        return cls.score_history is not GraphRecommender.score_history

    def derived(self) -> Mapping[str, Derived]:
        """Every attribute made from edges, by name."""
        return {}

    @property
    def weights_delete(self) -> bool:
        """Whether the score with an edge at weight 0 is the score without the edge.

        Not of a closed form, which is solved again; nor where a model draws lists of neighbours or prunes the graph:
        that is done anew without an edge, and another takes its place, while a weight of 0 leaves a hole.
        """
        return bool(self.phases()) and {"knowledge", "attention"}.issuperset(self.derived())

    def facts(self) -> Mapping[str, float | int]:
        """Numbers about the trained model that its run should state (weights kept, error of an approximation)."""
        return {}

    @classmethod
    def unfilled(cls, inputs: GraphInputs, hparams: Mapping[str, Any]) -> Self:
        """A model whose parameters and buffers are about to be loaded; see :attr:`fills`."""
        model = cls.__new__(cls)
        object.__setattr__(model, "fills", False)  # before its constructor has run, torch's own takes no attribute
        cls.__init__(model, inputs, **hparams)
        model.fills = True
        return model

    def drawn(self, draw: Callable[[], Tensor], *shape: int) -> Tensor:
        """``draw()``, an integer tensor of a shape; -1 everywhere where the values are about to be loaded."""
        return draw() if self.fills else torch.full(shape, -1, dtype=torch.int64, device=self.device)

    def batch_weight(self, batch: Batch, terms: Tensor) -> Tensor:
        """Mean of per-example terms (B,) under the batch's weights: ``sum(weight * terms) / B``."""
        return (batch.weight * terms).sum() / max(len(batch), 1)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what :meth:`encoded` kept is dropped."""
        self._encoded = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Edges and matrices made from them are no parameters, but they have to be where the parameters are.
        super()._apply(fn, recurse)
        self._encoded = None
        for name, value in list(vars(self).items()):
            if isinstance(value, (Adjacency, GraphInputs, RelationalGraph)):
                setattr(self, name, value.apply(fn))
        return self
