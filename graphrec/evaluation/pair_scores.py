"""Scores of single pairs of a user and an item."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.evaluation.scoring import Scores, device_of, evaluating, score_items
from graphrec.models.base import Encoded, GraphRecommender

# A model that looks at a neighbourhood for each pair holds a few kilobytes a pair.
_BLOCK = 1 << 14


def score_pairs(
    model: GraphRecommender | Encoded | Scores, users: Tensor, items: Tensor, *, block: int | None = None
) -> Tensor:
    """Scores of single pairs: the pairs of a user are scored together, users with about as many pairs in one block.

    Args:
        model: a model, final representations, or a function of users (B,) that gives scores (B, I).
        users: (N,) int64.
        items: (N,) int64.
        block: pairs scored at a time, those that fill up shorter rows included.

    Returns:
        (N,) float on the CPU, in the order of the pairs.

    Raises:
        InputError: a score is NaN.
    """
    size = _BLOCK if block is None else block
    device = device_of(model)
    found: Tensor | None = None
    with evaluating(model):
        for row_users, table, place, pair in _rows(users, items, size):
            value = score_items(model, row_users.to(device), table.to(device)).cpu()
            if found is None:
                found = torch.empty(len(users), dtype=value.dtype)
            found[pair] = value.flatten()[place]
    if found is None:
        return torch.empty(0)
    wrong = found.isnan()
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        raise InputError(
            f"{int(wrong.sum())} scores are NaN, the first of user number {int(users[at])} for item number "
            f"{int(items[at])}: the model has diverged or was not trained."
        )
    return found


def _rows(users: Tensor, items: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Blocks of at most ``size`` cells: users (B,), items (B, P), and of each pair its cell and its number."""
    order = users.argsort(stable=True)
    counts = torch.bincount(users)
    counts = counts[counts > 0]
    within = torch.arange(len(users)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    # A user with more pairs than a block has cells takes several rows.
    first = within % size == 0
    row = first.cumsum(0) - 1
    lengths = torch.bincount(row)
    longest = lengths.argsort(descending=True, stable=True)
    starts = (lengths.cumsum(0) - lengths)[longest]
    lengths = lengths[longest]
    done = 0
    while done < len(lengths):
        width = int(lengths[done])
        part = slice(done, done + max(1, size // width))
        start, length = starts[part], lengths[part]
        column = torch.arange(width)
        real = column < length[:, None]
        # Shorter rows are filled up with their own first pair.
        pair = order[start[:, None] + torch.where(real, column, 0)]
        yield users[pair[:, 0]], items[pair], real.flatten().nonzero()[:, 0], pair[real]
        done += len(length)
