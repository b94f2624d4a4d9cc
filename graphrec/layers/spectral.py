"""Leading singular vectors of a sparse matrix, by block power iteration with a Rayleigh-Ritz step at its end."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spmm import multiply
from graphrec.randomness import generator

EXACT_SIZE = 1024
"""Matrices with no more rows or columns than this are decomposed exactly."""


def normalised(adj: Adjacency) -> Adjacency:
    """``D_r^-1/2 A D_c^-1/2`` of a matrix of ones, with 0^-1/2 := 0 and degrees that count entries; float32 values."""
    rows, cols = inverse_root(adj.degrees(0)), inverse_root(adj.degrees(1))
    values = rows[adj.rows().long()] * cols[adj.col.long()]
    return adj.with_stored_values(values.float())


def inverse_root(degrees: Tensor) -> Tensor:
    """``d^-1/2`` in float64, 0 where d is 0."""
    return torch.where(degrees > 0, degrees.double().clamp_min(1.0).rsqrt(), 0.0)


def right_singular_vectors(
    adj: Adjacency, k: int, *, rounds: int = 8, extra: int = 40, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The ``k`` largest singular values of a sparse (R, C) matrix A, and their right singular vectors.

    A block of k + extra random vectors is multiplied ``rounds`` times by AᵀA and made orthonormal after each; the
    projection of AᵀA on what it then spans is decomposed (Rayleigh-Ritz). The error of a vector falls as
    (s_{k+extra+1} / s_k)^(2 rounds). Matrices with no more than :data:`EXACT_SIZE` columns are decomposed exactly, in
    float64.

    Args:
        adj: A, with float32 values or ones.
        k: how many; fewer come back where the matrix has fewer rows or columns.
        rounds: multiplications by AᵀA.
        extra: vectors iterated beyond k.
        seed: seeds the start.

    Returns:
        (k,) singular values, descending, and (C, k) orthonormal vectors, float32. The sign of a vector is such that
        its largest entry is positive.
    """
    if k < 1:
        raise InputError(f"the number of singular vectors must be 1 or more, found {k}.")
    rows, cols = adj.shape
    k = min(k, rows, cols)
    if cols <= EXACT_SIZE:
        dense = adj.to_dense(torch.float64)
        squares, vectors = torch.linalg.eigh(dense.T @ dense)
        squares, vectors = squares.flip(0)[:k], vectors.flip(1)[:, :k]
    else:
        width = min(k + extra, rows, cols)
        stream = generator(seed, "spectral")
        block = torch.randn(cols, width, generator=stream).to(adj.device)
        middle = block.new_empty(rows, width)
        image = torch.empty_like(block)
        other = adj.transposed
        for done in range(rounds):
            multiply(adj, block, out=middle)
            multiply(other, middle, out=image)
            block = _orthonormal(image, passes=2 if done == rounds - 1 else 1)
        # The projection is made from A Q, not from AᵀA Q: half of the digits would be lost otherwise.
        multiply(adj, block, out=middle)
        squares, rotation = torch.linalg.eigh(_gram(middle))
        squares, rotation = squares.flip(0)[:k], rotation.flip(1)[:, :k]
        vectors = block @ rotation.to(block.dtype)
    largest = vectors.abs().argmax(0, keepdim=True)
    vectors = vectors * torch.where(vectors.gather(0, largest) < 0, -1.0, 1.0)
    return squares.clamp_min(0.0).sqrt().float(), vectors.float().contiguous()


def singular_vectors(
    adj: Adjacency, k: int, *, rounds: int = 8, extra: int = 40, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The leading singular triples of the normalised matrix, :math:`D_r^{-1/2} A D_c^{-1/2} \approx U S V^\top`.

    Args:
        adj: an (R, C) matrix of edges; its values are not looked at.
        k: how many, at most min(R, C).
        rounds: as in :func:`right_singular_vectors`, and so are extra and seed.
        extra: vectors iterated beyond k.
        seed: seeds the start.

    Returns:
        U (R, k), S (k,) descending and V (C, k), float32.
    """
    matrix = normalised(adj)
    values, right = right_singular_vectors(matrix, k, rounds=rounds, extra=extra, seed=seed)
    left = multiply(matrix, right) / values.clamp_min(torch.finfo(values.dtype).tiny)
    return left, values, right


def _gram(x: Tensor) -> Tensor:
    """``xᵀ x`` in float64, the products in blocks of rows."""
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(8192):
        total += (part.T @ part).double()
    return total


def _orthonormal(x: Tensor, passes: int = 1) -> Tensor:
    """An orthonormal basis of the columns of ``x``: by Cholesky of ``xᵀ x``, a second pass for full precision.

    Ten times faster than Householder's QR, which takes over where the columns are close to dependent.
    """
    for _ in range(passes):
        factor, failed = torch.linalg.cholesky_ex(_gram(x))
        pivots = factor.diagonal()
        if bool(failed) or not float(pivots.min()) > 1e-3 * float(pivots.max()):
            return torch.linalg.qr(x).Q
        # Multiplying with the inverse of the small factor is faster than a triangular solve of many columns.
        eye = torch.eye(len(factor), dtype=factor.dtype, device=x.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        x = x @ inverse.T.to(x.dtype)
    return x
