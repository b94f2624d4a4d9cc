"""What methods that use derivatives of the training loss share: the objective, the solve, the way back."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.influence.objective import Objective, objective
from graphrec.influence.ranking_terms import ALL_NEGATIVES_UP_TO
from graphrec.influence.solvers import Operator, Solution, conjugate_gradient, largest_eigenvalue, lissa
from graphrec.models.base import EdgeWeight, GraphRecommender
from graphrec.models.pairwise import PairwiseRecommender
from graphrec.unlearning.emptied import start_anew
from graphrec.unlearning.methods.base import Exactness, Outcome, Task, Unlearner, timed
from graphrec.unlearning.methods.estimates import Estimate, Pace, conjugate_gradient_products

Solver = Literal["cg", "lissa"]
Curvature = Literal["gauss_newton", "hessian"]
Facts = dict[str, float | int | str]

POWER_STEPS = 10
"""Products that the largest eigenvalue is estimated by."""

TRIPLES = 2_000_000
"""Triples (edge, negative) that the objective is made of where all negatives would be too many."""


def no_ranking_loss(model: type[GraphRecommender] | GraphRecommender) -> str | None:
    """Why a model has no fixed ranking objective, in one clause; None where it has one."""
    kind = model if isinstance(model, type) else type(model)
    if not issubclass(kind, PairwiseRecommender):
        return "it is not trained to rank on (user, item, negatives), so that it has no such loss to differentiate"
    words = ("bpr", "bce", "softmax")
    if kind.objective is not PairwiseRecommender.objective and (
        isinstance(model, type) or model.objective not in words
    ):
        return "its loss is no ranking loss over (user, item, negatives)"
    return None


def whole_loss(model: GraphRecommender) -> bool:
    """Whether the ranking loss and its regulariser are all that the model is trained on."""
    kind = type(model)
    return kind.pair_loss is PairwiseRecommender.pair_loss and kind.phases is PairwiseRecommender.phases  # type: ignore[attr-defined]


def training_objective(task: Task, *, readmit: bool = True, num_negatives: int | None = None) -> Objective:
    """The fixed objective that the task's model stands for, on all its edges, in float64.

    Args:
        task: the request.
        readmit: whether a forgotten item may become a negative of its user, as in retraining; where a user has an item
            twice, negatives stay as they are.
        num_negatives: of each edge; None: all where that is few, else as many as make :data:`TRIPLES`.
    """
    inputs = task.model.graph_inputs
    users, items = inputs.graph[inputs.target].edge_index
    keys = users * inputs.num_items + items
    if num_negatives is None and len(keys) * inputs.num_items > ALL_NEGATIVES_UP_TO:
        num_negatives = max(1, TRIPLES // len(keys))
    return objective(
        task.model,
        negatives="readmit" if readmit and len(torch.unique(keys)) == len(keys) else "frozen",
        num_negatives=num_negatives,
        terms="all" if whole_loss(task.model) else "rank",
        seed=task.seed,
    )


def rows_of(made: Objective, nodes: Mapping[str, Tensor]) -> Tensor:
    """Which parameters are rows of some nodes, (n,) bool over θ.

    Args:
        made: the objective.
        nodes: (N,) bool by node type.
    """
    owner = made.model.row_parameters
    parts = {}
    for name, shape in made.shapes.items():
        chosen = torch.zeros(shape, dtype=torch.bool, device=made.device)
        if owner.get(name) in nodes:
            chosen[nodes[owner[name]].to(made.device)] = True
        parts[name] = chosen
    return made.flatten(parts)


def restricted(product: Operator, chosen: Tensor | None) -> Operator:
    """The product cut to some parameters, (n,) bool; others come out as 0."""
    if chosen is None:
        return product
    kept = chosen.double()
    return lambda v: kept * product(kept * v)


@torch.no_grad()
def with_parameters(task: Task, made: Objective, theta: Tensor) -> GraphRecommender:
    """The task's model on what remains, with the parameters θ (n,), everything derived made from them.

    Rows that nothing stands behind any more start anew.
    """
    model = task.rebuilt()
    for name, value in made.unflatten(theta).items():
        model.get_parameter(name).copy_(value)
    start_anew(model, task)
    held = model.state_dict()
    for name, derived in model.derived().items():
        if name in held:
            setattr(model, name, derived.rebuild())
    return model.eval()


@dataclass(frozen=True)
class OnObjective(Unlearner):
    """A method that moves the parameters by derivatives of the model's fixed objective.

    Attributes:
        readmit: whether a forgotten item may become a negative of its user, as in retraining.
        num_negatives: of each edge in the fixed objective; None: all where they are few, else as many as make two
            million triples.
    """

    exactness: ClassVar[Exactness] = "approximate"
    readmit: bool = True
    num_negatives: int | None = None

    @classmethod
    def refuses(cls, model: GraphRecommender | type[GraphRecommender]) -> str | None:
        """Only a ranking loss over (user, item, negatives) makes a fixed objective."""
        return no_ranking_loss(model)

    def unlearn(self, task: Task) -> Outcome:
        """Take the step, at the model's present parameters."""
        seconds: dict[str, float] = {}
        if task.resolved.empty:
            return Outcome(copy.deepcopy(task.model), self.exactness, {"request": 0.0})
        facts: Facts = {"objective": "whole" if whole_loss(task.model) else "ranking loss alone"}
        with timed(seconds, "request"):
            if not task.removed:  # nothing goes that the model was trained on
                model = task.rebuilt()
                start_anew(model, task)
                return Outcome(model.eval(), self.exactness, seconds, facts)
            made = training_objective(task, readmit=self.readmit, num_negatives=self.num_negatives)
            theta = self.moved(task, made, facts)
            model = with_parameters(task, made, theta)
        return Outcome(model, self.exactness, seconds, facts)

    def estimate(self, task: Task, pace: Pace) -> Estimate:
        """Products with the curvature, after one was timed on the model's own objective."""
        count = self.products(task)

        def make() -> Callable[[], object]:
            made = training_objective(task, readmit=self.readmit, num_negatives=self.num_negatives)
            product, along = made.curvature(made.theta), made.gradient(made.theta)
            return lambda: product(along)

        one = pace.timed(("product", self.readmit, self.num_negatives), make)
        basis = f"about {count} products with the curvature, {one:.2g} s each, timed"
        return Estimate(count * one, {"products": count}, basis)

    @abstractmethod
    def products(self, task: Task) -> int:
        """About how many products with the curvature a request takes, gradients counted as one each."""

    @abstractmethod
    def moved(self, task: Task, made: Objective, facts: Facts) -> Tensor:
        """The new θ (n,); adds to ``facts``."""


