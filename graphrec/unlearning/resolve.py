"""A request met with a dataset: which edges, rows and texts it names, and the dataset without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.filters import drop_nodes
from graphrec.datasets.notes import Note
from graphrec.datasets.relations import is_knowledge, relation_names
from graphrec.datasets.tables import PARTS, EdgeTable, EdgeType, edge_type_name
from graphrec.datasets.texts import Texts
from graphrec.errors import InputError, unknown
from graphrec.unlearning.request import ForgetRequest, Id, TimeRange

Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Resolved:
    """What a request names in one dataset.

    Attributes:
        fingerprint: of the dataset.
        edges: sorted edge ids, of every part and label, by edge type; types without one are left out.
        nodes: codes of users and items that go wholly, by node type.
        features: codes whose row goes, by (node type, name of the feature).
        texts: codes whose text goes, by node type.
        unknown: what the dataset does not have, as it was asked for, by kind.
    """

    fingerprint: str
    edges: Mapping[EdgeType, Codes] = field(default_factory=dict)
    nodes: Mapping[str, Codes] = field(default_factory=dict)
    features: Mapping[tuple[str, str], Codes] = field(default_factory=dict)
    texts: Mapping[str, Codes] = field(default_factory=dict)
    unknown: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of edges."""
        return sum(len(ids) for ids in self.edges.values())

    @property
    def empty(self) -> bool:
        """Whether nothing of the dataset is named."""
        return not any(len(c) for part in (self.edges, self.nodes, self.features, self.texts) for c in part.values())

    def training(self, data: RecDataset) -> dict[EdgeType, Codes]:
        """Those edges that are edges of the training graph, by edge type; types without one are left out."""
        self.check(data)
        out = {}
        for edge_type, ids in self.edges.items():
            table = data.table(edge_type)
            rows = table.positions(ids)
            trained = table.positive[rows]
            if table.part is not None:
                trained &= table.part[rows] == PARTS["train"]
            if trained.any():
                out[edge_type] = ids[trained]
        return out

    def check(self, data: RecDataset) -> None:
        """Raise an :class:`InputError` where ``data`` is another dataset than the request was met with."""
        if data.fingerprint != self.fingerprint:
            raise InputError(
                f"the request was resolved against the dataset {self.fingerprint}, this is {data.name!r}, "
                f"{data.fingerprint}; resolve it again."
            )


def resolve(request: ForgetRequest, data: RecDataset, *, strict: bool = False) -> Resolved:
    """Find what a request names in a dataset.

    Args:
        request: the request.
        data: with all its parts.
        strict: whether something the dataset does not have is an error; else it is listed in ``unknown``.

    Raises:
        InputError: edge ids of another dataset, a behaviour, relation, feature or edge type that does not exist, times
            where the dataset has none, something unknown under ``strict``, or a request that leaves no training edge.
    """
    search = _Search(data)
    search.nodes("users", data.target[0], request.users)
    search.nodes("items", data.target[2], request.items)
    search.pairs(request.pairs)
    search.behaviours(request.behaviours)
    search.times(request.time)
    search.relations(request.relations)
    search.triples(request.triples)
    search.features(request.features)
    search.texts(request.texts)
    search.edges(request.edges, request.fingerprint)
    found = search.resolved()
    if strict and found.unknown:
        kind, missing = next(iter(found.unknown.items()))
        raise InputError(
            f"{sum(map(len, found.unknown.values()))} of what the request names is not in {data.name}, first of it "
            f"{kind} {missing[0]!r}; nothing was done. Without strict it is reported and left out."
        )
    gone = found.training(data).get(data.target, ())
    if len(gone) and len(gone) == len(data.interactions("train")):
        raise InputError(
            f"the request names all {len(gone):,} training interactions of {data.name}: nothing would be left to "
            "learn from. Delete the run and the dataset instead."
        )
    return found


