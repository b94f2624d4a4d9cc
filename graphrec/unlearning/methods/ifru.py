"""IFRU: influence of the removed samples and of those whose computation changes, on the rows of important nodes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.influence.objective import Objective, objective
from graphrec.influence.solvers import Operator, Solution
from graphrec.models.bpr_mf import BPRMF
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.neighbourhood import touched_share
from graphrec.unlearning.second_order import Facts, SecondOrder, restricted, rows_of, said

Solver = Literal["cg", "adam"]


@dataclass(frozen=True)
class IFRU(SecondOrder):
    r"""IFRU (Zhang et al., "Recommendation Unlearning via Influence Function", ACM TORS 2024,
    https://arxiv.org/abs/2307.02147).

    With L the fixed objective of the model and F the edges to forget, the removed samples act directly and, where the
    model propagates, through the samples whose computational graph changes:

    .. math:: g = \underbrace{\nabla L(\theta^*; A_D) - \nabla L_{D \setminus F}(\theta^*; A_D)}_{\text{direct}}
              + \underbrace{\nabla L_{D \setminus F}(\theta^*; A_D)
              - \nabla L_{D \setminus F}(\theta^*; A_{D \setminus F})}_{\text{spillover}}, \qquad
              \theta = \theta^* + \arg\min_\Delta \tfrac12 \Delta^\top (C + \delta I) \Delta - g^\top \Delta

    over the rows of important nodes alone; all other parameters stay bit by bit. A node's importance is the share of
    its edges that go, carried on to its neighbours (:func:`graphrec.unlearning.neighbourhood.touched_share`); those
    above a quantile of the nodes touched are updated. Rows of users who keep no training edge start anew; what is left
    of F elsewhere is not known: the outcome is ``approximate``.

    L is the model's own loss (the paper's is pointwise cross entropy). Published, and here under ``paper_exact``: the
    quadratic is descended by Adam, which is not run to its end, and C is the Hessian of a *plain MF* loss on the same
    tables though g propagates (only for models without other parameters). The code picks the iterate by validation
    AUC; here it is the lowest one. By default C is that of the model's own objective, solved by
    conjugate gradients.

    Attributes:
        solver: ``cg`` or ``adam``.
        hops: how far importance is carried.
        quantile: of the importance of the nodes touched, above which rows are updated; 0: all of them.
        lr: of ``adam``, on n Δ with n the number of training edges; published: 1e3 to 2e4.
        adam_steps: at most.
        patience: checks, one every 10 steps, that find no lower iterate, after which ``adam`` ends.
        paper_exact: the published solver and curvature, whatever those options say.
    """

    name: ClassVar[str] = "ifru"
    solver: Solver = "cg"
    hops: int = 1
    quantile: float = 0.4
    lr: float = 1e3
    adam_steps: int = 5000
    patience: int = 10
    paper_exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver not in ("cg", "adam"):
            raise unknown("solver", self.solver, ("cg", "adam"))
        if not 0 <= self.quantile < 1 or self.hops < 0:
            raise InputError(
                f"quantile must lie in [0, 1) and hops be 0 or more, found {self.quantile} and {self.hops}."
            )
        if not self.lr > 0 or self.adam_steps < 1 or self.patience < 1:
            raise InputError(
                f"lr must be above 0, adam_steps and patience 1 or more, found {self.lr}, {self.adam_steps}, "
                f"{self.patience}."
            )

    def products(self, task: Task) -> int:
        """Adam's steps at most, where it is asked for, and three gradients."""
        by_adam = self.paper_exact or self.solver == "adam"
        return self.adam_steps + 3 if by_adam else super().products(task) + 1

    def important(self, task: Task) -> dict[str, Tensor]:
        """The nodes whose rows are updated, (N,) bool by node type."""
        share = touched_share(task.model.graph_inputs.graph, task.removed, self.hops)
        touched = torch.cat([value[value > 0] for value in share.values()])
        least = touched.quantile(self.quantile) if self.quantile else touched.new_zeros(())
        return {name: (value > 0) & (value >= least) for name, value in share.items()}

    def moved(self, task: Task, made: Objective, facts: Facts) -> Tensor:
        """See the class."""
        theta = made.theta
        w_loss, w_graph = made.weights(task.removed)
        before = made.gradient(theta)
        direct = before - made.gradient(theta, w_loss, None)
        right = before - made.gradient(theta, w_loss, w_graph)
        chosen = rows_of(made, self.important(task))
        facts |= {
            "direct_norm": float(direct.norm()),
            "spillover_norm": float((right - direct).norm()),
            "share_of_parameters": float(chosen.double().mean()),
        }
        if self.paper_exact:
            product = _plain(task, made).curvature(theta, gauss_newton=False)
            return theta + self._by_adam(restricted(product, chosen), right * chosen, made.num_edges, facts)
        if self.solver == "adam":
            product = made.curvature(theta, gauss_newton=self.curvature == "gauss_newton")
            return theta + self._by_adam(restricted(product, chosen), right * chosen, made.num_edges, facts)
        accept = self.lowers(made, before, right, w_loss, w_graph)
        return theta + self.solve(made, right, facts, chosen=chosen, accept=accept)

    def _by_adam(self, product: Operator, right: Tensor, count: int, facts: Facts) -> Tensor:
        """The lowest iterate of Adam on the quadratic, from 0."""
        step = torch.zeros_like(right).requires_grad_()
        optimiser = torch.optim.Adam([step], lr=self.lr / count)
        best, lowest, left = torch.zeros_like(right), 0.0, 1.0
        since = taken = 0
        while taken < self.adam_steps and since < self.patience and left > self.tolerance:
            point = step.detach()
            curved = product(point)
            taken += 1
            if taken % 10 == 1:
                height = float(point @ (0.5 * curved - right))
                since = 0 if height < lowest or taken == 1 else since + 1
                if height < lowest:
                    best, lowest, left = point.clone(), height, float((curved - right).norm() / right.norm())
            step.grad = curved - right
            optimiser.step()
        facts["curvature"] = "plain MF hessian" if self.paper_exact else self.curvature
        return said(Solution(best, left, taken, left <= self.tolerance), facts)


def _plain(task: Task, made: Objective) -> Objective:
    """The objective of BPRMF on the model's own tables."""
    if set(made.shapes) != {"user_embedding", "item_embedding"}:
        more = ", ".join(sorted(set(made.shapes) - {"user_embedding", "item_embedding"}))
        raise InputError(
            f"paper_exact takes the Hessian of a plain MF loss, which does not know {more} of "
            f"{type(task.model).__name__}; leave paper_exact off."
        )
    names = set(inspect.signature(BPRMF.__init__).parameters) - {"self", "inputs"}
    settings = {name: value for name, value in task.model.hparams.items() if name in names}
    model = BPRMF.unfilled(task.model.graph_inputs, settings)
    model.load_state_dict({name: task.model.get_parameter(name) for name in made.shapes}, strict=False)
    return objective(model, negatives="frozen", num_negatives=made.terms.count or "all", seed=task.seed)
