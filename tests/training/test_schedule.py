from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.training.schedule import ScheduleName, factor


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 500),
    st.sampled_from(["constant", "cosine", "linear", "step"]),
    st.one_of(st.integers(0, 50), st.floats(0, 0.9)),
)
def test_factors_rise_to_one_and_never_rise_again(total: int, name: ScheduleName, warmup: float) -> None:
    values = [factor(t, total, name, warmup=warmup, milestones=(0.5, 0.75)) for t in range(total)]
    assert all(0 < value <= 1 for value in values)
    top = values.index(max(values))
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)


def test_known_values() -> None:
    assert factor(50, 100, "cosine") == pytest.approx(0.5)
    assert [factor(t, 8, "step", milestones=(0.5, 0.75), decay=0.1) for t in (3, 4, 6)] == pytest.approx([1, 0.1, 0.01])
    assert factor(0, 10, "constant", warmup=0.2) == pytest.approx(1 / 3)
    assert factor(1000, 10, "linear") == 0
