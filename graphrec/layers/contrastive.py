r"""Contrast objectives: InfoNCE within a batch, against all nodes, across views and within one.

For an anchor a with its positive p and candidates C, every objective here is

.. math:: \ell(a) = \log \sum_{c \in C} e^{s(a, c)/\tau} - s(a, p)/\tau

with s the cosine, or the dot product. Terms come one for each anchor, so that a batch can weigh them and its author can
choose a sum or a mean. The (anchors x candidates) scores are made in blocks under a memory budget, and again in the
backward pass where keeping all of them would exceed it; gradients are exact, and second derivatives exist.

Letters: B anchors, N candidates, D width, τ temperature.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from graphrec.errors import InputError, unknown

MEMORY_BUDGET = 64 * 2**20
"""Bytes that the scores of one call may take at a time."""

Against = Literal["all", "batch"]

# Scores whose absolute value stays below this are exponentiated as they are: a sum of 10^12 of them is finite.
_SAFE_EXPONENT = 40.0
# On a CPU a block of scores should stay in a core's cache between the product, the exponential and the next product.
_CACHE_BYTES = 2**20
_BLOCK_ROWS = 256
# On a GPU a block is as large as the memory allows, rather tall than wide.
_BLOCK_COLUMNS = 2**14


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    candidates: Tensor | None = None,
    *,
    temperature: float,
    normalise: bool = True,
    multiplicity: Tensor | None = None,
    excluded: Tensor | None = None,
    intra: bool = False,
    memory: int = MEMORY_BUDGET,
) -> Tensor:
    r"""InfoNCE of each anchor, (B,); see the module for the equation (van den Oord et al., arXiv 1807.03748, eq. 4).

    - within a batch: ``info_nce(a, p)``; the candidates of every anchor are all positives;
    - against all nodes: ``info_nce(a, nodes, table)``; positives are numbers of candidates;
    - within the view too: ``intra=True`` adds the *other* anchors to the candidates (Zhu et al., arXiv 2006.04131).

    A positive that is among the candidates makes a term at least 0. Candidates that repeat count as often as given. To
    compute an anchor that repeats once only, see :func:`cross_view_contrast`.

    Args:
        anchors: (B, D) floating.
        positives: (B, D) of the anchors' type; or (B,) int64, rows of ``candidates``.
        candidates: (N, D); None: the positives.
        temperature: τ.
        normalise: cosine; otherwise the dot product. A row of zeros has cosine 0 to all.
        multiplicity: (N,) how often each candidate counts, positive; taken as constant. None: once.
        excluded: (B,) int64, the candidate that each anchor leaves out of its sum, -1 for none.
        intra: whether the other anchors are candidates.
        memory: bytes that scores may take at a time.

    Returns:
        (B,), float32 for half-precision input.

    Raises:
        InputError: shapes do not fit, or τ is not positive.
    """
    indexed = not positives.is_floating_point()
    if candidates is None and indexed:
        raise InputError("positives given as numbers need the candidates they number.")
    if indexed and positives.shape != anchors.shape[:1]:
        raise InputError(f"positives must be ({len(anchors)},) numbers of candidates, found {tuple(positives.shape)}.")
    if not indexed and positives.shape != anchors.shape:
        raise InputError(
            f"positives must be {tuple(anchors.shape)} as the anchors are, found {tuple(positives.shape)}."
        )
    anchors = _prepared(anchors, normalise)
    own = None if indexed else _prepared(positives, normalise)
    table = own if candidates is None else _prepared(candidates, normalise)
    assert table is not None
    chosen = table.index_select(0, positives) if own is None else own
    bound = 1.0 if normalise else None
    total = log_sum_exp(
        anchors,
        table,
        temperature=temperature,
        multiplicity=multiplicity,
        excluded=excluded,
        bound=bound,
        memory=memory,
    )
    if intra:
        others = torch.arange(len(anchors), device=anchors.device)
        within = log_sum_exp(anchors, anchors, temperature=temperature, excluded=others, bound=bound, memory=memory)
        total = torch.logaddexp(total, within)
    return total - (anchors * chosen).sum(-1) / temperature


def cross_view_contrast(
    first: Tensor,
    second: Tensor,
    nodes: Tensor,
    *,
    temperature: float,
    normalise: bool = True,
    against: Against = "all",
    repeats: bool = False,
    intra: bool = False,
    memory: int = MEMORY_BUDGET,
) -> Tensor:
    """InfoNCE of nodes seen in two views: a node's positive is itself in the other view, (B,).

    ``against="all"`` has all nodes of the second view as candidates (SGL, arXiv 2010.10783, eq. 10; KGCL; DiffKG);
    ``against="batch"`` those of the batch (SimGCL, arXiv 2112.08679), each once, or with ``repeats`` as often as the
    batch names it. A node that the batch names twice has two equal terms and is computed once. Gradients flow into both
    views.

    Args:
        first: (N, D), the view of the anchors.
        second: (N, D), the view of the candidates.
        nodes: (B,) int64, rows of both.
        temperature: τ.
        normalise: cosine; otherwise the dot product.
        against: see above.
        repeats: see above.
        intra: whether the batch's other nodes in the first view are candidates too.
        memory: bytes that scores may take at a time.

    Raises:
        InputError: shapes do not fit, ``against`` is neither, or τ is not positive.
    """
    if against not in ("all", "batch"):
        raise unknown("against", against, ("all", "batch"))
    if first.shape != second.shape:
        raise InputError(f"both views must have one shape, found {tuple(first.shape)} and {tuple(second.shape)}.")
    distinct, place, counts = torch.unique(nodes, return_inverse=True, return_counts=True)
    anchors = first.index_select(0, distinct)
    options: dict[str, Any] = {"temperature": temperature, "normalise": normalise, "intra": intra, "memory": memory}
    if against == "all":
        terms = info_nce(anchors, distinct, second, **options)
    else:
        shared = second.index_select(0, distinct)
        terms = info_nce(anchors, shared, multiplicity=counts if repeats else None, **options)
    return terms.index_select(0, place)


def log_sum_exp(
    anchors: Tensor,
    candidates: Tensor,
    *,
    temperature: float = 1.0,
    multiplicity: Tensor | None = None,
    excluded: Tensor | None = None,
    bound: float | None = None,
    memory: int = MEMORY_BUDGET,
) -> Tensor:
    r""":math:`\log \sum_n m_n e^{\langle a_b, c_n\rangle/\tau}` of each anchor, (B,), in blocks; differentiable twice.

    The forward pass keeps this number for each anchor, and the scores only where all of them fit the memory; the
    backward pass computes each block again otherwise.

    Args:
        anchors: (B, D) floating; half precision is computed in float32.
        candidates: (N, D) of the same type.
        temperature: τ.
        multiplicity: (N,) m, positive; taken as constant. None: ones.
        excluded: (B,) int64, the candidate that each anchor leaves out, -1 for none.
        bound: what no product exceeds in absolute value, such as 1 for rows of unit length. Where it is known to be
            small, no maxima have to be looked for.
        memory: bytes that scores may take at a time.

    Returns:
        (B,), float32 or float64; -inf where an anchor has no candidate left.

    Raises:
        InputError: shapes do not fit, or τ is not positive.
    """
    if not temperature > 0:
        raise InputError(f"temperature must be positive, found {temperature}.")
    if anchors.dim() != 2 or candidates.dim() != 2 or anchors.shape[1] != candidates.shape[1]:
        raise InputError(
            f"anchors and candidates must be (B, D) and (N, D), found {tuple(anchors.shape)} and "
            f"{tuple(candidates.shape)}."
        )
    if excluded is not None and excluded.shape != anchors.shape[:1]:
        raise InputError(f"excluded must be ({len(anchors)},), found {tuple(excluded.shape)}.")
    if multiplicity is not None and multiplicity.shape != candidates.shape[:1]:
        raise InputError(f"multiplicity must be ({len(candidates)},), found {tuple(multiplicity.shape)}.")
    anchors, candidates = _wide(anchors) / temperature, _wide(candidates)
    offset = None if multiplicity is None else multiplicity.detach().to(anchors.dtype).log()
    bounded = bound is not None and bound / temperature <= _SAFE_EXPONENT
    plan = _Plan(offset, excluded, bounded, memory)
    total: Tensor = _LogSumExp.apply(plan, anchors, candidates)
    return total


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _prepared(rows: Tensor, normalise: bool) -> Tensor:
    return functional.normalize(_wide(rows), dim=-1) if normalise else _wide(rows)


@dataclass(frozen=True)
class _Plan:
    """What a sum takes besides its vectors: log m (N,), excluded (B,), whether exponents are small, bytes."""

    offset: Tensor | None
    excluded: Tensor | None
    bounded: bool
    memory: int

    def blocks(self, anchors: Tensor, candidates: Tensor) -> tuple[list[slice], list[slice]]:
        """Ranges of anchors and of candidates whose scores fit."""
        on_cpu = anchors.device.type == "cpu"
        held = min(self.memory, _CACHE_BYTES * torch.get_num_threads()) if on_cpu else self.memory
        cells = max(1, held // anchors.element_size())
        most = _BLOCK_ROWS if on_cpu else cells // max(1, min(len(candidates), _BLOCK_COLUMNS))
        rows = max(1, min(len(anchors), most, cells))
        columns = max(1, min(len(candidates), cells // rows))
        return list(_ranges(len(anchors), rows)), list(_ranges(len(candidates), columns))

    def exponents(self, anchors: Tensor, candidates: Tensor, rows: slice, columns: slice) -> Tensor:
        """Scores of a block with log m, -inf for what is excluded."""
        a, c = anchors[rows], candidates[columns]
        block = a @ c.T if self.offset is None else torch.addmm(self.offset[columns], a, c.T)
        if self.excluded is None:
            return block
        place = (self.excluded[rows] - columns.start).unsqueeze(1)
        inside = (place >= 0) & (place < block.shape[1])
        place = place.clamp(0, block.shape[1] - 1)
        return block.scatter(1, place, block.gather(1, place).masked_fill(inside, -torch.inf))


def _ranges(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, anchors: Tensor, candidates: Tensor) -> Tensor:
        with torch.autocast(anchors.device.type, enabled=False):
            ctx.kept = None
            if plan.bounded:
                size = len(anchors) * len(candidates) * anchors.element_size()
                ctx.kept = [] if size <= plan.memory and any(ctx.needs_input_grad) else None
                total = _bounded_sums(plan, anchors, candidates, ctx.kept)
            else:
                total = _sums(plan, anchors, candidates)
        ctx.plan = plan
        ctx.save_for_backward(anchors, candidates, total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        anchors, candidates, total = ctx.saved_tensors
        # An anchor without candidates has total -inf; its shares are all 0 whatever stands here.
        total = total.masked_fill(total == -torch.inf, 0.0)
        with torch.autocast(anchors.device.type, enabled=False):
            if torch.is_grad_enabled():
                return None, *_recorded_gradients(ctx.plan, anchors, candidates, total, grads[0])
            given = grads[0], ctx.needs_input_grad[1:], ctx.kept
            return None, *_gradients(ctx.plan, anchors, candidates, total, *given)


def _bounded_sums(plan: _Plan, anchors: Tensor, candidates: Tensor, kept: list[Tensor] | None) -> Tensor:
    sums = anchors.new_zeros(len(anchors))
    rows, columns = plan.blocks(anchors, candidates)
    for row in rows:
        for column in columns:
            block = plan.exponents(anchors, candidates, row, column).exp_()
            sums[row] += block.sum(1)
            if kept is not None:
                kept.append(block)
    return sums.log_()


def _sums(plan: _Plan, anchors: Tensor, candidates: Tensor) -> Tensor:
    total = anchors.new_full((len(anchors),), -torch.inf)
    rows, columns = plan.blocks(anchors, candidates)
    for row in rows:
        for column in columns:
            block = plan.exponents(anchors, candidates, row, column)
            total[row] = torch.logaddexp(total[row], torch.logsumexp(block, 1))
    return total


def _gradients(
    plan: _Plan,
    anchors: Tensor,
    candidates: Tensor,
    total: Tensor,
    grad: Tensor,
    needed: tuple[bool, ...],
    kept: list[Tensor] | None,
) -> tuple[Tensor | None, Tensor | None]:
    """``g_b sum_n p_bn c_n`` and ``sum_b g_b p_bn a_b`` with shares p = exp(score - total), block by block."""
    to_anchors = torch.zeros_like(anchors) if needed[0] else None
    to_candidates = torch.zeros_like(candidates) if needed[1] else None
    # Small exponents need no shift: factors of a row are put on the narrow tensors instead of the wide block.
    factor = grad * (-total).exp() if plan.bounded else grad
    weighted = anchors * factor.unsqueeze(1)
    rows, columns = plan.blocks(anchors, candidates)
    for number, (row, column) in enumerate(itertools.product(rows, columns)):
        if kept is not None:
            shares = kept[number]
        else:
            block = plan.exponents(anchors, candidates, row, column)
            shares = block.exp_() if plan.bounded else block.sub_(total[row].unsqueeze(1)).exp_()
        if to_anchors is not None:
            to_anchors[row].addmm_(shares, candidates[column])
        if to_candidates is not None:
            to_candidates[column].addmm_(shares.T, weighted[row])
    return None if to_anchors is None else to_anchors.mul_(factor.unsqueeze(1)), to_candidates


def _recorded_gradients(
    plan: _Plan, anchors: Tensor, candidates: Tensor, total: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """The same by operations that autograd records; blocks of anchors are computed again when they are asked for."""

    def block(row: slice, a: Tensor, c: Tensor, total: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        shares = (plan.exponents(a, c, row, slice(0, len(c))) - total[row].unsqueeze(1)).exp()
        shares = shares * grad[row].unsqueeze(1)
        return shares @ c, shares.T @ a[row]

    step = max(1, plan.memory // max(1, len(candidates) * anchors.element_size()))
    parts = [
        checkpoint(block, row, anchors, candidates, total, grad, use_reentrant=False, preserve_rng_state=False)
        for row in _ranges(len(anchors), step)
    ]
    if not parts:
        return torch.zeros_like(anchors), torch.zeros_like(candidates)
    return torch.cat([part[0] for part in parts]), torch.stack([part[1] for part in parts]).sum(0)
