"""Fine-tuning on what remains: cheap, and how much is forgotten is to be measured."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from graphrec.errors import InputError
from graphrec.models.base import GraphRecommender
from graphrec.training.fit import fit
from graphrec.unlearning.emptied import start_anew
from graphrec.unlearning.methods.base import Exactness, Outcome, Task, Unlearner, options_of, timed
from graphrec.unlearning.methods.estimates import Estimate, Pace


@dataclass(frozen=True)
class Finetune(Unlearner):
    """Goes on training for a few epochs, from the trained parameters, on the graph and the positives that remain.

    What the data taught the parameters fades as far as the training pulls them elsewhere; nothing pushes it out
    ("catastrophic forgetting" put to use). As a warm start it is the strongest cheap baseline there is.

    Attributes:
        epochs: of training on what remains.
        reset: whether rows of users and items that the request names wholly, or leaves without an edge, start anew from
            their initial values.
    """

    name: ClassVar[str] = "finetune"
    exactness: ClassVar[Exactness] = "heuristic"
    epochs: int = 5
    reset: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"epochs must be 1 or more, found {self.epochs}.")

    @classmethod
    def refuses(cls, model: GraphRecommender | type[GraphRecommender]) -> str | None:
        """Closed forms are solved, not trained; retraining solves them again."""
        if isinstance(model, GraphRecommender) and not model.phases():
            return "it is a closed form, which retrain solves again"
        return None

    def unlearn(self, task: Task) -> Outcome:
        """Train a little."""
        if task.resolved.empty:
            return Outcome(copy.deepcopy(task.model), self.exactness, {"request": 0.0})
        seconds: dict[str, float] = {}
        with timed(seconds, "request"):
            model = task.rebuilt()
            rows = start_anew(model, task) if self.reset else {}
            # The learning rate stays: a schedule of the first training would start over at its largest rate.
            options = options_of(task, epochs=self.epochs, schedule="constant", warmup=0, select_on=None, patience=None)
            fit(model, task.remaining, **options)
        return Outcome(model.eval(), self.exactness, seconds, {"epochs": self.epochs, "rows_anew": sum(rows.values())})

    def estimate(self, task: Task, pace: Pace) -> Estimate:
        """Its epochs at the training's pace."""
        return pace.of_training(self.epochs, f"{self.epochs} epochs of {pace.epoch_seconds:.3g} s in history.csv")
