from __future__ import annotations

import pytest
import torch

from graphrec.layers.put_rows import put_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inference", [False, True])
def test_rows_are_where_they_belong(dtype: torch.dtype, inference: bool) -> None:
    with torch.inference_mode(inference):
        table, index = torch.arange(12.0).view(6, 2).to(dtype), torch.tensor([4, 0])
        rows = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], dtype=dtype)
        expected = table.clone()
        expected[index] = rows
        put_rows(table, index, rows)
        assert torch.equal(table, expected)
        put_rows(table, index[:0], rows[:0])
        assert torch.equal(table, expected)


def test_autograd_sees_that_a_table_was_changed() -> None:
    table = torch.ones(3, 2)
    weight = torch.ones(3, 2, requires_grad=True)
    loss = (table * weight).sum()
    put_rows(table, torch.tensor([1]), torch.zeros(1, 2))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_parameter_is_written_outside_its_graph() -> None:
    table = torch.nn.Parameter(torch.ones(3, 2))
    put_rows(table, torch.tensor([1]), torch.zeros(1, 2))
    assert table.requires_grad
    assert table.sum() == 4
