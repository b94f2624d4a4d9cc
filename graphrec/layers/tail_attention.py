r"""Items that take in the tails of their triples by attention; a bounded number of them each.

Letters: I items, U distinct tails, E kept triples, R relations, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.augment import subgraph
from graphrec.graphs.owners import place_within
from graphrec.graphs.relational import RelationalGraph
from graphrec.layers.relational import edge_softmax
from graphrec.layers.spmm import sddmm, spmm
from graphrec.randomness import derive, hash_bits


@dataclass(frozen=True, eq=False)
class ItemTails:
    """The triples that items look at, in the order of the relational graph they come from.

    Attributes:
        adjacency: (I, U), items by tails; stored order is edge-list order.
        relation: (E,) int64.
        nodes: (U,) int64, the node of each tail in the relational graph, ascending.
        edge: (E,) int64, each triple's place in the relational graph.
        num_relations: R.
    """

    adjacency: Adjacency
    relation: Tensor
    nodes: Tensor
    edge: Tensor
    num_relations: int
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """E."""
        return len(self.adjacency)

    def heads(self) -> Tensor:
        """(E,) int64, the item of each triple, ascending."""
        return self.adjacency.rows().long()

    def tails(self) -> Tensor:
        """(E,) int64, each triple's tail among the U."""
        return self.adjacency.col.long()

    def kept(self, mask: Tensor) -> ItemTails:
        """Some of the triples, (E,) boolean; the numbering of tails stays."""
        place = torch.nonzero(mask)[:, 0]
        part = subgraph(self.adjacency, mask)
        plain = Adjacency(part.rowptr, part.col, part.shape)
        return ItemTails(plain, self.relation[place], self.nodes, self.edge[place], self.num_relations)

    def by_relation(self) -> tuple[Adjacency, Adjacency]:
        """Items by relations (I, R) and tails by relations (U, R), an entry for each triple; made once."""
        if "by_relation" not in self.cache:
            with torch.inference_mode(False):  # what is kept must serve training too
                self.cache["by_relation"] = tuple(
                    Adjacency.from_edges(torch.stack([ends, self.relation]), (size, self.num_relations))
                    for ends, size in zip((self.heads(), self.tails()), self.adjacency.shape, strict=True)
                )
        made: tuple[Adjacency, Adjacency] = self.cache["by_relation"]
        return made

    def apply(self, function: Callable[[Tensor], Tensor]) -> ItemTails:
        """The same with ``function`` applied to each tensor; it must leave integers as they are."""
        relation, nodes, edge = (function(x) for x in (self.relation, self.nodes, self.edge))
        return ItemTails(self.adjacency.apply(function), relation, nodes, edge, self.num_relations)


def item_tails(graph: RelationalGraph, item_type: str, limit: int, *, seed: int | None = None) -> ItemTails:
    """Up to ``limit`` triples of each item: the first ones of the tables they come from, or drawn without replacement.

    Args:
        graph: triples as stated.
        item_type: the node type of items.
        limit: triples of an item at most.
        seed: of the draw, a hash of each triple; None: the first ones, by edge type and edge id.

    Raises:
        InputError: ``limit`` is below 1.
    """
    if limit < 1:
        raise InputError(f"the number of tails of an item must be 1 or more, found {limit}.")
    span = graph.nodes(item_type)
    heads = graph.heads()
    own = torch.nonzero((heads >= span.start) & (heads < span.stop))[:, 0]
    if seed is None:
        order = own[torch.argsort(graph.edge_id[own], stable=True)]
        order = order[torch.argsort(graph.edge_type[order], stable=True)]
    else:
        bits = hash_bits(derive(seed, "visible triples"), heads[own], graph.relation[own], graph.tails()[own])
        order = own[torch.argsort(bits, stable=True)]
    order = order[torch.argsort(heads[order], stable=True)]
    edge = torch.sort(order[place_within(heads[order]) < limit]).values
    nodes, tails = torch.unique(graph.tails()[edge], return_inverse=True)
    adjacency = Adjacency.from_edges(
        torch.stack([heads[edge] - span.start, tails]), (span.stop - span.start, len(nodes))
    )
    return ItemTails(adjacency, graph.relation[edge], nodes, edge, graph.num_relations)


def tail_attention(
    tails: ItemTails,
    items: Tensor,
    x: Tensor,
    item_vectors: Tensor,
    tail_vectors: Tensor,
    bias: Tensor,
    weight: Tensor | None = None,
    *,
    slope: float = 0.2,
) -> Tensor:
    r"""How much of each tail its item takes in, softmax over the item's triples of
    :math:`\mathrm{LReLU}(\langle q_i, a_r \rangle + \langle x_t, b_r \rangle + c_r)`.

    That is KGCL's and DiffKG's :math:`([q_i \| x_t] W + b) \cdot \rho_r` with :math:`a_r = W_1 \rho_r`,
    :math:`b_r = W_2 \rho_r`, :math:`c_r = b \cdot \rho_r`: a dot product at each (node, relation) that occurs, and
    nothing of size (triples x width).

    Args:
        tails: E triples of I items.
        items: (I, D).
        x: (U, D).
        item_vectors: (R, D), a.
        tail_vectors: (R, D), b.
        bias: (R,), c.
        weight: (E,) of 0 or more, what each triple counts; None: 1.
        slope: of LReLU below 0.

    Returns:
        (E,), which sum to 1 for each item that has a triple; differentiable twice.
    """
    of_items, of_tails = tails.by_relation()
    logits = sddmm(of_items, items, item_vectors) + sddmm(of_tails, x, tail_vectors)
    logits = functional.leaky_relu(logits + bias.index_select(0, tails.relation), slope)
    return edge_softmax(tails.adjacency, logits, weight)


def with_tails(tails: ItemTails, items: Tensor, x: Tensor, shares: Tensor) -> Tensor:
    """``items`` and the tails they take in, (I, D); an item without triples stays what it is."""
    return items + spmm(tails.adjacency, x, shares)
