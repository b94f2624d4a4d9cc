"""What the methods have in common that train a model in shards and forget by training the touched ones again."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.base import GraphInputs, GraphRecommender
from graphrec.models.shard_assignment import CUTS, cut_keys, keyed_assignment, with_assignment
from graphrec.models.shard_bases import base_inputs, not_a_base
from graphrec.models.sharded import Sharded
from graphrec.runs.manifest import Content
from graphrec.runs.tensors import load_weights, read_tensors
from graphrec.training.progress import Progress, duration
from graphrec.unlearning import shards
from graphrec.unlearning.methods.base import Exactness, Outcome, Prepared, Task, Unlearner, timed
from graphrec.unlearning.methods.estimates import Estimate, Pace
from graphrec.unlearning.partitions import make_partition
from graphrec.unlearning.shards import Plan


@dataclass(frozen=True)
class Partitioned(Unlearner):
    """Shards that are trained apart; a request trains those anew that hold what is to be forgotten.

    ``exact`` where shards are a hash of ids: every part is then what a training without the data gives, bit for bit,
    aggregators included, which are trained anew from their initial values. A partition made from the data may place
    people by what others did who are forgotten now: ``conditional``.

    Attributes:
        shards: S. More make a request cheaper and each shard poorer.
        slices: R, the steps in which a shard's data comes; a request goes back to the first it touches.
        partition: how shards are made: ``hash``, ``random``, ``blpa``, ``bekm``, ``ubp``, ``ibp``, ``inbp``,
            ``transport``.
        by: what is cut, ``user``, ``item`` or ``interaction``; None: what the partition usually cuts.
        aggregator: ``mean``, ``normalised``, ``weights`` or ``attention``.
        absent: what a shard says about users it never saw: ``leave_out`` nothing, ``history`` by their items.
        epochs: of each shard; None: as many as the run was trained for.
        aggregator_epochs: of an aggregator that learns.
        slack: how far above an even part a shard may grow; None: the paper's.
        balance: what parts made by k-means or label propagation are even in: interactions (``edges``), so that every
            shard takes as long to train, or users (``count``), as in the papers; ``transport`` is even in users.
    """

    exactness: ClassVar[Exactness] = "conditional"
    needs_state: ClassVar[bool] = True
    shards: int = 10
    slices: int = 1
    partition: str = "hash"
    by: str | None = None
    aggregator: str = "mean"
    absent: str = "leave_out"
    epochs: int | None = None
    aggregator_epochs: int = 50
    slack: float | None = None
    balance: str = "edges"

    @classmethod
    def refuses(cls, model: GraphRecommender | type[GraphRecommender]) -> str | None:
        """Whatever is no dot product of vectors that are trained on pairs."""
        kind = type(model) if isinstance(model, GraphRecommender) else model
        return None if issubclass(kind, Sharded) else not_a_base(kind)

    def reaches(self) -> Exactness:
        """Exact where the partition ignores the data."""
        return "exact" if self.partition == "hash" else "conditional"

    # -- before any request --------------------------------------------------------------------------------------------

    def prepare(
        self,
        model: GraphRecommender,
        data: RecDataset,
        *,
        seed: int,
        fit: Mapping[str, Any],
        folder: Path,
        progress: bool = False,
    ) -> Prepared:
        """Cut the data and train the shards and the aggregator.

        Args:
            model: gives class, hyper-parameters and device of every shard; its own parameters are not used.
            data: what to train on.
            seed: of batches and negatives.
            fit: options of :func:`graphrec.fit`; those that select an epoch do not count.
            folder: for the tables after each slice.
            progress: whether to show progress.

        Raises:
            InputError: the model is in shards already, or starts from the data (``init=spectral``) under slices.
        """
        if isinstance(model, Sharded):
            raise InputError(f"the model is in shards already; {self.name} is prepared from the plain model.")
        settings = {name: value for name, value in model.hparams.items() if name != "seed"}
        if self.slices > 1 and settings.get("init") == "spectral":
            raise InputError(
                "init='spectral' looks at all interactions, those of later slices too, so that no slice could be gone "
                "back to; use init='normal' or slices=1."
            )
        plan = Plan.of(
            self.name, seed, fit, epochs=self.epochs, slices=self.slices, aggregator_epochs=self.aggregator_epochs
        )
        show, started = Progress(plan.epochs, progress), time.perf_counter()
        own_seed = int(model.hparams.get("seed") or 0)
        by = self.cut_by()
        inputs = self.cut(data, type(model).__name__, settings, by, own_seed)
        made = Sharded(
            inputs,
            base=type(model).__name__,
            base_hparams=settings,
            num_shards=self.shards,
            partition=self.partition,  # type: ignore[arg-type]
            by=by,  # type: ignore[arg-type]
            aggregator=self.aggregator,  # type: ignore[arg-type]
            absent=self.absent,  # type: ignore[arg-type]
            seed=own_seed,
        ).to(model.device)
        show.say(f"cut into {self.shards} shards after {duration(time.perf_counter() - started)}")
        slices = shards.edge_slices(made, data, plan.slices)
        files: dict[str, Content] = {}
        for number in range(self.shards):
            for part, tables in shards.train_shard(made, number, plan, slices).items():
                if part < plan.slices - 1:  # the last are the model's own
                    files |= _kept_tables(made, number, part, tables, folder)
            show.say(f"shard {number + 1}/{self.shards}  {duration(time.perf_counter() - started)}")
        shards.train_aggregator(made, plan)
        files[shards.STATE] = shards.state_bytes(made, plan, slices)
        return Prepared(made, files, _holds(files), time.perf_counter() - started)

    def cut_by(self) -> str:
        """What is cut."""
        return CUTS.get(self.partition, ("user",))[0] if self.by is None else self.by

    def cut(self, data: RecDataset, base: str, settings: Mapping[str, Any], by: str, seed: int) -> GraphInputs:
        """What the base reads of ``data``, with the assignment."""
        inputs = base_inputs(data, base, settings)
        if self.partition in ("hash", "random"):
            found = keyed_assignment(cut_keys(data, inputs, by), self.shards, self.partition, seed)
        else:
            found = make_partition(
                self.partition, by, inputs, self.shards, slack=self.slack, balance=self.balance, seed=seed
            )
        return with_assignment(inputs, found, by)

    # -- a request -----------------------------------------------------------------------------------------------------

    def unlearn(self, task: Task) -> Outcome:
        """Train the touched shards anew, each from the first slice that is touched on, and the aggregator.

        Raises:
            InputError: the model was not prepared by this method, or on other data.
        """
        model = task.model
        if not isinstance(model, Sharded):
            raise InputError(f"{self.name} forgets only what it prepared itself, found a {type(model).__name__}.")
        plan, digests = shards.read_state(task.state, self.name)
        assert task.state is not None
        exactness: Exactness = "exact" if model.hparams["partition"] == "hash" else "conditional"  # the shards' own
        seconds: dict[str, float] = {"aggregator": 0.0}
        with timed(seconds, "request"):
            slices = shards.edge_slices(model, task.data, plan.slices)
            shards.check_digests(model, slices, plan, digests)
            files: dict[str, Content] = {
                name: task.state / name
                for number in range(model.num_shards)
                for part in range(plan.slices - 1)
                if (task.state / (name := shards.slice_file(number, part))).is_file()
            }
            first = self._touched(task, model, slices)
            if task.resolved.empty:
                made = copy.deepcopy(model)
            else:
                with timed(seconds, "shards"):
                    made = self._rebuilt(task, model, first, plan, slices, files)
                with timed(seconds, "aggregator"):
                    if first:
                        shards.train_aggregator(made, plan)
                    else:
                        shards.put(made.combine, shards.taken(model.combine))
            made.eval()
            left = shards.edge_slices(made, task.remaining, plan.slices)
            files[shards.STATE] = shards.state_bytes(made, plan, left)
        facts: dict[str, float | int | str] = {
            "shards_touched": len(first),
            "shards": model.num_shards,
            "slices_replayed": sum(plan.slices - part for part in first.values()),
            "epochs": plan.epochs,
        }
        return Outcome(made, exactness, seconds, facts, files, _holds(files))

    def _touched(self, task: Task, model: Sharded, slices: Tensor) -> dict[int, int]:
        """The touched shards and the first slice of each; all from the first where more than interactions go."""
        removed = task.removed
        if set(removed) - {task.data.target} or _features_differ(task, model):
            return dict.fromkeys(range(model.num_shards), 0)
        gone = removed.get(task.data.target)
        return {} if gone is None else shards.touched(model, slices, gone)

    def _rebuilt(
        self,
        task: Task,
        model: Sharded,
        first: Mapping[int, int],
        plan: Plan,
        slices: Tensor,
        files: dict[str, Content],
    ) -> Sharded:
        """The model on what remains: untouched shards as they are, touched ones trained; ``files`` is brought up."""
        assert task.state is not None
        inputs = model.inputs_on(task.remaining)
        made = Sharded(inputs.apply(lambda tensor: tensor.to(model.device)), **model.hparams).to(model.device)
        left = shards.edge_slices(made, task.remaining, plan.slices)
        show = Progress(plan.epochs, task.progress)
        for number in range(model.num_shards):
            if number not in first:
                # Buffers too: its graph is the same.
                load_weights(made.shards[number], model.shards[number].state_dict(), f"shard {number}")
                continue
            start = None
            if first[number]:
                start = read_tensors(task.state / shards.slice_file(number, first[number] - 1))[0]
            after = shards.train_shard(made, number, plan, left, first=first[number], start=start, work=task.work)
            for part, tables in after.items():
                if part < plan.slices - 1:
                    files |= _kept_tables(made, number, part, tables, _under(task.work, "state"))
            show.say(f"shard {number} trained again from slice {first[number]}")
        return made

    def compacted_state(
        self, files: Mapping[str, Content], keep: Mapping[str, NDArray[np.bool_]], folder: Path
    ) -> Mapping[str, Content] | None:
        """Every kept table without the rows of who went wholly."""
        out: dict[str, Content] = {}
        for name, content in files.items():
            if not name.endswith(".safetensors"):
                out[name] = content
                continue
            source, target = folder / f"whole-{name}", folder / f"compacted-{name}"
            if isinstance(content, bytes):
                source.write_bytes(content)
            shards.without_rows(source if isinstance(content, bytes) else Path(content), target, keep)
            source.unlink(missing_ok=True)
            out[name] = target
        return out

    def estimate(self, task: Task, pace: Pace) -> Estimate:
        """The touched shards' part of the training, from the first touched slice on; the aggregator is not counted.

        Which shards are touched is known of a model in shards; of another, how many on average.
        """
        model, removed = task.model, task.removed
        if set(removed) - {task.data.target}:  # more than interactions goes
            count, total = float(self.shards), self.shards
        elif isinstance(model, Sharded):
            total = model.num_shards
            count = float(len(torch.unique(model.shards_of_edges(removed[task.data.target].to(model.device)))))
        else:
            edges = model.graph_inputs.graph[task.data.target]
            gone = torch.isin(edges.edge_id, removed[task.data.target].to(edges.edge_id))
            cut = {"user": edges.edge_index[0], "item": edges.edge_index[1]}.get(self.cut_by(), edges.edge_id)
            count, total = shards.expected_touched(self.shards, len(torch.unique(cut[gone]))), self.shards
        trained = self.epochs or pace.epochs or 1
        found = pace.of_training(trained * count / total * shards.expected_replay(self.slices), "")
        basis = f"{count:.3g} of {total} shards, {trained} epochs at the pace of history.csv; without the aggregator"
        return Estimate(found.seconds, {**found.work, "shards": count}, basis)


def _under(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def _kept_tables(
    model: Sharded, number: int, part: int, tables: Mapping[str, Tensor], folder: Path | None
) -> dict[str, Content]:
    """The file of a shard's tables after a slice: in ``folder``, or its bytes where there is none."""
    name = shards.slice_file(number, part)
    shard = model.shards[number]
    assert isinstance(shard, GraphRecommender)
    header = {"shard": number, "slice": part}
    if folder is not None:
        shards.save_tables(folder / name, tables, shard.row_parameters, header)
        return {name: folder / name}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / name
        shards.save_tables(file, tables, shard.row_parameters, header)
        return {name: file.read_bytes()}


def _holds(files: Mapping[str, Content]) -> dict[str, Sequence[str]]:
    return {name: ("parameters",) if os.fspath(name).endswith(".safetensors") else ("aggregates",) for name in files}


def _features_differ(task: Task, model: Sharded) -> bool:
    """Whether features that the shards read change with the request."""
    if not (task.resolved.features or task.resolved.texts):
        return False
    before, after = model.graph_inputs.graph, model.inputs_on(task.remaining).graph
    for node_type in before.node_types:
        for name, value in before[node_type].items():
            if isinstance(value, Tensor) and not torch.equal(value.cpu(), after[node_type][name].cpu()):
                return True
    return False
