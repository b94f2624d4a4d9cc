"""The objective of any model, by double backward through its own ``encode`` or ``score``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphrec.graphs.adjacency import EdgeType
from graphrec.influence.objective import Objective, Operator, call
from graphrec.layers.spmm import sddmm
from graphrec.models.base import EdgeWeight, target_weight

_PAIRS_AT_A_TIME = 65536


class GeneralObjective(Objective):
    """See :class:`graphrec.influence.objective.Objective`; all parameters of the model are θ."""

    def _graph(self, w_graph: EdgeWeight) -> EdgeWeight:
        """Ones in place of None: one path, so that differences between graphs are not differences of rounding."""
        if isinstance(w_graph, Mapping):
            return {self.target: self.ones(), **w_graph}
        return self.ones() if w_graph is None else w_graph

    def pair_scores(self, theta: Tensor, users: Tensor, items: Tensor, w_graph: EdgeWeight = None) -> Tensor:
        """As in the base."""
        named, weight = self.unflatten(theta), self._graph(w_graph)
        if self.model.encodes():
            encoded = call(self.model, "encode", named, edge_weight=weight)
            return (encoded.users[users] * encoded.items[items]).sum(-1)
        blocks = zip(users.split(_PAIRS_AT_A_TIME), items.split(_PAIRS_AT_A_TIME), strict=True)
        parts = [call(self.model, "score", named, u, i[:, None], edge_weight=weight)[:, 0] for u, i in blocks]
        return torch.cat(parts)

    def _scores(self, theta: Tensor, w_graph: EdgeWeight) -> Tensor:
        pairs = self.terms.pairs
        if self.model.encodes():
            encoded = call(self.model, "encode", self.unflatten(theta), edge_weight=self._graph(w_graph))
            return sddmm(pairs, encoded.users, encoded.items)
        return self.pair_scores(theta, pairs.rows().long(), pairs.col.long(), w_graph)

    def curvature(
        self,
        theta: Tensor,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
        *,
        gauss_newton: bool = True,
    ) -> Operator:
        """As in the base. The derivative of the scores along v is the derivative of a product with its transpose."""
        weights = self._weights(w_loss, w_negatives)
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            if not gauss_newton:
                value = self.value(theta, weights[0], w_graph, weights[1])
                slope = torch.autograd.grad(value, theta, create_graph=True)[0]

                def hessian(v: Tensor) -> Tensor:
                    return torch.autograd.grad(slope, theta, v, retain_graph=True)[0]

                return hessian
            scores = self._scores(theta, w_graph)
            dummy = torch.zeros_like(scores).requires_grad_()
            pulled = torch.autograd.grad(scores, theta, dummy, create_graph=True)[0]
            leaf = scores.detach().requires_grad_()
            slopes = torch.autograd.grad(self.terms.total(leaf, *weights), leaf, create_graph=True)[0]
        ridge = self.ridge(*weights).detach()

        def product(v: Tensor) -> Tensor:
            change = torch.autograd.grad(pulled, dummy, v, retain_graph=True)[0]
            bent = torch.autograd.grad(slopes, leaf, change, retain_graph=True)[0]
            return torch.autograd.grad(scores, theta, bent, retain_graph=True)[0] + ridge * v

        return product

    def mixed(
        self,
        theta: Tensor,
        q: Tensor,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
        *,
        parts: Sequence[str] = ("loss", "graph", "negatives"),
    ) -> Tensor:
        """As in the base."""
        return self.mixed_by_type(theta, q, (self.target,), w_loss, w_graph, w_negatives, parts=parts)[self.target]

    def mixed_by_type(
        self,
        theta: Tensor,
        q: Tensor,
        edge_types: Sequence[EdgeType],
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
        *,
        parts: Sequence[str] = ("loss", "graph", "negatives"),
    ) -> dict[EdgeType, Tensor]:
        """:meth:`mixed` for edges of several types; those of types other than the ranked one act by the graph alone."""
        w_loss, w_negatives = self._weights(w_loss, w_negatives)
        with torch.enable_grad():
            own, kept = w_loss.detach().clone().requires_grad_(), w_negatives.detach().clone().requires_grad_()
            live = self.live_weights(edge_types, w_graph)
            theta = theta.detach().requires_grad_()
            value = self.value(theta, own, live, kept)
            slope = torch.autograd.grad(value, theta, create_graph=True)[0]
            leaves: list[Tensor] = [own, kept, *live.values()]
            found = torch.autograd.grad(slope, leaves, q, materialize_grads=True, allow_unused=True)
        by_type = dict(zip(live, found[2:], strict=True))
        result = {kind: by_type[kind] if "graph" in parts else torch.zeros_like(by_type[kind]) for kind in edge_types}
        if self.target in result:
            for name, more in zip(("loss", "negatives"), found[:2], strict=True):
                if name in parts:
                    result[self.target] = result[self.target] + more
        return result

    def live_weights(self, edge_types: Sequence[EdgeType], w_graph: EdgeWeight = None) -> dict[EdgeType, Tensor]:
        """Weights by edge type that gradients can be taken of; the ranked behaviour is always among them."""
        given: dict[EdgeType, Any] = dict(w_graph) if isinstance(w_graph, Mapping) else {}
        own = target_weight(w_graph, self.target)
        if own is not None:
            given[self.target] = own
        live = {}
        for kind in dict.fromkeys((self.target, *edge_types, *given)):
            count = self.model.graph_inputs.graph[kind].edge_index.shape[1]
            ones = torch.ones(count, dtype=self.dtype, device=self.device)
            live[kind] = given.get(kind, ones).detach().clone().requires_grad_()
        return live
