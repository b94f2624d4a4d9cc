"""Training a partitioned model shard by shard and slice by slice, so that any part of it can be trained again alone.

Every random stream of a shard is a hash of the seed, the shard, the phase and the epoch (counted through all slices),
batches are drawn from the edges that are there, and each slice starts a new optimiser: restoring the tables before a
slice and training on gives, bit for bit, what a training without the forgotten edges gives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, MissingFileError
from graphrec.models.base import GraphRecommender, Phase
from graphrec.models.shard_assignment import cut_keys
from graphrec.models.sharded import Sharded
from graphrec.runs.files import write_file
from graphrec.runs.manifest import json_bytes
from graphrec.runs.tensors import read_tensors, write_tensors
from graphrec.training.options import FitOptions
from graphrec.training.phases import PhaseTrainer
from graphrec.training.processes import Processes
from graphrec.training.progress import Progress
from graphrec.unlearning.compaction import kept_rows

STATE = "shards.json"
"""The file of a method's state that says how the shards were trained, and on which edges."""

# What of fit's options changes the steps of a training of fixed length.
_OF_STEPS = ("precision", "schedule", "warmup", "milestones", "decay", "accumulate", "clip")

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """How shards are trained.

    Attributes:
        method: whose they are.
        seed: of batches and negatives.
        epochs: as many passes over a shard's edges as all slices together come to.
        slices: R. The edges of a shard are added slice by slice; the tables before each are kept.
        aggregator_epochs: of an aggregator that learns.
        options: of ``fit``, those that matter for the steps.
    """

    method: str
    seed: int
    epochs: int
    slices: int
    aggregator_epochs: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("slices", 1), ("aggregator_epochs", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, found {value!r}.")

    @classmethod
    def of(cls, method: str, seed: int, fit: Mapping[str, Any], *, epochs: int | None, **numbers: int) -> Plan:
        """A plan from the options of a run's training.

        A shard's training has a fixed length and nothing is selected on validation, so that ``select_on``,
        ``patience`` and ``max_seconds`` do not count.
        """
        options = {name: fit[name] for name in _OF_STEPS if name in fit}
        length = int(fit.get("epochs", FitOptions().epochs)) if epochs is None else epochs
        return cls(method=method, seed=seed, epochs=length, options=options, **numbers)

    @property
    def slice_epochs(self) -> int:
        """Epochs of each slice: with e = 2 E / (R + 1), passes over growing parts add up to E over the whole."""
        return max(1, round(2 * self.epochs / (self.slices + 1)))

    def fit_options(self, epochs: int) -> FitOptions:
        """Options of a training of so many epochs."""
        return FitOptions.from_config({**self.options, "epochs": epochs, "progress": False})


def expected_touched(num_shards: int, deletions: int) -> float:
    r"""How many shards are touched on average by deletions that fall on shards uniformly,
    :math:`S (1 - (1 - 1/S)^q)`.

    Args:
        num_shards: S.
        deletions: q, of what is cut (users where users are): interactions of one user are one.
    """
    if num_shards < 1 or deletions < 0:
        raise InputError(f"expected at least one shard and no deletions below 0, found {num_shards}, {deletions}.")
    return num_shards * (1.0 - (1.0 - 1.0 / num_shards) ** deletions)


def expected_replay(slices: int) -> float:
    r"""The share of a shard's training that a uniform deletion makes anew on average, :math:`2/3 + 1/(3R)`."""
    if slices < 1:
        raise InputError(f"expected at least one slice, found {slices}.")
    return 2.0 / 3.0 + 1.0 / (3.0 * slices)


def edge_slices(model: Sharded, data: RecDataset, slices: int) -> Tensor:
    """The slice (E,) of each edge of the ranked behaviour, in edge-list order: a hash of the raw id of what is cut.

    All interactions of a user (an item) are in one slice where users (items) are cut.
    """
    keys = cut_keys(data, model.graph_inputs.apply(lambda tensor: tensor.cpu()), model.by)
    found = randomness.hash_integers(randomness.derive(model.seed, "slices"), slices, keys).to(model.device)
    if model.by == "interaction":
        return found
    return found[model.graph_inputs.graph[model.graph_inputs.target].edge_index[0 if model.by == "user" else 1]]


def index_digests(model: Sharded, slices: Tensor, count: int) -> list[list[str]]:
    """For each shard and slice the SHA-256 of the sorted edge ids of the shard up to the slice."""
    edge_id = model.graph_inputs.graph[model.graph_inputs.target].edge_id.cpu()
    shard, part = model.edge_shard.cpu(), slices.cpu()
    out = []
    for number in range(model.num_shards):
        own = shard == number
        ids, where = edge_id[own], part[own]
        out.append(
            [hashlib.sha256(ids[where <= last].sort().values.numpy().tobytes()).hexdigest() for last in range(count)]
        )
    return out


def touched(model: Sharded, slices: Tensor, gone: Tensor) -> dict[int, int]:
    """The shards that hold an edge of ``gone`` (edge ids), and the first slice of each that does."""
    edge_id = model.graph_inputs.graph[model.graph_inputs.target].edge_id
    hit = torch.isin(edge_id, gone.to(edge_id))
    first: dict[int, int] = {}
    for shard, part in zip(model.edge_shard[hit].tolist(), slices[hit].tolist(), strict=True):
        first[shard] = min(part, first.get(shard, part))
    return dict(sorted(first.items()))


# -- training ----------------------------------------------------------------------------------------------------------


def train_shard(
    model: Sharded,
    number: int,
    plan: Plan,
    slices: Tensor,
    *,
    first: int = 0,
    start: Parameters | None = None,
    work: Path | None = None,
) -> dict[int, Parameters]:
    """Train a shard of ``model`` in place, from a slice on.

    Args:
        model: made from the edges that are there; its shard has its initial tables.
        number: of the shard.
        plan: how.
        slices: (E,) of :func:`edge_slices`.
        first: the slice to begin with.
        start: the tables before that slice; None: the initial ones.
        work: a folder for the tables after each slice; those that an earlier process left there are used.

    Returns:
        The tables after each slice that was trained, the last of which the shard ends with.
    """
    own = model.edge_shard == number
    digests = index_digests(model, slices, plan.slices)[number] if work is not None else []
    after: dict[int, Parameters] = {}
    tables = start
    for part in range(first, plan.slices):
        last = part == plan.slices - 1
        shard = model.shards[number] if last else model.shard_model(number, own & (slices <= part)).to(model.device)
        assert isinstance(shard, GraphRecommender)
        if tables is not None:
            put(shard, tables)
        header = {"shard": number, "slice": part, "digest": digests[part], "plan": asdict(plan)} if digests else {}
        file = None if work is None else work / slice_file(number, part)
        done = None if file is None else _finished(file, header)
        if done is not None:
            put(shard, done)
        else:
            phases = model.shard_phases(number, None if last else shard)
            train(shard, phases, plan, plan.slice_epochs, part * plan.slice_epochs)
        tables = after[part] = taken(shard)
        if file is not None and done is None:
            save_tables(file, tables, shard.row_parameters, header)
    return after


def train(module: GraphRecommender, phases: list[Phase], plan: Plan, epochs: int, before: int = 0) -> None:
    """Run phases for some epochs, numbered from ``before`` on, with new optimisers; ends in evaluation mode."""
    options, device = plan.fit_options(max(epochs, 1)), module.device
    trainers = [PhaseTrainer(phase, options, plan.seed, device, Processes(device=device)) for phase in phases]
    for trainer in trainers:
        trainer.prepare()
    quiet = Progress(epochs, enabled=False)
    module.train()  # once: what parts that do not change have kept stays through all epochs
    for epoch in range(before, before + epochs):
        for trainer in trainers:
            trainer.run(epoch, quiet, lambda: False)
    module.eval()


def train_aggregator(model: Sharded, plan: Plan) -> None:
    """Train the aggregator of ``model`` in place, from where it is; nothing where it learns nothing."""
    phases = list(model.aggregator_phases())
    if phases and plan.aggregator_epochs:
        train(model, phases, plan, plan.aggregator_epochs)
    model.eval()


@torch.no_grad()
def put(module: nn.Module, tables: Parameters) -> None:
    """Copy parameters into a module.

    Raises:
        InputError: names or shapes differ.
    """
    own = dict(module.named_parameters())
    if set(own) != set(tables) or any(own[name].shape != tensor.shape for name, tensor in tables.items()):
        raise InputError("the tables that were kept of a shard are not those of this model.")
    for name, tensor in tables.items():
        own[name].copy_(tensor)


def taken(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's parameters, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.named_parameters()}


# -- files -------------------------------------------------------------------------------------------------------------


def slice_file(number: int, part: int) -> str:
    """The name of the file with a shard's tables after a slice."""
    return f"shard-{number:03}-slice-{part:02}.safetensors"


def save_tables(file: Path, tables: Parameters, rows: Mapping[str, str], header: Mapping[str, Any]) -> None:
    """Write the tables of a shard; ``rows`` says whose rows they have."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, lambda path: write_tensors(path, tables, {**header, "rows": dict(rows)}))


def _finished(file: Path, header: Mapping[str, Any]) -> Parameters | None:
    if not file.is_file():
        return None
    tables, found = read_tensors(file)
    # Through JSON, as the file has gone: tuples are lists there.
    same = all(found.get(name) == json.loads(json.dumps(value)) for name, value in header.items())
    return tables if same else None


def state_bytes(model: Sharded, plan: Plan, slices: Tensor) -> bytes:
    """The content of :data:`STATE`."""
    return json_bytes({"format": 1, "plan": asdict(plan), "digests": index_digests(model, slices, plan.slices)})


def read_state(folder: Path | None, method: str) -> tuple[Plan, list[list[str]]]:
    """The plan, and the digests of the edges that each shard was trained on.

    Raises:
        MissingFileError: there is no state.
        InputError: it is damaged, of a newer format, or of another method.
    """
    if folder is None or not (folder / STATE).is_file():
        raise MissingFileError(
            f"{'the model' if folder is None else folder} has no {STATE}: {method} forgets only what it prepared "
            "itself (graphrec.unlearning.prepare, graphrec forget RUN --prepare)."
        )
    try:
        found = json.loads((folder / STATE).read_text())
        if int(found["format"]) > 1:
            raise InputError(f"{folder / STATE} is of format {found['format']}; update graphrec to read it.")
        plan, digests = Plan(**found["plan"]), [[str(digest) for digest in row] for row in found["digests"]]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder / STATE} is damaged: {error}.") from error
    if plan.method != method:
        raise InputError(f"{folder} was prepared for {plan.method}, not for {method}; use that method.")
    return plan, digests


def check_digests(model: Sharded, slices: Tensor, plan: Plan, digests: list[list[str]]) -> None:
    """Raise where the shards were trained on other edges than the model has."""
    for number, (now, then) in enumerate(zip(index_digests(model, slices, plan.slices), digests, strict=True)):
        for part, (own, other) in enumerate(zip(now, then, strict=True)):
            if own != other:
                raise InputError(
                    f"shard {number} was trained on other edges up to slice {part} than the dataset gives it now; "
                    "prepare the model again."
                )


def without_rows(file: Path, target: Path, keep: Mapping[str, Any]) -> None:
    """Write a slice's file again without the rows of nodes that are gone; ``keep`` (N,) bool by node type."""
    tables, header = read_tensors(file)
    write_file(target, lambda path: write_tensors(path, kept_rows(tables, header.get("rows", {}), keep), header))
