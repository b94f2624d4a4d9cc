"""What a model reads of a dataset, and what it cannot do without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency, EdgeType, adjacency
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
