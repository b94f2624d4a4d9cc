"""Sharded: one model for each part of the interactions, put together to one that recommends, and that can forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.models.base import (
    Batch,
    Derived,
    EdgeWeight,
    GraphInputs,
    GraphRecommender,
    Phase,
)
from graphrec.models.pairwise import PairwiseRecommender
from graphrec.models.shard_aggregators import Attention, MeanOfScores, WeightedScores
from graphrec.models.shard_assignment import (
    By,
    Partition,
    assignment_of,
    check_cut,
    cut_keys,
    edge_shards,
    keyed_assignment,
    part_of_inputs,
    with_assignment,
)
from graphrec.models.shard_bases import base_class, base_inputs
from graphrec.models.shard_ensemble import Absent, ShardEnsemble

Aggregator = Literal["mean", "normalised", "weights", "attention"]
AGGREGATORS: tuple[str, ...] = ("mean", "normalised", "weights", "attention")


class Sharded(ShardEnsemble):
    r"""S models of one kind, each trained on the interactions of its shard alone, and an aggregator.

    SISA's recommender (Bourtoule et al., S&P 2021), and with other partitions and aggregators RecEraser's,
    GraphEraser's and UltraRE's: to forget an interaction only the model of its shard, and the aggregator, have to be
    trained again. Every shard has tables of all users and items; the rows of those it never saw keep their initial
    values. A shard's seed is a hash of ``seed`` and its number, that of the first is ``seed`` itself, so that one shard
    is the plain model.

    The assignment is part of the inputs (``shard`` of the users, items or edges), so that a saved model has it.
    ``hash`` and ``random`` are made from raw ids by :meth:`inputs`; the others look at the data, and
    :mod:`graphrec.unlearning` makes them.

    Args:
        inputs: the dataset, or inputs that carry an assignment.
        base: the model of each shard, a pairwise one.
        base_hparams: its hyper-parameters but for the seed; None: its defaults.
        num_shards: S.
        partition: how the assignment was made: ``hash`` of the raw id, ``random`` in even parts, or one made from the
            data (``blpa``, ``bekm``, ``ubp``, ``ibp``, ``inbp``, ``transport``).
        by: what is assigned to shards: each ``user`` with all interactions, each ``item``, or each ``interaction``.
        aggregator: ``mean`` of scores; ``normalised``, the mean of scores that are standardised over the items, so that
            no shard counts more because its scores are larger (what stands for UltraRE's combiner, whose exact form was
            not to be had); ``weights``, one learned for each shard, of standardised scores; ``attention`` over the
            shards' vectors.
        absent: what a shard says about a user it never saw: ``leave_out`` nothing; ``history`` scores by the mean
            of the shard's vectors of the user's items, as long on average as the vectors of its own users.
        dropout: share of the entries of users' vectors left out while the attention is trained.
        lr: learning rate of the aggregator.
        seed: see above.
    """

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        base: str = "LightGCN",
        base_hparams: Mapping[str, Any] | None = None,
        num_shards: int = 10,
        partition: Partition = "hash",
        by: By = "user",
        aggregator: Aggregator = "mean",
        absent: Absent = "leave_out",
        dropout: float = 0.3,
        lr: float = 1e-3,
        seed: int = 0,
    ) -> None:
        if num_shards < 1:
            raise InputError(f"num_shards must be 1 or more, found {num_shards}.")
        check_cut(partition, by)
        if aggregator not in AGGREGATORS:
            raise unknown("aggregator", aggregator, AGGREGATORS)
        if absent not in ("leave_out", "history"):
            raise unknown("absent", absent, ("leave_out", "history"))
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must lie in [0, 1), found {dropout}.")
        super().__init__(
            inputs,
            base=base,
            base_hparams=None if base_hparams is None else dict(base_hparams),
            num_shards=num_shards,
            partition=partition,
            by=by,
            aggregator=aggregator,
            absent=absent,
            dropout=dropout,
            lr=lr,
            seed=seed,
        )
        self.num_shards, self.by, self.absent = num_shards, by, absent
        self.dropout, self.lr, self.seed = dropout, lr, seed
        assignment = assignment_of(self.graph_inputs, by)
        if len(assignment) and not 0 <= int(assignment.min()) <= int(assignment.max()) < num_shards:
            raise InputError(f"the assignment names shards beyond the {num_shards} there are.")
        self.standardises = aggregator in ("normalised", "weights")
        self.register_buffer("assignment", assignment, persistent=False)
        self.register_buffer("edge_shard", edge_shards(self.graph_inputs, assignment, by), persistent=False)
        self.shards = torch.nn.ModuleList(
            self.shard_model(number, self.edge_shard == number) for number in range(num_shards)
        )
        first = self._shard(0)
        # Where the ego tables pass through a fixed matrix, as in LightGCN, the attention puts the tables together and
        # all interactions carry the result on; else it puts together what the shards end with.
        linear = isinstance(getattr(first, "matrix", None), Adjacency) and "num_layers" in first.hparams
        self.carries_on = aggregator == "attention" and linear
        if aggregator == "attention":
            if self.carries_on:
                dim = first.user_embedding.shape[1]
            else:
                with torch.no_grad():
                    dim = first.encode().users.shape[1]
            self.combine = Attention(num_shards, dim, seed)
        elif aggregator == "weights":
            self.combine = WeightedScores(num_shards)
        else:
            self.combine = MeanOfScores()

    # -- making ----------------------------------------------------------------------------------------------------

    @classmethod
    def inputs(cls, data: RecDataset, **hparams: Any) -> GraphInputs:
        """What the base reads, and the assignment where it is made from raw ids.

        Raises:
            InputError: the partition is made from the data.
        """
        partition, by = hparams.get("partition", "hash"), hparams.get("by", "user")
        check_cut(partition, by)
        inputs = base_inputs(data, hparams.get("base", "LightGCN"), hparams.get("base_hparams"))
        if partition not in ("hash", "random"):
            raise InputError(
                f"partition {partition!r} is made from the data; graphrec.unlearning prepares a model with it. "
                "Made from ids alone: hash, random."
            )
        keys = cut_keys(data, inputs, by)
        shards = keyed_assignment(keys, hparams.get("num_shards", 10), partition, hparams.get("seed", 0))
        return with_assignment(inputs, shards, by)

    def inputs_on(
        self,
        data: RecDataset,
        keep: Mapping[str, NDArray[np.bool_]] | None = None,
        rows: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> GraphInputs:
        """As in the base: whoever stays, stays in the shard, whatever the partition was made from.

        What the model has never seen goes where a hash puts it.
        """
        inputs = base_inputs(data, self.hparams["base"], self.hparams["base_hparams"])
        source, _, target = inputs.target
        shards = keyed_assignment(cut_keys(data, inputs, self.by), self.num_shards, "hash", self.seed)
        if self.by == "interaction":
            edge_id = inputs.graph[inputs.target].edge_id
            known = torch.isin(edge_id, self.graph_inputs.graph[self.graph_inputs.target].edge_id.cpu())
            shards[known] = self.shards_of_edges(edge_id[known])
            return with_assignment(inputs, shards, self.by)
        node_type, assignment = source if self.by == "user" else target, self.assignment.cpu()
        if rows is not None and node_type in rows:
            place = torch.from_numpy(rows[node_type])
            shards[place[place >= 0]] = assignment[place >= 0]
        else:
            mask = (keep or {}).get(node_type)
            shards = assignment if mask is None else assignment[torch.from_numpy(mask)]
        return with_assignment(inputs, shards, self.by)

    def shards_of_edges(self, edge_id: Tensor) -> Tensor:
        """The shard (M,) of each of some edges of the ranked behaviour, by their ids (M,).

        Raises:
            InputError: an edge that the model's graph does not have.
        """
        known, order = self.graph_inputs.graph[self.graph_inputs.target].edge_id.cpu().sort()
        if len(edge_id) == 0:
            return edge_id.new_empty(0)
        place = torch.searchsorted(known, edge_id.cpu()).clamp_max(max(len(known) - 1, 0))
        if len(known) == 0 or not torch.equal(known[place], edge_id.cpu()):
            raise InputError("an edge is asked for that the model's graph does not have.")
        return self.edge_shard.cpu()[order[place]]

    def shard_seed(self, number: int) -> int:
        """The seed of a shard's initial tables."""
        return self.seed if number == 0 else randomness.derive(self.seed, f"shard/{number}")

    def shard_model(self, number: int, kept: Tensor) -> PairwiseRecommender:
        """A new model of shard ``number`` on some of the edges (E,) bool, with its initial tables."""
        settings = {**(self.hparams["base_hparams"] or {}), "seed": self.shard_seed(number)}
        kind: type[PairwiseRecommender] = base_class(self.hparams["base"])
        inputs = part_of_inputs(self.graph_inputs, kept)
        return kind(inputs, **settings) if self.fills else kind.unfilled(inputs, settings)

    @property
    def row_parameters(self) -> Mapping[str, str]:  # type: ignore[override]
        """The tables of every shard."""
        own = self._shard(0).row_parameters
        return {
            f"shards.{number}.{name}": node_type for number in range(self.num_shards) for name, node_type in own.items()
        }

    @property
    def objective(self) -> str:
        """That of the shards."""
        return self._shard(0).objective

    def derived(self) -> Mapping[str, Derived]:
        """The shard of each edge; shards' matrices are made with the shards."""
        target = self.graph_inputs.target
        return {"edge_shard": Derived((target,), lambda: edge_shards(self.graph_inputs, self.assignment, self.by))}

    def facts(self) -> Mapping[str, float | int]:
        """How the edges are spread over the shards."""
        sizes = torch.bincount(self.edge_shard, minlength=self.num_shards)
        return {
            "shards": self.num_shards,
            "largest_shard_edges": int(sizes.max()),
            "smallest_shard_edges": int(sizes.min()),
        }

    # -- training --------------------------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        """Those of every shard that has edges, then that of the aggregator where it learns."""
        shards = (phase for number in range(self.num_shards) for phase in self.shard_phases(number))
        return (*shards, *self.aggregator_phases())

    def shard_phases(self, number: int, shard: GraphRecommender | None = None) -> list[Phase]:
        """The training of one shard; none where it has no edges.

        A phase's name is that of its random draws, so each shard has its own; those of the first shard are called as
        the plain model's.

        Args:
            number: of the shard.
            shard: trained in its place (a model of the shard on a part of its edges).
        """
        whole = shard is None
        shard = self._shard(number) if shard is None else shard
        if len(shard.graph_inputs.adjacency()) == 0:
            return []
        prefix = f"shard{number}/" if number else ""
        return [
            replace(
                phase,
                name=prefix + phase.name,
                loss=partial(self._shard_loss, number, phase) if whole else phase.loss,
            )
            for phase in shard.phases()
        ]

    def _shard_loss(
        self, number: int, phase: Phase, batch: Batch, edge_weight: EdgeWeight = None
    ) -> Mapping[str, Tensor]:
        # Work that is done once an epoch may know no weights.
        return (
            phase.loss(batch)
            if edge_weight is None
            else phase.loss(batch, edge_weight=self._local(number, edge_weight))
        )
