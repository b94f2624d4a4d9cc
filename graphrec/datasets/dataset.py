"""The dataset that every adapter ends in and every model starts from: immutable, with edges that keep their numbers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from graphrec.datasets.notes import Note
from graphrec.datasets.pairs import Pairs
from graphrec.datasets.tables import PARTS, EdgeTable, EdgeType, Provenance, edge_type_name, parse_parts
from graphrec.datasets.texts import Texts
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, unknown

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from graphrec.datasets.knowledge import KnowledgeGraph
    from graphrec.datasets.splits import Split

Policy = Literal["keep", "drop"]


@dataclass(frozen=True, eq=False)
class RecDataset:
    """Interactions and all that is known beside them, with integer ids; immutable.

    Every change (a split, a filter, :meth:`without`) returns a new dataset that shares columns but no cache. An edge
    keeps the ``edge_id`` it was given when the dataset was built.

    Attributes:
        name: as a person would say it.
        vocabularies: raw ids of each node type.
        tables: edges of each edge type.
        target: the edge type that is ranked.
        relations: raw ids of the relations of triples.
        origins: raw names of the sources that stated triples.
        features: (node type, name) to (N, D) float32, rows of nodes without a feature are zero.
        feature_masks: (node type, name) to (N,) bool, which nodes have the feature.
        texts: node type to (N,) str or None.
        names: node type (or ``"relation"``) to (N,) str or None.
        kinds: node type to (N,) str or None ("brand", "genre").
        notes: what was removed, merged, or kept by a policy.
        provenance: input rows of each edge, by edge id.
        loaded: arguments of :func:`graphrec.datasets.load` (``source`` for its first) that give this very dataset
            again; None where it was built or changed in memory.
    """

    name: str
    vocabularies: Mapping[str, Vocabulary]
    tables: Mapping[EdgeType, EdgeTable]
    target: EdgeType
    relations: Vocabulary = field(default_factory=lambda: Vocabulary(np.empty(0, np.int64), "relation"))
    origins: Vocabulary = field(default_factory=lambda: Vocabulary(np.empty(0, np.int64), "origin"))
    features: Mapping[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)
    feature_masks: Mapping[tuple[str, str], NDArray[np.bool_]] = field(default_factory=dict)
    texts: Texts = field(default_factory=Texts)
    names: Texts = field(default_factory=Texts)
    kinds: Texts = field(default_factory=Texts)
    notes: tuple[Note, ...] = ()
    provenance: Mapping[EdgeType, Provenance] = field(default_factory=dict)
    loaded: Mapping[str, Any] | None = None
    _cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.target not in self.tables:
            raise InputError(f"{self.name}: no table of {self.target}. Present: {', '.join(map(str, self.tables))}.")
        for name in ("vocabularies", "tables", "features", "feature_masks", "provenance"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process gets the content; read-only views of mappings cannot be sent, caches are made anew.
        values = [getattr(self, entry.name) for entry in fields(self) if entry.init]
        return RecDataset, tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in values)

    # -- sizes ---------------------------------------------------------------------------------------------------------

    @property
    def num_nodes(self) -> Mapping[str, int]:
        """Number of nodes of each type."""
        return {node_type: len(vocabulary) for node_type, vocabulary in self.vocabularies.items()}

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.vocabularies[self.target[0]])

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.vocabularies[self.target[2]])

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that occur among the ranked interactions; ``("train",)`` when none was assigned."""
        part = self.tables[self.target].part
        if part is None:
            return ("train",)
        if "parts" not in self._cache:
            self._cache["parts"] = tuple(name for name, code in PARTS.items() if (part == code).any())
        return self._cache["parts"]

    # -- reading -------------------------------------------------------------------------------------------------------

    def table(self, edge_type: EdgeType | str) -> EdgeTable:
        """The edges of one type, given as a triple, as ``user__views__item`` or by its middle word where that is
        enough.

        Raises:
            InputError: no such edge type, or several.
        """
        if isinstance(edge_type, tuple) and edge_type in self.tables:
            return self.tables[edge_type]
        names = {edge_type_name(known): known for known in self.tables}
        wanted = edge_type if isinstance(edge_type, str) else edge_type_name(edge_type)
        if wanted in names:
            return self.tables[names[wanted]]
        middle = [known for known in self.tables if known[1] == wanted]
        if len(middle) == 1:
            return self.tables[middle[0]]
        raise unknown("edge type", wanted, names)

    def interactions(self, part: str | None = None, *, labels: bool = False) -> EdgeTable:
        """The ranked interactions of a part (default: of all), in canonical order.

        Args:
            part: ``train``, ``valid``, ``test``, or several joined by ``+``.
            labels: whether rows labelled 0 are wanted too.
        """
        table = self.tables[self.target]
        mask = self._part_mask(table, part)
        if not labels and table.label is not None:
            mask = mask & table.positive
        return table if mask.all() else table.select(mask)

    @staticmethod
    def _part_mask(table: EdgeTable, part: str | None) -> NDArray[np.bool_]:
        codes = parse_parts(part)
        if part is None:
            return np.ones(len(table), bool)
        if table.part is None:
            return np.full(len(table), PARTS["train"] in codes)
        return np.isin(table.part, codes) if len(codes) > 1 else table.part == codes[0]

    def pairs(self, part: str | None) -> Pairs:
        """Positives of a part by user; a pair that is in several of the parts asked for is there once."""
        key = ("pairs", part)
        if key not in self._cache:
            table = self.interactions(part)
            user, item, edge_id = table.source, table.target, table.edge_id
            if len(user) > 1:
                again = (user[1:] == user[:-1]) & (item[1:] == item[:-1])
                if again.any():
                    once = np.concatenate([[True], ~again])
                    user, item, edge_id = user[once], item[once], edge_id[once]
            counts = np.bincount(user, minlength=self.num_users)
            indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            arrays = indptr, item.astype(np.int64), edge_id
            for array in arrays:
                array.setflags(write=False)
            self._cache[key] = Pairs(*arrays)
        return self._cache[key]

    def graph(self, part: str | None = "train", edge_types: Sequence[EdgeType] | None = None) -> HeteroData:
        """The edges as a torch_geometric graph; rows labelled 0 are never edges.

        Every node type has ``num_nodes``. Every edge store has ``edge_index`` (2, E) int64 sorted by (source, target),
        ``edge_id`` (E,) int64, and, where the table has them, ``relation``, ``user``, ``origin`` (int64), ``rating``,
        ``weight`` (float32) and ``time``. One direction is stored.

        Args:
            part: the part of the interactions; edge types that have no parts come whole. None: all parts.
            edge_types: which (default: all); one triple will do.

        Returns:
            A graph of its own whose tensors are shared with later calls: stores may be changed freely, tensors not in
            place.
        """
        if edge_types is not None and len(edge_types) == 3 and all(isinstance(word, str) for word in edge_types):
            edge_types = [(str(edge_types[0]), str(edge_types[1]), str(edge_types[2]))]
        wanted = tuple(self.tables) if edge_types is None else tuple(tuple(edge_type) for edge_type in edge_types)
        key = ("graph", part, wanted)
        if key not in self._cache:
            self._cache[key] = self._make_graph(part, wanted)
        return copy.copy(self._cache[key])

    def _make_graph(self, part: str | None, edge_types: Sequence[Any]) -> HeteroData:
        import torch
        from torch_geometric.data import HeteroData

        graph = HeteroData()
        for node_type, size in self.num_nodes.items():
            graph[node_type].num_nodes = size
        for edge_type in edge_types:
            table = self.table(edge_type)
            mask = self._part_mask(table, part) & table.positive
            if not mask.all():
                table = table.select(mask)
            store = graph[edge_type]
            store.edge_index = torch.from_numpy(np.stack([table.source, table.target]).astype(np.int64))
            store.edge_id = torch.from_numpy(table.edge_id.copy())
            for name in ("relation", "user", "origin", "rating", "weight", "time"):
                column = table.columns.get(name)
                if column is not None:
                    wide = np.int64 if np.issubdtype(column.dtype, np.integer) else column.dtype
                    store[name] = torch.from_numpy(column.astype(wide))
        return graph

    def rows(self, edge_type: EdgeType | str, edge_id: Any) -> NDArray[np.int64]:
        """The input rows that one or several edges were made from, ascending.

        Rows count from 0 through all calls of the builder method that added them, in the order of the calls.
        """
        known = self.table(edge_type).edge_type
        if known not in self.provenance:
            raise InputError(f"{known} was not built from rows.")
        return self.provenance[known].rows(edge_id)

    # -- changing ------------------------------------------------------------------------------------------------------

    def changed(self, notes: Sequence[Note] = (), **fields: Any) -> RecDataset:
        """A new dataset with some attributes replaced and notes added; caches are not shared."""
        return replace(self, notes=(*self.notes, *notes), **{"loaded": None, **fields})

    def with_table(self, table: EdgeTable, *notes: Note) -> RecDataset:
        """A new dataset in which ``table`` stands for the table of its edge type."""
        return self.changed(notes, tables={**self.tables, table.edge_type: table})

    def without(self, edges: Any) -> RecDataset:
        """The dataset without some edges. Nothing is renumbered and no filter is run again.

        Args:
            edges: edge ids of the ranked interactions, or edge ids by edge type.

        Raises:
            InputError: an edge id that is not there.
        """
        by_type = edges if isinstance(edges, Mapping) else {self.target: edges}
        tables, notes = dict(self.tables), []
        for edge_type, edge_id in by_type.items():
            table = self.table(edge_type)
            keep = np.ones(len(table), bool)
            keep[table.positions(edge_id)] = False
            tables[table.edge_type] = table.select(keep)
            removed = int(len(table) - keep.sum())
            notes.append(Note("removed", edge_type_name(table.edge_type), removed, "taken out by edge id"))
        return self.changed(notes, tables=tables)

    def split(self, spec: str | Split, *, seed: int | None = None) -> RecDataset:
        """Assign the ranked interactions to train, valid and test; see :mod:`graphrec.datasets.splits`.

        Args:
            spec: a split, or its string form such as ``random:.8,.1,.1`` or ``leave_one_out``.
            seed: of the random draws; default: that of the split.
        """
        from graphrec.datasets.splits import apply_split

        made = apply_split(self, spec, seed=seed)
        if self.loaded is None or not isinstance(spec, str) or not {"split", "cold"}.isdisjoint(self.loaded):
            return made
        seeded = {} if seed is None else {"seed": seed}
        return replace(made, loaded={**self.loaded, "split": spec, **seeded})

    def filter_k_core(
        self, k: int | None = None, *, users: int | None = None, items: int | None = None, isolated: Policy = "drop"
    ) -> RecDataset:
        """Only users with at least ``users`` and items with at least ``items`` interactions, until nothing changes."""
        from graphrec.datasets.filters import k_core

        return k_core(
            self, users=users if users is not None else k, items=items if items is not None else k, isolated=isolated
        )

    def filter_rating(self, minimum: float, *, as_label: bool = False) -> RecDataset:
        """Interactions rated at least ``minimum``; with ``as_label`` the others stay as labelled negatives."""
        from graphrec.datasets.filters import min_rating

        return min_rating(self, minimum, as_label=as_label)

    def draw_negatives(
        self, count: int = 1, *, labelled: Literal["keep", "drop"] = "keep", seed: int = 0
    ) -> RecDataset:
        """With pairs labelled 0: for each positive of a user ``count`` items that the user has no row of."""
        from graphrec.datasets.labelling import draw_negatives

        return draw_negatives(self, count, labelled=labelled, seed=seed)

    def filter_time(self, start: float | None = None, end: float | None = None) -> RecDataset:
        """Interactions with ``start <= time < end``."""
        from graphrec.datasets.filters import time_range

        return time_range(self, start, end)

    def filter_cold(self, policy: Policy = "drop") -> RecDataset:
        """Keep or drop valid and test interactions of users and items without a training interaction; counted either
        way."""
        from graphrec.datasets.filters import cold

        return cold(self, policy)

    def filter_isolated(self, policy: Policy = "drop", node_types: Sequence[str] | None = None) -> RecDataset:
        """Keep or drop nodes that have no edge at all; counted either way."""
        from graphrec.datasets.filters import isolated

        return isolated(self, policy, node_types)

    # -- knowledge -----------------------------------------------------------------------------------------------------

    def with_knowledge(
        self,
        graph: KnowledgeGraph,
        *,
        existing: Literal["extend", "replace"] = "extend",
        min_share: float = 0.1,
        unknown_items: Literal["drop", "entity"] = "drop",
    ) -> RecDataset:
        """The dataset with the triples of a knowledge graph.

        Interactions, users and items keep their codes and edge ids. What was matched and dropped is in the notes.

        Args:
            graph: such as :func:`~graphrec.datasets.kg_from_table` and :func:`~graphrec.datasets.read_triples` make.
                An entity with the raw id of an item is that item; ``graph.with_items(read_link(FILE))`` ties others.
            existing: ``extend`` the triples that the dataset has, or ``replace`` them.
            min_share: refuse a graph that has a smaller share of the dataset's items.
            unknown_items: linked items that the dataset lacks: ``drop`` their triples, or keep them as ``entity``.

        Raises:
            InputError: too few items match, or items of other names; says how many.
        """
        from graphrec.datasets.knowledge_join import with_knowledge

        return with_knowledge(self, graph, existing=existing, min_share=min_share, unknown_items=unknown_items)

    def knowledge(self) -> KnowledgeGraph:
        """The knowledge graph by names, to be looked at or written to a file."""
        from graphrec.datasets.knowledge_join import knowledge_of

        return knowledge_of(self)

    def filter_knowledge(self, **cuts: Any) -> RecDataset:
        """A part of the knowledge graph.

        Args:
            **cuts: ``keep`` or ``drop`` of relations by name; ``max_degree`` of an entity; ``hops`` from the items;
                ``core``: fewest edges of an entity; ``self_loops``. In the order and with the meaning of
                :func:`graphrec.datasets.knowledge_filters.filter_knowledge`.

        Raises:
            InputError: an unknown relation or cut, or nothing is left.
        """
        from graphrec.datasets.knowledge_filters import filter_knowledge

        return filter_knowledge(self, **cuts)

    # -- naming --------------------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """sha256 of the content: vocabularies, edges with their ids and parts, features, texts, names."""
        if "fingerprint" not in self._cache:
            from graphrec.datasets.fingerprint import fingerprint

            self._cache["fingerprint"] = fingerprint(self)
        return self._cache["fingerprint"]

    def digests(self) -> dict[str, str]:
        """sha256 of each vocabulary, each part of each table (sorted rows, raw ids), each feature and text."""
        from graphrec.datasets.fingerprint import digests

        return digests(self)

    def summary(self) -> str:
        """Counts, sparsity, parts and notes, as a person would read them."""
        from graphrec.datasets.summary import summary

        return summary(self)

    def __repr__(self) -> str:
        edges = ", ".join(f"{edge_type_name(name)} {len(table):,}" for name, table in self.tables.items())
        nodes = ", ".join(f"{name} {size:,}" for name, size in self.num_nodes.items())
        return f"RecDataset({self.name!r}, nodes: {nodes}; edges: {edges}; parts: {', '.join(self.parts)})"

    def part_counts(self, edge_type: EdgeType | None = None) -> dict[str, int]:
        """Number of rows of each part (labelled negatives included); everything is train where nothing was assigned."""
        table = self.tables[edge_type or self.target]
        if table.part is None:
            return {"train": len(table)}
        counts = np.bincount(table.part.astype(np.int64) + 1, minlength=len(PARTS) + 1)
        return {name: int(counts[code + 1]) for name, code in PARTS.items() if counts[code + 1]}
