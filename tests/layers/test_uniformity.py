"""Alignment and uniformity against their definitions, and what must hold of them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional

from graphrec.errors import InputError
from graphrec.layers.uniformity import alignment, uniformity


def rows(count: int = 12, dim: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow(x: Tensor, weight: list[float]) -> float:
    unit = [row / row.norm() for row in x]
    above = below = 0.0
    for p, q in itertools.combinations(range(len(x)), 2):
        above += weight[p] * weight[q] * math.exp(-2 * float((unit[p] - unit[q]).square().sum()))
        below += weight[p] * weight[q]
    return math.log(above / below)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 15), st.integers(0, 99), st.booleans(), st.integers(1, 500))
def test_uniformity_equals_its_definition(count: int, seed: int, weighted: bool, memory: int) -> None:
    x, weight = rows(count, seed=seed), [1.0] * count
    if weighted:
        weight = (torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 0.01).tolist()
    given_weight = torch.tensor(weight, dtype=torch.float64) if weighted else None
    assert float(uniformity(x, given_weight, memory=memory)) == pytest.approx(slow(x, weight), rel=1e-9, abs=1e-12)


def test_it_is_what_pdist_gives() -> None:
    x = rows(50)
    expected = torch.pdist(functional.normalize(x)).pow(2).mul(-2).exp().mean().log()
    torch.testing.assert_close(uniformity(x), expected)
    torch.testing.assert_close(uniformity(x, torch.ones(50)), expected)


def test_bounds() -> None:
    x = rows(2, 3)
    assert -8 <= float(uniformity(x)) <= 0
    assert float(uniformity(x[:1].expand(5, 3))) == pytest.approx(0, abs=1e-12)
    assert float(uniformity(torch.stack([x[0], -3 * x[0]]))) == pytest.approx(-8)
    torch.testing.assert_close(alignment(x, -2 * x), torch.full((2,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(alignment(x, 7 * x), torch.zeros(2, dtype=torch.float64))


def test_alignment_is_two_less_two_cosines() -> None:
    x, y = rows(seed=1), rows(seed=2)
    torch.testing.assert_close(alignment(x, y), 2 - 2 * functional.cosine_similarity(x, y))


def test_rotations_and_lengths_change_nothing() -> None:
    x, y = rows(seed=1), rows(seed=2)
    turn = torch.linalg.qr(rows(4, 4)).Q
    longer = torch.linspace(0.1, 9, 12, dtype=torch.float64)[:, None]
    torch.testing.assert_close(uniformity(x @ turn * longer), uniformity(x))
    torch.testing.assert_close(alignment(x @ turn * longer, y @ turn), alignment(x, y))


def test_a_row_of_weight_zero_is_not_there() -> None:
    x, weight = rows(), torch.rand(12, dtype=torch.float64) + 0.5
    weight[[2, 7]] = 0
    torch.testing.assert_close(uniformity(x, weight), uniformity(x[weight > 0], weight[weight > 0]))
    assert float(uniformity(x, torch.zeros(12))) == 0.0
    assert float(uniformity(x[:1])) == 0.0


def test_gradients_in_rows_and_weights() -> None:
    x, weight = rows(6).requires_grad_(), torch.linspace(0.3, 2, 6, dtype=torch.float64).requires_grad_()
    assert gradcheck(uniformity, (x, weight))
    assert gradcheck(uniformity, (x,))


def test_weights_far_apart_stay_finite() -> None:
    x = rows(5)
    weight = torch.tensor([1e-30, 1.0, 1.0, 1e6, 1.0], dtype=torch.float64)
    assert float(uniformity(x, weight)) == pytest.approx(slow(x, weight.tolist()), rel=1e-6)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(InputError, match="weight"):
        uniformity(rows(4), torch.ones(3))
