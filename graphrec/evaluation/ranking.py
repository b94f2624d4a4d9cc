"""The best items of many users: one blocked, masked, exact top-k for evaluation and for serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.models.base import Encoded, GraphRecommender

Scores = Callable[[Tensor], Tensor]
"""A plain score function: users (B,) int64 to scores of all items (B, I)."""

# A block of scores is written once and read twice. On the CPU it should stay in the last-level cache for that, and be
# smaller than the 32 MiB from which on malloc gives memory back: where a model makes a tensor for each block, its pages
# would be cleared each time. A GPU pays for each kernel, so its blocks are larger.
CPU_MEMORY = 24 << 20
CUDA_MEMORY = 1 << 30
COPIED_COLUMNS = 512


@dataclass(frozen=True)
class UserItems:
    """Items of each user as CSR on a device.

    Attributes:
        indptr: (U+1,) int64.
        items: (E,) int64.
    """

    indptr: Tensor
    items: Tensor

    @classmethod
    def of(cls, pairs: Any, device: torch.device | str = "cpu") -> UserItems:
        """From anything with ``indptr`` and ``items``, an adjacency (``rowptr``, ``col``), or a tuple of the two."""
        if isinstance(pairs, UserItems):
            indptr, items = pairs.indptr, pairs.items
        elif isinstance(pairs, tuple):
            indptr, items = pairs[0], pairs[1]
        elif hasattr(pairs, "rowptr"):
            indptr, items = pairs.rowptr, pairs.col
        elif hasattr(pairs, "indptr"):
            indptr, items = pairs.indptr, pairs.items if hasattr(pairs, "items") else pairs.indices
        else:
            raise InputError(f"expected items of each user as CSR (indptr and items), found a {type(pairs).__name__}.")
        return cls(_int64(indptr, device), _int64(items, device))

    def to(self, device: torch.device | str) -> UserItems:
        """The same on another device."""
        return UserItems(self.indptr.to(device), self.items.to(device))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def counts(self, users: Tensor | None = None) -> Tensor:
        """(B,) int64, how many items each user has."""
        if users is None:
            return self.indptr.diff()
        return self.indptr[users + 1] - self.indptr[users]

    def gather(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (P,) that count from 0 in the order of ``users``, and the items (P,) of these users."""
        start, stop = self.indptr[users], self.indptr[users + 1]
        counts = stop - start
        ends = counts.cumsum(0)
        rows = torch.repeat_interleave(counts)
        shift = start - ends + counts
        return rows, self.items[torch.arange(len(rows), device=rows.device) + shift[rows]]

    def contains(self, users: Tensor, items: Tensor, num_items: int) -> Tensor:
        """Whether each of ``items`` (B, K) belongs to the user (B,) of its row; -1 never does."""
        rows, own = self.gather(users)
        keys = (rows * num_items + own).sort().values
        asked = torch.arange(len(users), device=items.device)[:, None] * num_items + items
        asked = torch.where(items < 0, -1, asked).contiguous()
        if len(keys) == 0:
            return torch.zeros_like(items, dtype=torch.bool)
        place = torch.searchsorted(keys, asked).clamp_(max=len(keys) - 1)
        return keys[place] == asked


def _int64(values: Any, device: torch.device | str) -> Tensor:
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values, dtype=torch.int64, device=device)


@dataclass(frozen=True)
class Block:
    """Scores of a block of users, masked.

    Attributes:
        start: position of the first user in the users that were asked for.
        users: (B,) int64.
        scores: (B, P) scores of the candidates, excluded ones at -inf; valid until the next block, and followed in
            memory by columns of -inf.
    """

    start: int
    users: Tensor
    scores: Tensor


