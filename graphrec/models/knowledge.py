"""What ranking models over a knowledge graph share: a table of entities beside users and items, and the typed edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.graphs.relational import RelationalGraph, knowledge_edge_types, relational_graph
from graphrec.models.base import Derived, EdgeWeight, GraphInputs, Needs
from graphrec.models.pairwise import Initialisation, PairwiseRecommender


class KnowledgeRecommender(PairwiseRecommender):
    r"""A pairwise model that also reads triples.

    Items are entities: an item has one row, in ``item_embedding``; ``entity_embedding`` holds the entities that are no
    items. Together they are the entity table of the papers, and initialised as one.

    Args:
        inputs: the dataset or the inputs taken from it.
        **hparams: those of :class:`PairwiseRecommender` and of the subclass.
    """

    needs: ClassVar[Needs] = Needs(kg=True)
    convention: ClassVar[str] = "directed"
    row_parameters: ClassVar[Mapping[str, str]] = {
        **PairwiseRecommender.row_parameters,
        "entity_embedding": "entity",
    }

    def __init__(self, inputs: GraphInputs | RecDataset, **hparams: Any) -> None:
        super().__init__(inputs, **hparams)
        graph = self.graph_inputs.graph
        self.knowledge: RelationalGraph = relational_graph(graph, self.graph_inputs.target, self.convention)
        self.num_entities = int(graph["entity"].num_nodes) if "entity" in graph.node_types else 0
        self.entity_embedding: nn.Parameter | None
        entities = nn.Parameter(torch.empty(self.num_entities, self.dim)) if self.num_entities else None
        self.register_parameter("entity_embedding", entities)
        self.initialise_entities(hparams["init"], hparams["init_scale"])

    @classmethod
    def inputs(cls, data: RecDataset, **hparams: Any) -> GraphInputs:
        """The training edges of the ranked behaviour, and the triples."""
        return GraphInputs.from_dataset(data, edge_types=(data.target, *knowledge_edge_types(data.tables)))

    @torch.no_grad()
    def initialise_entities(self, init: Initialisation, scale: float) -> None:
        """Fill the entities' rows, and with ``xavier`` the items' too: its bound is that of one table of both."""
        if self.entity_embedding is None:
            return
        if init != "xavier":
            stream = randomness.generator(self.seed, "initialisation/entity")
            nn.init.normal_(self.entity_embedding, std=scale, generator=stream)
            return
        bound = (6 / (self.num_items + self.num_entities + self.dim)) ** 0.5
        for name, table in (("item", self.item_embedding), ("entity", self.entity_embedding)):
            stream = randomness.generator(self.seed, f"initialisation/{name}")
            nn.init.uniform_(table, -bound, bound, generator=stream)

    def tables(self) -> dict[str, Tensor]:
        """The tables that are there, by node type."""
        user_type, _, item_type = self.graph_inputs.target
        tables: dict[str, Tensor] = {user_type: self.user_embedding, item_type: self.item_embedding}
        if self.entity_embedding is not None:
            tables["entity"] = self.entity_embedding
        return tables

    def node_table(self) -> Tensor:
        """(N, D), a row for each node of :attr:`knowledge`, in its order."""
        tables = self.tables()
        return torch.cat([tables[name] for name in self.knowledge.order])

    def knowledge_weight(self, edge_weight: EdgeWeight) -> Tensor | None:
        """Weights of the edges of :attr:`knowledge`, (E,), or None; a bare tensor is for the ranked behaviour."""
        if isinstance(edge_weight, Tensor):
            edge_weight = {self.graph_inputs.target: edge_weight}
        return self.knowledge.weights(edge_weight)

    def knowledge_graph(self) -> RelationalGraph:
        """The typed edges, made from the present inputs."""
        return relational_graph(self.graph_inputs.graph, self.graph_inputs.target, self.convention)

    def knowledge_types(self) -> Sequence[tuple[str, str, str]]:
        """The edge types that :attr:`knowledge` is made from."""
        return self.knowledge.edge_types

    def derived(self) -> Mapping[str, Derived]:
        """The typed edges."""
        return {"knowledge": Derived(tuple(self.knowledge_types()), self.knowledge_graph)}
