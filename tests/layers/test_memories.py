from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from graphrec.errors import InputError
from graphrec.layers.memories import Memory, read_memories

HELD = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def memory(weight: Tensor | None = None) -> Memory:
    return Memory(random(3, 3, 4), random(3, 3, 4, seed=1), HELD, weight)


def test_shares_sum_to_one_over_what_is_held() -> None:
    shares = memory().shares(random(3, 5, 4, seed=2) * 50)
    torch.testing.assert_close(shares.sum(-1), HELD.any(1).double()[:, None].expand(3, 5))
    assert not shares.masked_select(~HELD[:, None].expand_as(shares)).any()


def test_a_place_of_weight_zero_is_not_held() -> None:
    queries = random(3, 5, 4, seed=2)
    weight = torch.tensor([[1.0, 0.0, 3.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    found = memory(weight).shares(queries)
    held = HELD.clone()
    held[0, 1] = False
    torch.testing.assert_close(found, Memory(memory().keys, memory().values, held).shares(queries))


@pytest.mark.parametrize("update", ["plus_transform", "replace_transform", "plus", "replace"])
@pytest.mark.parametrize("last", [False, True])
def test_derivatives_of_both_orders(update: str, last: bool) -> None:
    def run(queries: Tensor, keys: Tensor, values: Tensor, weight: Tensor, transform: Tensor) -> Tensor:
        hops = [Memory(keys, values, HELD, weight), Memory(values, keys, HELD)]
        given = transform if update.endswith("transform") else None
        return read_memories(hops, queries, given, update=update, last=last)

    inputs = random(3, 2, 2), random(3, 3, 2, seed=1), random(3, 3, 2, seed=2), random(3, 3, seed=3).exp(), random(2, 2)
    given = [x.requires_grad_() for x in inputs]
    assert gradcheck(run, given)
    assert gradgradcheck(run, given)


def test_one_set_of_queries_serves_all_readers() -> None:
    queries = random(1, 5, 4, seed=2)
    found = read_memories([memory(), memory()], queries, random(4, 4))
    torch.testing.assert_close(found, read_memories([memory(), memory()], queries.expand(3, 5, 4), random(4, 4)))
    assert not found[2].any()


def test_bad_calls() -> None:
    with pytest.raises(InputError, match="with a transform"):
        read_memories([memory()], random(3, 1, 4), None)
    with pytest.raises(InputError, match="without a transform"):
        read_memories([memory()], random(3, 1, 4), random(4, 4), update="plus")
    with pytest.raises(InputError, match="no memory"):
        read_memories([], random(3, 1, 4), None, update="plus")
