r"""Because you listened to …: the user's training interactions that a score rests on, each tested by removing it.

Candidates are ranked by influence, :math:`f(\text{without } e) - f`, of each of the user's interactions on the score:
one linear system for all of them (:mod:`graphrec.influence.estimators`, ``derivative``). What is said of the first ones
is then measured, never taken from the ranking:

- *deleted*: the interaction is taken out of the graph, everything made from edges is made anew, the parameters stay;
- *unlearned*: the parameters also take the step that leads to the objective without the interaction (``gif``), an
  estimate of training again.

Where a model has no ranking loss to take influence from, or double backward through it would take minutes, candidates
are ranked by the first of the two; a closed form is solved again without each, which is training again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.influence.estimators import attribute
from graphrec.influence.inverse import Inverse
from graphrec.influence.nodes import named_node
from graphrec.influence.objective import Objective, objective
from graphrec.influence.queries import score_query
from graphrec.models.base import GraphRecommender
from graphrec.models.deletion import without_edges
from graphrec.randomness import derive
from graphrec.reports.explanation import Because, Support

By = Literal["auto", "influence", "deletion"]
BY = ("auto", "influence", "deletion")

_DOUBLE_BACKWARD_UP_TO = 20_000
"""Training edges up to which a model without closed forms is differentiated twice by ``auto``."""
_DOUBLE_UP_TO = 1_000_000


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
        by: how candidates are ranked; ``auto``: by influence where there is a closed form for it or the data are small,
            else by deletion. A model that is solved is always solved again.
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
    if made is None:
        how = "deletion" if model.phases() else "solved again"
        candidates = subject.nearest(most)
        drops = subject.deleted(candidates)
        order = np.argsort(-drops, kind="stable")
        supports = [subject.support(candidates[n], None, drops[n], None) for n in order[:k]]
        others = [drops[n] for n in _drawn(order[k:], controls, seed)]
        return _because(subject, how, supports, others, len(candidates), {"seconds": time.perf_counter() - started})
    query = score_query(made, torch.tensor([user], device=made.device), torch.tensor([item], device=made.device))
    options = {"damping": damping, "tolerance": tolerance, "max_iterations": max_iterations}
    inverse = Inverse(made, made.theta, **options)  # type: ignore[arg-type]
    found = attribute(made, made.theta, query, inverse=inverse, edges=places)
    influence = found.influence[0]
    order = np.argsort(influence, kind="stable")
    chosen = np.concatenate([order[:k], _drawn(order[k:], controls, seed)])
    stepped = -attribute(made, made.theta, query, estimator="gif", inverse=inverse, edges=places[chosen]).influence[0]
    top = chosen[:k]
    deleted = subject.deleted(places[top])
    supports = [
        subject.support(places[n], float(influence[n]), drop, float(step))
        for n, drop, step in zip(top, deleted, stepped, strict=False)
    ]
    facts = {
        "damping": inverse.damping,
        "relative_residual": inverse.worst,
        "gradient_norm": found.gradient_norm,
        "products": float(inverse.products),
        "seconds": time.perf_counter() - started,
    }
    return _because(subject, "influence", supports, stepped[len(top) :].tolist(), len(places), facts)


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

    def score(self, model: GraphRecommender) -> float:
        device = model.device
        users, items = torch.tensor([self.user], device=device), torch.tensor([self.item], device=device)
        with torch.no_grad():
            return float(model.score(users, items)[0, 0])

    def deleted(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """What the score loses without each interaction alone."""
        target = self.model.graph_inputs.target
        whole = self.score(without_edges(self.model, {}))
        drops = [whole - self.score(without_edges(self.model, {target: self.store.edge_id[[n]]})) for n in places]
        return np.array(drops, dtype=np.float64)

    def nearest(self, most: int) -> NDArray[np.int64]:
        """The interactions whose items have the most alike representations, all where the model has none."""
        if len(self.places) <= most or not self.model.encodes():
            return self.places[:most]
        with torch.no_grad():
            rows = self.model.encoded().items
        own = torch.nn.functional.cosine_similarity(rows[self.store.edge_index[1][self.places]], rows[[self.item]])
        return self.places[np.argsort(-own.cpu().numpy(), kind="stable")[:most]]

    def support(self, place: int, influence: float | None, deleted: float, unlearned: float | None) -> Support:
        code = int(self.store.edge_index[1, place])
        shown = named_node(self.data, self.model.graph_inputs.target[2], code)
        return Support(shown, int(self.store.edge_id[place]), influence, float(deleted), unlearned)


def _because(
    subject: _Subject, by: str, supports: list[Support], controls: list[float], candidates: int, facts: dict[str, float]
) -> Because:
    verb = subject.model.graph_inputs.target[1]
    drops = tuple(float(value) for value in controls)
    return Because(verb, by, tuple(supports), drops, candidates, len(subject.places), facts)


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
    if not _ranks(model):
        return None
    made = objective(model, data, dtype=dtype, terms="rank", num_negatives=1, seed=seed)
    return made if made.closed_form or made.num_edges <= _DOUBLE_BACKWARD_UP_TO else None


def _ranks(model: GraphRecommender) -> bool:
    """Whether the model is trained by a ranking loss that there is an objective for."""
    words = ("bpr", "bce", "softmax")
    return getattr(model, "loss_name", None) in words or model.objective in words


def _drawn(order: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """``count`` of the numbers, or all there are."""
    return np.random.default_rng(derive(seed, "because/controls")).permutation(order)[:count]
