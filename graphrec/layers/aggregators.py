r"""How a node's own vector and the sum over its neighbours become its next vector.

Letters: n rows, D width in, D' width out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec.errors import InputError, unknown

Kind = Literal["bi", "gcn", "sage"]
KINDS: tuple[Kind, ...] = ("bi", "gcn", "sage")
SLOPE = 0.2


class Aggregator(nn.Module):
    r"""One layer of KGAT (Wang et al., KDD 2019, eq. 6 to 8): own vectors E and neighbour sums S, both (n, D).

    .. math::
        \text{bi:}\quad & \mathrm{LReLU}((E + S) W_1 + b_1) + \mathrm{LReLU}((E \odot S) W_2 + b_2) \\
        \text{gcn:}\quad & \mathrm{LReLU}(S W + b) \\
        \text{sage:}\quad & \mathrm{ReLU}([E \| S] W + b)

    with slope 0.2. The paper's ``gcn`` adds E to S; the authors' code, followed here, does not. Weights and biases are
    Xavier-uniform, a bias taken as a (1, D') matrix, as in that code.

    Args:
        kind: one of :data:`KINDS`.
        width: D.
        width_out: D'.
        generator: of the initial values.
    """

    def __init__(self, kind: Kind, width: int, width_out: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("aggregator", kind, KINDS)
        if width < 1 or width_out < 1:
            raise InputError(f"widths of an aggregator must be 1 or more, found {width} and {width_out}.")
        self.kind: Kind = kind
        self.width, self.width_out = width, width_out
        branches = 2 if kind == "bi" else 1
        rows = 2 * width if kind == "sage" else width
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(rows, width_out)) for _ in range(branches)])
        self.biases = nn.ParameterList([nn.Parameter(torch.empty(width_out)) for _ in range(branches)])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            nn.init.xavier_uniform_(weight, generator=generator)
            nn.init.xavier_uniform_(bias.data.view(1, -1), generator=generator)

    def arguments(self) -> tuple[Tensor, ...]:
        """The parameters as :func:`aggregate` takes them."""
        return tuple(p for pair in zip(self.weights, self.biases, strict=True) for p in pair)

    def forward(self, own: Tensor, sums: Tensor) -> Tensor:
        """(n, D) and (n, D) to (n, D')."""
        return aggregate(self.kind, own, sums, self.arguments())


def aggregate(kind: Kind, own: Tensor, sums: Tensor, arguments: Sequence[Tensor]) -> Tensor:
    """:class:`Aggregator` as a function: (n, D) and (n, D) to (n, D'); differentiable twice.

    Args:
        kind: one of :data:`KINDS`.
        own: E.
        sums: S.
        arguments: W₁, b₁, W₂, b₂ for ``bi``, W, b for the others.
    """
    if kind == "bi":
        first, first_bias, second, second_bias = arguments
        added = functional.leaky_relu(torch.addmm(first_bias, own + sums, first), SLOPE)
        return added + functional.leaky_relu(torch.addmm(second_bias, own * sums, second), SLOPE)
    weight, bias = arguments
    if kind == "gcn":
        return functional.leaky_relu(torch.addmm(bias, sums, weight), SLOPE)
    width = own.shape[1]
    return functional.relu(torch.addmm(bias, own, weight[:width]) + sums @ weight[width:])


def aggregate_gradients(
    kind: Kind, own: Tensor, sums: Tensor, arguments: Sequence[Tensor], grad: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The gradients of :func:`aggregate` for one block of rows, from its inputs alone; outside autograd.

    Args:
        kind: as there, and so are own, sums and arguments.
        own: (n, D).
        sums: (n, D).
        arguments: the parameters.
        grad: (n, D').

    Returns:
        of ``own`` (n, D), of ``sums`` (n, D), and of each of ``arguments``.
    """
    if kind == "bi":
        first, first_bias, second, second_bias = arguments
        added = own + sums
        grad_added = _through(torch.addmm(first_bias, added, first), grad, SLOPE)
        to_first = [added.T @ grad_added, grad_added.sum(0)]
        through_added = torch.mm(grad_added, first.T, out=added)
        product = own * sums
        grad_product = _through(torch.addmm(second_bias, product, second), grad, SLOPE)
        to_second = [product.T @ grad_product, grad_product.sum(0)]
        through_product = torch.mm(grad_product, second.T, out=product)
        to_own = torch.addcmul(through_added, through_product, sums)
        return to_own, through_added.addcmul_(through_product, own), to_first + to_second
    weight, bias = arguments
    if kind == "gcn":
        inner = _through(torch.addmm(bias, sums, weight), grad, SLOPE)
        return torch.zeros_like(own), inner @ weight.T, [sums.T @ inner, inner.sum(0)]
    width = own.shape[1]
    inner = _through(torch.addmm(bias, own, weight[:width]).addmm_(sums, weight[width:]), grad, 0.0)
    to_weight = torch.cat([own.T @ inner, sums.T @ inner])
    return inner @ weight[:width].T, inner @ weight[width:].T, [to_weight, inner.sum(0)]


def _through(before: Tensor, grad: Tensor, slope: float) -> Tensor:
    """The gradient ahead of a (leaky) rectifier whose input was ``before``."""
    return torch.ops.aten.leaky_relu_backward(grad, before, slope, False)
