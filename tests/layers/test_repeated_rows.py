from __future__ import annotations

import pytest
import torch

from graphrec.layers.repeated_rows import repeated_rows


@pytest.mark.parametrize("shape", [(), (0,), (1,), (40,), (7, 3)])
def test_rows_and_gradients_are_those_of_indexing(shape: tuple[int, ...]) -> None:
    stream = torch.Generator().manual_seed(0)
    numbers = torch.randint(9, shape, generator=stream)
    found = repeated_rows(numbers)
    assert torch.equal(found.distinct, torch.unique(numbers))
    assert torch.equal(found.distinct[found.place], numbers)
    table = torch.randn(9, 5, dtype=torch.float64, generator=stream, requires_grad=True)
    spread, expected = found.spread(table[found.distinct]), table[numbers]
    assert torch.equal(spread, expected)
    weight = torch.randn(spread.shape, dtype=torch.float64, generator=stream)
    ours, theirs = (torch.autograd.grad((x * weight).sum(), table)[0] for x in (spread, expected))
    torch.testing.assert_close(ours, theirs)


def test_it_is_differentiable_twice() -> None:
    found = repeated_rows(torch.tensor([4, 1, 4, 4, 0]))
    rows = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(found.spread, rows)
    assert torch.autograd.gradgradcheck(found.spread, rows)