@dataclass(frozen=True)
class SecondOrder(OnObjective):
    """One step Δθ that solves (C + δ I) Δθ = g, with C the curvature of the objective.

    Attributes:
        curvature: ``gauss_newton``: the positive part of the Hessian alone, which is too stiff near an optimum;
            ``hessian``: exact, and where that has a direction of negative curvature (a training stopped early), as the
            other. A step that does not lower the objective is taken again with ten times the damping.
        damping: δ as a share of the largest eigenvalue of C. A training that was stopped early has not followed flat
            directions to their end; what is small against δ is not followed here either.
        iterations: products with C at most.
        tolerance: relative residual of the solver to stop at.
    """

    curvature: Curvature = "hessian"
    damping: float = 1e-2
    iterations: int = 100
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.curvature not in ("gauss_newton", "hessian"):
            raise unknown("curvature", self.curvature, ("gauss_newton", "hessian"))
        if self.damping < 0 or not self.tolerance > 0 or self.iterations < 1:
            raise InputError(
                f"damping must be 0 or more, tolerance above 0 and iterations 1 or more, found {self.damping}, "
                f"{self.tolerance} and {self.iterations}."
            )

    def products(self, task: Task) -> int:
        """The largest eigenvalue's and the solver's, with one more for each gradient and value."""
        own = POWER_STEPS if self.damping else 0
        return own + conjugate_gradient_products(self.damping, self.tolerance, self.iterations) + 5

    @staticmethod
    def lowers(
        made: Objective, before: Tensor, right: Tensor, w_loss: Tensor, w_graph: EdgeWeight
    ) -> Callable[[Tensor], bool]:
        """Whether a step lowers the objective on what remains, by a tenth of what the curvature promises at least.

        The objective is tilted by ``before``, the gradient at θ with every edge: without a request θ is its minimum,
        though the training was stopped early.
        """
        theta = made.theta
        start = float(made.value(theta, w_loss, w_graph).detach())

        def accept(step: Tensor) -> bool:
            there = float(made.value(theta + step, w_loss, w_graph).detach() - before @ step)
            return there - start <= -0.05 * float(right @ step)

        return accept

    def solve(
        self,
        made: Objective,
        right: Tensor,
        facts: Facts,
        *,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        chosen: Tensor | None = None,
        accept: Callable[[Tensor], bool] = lambda step: True,
    ) -> Tensor:
        """Δθ for a right-hand side (n,).

        Args:
            made: the objective.
            right: g.
            facts: added to.
            w_loss: weights that the curvature is taken under, as is ``w_graph``.
            w_graph: see there.
            chosen: (n,) bool, the parameters that may move; None: all.
            accept: whether a step may stand.
        """

        def product(gauss_newton: bool) -> Operator:
            return restricted(made.curvature(made.theta, w_loss, w_graph, gauss_newton=gauss_newton), chosen)

        return self.solve_with(product, right if chosen is None else right * chosen, facts, accept)

    def solve_with(
        self,
        product: Callable[[bool], Operator],
        right: Tensor,
        facts: Facts,
        accept: Callable[[Tensor], bool] = lambda step: True,
    ) -> Tensor:
        """:meth:`solve` for any curvature; ``product`` gives it for "is it to be the Gauss-Newton one".

        Raises:
            InputError: no damping makes a step that may stand.
        """
        kinds = ("hessian", "gauss_newton") if self.curvature == "hessian" else ("gauss_newton",)
        products: dict[str, tuple[Operator, float]] = {}
        for times in (1, 10, 100, 1000) if self.damping else (1,):
            for kind in kinds:
                if kind not in products:
                    applied = product(kind == "gauss_newton")
                    largest = largest_eigenvalue(applied, right, steps=POWER_STEPS) if self.damping else 0.0
                    products[kind] = applied, largest
                applied, largest = products[kind]
                try:
                    found = self._solution(applied, right, times * self.damping * largest)
                except InputError:  # negative curvature
                    continue
                if accept(found.x):
                    facts["curvature"] = kind
                    return said(found, facts)
        raise InputError(
            f"{self.name}: no step lowers the objective on what remains, up to a damping of {1000 * self.damping:.3g} "
            "times the curvature's largest eigenvalue; give a larger damping."
        )

    def _solution(self, product: Operator, right: Tensor, damping: float) -> Solution:
        return conjugate_gradient(
            product, right, damping=damping, tolerance=self.tolerance, max_iterations=self.iterations
        )


def series(product: Operator, right: Tensor, facts: Facts, *, damping: float, scale: float, iterations: int) -> Tensor:
    r"""The published solver, :math:`h \leftarrow g + (1 - d) h - C h / s` from h = g, the result h / s.

    Args:
        product: with C.
        right: g (n,).
        facts: added to.
        damping: d.
        scale: s.
        iterations: how often; one more term of the series stands at the start.
    """
    found = lissa(product, right, damping=damping * scale, scale=scale, tolerance=0.0, max_iterations=iterations + 1)
    return said(found, facts)


def said(found: Solution, facts: Facts) -> Tensor:
    """The solution, with what the solver did added to ``facts``."""
    facts |= {
        "relative_residual": found.relative_residual,
        "iterations": found.iterations,
        "damping": found.damping,
        "step_norm": float(found.x.norm()),
    }
    return found.x
