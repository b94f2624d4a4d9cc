"""GIF: one step along the change of the gradient when the edges go, through the inverse curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from graphrec.errors import unknown
from graphrec.influence.objective import Objective
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.second_order import Facts, SecondOrder, series

Step = Literal["gif", "newton", "if"]


@dataclass(frozen=True)
class GIF(SecondOrder):
    r"""GIF (Wu et al., WWW 2023, https://arxiv.org/abs/2304.02835), in the form for recommenders.

    With L the fixed objective of the model (:mod:`graphrec.influence.objective`) and F the edges to forget

    .. math:: \theta = \theta^* + (C + \delta I)^{-1}
              \big(\nabla L(\theta^*; D) - \nabla L(\theta^*; D \setminus F)\big)

    where L without F has lost the terms of F, propagates on the graph without F (degrees, attention), and may draw the
    forgotten items as negatives. The difference is taken over all triples: those outside the K-hop ball of F cancel.
    The gradient that an early-stopped training still has is in both terms and cancels too, so that nothing is learned
    on the way.

    ``step`` picks C and the difference: ``gif`` has the curvature at D, as published; ``newton`` that at D without F,
    a Newton step on the remaining objective, the best for few edges near an optimum; ``if`` leaves the propagation as
    it was (the paper's ablation: influence functions without the graph). A step that does not lower the remaining
    objective is taken again with more damping.

    Any model with a ranking loss over (user, item, negatives) is supported, for interactions and, where it reads them,
    triples: KGAT and KGIN by double backward. Of a model with further terms (contrast, triples' own loss, independence)
    the ranking loss alone is followed, which ``facts`` says. What the step misses of F stays in θ: the outcome is
    ``approximate``.

    Published, and here under ``paper_exact``: the exact Hessian, five steps of the Neumann series with scale 50 and no
    damping. That is far from a solution; ``relative_residual`` says how far.

    Attributes:
        step: see above.
        scale: s of ``paper_exact``: above half of the largest eigenvalue, or the series diverges.
        paper_exact: the published solver, whatever the options say.
    """

    name: ClassVar[str] = "gif"
    step: Step = "gif"
    scale: float = 50.0
    paper_exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step not in ("gif", "newton", "if"):
            raise unknown("step", self.step, ("gif", "newton", "if"))

    def products(self, task: Task) -> int:
        """Five of the series as published, and two gradients."""
        return 7 if self.paper_exact else super().products(task)

    def moved(self, task: Task, made: Objective, facts: Facts) -> Tensor:
        """See the class."""
        theta = made.theta
        w_loss, w_graph = made.weights(task.removed)
        graph = None if self.step == "if" else w_graph
        before = made.gradient(theta)
        right = before - made.gradient(theta, w_loss, graph)
        facts |= {"gradient_norm": float(before.norm()), "right_norm": float(right.norm())}
        if self.paper_exact:
            product = made.curvature(theta, gauss_newton=False)
            return theta + series(product, right, facts, damping=0.0, scale=self.scale, iterations=5)

        accept = self.lowers(made, before, right, w_loss, graph)
        at = (w_loss, w_graph) if self.step == "newton" else (None, None)
        return theta + self.solve(made, right, facts, w_loss=at[0], w_graph=at[1], accept=accept)
