r"""Alignment and uniformity of vectors on the sphere (Wang and Isola, ICML 2020, https://arxiv.org/abs/2005.10242).

Letters: B rows, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.errors import InputError
from graphrec.layers.contrastive import MEMORY_BUDGET, log_sum_exp
from graphrec.layers.losses import squared_norms


def alignment(x: Tensor, y: Tensor) -> Tensor:
    r""":math:`\|\hat x - \hat y\|^2` of each pair of rows, (B,), from 0 to 4; hats are rows of unit length.

    Args:
        x: (B, D).
        y: (B, D).
    """
    return squared_norms(functional.normalize(x, dim=-1) - functional.normalize(y, dim=-1))


def uniformity(x: Tensor, weight: Tensor | None = None, *, scale: float = 2.0, memory: int = MEMORY_BUDGET) -> Tensor:
    r"""How evenly rows lie on the sphere, a number from -4t to 0; 0 where all have one direction.

    .. math:: \log \frac{\sum_{p \ne q} w_p w_q \, e^{-t \|\hat x_p - \hat x_q\|^2}}{\sum_{p \ne q} w_p w_q}

    With :math:`\|\hat x_p - \hat x_q\|^2 = 2 - 2 \langle \hat x_p, \hat x_q \rangle` it is a sum over products, made in
    blocks; gradients are exact, in the weights too. A row of weight 0 is as good as not there. Fewer than two rows
    have no pair, and uniformity 0.

    Args:
        x: (B, D) floating.
        weight: (B,) w, 0 or more; None: ones.
        scale: t.
        memory: bytes that products may take at a time.

    Raises:
        InputError: shapes do not fit.
    """
    if x.dim() != 2 or (weight is not None and weight.shape != x.shape[:1]):
        shape = None if weight is None else tuple(weight.shape)
        raise InputError(f"x must be (B, D) and weight (B,), found {tuple(x.shape)} and {shape}.")
    if weight is not None:
        present = torch.nonzero(weight > 0)[:, 0]
        x, weight = x.index_select(0, present), weight.index_select(0, present).to(x.dtype)
    if len(x) < 2:
        return x.sum() * 0.0
    unit = functional.normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)
    own = torch.arange(len(x), device=x.device)
    if weight is None:
        sums = log_sum_exp(unit, unit, temperature=0.5 / scale, excluded=own, bound=1.0, memory=memory)
        return torch.logsumexp(sums, 0) - 2 * scale - math.log(len(x) * (len(x) - 1))
    logs = weight.to(unit.dtype).log()
    # One column more adds log w_q to the exponent, which is then differentiable in it.
    anchors = torch.cat([unit, torch.ones_like(logs).unsqueeze(1)], 1)
    candidates = torch.cat([unit, (logs * (0.5 / scale)).unsqueeze(1)], 1)
    bound = 1 + float(logs.detach().abs().max()) * (0.5 / scale)
    sums = log_sum_exp(anchors, candidates, temperature=0.5 / scale, excluded=own, bound=bound, memory=memory)
    pairs = weight.sum().square() - weight.square().sum()
    return torch.logsumexp(sums + logs, 0) - 2 * scale - pairs.log()
