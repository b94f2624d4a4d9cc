"""The influence encoder of UnlearnRec: from the edges to forget and a trained model to tables that never saw them.

Letters: U users, I items, N = U + I nodes (users first), D width, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise
from graphrec.layers.spmm import spmm

Stage = Literal["pretrain", "finetune"]


def request_matrix(users: Tensor, items: Tensor, shape: tuple[int, int]) -> Adjacency:
    r"""The users x items block R of :math:`\hat A_\Delta = D^{-1/2} A_\Delta D^{-1/2}`, with the request's own degrees.

    Args:
        users: (M,) int64, the users of the edges to forget; parallel edges add up to one entry of weight 1.
        items: (M,) int64.
        shape: (U, I).
    """
    keys = torch.unique(users * shape[1] + items)
    edges = torch.stack([keys // shape[1], keys % shape[1]]) if len(keys) else keys.new_empty(2, 0)
    return normalise(Adjacency.from_edges(edges, shape))


class InfluenceEncoder(nn.Module):
    r"""The encoder (Chen et al., SIGIR 2025, https://arxiv.org/abs/2505.22649, section 3.2).

    .. math:: H^l = \hat A_\Delta H^{l-1}, \quad W^0 = \eta \odot \bar E, \quad W^l = \hat A_\Delta W^{l-1}, \quad
              \Delta E = \sum_{l=0}^{L} H^l - \rho W^L, \quad
              \tilde E^0 = E^0 + f_M \circ \dots \circ f_1(\Delta E)

    with :math:`f_k(X) = \mathrm{LeakyReLU}_s(X W_k + b_k)`, the table H⁰ and the rates η learned in pre-training, and
    W, b (first the identity and 0) learned in fine-tuning alone. The paper scales the *original* embeddings by η, its
    code the *final* ones Ē; the code's side is taken.

    Since l = 0 is in the sum, the published encoder moves every node, and an empty request moves all of them. Here a
    node moves only where the request has an edge at it, so that an empty request is the identity;
    ``everywhere=True`` of :meth:`forward` is the published form.

    Args:
        num_users: U.
        num_items: I.
        dim: D.
        num_layers: L, the backbone's depth.
        transforms: M.
        slope: s; .99 in the authors' example, .5 in their ML-1M runs.
        withdrawal: ρ.
        initial_rate: η before pre-training; twice the learning rate in the authors' code.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        num_layers: int = 3,
        transforms: int = 2,
        slope: float = 0.99,
        withdrawal: float = 0.1,
        initial_rate: float = 2e-3,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise InputError(f"the influence encoder needs num_layers of at least 1, found {num_layers}.")
        if transforms < 0:
            raise InputError(f"transforms must be 0 or more, found {transforms}.")
        self.num_users, self.num_layers, self.slope, self.withdrawal = num_users, num_layers, slope, withdrawal
        size = num_users + num_items
        self.shift = nn.Parameter(torch.zeros(size, dim))
        self.rates = nn.Parameter(torch.full((size, 1), initial_rate))
        self.weights = nn.ParameterList([nn.Parameter(torch.eye(dim)) for _ in range(transforms)])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(1, dim)) for _ in range(transforms)])
        self.learn("pretrain")

    def learn(self, stage: Stage) -> Sequence[nn.Parameter]:
        """The parameters that a stage trains: H⁰ and η, or W and b; the others get no gradient."""
        own, transforms = [self.shift, self.rates], [*self.weights, *self.biases]
        for parameter in own:
            parameter.requires_grad_(stage == "pretrain")
        for parameter in transforms:
            parameter.requires_grad_(stage == "finetune")
        return own if stage == "pretrain" else transforms

    def propagate(self, request: Adjacency, x: Tensor) -> Tensor:
        r""":math:`\hat A_\Delta X`, (N, D)."""
        users, items = x[: self.num_users], x[self.num_users :]
        return torch.cat([spmm(request, items), spmm(request.transposed, users)])

    def layers(self, request: Adjacency) -> list[Tensor]:
        """H⁰ to Hᴸ, each (N, D)."""
        found: list[Tensor] = [self.shift]
        for _ in range(self.num_layers):
            found.append(self.propagate(request, found[-1]))
        return found

    def influence(self, final: Tensor, request: Adjacency, layers: Sequence[Tensor] | None = None) -> Tensor:
        """ΔE, (N, D), before the transformations.

        Args:
            final: (N, D), Ē: the final representations of the trained model on the whole graph.
            request: the (U, I) matrix of :func:`request_matrix`.
            layers: what :meth:`layers` gave, where it is there already.
        """
        withdrawn = self.rates * final
        for _ in range(self.num_layers):
            withdrawn = self.propagate(request, withdrawn)
        return torch.stack(list(layers or self.layers(request))).sum(0) - self.withdrawal * withdrawn

    def transform(self, influence: Tensor) -> Tensor:
        """f_M ∘ … ∘ f_1 of rows (n, D)."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            influence = functional.leaky_relu(influence @ weight + bias, self.slope)
        return influence

    def forward(
        self,
        ego: Tensor,
        final: Tensor,
        request: Adjacency,
        *,
        layers: Sequence[Tensor] | None = None,
        everywhere: bool = False,
    ) -> Tensor:
        r""":math:`\tilde E^0`, (N, D): the tables after the request.

        Args:
            ego: (N, D), E⁰: the tables of the trained model.
            final: (N, D), Ē.
            request: the (U, I) matrix of :func:`request_matrix`.
            layers: what :meth:`layers` gave, where it is there already.
            everywhere: whether nodes without an edge in the request move too, as published.
        """
        influence = self.influence(final, request, layers)
        if everywhere:
            return ego + self.transform(influence)
        rows = touched(request).nonzero()[:, 0]
        return ego.index_add(0, rows, self.transform(influence[rows]))

    @torch.no_grad()
    def forget(self, rows: Tensor) -> None:
        """Take rows (n,) of H⁰ and η out: 0 stands in their place."""
        self.shift[rows] = 0.0
        self.rates[rows] = 0.0


def touched(request: Adjacency) -> Tensor:
    """The nodes at which the request has an edge, (N,) bool."""
    return torch.cat([request.degrees(0), request.degrees(1)]) > 0
