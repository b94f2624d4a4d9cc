from __future__ import annotations

import pytest
import torch

from graphrec.errors import InputError
from graphrec.serving.fold_in import check_history, mean_vector, ridge_vector


def test_mean_is_weighted() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    assert mean_vector(vectors, torch.tensor([3.0, 1.0])).tolist() == [0.75, 1.0]


def test_ridge_is_the_minimum_of_its_objective() -> None:
    generator = torch.Generator().manual_seed(3)
    catalogue = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    vectors, weights = catalogue[[2, 7, 11]], torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    unseen, l2 = 0.1, 0.3
    found = ridge_vector(vectors, weights, catalogue, unseen, l2).requires_grad_()
    scale = (catalogue**2).sum() / 5
    loss = (weights * (1 - vectors @ found) ** 2).sum() + unseen * ((catalogue @ found) ** 2).sum()
    (loss + l2 * scale * (found**2).sum()).backward()
    assert found.grad is not None
    torch.testing.assert_close(found.grad, torch.zeros(5, dtype=torch.float64), atol=1e-10, rtol=0)


def test_ridge_without_any_penalty_reproduces_the_history() -> None:
    catalogue = torch.eye(4)
    found = ridge_vector(catalogue[[1, 3]], torch.ones(2), catalogue, 0.0, 1e-9)
    torch.testing.assert_close(catalogue @ found, torch.tensor([0.0, 1.0, 0.0, 1.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [float("nan")], [float("inf")]])
def test_histories_that_say_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(InputError):
        check_history(torch.tensor(weights))
