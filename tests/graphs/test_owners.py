"""Places of entries among those of their owner, against counting."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from graphrec.graphs.owners import place_within


@given(st.lists(st.integers(0, 6)).map(sorted))
def test_places_are_counted_from_the_first_entry_of_an_owner(owners: list[int]) -> None:
    slow = [owners[:at].count(owner) for at, owner in enumerate(owners)]
    assert place_within(torch.tensor(owners, dtype=torch.int64)).tolist() == slow
