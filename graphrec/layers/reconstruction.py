r"""Rows of a sparse relation as a trained denoiser gives them back, and which pairs it holds to be the strongest.

Letters: T steps, R rows, C columns of the relation, B rows of a batch, H hidden width, E entries; the last layer of the
denoiser is :math:`W_2 h + b_2`, the first one multiplies by :math:`W_1`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.denoiser import Denoiser, entries, entry_scores, gram_matrix, row_totals
from graphrec.layers.diffusion import Schedule, check_columns, noisy_block
from graphrec.layers.spmm import MEMORY_BUDGET, multiply
from graphrec.randomness import hash_bits

Candidates = Literal["all", "stored"]


class Reconstruction:
    r"""Rows as the denoiser gives them back: from step T-1 to 0, z becomes the posterior's mean, without draws.

    Every z on the way is a sum of the start and of predictions :math:`W_2 h + b_2`, so that it is known by three
    numbers and a vector of width H: its length and its product with :math:`W_1` follow from :math:`W_2^\top W_2`,
    :math:`W_2^\top W_1` and the start's own products, made once. Only the last prediction, which is what step 0
    returns, has C columns; it is formed in blocks, or at stored entries alone.

    Args:
        denoiser: θ, taken as it is now.
        schedule: of the noise.
        noised: start from rows with the noise of this many steps, as drawn from ``generator``; 0: from clean rows.
        generator: see ``noised``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        noised: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        if not 0 <= noised <= schedule.steps:
            raise InputError(f"noised must lie in 0 to {schedule.steps}, the steps of the schedule, found {noised}.")
        if noised and generator is None:
            raise InputError("a start from noised rows needs generator=.")
        self.denoiser, self.schedule, self.noised, self.generator = denoiser, schedule, noised, generator
        with torch.no_grad():
            weight, bias = denoiser.output_weight, denoiser.output_bias
            self.gram, self.lean = gram_matrix(weight), weight.T @ bias
            self.through, self.bias_through = weight.T @ denoiser.input_weight, bias @ denoiser.input_weight
            self.bias_square = bias @ bias

    @torch.no_grad()
    def codes(self, rows: Adjacency) -> Tensor:
        """Hidden layer behind the last prediction, (B, H), of a (B, C) matrix of clean rows."""
        check_columns(self.denoiser, rows)
        own = self._start(rows)
        count, hidden = rows.shape[0], self.denoiser.hidden
        shared, mixed, constant = 1.0, own[0].new_zeros(count, hidden), 0.0
        codes = mixed
        for step in reversed(range(self.schedule.steps)):
            projected, square = shared * own[0], shared**2 * own[3]
            if step < self.schedule.steps - 1:  # from then on predictions are part of the row
                projected += mixed @ self.through + constant * self.bias_through
                square += ((mixed @ self.gram + 2 * shared * own[1] + 2 * constant * self.lean) * mixed).sum(1)
                square += constant**2 * self.bias_square + 2 * shared * constant * own[2]
            lengths = square.clamp_min(0).sqrt().clamp_min(1e-12)
            steps = torch.full((1,), step, device=rows.device)
            codes = self.denoiser.code(projected / lengths.unsqueeze(1), steps)
            first, second = (float(coefficients[step]) for coefficients in self.schedule.posterior)
            shared, mixed, constant = second * shared, first * codes + second * mixed, first + second * constant
        return codes

    def _start(self, rows: Adjacency) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The start's products with W_1 and W_2, both (B, H), with b_2, (B,), and with itself, (B,)."""
        denoiser = self.denoiser
        weight, bias = denoiser.output_weight, denoiser.output_bias
        if not self.noised:
            values = entries(rows, weight)
            first, second = (multiply(rows, given, values) for given in (denoiser.input_weight, weight))
            return first, second, row_totals(rows, values * bias[rows.col]), row_totals(rows, values.square())
        assert self.generator is not None
        kept = self.schedule.alpha_bar[self.noised - 1].to(rows.device).expand(rows.shape[0])
        block, scale = noisy_block(rows, kept.sqrt(), (1 - kept).sqrt(), 0.0, self.generator, weight.dtype)
        squares = scale.pow(-2).to(weight.dtype)
        return block @ denoiser.input_weight, block @ weight, block @ bias, squares

    @torch.no_grad()
    def rows(self, rows: Adjacency) -> Tensor:
        """The rows as they are given back, dense (B, C)."""
        return self.predictions(self.codes(rows))

    def predictions(self, codes: Tensor) -> Tensor:
        """The last layer on hidden codes, (B, H) to (B, C)."""
        weight, bias = self.denoiser.output_weight, self.denoiser.output_bias
        if self.denoiser.precision != "bfloat16":
            return functional.linear(codes, weight, bias)
        thin = codes.to(torch.bfloat16)
        return functional.linear(thin, weight.to(torch.bfloat16), bias.to(torch.bfloat16))


