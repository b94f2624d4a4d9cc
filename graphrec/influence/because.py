r"""Because you listened to …: the user's training interactions that a score rests on, each tested by removing it.

Candidates are ranked by influence, :math:`f(\text{without } e) - f`, of each of the user's interactions on the score:
one linear system for all of them (:mod:`graphrec.influence.estimators`, ``derivative``). What is said of the first ones
is then measured, never taken from the ranking:

- *deleted*: the interaction is taken out of the graph, everything made from edges is made anew, the parameters stay;
- *unlearned*: the parameters also take the step that leads to the objective without the interaction (``gif``), an
  estimate of training again.

Where a model has no ranking loss to take influence from, or the linear systems would take more than some seconds,
candidates are ranked by the first of the two; so they are where the estimate is not to be believed
(:mod:`graphrec.influence.trust`), and the explanation says so. A closed form is solved again without each, which is
training again.

What ``by="auto"`` takes, a rule that looks at sizes alone, so that it is the same on every machine:

- influence where the objective's derivatives are written out (linear propagation, factors) and there are at most
  100,000 training interactions, or where the model is differentiated twice and its graph has at most 10,000 edges,
  triples included;
- else deletion: of up to ``most`` interactions where taking one out is giving it the weight 0, as for KGAT and KGIN,
  which costs one forward pass each; of ``k + 2``, those with the largest slopes of the score in their weights, where
  the model has to be built anew for each, as for DiffKG.
"""

from __future__ import annotations

import functools
import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.influence.effects import Deletions, Slopes, slopes
from graphrec.influence.estimators import attribute
from graphrec.influence.inverse import Inverse
from graphrec.influence.nodes import named_node
from graphrec.influence.objective import Objective, objective
from graphrec.influence.queries import differentiated, score_query
from graphrec.influence.trust import Trust
from graphrec.models.base import GraphRecommender
from graphrec.models.deletion import without_edges
from graphrec.randomness import derive
from graphrec.reports.explanation import Because, Support

By = Literal["auto", "influence", "deletion"]
BY = ("auto", "influence", "deletion")

_WRITTEN_OUT_UP_TO = 100_000
"""Training edges up to which ``auto`` takes influence from an objective whose derivatives are written out."""
_DOUBLE_BACKWARD_UP_TO = 10_000
"""Edges of all types up to which ``auto`` differentiates a model twice."""
_DOUBLE_UP_TO = 1_000_000
"""Parameters up to which that is done in double precision."""


