r"""The objective of models whose representations are linear in two tables, with closed forms for every derivative.

With :math:`Z = P(w)\theta` the final rows, S the scores of the pairs of the loss and F(S) the loss,

.. math:: \nabla L = P^\top G + \Lambda\theta, \quad G_u = \sum_v a_{uv} z_v, \; G_v = \sum_u a_{uv} z_u,
          \quad a = F'(S)

.. math:: H v = P^\top O + \Lambda v, \quad O_u = \sum_v (h_{uv} z_v + a_{uv} y_v), \quad Y = P v, \;
          h = F''(S)\,(\langle y_u, z_v\rangle + \langle z_u, y_v \rangle)

(the Gauss-Newton product leaves out a), and :math:`\partial_w \langle\nabla L, q\rangle` is the derivative in w of
:math:`\langle O, P(w)\theta\rangle + \langle G, P(w) q\rangle` with O and G held fixed. Everything is a product with
the sparse matrix of pairs or a propagation: O(T + P d + K E d), and nothing of size (T, d) or (E, d) is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphrec.influence.objective import Objective, Operator, Regulariser, call
from graphrec.influence.ranking_terms import RankingTerms
from graphrec.layers.spmm import sddmm, spmm
from graphrec.models.base import EdgeWeight, GraphRecommender, target_weight
from graphrec.models.lightgcn import LightGCN
from graphrec.randomness import generator

Pair = tuple[Tensor, Tensor]
_TABLES = ("user_embedding", "item_embedding")
_CHUNK_BYTES = 256 * 2**20


def is_linear(model: GraphRecommender) -> bool:
    """Whether the model's representations are one linear map of its two tables, the same for each column.

    Tried on random tables: those of BPRMF and LightGCN (fixed layer weights, any normalisation) are.
    """
    if sorted(name for name, _ in model.named_parameters()) != sorted(_TABLES) or not model.encodes():
        return False
    shapes = [model.get_parameter(name).shape for name in _TABLES]
    if shapes[0][1] != shapes[1][1] or shapes[0][1] < 2:
        return False
    dtype = model.get_parameter(_TABLES[0]).dtype
    stream = generator(0, "linearity")
    width = 2
    draw = [torch.randn(2, shape[0], width, generator=stream, dtype=dtype).to(model.device) for shape in shapes]

    def encode(users: Tensor, items: Tensor) -> Pair:
        made = call(model, "encode", dict(zip(_TABLES, (users, items), strict=True)))
        return made.users, made.items

    try:
        first, second = (encode(draw[0][n], draw[1][n]) for n in (0, 1))
        both = encode(*(2 * x[0] - 3 * x[1] for x in draw))
        narrow = encode(*(x[0][:, :1] for x in draw))
    except (RuntimeError, ValueError):
        return False  # its encoder takes tables of its own width alone
    near = 1e-3 if dtype == torch.float32 else 1e-8
    return all(
        a.shape == x[0].shape
        and torch.allclose(c, 2 * a - 3 * b, atol=near, rtol=near)
        and torch.allclose(n, a[:, :1], atol=near, rtol=near)
        for a, b, c, n, x in zip(first, second, both, narrow, draw, strict=True)
    )


class LinearObjective(Objective):
    """See the module and :class:`graphrec.influence.objective.Objective`."""

    closed_form = True

    def __init__(self, model: GraphRecommender, terms: RankingTerms, reg: float, regulariser: Regulariser) -> None:
        super().__init__(model, terms, reg, regulariser)
        # Degrees of the objective's own floating type, not those of float32 cast to it.
        self._explicit = not isinstance(model, LightGCN) and self.dtype == torch.float64
        if isinstance(model, LightGCN):
            model.matrix = model.graph_inputs.adjacency().with_values(model.edge_values(self.ones()))

    def tables(self, theta: Tensor) -> Pair:
        """θ as the users' (U, D) and the items' (I, D) table."""
        named = self.unflatten(theta)
        return named[_TABLES[0]], named[_TABLES[1]]

    def flat(self, users: Tensor, items: Tensor) -> Tensor:
        """The other way."""
        return self.flatten(dict(zip(_TABLES, (users, items), strict=True)))

    def propagate(self, users: Tensor, items: Tensor, w_graph: EdgeWeight = None) -> Pair:
        """P of tables of any width, differentiable."""
        weight = target_weight(w_graph, self.target)
        if weight is None and self._explicit:
            weight = self.ones()
        encoded = call(self.model, "encode", dict(zip(_TABLES, (users, items), strict=True)), edge_weight=weight)
        return encoded.users, encoded.items

    def pair_scores(self, theta: Tensor, users: Tensor, items: Tensor, w_graph: EdgeWeight = None) -> Tensor:
        """As in the base."""
        final = self.propagate(*self.tables(theta), w_graph)
        return (final[0][users] * final[1][items]).sum(-1)

    def _scores(self, theta: Tensor, w_graph: EdgeWeight) -> Tensor:
        return sddmm(self.terms.pairs, *self.propagate(*self.tables(theta), w_graph))

    def _transposed(self, theta: Tensor, w_graph: EdgeWeight) -> tuple[Pair, Callable[[Tensor, Tensor], Tensor]]:
        """Final rows, and the map ``(users, items) -> Pᵀ`` of them."""
        with torch.enable_grad():
            users, items = (table.detach().requires_grad_() for table in self.tables(theta))
            final = self.propagate(users, items, w_graph)

        def back(by_user: Tensor, by_item: Tensor) -> Tensor:
            found = torch.autograd.grad(final, (users, items), (by_user, by_item), retain_graph=True)
            return self.flat(found[0], found[1])

        return (final[0].detach(), final[1].detach()), back

    def _spread(self, values: Tensor, rows: Pair) -> Pair:
        """Values (P,) of the pairs as a matrix C: C times the items' rows, and its transpose times the users'."""
        pairs = self.terms.pairs
        return spmm(pairs, rows[1], values), spmm(pairs.transposed, rows[0], values)

    @torch.no_grad()
    def gradient(
        self, theta: Tensor, w_loss: Tensor | None = None, w_graph: EdgeWeight = None, w_negatives: Tensor | None = None
    ) -> Tensor:
        """As in the base, in closed form."""
        weights = self._weights(w_loss, w_negatives)
        final, back = self._transposed(theta, w_graph)
        with torch.enable_grad():
            scores = sddmm(self.terms.pairs, *final).requires_grad_()
            slopes = torch.autograd.grad(self.terms.total(scores, *weights), scores)[0]
        return back(*self._spread(slopes, final)) + self.ridge(*weights) * theta

    @torch.no_grad()
    def curvature(
        self,
        theta: Tensor,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
        *,
        gauss_newton: bool = True,
    ) -> Operator:
        """As in the base, in closed form."""
        weights = self._weights(w_loss, w_negatives)
        final, back = self._transposed(theta, w_graph)
        ridge, pairs = self.ridge(*weights), self.terms.pairs
        with torch.enable_grad():
            scores = sddmm(pairs, *final).requires_grad_()
            slopes = torch.autograd.grad(self.terms.total(scores, *weights), scores, create_graph=True)[0]
        fixed = slopes.detach()

        @torch.no_grad()
        def product(v: Tensor) -> Tensor:
            moved = self.propagate(*self.tables(v), w_graph)
            change = sddmm(pairs, moved[0], final[1]) + sddmm(pairs, final[0], moved[1])
            bent = torch.autograd.grad(slopes, scores, change, retain_graph=True)[0]
            outer = self._spread(bent, final)
            if not gauss_newton:
                more = self._spread(fixed, moved)
                outer = outer[0] + more[0], outer[1] + more[1]
            return back(*outer) + ridge * v

        return product

    @torch.no_grad()
    def mixed(
        self,
        theta: Tensor,
        q: Tensor,
        w_loss: Tensor | None = None,
        w_graph: EdgeWeight = None,
        w_negatives: Tensor | None = None,
        *,
        parts: Sequence[str] = ("loss", "graph", "negatives"),
        direct: Pair | None = None,
    ) -> Tensor:
        """As in the base. ``direct`` (U, D) and (I, D), the derivative of a quantity f in the final rows, takes
        ∂f/∂w_e through the graph away from the result: what :func:`graphrec.influence.edge.edge_influence` wants.
        """
        w_loss, w_negatives = self._weights(w_loss, w_negatives)
        result = torch.zeros_like(w_loss)
        final = self.propagate(*self.tables(theta), w_graph)
        moved = self.propagate(*self.tables(q), w_graph)
        pairs = self.terms.pairs
        change = sddmm(pairs, moved[0], final[1]) + sddmm(pairs, final[0], moved[1])
        with torch.enable_grad():
            scores = sddmm(pairs, *final).requires_grad_()
            own, kept = w_loss.clone().requires_grad_(), w_negatives.clone().requires_grad_()
            slopes = torch.autograd.grad(self.terms.total(scores, own, kept), scores, create_graph=True)[0]
            # The regulariser of rows depends on the weights too.
            inner = (slopes * change).sum() + (self.ridge(own, kept) * theta * q).sum()
            bent, by_loss, by_negatives = torch.autograd.grad(
                inner, (scores, own, kept), materialize_grads=True, allow_unused=True
            )
        if "loss" in parts:
            result += by_loss
        if "negatives" in parts:
            result += by_negatives
        if "graph" in parts:
            curved, straight = self._spread(bent, final), self._spread(slopes.detach(), moved)
            outer = [a + b for a, b in zip(curved, straight, strict=True)]
            if direct is not None:
                outer = [a - b for a, b in zip(outer, direct, strict=True)]
            plain = self._spread(slopes.detach(), final)
            result += self.through_graph([(outer, self.tables(theta)), (plain, self.tables(q))], w_graph)
        return result

    def through_graph(self, terms: Sequence[tuple[Sequence[Tensor], Pair]], w_graph: EdgeWeight = None) -> Tensor:
        """∂/∂w Σ ⟨G, P(w) X⟩, (E,), for pairs (G, X) of tables that are held fixed; some columns at a time."""
        own = target_weight(w_graph, self.target)
        weight = self.ones() if own is None else own
        result = torch.zeros_like(weight)
        columns = terms[0][1][0].shape[1]
        step = max(1, _CHUNK_BYTES // (8 * sum(shape[0] for shape in self.shapes.values()) * weight.element_size()))
        for start in range(0, columns, step):
            part = slice(start, start + step)
            for outer, table in terms:
                with torch.enable_grad():
                    live = weight.detach().requires_grad_()
                    columns_of = [x[:, part].contiguous() for x in table]
                    final = self.propagate(columns_of[0], columns_of[1], live)
                    if not final[0].requires_grad and not final[1].requires_grad:
                        return result  # no edge enters the representations
                    grads = tuple(x[:, part].contiguous() for x in outer)
                    result += torch.autograd.grad(final, live, grads)[0]
        return result
