r"""Whether an estimate of influence may be believed: it is an expansion about a point where the gradient is zero.

That a score changes by :math:`q \cdot c_e - \partial_{w_e} f`, with :math:`q = C^{-1} \nabla f`, when an edge goes is
the derivative of :math:`f(\theta^\star(w))` in the edge's weight, and holds at a stationary point θ* alone.
A model that training left elsewhere (stopped early, or hardly begun) is judged as if it stood there. How much that
matters for *this* score the same q tells for one inner product more: the Newton step from θ to the minimum of the
quadratic model is :math:`-C^{-1} \nabla L`, so that the score would drift by

.. math:: d = -q \cdot \nabla L(\theta)

on the way. At a stationary point d = 0. It has the unit of the score, does not depend on how the parameters are scaled
(a norm of the gradient says nothing by itself: curvature differs by orders of magnitude between models), and counts
only those directions of the gradient that the score notices, each divided by its curvature as the estimate divides it.

The measure to hold it against is the span of the user's scores over all items, from the lowest to the highest. An
expansion by which the rest of training alone would carry the item further than the whole catalogue is apart is not
about this model's ranking. The same holds for the removal of one interaction: training again without it does not move
one score out of the range of all others. So an estimate is given up

1. where the linear system was not solved: a relative residual above ten times the tolerance;
2. where :math:`|d|` exceeds the span;
3. where the estimate of a single interaction does.

Below that, but with :math:`|d|` above a standard deviation of the user's scores, the estimates keep their order, which
is what candidates are ranked by, and their amounts are said to be rough. Measured on factors and linear propagation:
models trained until validation stopped to improve had drifts of 0.02 to 0.5 of the span, models after one epoch 4 to 60
times the span. What passes has not been proved right: d of one score can be small by chance, d is itself an estimate by
damped curvature, which makes it smaller than it is, and the objective's negatives are one fixed draw, not those that
training saw. Koh and Liang,
"Understanding Black-box Predictions via Influence Functions", ICML 2017, section 4.2; Basu, Pope and Feizi, "Influence
Functions in Deep Learning Are Fragile", ICLR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESIDUALS = 10.0
"""Times the tolerance that a relative residual may be."""


@dataclass(frozen=True)
class Trust:
    """What the estimates of one score are held against; see the module.

    Attributes:
        drift: d, by which the score would change on the way to the objective's minimum.
        span: of the user's scores over all items.
        spread: their standard deviation.
        largest: the largest size of an estimate for one interaction.
        residual: relative, the worst.
        tolerance: that the solver was given.
    """

    drift: float
    span: float
    spread: float
    largest: float
    residual: float
    tolerance: float

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float64],
        estimates: NDArray[np.float64],
        drift: float,
        residual: float,
        tolerance: float,
    ) -> Trust:
        """From the user's scores (I,) and the estimates (M,) of her interactions."""
        largest = float(np.abs(estimates).max(initial=0.0))
        return cls(drift, float(np.ptp(scores)), float(scores.std()), largest, residual, tolerance)

    def refused(self) -> str:
        """Why the estimates are not to be believed, in a clause; empty where nothing speaks against them."""
        # Written so that a NaN is refused.
        if not self.residual <= RESIDUALS * self.tolerance:
            return (
                f"its linear system was not solved (relative residual {self.residual:.1e}, asked for "
                f"{self.tolerance:.0e})"
            )
        if not abs(self.drift) <= self.span:
            return (
                f"the model is far from a minimum of its objective: on the way there this score alone would change by "
                f"about {abs(self.drift):.3g}, and the user's scores of all items span {self.span:.3g}"
            )
        if not self.largest <= self.span:
            return (
                f"one interaction is estimated to change the score by {self.largest:.3g}, and the user's scores of all "
                f"items span {self.span:.3g}"
            )
        return ""

    def caution(self) -> str:
        """What is to be kept in mind of estimates that are not refused, a sentence or nothing."""
        if abs(self.drift) <= self.spread:
            return ""
        return (
            f"The model is not at a minimum of its objective (on the way there this score would change by about "
            f"{abs(self.drift):.3g}; the user's scores have a standard deviation of {self.spread:.3g}): the order of "
            "the estimates says more than their amounts."
        )
