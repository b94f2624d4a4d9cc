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

_TRIPLES_AT_A_TIME = 262_144


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
    score less that of the edge's negatives under ``bpr`` and ``softmax``.

    The paper's data are ratings. On implicit feedback every row has the label 1, or, with its negatives counted, 1/2 on
    average: the first forgets nothing, the second (``paper_exact``) pulls a forgotten item to where the user is
    indifferent between it and a random one, far below where retraining leaves it. By default ȳ is the label that the
    model itself gives, on average, to the user's training items that remain (where none remain, to the item's users;
    else to all): the forgotten pair is no longer told apart from the user's others. Measured on ml-100k that still goes
    further than retraining.

    The outcome stands on the graph that remains, though the step did not know of it. Only interactions are forgotten
    this way; a request for triples alone moves no parameter. Rows of users who keep no training edge start anew; the
    rest of F is untouched: the outcome is ``approximate``.

    The published right-hand side also has the gradient of the whole objective, which moves a training that was stopped
    early on to its end; that is training, not forgetting, and an empty request would not be the identity. It is left
    out unless ``paper_exact``, and then has the sign that makes it a step towards the optimum.

    Attributes:
        label: ȳ of everybody; None: as above.
        paper_exact: ȳ = 1/2, and the gradient of the whole objective in the right-hand side.
    """

    name: ClassVar[str] = "scif"
    label: float | None = None
    paper_exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label is not None and not 0 <= self.label < 1:
            raise InputError(f"label must lie in [0, 1), found {self.label}.")

    def moved(self, task: Task, made: Objective, facts: Facts) -> Tensor:
        """See the class."""
        theta = made.theta
        if task.data.target not in task.removed:
            facts["step_norm"] = 0.0
            return theta
        edges = made.positions(task.removed)
        labels = self.labels(made, edges)
        right = self.relabelled(made, edges, labels)
        if self.paper_exact:
            right = right - made.gradient(theta)
        touched = touched_edges(made.model.graph_inputs.graph, task.removed)
        chosen = rows_of(made, {name: count > 0 for name, count in touched.items()})
        facts |= {
            "label": float(labels.mean()),
            "right_norm": float(right.norm()),
            "share_of_parameters": float(chosen.double().mean()),
        }
        return theta + self.solve(made, right, facts, chosen=chosen)

    def labels(self, made: Objective, edges: Tensor) -> Tensor:
        """The labels (M,) that take the place of 1 for some edges, places (M,)."""
        given = 0.5 if self.paper_exact else self.label
        if given is not None:
            return made.theta.new_full((len(edges),), given)
        terms, stays = made.terms, made.ones().index_fill(0, edges, 0)
        predicted = _predicted(made)
        found = ((stays * predicted).sum() / stays.sum().clamp_min(1)).expand(len(edges))
        for ends, size in ((terms.items, terms.pairs.shape[1]), (terms.users, terms.pairs.shape[0])):
            count = stays.new_zeros(size).index_add(0, ends, stays)
            mean = stays.new_zeros(size).index_add(0, ends, stays * predicted) / count.clamp_min(1)
            found = torch.where(count[ends[edges]] > 0, mean[ends[edges]], found)
        return found

    @staticmethod
    def relabelled(made: Objective, edges: Tensor, labels: Tensor) -> Tensor:
        """The right-hand side (n,): the gradients of some edges (M,) at label 1 less those at labels (M,).

        They weigh what they weigh in the objective.
        """
        terms, ones = made.terms, made.ones()
        scale = -(1 - labels) * terms.coefficients(ones)[edges]
        users, items = terms.users[edges], terms.items[edges]
        if terms.loss != "bce":
            weight = torch.zeros_like(ones).index_copy(0, edges, scale)
            drawn = torch.nonzero(weight[terms.owner])[:, 0]
            owner = terms.owner[drawn]
            users = torch.cat([users, terms.users[owner]])
            items = torch.cat([items, terms.items_of_triples[drawn]])
            scale = torch.cat([scale, -weight[owner] * terms.shares(ones)[drawn]])
        with torch.enable_grad():
            theta = made.theta.detach().requires_grad_()
            total = (scale * made.pair_scores(theta, users, items)).sum()
            return torch.autograd.grad(total, theta)[0].detach()


@torch.no_grad()
def _predicted(made: Objective) -> Tensor:
    """The label (E,) that the model gives each training edge: the sigmoid of its logit, over negatives their mean."""
    terms = made.terms
    own = made.pair_scores(made.theta, terms.users, terms.items)
    if terms.loss == "bce":
        return own.sigmoid()
    shares, labels = terms.shares(made.ones()), torch.zeros_like(own)
    for block in torch.arange(len(terms.owner), device=own.device).split(_TRIPLES_AT_A_TIME):
        owner = terms.owner[block]
        against = made.pair_scores(made.theta, terms.users[owner], terms.items_of_triples[block])
        labels.index_add_(0, owner, shares[block] * (own[owner] - against).sigmoid())
    return labels
