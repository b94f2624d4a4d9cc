r"""The fixed objective that influence is about: the full-batch loss of a model as a function of parameters and edges.

.. math:: L(\theta, w) = \sum_e c_e(w)\, \ell_e(\theta; \hat A(w), \mathcal N_u(w))
          + \tfrac12 \theta^\top \Lambda(w)\, \theta

Parameters are one flat vector θ. Every edge of the ranked behaviour has a weight, 1 where it is there and 0 where it is
deleted, that enters in three places: its loss (``w_loss``), the propagation with its degrees (``w_graph``), and, with
``negatives='readmit'``, the negatives of its user (``w_loss`` too, unless ``w_negatives`` is given).

    made = objective(model, data, num_negatives="all", reg=0.05)     # theta: made.theta, the trained parameters
    made.value(theta)                       # ()     L
    made.per_edge(theta)                    # (E,)   l_e, without coefficient and regulariser
    made.gradient(theta)                    # (n,)   flat
    made.hvp(theta, v)                      # (n,)   H v
    made.gauss_newton(theta, v)             # (n,)   G v, positive semi-definite
    made.curvature(theta)                   # v -> G v (or H v) with all that does not depend on v made once
    made.mixed(theta, q)                    # (E,)   q . c_e with c_e = d/dw_e of the gradient: loss, graph, negatives
    made.mixed_step(theta, delta)           # (n,)   sum of delta_e c_e
    made.weights(removed)                   # (w_loss, w_graph) with 0 for removed edge ids
    made.recommender(theta)                 # a model with these parameters

All take ``w_loss=None`` (E,), ``w_graph=None`` (E,) or a mapping by edge type, ``w_negatives=None``; None is 1
everywhere. The sum over edges is not divided by E: λ and damping are on that scale. Source of the method: Koh and
Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017, https://arxiv.org/abs/1703.04730, with
edges in place of samples.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import EdgeType
from graphrec.influence.loss_terms import check_terms, own_loss
from graphrec.influence.ranking_terms import Negatives, RankingTerms, ranking_terms
from graphrec.models.base import EdgeWeight, GraphRecommender, target_weight
from graphrec.models.pairwise import Loss, Positives

Regulariser = Literal["rows", "table"]
Removed = Tensor | Sequence[int] | Mapping[EdgeType, Any]
"""Edge ids: of the ranked behaviour, or by edge type."""
Operator = Callable[[Tensor], Tensor]


class Objective(ABC):
    """See the module; made by :func:`objective`.

    Args:
        model: a model of the objective's own, in its floating type and evaluation mode.
        terms: the ranking loss.
        reg: λ.
        regulariser: ``table``: Λ = λ I; ``rows``: λ times how often the row is in the loss (see :func:`objective`).

    Attributes:
        edge_index: (2, E) int64, users and items of the training edges of the ranked behaviour.
        edge_id: (E,) int64.
        theta: (n,) the parameters it was made with.
    """

    closed_form: bool = False

    def __init__(self, model: GraphRecommender, terms: RankingTerms, reg: float, regulariser: Regulariser) -> None:
        self.model, self.terms, self.reg, self.regulariser = model, terms, reg, regulariser
        store = model.graph_inputs.graph[model.graph_inputs.target]
        self.edge_index, self.edge_id = store.edge_index.long(), store.edge_id
        self.target = model.graph_inputs.target
        self.shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self.theta = self.flatten(dict(model.named_parameters())).detach().clone()

    @property
    def num_edges(self) -> int:
        """E."""
        return len(self.edge_id)

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of θ and of the weights."""
        return self.theta.dtype

    @property
    def device(self) -> torch.device:
        """Where everything is."""
        return self.theta.device

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Named parameters as one vector (n,)."""
        return torch.cat([tensors[name].reshape(-1) for name in self.shapes])

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """The vector (n,) as named parameters, views of it."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        if theta.shape != (sum(sizes),):
            raise InputError(f"theta must be ({sum(sizes)},), found {tuple(theta.shape)}.")
        parts = theta.split(sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def recommender(self, theta: Tensor) -> GraphRecommender:
        """The model with parameters θ, on all edges, in the objective's floating type."""
        made = copy.deepcopy(self.model)
        with torch.no_grad():
            for name, value in self.unflatten(theta).items():
                made.get_parameter(name).copy_(value)
        return made.eval()

    def ones(self) -> Tensor:
        """(E,) the weights of an objective with every edge."""
        return torch.ones(self.num_edges, dtype=self.dtype, device=self.device)

    def positions(self, removed: Removed) -> Tensor:
        """Places in the edge list of edge ids of the ranked behaviour.

        Raises:
            InputError: an id that is no training edge of the model's graph.
        """
        wanted = removed.get(self.target, ()) if isinstance(removed, Mapping) else removed
        return self._positions(self.target, wanted)

    def _positions(self, edge_type: EdgeType, wanted: Any) -> Tensor:
        graph = self.model.graph_inputs.graph
        if edge_type not in graph.edge_types:
            raise InputError(f"the model's graph has no edges of type {'__'.join(edge_type)}.")
        known = graph[edge_type].edge_id
        wanted = torch.as_tensor(wanted, device=known.device).to(known.dtype).reshape(-1)
        strange = wanted[~torch.isin(wanted, known)]
        if len(strange):
            raise InputError(f"{'__'.join(edge_type)} has no edge {int(strange[0])} in the model's graph.")
        return torch.nonzero(torch.isin(known, wanted))[:, 0]

    def weights(self, removed: Removed) -> tuple[Tensor, EdgeWeight]:
        """``(w_loss, w_graph)`` without some edges, given by edge id; a mapping may name edges of other types too."""
        w_loss = self.ones()
        w_loss[self.positions(removed)] = 0
        if not isinstance(removed, Mapping) or set(removed) <= {self.target}:
            return w_loss, w_loss
        by_type = {self.target: w_loss}
        for edge_type, ids in removed.items():
            if edge_type != self.target:
                places = self._positions(edge_type, ids)
                count = self.model.graph_inputs.graph[edge_type].edge_index.shape[1]
                by_type[edge_type] = torch.ones(count, dtype=self.dtype, device=self.device).index_fill(0, places, 0)
        return w_loss, by_type

    def _weights(self, w_loss: Tensor | None, w_negatives: Tensor | None) -> tuple[Tensor, Tensor]:
        w_loss = self.ones() if w_loss is None else w_loss
        return w_loss, (w_loss if w_negatives is None else w_negatives)

    @abstractmethod
    def pair_scores(self, theta: Tensor, users: Tensor, items: Tensor, w_graph: EdgeWeight = None) -> Tensor:
        """Scores (P,) of pairs, users (P,) and items (P,); differentiable in θ and w_graph."""

    @abstractmethod
    def _scores(self, theta: Tensor, w_graph: EdgeWeight) -> Tensor:
        """Scores (P,) of the pairs of the loss; differentiable, twice and more."""

    def per_edge(
        self, theta: Tensor, w_loss: Tensor | None = None, w_graph: EdgeWeight = None, w_negatives: Tensor | None = None
    ) -> Tensor:
        """The losses ℓ_e (E,)."""
        return self.terms.per_edge(self._scores(theta, w_graph), self._weights(w_loss, w_negatives)[1])

    def value(
        self, theta: Tensor, w_loss: Tensor | None = None, w_graph: EdgeWeight = None, w_negatives: Tensor | None = None
    ) -> Tensor:
        """L, differentiable in everything."""
        weights = self._weights(w_loss, w_negatives)
        total = self.terms.total(self._scores(theta, w_graph), *weights)
        return total + 0.5 * (self.ridge(*weights) * theta * theta).sum()

    def ridge(self, w_loss: Tensor, w_negatives: Tensor) -> Tensor:
        """The diagonal of Λ, () or (n,)."""
        if self.regulariser == "table" or self.reg == 0:
            return torch.as_tensor(self.reg, dtype=self.dtype, device=self.device)
        counts = dict(
            zip(("user_embedding", "item_embedding"), self.terms.row_counts(w_loss, w_negatives), strict=True)
        )
        parts = []
        for name, shape in self.shapes.items():
            if name in counts:
                rows = self._rows_of_table(counts[name], shape[0])
                parts.append(rows[:, None].expand(shape).reshape(-1))
            else:
                parts.append(torch.zeros(shape.numel(), dtype=self.dtype, device=self.device))
        return self.reg * torch.cat(parts)

    @staticmethod
    def _rows_of_table(counts: Tensor, rows: int) -> Tensor:
        return counts if len(counts) == rows else torch.cat([counts, counts.new_zeros(rows - len(counts))])

    def gradient(
        self, theta: Tensor, w_loss: Tensor | None = None, w_graph: EdgeWeight = None, w_negatives: Tensor | None = None
    ) -> Tensor:
        """∇_θ L, (n,)."""
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            value = self.value(theta, w_loss, w_graph, w_negatives)
            return torch.autograd.grad(value, theta)[0].detach()

    def hvp(
        self,
        theta: Tensor,
        v: Tensor,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
    ) -> Tensor:
        """∇²_θθ L v, (n,)."""
        return self.curvature(theta, w_loss, w_graph, w_negatives, gauss_newton=False)(v)

    def gauss_newton(
        self,
        theta: Tensor,
        v: Tensor,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
    ) -> Tensor:
        """(Jᵀ F'' J + Λ) v with J the derivative of the pairs' scores and F'' the loss's Hessian in them: no negative
        eigenvalue.
        """
        return self.curvature(theta, w_loss, w_graph, w_negatives)(v)

    @abstractmethod
    def curvature(
        self,
        theta: Tensor,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
        *,
        gauss_newton: bool = True,
    ) -> Operator:
        """``v -> G v`` (or the Hessian's product), for many v at one θ."""

    @abstractmethod
    def mixed(
        self,
        theta: Tensor,
        q: Tensor,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
        *,
        parts: Sequence[str] = ("loss", "graph", "negatives"),
    ) -> Tensor:
        r""":math:`q^\top c_e` of every edge, (E,), with :math:`c_e = \partial_{w_e} \nabla_\theta L`.

        ``parts`` picks the ways in which an edge acts; ``negatives`` is 0 where they are frozen.
        """

    def mixed_step(
        self,
        theta: Tensor,
        delta: Tensor,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
    ) -> Tensor:
        r""":math:`\sum_e \delta_e c_e`, (n,), for a change of the weights δ (E,): the transpose of :meth:`mixed`."""
        w_loss, w_negatives = self._weights(w_loss, w_negatives)
        by_type = w_graph if isinstance(w_graph, Mapping) else None
        own = target_weight(w_graph, self.target)
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            change = torch.zeros_like(delta).requires_grad_()
            graph: Any = (self.ones() if own is None else own) + change
            graph = {**by_type, self.target: graph} if by_type is not None else graph
            value = self.value(theta, w_loss + change, graph, w_negatives + change)
            gradient = torch.autograd.grad(value, theta, create_graph=True)[0]
            # Linear in the dummy q: its derivative in q is the product with the transpose.
            q = torch.zeros_like(gradient).requires_grad_()
            inner = torch.autograd.grad(gradient, change, q, create_graph=True, materialize_grads=True)[0]
            return torch.autograd.grad(inner, q, delta)[0].detach()


class _Encode(torch.nn.Module):
    """``encode`` as a forward pass, which is what ``functional_call`` calls."""

    def __init__(self, model: GraphRecommender, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, *args: Any, **options: Any) -> Any:
        return getattr(self.model, self.method)(*args, **options)


def call(model: GraphRecommender, method: str, tables: Mapping[str, Tensor], *args: Any, **options: Any) -> Any:
    """A method of the model with other parameters, as a pure function of them."""
    return functional_call(
        _Encode(model, method), {f"model.{name}": value for name, value in tables.items()}, args, options
    )


def objective(
    model: GraphRecommender,
    data: RecDataset | None = None,
    *,
    negatives: Negatives = "frozen",
    num_negatives: int | Literal["all"] | None = None,
    reg: float | None = None,
    regulariser: Regulariser | None = None,
    loss: Loss | None = None,
    positives: Positives | None = None,
    terms: Literal["all", "rank"] = "all",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Objective:
    r"""The fixed objective of a model: its training loss times E with all negatives, or a fixed draw of them.

    Every option that is not given is the model's own. ``objective(model, num_negatives="all", reg=lam,
    positives="edge")`` is :math:`\sum_e w_e \ell_e + \frac\lambda2 \|\theta\|^2`.

    Args:
        model: a trained model; not changed.
        data: the dataset it was trained on; checked against the model's fingerprint where it is given.
        negatives: ``frozen``: deleting (u, i) leaves the negatives of u's other edges as they are; ``readmit``: i may
            be one. See :func:`graphrec.influence.ranking_terms.ranking_terms`.
        num_negatives: n of each edge, ``all``, or None: all on small data, else 1.
        reg: λ; None: the model's.
        regulariser: ``table``: (λ/2) ‖θ‖² over every parameter; ``rows``: λ/2 times the squared norms of the rows of an
            edge's user, item and (as a mean) negatives, as models are trained, tables of users and items alone. None:
            ``table`` where ``reg`` is given, else ``rows``.
        loss: ``bpr``, ``bce`` or ``softmax``; None: the model's.
        positives: ``edge``: all edges alike; ``user``: all users alike; None: the model's.
        terms: ``all``: the whole loss; one with terms that have no fixed value is refused, others are warned of and
            left out. ``rank``: the ranking loss and its regulariser alone are meant.
        dtype: floating type; float32 halves memory and time on large graphs, and solvers stall at about 1e-4.
        seed: of the negatives' draw.

    Returns:
        one with closed forms where the model's representations are linear in its two tables (BPRMF, LightGCN), else one
        by double backward.

    Raises:
        InputError: a closed form; a loss with terms that depend on which examples share a batch or on drawn views
            (``terms='all'``); a loss that ranks nothing; another dataset than the model's.
    """
    from graphrec.influence.general_objective import GeneralObjective
    from graphrec.influence.linear_objective import LinearObjective, is_linear

    inputs = model.graph_inputs
    if data is not None and inputs.fingerprint != data.fingerprint:
        raise InputError(
            f"the model was made from a dataset with fingerprint {inputs.fingerprint}, data has {data.fingerprint}."
        )
    if terms not in ("all", "rank"):
        raise unknown("terms", terms, ("all", "rank"))
    ranking = loss or own_loss(model)
    check_terms(model, terms, loss is not None)
    if regulariser not in (None, "rows", "table"):
        raise unknown("regulariser", str(regulariser), ("rows", "table"))
    regulariser = regulariser or ("rows" if reg is None else "table")
    reg = float(getattr(model, "reg", 0.0)) if reg is None else float(reg)
    own: Positives = getattr(model, "positives", "edge")
    made = ranking_terms(
        inputs.adjacency(),
        inputs.graph[inputs.target].edge_index,
        loss=ranking,
        positives=positives or own,
        negatives=negatives,
        num_negatives=num_negatives,
        seed=seed,
    )
    model = copy.deepcopy(model).to(dtype).eval().requires_grad_(False)
    kind = LinearObjective if is_linear(model) else GeneralObjective
    return kind(model, made, reg, regulariser)
