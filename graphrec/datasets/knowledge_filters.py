"""Filters of a dataset's knowledge graph: each returns a new dataset and counts what it took away; edge ids stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.filters import drop_nodes
from graphrec.datasets.notes import Note
from graphrec.datasets.relations import edge_relations, is_knowledge, knowledge_tables, known_relations
from graphrec.datasets.tables import EdgeType, edge_type_name
from graphrec.errors import InputError

Masks = dict[EdgeType, NDArray[np.bool_]]


def filter_knowledge(
    data: RecDataset,
    *,
    keep: Sequence[str] | str | None = None,
    drop: Sequence[str] | str = (),
    max_degree: int | None = None,
    hops: int | None = None,
    core: int | None = None,
    self_loops: bool = True,
) -> RecDataset:
    """The dataset with a part of its knowledge graph, cut in the order of the arguments.

    Entities that are left without any edge leave the dataset; items always stay. Edges keep their ids.

    Args:
        data: the dataset.
        keep: relations that stay, by name or raw id; None: all.
        drop: relations that go.
        max_degree: entities (not items) with more edges than this go, with their edges.
        hops: edges further from the items go: an edge is h hops away when the nearer of its ends is h - 1 edges away
            from an item (1: edges that touch an item).
        core: entities with fewer edges than this go, until none has fewer; items are not counted.
        self_loops: whether edges from a node to itself stay.

    Raises:
        InputError: no knowledge graph, a relation that does not exist (names the nearest), a bound below 1, or nothing
            left.
    """
    for name, bound in (("max_degree", max_degree), ("hops", hops), ("core", core)):
        if bound is not None and bound < 1:
            raise InputError(f"filter_knowledge: {name}={bound}: expected at least 1.")
    tables = knowledge_tables(data)
    before = sum(map(len, tables.values()))
    alive: Masks = {edge_type: np.ones(len(table), bool) for edge_type, table in tables.items()}
    notes: list[Note] = []

    def cut(stays: Masks, detail: str) -> None:
        for edge_type, mask in stays.items():
            gone = alive[edge_type] & ~mask
            if gone.any():
                notes.append(Note("removed", edge_type_name(edge_type), int(gone.sum()), detail))
            alive[edge_type] &= mask

    if keep is not None:
        names = known_relations(data, [keep] if isinstance(keep, str) else keep)
        cut(_of_relations(data, names), f"their relation is not one of {', '.join(sorted(names))}")
    dropped = known_relations(data, [drop] if isinstance(drop, str) else drop)
    if dropped:
        cut({kind: ~mask for kind, mask in _of_relations(data, dropped).items()}, f"of {', '.join(sorted(dropped))}")
    if not self_loops:
        cut(
            {
                edge_type: table.source != table.target if edge_type[0] == edge_type[2] else np.ones(len(table), bool)
                for edge_type, table in tables.items()
            },
            "self-loops",
        )
    if max_degree is not None:
        hubs = _degrees(data, alive)["entity"] > max_degree
        told = f"of {int(hubs.sum()):,} entities with more than {max_degree:,} edges"
        cut(_without(data, alive, {"entity": hubs}), told)
    if hops is not None:
        cut(_near(data, alive, hops), f"more than {hops} hops from an item")
    if core is not None:
        cut(_core(data, alive, core), f"of entities outside the {core}-core")
    left = sum(int(mask.sum()) for mask in alive.values())
    if not left:
        raise InputError(f"filter_knowledge: none of the {before:,} edges of {data.name}'s knowledge graph is left.")
    made = data.changed(
        notes,
        tables={
            kind: table.select(alive[kind]) if kind in alive and not alive[kind].all() else table
            for kind, table in data.tables.items()
            if kind not in alive or alive[kind].any()
        },
    )
    if "entity" not in data.vocabularies or left == before:
        return made
    touched = np.zeros(len(data.vocabularies["entity"]), bool)
    for edge_type, table in made.tables.items():
        for column, kind in (("source", edge_type[0]), ("target", edge_type[2])):
            if kind == "entity":
                touched[table.columns[column]] = True
    return drop_nodes(made, {"entity": touched}, "no edge is left")


def _ends(data: RecDataset, alive: Masks) -> list[tuple[EdgeType, NDArray[Any], NDArray[Any], NDArray[np.bool_]]]:
    return [(kind, data.tables[kind].source, data.tables[kind].target, mask) for kind, mask in alive.items()]


def _of_relations(data: RecDataset, names: set[str]) -> Masks:
    found = {}
    for edge_type, table in data.tables.items():
        if is_knowledge(edge_type):
            codes, known = edge_relations(data, table)
            found[edge_type] = np.array([name in names for name in known])[codes]
    return found


def _degrees(data: RecDataset, alive: Masks) -> dict[str, NDArray[np.int64]]:
    """Edges of each item and entity; a self-loop counts once."""
    sizes = {kind: data.num_nodes.get(kind, 0) for kind in ("item", "entity")}
    degrees = {kind: np.zeros(size, np.int64) for kind, size in sizes.items()}
    for (source_type, _, target_type), source, target, mask in _ends(data, alive):
        other = mask & (source != target) if source_type == target_type else mask
        degrees[source_type] += np.bincount(source[mask], minlength=sizes[source_type])
        degrees[target_type] += np.bincount(target[other], minlength=sizes[target_type])
    return degrees


def _without(data: RecDataset, alive: Masks, gone: Mapping[str, NDArray[np.bool_]]) -> Masks:
    """Which edges touch none of some nodes."""
    made = {}
    for edge_type, source, target, mask in _ends(data, alive):
        stays = mask.copy()
        for kind, codes in ((edge_type[0], source), (edge_type[2], target)):
            if kind in gone:
                stays &= ~gone[kind][codes]
        made[edge_type] = stays
    return made


def _near(data: RecDataset, alive: Masks, hops: int) -> Masks:
    """Which edges can be reached from an item over fewer than ``hops`` others."""
    reached = {"item": np.ones(data.num_nodes["item"], bool), "entity": np.zeros(data.num_nodes.get("entity", 0), bool)}
    near = {edge_type: np.zeros(len(mask), bool) for edge_type, mask in alive.items()}
    for _ in range(hops):
        before = {kind: mask.copy() for kind, mask in reached.items()}
        for edge_type, source, target, mask in _ends(data, alive):
            hit = mask & (before[edge_type[0]][source] | before[edge_type[2]][target])
            near[edge_type] |= hit
            reached[edge_type[0]][source[hit]] = True
            reached[edge_type[2]][target[hit]] = True
        if all((before[kind] == reached[kind]).all() for kind in reached):
            break
    return near


def _core(data: RecDataset, alive: Masks, core: int) -> Masks:
    """Which edges are left when entities with fewer than ``core`` edges go until none has fewer."""
    left = {edge_type: mask.copy() for edge_type, mask in alive.items()}
    while True:
        weak = _degrees(data, left)["entity"] < core
        fewer = _without(data, left, {"entity": weak})
        if all((fewer[kind] == left[kind]).all() for kind in left):
            return left
        left = fewer
