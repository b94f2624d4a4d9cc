"""Neighbourhoods of seed nodes, sampled on the device behind torch_geometric's sampler interface."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.sampler import (
    BaseSampler,
    EdgeSamplerInput,
    HeteroSamplerOutput,
    NegativeSampling,
    NodeSamplerInput,
)

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import EdgeType, adjacency
from graphrec.graphs.sampling import sample_negatives
from graphrec.randomness import derive, hash_bits, hash_integers


class NeighborSampler(BaseSampler):
    """Samples, hop by hop, up to so many of each node's incoming neighbours, uniformly and without repetition.

    Of a node's incoming edges of a type those with the smallest hash of (seed, hop, target, source) are taken. The draw
    is thus the same for the same seed; it depends neither on edge ids nor on the order of edges, and taking an edge
    away changes nothing but that one place in its target's draw. Edges are followed from target to source as in
    torch_geometric: give it :func:`graphrec.graphs.hetero.with_reverse` of a graph to walk in both directions.

    Works with ``torch_geometric.loader.NodeLoader`` and ``LinkLoader``, and by itself through :meth:`sample`.

    Args:
        graph: every edge type with ``edge_index``, every node type with ``num_nodes``.
        num_neighbors: neighbours for each hop, for all edge types or by edge type; -1 takes all.
        seed: of the draws; :meth:`reseeded` gives the sampler of another epoch or batch.

    Raises:
        InputError: an edge type that the graph lacks, numbers of hops that differ, or a number below -1.
    """

    def __init__(
        self, graph: HeteroData, num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]], seed: int = 0
    ) -> None:
        self.graph, self.seed = graph, seed
        if not isinstance(num_neighbors, Mapping):
            num_neighbors = dict.fromkeys(graph.edge_types, num_neighbors)
        for edge_type, counts in num_neighbors.items():
            if edge_type not in graph.edge_types:
                raise unknown("edge type", "__".join(edge_type), ["__".join(known) for known in graph.edge_types])
            if any(count < -1 for count in counts):
                raise InputError(f"numbers of neighbours must be -1 (all) or more, found {list(counts)}.")
        lengths = {len(counts) for counts in num_neighbors.values()}
        if len(lengths) > 1:
            raise InputError(f"every edge type needs the same number of hops, found {sorted(lengths)}.")
        self.num_neighbors = {edge_type: tuple(counts) for edge_type, counts in num_neighbors.items()}
        self.num_hops = lengths.pop() if lengths else 0

    def reseeded(self, seed: int) -> Self:
        """The same sampler with other draws."""
        made = copy.copy(self)
        made.seed = seed
        return made

    @property
    def edge_permutation(self) -> None:
        """None: ``edge`` of the output holds positions in the graph's own ``edge_index``."""
        return None

    def sample(self, seeds: Mapping[str, Tensor]) -> HeteroSamplerOutput:
        """The neighbourhood of some nodes.

        Args:
            seeds: node ids (int64, each once) by node type.

        Returns:
            ``node`` by node type: global ids, the seeds first and then each hop's new nodes; ``row`` and ``col`` by
            edge
            type: ends of the sampled edges as positions in ``node``; ``edge``: their positions in ``edge_index``;
            ``num_sampled_nodes`` and ``num_sampled_edges`` by hop.
        """
        sizes = {kind: int(self.graph[kind].num_nodes) for kind in self.graph.node_types}
        device = next(iter(seeds.values())).device if seeds else torch.device("cpu")
        empty = torch.empty(0, dtype=torch.int64, device=device)
        place = {kind: torch.full((size,), -1, dtype=torch.int64, device=device) for kind, size in sizes.items()}
        nodes: dict[str, list[Tensor]] = {kind: [seeds.get(kind, empty)] for kind in sizes}
        counts = {kind: len(found[0]) for kind, found in nodes.items()}
        for kind, (found,) in nodes.items():
            place[kind][found] = torch.arange(len(found), device=device)
            if len(found) and not torch.equal(place[kind][found], torch.arange(len(found), device=device)):
                raise InputError(f"seeds of type {kind!r} must differ from each other.")
        edges: dict[EdgeType, list[tuple[Tensor, Tensor, Tensor]]] = {kind: [] for kind in self.num_neighbors}
        for hop in range(self.num_hops):
            drawn = {kind: self._hop(kind, nodes[kind[2]][hop], hop) for kind in self.num_neighbors}
            for kind in sizes:
                reached = [sources for edge_type, (sources, _, _) in drawn.items() if edge_type[0] == kind]
                fresh = torch.unique(torch.cat([empty, *reached]))
                fresh = fresh[place[kind][fresh] < 0]
                place[kind][fresh] = torch.arange(counts[kind], counts[kind] + len(fresh), device=device)
                counts[kind] += len(fresh)
                nodes[kind].append(fresh)
            for edge_type, (sources, targets, position) in drawn.items():
                ends = place[edge_type[0]][sources], place[edge_type[2]][targets]
                edges[edge_type].append((*ends, position))
        joined = {
            kind: [torch.cat([empty, *part]) for part in zip(*hops, strict=True)] if hops else [empty] * 3
            for kind, hops in edges.items()
        }
        return HeteroSamplerOutput(
            node={kind: torch.cat(parts) for kind, parts in nodes.items()},
            row={kind: parts[0] for kind, parts in joined.items()},
            col={kind: parts[1] for kind, parts in joined.items()},
            edge={kind: parts[2] for kind, parts in joined.items()},
            num_sampled_nodes={kind: [len(part) for part in parts] for kind, parts in nodes.items()},
            num_sampled_edges={kind: [len(hop[2]) for hop in hops] for kind, hops in edges.items()},
        )

    def _hop(self, edge_type: EdgeType, targets: Tensor, hop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Sources, targets and positions of the edges taken for some targets."""
        count = self.num_neighbors[edge_type][hop]
        picked = adjacency(self.graph, edge_type).transposed.row_subset(targets)
        rows, sources, position = picked.rows().long(), picked.col.long(), picked.edge_positions()
        if count >= 0:
            seed = derive(self.seed, "neighbours/" + "__".join(edge_type), hop)
            order = torch.argsort(hash_bits(seed, targets[rows], sources), stable=True)
            order = order[torch.argsort(rows[order], stable=True)]
            rank = torch.arange(len(order), device=order.device) - picked.rowptr[rows[order]]
            order = order[rank < count]
            rows, sources, position = rows[order], sources[order], position[order]
        return sources, targets[rows], position

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: Any) -> HeteroSamplerOutput:
        """The neighbourhood of ``index.node`` of type ``index.input_type``.

        Raises:
            InputError: no ``input_type`` is given, or times are.
        """
        if index.input_type is None or index.time is not None:
            raise InputError("the sampler needs a node type (input_type) and follows no times.")
        output = self.sample({index.input_type: index.node})
        output.metadata = (index.input_id, index.time)
        return output

    def sample_from_edges(
        self, index: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None
    ) -> HeteroSamplerOutput:
        """The neighbourhood of the ends of seed edges, and of negatives drawn for them.

        Negative targets are never targets of their source in the graph (but for sources that have all). ``binary``
        appends pairs with label 0 to the seeds, whose labels then count from 1 as in torch_geometric; ``triplet``
        gives each seed its own negative targets.

        Raises:
            InputError: no ``input_type`` is given, times are, or negatives are to be weighted.
        """
        if index.input_type is None or index.time is not None:
            raise InputError("the sampler needs an edge type (input_type) and follows no times.")
        edge_type = index.input_type
        sources, targets, label = index.row, index.col, index.label
        count = len(sources)
        drawn = None
        if neg_sampling is not None:
            if neg_sampling.src_weight is not None or neg_sampling.dst_weight is not None:
                raise InputError("negatives are drawn uniformly; weights are not supported.")
            matrix = adjacency(self.graph, edge_type)
            if neg_sampling.is_triplet():
                amount = math.ceil(neg_sampling.amount)
                drawn = sample_negatives(matrix, sources, amount, seed=self.seed, keys=targets).T.reshape(-1)
                targets = torch.cat([targets, drawn])
            else:
                number = torch.arange(math.ceil(count * neg_sampling.amount), device=sources.device)
                heads = hash_integers(derive(self.seed, "negative sources"), matrix.shape[0], number)
                tails = sample_negatives(matrix, heads, 1, seed=self.seed)[:, 0]
                ones = torch.ones(count, device=sources.device) if label is None else label + 1
                label = torch.cat([ones, ones.new_zeros(len(number))])
                sources, targets = torch.cat([sources, heads]), torch.cat([targets, tails])
        source_type, _, target_type = edge_type
        if source_type == target_type:
            nodes, inverse = torch.unique(torch.cat([sources, targets]), return_inverse=True)
            seeds, places = {source_type: nodes}, inverse.split([len(sources), len(targets)])
        else:
            first, second = (torch.unique(ends, return_inverse=True) for ends in (sources, targets))
            seeds, places = {source_type: first[0], target_type: second[0]}, (first[1], second[1])
        output = self.sample(seeds)
        if drawn is None:
            output.metadata = (index.input_id, torch.stack(places), label, None)
        else:
            negatives = places[1][count:].view(-1, count).T.squeeze(-1)
            output.metadata = (index.input_id, places[0], places[1][:count], negatives, None)
        return output


def subgraph(graph: HeteroData, output: HeteroSamplerOutput) -> HeteroData:
    """The sampled part of a graph: ``n_id`` (global ids) of nodes, ``e_id`` (positions) of edges, and all attributes.

    ``edge_id`` and every other tensor with a row for each node or edge come along for those that were sampled.
    """
    result = HeteroData()
    for kind, picked in [*output.node.items(), *output.edge.items()]:
        if picked is None:
            continue
        is_node = isinstance(kind, str)
        size = graph[kind].num_nodes if is_node else graph[kind].edge_index.shape[1]
        store = result[kind]
        if is_node:
            store.num_nodes, store.n_id = len(picked), picked
        else:
            store.edge_index, store.e_id = torch.stack([output.row[kind], output.col[kind]]), picked
        for name, value in graph[kind].items():
            if name not in ("edge_index", "num_nodes"):
                rows = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == size
                store[name] = value[picked] if rows else value
    return result
