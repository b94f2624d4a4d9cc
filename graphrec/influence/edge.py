r"""Which training edges a score, a list or a validation loss rests on: the effect of removing each of them.

    frame = edge_influence(model, data, user="u17", item="i3", k=10)
    frame = edge_influence(model, data, user="u17", item="i3", target="list", k=10)
    frame = edge_influence(model, data, target="validation")

The influence of edge e on a quantity f is an estimate of *f without e, less f*: positive where removing the edge raises
f. All edges come of one linear system a quantity,

.. math:: I_f(e) \approx q^\top c_e - \partial_{w_e} f, \qquad (C + \delta I)\, q = \nabla_\theta f, \qquad
          c_e = \partial_{w_e} \nabla_\theta L,

with c_e the change of the gradient through the edge's own loss, the propagation with its degrees, and (``negatives=
'readmit'``) the negatives of its user; the last term is that f itself is computed on the graph.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import EdgeType
from graphrec.graphs.sampling import sample_negatives
from graphrec.influence.estimators import attribute
from graphrec.influence.general_objective import GeneralObjective
from graphrec.influence.inverse import Inverse, SolverName
from graphrec.influence.objective import Objective, Removed, objective
from graphrec.influence.queries import Query, loss_query, part_loss, score_query
from graphrec.randomness import derive
from graphrec.runs.run import as_model
from graphrec.serving.ids import id_array

Target = Literal["score", "list", "validation"]
EdgeEstimator = Literal["derivative", "gif", "newton", "loss_term", "nothing"]
TARGETS = ("score", "list", "validation")
ESTIMATORS = ("derivative", "gif", "newton", "loss_term", "nothing")

_DOUBLE_UP_TO = 1_000_000


def edge_influence(
    rec: Any,
    data: RecDataset | None = None,
    *,
    user: Any = None,
    item: Any = None,
    target: Target = "score",
    estimator: EdgeEstimator = "derivative",
    k: int | None = None,
    edges: Removed | None = None,
    edge_types: Sequence[EdgeType] | Literal["all"] | None = None,
    part: str = "valid",
    contenders: int = 5,
    gauss_newton: bool = True,
    damping: float = 1e-3,
    solver: SolverName = "cg",
    tolerance: float = 1e-3,
    max_iterations: int = 500,
    made: Objective | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> pd.DataFrame:
    """The effect of removing each training edge on a quantity, strongest first; see the module.

    Args:
        rec: a trained model, a run, a recommender, or the path of a run. The formulas are about a stationary point of
            the objective: the frame's ``attrs['gradient_norm']`` says how far the model is from one.
        data: the dataset; None: the run's own, loaded again.
        user: raw id.
        item: raw id. With ``target='list'`` None stands for whichever item of the list comes nearest to leaving it.
        target: the quantity f. ``score``: of the user for the item. ``list``: the item's margin in the user's list of
            k, its score less the k-th largest of the others'; the column ``drops`` names the item that is estimated to
            leave the list without the edge. ``validation``: the mean loss of the pairs of ``part`` (of one user where
            ``user`` is given) against negatives drawn once.
        estimator: ``derivative``: all edges from one system a quantity. ``gif`` and ``newton`` solve one for each edge:
            for some ``edges``, or small data. ``loss_term`` and ``nothing`` are controls; see
            :mod:`graphrec.influence.estimators`.
        k: ``score`` and ``validation``: how many edges to give, None for all; ``list``: length of the list, None for
            10.
        edges: ids of the edges to look at; None: all training edges of the ranked behaviour.
        edge_types: edge types to look at besides or in place of the ranked behaviour's, such as those of triples;
            ``all`` for every one the model reads. ``derivative`` alone, with attention that is kept for an epoch as it
            stands; where shares are normalised, the derivative in a node's only edge is 0 though its deletion is not.
        part: for ``validation``.
        contenders: how many items beyond the list may take a place in it, for ``list``.
        gauss_newton: False for the exact Hessian, positive near a minimum alone.
        damping: δ as a share of the curvature's largest eigenvalue.
        solver: ``cg``, ``lissa``, ``arnoldi`` or ``dense``.
        tolerance: relative residual of the solver.
        max_iterations: products with the curvature for one system.
        made: an objective made earlier, in place of ``options``.
        dtype: floating type; None: float64 up to a million parameters, else float32.
        **options: of :func:`graphrec.influence.objective.objective` (``negatives``, ``num_negatives``, ``reg``, …).

    Returns:
        a frame with the columns user, item, edge_id, influence, and ``drops`` for ``list``; with ``edge_types``
        edge_type, source, target, edge_id, influence. Its ``attrs``: value (of f), relative_residual, iterations,
        damping (absolute), gradient_norm, seconds.

    Raises:
        InputError: an unknown id, a missing user or item, a model without a fixed objective, a curvature that is not
            positive.
    """
    _check_words(target, estimator, k, contenders)
    started = time.perf_counter()
    model, run = as_model(rec)
    if data is None:
        if run is None:
            raise InputError("edge_influence needs the dataset: pass data= (only a run knows where its own is).")
        data = run.dataset()
    if made is None:
        size = sum(parameter.numel() for parameter in model.parameters())
        dtype = dtype or (torch.float64 if size <= _DOUBLE_UP_TO else torch.float32)
        made = objective(model, data, dtype=dtype, **options)
    elif options:
        raise InputError(f"made= is an objective already: {', '.join(options)} would not be used.")
    code = None if user is None else _code(data, made.target[0], user)
    wanted = None if item is None else _code(data, made.target[2], item)
    length = (k or 10) if target == "list" else 0
    query, listed = _query(made, data, target, code, wanted, part, length, contenders)
    inverse = Inverse(
        made,
        made.theta,
        solver=solver,
        gauss_newton=gauss_newton,
        damping=damping,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    with torch.no_grad():
        values = query(made.theta, None).double().cpu().numpy()
    if edge_types is not None:
        if target == "list" or estimator != "derivative" or edges is not None:
            raise InputError(
                "edge_types= goes with target 'score' or 'validation', estimator='derivative' and no edges=."
            )
        frame = _typed_frame(made, data, query, inverse, edge_types)
        facts: dict[Hashable, Any] = {"relative_residual": inverse.worst, "iterations": inverse.products}
        facts["gradient_norm"] = float(made.gradient(made.theta).norm())
    else:
        places = None if edges is None else made.positions(edges).cpu().numpy()
        found = attribute(made, made.theta, query, estimator=estimator, inverse=inverse, edges=places)
        frame = _edge_frame(made, data, found.edges)
        facts = {
            "relative_residual": found.relative_residual,
            "iterations": found.products,
            "gradient_norm": found.gradient_norm,
        }
        if target == "list":
            margins, drops = _margins(values, found.influence, listed, wanted, length)
            frame["influence"] = margins[1] - margins[0]
            names = _decoded(data.vocabularies[made.target[2]], np.maximum(drops, 0))
            names[drops < 0] = None
            frame["drops"] = names
            values = margins[0][:1]
        else:
            frame["influence"] = found.influence[0]
    order = np.argsort(-frame["influence"].abs().to_numpy(), kind="stable")
    frame = frame.iloc[order if k is None or target == "list" else order[:k]].reset_index(drop=True)
    frame.attrs = {
        "target": target,
        "estimator": estimator,
        "value": float(values[0]),
        "damping": inverse.damping,
        "closed_form": made.closed_form,
        "seconds": time.perf_counter() - started,
        **facts,
    }
    return frame


def _check_words(target: str, estimator: str, k: int | None, contenders: int) -> None:
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    for name, number in (("k", k), ("contenders", contenders)):
        if number is not None and number < 1:
            raise InputError(f"{name} must be a positive whole number, found {number}.")


def _code(data: RecDataset, node_type: str, raw: Any) -> int:
    vocabulary = data.vocabularies[node_type]
    if isinstance(raw, str) and vocabulary.numeric and raw.lstrip("-").isdigit():
        raw = int(raw)
    found = int(np.asarray(vocabulary.encode(id_array([raw]), unknown="mark"))[0])
    if found < 0:
        raise InputError(f"{node_type} {raw!r} is not in dataset {data.name!r}.")
    return found


def _query(
    made: Objective,
    data: RecDataset,
    target: str,
    user: int | None,
    item: int | None,
    part: str,
    length: int,
    contenders: int,
) -> tuple[Query, NDArray[np.int64]]:
    """What is asked, and for ``list`` the items whose scores it is, the list first, in its order."""
    nothing = np.empty(0, dtype=np.int64)
    if target == "validation":
        return (part_loss(made, data, part) if user is None else _user_loss(made, data, part, user)), nothing
    if user is None or (item is None and target == "score"):
        raise InputError(f"target={target!r} needs a user" + (" and an item." if target == "score" else "."))
    if target == "score":
        return score_query(made, _ids(made, [user]), _ids(made, [int(item or 0)])), nothing
    num_items = made.model.num_items
    everything = torch.arange(num_items, device=made.device)
    with torch.no_grad():
        scores = made.pair_scores(made.theta, torch.full_like(everything, user), everything)
    seen = made.model.graph_inputs.adjacency().contains(torch.full_like(everything, user), everything)
    scores = scores.masked_fill(seen, -torch.inf)
    order = torch.argsort(scores, descending=True, stable=True)[: int((~seen).sum())]
    if len(order) <= length:
        raise InputError(f"the user's list holds all {len(order)} items without a training edge; give a smaller k.")
    if item is not None and item not in order[:length].tolist():
        place = (order == item).nonzero()
        said = f"its place is {int(place[0, 0]) + 1}" if len(place) else "it is one of the user's training items"
        raise InputError(f"the item is not in the user's list of {length}: {said}.")
    listed = order[: length + contenders]
    return score_query(made, torch.full_like(listed, user), listed), listed.cpu().numpy()


def _user_loss(made: Objective, data: RecDataset, part: str, user: int) -> Query:
    pairs = data.pairs(part)
    own = pairs.items[pairs.users == user]
    if len(own) == 0:
        raise InputError(f"the user has no pairs in part {part!r} of dataset {data.name!r}.")
    items = _ids(made, own.tolist())
    users = torch.full_like(items, user)
    matrix, seed = made.model.graph_inputs.adjacency(), derive(0, "query/negatives")
    return loss_query(made, users, items, sample_negatives(matrix, users, 10, seed=seed, keys=items))


def _ids(made: Objective, ids: Sequence[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64, device=made.device)


def _margins(
    scores: NDArray[np.float64],
    influence: NDArray[np.float64],
    listed: NDArray[np.int64],
    item: int | None,
    length: int,
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], NDArray[np.int64]]:
    """Margins (M,) of the item before and after each removal, and the item that leaves the list, -1 for none.

    Args:
        scores: (Q,) of the listed items, the list first.
        influence: (Q, M) on them.
        listed: (Q,) items.
        item: the item; None: the one of the list with the smallest margin after.
        length: of the list.
    """
    after = scores[:, None] + influence
    # An item is in the list if its score exceeds the length-th largest of the others'.
    descending = -np.sort(-after, axis=0)
    inside = after[:length]
    bar = np.where(inside >= descending[length - 1], descending[length], descending[length - 1])
    margins = inside - bar
    rows = np.argmin(margins, 0) if item is None else np.full(after.shape[1], int(np.flatnonzero(listed == item)[0]))
    columns = np.arange(after.shape[1])
    before = scores[rows] - scores[length]
    left = margins[rows, columns]
    return (before, left), np.where(left < 0, listed[rows], -1)


def _edge_frame(made: Objective, data: RecDataset, places: NDArray[np.int64]) -> pd.DataFrame:
    ends = made.edge_index.cpu().numpy()[:, places]
    return pd.DataFrame(
        {
            "user": data.vocabularies[made.target[0]].decode(ends[0]),
            "item": data.vocabularies[made.target[2]].decode(ends[1]),
            "edge_id": made.edge_id.cpu().numpy()[places],
        }
    )


def _typed_frame(
    made: Objective,
    data: RecDataset,
    query: Query,
    inverse: Inverse,
    edge_types: Sequence[EdgeType] | Literal["all"],
) -> pd.DataFrame:
    """The derivative for edges of several types, by double backward."""
    if not isinstance(made, GeneralObjective):
        made = GeneralObjective(made.model, made.terms, made.reg, made.regulariser)
    graph = made.model.graph_inputs.graph
    kinds = tuple(graph.edge_types) if edge_types == "all" else tuple(edge_types)
    for kind in kinds:
        if kind not in graph.edge_types:
            raise unknown("edge type", "__".join(kind), ("__".join(known) for known in graph.edge_types))
    with torch.enable_grad():
        theta, live = made.theta.detach().requires_grad_(), made.live_weights(kinds)
        value = query(theta, live)[0]  # type: ignore[arg-type]
        slope, *direct = torch.autograd.grad(value, (theta, *live.values()), materialize_grads=True, allow_unused=True)
    own = dict(zip(live, direct, strict=True))
    through = made.mixed_by_type(made.theta, inverse(slope), kinds)
    frames = []
    for kind in kinds:
        ends = graph[kind].edge_index.cpu().numpy()
        frames.append(
            pd.DataFrame(
                {
                    "edge_type": "__".join(kind),
                    "source": _decoded(data.vocabularies[kind[0]], ends[0]),
                    "target": _decoded(data.vocabularies[kind[2]], ends[1]),
                    "edge_id": graph[kind].edge_id.cpu().numpy(),
                    "influence": (through[kind] - own[kind]).double().cpu().numpy(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _decoded(vocabulary: Vocabulary, codes: NDArray[np.int64]) -> NDArray[np.object_]:
    """Raw ids as Python objects, an array of its own."""
    return np.array(vocabulary.decode(codes), dtype=object)
