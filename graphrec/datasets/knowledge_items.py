"""Which entities of a knowledge graph are items of a dataset: by raw ids, with checks that they are the right ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.datasets.arrow import Place
from graphrec.datasets.columns import raw_ids
from graphrec.datasets.knowledge import KnowledgeGraph
from graphrec.datasets.notes import Note
from graphrec.datasets.spelling import spelling_key
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, unknown

Ints = NDArray[np.int64]
UnknownItems = Literal["drop", "entity"]
MIN_SHARE = 0.1
SAME_NAMES = 0.5
LINK = "tie them by a file of both (graph.with_items(read_link(FILE)), or link=FILE in kg_options)"


@dataclass(frozen=True)
class Joined:
    """A knowledge graph with its items found.

    Attributes:
        graph: the triples that are taken over.
        item: (N,) int64 code of the item each of its entities is, -1 for the others.
        notes: what was matched and what was dropped.
    """

    graph: KnowledgeGraph
    item: Ints
    notes: tuple[Note, ...]


def find_items(
    graph: KnowledgeGraph,
    items: Vocabulary,
    *,
    min_share: float = MIN_SHARE,
    unknown_items: UnknownItems = "drop",
    names: pa.Array | None = None,
) -> Joined:
    """Which entities are items, by raw ids.

    Args:
        graph: its :attr:`~KnowledgeGraph.items` say which entity is which item; where it has none, an entity with the
            raw id of an item is that item.
        items: raw ids of the dataset's items.
        min_share: refuse a graph that has a smaller share of the items.
        unknown_items: what becomes of linked items that the dataset lacks: ``drop`` their triples, or keep them as
            entities.
        names: of the items in the dataset; compared with the graph's, where both have some.

    Raises:
        InputError: too few items match, or they match by number but not by name: says how many, with examples.
    """
    if unknown_items not in ("drop", "entity"):
        raise unknown("policy for unknown items", str(unknown_items), ("drop", "entity"))
    code = np.full(len(graph.entities), -1, np.int64)
    if graph.items is None:
        listed, linked = graph.entities, np.arange(len(graph.entities))
    else:
        listed = pa.array([None if raw is None else str(raw) for raw in graph.items.values()], pa.large_string())
        keys = pa.array(list(graph.items), pa.large_string())
        # An item of a catalogue may have no triple: then it counts as matched, and has no place among the entities.
        linked = np.asarray(pc.fill_null(pc.index_in(keys, value_set=graph.entities), -1), np.int64)
    known = np.asarray(pc.is_valid(listed))
    codes = np.full(len(listed), -1, np.int64)
    listed = listed.drop_null()
    codes[known] = items.encode_raw(raw_ids(listed, Place("items", "id"), strict=False))
    code[linked[linked >= 0]] = codes[linked >= 0]
    matched = len(np.unique(codes[codes >= 0]))
    share = matched / max(len(items), 1)
    said = f"{matched:,} of {len(items):,} items of the dataset ({share:.1%})"
    if graph.items is not None:
        said += f", {int((codes >= 0).sum()):,} of {len(codes):,} items of the graph"
    said += f"; {len(np.unique(code[code >= 0])):,} have triples"
    if share < min_share or not matched:
        ours, theirs = (", ".join(map(repr, some[:3].to_pylist())) for some in (items.arrow, listed))
        raise InputError(
            f"the knowledge graph matches {said}; expected at least {min_share:.1%}. Items of the dataset are such as "
            f"{ours}, of the graph such as {theirs}: {LINK}, or say min_share=… if so few are right."
        )
    notes = [*graph.notes, Note("matched", "items", matched, said), *_compared(graph, code, names)]
    notes += _renumbered(graph, items, listed)
    lost = np.zeros(len(code), bool)
    if graph.items is not None:
        lost[linked[linked >= 0]] = codes[linked >= 0] < 0
    if lost.any() and unknown_items == "entity":
        notes.append(Note("kept", "items of the graph", int(lost.sum()), "the dataset lacks them; they are entities"))
    elif lost.any():
        gone = lost[graph.triples[:, 0]] | lost[graph.triples[:, 2]]
        told = f"of {int(lost.sum()):,} items of the graph that the dataset lacks"
        if gone.all():
            raise InputError(
                f"all {len(gone):,} triples of the knowledge graph are {told}, such as "
                f"{graph.entities[int(np.argmax(lost))].as_py()!r}; unknown_items='entity' keeps them."
            )
        notes.append(Note("removed", "triples", int(gone.sum()), told))
        whole, graph = graph, graph.select(~gone)
        code = code[np.asarray(pc.index_in(graph.entities, value_set=whole.entities), np.int64)]
    return Joined(graph, code, tuple(notes))


def _compared(graph: KnowledgeGraph, code: Ints, names: pa.Array | None) -> list[Note]:
    """Refuse a match by numbers that names contradict."""
    if names is None or graph.names is None:
        return []
    there = np.flatnonzero(code >= 0)
    theirs, ours = graph.names.take(pa.array(there)), names.take(pa.array(code[there]))
    both = np.flatnonzero(np.asarray(pc.and_(pc.is_valid(theirs), pc.is_valid(ours))))[:2000]
    if not len(both):
        return []
    pairs = list(zip(theirs.take(pa.array(both)).to_pylist(), ours.take(pa.array(both)).to_pylist(), strict=True))
    other = [pair for pair in pairs if spelling_key(pair[0]) != spelling_key(pair[1])]
    if len(other) <= (1 - SAME_NAMES) * len(pairs):
        return []
    row = next(row for row, pair in zip(both.tolist(), pairs, strict=True) if pair is other[0])
    raise InputError(
        f"the ids of the knowledge graph match items of other names in {len(other):,} of {len(pairs):,} cases: "
        f"{graph.entities[int(there[row])].as_py()!r} is {other[0][0]!r} in the graph and {other[0][1]!r} in the "
        f"dataset. They are two numberings: {LINK}."
    )


def _renumbered(graph: KnowledgeGraph, items: Vocabulary, listed: pa.Array) -> list[Note]:
    """A note where the dataset counts its items from 0 and the graph's numbers have gaps or go beyond them."""
    if graph.items is None or not items.numeric or not np.array_equal(items.raw, np.arange(len(items))):
        return []
    ids = raw_ids(listed, Place("items", "id"), strict=False).ints
    if ids is None or (len(ids) and int(ids.max()) < len(items)):
        return []
    told = "the dataset numbers its items from 0 without gaps, the graph does not; is it the same numbering?"
    return [Note("check", "ids of items", len(items), told)]
