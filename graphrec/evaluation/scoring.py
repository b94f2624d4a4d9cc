"""Scores as evaluation needs them: of all candidates for blocks of users, masked, or of some items of each user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.evaluation.user_items import UserItems
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
        self.device = device_of(model)
        self.candidates = candidates
        if encoded is not None:
            table = encoded.items.detach()
            self.num_items: int | None = len(table)
            wide = torch.float32 if table.dtype in (torch.float16, torch.bfloat16) else table.dtype
            self._users = encoded.users.detach().to(wide)
            self._items = (table if candidates is None else table[candidates.to(self.device)]).to(wide)
            self.dtype: torch.dtype | None = wide
        else:
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


def block_size(device: torch.device, num_candidates: int, block: int | None, memory: int | None) -> int:
    """Users in a block: ``block``, or as many as keep the block's scores within ``memory`` bytes."""
    if block is not None:
        if block < 1:
            raise InputError(f"block is {block}; it has to be at least 1 user.")
        return block
    if memory is None:
        memory = CUDA_MEMORY if device.type == "cuda" else CPU_MEMORY
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
    size = min(block_size(scorer.device, padded, block, memory), max(len(users), 1))
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


def device_of(model: GraphRecommender | Encoded | Scores) -> torch.device:
    """Where scores are made: that of the model; the CPU for a function."""
    if isinstance(model, Encoded):
        return model.items.device
    return model.device if isinstance(model, GraphRecommender) else torch.device("cpu")


def score_items(model: GraphRecommender | Encoded | Scores, users: Tensor, items: Tensor) -> Tensor:
    """Scores (B, P) of items (B, P) of each user (B,), of these alone where the model can; float32 or float64."""
    if isinstance(model, Encoded):
        found = torch.einsum("bd,bpd->bp", model.users[users], model.items[items])
    elif isinstance(model, GraphRecommender):
        found = model.score(users, items)
    else:
        found = model(users).gather(1, items)
    found = found.detach()
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found
