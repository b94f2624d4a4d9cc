"""Noise has its length, keeps signs, and belongs to nodes."""

from __future__ import annotations

import pytest
import torch

from graphrec.layers.noise import Noise, positive_rows


def noise(length: float = 0.3, seed: int = 0) -> Noise:
    return Noise.drawn(torch.Generator().manual_seed(seed), length)


@pytest.mark.parametrize("dim", [1, 3, 4, 65])
def test_noise_has_its_length_and_keeps_the_orthant(dim: int) -> None:
    x = torch.randn(40, dim, dtype=torch.float64)
    moved = noise().added(x, 1, 0) - x
    torch.testing.assert_close(moved.norm(dim=1), torch.full((40,), 0.3, dtype=torch.float64))
    assert (moved * x > 0).all()


def test_zeros_stay_zero() -> None:
    x = torch.randn(10, 8)
    x[3], x[4, 2] = 0, 0
    moved = noise().added(x, 1, 0)
    assert (moved[3] == 0).all()
    assert moved[4, 2] == 0


def test_noise_of_some_nodes_is_what_they_get_among_all() -> None:
    x, nodes = torch.randn(5000, 16), torch.tensor([4999, 7, 0])
    whole = noise().added(x, 2, 1)
    torch.testing.assert_close(noise().added(x[nodes], 2, 1, nodes), whole[nodes], rtol=0, atol=0)


def test_sides_layers_seeds_and_nodes_differ() -> None:
    x = torch.ones(6, 8)
    rows = [noise().added(x, 1, 0), noise().added(x, 1, 1), noise().added(x, 2, 0), noise(seed=1).added(x, 1, 0)]
    assert len({tuple(row.tolist()) for table in rows for row in table}) == 24


def test_entries_are_uniform() -> None:
    rows = positive_rows(torch.tensor(5), torch.arange(4000), 10, torch.float64) / 65536
    assert 0 < rows.min() < 1e-3
    assert 1 - 1e-3 < rows.max() < 1
    assert abs(float(rows.mean()) - 0.5) < 5e-3
    assert abs(float(rows.var()) - 1 / 12) < 2e-3
    correlation = torch.corrcoef(rows.T) - torch.eye(10, dtype=torch.float64)
    assert correlation.abs().max() < 0.08


def test_the_derivative_is_the_identity() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(5, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad(noise().added(x, 1, 0), x, upstream)
    assert torch.equal(found, upstream)


def test_a_stream_gives_other_noise_each_time() -> None:
    stream, x = torch.Generator().manual_seed(0), torch.ones(3, 4)
    first, second = (Noise.drawn(stream, 0.1).added(x, 1, 0) for _ in range(2))
    assert not torch.equal(first, second)
