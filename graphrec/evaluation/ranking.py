"""The best items of many users: one blocked, masked, exact top-k for evaluation and for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.evaluation.scoring import Scorer, Scores, evaluating, score_blocks
from graphrec.evaluation.top_k import TILE, top_k
from graphrec.evaluation.user_items import UserItems
from graphrec.models.base import Encoded, GraphRecommender


def rank(
    model: GraphRecommender | Encoded | Scores,
    users: Tensor | np.ndarray | Sequence[int],
    k: int,
    exclude: Any = None,
    items: Tensor | np.ndarray | Sequence[int] | None = None,
    *,
    block: int | None = None,
    memory: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` best items of each user: by score, equal scores by item number, whatever the block size.

    Scores are computed in blocks of users on the model's device. A row is never sorted: its maxima over tiles of items
    lead to the tiles that can hold the best k + 1, and only those are searched; where the k-th and the next score are
    equal, the row is looked through for the smallest item numbers.

    Args:
        model: a model, its :class:`Encoded`, or a function of users (B,) int64 that gives scores (B, I).
        users: (B,) user numbers, any order, repetitions allowed.
        k: length of the lists.
        exclude: items left out, for all users of the dataset, as CSR: ``indptr`` (U+1,) and ``items`` (an adjacency
            or a tuple will do); None: none.
        items: the candidates; None: all items.
        block: users in a block; None: as many as ``memory`` allows.
        memory: bytes for a block's scores; working space comes to at most twice as much again. None: 24 MiB on the CPU,
            1 GiB on a GPU.

    Returns:
        Items (B, k) int64 and scores (B, k) on the model's device. A user with fewer than k candidates left has -1 and
        -inf at the end; an item scored -inf counts as left out.

    Raises:
        InputError: k is below 1, a score is NaN, a user or an item does not exist.
    """
    if k < 1:
        raise InputError(f"k is {k}; a list has at least 1 item.")
    with evaluating(model):
        candidates = None if items is None else torch.as_tensor(items, dtype=torch.int64).unique()
        asked = torch.as_tensor(users, dtype=torch.int64)
        _check_numbers(model, asked, candidates)
        scorer = Scorer(model, candidates)
        asked = asked.to(scorer.device)
        left_out = None if exclude is None else UserItems.of(exclude, scorer.device)
        found = torch.full((len(asked), k), -1, device=scorer.device)
        values: Tensor | None = None
        for part in score_blocks(scorer, asked, left_out, tile=TILE, block=block, memory=memory):
            where, best = top_k(part.scores, k, part.users)
            if values is None:
                values = torch.full((len(asked), k), -torch.inf, dtype=best.dtype, device=scorer.device)
            if scorer.candidates is not None and len(scorer.candidates):
                where = torch.where(where < 0, -1, scorer.candidates[where.clamp(min=0)])
            found[part.start : part.start + len(where), : where.shape[1]] = where
            values[part.start : part.start + len(where), : where.shape[1]] = best
        if values is None:
            values = torch.full((len(asked), k), -torch.inf, device=scorer.device)
    return found, values


def _check_numbers(model: object, users: Tensor, items: Tensor | None) -> None:
    num_users: int | None = None
    num_items: int | None = None
    if isinstance(model, Encoded):
        num_users, num_items = len(model.users), len(model.items)
    elif isinstance(model, GraphRecommender):
        num_users, num_items = model.num_users, model.num_items
    for kind, numbers, bound in (("user", users, num_users), ("item", items, num_items)):
        if numbers is None or len(numbers) == 0:
            continue
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or (bound is not None and high >= bound):
            wrong = low if low < 0 else high
            have = "they count from 0" if bound is None else f"the model has {bound} {kind}s"
            raise InputError(f"{kind} number {wrong} does not exist: {have}.")
