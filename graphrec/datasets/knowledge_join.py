"""A knowledge graph put into a dataset or a builder: which entities are items, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.datasets.arrow import Place
from graphrec.datasets.builder import Builder
from graphrec.datasets.columns import raw_ids
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.knowledge import KnowledgeGraph
from graphrec.datasets.knowledge_items import MIN_SHARE, Joined, UnknownItems, find_items
from graphrec.datasets.notes import Note
from graphrec.datasets.relations import ENDS, edge_relations, is_knowledge, knowledge_tables
from graphrec.datasets.tables import EdgeTable, EdgeType, canonical, edge_type_name
from graphrec.datasets.texts import Texts
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, unknown

Ints = NDArray[np.int64]
Existing = Literal["extend", "replace"]
RELATED = "related"


def _by_ends(joined: Joined, entity: Ints) -> list[tuple[EdgeType, dict[str, Ints], NDArray[np.bool_]]]:
    """The triples by the kinds of their ends: edge type, codes and relation, and which triples they are."""
    head, tail = joined.graph.triples[:, 0], joined.graph.triples[:, 2]
    item = joined.item
    made = []
    for source in ENDS:
        for target in ENDS:
            rows = ((item[head] >= 0) == (source == "item")) & ((item[tail] >= 0) == (target == "item"))
            if rows.any():
                ends = {
                    "source": (item if source == "item" else entity)[head[rows]],
                    "target": (item if target == "item" else entity)[tail[rows]],
                    "relation": joined.graph.triples[rows, 1],
                }
                made.append(((source, RELATED, target), ends, rows))
    return made


def add_to(
    graph: KnowledgeGraph,
    builder: Builder,
    *,
    min_share: float = MIN_SHARE,
    unknown_items: UnknownItems = "drop",
) -> Builder:
    """Give a builder the triples of a knowledge graph, its names and kinds.

    Args:
        graph: the knowledge graph.
        builder: has its interactions (and declared items) already; entities that are among its items become them.
        min_share: see :func:`find_items`.
        unknown_items: see :func:`find_items`.

    Raises:
        InputError: the builder has no items yet, or too few match.
    """
    given = [ids for rows in builder._given.rows for kind, ids in (rows.source, rows.target) if kind == "item"]
    given += [ids for kind, ids in builder._given.nodes if kind == "item"]
    items = Vocabulary.of(given, "item")
    if not len(items):
        raise InputError("add_to: the builder has no items yet; add the interactions first (Builder.interactions).")
    joined = find_items(graph, items, min_share=min_share, unknown_items=unknown_items)
    for note in joined.notes:
        builder.note(note.action, note.subject, note.count, note.detail)
    labels, raw = joined.graph.entities, items.raw
    entity = np.arange(len(labels))
    for (source, _, target), ends, _ in _by_ends(joined, entity):
        columns: dict[str, Any] = {"relation": joined.graph.relations.take(pa.array(ends["relation"]))}
        for column, kind in (("source", source), ("target", target)):
            codes = ends[column]
            columns[column] = raw[codes] if kind == "item" else labels.take(pa.array(codes))
        builder.triples(columns, head=(source, "source"), relation="relation", tail=(target, "target"))
    own = pa.array(joined.item < 0)
    for call, values in (("names", joined.graph.names), ("kinds", joined.graph.kinds)):
        if values is not None:
            getattr(builder, call)("entity", labels.filter(own), values.filter(own))
    return builder


def with_knowledge(
    data: RecDataset,
    graph: KnowledgeGraph,
    *,
    existing: Existing = "extend",
    min_share: float = MIN_SHARE,
    unknown_items: UnknownItems = "drop",
) -> RecDataset:
    """A dataset with the triples of a knowledge graph.

    Interactions, users and items keep their codes and edge ids. Edges of the knowledge graph are numbered anew where
    the dataset had some of the same type already.

    Args:
        data: the dataset.
        graph: the knowledge graph.
        existing: ``extend`` the triples that the dataset has, or ``replace`` them.
        min_share: refuse a graph that has a smaller share of the items.
        unknown_items: linked items that the dataset lacks: ``drop`` their triples, or keep them as ``entity``.

    Raises:
        InputError: too few items match; says how many.
    """
    if existing not in ("extend", "replace"):
        raise unknown("policy for the knowledge graph that is there", str(existing), ("extend", "replace"))
    item_names = data.names.arrow.get("item")
    joined = find_items(
        graph, data.vocabularies["item"], min_share=min_share, unknown_items=unknown_items, names=item_names
    )
    notes = list(joined.notes)
    old = {edge_type: table for edge_type, table in data.tables.items() if is_knowledge(edge_type)}
    if old and existing == "replace":
        count = sum(map(len, old.values()))
        notes.append(Note("removed", "triples", count, "of the knowledge graph that was there"))
        data = _without_knowledge(data, old)
        old = {}
    own = np.flatnonzero(joined.item < 0)
    labels = joined.graph.entities.take(pa.array(own))
    known = data.vocabularies.get("entity", Vocabulary(np.empty(0, np.int64), "entity"))
    entities, entity_codes = _union(known, labels)
    relations, relation_codes = _union(data.relations, joined.graph.relations)
    new_of_old = _moved(known, entities)
    entity = np.full(len(joined.item), -1, np.int64)
    entity[own] = entity_codes
    tables: dict[EdgeType, EdgeTable] = {}
    new_relation = _moved(data.relations, relations)
    for edge_type, table in data.tables.items():
        changed: dict[str, NDArray[Any]] = {}
        for column, kind in (("source", edge_type[0]), ("target", edge_type[2])):
            if kind == "entity":
                changed[column] = new_of_old[table.columns[column]]
        if table.relation is not None:
            changed["relation"] = np.where(table.relation >= 0, np.append(new_relation, -1)[table.relation], -1)
        tables[edge_type] = table.replaced(**changed) if changed else table
    provenance = dict(data.provenance)
    for edge_type, ends, rows in _by_ends(joined, entity):
        columns: dict[str, NDArray[Any]] = {**ends, "relation": relation_codes[ends["relation"]]}
        if edge_type in old:
            columns = _appended(tables[edge_type], columns)
            notes.append(Note("renumbered", edge_type_name(edge_type), len(tables[edge_type]), "edges were added"))
        merged = canonical(edge_type, _typed(columns), "last", np.flatnonzero(rows) if edge_type not in old else None)
        tables[edge_type] = merged.table
        provenance.pop(edge_type, None)
        if edge_type not in old:
            provenance[edge_type] = merged.provenance
        if merged.num_merged:
            notes.append(Note("merged", edge_type_name(edge_type), merged.num_merged, "triples stated again"))
    features, masks = dict(data.features), dict(data.feature_masks)
    for key in [key for key in features if key[0] == "entity"]:
        features[key] = np.zeros((len(entities), features[key].shape[1]), np.float32)
        masks[key] = np.zeros(len(entities), bool)
        features[key][new_of_old], masks[key][new_of_old] = data.features[key], data.feature_masks[key]
    texts = {}
    for call, given in (("texts", None), ("names", joined.graph.names), ("kinds", joined.graph.kinds)):
        strings: Texts = getattr(data, call)
        added = None if given is None else given.take(pa.array(own))
        made = _strings(strings.arrow.get("entity"), new_of_old, added, entity_codes, len(entities))
        arrays = {**strings.arrow} | ({"entity": made} if made is not None else {})
        if "relation" in arrays:
            size = len(relations)
            arrays["relation"] = _strings(arrays["relation"], new_relation, None, relation_codes, size)
        texts[call] = Texts(arrays)
    return data.changed(
        notes,
        vocabularies={**data.vocabularies, "entity": entities},
        tables=tables,
        relations=relations,
        features=features,
        feature_masks=masks,
        provenance=provenance,
        **texts,
    )


def _union(known: Vocabulary, labels: pa.Array) -> tuple[Vocabulary, Ints]:
    """The vocabulary with more ids in it, and the codes of these."""
    place = Place(known.kind, "id")
    added = raw_ids(labels, place, strict=False)
    made = Vocabulary.of([raw_ids(known.arrow, place, strict=False), added], known.kind)
    return made, made.encode_raw(added).astype(np.int64)


def _moved(old: Vocabulary, new: Vocabulary) -> Ints:
    """The new code of each old one."""
    return new.encode_raw(raw_ids(old.arrow, Place(old.kind, "id"), strict=False)).astype(np.int64)


def _typed(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    codes = ("source", "target", "relation")
    return {name: column.astype(np.int32) if name in codes else column for name, column in columns.items()}


def _appended(table: EdgeTable, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The columns of a table with rows behind them; what only the table has gets the value for none."""
    size = len(columns["source"])
    made: dict[str, NDArray[Any]] = {}
    for name in {*table.columns, "relation"} - {"edge_id"}:
        old = table.columns.get(name, np.full(len(table), -1, np.int32))
        blank = {"weight": 1, "rating": np.nan, "time": np.nan, "label": 1}.get(name, -1)
        added = columns.get(name)
        if added is None:
            added = np.full(size, blank, old.dtype if blank == blank else np.float64)
        made[name] = np.concatenate([old, added])
    return made


