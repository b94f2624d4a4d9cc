"""The contract of every method of forgetting: what it is given, what it gives, what it may be called."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import EdgeType
from graphrec.errors import InputError
from graphrec.models.base import GraphRecommender
from graphrec.models.deletion import with_inputs
from graphrec.runs.manifest import Content
from graphrec.unlearning.methods.estimates import Estimate, Pace
from graphrec.unlearning.resolve import Resolved

Exactness = Literal["exact", "conditional", "approximate", "heuristic"]
"""``exact``: the outcome is distributed as a training without the data; ``conditional``: exact but for something made
with the data that is kept (a partition); ``approximate``: an estimate of it; ``heuristic``: neither."""


@dataclass(frozen=True)
class Task:
    """What a method is given.

    Attributes:
        model: trained on ``data``; a method leaves it as it is.
        data: the dataset with what is to be forgotten.
        remaining: without, on the same id tables: a model made from it has the same row numbers.
        resolved: what is to be forgotten.
        seed: of the training.
        fit: options of :func:`graphrec.fit` that the model was trained with; empty where they are not known.
        state: folder with the files that the method's ``prepare`` made; None where nothing was prepared.
        work: folder for checkpoints of a long method: it stays when the process dies, and goes when the request is
            done. None: nothing is kept.
        progress: whether to show progress on standard error.
    """

    model: GraphRecommender
    data: RecDataset
    remaining: RecDataset
    resolved: Resolved
    seed: int = 0
    fit: Mapping[str, Any] = field(default_factory=dict)
    state: Path | None = None
    work: Path | None = None
    progress: bool = False

    @property
    def removed(self) -> dict[EdgeType, Tensor]:
        """Ids (M,) of the training edges to forget that the model's graph has, by edge type."""
        present = set(self.model.graph_inputs.graph.edge_types)
        gone = self.resolved.training(self.data)
        return {name: torch.from_numpy(ids.copy()) for name, ids in gone.items() if name in present}

    def fresh(self, seed: int | None = None) -> GraphRecommender:
        """An untrained model of the same class and settings (but for the seed) on the data that remains."""
        settings = dict(self.model.hparams)
        if seed is not None and "seed" in settings:
            settings["seed"] = seed
        return type(self.model)(self.model.inputs_on(self.remaining), **settings)

    def rebuilt(self) -> GraphRecommender:
        """The model's parameters on the data that remains: everything made of edges or features is made anew."""
        return with_inputs(self.model, self.model.inputs_on(self.remaining))


@dataclass(frozen=True)
class Outcome:
    """What a method gives.

    Attributes:
        model: made from the inputs of ``Task.remaining``, in evaluation mode.
        exactness: what the method reached for this request.
        seconds: of each step; ``request`` is all that came after the request.
        facts: numbers and words about how it went (shards touched, residual of a solver).
        files: state for later requests, by name: the run keeps them below ``state/``.
        holds: what these hold, as in a manifest.
    """

    model: GraphRecommender
    exactness: Exactness
    seconds: Mapping[str, float]
    facts: Mapping[str, float | int | str] = field(default_factory=dict)
    files: Mapping[str, Content] = field(default_factory=dict)
    holds: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A model that can forget by a method.

    Attributes:
        model: trained on all data.
        files: what the method needs beside it, by name; the run keeps them below ``state/``.
        holds: what these hold, as in a manifest.
        seconds: the preparation took, the model's own training left out.
    """

    model: GraphRecommender
    files: Mapping[str, Content]
    holds: Mapping[str, Sequence[str]]
    seconds: float


@dataclass(frozen=True)
class Unlearner(ABC):
    """A method of forgetting; the fields of a subclass are its options."""

    name: ClassVar[str]
    exactness: ClassVar[Exactness]
    needs_state: ClassVar[bool] = False

    @classmethod
    def refuses(cls, model: GraphRecommender | type[GraphRecommender]) -> str | None:
        """Why a model is not supported, in a clause; None where it is."""
        return None

    def reaches(self) -> Exactness:
        """What the method reaches with these options; an outcome may say less of one request."""
        return self.exactness

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
        """Make what the method needs before any request comes.

        Args:
            model: the model to prepare; left as it is.
            data: what it was trained on.
            seed: of the training.
            fit: options of :func:`graphrec.fit`.
            folder: empty, for files.
            progress: whether to show progress.

        Raises:
            InputError: the method needs no preparation.
        """
        raise InputError(f"{self.name} needs no preparation; it takes any run.")

    @abstractmethod
    def unlearn(self, task: Task) -> Outcome:
        """Forget. An empty request gives the same scores, bit for bit."""

    def compacted_state(
        self, files: Mapping[str, Content], keep: Mapping[str, NDArray[np.bool_]], folder: Path
    ) -> Mapping[str, Content] | None:
        """The state of an outcome on id tables that have lost the nodes that went wholly.

        Args:
            files: :attr:`Outcome.files`.
            keep: which nodes stay, (N,) bool by node type.
            folder: for new files.

        Returns:
            The files; None where they cannot be brought to the smaller tables: the new run then has none, and has to be
            prepared again before the next request.
        """
        return None

    def estimate(self, task: Task, pace: Pace) -> Estimate | None:
        """About how long a request will take, and what that rests on; None where that cannot be told.

        Args:
            task: the request, which names something that was trained on; neither state nor folders are looked at.
            pace: of the model's training.
        """
        return None


def options_of(task: Task, **changed: Any) -> dict[str, Any]:
    """Options of ``fit`` for a training within a method: those of the run on the task's device, with some changed.

    Checkpoints and the run's folder are the method's own business, so they are left out.
    """
    kept = {name: value for name, value in task.fit.items() if name not in ("checkpoint_every", "checkpoint_seconds")}
    device = str(task.model.device)
    return {**kept, "device": device, "seed": task.seed, "progress": task.progress, "report": False, **changed}


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Add the seconds of a block to ``seconds[step]``."""
    started = time.perf_counter()
    yield
    seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - started
