"""The knowledge graph as one list of directed, typed edges, sorted by head, in the forms that papers give it.

N nodes (users, items, other entities as the form has them), E directed edges, R' relations (inverses and the
interaction relation counted as the form has them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency, EdgeType
from graphrec.graphs.hetero import LAYOUTS

_KNOWLEDGE_NODES = frozenset({"item", "entity"})


@dataclass(frozen=True)
class Convention:
    """How a system lays out its knowledge graph.

    Attributes:
        layout: node order, one of :data:`graphrec.graphs.hetero.LAYOUTS`; without ``interactions`` users are left out.
        interactions: whether training interactions are edges too, under a relation of their own.
        interact_first: whether that relation is 0 (the triples' follow) or comes after all of the triples'.
        inverse: ``distinct``: every edge also backwards, under a relation of its own; ``same``: also backwards under
            the same relation; ``none``: as stated.
        deduplicate: ``triple``: one edge for each (head, relation, tail); ``pair``: one for each (head, tail), that of
            the first relation, edges as stated before inverse ones.
    """

    layout: str = "users_items_entities"
    interactions: bool = False
    interact_first: bool = True
    inverse: Literal["distinct", "same", "none"] = "none"
    deduplicate: Literal["triple", "pair"] = "triple"


CONVENTIONS: Mapping[str, Convention] = {
    "kgat": Convention(interactions=True, inverse="distinct"),
    "kgin": Convention(inverse="distinct"),
    "diffkg": Convention(inverse="distinct", deduplicate="pair"),
    "kgcn": Convention(inverse="same"),
    "directed": Convention(),
    "kcan": Convention(layout="items_entities_users", interactions=True, interact_first=False, inverse="same"),
    "cfkg": Convention(interactions=True, interact_first=False),
}
"""Published forms by name; ``directed`` is the triples as stated (CKE, RippleNet, KGCL)."""


@dataclass(frozen=True)
class Relation:
    """What a relation number stands for.

    Attributes:
        code: the relation of the dataset, -1 where edges of ``edge_type`` carry none.
        edge_type: the edge type whose edges are the relation, where ``code`` is -1.
        inverse: whether the edges run backwards.
    """

    code: int
    edge_type: EdgeType | None
    inverse: bool

    def title(self) -> str:
        """What to call it where nobody gives it a name."""
        name = self.edge_type[1] if self.code < 0 and self.edge_type is not None else f"relation {self.code}"
        return f"{name} (inverse)" if self.inverse else name


@dataclass(frozen=True, eq=False)
class NodePairs:
    """The distinct (relation, node) pairs at one end of the edges: what is computed once for each, not for each edge.

    Attributes:
        node: (P,) int64.
        relation: (P,) int64, ascending; nodes ascend within a relation.
        of_edge: (E,) int64, the pair of each edge.
        starts: pairs of relation r are ``starts[r]:starts[r + 1]``, R' + 1 numbers.
    """

    node: Tensor
    relation: Tensor
    of_edge: Tensor
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.node.shape[0])


@dataclass(frozen=True, eq=False)
class RelationalGraph:
    """Typed, directed edges among nodes of one range, sorted by (head, tail, relation).

    Attributes:
        adjacency: (N, N), a row for each head; stored order is edge-list order, there are no values. Its
            ``edge_id`` are those of the edges' own types.
        relation: (E,) int64.
        edge_type: (E,) int64, number into ``edge_types``.
        position: (E,) int64, place of the edge in the edge list of its type.
        inverse: (E,) bool, whether the edge runs backwards.
        edge_types: the types that ``edge_type`` numbers.
        lengths: edges in the list of each type.
        order: node types in the order of their ranges.
        sizes: nodes of each type.
        relations: what each relation number stands for.
        counts: what was read, merged and found: ``triples``, ``interactions``, ``duplicates`` dropped, ``pairs``
            merged, ``self_loops`` (kept), ``edges`` made.
    """

    adjacency: Adjacency
    relation: Tensor
    edge_type: Tensor
    position: Tensor
    inverse: Tensor
    edge_types: tuple[EdgeType, ...]
    lengths: tuple[int, ...]
    order: tuple[str, ...]
    sizes: tuple[int, ...]
    relations: tuple[Relation, ...]
    counts: Mapping[str, int]
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """E."""
        return len(self.adjacency)

    @property
    def num_nodes(self) -> int:
        """N."""
        return sum(self.sizes)

    @property
    def num_relations(self) -> int:
        """R', relations without an edge included."""
        return len(self.relations)

    @property
    def edge_id(self) -> Tensor:
        """(E,) int64, unique within an edge type and a direction."""
        assert self.adjacency.edge_id is not None
        return self.adjacency.edge_id

    def nodes(self, node_type: str) -> slice:
        """Rows of a node type in a table of all nodes."""
        if node_type not in self.order:
            raise unknown("node type", node_type, self.order)
        place = self.order.index(node_type)
        start = sum(self.sizes[:place])
        return slice(start, start + self.sizes[place])

    def heads(self) -> Tensor:
        """(E,) int64, ascending."""
        return self._kept("heads", lambda: self.adjacency.rows().long())

    def tails(self) -> Tensor:
        """(E,) int64."""
        return self._kept("tails", lambda: self.adjacency.col.long())

    @property
    def head_pairs(self) -> NodePairs:
        """Distinct (relation, head); made once."""
        return self._kept("head_pairs", lambda: self._pairs(self.heads()))

    @property
    def tail_pairs(self) -> NodePairs:
        """Distinct (relation, tail); made once."""
        return self._kept("tail_pairs", lambda: self._pairs(self.tails()))

    @property
    def tail_pair_matrix(self) -> Adjacency:
        """(N, P): heads by tail pairs, an entry for each edge, edge lists in this graph's order; made once."""
        return self._kept("tail_pair_matrix", lambda: self._matrix(self.heads(), self.num_nodes, self.tail_pairs))

    @property
    def pair_matrix(self) -> Adjacency:
        """(P_h, P_t): head pairs by tail pairs, an entry for each edge, edge lists in this graph's order; made once."""
        return self._kept(
            "pair_matrix", lambda: self._matrix(self.head_pairs.of_edge, len(self.head_pairs), self.tail_pairs)
        )

    def weights(self, edge_weight: Mapping[EdgeType, Tensor] | None) -> Tensor | None:
        """Weights by edge type, in edge-list order, as weights of this graph's edges, (E,); differentiable.

        Both directions of an edge have its weight; types that are not mentioned weigh 1. None where nothing given
        concerns this graph.

        Raises:
            InputError: the weights of a type are not as many as its edges.
        """
        if edge_weight is None or not any(kind in edge_weight for kind in self.edge_types):
            return None
        like = next(edge_weight[kind] for kind in self.edge_types if kind in edge_weight)
        parts = []
        for kind, length in zip(self.edge_types, self.lengths, strict=True):
            given = edge_weight.get(kind)
            if given is not None and given.shape != (length,):
                raise InputError(
                    f"edge_weight of {'__'.join(kind)} must have shape ({length},), one for each edge, found "
                    f"{tuple(given.shape)}."
                )
            parts.append(like.new_ones(length) if given is None else given)
        return torch.cat(parts).index_select(0, self._flat_position())

    def _flat_position(self) -> Tensor:
        """Place of each edge in the lists of all types one after the other."""

        def make() -> Tensor:
            starts = torch.tensor([0, *self.lengths[:-1]], device=self.position.device).cumsum(0)
            return starts[self.edge_type] + self.position

        return self._kept("flat_position", make)

    def _pairs(self, nodes: Tensor) -> NodePairs:
        keys, of_edge = torch.unique(self.relation * self.num_nodes + nodes, return_inverse=True)
        relation = torch.div(keys, max(self.num_nodes, 1), rounding_mode="floor")
        counts = torch.bincount(relation, minlength=self.num_relations).cumsum(0).tolist()
        return NodePairs(keys - relation * self.num_nodes, relation, of_edge, (0, *counts))

    def _matrix(self, rows: Tensor, size: int, pairs: NodePairs) -> Adjacency:
        return Adjacency.from_edges(torch.stack([rows, pairs.of_edge]), (size, len(pairs)))

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.cache:
            with torch.inference_mode(False), torch.no_grad():  # what is kept must serve training too
                self.cache[name] = make()
        return self.cache[name]

    def subset(self, kept: Tensor) -> RelationalGraph:
        """The same nodes and relations with some of the edges, (E,) bool; weights still come by edge type."""
        adjacency, entry = self.adjacency, torch.nonzero(kept)[:, 0]
        rowptr = torch.zeros_like(adjacency.rowptr)
        rowptr[1:] = torch.bincount(self.heads()[entry], minlength=self.num_nodes).cumsum(0)
        picked = replace(
            adjacency,
            rowptr=rowptr,
            col=adjacency.col[entry],
            edge_id=self.edge_id[entry],
            num_edges=len(entry),
            pattern_cache={},
            cache={},
        )
        tensors = ("relation", "edge_type", "position", "inverse")
        changed: dict[str, Any] = {name: getattr(self, name)[entry] for name in tensors}
        counts = {**self.counts, "edges": len(entry)}
        return replace(self, adjacency=picked, counts=counts, cache={}, **changed)

    def apply(self, function: Callable[[Tensor], Tensor]) -> RelationalGraph:
        """The same graph with ``function`` applied to each tensor; it must leave integers as they are."""
        tensors = ("relation", "edge_type", "position", "inverse")
        changed: dict[str, Any] = {name: function(getattr(self, name)) for name in tensors}
        return replace(self, adjacency=self.adjacency.apply(function), cache={}, **changed)


def knowledge_edge_types(edge_types: Iterable[EdgeType]) -> tuple[EdgeType, ...]:
    """Those of the edge types that are knowledge about items: both ends items or entities; by name."""
    found = (kind for kind in edge_types if _KNOWLEDGE_NODES.issuperset((kind[0], kind[2])))
    return tuple(sorted(found))


def relational_graph(
    graph: HeteroData, target: EdgeType, convention: str | Convention, *, num_relations: int | None = None
) -> RelationalGraph:
    """The knowledge graph of ``graph`` in one of the published forms.

    Triples' relations keep the numbers the dataset gives them, shifted as the convention says; an edge type among items
    and entities without a ``relation`` is a relation of its own, after them.

    Args:
        graph: edge types with ``edge_index`` and ``edge_id``; triples with ``relation``.
        target: the edge type of the interactions.
        convention: the name of one of :data:`CONVENTIONS`, or one's own.
        num_relations: R, relations of the dataset; None: the number that the edge stores state, or the largest
            relation number and one.

    Raises:
        InputError: an unknown convention; no triples; a relation number below 0 or beyond ``num_relations``.
    """
    form = _convention(convention)
    kinds = knowledge_edge_types(graph.edge_types)
    if not any(graph[kind].edge_index.shape[1] for kind in kinds):
        raise InputError("the graph has no triples: no edge among items and entities.")
    users = target[0]
    order = tuple(
        name
        for name in _layout(form.layout, users)
        if name in graph.node_types and (form.interactions or name != users)
    )
    sizes = tuple(int(graph[name].num_nodes) for name in order)
    offset = {name: sum(sizes[:place]) for place, name in enumerate(order)}
    total = _num_relations(graph, kinds, num_relations)
    bare = [kind for kind in kinds if graph[kind].get("relation") is None]
    stated = [Relation(code, None, False) for code in range(total)] + [Relation(-1, kind, False) for kind in bare]
    relations, shift, interact = _numbering(form, stated, target)

    used = (*kinds, target) if form.interactions else kinds
    lengths = tuple(int(graph[kind].edge_index.shape[1]) for kind in used)
    starts = [sum(lengths[:place]) for place in range(len(used))]
    columns = []
    for kind, start in zip(used, starts, strict=True):
        store = graph[kind]
        head, tail = store.edge_index.long()
        if kind == target:
            relation = torch.full_like(head, interact)
        elif kind in bare:
            relation = torch.full_like(head, total + bare.index(kind) + shift)
        else:
            relation = store.relation.long() + shift
        place = torch.arange(start, start + len(head), device=head.device)
        columns.append(torch.stack([head + offset[kind[0]], tail + offset[kind[2]], relation, place]))
    # (4, M), and below (3, E): what else is known of an edge is looked up by its place, for much is large here.
    stated_edges = torch.cat(columns, 1) if len(columns) > 1 else columns[0]
    del columns
    counts = {
        "triples": sum(lengths[place] for place, kind in enumerate(used) if kind != target),
        "interactions": int(graph[target].edge_index.shape[1]) if form.interactions else 0,
        "self_loops": int((stated_edges[0] == stated_edges[1]).sum()),
    }
    nodes = sum(sizes)
    first = _triple_order(stated_edges, nodes, len(relations))
    stated_edges, counts["duplicates"] = _first_of_each(stated_edges, first, (0, 1, 2))
    del first
    number, places = stated_edges.shape[1], stated_edges[3]
    edges = stated_edges[:3]
    if form.inverse != "none":
        edges = torch.cat([edges, edges[[1, 0, 2]]], 1)
        if form.inverse == "distinct":
            edges[2, number:] += len(relations) // 2
    places = places.clone()
    del stated_edges
    ordered = _triple_order(edges, nodes, len(relations))
    edges = edges[:, ordered]
    counts["pairs"] = 0
    if form.deduplicate == "pair":
        # Within a (head, tail) the edges stand by relation, and inverse relations have the larger numbers.
        keep = _changes(edges, (0, 1))
        counts["pairs"] = int((~keep).sum())
        edges, ordered = edges[:, keep], ordered[keep]
    counts["edges"] = int(edges.shape[1])
    inverse = ordered >= number
    places = places[ordered.remainder_(max(number, 1))]
    del ordered
    relation = edges[2].clone()
    edge_id = torch.cat([_edge_ids(graph, kind) for kind in used])[places]
    adjacency = Adjacency.from_edges(edges[:2], (nodes, nodes), edge_id=edge_id)
    del edges
    ends = torch.tensor(starts[1:], dtype=torch.int64, device=places.device)
    edge_type = torch.bucketize(places, ends, right=True)
    position = places - torch.tensor(starts, dtype=torch.int64, device=places.device)[edge_type]
    return RelationalGraph(
        adjacency, relation, edge_type, position, inverse, used, lengths, order, sizes, relations, counts
    )


def _edge_ids(graph: HeteroData, kind: EdgeType) -> Tensor:
    """Ids of an edge type's edges; their places in its list where it has none."""
    ids: Tensor | None = graph[kind].get("edge_id")
    edges = graph[kind].edge_index
    return torch.arange(edges.shape[1], device=edges.device) if ids is None else ids.long()


def _convention(convention: str | Convention) -> Convention:
    if isinstance(convention, Convention):
        return convention
    if convention not in CONVENTIONS:
        raise unknown("convention of a knowledge graph", convention, CONVENTIONS)
    return CONVENTIONS[convention]


def _layout(name: str, users: str) -> tuple[str, ...]:
    if name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)
    return tuple(users if kind == "user" else kind for kind in LAYOUTS[name])


