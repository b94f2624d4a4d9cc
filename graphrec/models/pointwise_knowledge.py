"""What models of labelled pairs over a knowledge graph share: typed edges, and one table of items and entities."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphrec.datasets.dataset import RecDataset
from graphrec.graphs.relational import RelationalGraph, knowledge_edge_types, relational_graph
from graphrec.models.base import GraphInputs, Needs
from graphrec.models.pointwise import PointwiseRecommender


class PointwiseKnowledge(PointwiseRecommender):
    """A model of labelled pairs that also reads triples; items are the first nodes of :attr:`knowledge`.

    Args:
        inputs: the dataset or the inputs taken from it.
        **hparams: those of :class:`PointwiseRecommender` and of the subclass.
    """

    needs: ClassVar[Needs] = Needs(kg=True)
    convention: ClassVar[str] = "directed"
    entity_embedding: nn.Parameter | None

    def __init__(self, inputs: GraphInputs | RecDataset, **hparams: Any) -> None:
        super().__init__(inputs, **hparams)
        self.knowledge = self.knowledge_graph()

    @classmethod
    def inputs(cls, data: RecDataset, **hparams: Any) -> GraphInputs:
        """The training edges, the labelled pairs where they are trained on, and the triples."""
        kinds = (data.target, *knowledge_edge_types(data.tables))
        return GraphInputs.from_dataset(data, edge_types=kinds, labels=hparams.get("examples") != "drawn")

    def knowledge_graph(self) -> RelationalGraph:
        """The typed edges, made from the present inputs."""
        return relational_graph(self.graph_inputs.graph, self.graph_inputs.target, self.convention)

    def register_nodes(self, nodes: Tensor) -> None:
        """Take the rows of all nodes, (N, D), as the tables of items and of other entities."""
        graph = self.knowledge
        self.item_embedding = nn.Parameter(nodes[graph.nodes(self.graph_inputs.target[2])].clone())
        entities = nn.Parameter(nodes[graph.nodes("entity")].clone()) if "entity" in graph.order else None
        self.register_parameter("entity_embedding", entities)

    def node_table(self) -> Tensor:
        """(N, D): items, then other entities."""
        if self.entity_embedding is None:
            return self.item_embedding
        return torch.cat([self.item_embedding, self.entity_embedding])