def remaining(data: RecDataset, resolved: Resolved) -> RecDataset:
    """The dataset without what is to be forgotten, on the same id tables.

    Edges keep their ids and nodes their codes, no filter is run again. Feature rows that go are zero and masked, texts
    and names None. An empty request gives ``data`` itself.
    """
    resolved.check(data)
    if resolved.empty:
        return data
    left = data.without(resolved.edges) if resolved.edges else data
    features, masks = dict(data.features), dict(data.feature_masks)
    for key, codes in resolved.features.items():
        features[key], masks[key] = features[key].copy(), masks[key].copy()
        features[key][codes], masks[key][codes] = 0, False
    names = {node: codes for node, codes in resolved.nodes.items() if len(codes)}
    notes = [Note("removed", f"{node} texts", len(codes), "withdrawn") for node, codes in resolved.texts.items()]
    return left.changed(
        notes,
        features=features,
        feature_masks=masks,
        texts=_blanked(data.texts, resolved.texts),
        names=_blanked(data.names, names),
    )


def compacted(data: RecDataset, resolved: Resolved) -> RecDataset:
    """:func:`remaining` without the rows of users and items that go wholly: their raw ids are in no table any more.

    The nodes after them move up; edge ids stay.
    """
    left = remaining(data, resolved)
    return drop_nodes(left, kept_nodes(data, resolved), "forgotten")


def kept_nodes(data: RecDataset, resolved: Resolved) -> dict[str, NDArray[np.bool_]]:
    """Which nodes stay, (N,) by node type, for the types of which some go."""
    keep = {}
    for node_type, codes in resolved.nodes.items():
        if len(codes):
            keep[node_type] = np.ones(data.num_nodes[node_type], bool)
            keep[node_type][codes] = False
    return keep


def _blanked(strings: Texts, gone: Mapping[str, Codes]) -> Texts:
    arrays = dict(strings.arrow)
    for node_type, codes in gone.items():
        if node_type in arrays and len(codes):
            mask = np.zeros(len(arrays[node_type]), bool)
            mask[codes] = True
            kind = arrays[node_type].type
            arrays[node_type] = pa.array(arrays[node_type].to_pylist(), type=kind, mask=mask)
    return Texts(arrays)


