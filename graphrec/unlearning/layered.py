"""A model's encoder taken apart into its layers, so that something can be put between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spmm import spmm
from graphrec.models.base import Encoded, GraphRecommender
from graphrec.models.bpr_mf import BPRMF
from graphrec.models.knowledge import KnowledgeRecommender
from graphrec.models.ngcf import NGCF
from graphrec.models.pairwise import PairwiseRecommender

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Layered:
    """An encoder as K steps and a sum (or a concatenation) of what they give; nothing is dropped out.

    Attributes:
        ego: the tables, (U, D) and (I, D).
        steps: ``(users, items) -> (users, items)``, one for each layer.
        combine: the K + 1 pairs, tables first, to final representations.
    """

    ego: Callable[[], Pair]
    steps: Sequence[Callable[[Pair], Pair]]
    combine: Callable[[Sequence[Pair]], Encoded]

    def encode(self, between: Callable[[int, Pair], Pair] | None = None, ego: Pair | None = None) -> Encoded:
        """Final representations.

        Args:
            between: what stands after each layer, given the layer's number from 1 and its output; 0 is the tables.
            ego: rows that take the tables' place.
        """
        pair = self.ego() if ego is None else ego
        outputs = []
        for number in range(len(self.steps) + 1):
            pair = self.steps[number - 1](pair) if number else pair
            pair = pair if between is None else between(number, pair)
            outputs.append(pair)
        return self.combine(outputs)


def not_layered(model: type[GraphRecommender] | GraphRecommender) -> str | None:
    """Why :func:`layered` cannot take a model apart, in one clause; None where it can."""
    kind = model if isinstance(model, type) else type(model)
    if issubclass(kind, (BPRMF, NGCF)):
        return None
    if not issubclass(kind, PairwiseRecommender):
        return "it has no tables of users and items that layers pass on"
    if issubclass(kind, KnowledgeRecommender):
        return "its layers pass on triples too"
    if isinstance(model, type):
        return None if _propagates(kind) else "its layers are not those of a propagation by one users x items matrix"
    if not isinstance(getattr(model, "matrix", None), Adjacency) or not hasattr(model, "layer_weights"):
        return "its layers are not those of a propagation by one users x items matrix"
    if getattr(model, "self_loops", False):
        return "its propagation has self-loops"
    if getattr(model, "normalisation", "sym") not in ("sym", "l1", "none"):
        return "its propagation scales the two sides by different powers of the degree"
    return None


def layered(model: GraphRecommender) -> Layered:
    """The layers of a model that :func:`not_layered` says nothing against; they follow its parameters."""
    assert isinstance(model, PairwiseRecommender)

    def ego() -> Pair:
        return model.user_embedding, model.item_embedding

    if isinstance(model, NGCF):
        return Layered(ego, [_ngcf_step(model, layer) for layer in range(model.num_layers)], _ngcf_combine(model))
    if isinstance(model, BPRMF):
        return Layered(ego, [], lambda outputs: Encoded(*outputs[0]))
    weights = torch.as_tensor(model.layer_weights)
    matrix = model.matrix
    assert isinstance(matrix, Adjacency)

    def step(pair: Pair) -> Pair:
        return spmm(matrix, pair[1]), spmm(matrix.transposed, pair[0])

    def combine(outputs: Sequence[Pair]) -> Encoded:
        sides = zip(*outputs, strict=True)
        users, items = (
            sum((w * x for w, x in zip(weights.tolist(), side, strict=True)), 0 * side[0]) for side in sides
        )
        return Encoded(users, items)

    return Layered(ego, [step] * (len(weights) - 1), combine)


def _propagates(kind: type[GraphRecommender]) -> bool:
    """Whether the class has a matrix that it propagates by, as far as the class itself tells."""
    return hasattr(kind, "propagation_matrix")


def _ngcf_step(model: NGCF, layer: int) -> Callable[[Pair], Pair]:
    first = layer * (1 + model.interaction)

    def step(pair: Pair) -> Pair:
        sides = []
        for own, neighbours in zip(pair, model.propagate(*pair, None), strict=True):
            out = model._branch(neighbours, first)
            sides.append(out + model._branch(own * neighbours, first + 1) if model.interaction else out)
        return sides[0], sides[1]

    return step


def _ngcf_combine(model: NGCF) -> Callable[[Sequence[Pair]], Encoded]:
    def combine(outputs: Sequence[Pair]) -> Encoded:
        sides = [
            [side[0], *(functional.normalize(x, eps=1e-6) for x in side[1:])] for side in zip(*outputs, strict=True)
        ]
        if model.combination == "mean":
            return Encoded(*(torch.stack(side).mean(0) for side in sides))
        return Encoded(*(torch.cat(side, dim=1) for side in sides))

    return combine