def _num_relations(graph: HeteroData, kinds: Iterable[EdgeType], given: int | None) -> int:
    """R; every relation number is checked against it."""
    largest, stated = -1, 0
    for kind in kinds:
        relation = graph[kind].get("relation")
        stated = max(stated, int(graph[kind].get("num_relations") or 0))
        if relation is None or len(relation) == 0:
            continue
        if int(relation.min()) < 0:
            raise InputError(f"relation numbers of {'__'.join(kind)} must be 0 or more, found {int(relation.min())}.")
        largest = max(largest, int(relation.max()))
    total = given if given is not None else stated or largest + 1
    if largest >= total:
        raise InputError(f"relation number {largest} is out of range: there are {total} relations.")
    return total


def _numbering(form: Convention, stated: list[Relation], target: EdgeType) -> tuple[tuple[Relation, ...], int, int]:
    """The relations in order, by how much the stated ones are shifted, and the number of the interactions'."""
    forward, shift, interact = list(stated), 0, -1
    if form.interactions:
        own = Relation(-1, target, False)
        forward = [own, *forward] if form.interact_first else [*forward, own]
        shift, interact = (1, 0) if form.interact_first else (0, len(stated))
    if form.inverse == "distinct":
        forward += [replace(relation, inverse=True) for relation in forward]
    return tuple(forward), shift, interact


