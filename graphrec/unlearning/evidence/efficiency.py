"""What forgetting cost: seconds, memory, and how often faster it was than training anew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from graphrec.errors import InputError, unknown
from graphrec.unlearning.evidence.measures import plain

REQUESTS = (1, 10, 100)


@dataclass(frozen=True)
class Seconds:
    """What was timed, on one machine; None where it was not.

    Attributes:
        unlearn: the request: from its receipt to a model that can be served.
        retrain: training anew without the data, to the same rule of stopping.
        prepare: what the method did before any request (shards, an influence encoder); 0 for methods without.
        warm_start: training from the old weights without the data until it reached the unlearned model's utility.
        train: the first training.
        unlearn_memory: peak bytes of the request.
        retrain_memory: peak bytes of the retraining.
        storage: bytes kept for the method beside the model.
    """

    unlearn: float | None = None
    retrain: float | None = None
    prepare: float | None = None
    warm_start: float | None = None
    train: float | None = None
    unlearn_memory: float | None = None
    retrain_memory: float | None = None
    storage: float | None = None

    @classmethod
    def of(cls, given: Seconds | Mapping[str, float] | None) -> Self:
        """From a mapping of the same names; names that begin with another word are refused.

        Raises:
            InputError: an unknown name, or a value below 0.
        """
        if given is None:
            return cls()
        values = asdict(given) if isinstance(given, Seconds) else dict(given)
        known = [entry.name for entry in fields(cls)]
        for name, value in values.items():
            if name not in known:
                raise unknown("entry of seconds", str(name), known)
            if value is not None and not value >= 0:
                raise InputError(f"seconds[{name!r}] must not be below 0, found {value}.")
        return cls(**values)


@dataclass(frozen=True)
class Efficiency:
    """Seconds, memory and speed-ups; NaN where a time is missing.

    Attributes:
        seconds: what was given.
        marginal: retrain / unlearn: the request alone.
        amortised: by number of requests n, n retrain / (prepare + n unlearn).
        break_even: requests after which the preparation has paid, prepare / (retrain - unlearn); 0 for none, infinite
            where it never does.
        against_warm_start: warm_start / unlearn: above 1 where the method beats a short warm-started training that is
            as good.
    """

    seconds: Seconds
    marginal: float
    amortised: Mapping[str, float]
    break_even: float
    against_warm_start: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dict(plain(asdict(self)))


def efficiency(given: Seconds | Mapping[str, float] | None) -> Efficiency:
    """The speed-ups that some times come to."""
    seconds = Seconds.of(given)
    unlearn, retrain = _number(seconds.unlearn), _number(seconds.retrain)
    # Not timed is not free: only an explicit 0 says that nothing was prepared.
    prepare = _number(seconds.prepare)
    amortised = {str(n): _ratio(n * retrain, prepare + n * unlearn) for n in REQUESTS}
    saved = retrain - unlearn
    if prepare == 0:
        break_even = 0.0
    else:
        break_even = math.nan if math.isnan(prepare + saved) else prepare / saved if saved > 0 else math.inf
    return Efficiency(
        seconds, _ratio(retrain, unlearn), amortised, break_even, _ratio(_number(seconds.warm_start), unlearn)
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else math.nan
