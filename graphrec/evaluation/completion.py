"""Completion of a knowledge graph: how high a model ranks the missing end of triples that it was not trained on.

A triple is ranked among all items and entities in the place of its tail, and again in the place of its head. *Raw*
ranks count everything that scores better; *filtered* ones leave out what is known to be true as well (Bordes et al.,
NIPS 2013). Letters: T triples, B of a block, N nodes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.evaluation.held_out import HeldOut, numbered_triples
from graphrec.evaluation.measured import Measured
from graphrec.evaluation.ranks import Ranks, Ties, rank_metrics
from graphrec.evaluation.scoring import CPU_MEMORY, CUDA_MEMORY, evaluating
from graphrec.graphs.relational import RelationalGraph
from graphrec.graphs.triples import TripleIndex
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run, as_model

if TYPE_CHECKING:
    from os import PathLike

    from graphrec.serving import Recommender

Side = Literal["head", "tail"]


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


@dataclass(frozen=True, eq=False)
class Completion(Measured):
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

    def __repr__(self) -> str:
        return self._told(f"{len(self.triples[0]):,} triples among {self.num_candidates:,} nodes")

    def to_dict(self, prefix: str = "kg/") -> dict[str, Any]:
        """Flat JSON values, so that they can stand beside those of a ranking."""
        return super().to_dict(prefix)

    def _facts(self) -> dict[str, Any]:
        return {"triples": len(self.triples[0]), "candidates": self.num_candidates, "seconds": self.seconds}


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
    own = isinstance(model, ScoresTriples) and not isinstance(model, GraphRecommender)
    scorer = model if own else as_model(model, device)[0]
    if not isinstance(scorer, ScoresTriples):
        raise InputError(f"{type(scorer).__name__} does not score triples: it has no method score_triples.")
    if any(k < 1 for k in ks) or not sides or set(sides) - {"head", "tail"}:
        raise InputError(f"ks must be positive and sides among head and tail, found {tuple(ks)} and {tuple(sides)}.")
    if isinstance(scorer, GraphRecommender) and scorer.graph_inputs.fingerprint == held_out.data.fingerprint:
        raise InputError("the model was trained on the triples that are held out: train it on held_out.training.")
    graph, start = scorer.knowledge, time.perf_counter()
    where = graph.relation.device
    heads, relations, tails = (column.to(where) for column in numbered_triples(graph, held_out.data))
    index = TripleIndex.from_triples(heads, relations, tails, graph.num_nodes, graph.num_relations)
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