def _strings(old: pa.Array | None, moved: Ints, added: pa.Array | None, codes: Ints, size: int) -> pa.Array | None:
    """Strings of nodes in their new order: those that were there, and added ones where there was none."""
    if old is None and added is None:
        return None
    index = np.full(size, -1, np.int64)
    parts = []
    if added is not None:
        index[codes] = np.arange(len(codes))
        parts.append(added.cast(pa.large_string()))
    if old is not None:
        there = np.asarray(pc.is_valid(old))
        index[moved[there]] = np.flatnonzero(there) + (len(parts[0]) if parts else 0)
        parts.append(old.cast(pa.large_string()))
    return pa.concat_arrays(parts).take(pa.array(index, mask=index < 0))


def _without_knowledge(data: RecDataset, old: Mapping[EdgeType, EdgeTable]) -> RecDataset:
    """The dataset without its knowledge graph, and without entities that nothing else touches."""
    from graphrec.datasets.filters import drop_nodes

    tables = {edge_type: table for edge_type, table in data.tables.items() if edge_type not in old}
    provenance = {edge_type: rows for edge_type, rows in data.provenance.items() if edge_type not in old}
    notes = data.notes
    bare = data.changed(tables=tables, provenance=provenance)
    if "entity" not in bare.vocabularies:
        return bare
    touched = np.zeros(len(bare.vocabularies["entity"]), bool)
    for edge_type, table in tables.items():
        for column, kind in (("source", edge_type[0]), ("target", edge_type[2])):
            if kind == "entity":
                touched[table.columns[column]] = True
    made = drop_nodes(bare, {"entity": touched}, "no edge is left")
    return replace(made, notes=notes)


