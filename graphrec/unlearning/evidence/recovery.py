"""Recovery from an attack by injected edges: how much of the harm done is undone by forgetting them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graphrec.errors import InputError
from graphrec.unlearning.evidence.measures import mean_and_sd, plain

DEVIATIONS = 3.0


@dataclass(frozen=True)
class Recovery:
    """How much came back.

    Attributes:
        metric: what was measured.
        value: ρ: 0 is the attacked model, 1 the one that was trained without the attack; NaN where it says nothing.
        harm: clean mean minus the attacked model's value.
        needed: the harm that is needed for ρ to mean anything, three standard deviations of the clean trainings.
        verdict: ``measured``, ``attack too weak`` or ``not run``.
    """

    metric: str
    value: float
    harm: float
    needed: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dict(plain(asdict(self)))


def recovery(metric: str, *, clean: Sequence[float], poisoned: float, unlearned: float) -> Recovery:
    r"""The share of an attack's harm that forgetting undid.

    .. math:: \rho = \frac{M(\theta^u) - M(\theta_\text{poisoned})}{M(\theta_\text{clean}) - M(\theta_\text{poisoned})}

    Refused (ρ is NaN) where :math:`|M(\theta_\text{clean}) - M(\theta_\text{poisoned})|` is below three standard
    deviations of the clean trainings: a ratio of noise to noise.

    Args:
        metric: the name of M.
        clean: M of trainings without the injected edges, several seeds.
        poisoned: M of the model trained with them.
        unlearned: M after forgetting them.

    Raises:
        InputError: no clean training at all.
    """
    if not len(clean):
        raise InputError("recovery needs at least one training without the injected edges, found none.")
    return recovered(metric, *mean_and_sd(clean), poisoned=poisoned, unlearned=unlearned)


def recovered(metric: str, mean: float, sd: float, *, poisoned: float, unlearned: float) -> Recovery:
    """:func:`recovery` from mean and standard deviation of the clean trainings (NaN for a single one)."""
    harm = mean - poisoned
    if math.isnan(sd):
        return Recovery(metric, math.nan, harm, math.nan, "not run")
    needed = DEVIATIONS * sd
    if not abs(harm) > needed:
        return Recovery(metric, math.nan, harm, needed, "attack too weak")
    return Recovery(metric, (unlearned - poisoned) / harm, harm, needed, "measured")
