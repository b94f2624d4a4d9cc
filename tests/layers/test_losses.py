"""Losses against formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from graphrec.errors import InputError
from graphrec.layers.dropout import dropout
from graphrec.layers.losses import bce_loss, block_norm, bpr_loss, sampled_softmax_loss, squared_norms

POSITIVE = torch.tensor([1.0, -2.0])
NEGATIVE = torch.tensor([[0.5, 3.0, -1.0], [0.0, -2.0, 1.0]])
KNOWN = torch.tensor([[False, True, False], [True, True, True]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_bpr() -> None:
    first = (softplus(-0.5) + softplus(2.0) + softplus(-2.0)) / 3
    assert bpr_loss(POSITIVE, NEGATIVE)[0].item() == pytest.approx(first, rel=1e-6)
    masked = bpr_loss(POSITIVE, NEGATIVE, KNOWN)
    assert masked.tolist() == pytest.approx([(softplus(-0.5) + softplus(-2.0)) / 2, 0.0], rel=1e-6)
    equal = bpr_loss(torch.ones(4), torch.ones(4, 1))
    assert torch.allclose(equal, torch.full((4,), math.log(2)))
    far = torch.tensor([-1000.0], requires_grad=True)
    bpr_loss(far, torch.tensor([[1000.0]])).sum().backward()
    assert far.grad.item() == -1.0


def test_bce() -> None:
    expected = softplus(-1.0) + (softplus(0.5) + softplus(3.0) + softplus(-1.0)) / 3
    assert bce_loss(POSITIVE, NEGATIVE)[0].item() == pytest.approx(expected, rel=1e-6)


def test_sampled_softmax() -> None:
    scores = [1.0, 0.5, -1.0]
    expected = math.log(sum(math.exp(x / 0.5) for x in scores)) - 1.0 / 0.5
    loss = sampled_softmax_loss(POSITIVE, NEGATIVE, KNOWN, temperature=0.5)
    assert loss.tolist() == pytest.approx([expected, 0.0], rel=1e-6)
    with pytest.raises(InputError, match="temperature"):
        sampled_softmax_loss(POSITIVE, NEGATIVE, temperature=0.0)


def test_masked_negatives_get_no_gradient() -> None:
    for loss in (bpr_loss, bce_loss, sampled_softmax_loss):
        negative = NEGATIVE.double().requires_grad_()
        positive = POSITIVE.double().requires_grad_()
        loss(positive, negative, KNOWN).sum().backward()
        assert not negative.grad[KNOWN].any() and negative.grad[~KNOWN].all()
        assert gradcheck(lambda p, n, loss=loss: loss(p, n, KNOWN), (positive, negative))


def test_rows_named_twice_count_twice() -> None:
    table = torch.tensor([[3.0, 4.0], [1.0, 0.0]], requires_grad=True)
    total = squared_norms(table[torch.tensor([0, 0, 1])]).sum()
    assert total.item() == 51.0
    total.backward()
    assert table.grad.tolist() == [[12.0, 16.0], [2.0, 0.0]]


def test_the_norm_of_a_block_is_that_of_all_its_rows_and_smooth_at_zero() -> None:
    rows = torch.tensor([[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]], requires_grad=True)
    assert block_norm(rows[:2]).item() == 5.0
    assert block_norm(rows, torch.tensor([1.0, 1.0, 0.0])).item() == 5.0
    assert block_norm(rows.unsqueeze(1), torch.tensor([2.0, 2.0, 0.0])).item() == 10.0
    block_norm(rows, torch.zeros(3)).backward()
    assert rows.grad.tolist() == [[0.0, 0.0]] * 3


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match=r"negative \(B, n\)"):
        bpr_loss(POSITIVE, NEGATIVE[0])
    with pytest.raises(InputError, match="known"):
        bpr_loss(POSITIVE, NEGATIVE, KNOWN[:1])


def test_dropout_keeps_the_mean_and_follows_its_stream() -> None:
    x = torch.ones(100, 100)
    first, again = (dropout(x, 0.3, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again) and abs(float(first.mean()) - 1) < 0.02
    assert first.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert dropout(x, 0.3, None) is x and dropout(x, 0.0, torch.Generator()) is x
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        dropout(x, 1.0, None)