def knowledge_of(data: RecDataset) -> KnowledgeGraph:
    """The knowledge graph of a dataset, by names of relations and raw ids: what is written to files.

    Items and entities whose raw ids read the same are told apart by ``item:`` before the item's.

    Raises:
        InputError: the dataset has none.
    """
    tables = {edge_type: table for edge_type, table in knowledge_tables(data).items() if len(table)}
    labels = {kind: data.vocabularies[kind].arrow.cast(pa.large_string()) for kind in ENDS if kind in data.vocabularies}
    both = "entity" in labels and bool(pc.any(pc.is_in(labels["item"], value_set=labels["entity"])).as_py())
    if both:
        labels["item"] = pc.binary_join_element_wise(pa.scalar("item:", pa.large_string()), labels["item"], "")
    ends: tuple[list[pa.Array], list[pa.Array], list[pa.Array]] = ([], [], [])
    for edge_type, table in tables.items():
        ends[0].append(labels[edge_type[0]].take(pa.array(table.source)))
        codes, names = edge_relations(data, table)
        ends[1].append(pa.array(names, pa.large_string()).take(pa.array(codes)))
        ends[2].append(labels[edge_type[2]].take(pa.array(table.target)))
    about: dict[str, dict[str, str]] = {"names": {}, "kinds": {}}
    for call, found in about.items():
        for kind, strings in getattr(data, call).arrow.items():
            if kind in labels:
                pairs = zip(labels[kind].to_pylist(), strings.to_pylist(), strict=True)
                found.update({label: value for label, value in pairs if value is not None})
    raw = data.vocabularies["item"].raw.tolist()
    return KnowledgeGraph.of(
        *(pa.concat_arrays(side) for side in ends),
        items=dict(zip(labels["item"].to_pylist(), raw, strict=True)),
        self_loops="keep",
        **about,  # type: ignore[arg-type]
    )