def strongest(
    denoiser: Denoiser,
    schedule: Schedule,
    matrix: Adjacency,
    k: int = 1,
    *,
    rows: Tensor | None = None,
    candidates: Candidates = "all",
    noised: int = 0,
    generator: torch.Generator | None = None,
    block: int = 1024,
) -> tuple[Tensor, Tensor]:
    """The ``k`` largest columns of each reconstructed row, as (row, column) pairs.

    Args:
        denoiser: θ.
        schedule: of the noise.
        matrix: the relation, (R, C).
        k: columns of a row.
        rows: (P,) int64, which rows; None: all.
        candidates: ``all`` columns, so that a row may name columns it has no entry at; or those ``stored`` in the row
            alone, for which no prediction of width C is formed.
        noised: see :class:`Reconstruction`.
        generator: see :class:`Reconstruction`.
        block: rows at a time; fewer where their predictions would not fit the budget of memory.

    Returns:
        two int64 tensors of equal length; rows come in the order given. Rows with the same entries, of which a
        knowledge graph has many (entities that hang on one item), are reconstructed once.
    """
    if k < 1:
        raise InputError(f"k must be a positive whole number, found {k}.")
    if candidates not in ("all", "stored"):
        raise unknown("candidates", candidates, ("all", "stored"))
    with torch.no_grad():
        own = Reconstruction(denoiser, schedule, noised=noised, generator=generator)
        rows = torch.arange(matrix.shape[0], device=matrix.device) if rows is None else rows
        place = None if noised else equal_rows(matrix, rows)
        asked, found = rows if place is None else rows[place.unique()], []
        for part in asked.split(block):
            picked = matrix.row_subset(part)
            codes = own.codes(picked)
            if candidates == "stored":
                weight, bias = denoiser.output_weight, denoiser.output_bias
                row, column = _largest_entries(picked, entry_scores(codes, weight, bias, picked), k)
            else:
                row, column = _largest_columns(own, codes, min(k, matrix.shape[1]))
            found.append(torch.stack([part[row], column]))
    if not found:
        empty = torch.empty(0, dtype=torch.int64, device=matrix.device)
        return empty, empty
    pairs = torch.cat(found, 1)
    return (pairs[0], pairs[1]) if place is None else _for_all(pairs, rows, rows[place])


def equal_rows(matrix: Adjacency, rows: Tensor) -> Tensor | None:
    """For each of some rows (P,) the place in ``rows`` of the first that has the same entries, (P,) int64.

    None where entries have values, or where rows that differ are not told apart by the hashes they are compared by.
    """
    if matrix.values is not None or len(rows) == 0:
        return None
    picked = matrix.row_subset(rows, edges=False)
    sums = torch.zeros_like(rows).index_add_(0, picked.rows().long(), hash_bits(0, picked.col.long()))
    distinct, group = torch.unique(sums, return_inverse=True)
    places = torch.arange(len(rows), device=rows.device)
    first = places.new_full((len(distinct),), len(rows)).scatter_reduce_(0, group, places, "amin")[group]
    other = picked.row_subset(first, edges=False)
    same = torch.equal(other.rowptr, picked.rowptr) and torch.equal(other.col, picked.col)
    return first if same else None


def _for_all(pairs: Tensor, rows: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (2, Q) of distinct rows, for ``rows`` (P,), each of which has the columns of the row in ``like``, (P,)."""
    order = torch.argsort(pairs[0], stable=True)
    number = torch.searchsorted(pairs[0][order], torch.stack([like, like + 1]))
    counts = number[1] - number[0]
    ends = counts.cumsum(0)
    place = torch.arange(int(counts.sum()), device=rows.device) + torch.repeat_interleave(
        number[0] - ends + counts, counts
    )
    return rows.repeat_interleave(counts), pairs[1][order[place]]


def _largest_columns(own: Reconstruction, codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(B * k,) rows of the batch and columns."""
    weight, bias = own.denoiser.output_weight, own.denoiser.output_bias
    dtype = torch.bfloat16 if own.denoiser.precision == "bfloat16" else codes.dtype
    thin, found = codes.to(dtype), []
    for start, end in _column_blocks(codes.shape[0], weight.shape[0], dtype.itemsize):
        predicted = torch.addmm(bias[start:end].to(dtype), thin, weight[start:end].to(dtype).T)
        values, columns = predicted.max(1, keepdim=True) if k == 1 else predicted.topk(min(k, end - start))
        found.append((values, columns + start))
    values, columns = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    # Stable, so that among equals the smaller column of the earlier block comes first.
    order = torch.sort(values, dim=1, descending=True, stable=True).indices[:, :k]
    place = torch.arange(len(codes), device=codes.device).repeat_interleave(k)
    return place, columns.gather(1, order).reshape(-1)


def _column_blocks(rows: int, columns: int, itemsize: int) -> Iterator[tuple[int, int]]:
    size = max(1, MEMORY_BUDGET // (max(rows, 1) * itemsize))
    for start in range(0, columns, size):
        yield start, min(start + size, columns)


def _largest_entries(rows: Adjacency, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k entries of each row with the largest scores, as rows of the batch and columns."""
    by_score = torch.argsort(scores, descending=True, stable=True)
    order = by_score[torch.argsort(rows.rows()[by_score], stable=True)]
    row = rows.rows()[order].long()
    rank = torch.arange(len(order), device=scores.device) - rows.rowptr[row]
    order = order[rank < k]
    return rows.rows()[order].long(), rows.col[order].long()


def entries_of(matrix: Adjacency, rows: Tensor, columns: Tensor, *, both_ways: bool = False) -> Tensor:
    """Which stored entries of a matrix are among some pairs, (E,) bool in stored order; other pairs are passed over.

    Args:
        matrix: (R, C).
        rows: (P,) int64.
        columns: (P,) int64.
        both_ways: whether (column, row) is meant too by each pair; the matrix is square then.
    """
    width = matrix.shape[1]
    if both_ways:
        if matrix.shape[0] != width:
            raise InputError(f"pairs both ways need a square matrix, found shape {matrix.shape}.")
        rows, columns = torch.cat([rows, columns]), torch.cat([columns, rows])
    asked = torch.unique(rows * width + columns)
    if len(asked) == 0:
        return torch.zeros(len(matrix), dtype=torch.bool, device=matrix.device)
    keys = matrix.rows().long() * width + matrix.col
    place = torch.searchsorted(asked, keys).clamp_max(len(asked) - 1)
    return asked[place] == keys
