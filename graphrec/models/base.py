"""The contract that every model keeps: what it reads, how it trains, how it scores.

The parts are small and say what a model can do. A model that is trained by gradients offers
:meth:`GraphRecommender.phases`, a closed form offers :meth:`GraphRecommender.solve`; both score by
:meth:`GraphRecommender.score`. Letters used below: U users, I items, E edges of the ranked behaviour, B batch, D
width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency, EdgeType, adjacency
from graphrec.graphs.relational import RelationalGraph
from graphrec.models.labelled import LabelledPairs

EdgeWeight = Tensor | Mapping[EdgeType, Tensor] | None
"""A weight for each edge, in edge-list order; a bare tensor is for the ranked behaviour."""


def target_weight(edge_weight: EdgeWeight, edge_type: EdgeType) -> Tensor | None:
    """The weights of one edge type, (E,) in edge-list order, or None where none were given for it."""
    return edge_weight.get(edge_type) if isinstance(edge_weight, Mapping) else edge_weight


@dataclass(frozen=True)
class Needs:
    """What a model cannot do without, checked before any work.

    Attributes:
        kg: triples of a knowledge graph.
        features: names of item features, such as ``("text",)``.
        tags: tag assignments.
        trust: links between users.
        labels: labelled pairs (click prediction).
        time: a time for each interaction.
    """

    kg: bool = False
    features: tuple[str, ...] = ()
    tags: bool = False
    trust: bool = False
    labels: bool = False
    time: bool = False

    def check(self, data: RecDataset, model: str) -> None:
        """Raise an :class:`InputError` that names everything ``data`` lacks and the builder call that adds it."""
        kinds = {(source, target) for source, _, target in data.tables}
        target_table = data.tables[data.target]
        lacking = []
        if self.kg and not any("entity" in pair or pair == ("item", "item") for pair in kinds):
            lacking.append(
                "a knowledge graph (graphrec.datasets.kg_from_table makes one from a table of the items, --kg FILE "
                "--kg-columns brand=made_by on the command line; read_triples and Builder.triples take triples)"
            )
        for name in self.features:
            if ("item", name) not in data.features:
                have = ", ".join(sorted(f for node, f in data.features if node == "item")) or "none"
                lacking.append(f"item features {name!r} (Builder.features; present: {have})")
        if self.tags and not any("tag" in pair for pair in kinds):
            lacking.append("tags (Builder.tags)")
        if self.trust and ("user", "user") not in kinds:
            lacking.append("links between users (Builder.links)")
        if self.labels and target_table.label is None:
            lacking.append("labelled pairs (Builder.interactions(label=…))")
        if self.time and target_table.time is None:
            lacking.append("a time for each interaction (Builder.interactions(time=…))")
        if lacking:
            raise InputError(f"{model} needs {'; '.join(lacking)}; dataset {data.name!r} has none.")


@dataclass(frozen=True)
class GraphInputs:
    """All that a model reads of a dataset: the training graph with its edge ids, and the features it asked for.

    Attributes:
        graph: node counts, ``edge_index`` (int64, (2, E)), ``edge_id`` and attributes for each edge type, features as
            ``x_<name>`` of their node store.
        target: the edge type of the ranked behaviour.
        fingerprint: the fingerprint of the dataset the graph was made from.
        labelled: training pairs with their labels, for models that ask for them; None where the dataset labels none 0.
    """

    graph: HeteroData
    target: EdgeType
    fingerprint: str
    labelled: LabelledPairs | None = None

    @classmethod
    def from_dataset(
        cls,
        data: RecDataset,
        *,
        edge_types: Sequence[EdgeType] | None = None,
        features: Sequence[tuple[str, str]] = (),
        labels: bool = False,
    ) -> GraphInputs:
        """The training graph of ``data``, cut to some edge types (default: the ranked behaviour) and features.

        ``labels`` asks for the labelled training pairs too; the graph holds the positives alone either way.
        """
        graph = data.graph(part="train", edge_types=edge_types or (data.target,))
        for store in graph.edge_stores:
            if store.get("relation") is not None:
                # The largest number that happens to occur would change with the edges.
                store.num_relations = len(data.relations)
        for node_type, name in features:
            graph[node_type][f"x_{name}"] = torch.as_tensor(data.features[node_type, name])
        return cls(graph, data.target, data.fingerprint, LabelledPairs.of(data) if labels else None)

    @property
    def num_users(self) -> int:
        """U, with users that have no training edge."""
        return int(self.graph[self.target[0]].num_nodes)

    @property
    def num_items(self) -> int:
        """I, with items that have no training edge."""
        return int(self.graph[self.target[2]].num_nodes)

    def adjacency(self, edge_type: EdgeType | None = None) -> Adjacency:
        """The (source x target) matrix of one edge type (default: users x items), with edge ids; cached."""
        return adjacency(self.graph, edge_type or self.target)

    def apply(self, function: Callable[[Tensor], Tensor]) -> GraphInputs:
        """The same inputs with ``function`` applied to every tensor (a move to another device, a change of dtype)."""
        labelled = None if self.labelled is None else self.labelled.apply(function)
        return replace(self, graph=self.graph.clone().apply(function), labelled=labelled)


@dataclass(frozen=True)
class Batch:
    """Training examples, each tied to the edge it was drawn from.

    Attributes:
        edge_id: (B,) int64, the edge of each example.
        weight: (B,) float, what the example's loss is multiplied by.
        generator: the stream for random draws within the step (dropout); None where the model draws nothing.
        subgraph: the sampled neighbourhood with global ids, None when the full graph is used.
    """

    edge_id: Tensor
    weight: Tensor
    generator: torch.Generator | None = None
    subgraph: HeteroData | None = None

    def __len__(self) -> int:
        return int(self.edge_id.shape[0])

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        size = len(self)
        changed: dict[str, Any] = {
            entry.name: function(value)
            for entry in fields(self)
            if isinstance(value := getattr(self, entry.name), Tensor) and value.dim() > 0 and len(value) == size
        }
        return replace(self, **changed)

    def to(self, device: torch.device | str) -> Self:
        """The batch on another device."""
        changed: dict[str, Any] = {
            entry.name: value.to(device)
            for entry in fields(self)
            if isinstance(value := getattr(self, entry.name), Tensor)
        }
        return replace(self, **changed)

    def shard(self, rank: int, world_size: int) -> Self:
        """Every ``world_size``-th example from ``rank`` on: one process's share of the global batch.

        Tensors whose first dimension is not B (negatives that all examples share) stay whole.
        """
        return self._map(lambda tensor: tensor[rank::world_size])


@dataclass(frozen=True, kw_only=True)
class PairBatch(Batch):
    """Users with a positive item and negatives.

    Attributes:
        users: (B,) int64.
        items: (B,) int64, the positives.
        negatives: (B, n) int64, own negatives of each example; or (n,), shared by all (then ``shared`` is True).
        shared: whether all examples share the negatives.
    """

    users: Tensor
    items: Tensor
    negatives: Tensor
    shared: bool = False

    def shard(self, rank: int, world_size: int) -> Self:
        """One process's share; shared negatives stay whole even when there are B of them."""
        part = super().shard(rank, world_size)
        return replace(part, negatives=self.negatives) if self.shared else part


