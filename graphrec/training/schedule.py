"""Learning rates over the steps of a training: factors of the optimiser's own rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

ScheduleName = Literal["constant", "cosine", "linear", "step"]


def factor(
    step: int,
    total: int,
    name: ScheduleName = "constant",
    *,
    warmup: float = 0,
    milestones: Sequence[float] = (),
    decay: float = 0.1,
) -> float:
    r"""What the rate of a step is multiplied by.

    With w steps of warm-up and :math:`p = (t - w) / (T - w)`: during the warm-up :math:`(t + 1) / (w + 1)`; then
    ``constant`` 1, ``cosine`` :math:`(1 + \cos \pi p) / 2`, ``linear`` :math:`1 - p`, ``step`` ``decay`` to the power
    of the number of milestones m with :math:`p \ge m`.

    Args:
        step: t, from 0.
        total: T.
        name: see above.
        warmup: w, or below 1 the share of T it is.
        milestones: see above.
        decay: see above.

    >>> [round(factor(t, 4, "linear"), 2) for t in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    steps = round(warmup * total) if warmup < 1 else int(warmup)
    if step < steps:
        return (step + 1) / (steps + 1)
    progress = min((step - steps) / max(total - steps, 1), 1.0)
    if name == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    if name == "linear":
        return 1 - progress
    if name == "step":
        return decay ** sum(progress >= milestone for milestone in milestones)
    return 1.0