class _Search:
    """Masks over the tables of a dataset that selector after selector marks."""

    def __init__(self, data: RecDataset) -> None:
        self.data = data
        self.marked = {edge_type: np.zeros(len(table), bool) for edge_type, table in data.tables.items()}
        self.gone: dict[str, Codes] = {}
        self.rows: dict[tuple[str, str], set[int]] = {}
        self.words: dict[str, set[int]] = {}
        self.missing: dict[str, list[Any]] = {}

    def codes(self, kind: str, node_type: str, wanted: Iterable[Id]) -> Codes:
        """Codes of raw ids; those that are not there are noted under ``kind``."""
        listed = list(wanted)
        if not listed:
            return np.empty(0, np.int64)
        codes = self._codes(node_type, listed)
        self.missing.setdefault(kind, []).extend(
            entry for entry, code in zip(listed, codes.tolist(), strict=True) if code < 0
        )
        return np.unique(codes[codes >= 0])

    def _codes(self, node_type: str, wanted: Sequence[Id]) -> Codes:
        """Codes of raw ids (M,), -1 for those that are not there."""
        vocabulary = self.data.vocabularies.get(node_type)
        if vocabulary is None or not len(wanted):
            return np.full(len(wanted), -1, np.int64)
        # As strings, numbers and words can stand in one list; what reads as no id is one that the dataset lacks.
        return vocabulary.encode([str(entry) for entry in wanted], unknown="mark")

    def nodes(self, kind: str, node_type: str, wanted: Iterable[Id]) -> None:
        """All that is known of some nodes."""
        codes = self.codes(kind, node_type, wanted)
        if not len(codes):
            return
        self.gone[node_type] = codes
        for edge_type, table in self.data.tables.items():
            for column, ends in (("source", edge_type[0]), ("target", edge_type[2]), ("user", "user")):
                if ends == node_type and column in table.columns:
                    self.marked[edge_type] |= np.isin(table.columns[column], codes)
        for owner, name in self.data.features:
            if owner == node_type:
                self.rows.setdefault((owner, name), set()).update(codes.tolist())
        if node_type in self.data.texts:
            self.words.setdefault(node_type, set()).update(codes.tolist())

    def _behaviour_tables(self) -> dict[EdgeType, EdgeTable]:
        ends = self.data.target[0], self.data.target[2]
        return {name: table for name, table in self.data.tables.items() if (name[0], name[2]) == ends}

    def pairs(self, wanted: Iterable[tuple[Id, Id]]) -> None:
        """Every behaviour between a user and an item."""
        listed = list(wanted)
        if not listed:
            return
        users = self._codes(self.data.target[0], [user for user, _ in listed])
        items = self._codes(self.data.target[2], [item for _, item in listed])
        keys = users * self.data.num_items + items
        keys[(users < 0) | (items < 0)] = -1
        found = np.zeros(len(keys), bool)
        for edge_type, table in self._behaviour_tables().items():
            own = table.source.astype(np.int64) * self.data.num_items + table.target
            self.marked[edge_type] |= np.isin(own, keys[keys >= 0])
            found |= np.isin(keys, own)
        self.missing["pairs"] = [pair for pair, there in zip(listed, found.tolist(), strict=True) if not there]

    def behaviours(self, wanted: Iterable[tuple[str, Id | None]]) -> None:
        """One behaviour, of a user or of everybody."""
        for name, user in wanted:
            tables = {edge_type[1]: edge_type for edge_type in self._behaviour_tables()}
            if name not in tables:
                raise unknown("behaviour", name, tables)
            table = self.data.tables[tables[name]]
            if user is None:
                self.marked[table.edge_type][:] = True
            else:
                self.marked[table.edge_type] |= np.isin(table.source, self.codes("users", table.edge_type[0], [user]))

    def times(self, wanted: Iterable[TimeRange]) -> None:
        """Interactions of every behaviour, and assignments of tags, within ranges of time."""
        for entry in wanted:
            timed = {edge_type: table for edge_type, table in self.data.tables.items() if table.time is not None}
            if not timed:
                raise InputError(f"{self.data.name} has no times (Builder.interactions(time=…)); none can be chosen.")
            codes = None if entry.user is None else self.codes("users", self.data.target[0], [entry.user])
            for edge_type, table in timed.items():
                assert table.time is not None
                mask = (table.time >= entry.start) & (table.time < entry.end)
                if codes is not None:
                    owner = table.source if edge_type[0] == self.data.target[0] else table.user
                    mask &= False if owner is None else np.isin(owner, codes)
                self.marked[edge_type] |= mask

    def _relation(self, wanted: Id) -> int | None:
        names = relation_names(self.data).to_pylist()
        if str(wanted) in names:
            return names.index(str(wanted))
        code = int(self.data.relations.encode([wanted], unknown="mark")[0]) if len(self.data.relations) else -1
        return None if code < 0 else code

    def _knowledge(self) -> dict[EdgeType, EdgeTable]:
        return {name: table for name, table in self.data.tables.items() if is_knowledge(name)}

    def relations(self, wanted: Iterable[Id]) -> None:
        """All triples of a relation, by its raw id or its name."""
        for entry in wanted:
            code = self._relation(entry)
            own = [edge_type for edge_type in self._knowledge() if edge_type[1] == entry]
            if code is None and not own:
                self.missing.setdefault("relations", []).append(entry)
            for edge_type, table in self._knowledge().items():
                if table.relation is not None and code is not None:
                    self.marked[edge_type] |= table.relation == code
                if edge_type in own:
                    # Links that carry no relation are called as their type.
                    self.marked[edge_type] |= True if table.relation is None else table.relation < 0

    def triples(self, wanted: Iterable[tuple[Id, Id, Id]]) -> None:
        """Single triples, by raw ids; an id that is an item's and an entity's means both."""
        listed = list(wanted)
        ends = {
            node_type: [self._codes(node_type, side) for side in ([t[0] for t in listed], [t[2] for t in listed])]
            for node_type in {name for edge_type in self._knowledge() for name in (edge_type[0], edge_type[2])}
        }
        for number, (_, relation, _) in enumerate(listed):
            code = self._relation(relation)
            hit = False
            for edge_type, table in self._knowledge().items():
                head, tail = ends[edge_type[0]][0][number], ends[edge_type[2]][1][number]
                mask = (table.source == head) & (table.target == tail)
                if table.relation is not None and code is not None:
                    mask &= table.relation == code
                elif edge_type[1] != relation:
                    continue
                hit |= bool(mask.any())
                self.marked[edge_type] |= mask
            if not hit:
                self.missing.setdefault("triples", []).append(listed[number])

    def features(self, wanted: Iterable[tuple[Id, str | None]]) -> None:
        """Features of items: one by its name, or all."""
        item_type = self.data.target[2]
        own = [name for node_type, name in self.data.features if node_type == item_type]
        for item, name in wanted:
            if name is not None and name not in own:
                raise unknown("feature", name, own)
            code = self.codes("features", item_type, [item])
            for chosen in own if name is None else [name]:
                self.rows.setdefault((item_type, chosen), set()).update(code.tolist())

    def texts(self, wanted: Iterable[Id]) -> None:
        """Texts of items."""
        item_type = self.data.target[2]
        codes = self.codes("texts", item_type, wanted)
        if len(codes) and item_type in self.data.texts:
            self.words.setdefault(item_type, set()).update(codes.tolist())

    def edges(self, wanted: Mapping[str, Iterable[int]], fingerprint: str | None) -> None:
        """Edge ids by edge type."""
        if fingerprint is not None and fingerprint != self.data.fingerprint:
            raise InputError(
                f"the request counts edges of the dataset {fingerprint}, this is {self.data.name!r}, "
                f"{self.data.fingerprint}; edge ids mean something else here."
            )
        for name, ids in wanted.items():
            table = self.data.table(name)
            listed = np.fromiter(ids, np.int64)
            there = np.isin(listed, table.edge_id)
            self.missing.setdefault("edges", []).extend((name, number) for number in listed[~there].tolist())
            self.marked[table.edge_type][table.positions(listed[there])] = True

    def resolved(self) -> Resolved:
        """What was marked."""
        tables = self.data.tables
        edges = {name: np.sort(tables[name].edge_id[mask]) for name, mask in self.marked.items() if mask.any()}
        features = {key: np.array(sorted(rows), np.int64) for key, rows in self.rows.items() if rows}
        texts = {node: np.array(sorted(rows), np.int64) for node, rows in self.words.items() if rows}
        missing = {kind: tuple(dict.fromkeys(entries)) for kind, entries in self.missing.items() if entries}
        return Resolved(self.data.fingerprint, edges, self.gone, features, texts, missing)


def counts(resolved: Resolved) -> dict[str, int]:
    """How much of each kind is named: ``edges/user__interacts__item``, ``nodes/users``, ``features/item/image``, …"""
    out = {f"edges/{edge_type_name(name)}": len(ids) for name, ids in resolved.edges.items()}
    out.update({f"nodes/{name}s": len(codes) for name, codes in resolved.nodes.items()})
    out.update({f"features/{node}/{name}": len(codes) for (node, name), codes in resolved.features.items()})
    out.update({f"texts/{name}": len(codes) for name, codes in resolved.texts.items()})
    out.update({f"unknown/{name}": len(entries) for name, entries in resolved.unknown.items()})
    return out
