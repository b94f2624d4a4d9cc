"""KGCL's views: triples dropped at random, and interactions of items whose triples tell the same without some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.graphs.augment import keep_exactly
from graphrec.layers.tail_attention import ItemTails
from graphrec.layers.views import View
from graphrec.models.base import GraphInputs
from graphrec.randomness import derive, hash_uniform


@dataclass(frozen=True, eq=False)
class KGView:
    """One view of both graphs: the triples that items see, and the interactions."""

    tails: ItemTails
    interactions: View

    def apply(self, function: Callable[[Tensor], Tensor], inputs: GraphInputs) -> KGView:
        """The same view of inputs that ``function`` was applied to."""
        kept = [function(edges) for edges in self.interactions.kept]
        return KGView(self.tails.apply(function), View(inputs.adjacency(), kept))


def dropped_triples(tails: ItemTails, drop: float, seed: int) -> ItemTails:
    """The triples that items see, each dropped with probability ``drop``, by a hash of what it says."""
    draws = hash_uniform(seed, tails.heads(), tails.relation, tails.nodes[tails.tails()])
    return tails.kept(draws >= drop)


def kept_interactions(inputs: GraphInputs, keep: Tensor, mix: float, seed: int, number: int) -> View:
    """The view ``number`` of the interactions.

    Args:
        inputs: with the interactions.
        keep: (I,), how likely all edges of an item are kept.
        mix: share of all interactions that come in besides 0.4 of those of kept items; 0: all of these alone.
        seed: of both views.
        number: 0 or 1.
    """
    adj, edges = inputs.adjacency(), inputs.graph[inputs.target].edge_index
    items = hash_uniform(derive(seed, f"items/{number}"), torch.arange(len(keep), device=keep.device)) < keep
    kept = items[edges[1]]
    if mix:
        thinned = hash_uniform(derive(seed, f"thinned/{number}"), *edges) < 0.4
        kept = (kept & thinned) | keep_exactly(adj, 1 - mix, seed=derive(seed, f"mixed/{number}"))
    return View(adj, [kept])


def keep_probability(stability: Tensor, drop: float, floor: float = 0.3, most: float = 0.95) -> Tensor:
    r"""How likely a view keeps each item's interactions, (I,).

    .. math:: p_i = \min\big(.95, (1 - \rho) \, w_i / \bar w\big), \qquad
              w_i = \max\Big(.3, \frac{e^{s_i} - \min e^s}{\max e^s - \min e^s}\Big)

    Items of equal stability are kept equally likely.

    Args:
        stability: (I,), s.
        drop: ρ.
        floor: the least w.
        most: the largest p.
    """
    size = stability.exp()
    spread = size.max() - size.min()
    # Where all are equal but for rounding, none is more stable than another.
    weight = ((size - size.min()) / spread).where(spread > 1e-5, 1.0).clamp_min(floor)
    return ((1 - drop) * weight / weight.mean()).clamp_max(most)
