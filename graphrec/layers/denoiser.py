r"""The denoiser of a sparse relation's rows; the products with its wide layers, each with a backward of its own.

A row of a relation with C columns goes through C -> H -> C, where C is large and H is not. Letters: B rows, C columns,
H hidden width, D width of a guide. Nothing of size (C, C) is made; a weight of size (C, H) gets one gradient of that
size and no second one is ever held beside it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec import randomness
from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.dropout import dropout
from graphrec.layers.spmm import multiply, products_at_entries

Precision = Literal["float32", "bfloat16"]

CHUNK = 16384
"""Columns of a wide layer that are turned into half precision at a time."""

# Narrower blocks of a Gram matrix are slower than what they save.
_GRAM_COLUMNS = 64


class Denoiser(nn.Module):
    r"""Two layers that predict a clean row from a noisy one and the step of its noise.

    .. math:: \theta(z, t) = W_2 \tanh\Big(W_1 \big[\mathrm{drop}(z / \|z\|) \,\|\, A\,c(t) + a\big] + b_1\Big) + b_2

    with c(t) = [cos(t f) ‖ sin(t f)], f_i = 10000^{-i/(n/2)}; weights N(0, 2/(fan in + fan out)), biases N(0, 10⁻⁶)
    (DiffKG, WSDM 2024, https://arxiv.org/abs/2312.16890; Wang et al., SIGIR 2023, for rows of users). A row of zeros
    stays one. Both wide weights are (C, H): a sparse row picks rows of them.

    Args:
        num_columns: C.
        hidden: H.
        time_dim: n, an even number.
        dropout: share of the normalised row's entries left out in training.
        precision: ``bfloat16`` multiplies wide layers with training's noisy rows, and clean rows' ranking, in half
            precision: about twice as fast on CPUs that know it, half of the memory of a block of rows; weights, sums
            over columns and everything of width H stay as they are.
        seed: seeds the initial weights.
    """

    def __init__(
        self,
        num_columns: int,
        *,
        hidden: int = 1000,
        time_dim: int = 10,
        dropout: float = 0.5,
        precision: Precision = "float32",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("num_columns", num_columns), ("hidden", hidden)):
            if size < 1:
                raise InputError(f"{name} must be a positive whole number, found {size}.")
        if time_dim < 2 or time_dim % 2:
            raise InputError(f"time_dim must be a positive even number, found {time_dim}.")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must lie in [0, 1), found {dropout}.")
        if precision not in ("float32", "bfloat16"):
            raise unknown("precision", precision, ("float32", "bfloat16"))
        self.num_columns, self.hidden, self.time_dim = num_columns, hidden, time_dim
        self.dropout, self.precision = dropout, precision
        self.input_weight = nn.Parameter(torch.empty(num_columns, hidden))
        self.input_bias = nn.Parameter(torch.empty(hidden))
        self.time_weight = nn.Parameter(torch.empty(hidden, time_dim))
        self.code_weight = nn.Parameter(torch.empty(time_dim, time_dim))
        self.code_bias = nn.Parameter(torch.empty(time_dim))
        self.output_weight = nn.Parameter(torch.empty(num_columns, hidden))
        self.output_bias = nn.Parameter(torch.empty(num_columns))
        stream = randomness.generator(seed, "initialisation/denoiser")
        fans = {
            "input_weight": num_columns + time_dim + hidden,
            "time_weight": num_columns + time_dim + hidden,
            "code_weight": 2 * time_dim,
            "output_weight": num_columns + hidden,
        }
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                deviation = math.sqrt(2 / fans[name]) if name in fans else 1e-3
                parameter.normal_(0, deviation, generator=stream)

    def time_code(self, steps: Tensor) -> Tensor:
        """What the step adds to the hidden layer, its bias included: (B,) int64 to (B, H)."""
        half = self.time_dim // 2
        exponents = torch.arange(half, dtype=torch.float64, device=steps.device) / half
        angles = steps.double().unsqueeze(1) * torch.exp(-math.log(10000.0) * exponents)
        code = torch.cat([angles.cos(), angles.sin()], 1).to(self.code_weight.dtype)
        return functional.linear(
            functional.linear(code, self.code_weight, self.code_bias), self.time_weight, self.input_bias
        )

    def forward(self, x: Tensor, steps: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """θ of dense rows, the plain form.

        Args:
            x: (B, C) float.
            steps: (B,) int64.
            generator: where dropout draws from; None: nothing is dropped.

        Returns:
            (B, C).
        """
        x = dropout(functional.normalize(x), self.dropout, generator)
        return functional.linear(self.code(x @ self.input_weight, steps), self.output_weight, self.output_bias)

    def code(self, projected: Tensor, steps: Tensor) -> Tensor:
        """The hidden layer (B, H) of rows whose product with the input weight is known, (B, H)."""
        return torch.tanh(projected + self.time_code(steps))


def project(block: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """``scale[b] * block[b] @ weight``, differentiable in ``weight``.

    Args:
        block: (B, C), of the weight's type or bfloat16, in which it is then multiplied.
        scale: (B,).
        weight: (C, H).

    Returns:
        (B, H) of the weight's type.
    """
    product: Tensor = _Project.apply(block, scale, weight)
    return product


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(block, scale, weight)
        return wide_product(block, weight).mul_(scale.unsqueeze(1))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        block, scale, weight = ctx.saved_tensors
        return None, None, _outer(block, grad * scale.unsqueeze(1), torch.empty_like(weight))


def wide_product(block: Tensor, weight: Tensor) -> Tensor:
    """``block @ weight`` for (B, C) and (C, H), summed in the weight's type whatever the block's."""
    if block.dtype == weight.dtype:
        return block @ weight
    total = weight.new_zeros(block.shape[0], weight.shape[1])
    for start in range(0, weight.shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        total += block[:, part] @ weight[part].to(block.dtype)
    return total


def _outer(block: Tensor, rows: Tensor, out: Tensor) -> Tensor:
    """``blockᵀ rows`` for (B, C) and (B, H), into (C, H)."""
    if block.dtype == out.dtype:
        return torch.mm(block.T, rows, out=out)
    rows = rows.to(block.dtype)
    for start in range(0, out.shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        out[part] = block[:, part].T @ rows
    return out


def output_errors(
    codes: Tensor, weight: Tensor, bias: Tensor, rows: Adjacency, guide: Tensor, first: int, half: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Squared errors of predicted rows, and what a guide makes of them, without keeping the predictions.

    With predictions :math:`\theta = h W^\top + b`: :math:`\sum_j (z_j - \theta_j)^2`, and :math:`\theta_{S} M` for a
    range S of columns. Where B is large beside H the sum over columns goes by
    :math:`\theta\theta^\top = h\,(W^\top W)\,h^\top + \dots`, so that no (B, C) block is made and two products of size
    (C, H, H), one of them symmetric, take the place of three of size (B, C, H); the same numbers, rounded otherwise.
    Else the differences are kept for the backward pass.

    Args:
        codes: h, (B, H).
        weight: W, (C, H).
        bias: b, (C,).
        rows: z, a (B, C) matrix; its values, or ones.
        guide: M, (S, D); D = 0 where there is none.
        first: the first column of S.
        half: multiply in bfloat16.

    Returns:
        (B,) and (B, D); differentiable in codes, weight and bias.
    """
    by_squares = not half and 3 * codes.shape[0] > 1.6 * codes.shape[1]
    found = _Squares if by_squares else _Differences
    errors, guided = found.apply(codes, weight, bias, rows, guide, first, half)
    return errors, guided


def gram_matrix(weight: Tensor) -> Tensor:
    """``weightᵀ weight``, (C, H) to (H, H); on a CPU blocks below the diagonal are copied: 3/5 of the products."""
    if weight.device.type != "cpu":
        return weight.T @ weight
    width = weight.shape[1]
    gram = weight.new_empty(width, width)
    size = max(_GRAM_COLUMNS, -(-width // 5))
    for start in range(0, width, size):
        end = min(start + size, width)
        torch.mm(weight[:, start:end].T, weight[:, start:], out=gram[start:end, start:])
        gram[end:, start:end] = gram[start:end, end:].T
    return gram


def entries(rows: Adjacency, like: Tensor) -> Tensor:
    """Values of a matrix in stored order, ones where it has none, of the type of ``like``."""
    return like.new_ones(len(rows)) if rows.values is None else rows.values.detach().to(like.dtype)


def row_totals(rows: Adjacency, values: Tensor) -> Tensor:
    """Sums over the entries of each row, (E,) to (R,)."""
    return values.new_zeros(rows.shape[0]).index_add_(0, rows.rows(), values)


class _Squares(torch.autograd.Function):
    """By the Gram matrix of the weight."""

    @staticmethod
    def forward(
        ctx: Any, codes: Tensor, weight: Tensor, bias: Tensor, rows: Adjacency, guide: Tensor, first: int, half: bool
    ) -> Any:
        values = entries(rows, codes)
        gram, lean = gram_matrix(weight), weight.T @ bias
        picked = multiply(rows, weight, values)  # sum of the weight's rows at a row's entries
        own = row_totals(rows, values * bias[rows.col])
        errors = ((codes @ gram + 2 * (lean - picked)) * codes).sum(1) + bias @ bias - 2 * own
        errors += row_totals(rows, values.square())
        guided, through = _guided(codes, weight, bias, guide, first)
        ctx.rows, ctx.first = rows, first
        ctx.save_for_backward(codes, weight, bias, guide, gram, lean - picked, through)
        return errors, guided

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, guided: Tensor) -> Any:
        codes, weight, bias, guide, gram, lean, through = ctx.saved_tensors
        rows: Adjacency = ctx.rows
        values = entries(rows, codes)
        weighted = codes * grad.unsqueeze(1)
        total = weighted.sum(0)
        grad_codes = (weighted @ gram + lean * grad.unsqueeze(1)).mul_(2).add_(guided @ through.T)
        # The weight's gradient is formed in one buffer: 2 (W hᵀgh + b (g h)ᵀ - zᵀ g h).
        grad_weight = (weight @ (weighted.T @ codes)).addr_(bias, total)
        other, order = rows.transposed_pattern()
        turned = values.index_select(0, order)
        multiply(other, weighted, turned, out=grad_weight, add=grad_weight, add_scale=2.0, scale=-2.0)
        grad_bias = torch.addmv(bias * grad.sum(), weight, total)
        grad_bias -= multiply(other, grad.unsqueeze(1), turned).squeeze(1)
        return grad_codes, *_add_guided(grad_weight, grad_bias.mul_(2), codes, guide, guided, ctx.first), *[None] * 4


class _Differences(torch.autograd.Function):
    """By the differences themselves, a (B, C) block."""

    @staticmethod
    def forward(
        ctx: Any, codes: Tensor, weight: Tensor, bias: Tensor, rows: Adjacency, guide: Tensor, first: int, half: bool
    ) -> Any:
        dtype = torch.bfloat16 if half else codes.dtype
        block = codes.new_empty(rows.shape, dtype=dtype)
        errors, thin = codes.new_zeros(rows.shape[0]), codes.to(dtype)
        places, values = rows.rows().long() * rows.shape[1] + rows.col, entries(rows, codes)
        if not half:
            torch.addmm(bias, codes, weight.T, out=block)
            block.view(-1).index_add_(0, places, values, alpha=-1)
            errors = torch.linalg.vecdot(block, block)
        else:
            for start in range(0, rows.shape[1], CHUNK):
                part = slice(start, start + CHUNK)
                block[:, part] = torch.addmm(bias[part].to(dtype), thin, weight[part].to(dtype).T)
            flat = block.view(-1)
            flat[places] = (flat[places].float() - values).to(dtype)
            for start in range(0, rows.shape[1], CHUNK):
                errors += block[:, start : start + CHUNK].float().square().sum(1)
        guided, through = _guided(codes, weight, bias, guide, first)
        ctx.first = first
        ctx.save_for_backward(codes, weight, guide, block, through)
        return errors, guided

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, guided: Tensor) -> Any:
        codes, weight, guide, block, through = ctx.saved_tensors
        scale = 2 * grad.unsqueeze(1)
        grad_codes = wide_product(block, weight).mul_(scale).add_(guided @ through.T)
        grad_weight = _outer(block, codes * scale, torch.empty_like(weight))
        grad_bias = (scale.T.to(block.dtype) @ block).squeeze(0).to(codes.dtype)
        return grad_codes, *_add_guided(grad_weight, grad_bias, codes, guide, guided, ctx.first), *[None] * 4


def _guided(codes: Tensor, weight: Tensor, bias: Tensor, guide: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """``(h Wᵀ + b) M`` over the guide's columns, (B, D), and ``Wᵀ M``, (H, D)."""
    columns = slice(first, first + len(guide))
    through = weight[columns].T @ guide
    return codes @ through + bias[columns] @ guide, through


def _add_guided(
    grad_weight: Tensor, grad_bias: Tensor, codes: Tensor, guide: Tensor, guided: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    columns = slice(first, first + len(guide))
    if guide.numel():
        grad_weight[columns].addmm_(guide, guided.T @ codes)
        grad_bias[columns] += guide @ guided.sum(0)
    return grad_weight, grad_bias


def entry_scores(codes: Tensor, weight: Tensor, bias: Tensor, rows: Adjacency) -> Tensor:
    """Predictions at the entries of a (B, C) matrix alone, (E,) in stored order."""
    return products_at_entries(rows, codes, weight) + bias[rows.col]
