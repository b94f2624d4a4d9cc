"""Retraining without the data: the definition of forgetting, and what every other method is measured against."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graphrec.training.fit import fit
from graphrec.unlearning.methods.base import Exactness, Outcome, Task, Unlearner, options_of, timed
from graphrec.unlearning.methods.estimates import Estimate, Pace


@dataclass(frozen=True)
class Retrain(Unlearner):
    """Trains anew, from the same seed, on what remains.

    Initial tables, batches, negatives, early stopping: all as if the data had never been there, because every draw is
    keyed by what it is for and none by what lies before it. What stays is that the hyper-parameters may have been
    chosen with the data.

    Attributes:
        seed: of the training; None: that of the run.
    """

    name: ClassVar[str] = "retrain"
    exactness: ClassVar[Exactness] = "exact"
    seed: int | None = None

    def unlearn(self, task: Task) -> Outcome:
        """Train; goes on from the last checkpoint where an earlier process died in the middle."""
        if task.resolved.empty and self.seed is None:
            return Outcome(copy.deepcopy(task.model), "exact", {"request": 0.0})
        seconds: dict[str, float] = {}
        model = task.fresh(self.seed)
        options = options_of(task, **({} if self.seed is None else {"seed": self.seed}))
        with timed(seconds, "request"):
            if task.work is None:
                run = fit(model, task.remaining, **options)
            else:
                run = fit(model, task.remaining, out=Path(task.work) / "retrained", resume=True, **options)
                # A training that was finished by the process before this one has left the model as it was made.
                model = run.model(model.device, model_class=type(model))
        return Outcome(model.eval(), "exact", seconds, {"epochs": int(run.metrics.get("epochs", 0))})

    def estimate(self, task: Task, pace: Pace) -> Estimate:
        """As long as the training took, less the share of edges that is gone."""
        seconds = pace.training_seconds * (1 - pace.share)
        return Estimate(seconds, {"epochs": pace.epochs}, f"the training of the run, {pace.training_seconds:.3g} s")
