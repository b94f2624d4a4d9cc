"""Small random graphs."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor


@st.composite
def bipartite(draw: st.DrawFn, parallel: bool = True) -> tuple[Tensor, tuple[int, int]]:
    """An edge list in any order, with isolated nodes and (unless told otherwise) parallel edges, and its shape."""
    rows, cols = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    pair = st.tuples(st.integers(0, rows - 1), st.integers(0, cols - 1))
    pairs = draw(st.lists(pair, max_size=20, unique=not parallel))
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t(), (rows, cols)