class Scorer:
    """Scores of blocks of users, from a model, its representations, or a plain function.

    Args:
        model: a :class:`GraphRecommender`, an :class:`Encoded`, or a function of users (B,) that gives (B, I).
        candidates: (P,) int64 ascending; None: all items.
    """

    def __init__(self, model: GraphRecommender | Encoded | Scores, candidates: Tensor | None = None) -> None:
        encoded: Encoded | None = None
        if isinstance(model, Encoded):
            encoded = model
        elif isinstance(model, GraphRecommender):
            # A model that scores in its own way may do more than the dot product of what it encodes.
            if model.encodes() and type(model).score is GraphRecommender.score:
                encoded = model.encoded()
        elif not callable(model):
            raise InputError(f"expected a model or a score function, found a {type(model).__name__}.")
        self.model = model
        self.encoded = encoded is not None
        self.candidates = candidates
        if encoded is not None:
            self.device = encoded.items.device
            table = encoded.items.detach()
            self.num_items: int | None = len(table)
            wide = torch.float32 if table.dtype in (torch.float16, torch.bfloat16) else table.dtype
            self._users = encoded.users.detach().to(wide)
            self._items = (table if candidates is None else table[candidates.to(self.device)]).to(wide)
            self.dtype: torch.dtype | None = wide
        else:
            self.device = model.device if isinstance(model, GraphRecommender) else torch.device("cpu")
            self.num_items = model.num_items if isinstance(model, GraphRecommender) else None
            self.dtype = None
        if candidates is not None:
            self.candidates = candidates.to(self.device)

    def write(self, users: Tensor, out: Tensor) -> None:
        """Put the scores of ``users`` (B,) into ``out`` (B, P)."""
        torch.mm(self._users[users], self._items.T, out=out)

    def __call__(self, users: Tensor) -> Tensor:
        """Scores (B, P) of ``users`` (B,)."""
        if self.encoded:
            return self._users[users] @ self._items.T
        if isinstance(self.model, GraphRecommender):
            scores = self.model.score(users, self.candidates)
        else:
            assert callable(self.model)
            scores = self.model(users)
            if self.candidates is not None:
                scores = scores[:, self.candidates]
        scores = scores.detach()
        return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Without gradients, and in evaluation mode where ``model`` is being trained; its mode comes back."""
    training = isinstance(model, GraphRecommender) and model.training
    if training:
        assert isinstance(model, GraphRecommender)
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            assert isinstance(model, GraphRecommender)
            model.train()


def block_size(scorer: Scorer, num_candidates: int, block: int | None, memory: int | None) -> int:
    """Users in a block: ``block``, or as many as keep the block's scores within ``memory`` bytes."""
    if block is not None:
        if block < 1:
            raise InputError(f"block is {block}; it has to be at least 1 user.")
        return block
    if memory is None:
        memory = CUDA_MEMORY if scorer.device.type == "cuda" else CPU_MEMORY
    size = max(1, memory // (4 * max(num_candidates, 1)))
    # Matrix products like multiples of 16; beyond a few thousand rows a larger block brings nothing.
    return min(size - size % 16 if size > 16 else size, 8192)


def score_blocks(
    scorer: Scorer,
    users: Tensor,
    exclude: UserItems | None,
    *,
    tile: int = 1,
    block: int | None = None,
    memory: int | None = None,
) -> Iterator[Block]:
    """Blocks of masked scores; the buffer is reused, its width is a multiple of ``tile``.

    Args:
        scorer: where scores come from.
        users: (B,) int64 on the scorer's device.
        exclude: items to leave out, by user.
        tile: the padding of the width, with columns of -inf.
        block: users in a block.
        memory: bytes for the scores of a block, used where ``block`` is None.
    """
    position: Tensor | None = None
    first: Tensor | None = None
    width = len(scorer.candidates) if scorer.candidates is not None else scorer.num_items
    if width is None:
        first = scorer(users[:1])
        width = first.shape[1]
    if scorer.candidates is not None and exclude is not None:
        top = int(max(scorer.candidates.max() if width else 0, exclude.items.max() if len(exclude.items) else 0))
        position = torch.full((top + 1,), -1, device=scorer.device)
        position[scorer.candidates] = torch.arange(width, device=scorer.device)
    elif exclude is not None and len(exclude.items) and int(exclude.items.max()) >= width:
        raise InputError(
            f"item number {int(exclude.items.max())} is to be left out, but there are scores for {width} items only."
        )
    padded = -(-max(width, 1) // tile) * tile
    size = min(block_size(scorer, padded, block, memory), max(len(users), 1))
    buffer: Tensor | None = None
    for start in range(0, len(users), size):
        part = users[start : start + size]
        scores = None if scorer.encoded else scorer(part)
        if scores is not None and scores.shape != (len(part), width):
            raise InputError(
                f"scores of {len(part)} users for {width} items have shape {tuple(scores.shape)}, "
                f"expected {(len(part), width)}."
            )
        if buffer is None:
            dtype = scorer.dtype if scores is None else scores.dtype
            buffer = torch.full((size, padded), -torch.inf, dtype=dtype, device=scorer.device)
        rows = buffer[: len(part)]
        if scores is None:
            scorer.write(part, rows[:, :width])
        else:
            _copy(scores, rows[:, :width])
        if exclude is not None:
            row, item = exclude.gather(part)
            if position is not None:
                item = position[item]
                row, item = row[item >= 0], item[item >= 0]
            buffer.view(-1)[row * padded + item] = -torch.inf
        yield Block(start, part, rows)


def _copy(scores: Tensor, out: Tensor) -> None:
    """Put scores (B, P) into ``out``; a transposed view in strips that stay in the cache, five times as fast."""
    if scores.stride(0) > scores.stride(1) or scores.device.type != "cpu":
        out.copy_(scores)
        return
    for start in range(0, scores.shape[1], COPIED_COLUMNS):
        strip = slice(start, start + COPIED_COLUMNS)
        out[:, strip] = scores[:, strip]


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


TILE = 64


def top_k(scores: Tensor, k: int, users: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The ``min(k, P)`` best columns of each row: by value, equal values by column; -inf is no value.

    Args:
        scores: (B, P) contiguous, the width a multiple of :data:`TILE`.
        k: how many.
        users: (B,) named when a score is NaN.

    Returns:
        Columns (B, k') int64, -1 where there is none, and values (B, k').
    """
    size, width = scores.shape
    more = min(k + 1, width)
    tiles = width // TILE
    if width % TILE == 0 and tiles > 4 * more:
        peaks = scores.view(size, tiles, TILE).amax(2)
        # A column outside the best k + 1 tiles is no larger than k + 1 others, so their k + 1 best values are the
        # row's.
        peak, tile = peaks.topk(more, dim=1, sorted=True)
        _check_nan(peak[:, 0], users)
        rows = torch.arange(size, device=scores.device)[:, None] * tiles + tile
        chosen = scores.view(size * tiles, TILE).index_select(0, rows.view(-1)).view(size, more * TILE)
        best, inner = chosen.topk(more, dim=1, sorted=True)
        column = tile.gather(1, inner // TILE) * TILE + inner % TILE
    else:
        best, column = scores.topk(more, dim=1, sorted=True)
        _check_nan(best[:, 0], users)
    if more > k:
        last, beyond = best[:, k - 1], best[:, k]
        tied = ((last == beyond) & (last > -torch.inf)).nonzero().flatten()
        best, column = best[:, :k], column[:, :k]
        if len(tied):
            column = _settle(scores, column, best, tied)
    column, order = column.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    column = column.gather(1, order)
    return torch.where(best > -torch.inf, column, -1), best


def _settle(scores: Tensor, column: Tensor, best: Tensor, tied: Tensor) -> Tensor:
    """Give the places of the smallest value in ``best`` to the smallest columns that have it, in the rows ``tied``."""
    k = column.shape[1]
    value = best[tied, -1:]
    above = (best[tied] > value).sum(1, keepdim=True)
    numbers = torch.arange(scores.shape[1], 0, -1, dtype=torch.int32, device=scores.device)
    chosen = column.clone()
    # As many rows at a time as the block of scores is wide allows without a second block of that size.
    step = max(1, len(scores) // 8)
    for start in range(0, len(tied), step):
        rows = tied[start : start + step]
        equal = scores[rows] == value[start : start + step]
        smallest = (equal * numbers).topk(k, dim=1, sorted=True).indices
        place = torch.arange(k, device=scores.device)
        need = above[start : start + step]
        # Those above the value come first in best, in descending order, and stay.
        shifted = smallest.gather(1, (place - need).clamp(min=0))
        chosen[rows] = torch.where(place < need, column[rows], shifted)
    return chosen


def _check_nan(largest: Tensor, users: Tensor | None) -> None:
    # Both amax and topk let NaN win, so the largest value of a row tells.
    wrong = largest.isnan()
    if wrong.any():
        row = int(wrong.nonzero()[0])
        who = f"user number {int(users[row])}" if users is not None else f"row {row}"
        raise InputError(
            f"the scores of {who} contain NaN: nothing can be ranked. The training has probably diverged; lower lr."
        )


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
