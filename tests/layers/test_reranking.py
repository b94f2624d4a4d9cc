from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.layers.reranking import reranked

COARSE = torch.tensor([[0.1, 0.9, 0.5, 0.5, -2.0], [3.0, 2.0, 1.0, 0.0, -1.0]])
EXACT = torch.tensor([[9.0, -7.5, 0.25, 8.0, 1.0], [0.0, 0.5, 9.0, 8.0, 7.0]])


def exact(columns: Tensor) -> Tensor:
    return EXACT.gather(1, columns)


def test_candidates_are_exact_and_the_others_follow_below_in_order() -> None:
    found = reranked(COARSE, 2, exact)
    assert found.tolist() == [[-10.0, -7.5, 0.25, -9.0, -11.0], [0.0, 0.5, -1.0, -2.0, -3.0]]


def test_what_comes_last_is_a_candidate_only_where_there_are_too_few() -> None:
    last = torch.tensor([[False, True, False, False, False], [True, True, True, False, True]])
    found = reranked(COARSE, 2, exact, last)
    assert found[0].argsort(descending=True).tolist() == [3, 2, 0, 4, 1]
    assert found[0, [2, 3]].tolist() == [0.25, 8.0]
    assert found[1].argsort(descending=True).tolist() == [3, 0, 1, 2, 4]
    assert found[1, [0, 3]].tolist() == [0.0, 8.0]


def test_all_candidates_is_the_exact_score_with_its_gradient() -> None:
    scores = EXACT.clone().requires_grad_()
    found = reranked(COARSE, 5, lambda columns: scores.gather(1, columns))
    assert torch.equal(found, EXACT)
    found[0, 1].backward()
    assert scores.grad is not None
    assert int(scores.grad.count_nonzero()) == 1


def test_no_candidates_is_an_error() -> None:
    with pytest.raises(InputError, match="1 or more, found 0"):
        reranked(COARSE, 0, exact)
