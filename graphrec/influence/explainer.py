"""Paths that lead from users to items in the knowledge graph, and what scores lose without their triples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, check_at_least, unknown
from graphrec.graphs.adjacency import EdgeType
from graphrec.graphs.relational import RelationalGraph, relational_graph
from graphrec.influence.effects import Deletions, slopes
from graphrec.influence.nodes import code_of, named_node
from graphrec.influence.paths import Paths, paths_between, shares_backwards
from graphrec.models.base import GraphRecommender
from graphrec.models.deletion import without_edges
from graphrec.reports.explanation import ORDERS, Explanation, Node, Order, Path

_MEASURED = 10
"""How many candidates of the largest estimated effect, and how many of the strongest, are measured at the least."""
_LEAST_REST = 0.02
"""What others have of a node's attention, at the least, in an estimate: it is divided by."""


def place_of(scores: Tensor, data: RecDataset, user: int, item: int) -> int:
    """The item's place by scores (I,) among those that the user has no training edge to, from 1; the best on a tie."""
    own = scores[item].clone()
    pairs = data.pairs("train")
    scores = scores.clone()
    scores[torch.as_tensor(pairs.items[pairs.indptr[user] : pairs.indptr[user + 1]].copy())] = -torch.inf
    return int((scores > own).sum()) + 1


