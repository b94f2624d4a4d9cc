"""How long a request will take, from what is known or measured before anything is done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from graphrec.runs import Run


@dataclass(frozen=True)
class Estimate:
    """What a method will need.

    Attributes:
        seconds: of the clock, on this machine; the evidence (retrained references) comes on top.
        work: what is counted: ``epochs`` of the whole model's training, ``products`` with a curvature, ``steps``.
        basis: what it rests on, a clause.
    """

    seconds: float
    work: Mapping[str, float]
    basis: str


@dataclass(frozen=True, eq=False)
class Pace:
    """What a run says of its training, and what was timed on this machine.

    Attributes:
        training_seconds: of the training.
        epochs: of the training; 0 for a closed form.
        epoch_seconds: the median in its history.csv, evaluation left out; 0 for a closed form.
        share: of its training edges that the request names.
    """

    training_seconds: float
    epochs: int
    epoch_seconds: float
    share: float
    _timed: dict[Hashable, float] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run, share: float) -> Pace:
        """Of a run."""
        history = run.history
        known = "seconds" in history and len(history)
        return cls(
            training_seconds=float(run.metrics.get("seconds", 0.0)),
            epochs=int(run.metrics.get("epochs", 0)),
            epoch_seconds=float(history["seconds"].median()) if known else 0.0,
            share=share,
        )

    def timed(self, key: Hashable, make: Callable[[], Callable[[], object]]) -> float:
        """Seconds of what ``make`` gives, called once to get going and then once to be timed; kept by its key."""
        if key not in self._timed:
            work = make()
            work()
            started = time.perf_counter()
            work()
            self._timed[key] = time.perf_counter() - started
        return self._timed[key]

    def of_training(self, epochs: float, basis: str) -> Estimate:
        """So many epochs of the whole model's training on what remains."""
        seconds = (self.epoch_seconds or self.training_seconds / max(self.epochs, 1)) * epochs * (1 - self.share)
        return Estimate(seconds, {"epochs": epochs}, basis)


def conjugate_gradient_products(damping: float, tolerance: float, most: int) -> int:
    r"""Products that conjugate gradients take at most, :math:`\tfrac12\sqrt\kappa\,\ln(2/\epsilon)`, where the largest
    eigenvalue is 1 and the damping bounds the others, :math:`\kappa = (1 + \delta) / \delta`.

    Args:
        damping: δ, as a share of the largest eigenvalue; 0: no bound but ``most``.
        tolerance: ε, the relative residual.
        most: products.
    """
    if not damping:
        return most
    return max(1, min(most, math.ceil(0.5 * math.sqrt((1 + damping) / damping) * math.log(2 / min(tolerance, 1.0)))))
