"""Completion of a knowledge graph: how high a model ranks the missing end of triples that it was not trained on.

A triple is ranked among all items and entities in the place of its tail, and again in the place of its head. *Raw*
ranks count everything that scores better; *filtered* ones leave out what is known to be true as well (Bordes et al.,
NIPS 2013). Of equal scores, ``realistic`` counts half (the mean over their orders; what PyKEEN and ogb report),
``optimistic`` none, ``pessimistic`` all. Letters: T triples, B of a block, N nodes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.datasets.cuts import hashes
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import EdgeTable, EdgeType
from graphrec.errors import InputError, unknown
from graphrec.evaluation.ranking import CPU_MEMORY, CUDA_MEMORY, evaluating
from graphrec.graphs.relational import RelationalGraph, knowledge_edge_types
from graphrec.graphs.triples import TripleIndex
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run, as_model

if TYPE_CHECKING:
    from os import PathLike

    from graphrec.serving import Recommender

Ties = Literal["realistic", "optimistic", "pessimistic"]
Side = Literal["head", "tail"]
_TIES = ("realistic", "optimistic", "pessimistic")


@runtime_checkable
class ScoresTriples(Protocol):
    """What a model needs so that its triples can be ranked.

    Attributes:
        knowledge: the typed edges it was trained on, whose numbers of nodes and relations it scores by.
    """

    knowledge: RelationalGraph

    def score_triples(self, heads: Tensor | None, relations: Tensor, tails: Tensor | None) -> Tensor:
        """Scores of triples, larger is more plausible: (B,), or (B, N) for every node in the place of a None."""
        ...


class Ranks(NamedTuple):
    """Ranks from 1.

    Attributes:
        optimistic: (T,) int64, before all that score the same.
        pessimistic: (T,) int64, behind them.
    """

    optimistic: Tensor
    pessimistic: Tensor

    def of(self, ties: Ties) -> Tensor:
        """(T,) float64 under one policy for equal scores."""
        if ties not in _TIES:
            raise unknown("policy for equal scores", ties, _TIES)
        low, high = self.optimistic.double(), self.pessimistic.double()
        return low if ties == "optimistic" else high if ties == "pessimistic" else (low + high) / 2


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


@dataclass(frozen=True, eq=False)
class Completion(Mapping[str, float]):
    """What an evaluation of completion found.

    Attributes:
        metrics: ``mrr``, ``mean_rank`` (arithmetic) and ``hits@k`` of filtered ranks, over both sides; of one side
            after ``head/`` and ``tail/``; of raw ranks after ``raw/``.
        ranks: by (``filtered`` or ``raw``, side), in the order of ``triples``.
        triples: heads, relations and tails (T,) in the numbers of the model's graph.
        num_candidates: nodes that a triple was ranked among.
        ties: the policy behind ``metrics``.
        seconds: how long it took.
    """

    metrics: dict[str, float]
    ranks: Mapping[tuple[str, Side], Ranks]
    triples: tuple[Tensor, Tensor, Tensor]
    num_candidates: int
    ties: Ties
    seconds: float

    def __getitem__(self, key: str) -> float:
        try:
            return self.metrics[key]
        except KeyError:
            raise KeyError(str(unknown("metric", key, self.metrics))) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __repr__(self) -> str:
        shown = ", ".join(f"{key} {value:.4f}" for key, value in self.metrics.items() if "/" not in key)
        return f"Completion({len(self.triples[0]):,} triples among {self.num_candidates:,} nodes: {shown})"

    def to_dict(self, prefix: str = "kg/") -> dict[str, Any]:
        """Flat JSON values after ``prefix``."""
        extra = {"triples": len(self.triples[0]), "candidates": self.num_candidates, "seconds": self.seconds}
        return {f"{prefix}{key}": value for key, value in {**self.metrics, **extra}.items()}


def evaluate_completion(
    model: GraphRecommender | ScoresTriples | Run | Recommender | str | PathLike[str],
    held_out: HeldOut,
    *,
    ks: Sequence[int] = (1, 3, 10),
    sides: Sequence[Side] = ("head", "tail"),
    ties: Ties = "realistic",
    block: int | None = None,
    memory: int | None = None,
    device: str | torch.device | None = None,
) -> Completion:
    """Rank the ends of held-out triples among all items and entities.

    Args:
        model: trained on ``held_out.training``, with :meth:`ScoresTriples.score_triples`; or a run of one.
        held_out: what :func:`hold_out_triples` gave.
        ks: cut-offs of ``hits@k``.
        sides: the ends that are asked for.
        ties: ``realistic``, ``optimistic`` or ``pessimistic``.
        block: triples in a block.
        memory: bytes for a block of scores, used where ``block`` is None.
        device: where to compute; None: where the model is.

    Raises:
        InputError: the model scores no triples, was trained on those held out or on another dataset, or a score is NaN.
    """
    scorer = model if isinstance(model, ScoresTriples) else as_model(model, device)[0]
    if not isinstance(scorer, ScoresTriples):
        raise InputError(f"{type(scorer).__name__} does not score triples: it has no method score_triples.")
    if any(k < 1 for k in ks) or not sides or set(sides) - {"head", "tail"}:
        raise InputError(f"ks must be positive and sides among head and tail, found {tuple(ks)} and {tuple(sides)}.")
    if isinstance(scorer, GraphRecommender) and scorer.graph_inputs.fingerprint == held_out.data.fingerprint:
        raise InputError("the model was trained on the triples that are held out: train it on held_out.training.")
    graph, start = scorer.knowledge, time.perf_counter()
    where = graph.relation.device
    known = [column.to(where) for column in numbered_triples(graph, held_out.data)]
    index = TripleIndex.from_triples(*known, graph.num_nodes, graph.num_relations)
    heads, relations, tails = (column.to(where) for column in numbered_triples(graph, held_out.data, held_out.edges))
    order = torch.argsort(relations, stable=True)  # a scorer projects all nodes once for each relation of a block
    triples = heads[order], relations[order], tails[order]
    nodes = [graph.nodes(name) for name in graph.order if name in ("item", "entity")]
    span = slice(min(part.start for part in nodes), max(part.stop for part in nodes))
    if block is None:
        budget = memory or (CUDA_MEMORY if where.type == "cuda" else CPU_MEMORY)
        block = max(1, budget // (4 * max(graph.num_nodes, 1)))
    ranks: dict[tuple[str, Side], Ranks] = {}
    with evaluating(scorer):
        for side in sides:
            ranks["filtered", side], ranks["raw", side] = _ranks(scorer, index, triples, side, span, block)
    found: dict[str, float] = {}
    for kind, name in (("filtered", ""), ("raw", "raw/")):
        parts = {side: ranks[kind, side].of(ties) for side in sides}
        for prefix, rank in (("", torch.cat(list(parts.values()))), *((f"{side}/", x) for side, x in parts.items())):
            found |= {f"{name}{prefix}{key}": value for key, value in rank_metrics(rank, ks).items()}
    seconds = time.perf_counter() - start
    return Completion(found, ranks, triples, span.stop - span.start, ties, seconds)


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


def _ranks(
    scorer: ScoresTriples,
    index: TripleIndex,
    triples: tuple[Tensor, Tensor, Tensor],
    side: Side,
    span: slice,
    block: int,
) -> tuple[Ranks, Ranks]:
    """Filtered and raw ranks of one side, in blocks."""
    given, asked = (triples[0], triples[2]) if side == "tail" else (triples[2], triples[0])
    facts = index if side == "tail" else index.reversed
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(asked), block):
        ends, relations, truth = (x[start : start + block] for x in (given, triples[1], asked))
        if side == "tail":
            scores = scorer.score_triples(ends, relations, None)
        else:
            scores = scorer.score_triples(None, relations, ends)
        if bool(scores.isnan().any()):
            raise InputError(f"{type(scorer).__name__} gives scores of triples that are NaN.")
        own = scores.gather(1, truth[:, None])
        every = scores[:, span]
        better, equal = (every > own).sum(1), (every == own).sum(1)
        # Facts are counted apart and taken off, so that one pass gives both ranks.
        low, high = facts.span(ends, relations, span.start, span.stop)
        row = torch.repeat_interleave(torch.arange(len(ends), device=low.device), high - low)
        entry = torch.arange(len(row), device=low.device) - ((high - low).cumsum(0) - (high - low) - low)[row]
        of_facts = scores[row, facts.tails()[entry]]
        true_better = torch.zeros_like(better).index_add_(0, row, (of_facts > own[row, 0]).long())
        true_equal = torch.zeros_like(equal).index_add_(0, row, (of_facts == own[row, 0]).long())
        parts.append((better - true_better, equal - true_equal + 1, better, equal))
    if not parts:
        raise InputError("there are no triples to rank.")
    better, equal, raw_better, raw_equal = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return Ranks(better + 1, better + equal), Ranks(raw_better + 1, raw_better + raw_equal)


def rank_metrics(ranks: Tensor, ks: Sequence[int] = (1, 3, 10)) -> dict[str, float]:
    """``mrr``, ``mean_rank`` and ``hits@k`` of ranks (T,) from 1."""
    ranks = ranks.double()
    hits = {f"hits@{k}": float((ranks <= k).double().mean()) for k in ks}
    return {"mrr": float(ranks.reciprocal().mean()), "mean_rank": float(ranks.mean()), **hits}


def ranks_among(positive: Tensor, negative: Tensor) -> Ranks:
    """Ranks of positives, each among negatives of its own: the protocol of ogbl-wikikg2, ogbl-biokg and ogbl-citation2.

    Args:
        positive: (T,) scores.
        negative: (T, n) scores.
    """
    if positive.dim() != 1 or negative.dim() != 2 or len(positive) != len(negative):
        raise InputError(
            f"positive must be (T,) and negative (T, n), found {tuple(positive.shape)} and {tuple(negative.shape)}."
        )
    own = positive[:, None]
    return Ranks((negative > own).sum(1) + 1, (negative >= own).sum(1) + 1)


def hits_above(positive: Tensor, negative: Tensor, k: int) -> float:
    """Share of the positives that score above the k-th best of negatives that all share; 1 where there are fewer.

    The protocol of ogbl-collab, ogbl-ddi and ogbl-ppa.

    Args:
        positive: (T,) scores.
        negative: (n,) scores.
        k: from 1.
    """
    if positive.dim() != 1 or negative.dim() != 1 or len(positive) == 0:
        raise InputError(
            f"positive (T,) and negative (n,) must be vectors, found {tuple(positive.shape)}, {tuple(negative.shape)}."
        )
    if len(negative) < k:
        return 1.0
    return float((positive > torch.topk(negative, k).values[-1]).double().mean())
