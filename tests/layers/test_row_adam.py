from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from graphrec.layers.row_adam import RowAdam


def gradients(table: torch.Tensor, rows: torch.Tensor, target: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return ((table - target[rows]).square() * other).sum()


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_deferred_moves_are_dense_adams(factor: float) -> None:
    """To rounding where ε is nothing, also while the rate changes; a row is right whenever it is caught up."""
    torch.manual_seed(0)
    start, target = torch.randn(60, 4, dtype=torch.float64), torch.randn(60, 4, dtype=torch.float64)
    dense = [torch.nn.Parameter(start.clone()), torch.nn.Parameter(torch.ones(4, dtype=torch.float64))]
    sparse = [torch.nn.Parameter(start.clone()), torch.nn.Parameter(torch.ones(4, dtype=torch.float64))]
    expected = torch.optim.Adam(dense, lr=1e-2, eps=1e-30)
    found = RowAdam(sparse, lr=1e-2, eps=1e-30)
    for step in range(300):
        rows = torch.randint(60, (5,)).unique()
        found.catch_up(sparse[0], rows)
        torch.testing.assert_close(sparse[0][rows], dense[0][rows], rtol=1e-9, atol=1e-9)
        gradients(dense[0][rows], rows, target, dense[1]).backward()
        gradients(functional.embedding(rows, sparse[0], sparse=True), rows, target, sparse[1]).backward()
        for optimiser in (expected, found):
            optimiser.step()
            optimiser.zero_grad()
            if step % 50 == 0:
                optimiser.param_groups[0]["lr"] *= factor
        if step == 120:  # an epoch ends
            found.flush()
    assert (sparse[0] - dense[0]).abs().max() > 1e-4
    found.flush()
    for ours, theirs in zip(sparse, dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(found.state[ours][name], expected.state[theirs][name], rtol=1e-9, atol=1e-15)


def test_a_row_that_nobody_caught_up_is_moved_before_its_step() -> None:
    torch.manual_seed(0)
    ends = []
    for careful in (True, False):
        table = torch.nn.Parameter(torch.ones(10, 3))
        optimiser = RowAdam([table], lr=0.1)
        for row in (2, 3, 4, 2):
            rows = torch.tensor([row])
            if careful:
                optimiser.catch_up(table, rows)
            # A gradient that does not depend on the row's value.
            functional.embedding(rows, table, sparse=True).sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        optimiser.flush()
        ends.append(table.detach())
    assert torch.equal(*ends)


def test_rows_without_a_gradient_stay_where_updates_are_not_deferred() -> None:
    table = torch.nn.Parameter(torch.ones(10, 3))
    optimiser = RowAdam([table], lr=0.1, deferred=False)
    for row in (2, 3):
        functional.embedding(torch.tensor([row, row]), table, sparse=True).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    optimiser.flush()
    moved = (table != 1).all(1)
    assert moved.nonzero()[:, 0].tolist() == [2, 3]
    torch.testing.assert_close(table[2], torch.full((3,), 0.9))


def test_dense_gradients_after_sparse_ones_find_every_row_up_to_date() -> None:
    """As when several processes add their gradients up."""
    ours, theirs = (torch.nn.Parameter(torch.ones(10, 3, dtype=torch.float64)) for _ in range(2))
    found, expected = RowAdam([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
    for row in (2, 3, None, 4):
        for table in (ours, theirs):
            # Gradients that do not depend on the rows, so that nobody needs to catch them up before.
            if row is None:
                table.sum().backward()
            else:
                functional.embedding(torch.tensor([row]), table, sparse=table is ours).sum().backward()
        for optimiser in (found, expected):
            optimiser.step()
            optimiser.zero_grad()
    found.flush()
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


def test_rows_that_were_taken_are_as_good_as_caught_up() -> None:
    """Whether the step is on these very rows, on others beside them, or the rows were taken twice."""
    torch.manual_seed(0)
    start, target = torch.randn(60, 4, dtype=torch.float64), torch.randn(60, 4, dtype=torch.float64)
    dense, taken = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    expected, found = torch.optim.Adam([dense], lr=1e-2, eps=1e-30), RowAdam([taken], lr=1e-2, eps=1e-30)
    for step in range(60):
        rows, others = (torch.randint(60, (5,)).unique() for _ in range(2))
        before = taken.detach().clone()
        own = found.rows(taken, rows)
        assert torch.equal(before, taken)
        torch.testing.assert_close(own, dense[rows], rtol=1e-9, atol=1e-9)
        loss = (own - target[rows]).square().sum()
        theirs = (dense[rows] - target[rows]).square().sum()
        if step % 3 == 1:
            loss = loss + (found.rows(taken, others) - target[others]).square().sum()
            theirs = theirs + (dense[others] - target[others]).square().sum()
        loss.backward()
        theirs.backward()
        if step % 3 == 2:  # as when another process adds its share
            extra = torch.sparse_coo_tensor(
                others[None], torch.ones(len(others), 4, dtype=torch.float64), taken.shape, check_invariants=True
            )
            taken.grad, dense.grad = taken.grad + extra, dense.grad + extra.to_dense()
        for optimiser in (expected, found):
            optimiser.step()
            optimiser.zero_grad()
    found.flush()
    torch.testing.assert_close(taken, dense, rtol=1e-9, atol=1e-9)
