"""What somebody who may ask a model for scores sees of some pairs: the score, its rank, and how usual it is."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from graphrec.evaluation.scoring import Scorer, evaluating, score_blocks
from graphrec.evaluation.user_items import UserItems
from graphrec.randomness import derive, hash_uniform
from graphrec.unlearning.evidence.pairs import PairSet
from graphrec.unlearning.evidence.views import View

MARGINS = (10, 20)
ITEM_SAMPLE = 2048


@dataclass(frozen=True, eq=False)
class Observed:
    """Of P pairs, all (P,) float64 on the CPU.

    Attributes:
        score: s of the pair, without any mask.
        percentile: share of the user's other candidates that score higher, equal ones half: 0 is the first place.
        margins: (P, 2) score minus the user's 10th and 20th best.
        user_mean: mean score of the user over items.
        user_sd: its standard deviation.
        item_mean: mean score of the item over users (a sample of 2,048 of them).
        item_sd: its standard deviation.
    """

    score: Tensor
    percentile: Tensor
    margins: Tensor
    user_mean: Tensor
    user_sd: Tensor
    item_mean: Tensor
    item_sd: Tensor

    def __getitem__(self, which: slice | Tensor) -> Observed:
        return Observed(**{entry.name: getattr(self, entry.name)[which] for entry in fields(self)})

    def __len__(self) -> int:
        return len(self.score)


def observe(
    view: View,
    pairs: PairSet,
    *,
    exclude: UserItems | None = None,
    sample: Tensor | None = None,
    block: int | None = None,
    memory: int | None = None,
) -> Observed:
    """Ask a model for some pairs, users in blocks; nothing of size (U, I) is made.

    Args:
        view: the model; it has a row for every user and item of ``pairs``.
        pairs: P pairs.
        exclude: items that are no candidates of a user's ranking; a pair's own item always is one.
        sample: users (S,) that the items' means are taken over; None: they are not needed (NaN).
        block: users in a block.
        memory: bytes for a block of scores, as in :func:`graphrec.evaluation.rank`.
    """
    size = len(pairs)
    users, row = pairs.users.unique(return_inverse=True)
    order = row.argsort(stable=True)
    first = torch.searchsorted(row[order].contiguous(), torch.arange(len(users) + 1))
    score, percentile = torch.empty(size, dtype=torch.float64), torch.empty(size, dtype=torch.float64)
    margins = torch.full((size, len(MARGINS)), torch.nan, dtype=torch.float64)
    user_mean, user_sd = torch.empty(size, dtype=torch.float64), torch.empty(size, dtype=torch.float64)
    with evaluating(view.model):
        scorer = view.scorer()
        left_out = None if exclude is None else exclude.to(scorer.device)
        for part in score_blocks(scorer, users.to(scorer.device), None, block=block, memory=memory):
            which = order[int(first[part.start]) : int(first[part.start + len(part.users)])]
            inner = (row[which] - part.start).to(scorer.device)
            own = part.scores[inner, pairs.items[which].to(scorer.device)]
            score[which] = own.double().cpu()
            there = part.scores > -torch.inf
            count = there.sum(1)
            values = torch.where(there, part.scores, 0).double()
            mean = values.sum(1) / count
            variance = (torch.where(there, values - mean[:, None], 0) ** 2).sum(1) / count
            user_mean[which], user_sd[which] = mean[inner].cpu(), variance.sqrt()[inner].cpu()
            candidate = torch.ones_like(inner, dtype=torch.bool)
            if left_out is not None:
                masked_row, masked_item = left_out.gather(part.users)
                part.scores[masked_row, masked_item] = -torch.inf
                candidate = part.scores[inner, pairs.items[which].to(scorer.device)] > -torch.inf
            ascending = part.scores.sort(dim=1).values
            below = torch.searchsorted(ascending[inner], own[:, None]).squeeze(1)
            at_most = torch.searchsorted(ascending[inner], own[:, None], right=True).squeeze(1)
            width = ascending.shape[1]
            others = (ascending > -torch.inf).sum(1)[inner] - candidate.long()
            ahead = (width - at_most) + (at_most - below - candidate.long()).double() / 2
            percentile[which] = (ahead / others.clamp(min=1)).cpu()
            for number, k in enumerate(MARGINS):
                if k <= width:
                    margins[which, number] = (own - ascending[inner, width - k]).double().cpu()
        item_mean, item_sd = _over_users(scorer, sample, block, memory)
    items = pairs.items
    return Observed(
        score, percentile, margins, user_mean, user_sd,
        item_mean[items] if item_mean is not None else torch.full((size,), torch.nan, dtype=torch.float64),
        item_sd[items] if item_sd is not None else torch.full((size,), torch.nan, dtype=torch.float64),
    )  # fmt: skip


def _over_users(
    scorer: Scorer, sample: Tensor | None, block: int | None, memory: int | None
) -> tuple[Tensor | None, Tensor | None]:
    """Mean and standard deviation of each item's scores over some users."""
    if sample is None or len(sample) == 0:
        return None, None
    total: Tensor | None = None
    squares: Tensor | None = None
    for part in score_blocks(scorer, sample.to(scorer.device), None, block=block, memory=memory):
        values = part.scores.double()
        total = values.sum(0) if total is None else total + values.sum(0)
        squares = (values**2).sum(0) if squares is None else squares + (values**2).sum(0)
    assert total is not None and squares is not None
    mean = total / len(sample)
    return mean.cpu(), (squares / len(sample) - mean**2).clamp(min=0).sqrt().cpu()


def sampled_users(users: Tensor, most: int, seed: int, purpose: str) -> Tensor:
    """At most ``most`` of some users, by a hash of each, ascending."""
    if len(users) <= most:
        return users
    draw = hash_uniform(derive(seed, purpose), users)
    return users[draw.argsort(stable=True)[:most]].sort().values
