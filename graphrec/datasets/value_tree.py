"""Values of one kind as nodes of a forest: spellings merged, rare ones climbed over or dropped, hubs dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphrec.datasets.notes import Note
from graphrec.datasets.spelling import spelling_key, usual_spelling

Ints = NDArray[np.int64]
BETWEEN = " > "


@dataclass(frozen=True)
class ColumnValues:
    """P values of one column with their items.

    Attributes:
        column: its name.
        item: (P,) code of the item of each value.
        value: (P,) arrow strings.
        level: what parts the levels of a path; None: every value is one level.
        exact: whether values are taken as they are (names of bins).
    """

    column: str
    item: Ints
    value: pa.Array
    level: str | None = None
    exact: bool = False


@dataclass(frozen=True)
class Forest:
    """V nodes, a level of a path each; a value without levels is a root.

    Attributes:
        paths: (V,) the names from the root to each node.
        parent: (V,) the node above, -1 for a root.
        pairs: column to (P, 2) distinct pairs (item, node).
        merged: how many spellings went into another one.
    """

    paths: list[tuple[str, ...]]
    parent: Ints
    pairs: dict[str, Ints]
    merged: int


def forest(columns: Sequence[ColumnValues]) -> Forest:
    """The nodes of all values of some columns; nodes with the same spelling key under the same parent are one."""
    number: dict[tuple[int, str], int] = {}
    parents: list[int] = []
    spellings: list[dict[str, int]] = []
    found: dict[str, Ints] = {}
    for column in columns:
        encoded = column.value.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        counts = np.bincount(codes, minlength=len(encoded.dictionary))
        leaves = np.empty(len(counts), np.int64)
        for place, (text, count) in enumerate(zip(encoded.dictionary.to_pylist(), counts.tolist(), strict=True)):
            node = -1
            for level in [text] if column.level is None else text.split(column.level):
                key = level if column.exact else spelling_key(level)
                if not key:
                    continue
                above, node = node, number.setdefault((node, key), len(parents))
                if node == len(parents):
                    parents.append(above)
                    spellings.append({})
                spellings[node][level] = spellings[node].get(level, 0) + count
            leaves[place] = node
        nodes = leaves[codes]
        found[column.column] = _distinct(column.item[nodes >= 0], nodes[nodes >= 0])
    paths: list[tuple[str, ...]] = []
    for node, above in enumerate(parents):  # a node comes after the one above it
        paths.append((*(paths[above] if above >= 0 else ()), usual_spelling(spellings[node])))
    merged = sum(len(spelt) - 1 for spelt in spellings)
    return Forest(paths, np.array(parents, np.int64), found, merged)


@dataclass(frozen=True)
class Kept:
    """What is left of a forest: pairs by column and edges (node, the node above it), both with the nodes' old codes."""

    pairs: dict[str, Ints]
    edges: Ints


def limited(kind: str, made: Forest, num_items: int, min_count: int, max_share: float) -> tuple[Kept, list[Note]]:
    """Drop rare values and hubs.

    The items of a node are those of it and of all below it. An item of a rare node is tied to the nearest node above
    that is not rare; where there is none the pair is dropped. Nothing is tied to a hub.

    Args:
        kind: of the values, for the notes.
        made: the forest.
        num_items: I, what ``max_share`` is a share of.
        min_count: fewest items of a node.
        max_share: largest share of the items that a node may have.

    Returns:
        what is left, and notes that count what is not.
    """
    every = np.concatenate([*made.pairs.values(), np.empty((0, 2), np.int64)])
    count = _items_of_nodes(every, made.parent)
    rare, hub = count < min_count, count > max_share * num_items
    steps = _climb(made.parent, rare)
    notes: list[Note] = []
    kept: dict[str, Ints] = {}
    moved = lost = at_hub = 0
    for column, pairs in made.pairs.items():
        node = steps[pairs[:, 1]]
        there = node >= 0
        at_hub += int(hub[node[there]].sum())
        lost += int((~there).sum())
        good = there.copy()
        good[there] = ~hub[node[there]]
        moved += int((good & (node != pairs[:, 1])).sum())
        kept[column] = _distinct(pairs[good, 0], node[good])
    edges = _edges(made.parent, np.unique(np.concatenate([*(p[:, 1] for p in kept.values()), [-1]])), hub)
    if moved:
        notes.append(
            Note("moved", f"values of {kind}", moved, f"levels of fewer than {min_count} items; tied to the one above")
        )
    if rare.any():
        told = f"of fewer than {min_count} items ({lost:,} triples)"
        notes.append(Note("removed", f"rare values of {kind}", int(rare.sum()), told))
    if hub.any():
        worst = np.flatnonzero(hub)[np.argsort(-count[hub], kind="stable")][:5]
        shown = ", ".join(f"{BETWEEN.join(made.paths[node])} ({count[node] / num_items:.0%})" for node in worst)
        told = f"of more than {max_share:.0%} of the items ({at_hub:,} triples): {shown}"
        notes.append(Note("removed", f"hub values of {kind}", int(hub.sum()), told))
    return Kept(kept, edges), notes


def _items_of_nodes(pairs: Ints, parent: Ints) -> Ints:
    """(V,) distinct items of each node and of all below it."""
    levels = [pairs]
    while True:
        node = parent[levels[-1][:, 1]]
        above = _distinct(levels[-1][node >= 0, 0], node[node >= 0])
        if not len(above):
            break
        levels.append(above)
    every = np.concatenate(levels)
    distinct = _distinct(every[:, 0], every[:, 1])
    return np.bincount(distinct[:, 1], minlength=len(parent)).astype(np.int64)


def _climb(parent: Ints, rare: NDArray[np.bool_]) -> Ints:
    """(V,) each node, or the nearest above it that is not rare; -1 where there is none."""
    at = np.arange(len(parent))
    while True:
        wrong = (at >= 0) & rare[at]
        if not wrong.any():
            return at
        at[wrong] = parent[at[wrong]]


def _edges(parent: Ints, nodes: Ints, hub: NDArray[np.bool_]) -> Ints:
    """(L, 2) edges from nodes that are left to the one above, up to below the first hub."""
    found = [np.empty((0, 2), np.int64)]
    nodes = nodes[nodes >= 0]
    while len(nodes):
        above = parent[nodes]
        good = above >= 0
        good[good] = ~hub[above[good]]
        found.append(np.stack([nodes[good], above[good]], axis=1))
        nodes = np.unique(above[good])
    every = np.concatenate(found)
    return _distinct(every[:, 0], every[:, 1])


def _distinct(left: Ints, right: Ints) -> Ints:
    """(P, 2) distinct pairs, sorted; by one number each, which sorts many times faster than rows."""
    width = int(right.max(initial=0)) + 1
    keys = np.sort(left.astype(np.int64) * width + right)
    keys = keys[np.concatenate([np.ones(min(len(keys), 1), bool), keys[1:] != keys[:-1]])]
    return np.stack(np.divmod(keys, width), axis=1)