class Explainer:
    """A model and its dataset, ready to explain many pairs.

    Args:
        model: a trained model that reads triples.
        data: the dataset it was trained on.

    Attributes:
        graph: users, items and entities with every edge in both directions.
        triples: (E,) bool, which edges are triples; the others are interactions.
        deletions: what scores pairs without some edges.
        shares: (E,) how much the head of each edge listens to its tail.
        strength_by: where the shares come from.
    """

    def __init__(self, model: GraphRecommender, data: RecDataset) -> None:
        if getattr(model, "knowledge", None) is None:
            raise InputError(
                f"{type(model).__name__} reads no knowledge graph, so that no path of one explains it; train a model "
                "that does, such as KGAT."
            )
        self.data = data
        # As deletion leaves it: attention of this moment, not of the start of the last epoch.
        self.model = without_edges(model, {})
        inputs = self.model.graph_inputs
        self.graph = relational_graph(inputs.graph, inputs.target, "kgat")
        self.triples = self.graph.edge_type != self.graph.edge_types.index(inputs.target)
        self.deletions = Deletions(self.model)
        self.shares, self.strength_by = _shares(self.model, self.graph)
        self._back = shares_backwards(self.graph, self.shares)

    def code(self, node_type: str, raw: Any) -> int:
        """The number of a raw id.

        Raises:
            InputError: the dataset does not know it.
        """
        return code_of(self.data, node_type, raw)

    def explain(
        self,
        user: int,
        item: int,
        *,
        k: int = 10,
        max_length: int = 3,
        order: Order = "effect",
        candidates: int = 100,
        alike: int = 3,
        controls: int = 5,
        seed: int = 0,
    ) -> Explanation:
        """As :func:`graphrec.influence.explain.explain`, for numbers of a user and an item."""
        if order not in ORDERS:
            raise unknown("order of paths", order, ORDERS)
        if order == "effect":
            check_at_least(1, candidates=candidates)
        check_at_least(1, k=k)
        check_at_least(0, alike=alike, controls=controls)
        start, end = self.ends(user, item)
        found = self.paths(user, item, limit=max(candidates, k) if order == "effect" else k, max_length=max_length)
        note = ""
        effects: Tensor | None = None
        if order == "effect":
            effects, note = self.effects(user, item, found.edges)
        score = self.score(user, item)
        measured = self.measured(user, item, score, found, effects, k, alike)
        rows = list(measured)
        if effects is not None:
            # What the score does not rest on is no other reason.
            costly = [row for row in rows if measured[row] > 0]
            rows = self._varied(costly, found.edges, alike) + rows[len(costly) :]
        drops = [(row, measured[row]) for row in rows[:k]]
        paths = [self._path(found, row, drop, None if effects is None else float(effects[row])) for row, drop in drops]
        taken: list[float] = []
        if drops and controls:
            for other in self.control_edges(self.triples_of(found.edges[drops[0][0]]), start, end, controls, seed):
                taken.append(score - self.score(user, item, other))
        return Explanation(
            self._node(start),
            self._node(end),
            score,
            self.rank(user, item),
            self.strength_by,
            tuple(paths),
            tuple(taken),
            self._tables(user),
            order="strength" if effects is None else "effect",
            order_note=note,
            candidates=len(found),
            alike=0 if effects is None else alike,
            draws=controls,
        )

    def effects(self, user: int, item: int, edges: Tensor) -> tuple[Tensor | None, str]:
        r"""An estimate of what the score loses without the triples of each path.

        It is :math:`\sum_e g_e / (1 - s_e)` over the path's triples, g the slope of the score in the triple's weight
        and s the larger of the two shares with which its ends listen to each other. An edge of weight w among edges of
        weight 1 has the share :math:`ws / (1 - s + ws)`, whose slope at 1 is s(1 - s); what it loses on the way to
        w = 0 is all of s.

        Args:
            user: number.
            item: number.
            edges: (P, L) positions in :attr:`graph`, -1 where a path has ended.

        Returns:
            (P,) float, or None where the score has no slopes; and why not, in a sentence.
        """
        target = self.model.graph_inputs.target
        found = slopes(self.model, user, item, [kind for kind in self.graph.edge_types if kind != target])
        if found.reason:
            return None, f"There is no order by effect: {found.reason}."
        like = next(iter(found.by_type.values()))
        none = {
            kind: like.new_zeros(length) for kind, length in zip(self.graph.edge_types, self.graph.lengths, strict=True)
        }
        each = self.graph.weights({**none, **found.by_type})
        assert each is not None
        each = each.double() / (1 - torch.maximum(self.shares, self._back)).clamp_min(_LEAST_REST)
        return torch.where(edges >= 0, each[edges.clamp_min(0)], 0.0).sum(1), ""

    def measured(
        self, user: int, item: int, score: float, found: Paths, effects: Tensor | None, k: int, alike: int = 0
    ) -> dict[int, float]:
        """What the score loses without the paths that come into question, by their rows.

        Args:
            user: number.
            item: number.
            score: of the pair.
            found: the candidates, strongest first.
            effects: (P,) estimates, see :meth:`effects`; None: the ``k`` strongest, in their order.
            k: how many are wanted. With estimates the ``k`` largest and the ``k`` strongest, at least ten of each, are
                measured, and given with the largest drop first.
            alike: as in :func:`graphrec.influence.explain.explain`; as many are measured again, in the order with such
                paths at the end.
        """
        most = k if effects is None else max(k, _MEASURED)
        rows = list(range(min(most, len(found))))
        if effects is not None:
            largest = torch.argsort(effects, descending=True, stable=True).tolist()
            varied = self._varied(largest, found.edges, alike)
            rows = list(dict.fromkeys([*rows, *largest[:most], *varied[:most]]))
        drops = {row: score - self.score(user, item, self.triples_of(found.edges[row])) for row in rows}
        return drops if effects is None else dict(sorted(drops.items(), key=lambda entry: -entry[1]))

    def _varied(self, rows: list[int], edges: Tensor, alike: int) -> list[int]:
        """Rows of paths, with those at the end that reach the item by the same triple as ``alike`` before them."""
        if not alike:
            return rows
        last = edges.gather(1, (edges >= 0).sum(1, keepdim=True) - 1)[:, 0]
        triples = list(zip(self.graph.edge_type[last].tolist(), self.graph.position[last].tolist(), strict=True))
        seen: Counter[tuple[int, int]] = Counter()
        first: list[int] = []
        rest: list[int] = []
        for row in rows:
            (first if seen[triples[row]] < alike else rest).append(row)
            seen[triples[row]] += 1
        return first + rest

    def ends(self, user: int, item: int) -> tuple[int, int]:
        """The nodes of a user and an item in :attr:`graph`."""
        user_type, _, item_type = self.model.graph_inputs.target
        return self.graph.nodes(user_type).start + user, self.graph.nodes(item_type).start + item

    def paths(self, user: int, item: int, *, limit: int = 10, max_length: int = 3) -> Paths:
        """The strongest paths from the user through an interaction and then triples to the item."""
        start, end = self.ends(user, item)
        return paths_between(
            self.graph,
            self.shares,
            start,
            end,
            inner=self.triples,
            limit=limit,
            max_length=max_length,
            back=self._back,
        )

    def triples_of(self, edges: Tensor) -> Tensor:
        """The triples among a path's edges (L,), -1 where it has ended."""
        edges = edges[edges >= 0]
        return edges[self.triples[edges]]

    def score(self, user: int, item: int, removed: Tensor | None = None) -> float:
        """The score of a pair, on the graph without some edges (positions in :attr:`graph`)."""
        gone: dict[EdgeType, Tensor] = {}
        if removed is not None:
            for number, kind in enumerate(self.graph.edge_types):
                gone[kind] = self.graph.position[removed[self.graph.edge_type[removed] == number]].unique()
        return self.deletions.score(user, item, gone)

    def rank(self, user: int, item: int) -> int:
        """The item's place among the items that the user has no training edge to, from 1; the best on a tie."""
        with torch.no_grad():
            scores = self.model.score(torch.tensor([user]))[0]
        return place_of(scores, self.data, user, item)

    def control_edges(self, edges: Tensor, start: int, end: int, draws: int, seed: int) -> Iterator[Tensor]:
        """Other triples to compare with: for each edge one of the same relation whose ends are alike in degree.

        Of the twenty edges of the relation nearest in degree (of both ends, on a logarithmic scale), none of them at
        the user's own items or at the item, one is drawn.

        Args:
            edges: positions of triples.
            start: the user's node.
            end: the item's.
            draws: how many sets.
            seed: of the draws.
        """
        graph = self.graph
        degree = graph.adjacency.degrees(0).double().log1p()
        heads, tails = graph.heads(), graph.tails()
        near = torch.zeros(graph.num_nodes, dtype=torch.bool)
        near[end] = True
        near[tails[heads == start]] = True
        stream = np.random.default_rng(seed)
        pools = []
        for edge in edges.tolist():
            same = torch.nonzero((graph.relation == graph.relation[edge]) & ~near[heads] & ~near[tails])[:, 0]
            if len(same) == 0:
                return
            apart = (degree[heads[same]] - degree[heads[edge]]).abs() + (
                degree[tails[same]] - degree[tails[edge]]
            ).abs()
            pools.append(same[torch.argsort(apart, stable=True)[:20]].numpy())
        for _ in range(draws if pools else 0):
            yield torch.as_tensor(np.array([stream.choice(pool) for pool in pools]))

    def _path(self, found: Paths, row: int, drop: float, effect: float | None) -> Path:
        graph = self.graph
        edges, nodes = found.edges[row], found.nodes[row]
        edges, nodes = edges[edges >= 0], nodes[nodes >= 0]
        kinds = [graph.edge_types[number] for number in graph.edge_type[edges].tolist()]
        return Path(
            tuple(self._node(node) for node in nodes.tolist()),
            tuple(self._relation(number) for number in graph.relation[edges].tolist()),
            tuple(zip(kinds, graph.edge_id[edges].tolist(), strict=True)),
            float(found.strength[row]),
            drop,
            effect,
        )

    def _node(self, number: int) -> Node:
        for node_type in self.graph.order:
            span = self.graph.nodes(node_type)
            if span.start <= number < span.stop:
                return named_node(self.data, node_type, number - span.start)
        raise InputError(f"node {number} is beyond the graph's {self.graph.num_nodes}.")

    def _relation(self, number: int) -> tuple[str, bool]:
        relation = self.graph.relations[number]
        return relation_name(self.data, relation.code, relation.edge_type), relation.inverse

    def _tables(self, user: int) -> dict[str, pd.DataFrame]:
        offered = getattr(self.model, "explanation_tables", None)
        own = getattr(self.model, "knowledge", None)
        if offered is None or not isinstance(own, RelationalGraph):
            return {}
        names = []
        for relation in own.relations:
            name = relation_name(self.data, relation.code, relation.edge_type)
            names.append(f"{name} (inverse)" if relation.inverse else name)
        return dict(offered(user, names))


