"""Hashed projections: the entries of a random sign matrix, independent of what else there is."""

from __future__ import annotations

import pytest
import torch

from graphrec.errors import InputError
from graphrec.influence.projection import Projection

SHAPES = {"user_embedding": (7, 3), "item_embedding": (5, 3), "scale": ()}


def test_entries_are_signs_and_blocks_are_the_whole() -> None:
    projection = Projection(SHAPES, 130, seed=1)
    assert projection.size == 37
    whole = projection.columns(0, 130)
    assert whole.shape == (37, 130)
    assert torch.allclose(whole.abs(), torch.full_like(whole, 130**-0.5))
    assert torch.equal(torch.cat([block for _, block in projection.blocks(33)], 1), whole)
    assert [(part.start, part.stop) for part, _ in projection.blocks(100)] == [(0, 100), (100, 130)]
    vectors = torch.randn(4, 37, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(projection(vectors), vectors @ whole)
    assert not torch.equal(Projection(SHAPES, 130, seed=2).columns(0, 130), whole)


def test_lengths_are_kept() -> None:
    """The mean of Π Πᵀ is the identity; of 4,000 columns every entry is within five deviations of it."""
    whole = Projection(SHAPES, 4000).columns(0, 4000)
    assert torch.allclose(whole @ whole.T, torch.eye(37, dtype=torch.float64), atol=5 * 4000**-0.5)


def test_a_row_more_leaves_the_others() -> None:
    small = Projection(SHAPES, 20).columns(0, 20)
    large = Projection({**SHAPES, "user_embedding": (9, 3)}, 20).columns(0, 20)
    assert torch.equal(large[:21], small[:21])
    assert torch.equal(large[27:], small[21:])


def test_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="37 coordinates"):
        Projection(SHAPES, 4)(torch.zeros(2, 36))
    with pytest.raises(InputError, match="positive"):
        Projection(SHAPES, 0)
