"""What GF-CF and BSPM share: a polynomial of the item-item matrix P, and an ideal low-pass filter."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.neighbourhood import product_in_columns
from graphrec.layers.spectral import inverse_root, normalised, right_singular_vectors
from graphrec.layers.spmm import multiply, spmm
from graphrec.models.base import GraphInputs
from graphrec.models.closed_form import ClosedForm


class GraphFilter(ClosedForm):
    r"""Base of ``scores = r P q(P) + r D_i^{-1/2} V V^T D_i^{1/2} l(P)``.

    N = D_u^-1/2 R D_i^-1/2 with 0^-1/2 := 0, P = NᵀN, V the leading right singular vectors of N, q and l polynomials.
    P is never formed: q is applied to N rᵀ as a polynomial of N Nᵀ. The low-pass term needs no product for a user: with
    B = l(P) D_i^{1/2} V (I, f) it is (r D_i^{-1/2} V) Bᵀ. Letters: U users, I items, f vectors, B users in a block.

    Args:
        inputs: the dataset or the inputs taken from it.
        factor_dim: f; 0: no low-pass term.
        rounds: power iterations for V.
        seed: seeds their start.
        **hparams: what else the subclass has.
    """

    solution = ("low_pass_in", "low_pass_out")
    low_pass_in: Tensor
    low_pass_out: Tensor

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        factor_dim: int,
        rounds: int,
        seed: int,
        **hparams: Any,
    ) -> None:
        if factor_dim < 0:
            raise InputError(f"factor_dim must be 0 or more, found {factor_dim}.")
        if rounds < 1:
            raise InputError(f"rounds must be 1 or more, found {rounds}.")
        super().__init__(inputs, factor_dim=factor_dim, rounds=rounds, seed=seed, **hparams)
        self.factor_dim = factor_dim
        self.rounds = rounds
        self.seed = seed
        self._filter: Adjacency | None = None
        self._source: Adjacency | None = None

    @abstractmethod
    def polynomial(self) -> Sequence[float]:
        """Coefficients of q, from the constant term on."""

    @abstractmethod
    def low_pass_polynomial(self) -> Sequence[float]:
        """Coefficients of l, from the constant term on; all 0: no low-pass term."""

    def normalised(self) -> Adjacency:
        """N (U, I), made anew when the interactions were replaced or moved."""
        source = self.interactions()
        if self._filter is None or self._source is not source:
            self._source, self._filter = source, normalised(source)
        return self._filter

    def solve(self) -> None:
        """Find V, and send its filtered vectors through l(P) once for everybody."""
        matrix = self.normalised()
        coefficients = _trimmed(self.low_pass_polynomial())
        if self.factor_dim == 0 or not coefficients or len(matrix) == 0:
            self.low_pass_in = torch.zeros(self.num_items, 0, device=self.device)
            self.low_pass_out = torch.zeros(self.num_items, 0, device=self.device)
            return
        _, vectors = right_singular_vectors(matrix, self.factor_dim, rounds=self.rounds, seed=self.seed)
        degrees = self.interactions().degrees(1)
        self.low_pass_in = inverse_root(degrees).float()[:, None] * vectors
        given = degrees.double().sqrt().float()[:, None] * vectors
        other = matrix.transposed
        result = coefficients[-1] * given
        for coefficient in reversed(coefficients[:-1]):
            result = multiply(other, multiply(matrix, result)).add_(given, alpha=coefficient)
        self.low_pass_out = result

    def score_rows(self, history: Adjacency) -> Tensor:
        """Scores (B, I), a transposed view: products have the users in their columns."""
        matrix = self.normalised()
        other = matrix.transposed
        coefficients = _trimmed(self.polynomial())
        scores = torch.empty(self.num_items, history.shape[0], device=self.device)
        if coefficients:
            blurred = product_in_columns(history, other)
            result = blurred * coefficients[-1] if len(coefficients) > 1 else blurred.mul_(coefficients[0])
            for coefficient in reversed(coefficients[:-1]):
                multiply(other, result, out=scores)
                multiply(matrix, scores, out=result)
                result.add_(blurred, alpha=coefficient)
            multiply(other, result, out=scores)
        else:
            scores.zero_()
        if self.low_pass_in.shape[1]:
            values = None if history.values is None else history.values.float()
            inner = multiply(history.with_stored_values(values), self.low_pass_in)
            scores.addmm_(self.low_pass_out, inner.T.contiguous())
        return scores.T

    def score_dense(self, history: Tensor) -> Tensor:
        """The same with r dense, by differentiable products."""
        matrix, history = self.normalised(), history.float()
        other = matrix.transposed
        scores = torch.zeros_like(history)
        power = history
        for coefficient in _trimmed(self.polynomial()):
            power = spmm(other, spmm(matrix, power))
            scores = scores + coefficient * power
        return scores + self.low_pass_out @ (self.low_pass_in.T @ history)

    def bytes_per_user(self) -> int:
        """Two vectors over users, two over items."""
        return 8 * (self.num_users + self.num_items)


def _trimmed(coefficients: Sequence[float]) -> list[float]:
    """Without zeros at the end."""
    kept = list(coefficients)
    while kept and kept[-1] == 0:
        kept.pop()
    return kept