def relation_name(data: RecDataset, code: int, edge_type: EdgeType | None) -> str:
    """What a relation is called: its name, else its raw id, else the middle word of its edge type."""
    if code < 0:
        assert edge_type is not None
        return edge_type[1]
    names = data.names.get("relation")
    return str(data.relations.raw[code]) if names is None or names[code] is None else str(names[code])


def _shares(model: GraphRecommender, graph: RelationalGraph) -> tuple[Tensor, str]:
    """(E,) by degree, the model's attention in its place where it has one; and which of the two it is."""
    shares = 1.0 / graph.adjacency.degrees(0).double()[graph.heads()]
    offered = getattr(model, "relational_attention", None)
    if offered is None:
        return shares, "degree"
    with torch.no_grad():
        own, attention = offered()
    largest = max(*own.lengths, *graph.lengths) + 1

    def keys(made: RelationalGraph) -> Tensor:
        kinds = torch.tensor([graph.edge_types.index(kind) for kind in made.edge_types])
        return (kinds[made.edge_type] * largest + made.position) * 2 + made.inverse

    ordered, order = keys(graph).sort()
    place = torch.searchsorted(ordered, keys(own)).clamp_max(len(ordered) - 1)
    there = ordered[place] == keys(own)
    shares[order[place[there]]] = attention.double()[there]
    return shares, "attention"
