"""Triples held out of a knowledge graph, and triples in the numbers of a model's graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.datasets.cuts import hashes
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import EdgeTable, EdgeType
from graphrec.errors import InputError
from graphrec.graphs.relational import RelationalGraph, knowledge_edge_types


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A dataset whose triples are in two parts.

    Attributes:
        data: the dataset with all triples.
        training: without those held out: what a model is trained on.
        edges: edge ids of those held out, by edge type.
    """

    data: RecDataset
    training: RecDataset
    edges: Mapping[EdgeType, NDArray[np.int64]]

    def __len__(self) -> int:
        return sum(len(ids) for ids in self.edges.values())


def hold_out_triples(data: RecDataset, share: float = 0.1, *, seed: int = 0) -> HeldOut:
    """Hold out a share of the triples for :func:`evaluate_completion`.

    A triple's draw is a hash of its ends and its relation. One whose head, tail or relation would be left without any
    triple stays in training, since nothing could be learned about it.

    Args:
        data: a dataset with triples.
        share: of the triples, in (0, 1).
        seed: of the draws.

    Raises:
        InputError: a share outside (0, 1), no triples, or none that can be held out.
    """
    if not 0 < share < 1:
        raise InputError(f"share must lie in (0, 1), found {share}.")
    kinds = knowledge_edge_types(data.tables)
    tables = [data.tables[kind] for kind in kinds]
    if not sum(len(table) for table in tables):
        raise InputError(f"dataset {data.name!r} has no triples to hold out.")
    drawn = [_draws(table, seed) < share * 2**40 for table in tables]
    relations = [_relations(table, len(data.relations) + number) for number, table in enumerate(tables)]
    # What has no triple left in training gets all of its own back.
    left = {name: np.zeros(size, np.int64) for name, size in data.num_nodes.items()}
    related = np.zeros(len(data.relations) + len(tables), np.int64)
    for (source, _, target), table, out, relation in zip(kinds, tables, drawn, relations, strict=True):
        left[source] += np.bincount(table.source[~out], minlength=len(left[source]))
        left[target] += np.bincount(table.target[~out], minlength=len(left[target]))
        related += np.bincount(relation[~out], minlength=len(related))
    edges = {}
    for (source, name, target), table, out, relation in zip(kinds, tables, drawn, relations, strict=True):
        there = (left[source][table.source] > 0) & (left[target][table.target] > 0) & (related[relation] > 0)
        edges[source, name, target] = table.edge_id[out & there].copy()
    if not any(len(ids) for ids in edges.values()):
        raise InputError(f"no triple of dataset {data.name!r} can be held out at share {share}; choose a larger one.")
    return HeldOut(data, data.without(edges), edges)


def _draws(table: EdgeTable, seed: int) -> NDArray[np.int64]:
    return hashes(seed, "triples", table.source, _relations(table, -1), table.target)


def _relations(table: EdgeTable, own: int) -> NDArray[np.int64]:
    """(E,) relation codes; ``own`` where the edge type is the relation."""
    return np.full(len(table), own) if table.relation is None else table.relation.astype(np.int64)


def numbered_triples(
    graph: RelationalGraph, data: RecDataset, edges: Mapping[EdgeType, NDArray[np.int64]] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Triples of a dataset, as stated, in the numbers of a graph made from it or from a part of it.

    Args:
        graph: the numbering.
        data: the dataset.
        edges: edge ids by edge type; None: all triples.

    Returns:
        heads, relations and tails, (T,) int64.

    Raises:
        InputError: the graph has other nodes or lacks a relation.
    """
    sizes = dict(zip(graph.order, graph.sizes, strict=True))
    place = {(made.code, made.edge_type): number for number, made in enumerate(graph.relations) if not made.inverse}
    columns: list[tuple[Tensor, ...]] = []
    for kind in knowledge_edge_types(data.tables):
        table = data.tables[kind]
        if edges is not None:
            table = table.select(table.positions(edges.get(kind, np.empty(0, np.int64))))
        if len(table) == 0:
            continue
        for name in (kind[0], kind[2]):
            if sizes.get(name) != data.num_nodes[name]:
                raise InputError(f"the graph has {sizes.get(name, 0)} {name} nodes, the data {data.num_nodes[name]}.")
        codes, inverse = np.unique(_relations(table, -1), return_inverse=True)
        wanted = [(int(code), None if table.relation is not None else kind) for code in codes]
        lacking = [key for key in wanted if key not in place]
        if lacking:
            raise InputError(f"the graph has no relation {lacking[0][0]}, which triples of {'__'.join(kind)} have.")
        numbers = np.array([place[key] for key in wanted])[inverse]
        head = torch.from_numpy(table.source.astype(np.int64)) + graph.nodes(kind[0]).start
        tail = torch.from_numpy(table.target.astype(np.int64)) + graph.nodes(kind[2]).start
        columns.append((head, torch.from_numpy(numbers.astype(np.int64)), tail))
    if not columns:
        empty = torch.empty(0, dtype=torch.int64)
        return empty, empty, empty
    heads, relations, tails = (torch.cat(parts) for parts in zip(*columns, strict=True))
    return heads, relations, tails
