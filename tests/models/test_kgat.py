from __future__ import annotations

import torch

from graphrec.models import GraphRecommender
from graphrec.models.kgat import KGAT
from tests.models.conformance import KnowledgeConformance


class TestKGAT(KnowledgeConformance):
    model_class = KGAT
    hparams = {
        "dim": 16,
        "layer_dims": [16, 8],
        "lr": 2e-2,
        "batch_size": 256,
        "triple_batch_size": 128,
        "triple_batches": 6,
    }
    epochs = 12

    def permuted_state(
        self, model: GraphRecommender, permuted: GraphRecommender, order: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Attention goes where its edge's head, relation and tail go."""
        assert isinstance(model, KGAT) and isinstance(permuted, KGAT)
        state = super().permuted_state(model, permuted, order)
        old, new = model.knowledge, permuted.knowledge
        node = torch.cat([order[name] + old.nodes(name).start for name in old.order])

        def keys(heads: torch.Tensor, relation: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
            return (heads * old.num_relations + relation) * old.num_nodes + tails

        moved = torch.empty_like(state["attention"])
        there = keys(node[old.heads()], old.relation, node[old.tails()]).argsort()
        moved[keys(new.heads(), new.relation, new.tails()).argsort()] = state["attention"][there]
        state["attention"] = moved
        return state
