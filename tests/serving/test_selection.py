from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import InputError
from graphrec.serving.selection import best_of


def test_best_of_breaks_ties_by_item_and_keeps_to_what_is_allowed() -> None:
    scores = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0])
    items, values = best_of(scores, 3, None, None)
    assert items.tolist() == [1, 2, 4] and values.tolist() == [3.0, 3.0, 3.0]
    items, _ = best_of(scores, 3, torch.tensor([0, 2, 3]), torch.tensor([2]))
    assert items.tolist() == [3, 0]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=300), st.integers(1, 40), st.data())
def test_best_of_is_a_stable_sort_of_the_allowed(values: list[int], k: int, draw: st.DataObject) -> None:
    numbers = st.lists(st.integers(0, len(values) - 1), unique=True)
    allowed, left_out = draw.draw(numbers | st.none()), draw.draw(numbers)
    scores = torch.tensor(values, dtype=torch.float32)
    items, best = best_of(
        scores, k, None if allowed is None else torch.tensor(allowed, dtype=torch.int64), torch.tensor(left_out).long()
    )
    left = sorted(set(range(len(values)) if allowed is None else allowed) - set(left_out))
    wanted = sorted(left, key=lambda item: (-values[item], item))[:k]
    assert items.tolist() == wanted and best.tolist() == [values[item] for item in wanted]


def test_scores_that_rank_nothing() -> None:
    items, _ = best_of(torch.tensor([1.0, -torch.inf]), 2, None, None)
    assert items.tolist() == [0]
    with pytest.raises(InputError, match="NaN"):
        best_of(torch.tensor([1.0, torch.nan]), 1, None, None)