def because(
    model: GraphRecommender,
    data: RecDataset,
    user: int,
    item: int,
    *,
    k: int = 3,
    controls: int = 3,
    by: By = "auto",
    most: int = 20,
    damping: float = 1e-3,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
    seed: int = 0,
) -> Because:
    """The user's training interactions that support an item most; see the module.

    Args:
        model: trained on ``data``; not changed.
        data: the dataset.
        user: number.
        item: number.
        k: how many; each is tested by removal.
        controls: how many others of the user's interactions are removed to compare with.
        by: how candidates are ranked; ``auto``: see the module; ``influence`` keeps estimates that are not to be
            believed and warns. A model that is solved is always solved again.
        most: candidates at most where each has to be deleted to be ranked; those whose items are nearest to the item.
        damping: δ as a share of the largest eigenvalue of the Gauss-Newton matrix.
        tolerance: relative residual of the solver.
        max_iterations: products with that matrix for one system.
        seed: of the controls, and of the objective's negatives.

    Raises:
        InputError: an unknown word, or ``by='influence'`` for a model that has none.
    """
    if by not in BY:
        raise unknown("by", by, BY)
    started = time.perf_counter()
    store = model.graph_inputs.graph[model.graph_inputs.target]
    places = torch.nonzero(store.edge_index[0] == user)[:, 0].cpu().numpy()
    made = _objective(model, data, by, seed)
    subject = _Subject(model, data, user, item, made, places)
    if made is None or not len(places):
        how = "deletion" if model.phases() else "solved again"
        return _by_deletion(subject, how, started, k, controls, subject.candidates(most, k, by), seed)
    query = score_query(made, torch.tensor([user], device=made.device), torch.tensor([item], device=made.device))
    options = {"damping": damping, "tolerance": tolerance, "max_iterations": max_iterations}
    inverse = Inverse(made, made.theta, **options)  # type: ignore[arg-type]
    _, slopes_of_score, direct = differentiated(query, made.theta, made)
    solved, gradient = inverse(slopes_of_score[0]), made.gradient(made.theta)
    influence = (made.mixed(made.theta, solved) - direct[0]).double().cpu().numpy()[places]
    drift = -float(solved @ gradient)
    trust = Trust.of(subject.scores(), influence, drift, inverse.worst, tolerance)
    if by == "auto" and trust.refused():
        note = f"Not ranked by influence: {trust.refused()}."
        return _by_deletion(subject, "deletion", started, k, controls, subject.candidates(most, k, by), seed, note)
    order = np.argsort(influence, kind="stable")
    chosen = np.concatenate([order[:k], _drawn(order[k:], controls, seed)])
    stepped = -attribute(made, made.theta, query, estimator="gif", inverse=inverse, edges=places[chosen]).influence[0]
    top = chosen[:k]
    deleted = subject.deleted(places[top])
    supports = [
        subject.support(places[n], float(influence[n]), drop, float(step))
        for n, drop, step in zip(top, deleted, stepped, strict=False)
    ]
    trust = Trust.of(subject.scores(), np.concatenate([influence, stepped]), drift, inverse.worst, tolerance)
    if by == "auto" and trust.refused():
        note = f"Not ranked by influence: {trust.refused()}."
        return _by_deletion(subject, "deletion", started, k, controls, subject.candidates(most, k, by), seed, note)
    note = trust.caution()
    if trust.refused():
        note = f"These estimates are not to be believed: {trust.refused()}. by='deletion' measures instead."
        warnings.warn(note, stacklevel=2)
    facts = {
        "damping": inverse.damping,
        "relative_residual": inverse.worst,
        "gradient_norm": float(gradient.norm()),
        "drift": drift,
        "span": trust.span,
        "spread": trust.spread,
        "products": float(inverse.products),
        "seconds": time.perf_counter() - started,
    }
    return _because(subject, "influence", supports, stepped[len(top) :].tolist(), len(places), facts, note)


def _by_deletion(
    subject: _Subject,
    how: str,
    started: float,
    k: int,
    controls: int,
    candidates: NDArray[np.int64],
    seed: int,
    note: str = "",
) -> Because:
    """Candidates ranked by what the score loses without each; controls are drawn from the others that were tried."""
    drops = subject.deleted(candidates)
    order = np.argsort(-drops, kind="stable")
    supports = [subject.support(candidates[n], None, drops[n], None) for n in order[:k]]
    others = [float(drops[n]) for n in _drawn(order[k:], controls, seed)]
    if len(drops) and not drops.any():
        told = "Deletion shows nothing here: with the same parameters the score does not change."
        note = f"{note} {told}".strip()
    facts = {"seconds": time.perf_counter() - started}
    return _because(subject, how, supports, others, len(candidates), facts, note)


