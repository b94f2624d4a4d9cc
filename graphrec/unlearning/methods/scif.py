"""SCIF: the removed labels are replaced by a mean label, and the rows of the users and items involved follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.influence.objective import Objective
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.neighbourhood import touched_edges
from graphrec.unlearning.second_order import Facts, SecondOrder, rows_of


@dataclass(frozen=True)
class SCIF(SecondOrder):
    r"""SCIF (Li et al., "Selective and Collaborative Influence Function for Efficient Recommendation Unlearning", 2023,
    https://arxiv.org/abs/2304.10199).

    Samples are not dropped but relabelled, with the mean label of their user; the propagation is left as it was, and
    the rows of the users and items of F alone are updated:

    .. math:: \theta = \theta^* + (C + \delta I)^{-1} \sum_{e \in F}
              \big(\nabla \ell_e(\theta^*, 1) - \nabla \ell_e(\theta^*, \bar y)\big), \qquad
              \ell_e(\theta, y) = y\, \mathrm{softplus}(-x_e) + (1 - y)\, \mathrm{softplus}(x_e)

    so that each term is :math:`-(1 - \bar y) \nabla x_e`. The logit :math:`x_e` is the score under ``bce``, and the
    score less the mean score of the edge's negatives under ``bpr`` and ``softmax``. On implicit feedback every positive
    meets negatives that together weigh as much as it does, so that the mean label is 1/2 for everybody: a forgotten
    item is pulled to where its user would be indifferent. (The paper's data are ratings, where users' means differ.)

    The outcome stands on the graph that remains, though the step did not know of it. Only interactions are forgotten
    this way; a request for triples alone moves no parameter. Rows of users who keep no training edge start anew; the
    rest of F is untouched: the outcome is ``approximate``.

    The published right-hand side also has the gradient of the whole objective, which moves a training that was stopped
    early on to its end; that is training, not forgetting, and an empty request would not be the identity. It is left
    out unless ``paper_exact``, and then has the sign that makes it a step towards the optimum.

    Attributes:
        label: ȳ.
        paper_exact: whether the gradient of the whole objective is in the right-hand side.
    """

    name: ClassVar[str] = "scif"
    label: float = 0.5
    paper_exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label < 1:
            raise InputError(f"label must lie in [0, 1), found {self.label}.")

    def moved(self, task: Task, made: Objective, facts: Facts) -> Tensor:
        """See the class."""
        theta = made.theta
        if task.data.target not in task.removed:
            facts["step_norm"] = 0.0
            return theta
        right = (self.label - 1) * self._logit_gradient(made, made.positions(task.removed))
        if self.paper_exact:
            right = right - made.gradient(theta)
        touched = touched_edges(made.model.graph_inputs.graph, task.removed)
        chosen = rows_of(made, {name: count > 0 for name, count in touched.items()})
        facts |= {"right_norm": float(right.norm()), "share_of_parameters": float(chosen.double().mean())}
        return theta + self.solve(made, right, facts, chosen=chosen)

    @staticmethod
    def _logit_gradient(made: Objective, edges: Tensor) -> Tensor:
        """Gradient (n,) of the sum of the logits of some edges, weighed as the objective weighs them."""
        terms, ones = made.terms, made.ones()
        weight = torch.zeros_like(ones).index_copy(0, edges, terms.coefficients(ones)[edges])
        users, items = terms.users[edges], terms.items[edges]
        scale = weight[edges]
        if terms.loss != "bce":
            drawn = torch.nonzero(weight[terms.owner])[:, 0]
            users = torch.cat([users, terms.users[terms.owner[drawn]]])
            items = torch.cat([items, terms.items_of_triples[drawn]])
            scale = torch.cat([scale, -(weight[terms.owner] * terms.shares(ones))[drawn]])
        with torch.enable_grad():
            theta = made.theta.detach().requires_grad_()
            total = (scale * made.pair_scores(theta, users, items)).sum()
            return torch.autograd.grad(total, theta)[0].detach()
