"""Which shard each user, item or interaction is in, as part of a model's inputs; and the inputs of one shard."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, unknown
from graphrec.models.base import GraphInputs

By = Literal["user", "item", "interaction"]
Partition = Literal["hash", "random", "blpa", "bekm", "ubp", "ibp", "inbp", "transport"]

CUTS: Mapping[str, tuple[str, ...]] = {
    "hash": ("user", "item", "interaction"),
    "random": ("user", "item", "interaction"),
    "blpa": ("user",),
    "bekm": ("user", "item"),
    "ubp": ("user",),
    "ibp": ("item",),
    "inbp": ("interaction",),
    "transport": ("user", "item"),
}
"""What each partition can cut, the usual first."""

# Sixteen bytes; another key would put everybody into other shards.
_HASH_KEY = "graphrec shards."


def check_cut(partition: str, by: str) -> None:
    """Raise where there is no such partition, or where it does not cut what is asked for."""
    if partition not in CUTS:
        raise unknown("partition", partition, CUTS)
    if by not in CUTS[partition]:
        raise InputError(f"partition {partition!r} cuts by {' or '.join(CUTS[partition])}, found by={by!r}.")


def raw_keys(vocabulary: Vocabulary) -> Tensor:
    """A whole number (N,) int64 for each node that depends on its raw id alone, not on who else is there."""
    if vocabulary.numeric:
        return torch.from_numpy(np.array(vocabulary.raw, dtype=np.int64))
    hashed = pd.util.hash_array(np.asarray(vocabulary.raw, dtype=object), hash_key=_HASH_KEY, categorize=False)
    return torch.from_numpy(hashed.view(np.int64).copy())


def cut_keys(data: RecDataset, inputs: GraphInputs, by: str) -> Tensor:
    """The keys of what is cut: of users (U,), items (I,), or of the training edges in edge-list order (E,)."""
    source, _, target = inputs.target
    if by != "interaction":
        return raw_keys(data.vocabularies[source if by == "user" else target])
    users, items = raw_keys(data.vocabularies[source]), raw_keys(data.vocabularies[target])
    edges = inputs.graph[inputs.target].edge_index
    return randomness.hash_bits(0, users[edges[0]], items[edges[1]])


def keyed_assignment(keys: Tensor, num_shards: int, partition: str, seed: int) -> Tensor:
    """Shards by a hash of each key alone (``hash``), or by the order of the hashes, in even parts (``random``)."""
    if partition == "hash":
        return randomness.hash_integers(randomness.derive(seed, "shards"), num_shards, keys)
    order = torch.argsort(randomness.hash_bits(randomness.derive(seed, "shards"), keys), stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return place * num_shards // max(len(order), 1)


def with_assignment(inputs: GraphInputs, assignment: Tensor, by: str) -> GraphInputs:
    """Inputs that carry an assignment: as ``shard`` of the users, the items or the edges of the ranked behaviour.

    Raises:
        InputError: it has not one entry for each of them.
    """
    graph = copy.copy(inputs.graph)
    source, _, target = inputs.target
    count = {
        "user": inputs.num_users,
        "item": inputs.num_items,
        "interaction": graph[inputs.target].edge_index.shape[1],
    }[by]
    if assignment.shape != (count,):
        raise InputError(f"an assignment by {by} needs {count} entries here, found shape {tuple(assignment.shape)}.")
    store = graph[inputs.target] if by == "interaction" else graph[source if by == "user" else target]
    store["shard"] = assignment
    return replace(inputs, graph=graph)


def assignment_of(inputs: GraphInputs, by: str) -> Tensor:
    """The assignment that inputs carry; see :func:`with_assignment`."""
    source, _, target = inputs.target
    store = inputs.graph[inputs.target if by == "interaction" else source if by == "user" else target]
    found = store.get("shard")
    if found is None:
        raise InputError(
            f"the inputs carry no assignment of each {by} to a shard; graphrec.models.shard_assignment."
            "with_assignment adds one, and Sharded.inputs(data) makes those of partition=hash and random."
        )
    return found


def edge_shards(inputs: GraphInputs, assignment: Tensor, by: str) -> Tensor:
    """The shard (E,) of each edge of the ranked behaviour, in edge-list order."""
    if by == "interaction":
        return assignment
    return assignment[inputs.graph[inputs.target].edge_index[0 if by == "user" else 1]]


def part_of_inputs(inputs: GraphInputs, kept: Tensor) -> GraphInputs:
    """Inputs with some edges (E,) bool of the ranked behaviour, all else whole, and without an assignment."""
    graph = copy.copy(inputs.graph)
    for node_type in graph.node_types:
        if "shard" in graph[node_type]:
            del graph[node_type]["shard"]
    store = graph[inputs.target]
    count = store.edge_index.shape[1]
    for name, value in list(store.items()):
        if name == "shard":
            del store[name]
        elif name == "edge_index":
            store[name] = value[:, kept]
        elif isinstance(value, Tensor) and value.dim() and len(value) == count:
            store[name] = value[kept]
    return replace(inputs, graph=graph)
