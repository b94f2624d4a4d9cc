"""Filters: each returns a new dataset and says in its notes how much it took away. None renumbers an edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.datasets.dataset import Policy, RecDataset
from graphrec.datasets.notes import Note
from graphrec.datasets.tables import PARTS, EdgeTable, edge_type_name
from graphrec.errors import InputError, unknown

_POLICIES = ("keep", "drop")


def _check_policy(policy: str) -> None:
    if policy not in _POLICIES:
        raise unknown("policy", policy, _POLICIES)


def _without_rows(data: RecDataset, keep: NDArray[np.bool_], detail: str) -> RecDataset:
    table = data.tables[data.target]
    removed = int(len(table) - keep.sum())
    return data.with_table(table.select(keep), Note("removed", edge_type_name(data.target), removed, detail))


def core_mask(
    users: NDArray[Any], items: NDArray[Any], num_users: int, num_items: int, min_users: int, min_items: int
) -> NDArray[np.bool_]:
    """Which pairs are in the core where every user has at least ``min_users`` pairs and every item ``min_items``.

    Both sides are counted anew in each round until nothing changes; the result is the largest such set, which is
    unique.

    Args:
        users: (P,) codes; the pairs are distinct.
        items: (P,) codes.
        num_users: U.
        num_items: I.
        min_users: fewest pairs of a user.
        min_items: fewest pairs of an item.

    Returns:
        (P,) bool.
    """
    alive = np.arange(len(users))
    while len(alive):
        enough_users = np.bincount(users[alive], minlength=num_users) >= min_users
        enough_items = np.bincount(items[alive], minlength=num_items) >= min_items
        stays = enough_users[users[alive]] & enough_items[items[alive]]
        if stays.all():
            break
        alive = alive[stays]
    mask = np.zeros(len(users), bool)
    mask[alive] = True
    return mask


def k_core(
    data: RecDataset, users: int | None = None, items: int | None = None, *, isolated: Policy = "drop"
) -> RecDataset:
    """Keep users with at least ``users`` and items with at least ``items`` distinct positives, until nothing changes.

    Labelled negatives count for nothing; those of users and items that go, go with them.

    Args:
        data: the dataset, of all parts; filter before splitting.
        users: fewest interactions of a user; None: 1.
        items: fewest interactions of an item; None: 1.
        isolated: whether users and items without interactions then leave the dataset (and their other edges with them)
            or stay as nodes.
    """
    _check_policy(isolated)
    fewest = users or 1, items or 1
    table = data.tables[data.target]
    positive = np.flatnonzero(table.positive)
    source, target = table.source[positive], table.target[positive]
    again = np.zeros(len(source), bool)
    again[1:] = (source[1:] == source[:-1]) & (target[1:] == target[:-1])
    inside = core_mask(source[~again], target[~again], data.num_users, data.num_items, *fewest)
    left_users, left_items = np.zeros(data.num_users, bool), np.zeros(data.num_items, bool)
    left_users[source[~again][inside]] = True
    left_items[target[~again][inside]] = True
    keep = left_users[table.source] & left_items[table.target]
    name = f"{fewest[0]}-core of users, {fewest[1]}-core of items"
    filtered = _without_rows(data, keep, name)
    if isolated == "keep":
        return filtered
    return drop_nodes(filtered, {data.target[0]: left_users, data.target[2]: left_items}, f"outside the {name}")


def min_rating(data: RecDataset, minimum: float, *, as_label: bool = False) -> RecDataset:
    """Keep interactions rated at least ``minimum``; or label them 1 and the others 0."""
    table = data.tables[data.target]
    if table.rating is None:
        raise InputError(
            f"{data.name} has no ratings, so none of at least {minimum:g}; say which column they are in "
            "(columns='user=…,item=…,rating=…', or Builder.interactions(rating=…))."
        )
    enough = table.rating >= minimum
    if len(table) and not enough.any():
        low, high = float(np.nanmin(table.rating)), float(np.nanmax(table.rating))
        raise InputError(f"{data.name}: no rating of at least {minimum:g}; they go from {low:g} to {high:g}.")
    if not as_label:
        return _without_rows(data, enough, f"rated below {minimum:g}")
    label = enough.astype(np.int8)
    if table.label is not None:
        label = np.minimum(label, table.label)
    note = Note("labelled negative", edge_type_name(data.target), int((~enough).sum()), f"rated below {minimum:g}")
    return data.with_table(table.replaced(label=label), note)


def time_range(data: RecDataset, start: float | None = None, end: float | None = None) -> RecDataset:
    """Keep interactions with ``start <= time < end``; rows without a time go too."""
    table = data.tables[data.target]
    if table.time is None:
        raise InputError(f"{data.name} has no times (Builder.interactions(time=…)), so none to filter by.")
    keep = ~np.isnan(table.time) if np.issubdtype(table.time.dtype, np.floating) else np.ones(len(table), bool)
    if start is not None:
        keep &= table.time >= start
    if end is not None:
        keep &= table.time < end
    bounds = [f"before {start:g}"] if start is not None else []
    bounds += [f"from {end:g} on"] if end is not None else []
    return _without_rows(data, keep, " or ".join(bounds) or "without a time")


def cold(data: RecDataset, policy: Policy = "drop") -> RecDataset:
    """Keep or drop valid and test interactions whose user or item has no training interaction; counted either way."""
    _check_policy(policy)
    table = data.tables[data.target]
    if table.part is None:
        return data
    train = (table.part == PARTS["train"]) & table.positive
    users, items = np.zeros(data.num_users, bool), np.zeros(data.num_items, bool)
    users[table.source[train]] = True
    items[table.target[train]] = True
    held_out = table.part != PARTS["train"]
    by_user, by_item = held_out & ~users[table.source], held_out & ~items[table.target]
    wrong = by_user | by_item
    detail = (
        f"valid or test interactions of {len(np.unique(table.source[by_user])):,} users and "
        f"{len(np.unique(table.target[by_item])):,} items without a training interaction"
    )
    if policy == "keep":
        return data.changed([Note("kept", edge_type_name(data.target), int(wrong.sum()), detail)])
    return _without_rows(data, ~wrong, detail)


def isolated(data: RecDataset, policy: Policy = "drop", node_types: Sequence[str] | None = None) -> RecDataset:
    """Keep or drop nodes that no edge of any type touches; counted either way.

    Args:
        data: the dataset.
        policy: ``drop`` gives the remaining nodes new codes (edge ids stay).
        node_types: which (default: all).
    """
    _check_policy(policy)
    touched = {node_type: np.zeros(size, bool) for node_type, size in data.num_nodes.items()}
    for (source_type, _, target_type), table in data.tables.items():
        positive = table.positive
        touched[source_type][table.source[positive]] = True
        touched[target_type][table.target[positive]] = True
        if table.user is not None:
            touched["user"][table.user[table.user >= 0]] = True
    wanted = list(touched) if node_types is None else list(node_types)
    for node_type in wanted:
        if node_type not in touched:
            raise unknown("node type", node_type, touched)
    if policy == "keep":
        notes = [
            Note("kept", node_type, int((~touched[node_type]).sum()), "isolated: no edge")
            for node_type in wanted
            if not touched[node_type].all()
        ]
        return data.changed(notes)
    return drop_nodes(data, {node_type: touched[node_type] for node_type in wanted}, "isolated: no edge")


def drop_nodes(data: RecDataset, keep: Mapping[str, NDArray[np.bool_]], detail: str) -> RecDataset:
    """The dataset with only some nodes; edges that touch others go, and are counted. Edge ids stay, codes close up.

    Args:
        data: the dataset.
        keep: for some node types, which nodes stay.
        detail: why, for the notes.
    """
    keep = {node_type: mask for node_type, mask in keep.items() if not mask.all()}
    if not keep:
        return data
    codes = {node_type: np.where(mask, np.cumsum(mask) - 1, -1).astype(np.int32) for node_type, mask in keep.items()}
    notes, tables = [], {}
    for edge_type, table in data.tables.items():
        stays = np.ones(len(table), bool)
        for column, node_type in (("source", edge_type[0]), ("target", edge_type[2])):
            if node_type in keep:
                stays &= keep[node_type][table.columns[column]]
        if not stays.all():
            notes.append(Note("removed", edge_type_name(edge_type), int((~stays).sum()), f"an end was {detail}"))
        tables[edge_type] = _recoded(table.select(stays), codes)
    vocabularies = dict(data.vocabularies)
    features, masks = dict(data.features), dict(data.feature_masks)
    texts = {kind: getattr(data, kind) for kind in ("texts", "names", "kinds")}
    for node_type, mask in keep.items():
        notes.append(Note("removed", node_type, int((~mask).sum()), detail))
        left = np.flatnonzero(mask)
        vocabularies[node_type] = data.vocabularies[node_type].take(left)
        for key in features:
            if key[0] == node_type:
                features[key], masks[key] = data.features[key][left], data.feature_masks[key][left]
        texts = {kind: strings.take(node_type, left) for kind, strings in texts.items()}
    return data.changed(
        notes, tables=tables, vocabularies=vocabularies, features=features, feature_masks=masks, **texts
    )


def _recoded(table: EdgeTable, codes: Mapping[str, NDArray[np.int32]]) -> EdgeTable:
    columns = {}
    for column, node_type in (("source", table.edge_type[0]), ("target", table.edge_type[2]), ("user", "user")):
        if node_type in codes and column in table.columns:
            old = table.columns[column]
            columns[column] = np.where(old >= 0, codes[node_type][old], -1).astype(np.int32)
    return table.replaced(**columns)
