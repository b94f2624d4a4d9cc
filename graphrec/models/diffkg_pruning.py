"""A knowledge graph pruned by diffusion: DiffKG's denoiser of its rows, and what the denoiser keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.relational import RelationalGraph
from graphrec.layers.denoiser import Denoiser
from graphrec.layers.diffusion import Guidance, diffusion_loss, variance_schedule
from graphrec.layers.reconstruction import entries_of, strongest
from graphrec.layers.spmm import multiply
from graphrec.models.base import Batch, Derived, EdgeWeight, GraphInputs, Phase
from graphrec.models.knowledge import KnowledgeRecommender
from graphrec.models.phase_parts import adam, once

Rows = Literal["all", "items"]
Pruning = Literal["diffusion", "random"]


@dataclass(frozen=True, kw_only=True)
class RowBatch(Batch):
    """Nodes of the knowledge graph whose rows are denoised.

    Attributes:
        rows: (B,) int64.
        guide: (I, D), what predicted rows over items are multiplied by, YᵀU.
    """

    rows: Tensor
    guide: Tensor

    def shard(self, rank: int, world_size: int) -> Self:
        """One process's share; the guide stays whole even when there are B items."""
        return replace(super().shard(rank, world_size), guide=self.guide)


class PrunedKnowledge(KnowledgeRecommender):
    """A model with a second knowledge graph, a part of the whole one, that two phases of an epoch make.

    ``diffusion`` trains a denoiser on the rows of the graph, ``rebuild`` keeps the pairs that it names and draws how
    they are thinned. What the options mean is said by :class:`~graphrec.models.DiffKG`.

    Args:
        inputs: the dataset or the inputs taken from it, with triples.
        prunes: whether the pruned graph is used at all; without, there are no phases.
        **hparams: those of :class:`KnowledgeRecommender`, of the subclass, and ``pruning``, ``keep_rate``, ``steps``,
            ``noise_scale``, ``noise_min``, ``noise_max``, ``hidden``, ``guidance``, ``rebuild_k``, ``rows``,
            ``candidates``, ``noised_start``, ``precision``, ``row_batch_size``, ``diffusion_lr``.
    """

    def __init__(self, inputs: GraphInputs | RecDataset, *, prunes: bool, **hparams: Any) -> None:
        _check(hparams)
        super().__init__(inputs, **hparams)
        self.prunes = prunes
        self.keep_rate, self.guidance, self.rebuild_k = hparams["keep_rate"], hparams["guidance"], hparams["rebuild_k"]
        self.rows, self.candidates = hparams["rows"], hparams["candidates"]
        self.noised_start, self.row_batch_size = hparams["noised_start"], hparams["row_batch_size"]
        self.diffusion_lr = hparams["diffusion_lr"]
        scale, low, high = (hparams[f"noise_{name}"] for name in ("scale", "min", "max"))
        self.schedule = variance_schedule(hparams["steps"], scale=scale, low=low, high=high)
        self.denoiser: Denoiser | None = None
        if prunes and hparams["pruning"] == "diffusion":
            nodes, hidden, precision = self.knowledge.num_nodes, hparams["hidden"], hparams["precision"]
            self.denoiser = Denoiser(nodes, hidden=hidden, precision=precision, seed=self.seed)
        # What the last rebuilding kept, and the seed that thins it: with them a training goes on where it stopped.
        self.rebuilt: Tensor
        self.register_buffer("rebuilt", torch.ones(len(self.knowledge), dtype=torch.bool))
        self.thinning: Tensor
        self.register_buffer("thinning", torch.tensor(randomness.derive(self.seed, "thinning")))
        self._pruned: tuple[object, RelationalGraph] | None = None

    def pruned(self, thinned: bool) -> RelationalGraph:
        """The pruned graph, of the last rebuilding; with ``thinned`` as the epoch sees it. Kept until it changes."""
        buffers = self.rebuilt, self.thinning
        key = (thinned, id(self.knowledge), *((buffer.data_ptr(), buffer._version) for buffer in buffers))
        if self._pruned is None or self._pruned[0] != key:
            kept = self.rebuilt
            if thinned:
                seed = int(self.thinning)
                kept = kept & (
                    randomness.hash_uniform(seed, self.knowledge.heads(), self.knowledge.tails()) < self.keep_rate
                )
            self._pruned = (key, self.knowledge.subset(kept))
        return self._pruned[1]

    def diffused_rows(self) -> Tensor:
        """Nodes whose rows are diffused, (P,) int64."""
        count = self.knowledge.num_nodes if self.rows == "all" else self.num_items
        return torch.arange(count, device=self.device)

    def row_batches(self, epoch: int, generator: torch.Generator) -> Iterator[RowBatch]:
        """The rows of the graph once, in a drawn order."""
        with torch.no_grad():
            interactions = self.graph_inputs.adjacency().transposed
            guide = multiply(interactions, self.user_embedding.detach())
        order = torch.randperm(len(self.diffused_rows()), generator=generator, device=self.device)
        for rows in order.split(self.row_batch_size):
            yield RowBatch(
                edge_id=torch.full_like(rows, -1),
                weight=torch.ones(len(rows), device=rows.device),
                generator=generator,
                rows=rows,
                guide=guide,
            )

    def diffusion_terms(self, batch: RowBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``elbo`` and ``guide`` of some rows; weights of triples are the entries of their rows."""
        assert self.denoiser is not None
        rows = self.knowledge.adjacency.row_subset(batch.rows)
        weight = self.knowledge_weight(edge_weight)
        if weight is not None:
            rows = rows.with_stored_values(rows.stored(weight.detach()))
        with torch.no_grad():
            targets = self.node_table()[batch.rows]
        terms = diffusion_loss(
            self.denoiser,
            self.schedule,
            rows,
            generator=batch.generator,
            guidance=Guidance(batch.guide, targets) if self.guidance else None,
        )
        found = {"elbo": (1 - self.guidance) * self.batch_weight(batch, terms.elbo)}
        if self.guidance:
            found["guide"] = self.guidance * self.batch_weight(batch, terms.guide)
        return found

    def rebuilt_edges(self, generator: torch.Generator | None = None) -> Tensor:
        """Which edges of the graph the denoiser, as it is, would keep: (E,) bool."""
        if self.denoiser is None:
            return torch.ones_like(self.rebuilt)
        graph = self.knowledge.adjacency
        if generator is None:
            generator = randomness.generator(self.seed, "rebuild", device=self.device)
        rows = self.diffused_rows()
        pairs = strongest(
            self.denoiser,
            self.schedule,
            graph,
            self.rebuild_k,
            rows=rows[graph.degrees()[rows] > 0],  # what others name is not in the graph, either way
            candidates=self.candidates,
            noised=self.noised_start,
            generator=generator,
            block=self.row_batch_size,
        )
        return entries_of(graph, *pairs, both_ways=True)

    @torch.no_grad()
    def rebuild(self, batch: Batch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """Prune the graph with the present denoiser, and draw how it is thinned."""
        assert batch.generator is not None
        device = batch.generator.device
        self.thinning.copy_(torch.randint(2**62, (), generator=batch.generator, device=device))
        self.rebuilt.copy_(self.rebuilt_edges(batch.generator))
        self._encoded = None
        return {}

    def pruning_phases(self) -> Sequence[Phase]:
        """``diffusion`` and ``rebuild``, where the pruned graph needs them."""
        found = []
        if self.denoiser is not None:
            own = tuple(self.denoiser.parameters())
            found.append(Phase("diffusion", self.row_batches, self.diffusion_terms, own, adam(self.diffusion_lr)))
        if self.prunes:
            found.append(Phase("rebuild", once(self.device), self.rebuild))
        return found

    def derived(self) -> Mapping[str, Derived]:
        """The typed edges, and which of them the denoiser keeps."""
        known = tuple(self.knowledge_types())
        return {**super().derived(), "rebuilt": Derived(known, self.rebuilt_edges)}

    def facts(self) -> Mapping[str, float | int]:
        """Edges of the knowledge graph, and how many the last rebuilding kept."""
        if not self.prunes:
            return {}
        return {"kg_edges": len(self.knowledge), "pruned_edges": int(self.rebuilt.sum())}


def _check(given: Mapping[str, Any]) -> None:
    for name, words in (
        ("pruning", ("diffusion", "random")),
        ("rows", ("all", "items")),
        ("candidates", ("all", "stored")),
    ):
        if given[name] not in words:
            raise unknown(name, given[name], words)
    for name in ("rebuild_k", "row_batch_size", "hidden"):
        if given[name] < 1:
            raise InputError(f"{name} must be a positive whole number, found {given[name]}.")
    for name in ("keep_rate", "guidance"):
        if not 0 <= given[name] <= 1:
            raise InputError(f"{name} must lie in [0, 1], found {given[name]}.")
    if not 0 <= given["noised_start"] <= given["steps"]:
        raise InputError(f"noised_start must lie in 0 to steps, {given['steps']}, found {given['noised_start']}.")
