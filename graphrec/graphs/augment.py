"""Random changes of a graph, drawn edge by edge so that one edge's fate does not hang on another's."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.randomness import hash_uniform


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
    rows, cols = adj.rows().long(), adj.col.long()
    if adj.symmetric:
        rows, cols = torch.minimum(rows, cols), torch.maximum(rows, cols)
    stored = hash_uniform(seed, rows, cols) >= p
    if adj.edge is None:
        return stored
    listed = torch.zeros(adj.num_edges, dtype=torch.bool, device=adj.device)
    listed[adj.edge] = stored
    return listed
