r"""Diffusion on the rows of a sparse relation: noise on a row of zeros and ones, a denoiser, and what it keeps.

The relation is any :class:`Adjacency`, a knowledge graph's (entities, entities) as in DiffKG, or items by items, users
by items. Rows go in batches, their noise is exact: a (B, C) block, never (R, C). To denoise a relation of one's own::

    schedule, denoiser = variance_schedule(), Denoiser(matrix.shape[1], hidden=64)
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=1e-3)
    for rows in order.split(256):
        diffusion_loss(denoiser, schedule, matrix.row_subset(rows), generator=stream).total().mean().backward()
        optimiser.step(), optimiser.zero_grad()
    kept = entries_of(matrix, *strongest(denoiser, schedule, matrix, k=1))

with what :mod:`graphrec.layers.denoiser` and :mod:`graphrec.layers.reconstruction` offer. Letters: T steps, R rows, C
columns of the relation, B rows of a batch, H hidden width. Sources: Jiang et al., DiffKG, WSDM 2024
(https://arxiv.org/abs/2312.16890), sections 3.3 and 3.4, and the authors' code; Ho et al., Denoising diffusion
probabilistic models, NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.denoiser import Denoiser, entries, output_errors, project, row_totals
from graphrec.layers.dropout import kept_entries
from graphrec.layers.spmm import MEMORY_BUDGET, spmm


@dataclass(frozen=True, eq=False)
class Schedule:
    r"""How much noise each of T steps adds, and what follows from it; everything float64.

    Attributes:
        beta: (T,), the variance that step t adds, in (0, 1).
    """

    beta: Tensor

    @property
    def steps(self) -> int:
        """T."""
        return len(self.beta)

    @cached_property
    def alpha_bar(self) -> Tensor:
        r"""(T,), :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)`: what is left of the row's square."""
        return torch.cumprod(1 - self.beta, 0)

    @cached_property
    def loss_weights(self) -> Tensor:
        r"""(T,), ω: 1 at step 0, then SNR(t-1) - SNR(t) with :math:`SNR = \bar\alpha / (1 - \bar\alpha)`."""
        ratio = self.alpha_bar / (1 - self.alpha_bar)
        return torch.cat([ratio.new_ones(1), ratio[:-1] - ratio[1:]])

    @cached_property
    def posterior(self) -> tuple[Tensor, Tensor]:
        r"""(T,) and (T,), the mean of q(z_{t-1} | z_t, z_0) is ``first * z_0 + second * z_t``.

        .. math:: \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1 - \bar\alpha_t}, \qquad
                  \frac{(1 - \bar\alpha_{t-1}) \sqrt{1 - \beta_t}}{1 - \bar\alpha_t}, \qquad \bar\alpha_{-1} = 1
        """
        before = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])
        left = 1 - self.alpha_bar
        # Nothing stands between step 0 and the clean row: its mean is that row, exactly.
        first, second = before.sqrt() * self.beta / left, (1 - before) * (1 - self.beta).sqrt() / left
        first[0], second[0] = 1.0, 0.0
        return first, second


def variance_schedule(
    steps: int = 5, *, scale: float = 0.1, low: float = 1e-4, high: float = 0.02, first: float | None = 1e-4
) -> Schedule:
    r"""Variances :math:`1 - \bar\alpha_t` evenly between ``scale * low`` and ``scale * high``; β at most .999.

    Args:
        steps: T.
        scale: see above.
        low: see above.
        high: see above.
        first: β of step 0 in place of its own, as in the authors' code; None: its own.

    Raises:
        InputError: fewer than one step, or variances that do not rise within (0, 1).
    """
    if steps < 1:
        raise InputError(f"a schedule needs at least 1 step, found {steps}.")
    if not 0 < scale * low <= scale * high < 1:
        raise InputError(
            f"the variances scale * low and scale * high must rise within (0, 1), found {scale * low} and "
            f"{scale * high}."
        )
    if first is not None and not 0 < first < 1:
        raise InputError(f"first must lie in (0, 1), found {first}.")
    alpha_bar = 1 - torch.linspace(scale * low, scale * high, steps, dtype=torch.float64)
    before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    beta = (1 - alpha_bar / before).clamp_max(0.999)
    if first is not None:
        beta[0] = first
    return Schedule(beta)


def q_sample(schedule: Schedule, x: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
    r""":math:`z_t = \sqrt{\bar\alpha_t}\, x + \sqrt{1 - \bar\alpha_t}\, \epsilon`; x and noise (B, C), steps (B,)."""
    kept = schedule.alpha_bar.to(x.device)[steps].unsqueeze(1)
    return kept.sqrt().to(x.dtype) * x + (1 - kept).sqrt().to(x.dtype) * noise


def posterior_mean(schedule: Schedule, predicted: Tensor, x: Tensor, step: int) -> Tensor:
    """Mean of the row one step earlier, given a predicted clean row and the noisy one; both (B, C)."""
    first, second = (float(coefficients[step]) for coefficients in schedule.posterior)
    return first * predicted + second * x


@dataclass(frozen=True, eq=False)
class Guidance:
    r"""What predicted rows should amount to: :math:`c = \theta_S M` near a target (DiffKG's CKGC, eq. 13).

    With predictions p over items, interactions Y and users U, :math:`c = (Y p)^\top U = p\,(Y^\top U)`: M = YᵀU is made
    once an epoch and the product over users never again; the same numbers.

    Attributes:
        matrix: M, (S, D).
        targets: (B, D), of the rows of the batch.
        first: the first column of S.
    """

    matrix: Tensor
    targets: Tensor
    first: int = 0


@dataclass(frozen=True, eq=False)
class DiffusionTerms:
    """The two parts of the loss of each row, (B,): the weighted error of reconstruction, and that of the guide."""

    elbo: Tensor
    guide: Tensor

    def total(self, share: float = 0.0) -> Tensor:
        """``(1 - share) * elbo + share * guide``, (B,)."""
        return (1 - share) * self.elbo + share * self.guide


def diffusion_loss(
    denoiser: Denoiser,
    schedule: Schedule,
    rows: Adjacency,
    *,
    generator: torch.Generator | None = None,
    steps: Tensor | None = None,
    guidance: Guidance | None = None,
) -> DiffusionTerms:
    r"""How far the denoiser is from clean rows, :math:`\omega_t \frac1C \sum_j (z_{0j} - \theta(z_t, t)_j)^2`.

    Memory: a (B, C) block of noisy rows, a second one of differences where B is small beside H (see
    :func:`graphrec.layers.denoiser.output_errors`), and no other tensor of that size.

    Args:
        denoiser: θ; its dropout draws in training mode.
        schedule: of the noise.
        rows: z_0, a (B, C) matrix.
        generator: where steps, noise and dropout come from; None: neither noise nor dropout, and ``steps`` or step 0.
        steps: (B,) int64; None: drawn uniformly.
        guidance: see :class:`Guidance`; without it that part is 0.

    Returns:
        the two parts, differentiable in the denoiser's parameters alone.

    Raises:
        InputError: the rows have another number of columns than the denoiser.
    """
    check_columns(denoiser, rows)
    count, device = rows.shape[0], rows.device
    if steps is None:
        steps = torch.zeros(count, dtype=torch.int64, device=device)
        if generator is not None:
            steps = torch.randint(schedule.steps, (count,), generator=generator, device=device)
    kept = schedule.alpha_bar.to(device)[steps]
    half = denoiser.precision == "bfloat16"
    share = denoiser.dropout if denoiser.training and generator is not None else 0.0
    dtype = torch.bfloat16 if half else denoiser.input_weight.dtype
    if generator is None:
        projected = _projected_sparse(denoiser, rows)
    else:
        block, scale = noisy_block(rows, kept.sqrt(), (1 - kept).sqrt(), share, generator, dtype)
        projected = project(block, scale.to(denoiser.input_weight.dtype), denoiser.input_weight)
    codes = denoiser.code(projected, steps)
    weight, bias = denoiser.output_weight, denoiser.output_bias
    guide = codes.new_empty(0, 0) if guidance is None else guidance.matrix.detach().to(codes.dtype)
    first = 0 if guidance is None else guidance.first
    errors, guided = output_errors(codes, weight, bias, rows, guide, first, half)
    elbo = schedule.loss_weights.to(device)[steps].to(codes.dtype) * errors / rows.shape[1]
    if guidance is None:
        return DiffusionTerms(elbo, torch.zeros_like(elbo))
    return DiffusionTerms(elbo, (guided - guidance.targets.detach()).square().mean(1))


def noisy_block(
    rows: Adjacency,
    signal: Tensor,
    deviation: Tensor,
    share: float,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """``signal * z_0 + deviation * noise`` with entries left out, and what its rows are to be multiplied by.

    Args:
        rows: z_0, (B, C).
        signal: (B,).
        deviation: (B,).
        share: of the entries, left out after the row's length was taken.
        generator: of noise and dropout.
        dtype: of the block.

    Returns:
        the block (B, C), neither normalised nor scaled for what was left out, and (B,) float64: one over the row's
        length before anything was left out, and over 1 - share.
    """
    block = torch.empty(rows.shape, dtype=dtype, device=rows.device)
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    lengths = torch.empty(rows.shape[0], dtype=torch.float64, device=rows.device)
    starts, values = rows.rowptr.tolist(), entries(rows, block.new_empty(0, dtype=wide))
    size = max(1, MEMORY_BUDGET // (max(rows.shape[1], 1) * wide.itemsize))
    for start in range(0, rows.shape[0], size):
        end = min(start + size, rows.shape[0])
        part = block[start:end] if dtype == wide else torch.empty_like(block[start:end], dtype=wide)
        part.normal_(generator=generator).mul_(deviation[start:end, None].to(wide))
        own = slice(starts[start], starts[end])
        row = rows.rows()[own].long()
        places = (row - start) * rows.shape[1] + rows.col[own]
        part.view(-1).index_add_(0, places, signal[row].to(wide) * values[own])
        lengths[start:end] = torch.linalg.vector_norm(part, dim=1)
        if share:
            part *= kept_entries(tuple(part.shape), share, generator)
        if dtype != wide:
            block[start:end] = part
    return block, (lengths.clamp_min(1e-12) * (1 - share)).reciprocal()


def _projected_sparse(denoiser: Denoiser, rows: Adjacency) -> Tensor:
    """Normalised clean rows times the input weight: sums of its rows, nothing of width C."""
    values = entries(rows, denoiser.input_weight)
    lengths = row_totals(rows, values.square()).sqrt().clamp_min(1e-12)
    return spmm(rows.with_stored_values(values / lengths[rows.rows()]), denoiser.input_weight)


def check_columns(denoiser: Denoiser, rows: Adjacency) -> None:
    """Raise an :class:`InputError` where rows and denoiser differ in their columns."""
    if rows.shape[1] != denoiser.num_columns:
        raise InputError(f"the denoiser has {denoiser.num_columns} columns, the rows have {rows.shape[1]}.")
