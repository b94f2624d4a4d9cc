"""Ranking among drawn negatives, as old papers did."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.evaluation.protocol import Protocol
from graphrec.evaluation.scoring import Scores, block_size, device_of, evaluating, score_items
from graphrec.evaluation.top_k import top_k
from graphrec.evaluation.user_items import UserItems
from graphrec.models.base import Encoded, GraphRecommender
from graphrec.randomness import derive, hash_uniform

# Pairs that are scored together: a model may look at a neighbourhood for each.
_PAIRS = 1 << 14


def rank_sampled(
    model: GraphRecommender | Encoded | Scores,
    plan: Protocol,
    k: int,
    negatives: int,
    seed: int,
    *,
    block: int | None = None,
    memory: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The best ``k`` of each user's truth and ``negatives`` drawn candidates; nothing else is scored.

    The negatives are drawn without repetition among the candidates that are neither left out nor relevant; a user's
    draw depends on the seed and the user's number alone. A user with fewer of them gets all.

    Returns:
        Items (B, k) int64, -1 where there is none, and scores (B, k), as :func:`graphrec.evaluation.rank` gives them.
    """
    if negatives < 1:
        raise InputError(f"sampled_negatives is {negatives}; draw at least 1, or leave it out for the full ranking.")
    if negatives > plan.num_items:
        raise InputError(
            f"sampled_negatives is {negatives}, more than the {plan.num_items} items that are ranked; draw fewer, or "
            "leave it out for the full ranking."
        )
    device, stream = device_of(model), derive(seed, "sampled negatives")
    users, truth = plan.users.to(device), plan.truth.to(device)
    exclude = None if plan.exclude is None else plan.exclude.to(device)
    candidates = None if plan.items is None else plan.items.to(device)
    found = torch.full((len(users), k), -1, device=device)
    values: Tensor | None = None
    # The draws are in double precision.
    size = block_size(device, 2 * plan.num_items, block, memory)
    with evaluating(model):
        for start in range(0, len(users), size):
            own = users[start : start + size]
            drawn = hash_uniform(stream, own[:, None], torch.arange(plan.num_items, device=device))
            column = _chosen(drawn, own, truth, exclude, candidates, negatives)
            for part in torch.arange(len(own), device=device).split(max(1, _PAIRS // column.shape[1])):
                items = column[part].clamp_min(0)
                items = items if candidates is None else candidates[items]
                scores = score_items(model, own[part], items).masked_fill(column[part] < 0, -torch.inf)
                where, best = top_k(scores, k, own[part])
                if values is None:
                    values = torch.full(found.shape, -torch.inf, dtype=best.dtype, device=device)
                place = start + part
                found[place, : where.shape[1]] = items.gather(1, where.clamp_min(0)).where(where >= 0, -1)
                values[place, : where.shape[1]] = best
    return found, values if values is not None else found.new_full(found.shape, -torch.inf, dtype=torch.float32)


def _chosen(
    drawn: Tensor, users: Tensor, truth: UserItems, exclude: UserItems | None, candidates: Tensor | None, count: int
) -> Tensor:
    """Columns of the candidates that each user's truth is ranked among, ascending, -1 at the end of shorter rows.

    Args:
        drawn: (B, P), a number for each candidate; those with the largest are chosen.
        users: (B,).
        truth: relevant items, which are chosen unless they are left out.
        exclude: items left out.
        candidates: (P,) items ascending; None: all.
        count: of the others.
    """
    row, column = _columns(truth, users, candidates)
    drawn[row, column] = -1.0
    left_out = None if exclude is None else _columns(exclude, users, candidates)
    if left_out is not None:
        drawn[left_out] = -1.0
    largest, others = drawn.topk(min(count, drawn.shape[1]), dim=1)
    chosen = torch.zeros_like(drawn, dtype=torch.bool).scatter_(1, others, largest >= 0)
    chosen[row, column] = True
    if left_out is not None:
        chosen[left_out] = False
    row, column = chosen.nonzero(as_tuple=True)
    counts = chosen.sum(1)
    found = column.new_full((len(users), max(1, int(counts.max()) if len(counts) else 1)), -1)
    found[row, torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]] = column
    return found


def _columns(items: UserItems, users: Tensor, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows and columns of users' items among the candidates."""
    row, item = items.gather(users)
    if candidates is None:
        return row, item
    column = torch.searchsorted(candidates, item).clamp_max(len(candidates) - 1)
    known = candidates[column] == item
    return row[known], column[known]