def _triple_order(edges: Tensor, nodes: int, relations: int) -> Tensor:
    """The order by (head, tail, relation), equal ones as they stand."""
    if nodes * nodes * max(relations, 1) < 2**62:
        keys = (edges[0] * nodes).add_(edges[1]).mul_(max(relations, 1)).add_(edges[2])
        return torch.argsort(keys, stable=True)
    order = torch.argsort(edges[2], stable=True)
    return order[torch.argsort((edges[0] * nodes + edges[1])[order], stable=True)]


def _changes(edges: Tensor, rows: tuple[int, ...]) -> Tensor:
    """Where a sorted list begins another combination of some rows, (E,) bool."""
    new = torch.ones(edges.shape[1], dtype=torch.bool, device=edges.device)
    if edges.shape[1] > 1:
        new[1:] = False
        for row in rows:
            new[1:] |= edges[row, 1:] != edges[row, :-1]
    return new


def _first_of_each(edges: Tensor, order: Tensor, rows: tuple[int, ...]) -> tuple[Tensor, int]:
    """The edges in an order, the first of each combination of some rows; and how many that leaves out."""
    edges = edges[:, order]
    keep = _changes(edges, rows)
    dropped = int((~keep).sum())
    return (edges[:, keep] if dropped else edges), dropped
