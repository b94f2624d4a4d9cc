"""What KGAT is put together from beside its layers: options, tables of relations, rows for a step on triples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from graphrec.errors import InputError, unknown
from graphrec.graphs.relational import RelationalGraph
from graphrec.layers.kge import SCORERS, TransE, TransH, TripleScorer
from graphrec.layers.knowledge_attention import relation_shares, symmetric_shares, uniform_shares
from graphrec.layers.repeated_rows import repeated_rows
from graphrec.layers.row_adam import RowAdam

Attention = Literal["static_si", "static_bi", "uniform", "epoch", "layer"]
Translation = Literal["transr", "transe", "transh", "distmult"]
SparseUpdates = Literal["deferred", "touched", "off"]

SHARES: Mapping[str, Callable[[RelationalGraph, Tensor], Tensor]] = {
    "static_si": relation_shares,
    "static_bi": symmetric_shares,
    "uniform": uniform_shares,
    "epoch": relation_shares,  # until the first refresh, as in the published code and the ports
}
"""Attention that rests on degrees, by name."""


def check_options(
    attention: str,
    kge: str | None,
    sparse_updates: str,
    message_dropout: float,
    batches: Mapping[str, int | None],
    shared_negatives: bool,
    distinct_users: bool,
) -> None:
    """Refuse options that mean nothing; ``batches`` are sizes and numbers of batches by name.

    Raises:
        InputError: one of them does not.
    """
    if attention not in (*SHARES, "layer"):
        raise unknown("attention", attention, (*SHARES, "layer"))
    if kge not in (None, "transr", "transe", "transh", "distmult"):
        raise unknown("kge", str(kge), ("transr", "transe", "transh", "distmult"))
    if sparse_updates not in ("deferred", "touched", "off"):
        raise unknown("sparse_updates", sparse_updates, ("deferred", "touched", "off"))
    if not 0 <= message_dropout < 1:
        raise InputError(f"message_dropout must lie in [0, 1), found {message_dropout}.")
    for name, size in batches.items():
        if size is not None and size < 1:
            raise InputError(f"{name} must be a positive whole number or None, found {size}.")
    if shared_negatives and distinct_users:
        raise InputError("shared_negatives needs distinct_users=False: the published batches have their own.")


def scorer(name: Translation) -> TripleScorer:
    """The scorer of triples; TransE's and TransH's distance is squared, as TransR's."""
    if name == "transe":
        return TransE(distance="squared")
    if name == "transh":
        return TransH(distance="squared")
    return SCORERS[name]()


def xavier(shape: Sequence[int], generator: torch.Generator) -> nn.Parameter:
    """Xavier-uniform, matrices of all relations as one tensor: bound √(6 / (R' (D + K))), as in the published code."""
    table = torch.empty(*shape)
    fan = (shape[0] if len(shape) == 3 else 1) * (shape[-2] + shape[-1])
    return nn.Parameter(table.uniform_(-((6 / fan) ** 0.5), (6 / fan) ** 0.5, generator=generator))


def rows_of_nodes(graph: RelationalGraph, tables: Mapping[str, Tensor], nodes: Tensor, optimiser: RowAdam) -> Tensor:
    """Rows of E⁰ by nodes, (…, D), at the optimiser's present step; each is looked up once, with sparse gradients.

    Args:
        graph: whose nodes they are.
        tables: the rows of each type of nodes.
        nodes: (…) int64.
        optimiser: of the tables that are parameters.
    """
    numbers = repeated_rows(nodes)
    present = numbers.distinct
    ends = torch.tensor([graph.nodes(name).stop for name in graph.order], device=nodes.device)
    stops = torch.searchsorted(present, ends).tolist()
    parts = []
    for name, start, stop in zip(graph.order, [0, *stops[:-1]], stops, strict=True):
        table = tables[name]
        own = present[start:stop] - graph.nodes(name).start
        taken = optimiser.rows(table, own) if isinstance(table, nn.Parameter) else table.index_select(0, own)
        parts.append(taken)
    return numbers.spread(torch.cat(parts))
