from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from graphrec.errors import InputError
from graphrec.layers.intents import Independence, distance_correlations, independence


def slow_distance_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """From the definition, with double-centred distance matrices."""
    centred = []
    for sample in (a, b):
        d = squareform(pdist(sample[:, None]))
        centred.append(d - d.mean(0) - d.mean(1)[:, None] + d.mean())
    x, y = centred
    return float(np.sqrt((x * y).mean()) / np.sqrt(np.sqrt((x * x).mean()) * np.sqrt((y * y).mean())))


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_distance_correlation_equals_the_definition(rows: torch.Tensor) -> None:
    found = distance_correlations(rows)
    for f in range(4):
        for g in range(4):
            expected = slow_distance_correlation(rows[f].numpy(), rows[g].numpy())
            assert float(found[f, g]) == pytest.approx(expected)
    assert ((found >= 0) & (found <= 1 + 1e-12)).all()


def test_it_is_one_for_affine_copies_and_zero_for_a_constant(rows: torch.Tensor) -> None:
    x = rows[0]
    found = distance_correlations(torch.stack([x, 3 - 2 * x, torch.full_like(x, 4.0)]))
    expected = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_sums_over_pairs(rows: torch.Tensor) -> None:
    pairs = [(f, g) for f in range(4) for g in range(f + 1, 4)]
    distance = sum(slow_distance_correlation(rows[f].numpy(), rows[g].numpy()) for f, g in pairs)
    cosine = sum(float(torch.cosine_similarity(rows[f], rows[g], dim=0)) ** 2 for f, g in pairs)
    assert float(independence(rows)) == pytest.approx(distance)
    assert float(independence(rows, "cosine")) == pytest.approx(cosine)


def test_mutual_information_is_the_contrast_with_all_rows(rows: torch.Tensor) -> None:
    expected = 0.0
    for f in range(4):
        similar = [float(torch.cosine_similarity(rows[f], rows[g], dim=0)) / 0.3 for g in range(4)]
        expected -= math.log(math.exp(similar[f]) / sum(math.exp(value) for value in similar))
    assert float(independence(rows, "mutual_information", temperature=0.3)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["distance", "cosine", "mutual_information"])
def test_gradients_and_second_gradients(rows: torch.Tensor, kind: Independence) -> None:
    x = rows.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: independence(x, kind), (x,))
    assert torch.autograd.gradgradcheck(lambda x: independence(x, kind), (x,))


@pytest.mark.parametrize("kind", ["distance", "cosine", "mutual_information"])
def test_one_row_or_equal_entries_give_finite_gradients(kind: Independence) -> None:
    for x in (torch.randn(1, 5), torch.ones(3, 5), torch.zeros(3, 5)):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(independence(x, kind), x)
        assert torch.isfinite(gradient).all()


def test_bad_input_is_named(rows: torch.Tensor) -> None:
    with pytest.raises(InputError, match="independence"):
        independence(rows, "pearson")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="temperature"):
        independence(rows, "mutual_information", temperature=0)
    with pytest.raises(InputError, match=r"\(F, R\)"):
        independence(rows[0])
