"""Why an item was recommended: paths that lead to it in the knowledge graph, interactions that its score rests on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, check_at_least
from graphrec.influence.because import By, because
from graphrec.influence.explainer import Explainer, place_of
from graphrec.influence.nodes import code_of, named_node
from graphrec.models.base import GraphRecommender
from graphrec.reports.explanation import Explanation, Order
from graphrec.runs.run import as_model


def explain(
    model: Any,
    data: RecDataset | None = None,
    *,
    user: Any,
    item: Any,
    k: int = 10,
    max_length: int = 3,
    order: Order = "effect",
    candidates: int = 100,
    alike: int = 3,
    controls: int = 5,
    interactions: int = 3,
    by: By = "auto",
    seed: int = 0,
) -> Explanation:
    """Interactions that a score rests on, and paths through the knowledge graph from user to item.

    A model that reads no knowledge graph is explained by interactions alone ("because you listened to …"). The strength
    of a path comes from the model's attention over typed edges where it has one (``relational_attention()``), else from
    degrees. A strong path need not matter: the score may have it from elsewhere too, or draw it down. Whether a path
    matters is measured: its triples are taken out of the graph, what is derived from edges is made anew, and the pair
    is scored again; beside it stands the same for control triples.

    With ``order="effect"`` the strongest paths are candidates. Each gets an estimate of what the score loses without
    it, from the slopes of the score in the weights of its triples and one backward pass for all of them
    (:meth:`Explainer.effects`). The candidates with the largest estimates and the strongest ones, at
    least ten of each, are measured, and the ``k`` largest measured drops are given, largest first but for
    ``alike``. A model whose score has no slopes in the weights of triples falls back to ``order="strength"``, and the
    explanation says so.

    Args:
        model: a model, a run, a recommender, or the path of a run.
        data: the dataset; None: the run's own, loaded again.
        user: raw id.
        item: raw id.
        k: how many paths; each is measured by scoring again.
        max_length: edges of a path, the user's interaction included, 2 to 4.
        order: ``effect``: by what the score rests on, as above; ``strength``: the strongest first, whatever they do.
        candidates: how many of the strongest paths ``effect`` looks at.
        alike: for ``effect``: paths that reach the item by the same triple as so many before them come after the
            others, for a triple at the item often counts for more than what leads to it; 0: in the order of the drops
            alone.
        controls: how many times other triples, and others of the user's interactions, are taken out to compare with; 0
            for none.
        interactions: how many interactions of the user to name; 0 for none. See
            :func:`graphrec.influence.because.because`.
        by: how they are ranked: by ``influence`` or by ``deletion``; ``auto`` takes what answers within seconds, and
            deletion where the estimate of influence is not to be believed
            (see :mod:`graphrec.influence.because` and :mod:`graphrec.influence.trust`).
        seed: of the choice of controls.

    Raises:
        InputError: an unknown id or order, a number that is too small, or no dataset.
    """
    check_at_least(1, k=k)
    check_at_least(0, controls=controls, interactions=interactions)
    opened, run = as_model(model)
    if data is None:
        if run is None:
            raise InputError("explain needs the dataset: pass data= (only a run knows where its own is).")
        data = run.dataset()
    ends = code_of(data, data.target[0], user), code_of(data, data.target[2], item)
    if getattr(opened, "knowledge", None) is None:
        made = _without_paths(opened, data, *ends)
    else:
        explainer = Explainer(opened, data)
        made = explainer.explain(
            *ends,
            k=k,
            max_length=max_length,
            order=order,
            candidates=candidates,
            alike=alike,
            controls=controls,
            seed=seed,
        )
    if interactions < 1:
        return made
    found = because(opened, data, *ends, k=interactions, controls=controls, by=by, seed=seed)
    return replace(made, because=found)


def _without_paths(model: GraphRecommender, data: RecDataset, user: int, item: int) -> Explanation:
    """The pair, its score and its rank."""
    users = torch.tensor([user], device=model.device)
    with torch.no_grad():
        scores = model.score(users)[0]
    shown = named_node(data, data.target[0], user), named_node(data, data.target[2], item)
    return Explanation(*shown, float(scores[item]), place_of(scores, data, user, item), "", ())
