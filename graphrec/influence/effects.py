r"""What a score rests on, triple by triple: its slopes in the weights of all edges, and the score without some.

With a weight for each edge, 1 as trained and 0 for an edge that is gone, the score is f(w), and one backward pass gives
every slope :math:`g_e = \partial f / \partial w_e` at w = 1. To first order the score loses :math:`\sum_{e \in T} g_e`
when the edges T are taken out; both directions of a triple have its weight, so that g counts both. What it does lose,
:math:`f(1) - f(1 - 1_T)`, is measured by :meth:`Deletions.score`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import EdgeType
from graphrec.models.base import GraphRecommender
from graphrec.models.deletion import without_edges

_ROUNDING = 1e-4


@dataclass(frozen=True)
class Slopes:
    """The slopes of a score.

    Attributes:
        by_type: (E_t,) for each edge type, in edge-list order; empty where there are none.
        reason: why there are none, in a clause; empty where there are.
    """

    by_type: Mapping[EdgeType, Tensor] = field(default_factory=dict)
    reason: str = ""


def slopes(model: GraphRecommender, user: int, item: int, edge_types: Sequence[EdgeType]) -> Slopes:
    """The slopes of a pair's score in the weights of the edges of some types, at weight 1.

    Args:
        model: in evaluation mode.
        user: number.
        item: number.
        edge_types: of the model's graph.
    """
    graph, name = model.graph_inputs.graph, type(model).__name__
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    weight = {
        edge_type: torch.ones(count, dtype=kind, device=model.device, requires_grad=True)
        for edge_type in edge_types
        if (count := graph[edge_type].edge_index.shape[1])
    }
    users, items = (torch.tensor([number], device=model.device) for number in (user, item))
    with torch.enable_grad():
        try:
            score = model.score(users, items[None], edge_weight=weight)[0, 0]
        except (InputError, NotImplementedError) as error:
            return Slopes(reason=f"the score of {name} takes no weights of triples ({error})")
        found = (
            torch.autograd.grad(score, list(weight.values()), allow_unused=True)
            if score.requires_grad
            else [None] * len(weight)
        )
    if all(slope is None for slope in found):
        return Slopes(reason=f"the score of {name} has no slope in the weights of triples")
    filled = {
        edge_type: torch.zeros(len(ones)) if slope is None else slope.cpu()
        for slope, (edge_type, ones) in zip(found, weight.items(), strict=True)
    }
    return Slopes(filled)


class Deletions:
    """Scores of pairs of one model without some of its edges, everything made from edges made anew.

    Where that is the same, edges are given the weight 0 instead of building a model without them, which is several
    times faster; the first deletion that changes a score is done both ways, and if they differ by more than rounding
    the weights are not used again.

    Args:
        model: with everything derived of this moment, in evaluation mode.

    Attributes:
        model: the model.
        by_weights: whether edges are taken out by their weights.
    """

    def __init__(self, model: GraphRecommender) -> None:
        self.model = model
        self.by_weights = model.weights_delete
        self._compared = False

    def score(self, user: int, item: int, removed: Mapping[EdgeType, Tensor] | None = None) -> float:
        """The score of a pair.

        Args:
            user: number.
            item: number.
            removed: by edge type, places (M,) int64 in the model's edge lists.
        """
        removed = {kind: places for kind, places in (removed or {}).items() if len(places)}
        if not removed:
            return self._score(self.model, user, item)
        if not self.by_weights:
            return self._anew(user, item, removed)
        found = self._weighed(user, item, removed)
        if not self._compared and found != self._score(self.model, user, item):
            self._compared = True
            expected = self._anew(user, item, removed)
            if abs(found - expected) > _ROUNDING * (1 + abs(expected)):
                self.by_weights = False
                return expected
        return found

    def _weighed(self, user: int, item: int, removed: Mapping[EdgeType, Tensor]) -> float:
        graph, weight = self.model.graph_inputs.graph, {}
        for kind, places in removed.items():
            weight[kind] = torch.ones(graph[kind].edge_index.shape[1], device=self.model.device)
            weight[kind][places.to(self.model.device)] = 0.0
        return self._score(self.model, user, item, weight)

    def _anew(self, user: int, item: int, removed: Mapping[EdgeType, Tensor]) -> float:
        graph = self.model.graph_inputs.graph
        gone = {kind: graph[kind].edge_id[places.to(self.model.device)] for kind, places in removed.items()}
        if self.model.own_interactions:  # without those of others there is less to be made anew
            target = self.model.graph_inputs.target
            others = graph[target].edge_id[graph[target].edge_index[0] != user]
            gone[target] = torch.cat([gone.get(target, others[:0]), others])
        return self._score(without_edges(self.model, gone), user, item)

    @torch.no_grad()
    def _score(
        self, model: GraphRecommender, user: int, item: int, weight: Mapping[EdgeType, Tensor] | None = None
    ) -> float:
        users, items = (torch.tensor([number], device=model.device) for number in (user, item))
        return float(model.score(users, items[None], edge_weight=weight)[0, 0])