@dataclass(frozen=True, kw_only=True)
class TripleBatch(Batch):
    """Triples of a knowledge graph with corrupted tails.

    Attributes:
        heads: (B,) int64, nodes of the model's :class:`~graphrec.graphs.relational.RelationalGraph`.
        relations: (B,) int64, its relations.
        tails: (B,) int64, its nodes.
        negatives: (B, n) int64, nodes that are no tails of the example's head and relation.
        edge_type: (B,) int64, what ``edge_id`` belongs to: a number into the graph's ``edge_types``.
    """

    heads: Tensor
    relations: Tensor
    tails: Tensor
    negatives: Tensor
    edge_type: Tensor


@dataclass(frozen=True, kw_only=True)
class PointBatch(Batch):
    """Users and items with labels.

    Attributes:
        users: (B,) int64.
        items: (B,) int64.
        labels: (B,) float, 1 for a click and 0 for none. ``edge_id`` of a drawn negative is that of the edge it was
            drawn for, of a labelled one its own row's, which is no edge of the graph.
    """

    users: Tensor
    items: Tensor
    labels: Tensor


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

    def facts(self) -> Mapping[str, float | int]:
        """Numbers about the trained model that its run should state (weights kept, error of an approximation)."""
        return {}

    @classmethod
    def unfilled(cls, inputs: GraphInputs, hparams: Mapping[str, Any]) -> Self:
        """A model whose parameters are about to be loaded; a subclass may leave out costly initial values."""
        return cls(inputs, **hparams)

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