@dataclass(frozen=True, eq=False)
class _Subject:
    """A pair and the user's interactions, by their places in the model's edge list."""

    model: GraphRecommender
    data: RecDataset
    user: int
    item: int
    made: Objective | None
    places: NDArray[np.int64]

    @property
    def store(self) -> Any:
        return self.model.graph_inputs.graph[self.model.graph_inputs.target]

    @functools.cached_property
    def deletions(self) -> Deletions:
        """What scores the pair without some edges."""
        made = Deletions(without_edges(self.model, {}))
        # A score without slopes may yet depend on what is drawn or cut from the edges.
        made.by_weights = made.by_weights and not self.slopes.reason
        return made

    @functools.cached_property
    def slopes(self) -> Slopes:
        """Of the score in the weights of the interactions."""
        return slopes(self.model, self.user, self.item, [self.model.graph_inputs.target])

    def scores(self) -> NDArray[np.float64]:
        """(I,) the user's scores of all items."""
        with torch.no_grad():
            found = self.model.score(torch.tensor([self.user], device=self.model.device))[0]
        return found.double().cpu().numpy()

    def deleted(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """What the score loses without each interaction alone."""
        target = self.model.graph_inputs.target
        whole = self.deletions.score(self.user, self.item)
        removed = [{target: torch.as_tensor(places[[n]])} for n in range(len(places))]
        return np.array([whole - self.deletions.score(self.user, self.item, one) for one in removed], dtype=np.float64)

    def candidates(self, most: int, k: int, by: By) -> NDArray[np.int64]:
        """The interactions that are tried by deletion; see the module."""
        if by != "auto" or not self.model.phases() or self.deletions.by_weights or self.slopes.reason:
            return self.nearest(most)
        each = self.slopes.by_type[self.model.graph_inputs.target].cpu().numpy()[self.places]
        return self.places[np.argsort(-each, kind="stable")[: min(most, k + 2)]]

    def nearest(self, most: int) -> NDArray[np.int64]:
        """The interactions whose items have the most alike representations, all where the model has none."""
        if len(self.places) <= most or not self.model.encodes():
            return self.places[:most]
        with torch.no_grad():
            rows = self.model.encoded().items
        own = torch.nn.functional.cosine_similarity(rows[self.store.edge_index[1][self.places]], rows[[self.item]])
        return self.places[np.argsort(-own.detach().cpu().numpy(), kind="stable")[:most]]

    def support(self, place: int, influence: float | None, deleted: float, unlearned: float | None) -> Support:
        code = int(self.store.edge_index[1, place])
        shown = named_node(self.data, self.model.graph_inputs.target[2], code)
        return Support(shown, int(self.store.edge_id[place]), influence, float(deleted), unlearned)


def _because(
    subject: _Subject,
    by: str,
    supports: list[Support],
    controls: list[float],
    candidates: int,
    facts: dict[str, float],
    note: str = "",
) -> Because:
    verb = subject.model.graph_inputs.target[1]
    drops = tuple(float(value) for value in controls)
    return Because(verb, by, tuple(supports), drops, candidates, len(subject.places), facts, note)


def _objective(model: GraphRecommender, data: RecDataset, by: By, seed: int) -> Objective | None:
    """The objective to take influence from; None where candidates are to be ranked by deletion."""
    if by == "deletion" or not model.phases():
        if by == "influence":
            raise InputError(f"{type(model).__name__} is a closed form: it is solved again without each interaction.")
        return None
    size = sum(parameter.numel() for parameter in model.parameters())
    dtype = torch.float64 if size <= _DOUBLE_UP_TO else torch.float32
    if by == "influence":
        return objective(model, data, dtype=dtype, terms="rank", num_negatives=1, seed=seed)
    graph = model.graph_inputs.graph
    if not _ranks(model) or graph[model.graph_inputs.target].edge_index.shape[1] > _WRITTEN_OUT_UP_TO:
        return None
    made = objective(model, data, dtype=dtype, terms="rank", num_negatives=1, seed=seed)
    every = sum(graph[kind].edge_index.shape[1] for kind in graph.edge_types)
    return made if made.closed_form or every <= _DOUBLE_BACKWARD_UP_TO else None


def _ranks(model: GraphRecommender) -> bool:
    """Whether the model is trained by a ranking loss that there is an objective for."""
    words = ("bpr", "bce", "softmax")
    return getattr(model, "loss_name", None) in words or model.objective in words


def _drawn(order: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """``count`` of the numbers, or all there are."""
    return np.random.default_rng(derive(seed, "because/controls")).permutation(order)[:count]
