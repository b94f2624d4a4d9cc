"""Random changes of a graph, drawn edge by edge so that one edge's fate does not hang on another's."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.randomness import hash_bits, hash_pairs


def keep_edges(
    adj: Adjacency, p: float, *, seed: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Which edges stay when each is dropped with probability ``p``, boolean (L,) in edge-list order.

    The draw is a hash of (seed, row, column): taking an edge away leaves the draws of all others. Parallel
    edges share a draw, and in a symmetric matrix so do the two directions.

    Args:
        adj: the matrix.
        p: share dropped, in [0, 1).
        seed: of the draw; or
        generator: a stream that one seed is taken from.

    Raises:
        InputError: ``p`` lies outside [0, 1), or neither a seed nor a generator is given.
    """
    if not 0 <= p < 1:
        raise InputError(f"the share of dropped edges must lie in [0, 1), found {p}.")
    if generator is not None:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    elif seed is None:
        raise InputError("keep_edges needs seed= or generator=.")
    rows, cols = adj.rows(), adj.col
    if adj.symmetric:
        rows, cols = torch.minimum(rows, cols), torch.maximum(rows, cols)
    # u >= p for the uniform number u of hash_uniform, which has 53 bits.
    bits = hash_pairs(seed, rows, cols, adj.shape)
    return _listed(adj, ((bits >> 11) & (2**53 - 1)) >= math.ceil(p * 2**53))


def keep_exactly(adj: Adjacency, p: float, *, seed: int) -> Tensor:
    """Which edges stay when ⌊(1 - p) E⌋ of them are kept, drawn without replacement, boolean (L,) in edge-list order.

    Those with the smallest hashes of (seed, row, column) stay: taking an edge away leaves the order of all others.

    Raises:
        InputError: ``p`` lies outside [0, 1).
    """
    if not 0 <= p < 1:
        raise InputError(f"the share of dropped edges must lie in [0, 1), found {p}.")
    bits = hash_pairs(seed, adj.rows(), adj.col, adj.shape)
    stored = torch.zeros(len(adj), dtype=torch.bool, device=adj.device)
    stored[torch.argsort(bits, stable=True)[: _floor(len(adj) * (1 - p))]] = True
    return _listed(adj, stored)


def keep_nodes(size: int, p: float, *, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Which of ``size`` nodes stay when ⌊p size⌋ are dropped, drawn without replacement, boolean (size,).

    Raises:
        InputError: ``p`` lies outside [0, 1).
    """
    if not 0 <= p < 1:
        raise InputError(f"the share of dropped nodes must lie in [0, 1), found {p}.")
    bits = hash_bits(seed, torch.arange(size, device=device))
    kept = torch.ones(size, dtype=torch.bool, device=device)
    kept[torch.argsort(bits, stable=True)[: _floor(size * p)]] = False
    return kept


def subgraph(adj: Adjacency, kept: Tensor) -> Adjacency:
    """The matrix of some of the edges, with their values, ids and positions in the whole edge list.

    Args:
        adj: the matrix.
        kept: (L,) boolean, in edge-list order.

    Raises:
        InputError: ``kept`` has another shape.
    """
    if kept.shape != (adj.num_edges,):
        raise InputError(f"kept must have shape ({adj.num_edges},), one for each edge, found {tuple(kept.shape)}.")
    entry = torch.nonzero(adj.stored(kept))[:, 0]
    rows = adj.rows().long()[entry]
    rowptr = torch.zeros_like(adj.rowptr)
    rowptr[1:] = torch.bincount(rows, minlength=adj.shape[0]).cumsum(0)
    return replace(
        adj,
        rowptr=rowptr,
        col=adj.col[entry],
        values=None if adj.values is None else adj.values[entry],
        edge=adj.edge_positions()[entry],
        edge_id=None if adj.edge_id is None else adj.edge_id[entry],
        symmetric=False,
        pattern_cache={},
        cache={},
    )


def _listed(adj: Adjacency, stored: Tensor) -> Tensor:
    """Flags (E,) in stored order put into edge-list order, (L,)."""
    if adj.edge is None:
        return stored
    listed = torch.zeros(adj.num_edges, dtype=torch.bool, device=adj.device)
    listed[adj.edge] = stored
    return listed


def _floor(number: float) -> int:
    """The whole part, where rounding has not taken 10 * (1 - 0.9) below 1."""
    return int(number + 1e-9)
