"""Ranking among drawn negatives, as old papers did."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.evaluation.protocol import Protocol
from graphrec.evaluation.ranking import TILE, Scorer, Scores, UserItems, evaluating, score_blocks, top_k
from graphrec.models.base import Encoded, GraphRecommender
from graphrec.randomness import derive, hash_uniform


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
    """The best ``k`` of each user's truth and ``negatives`` drawn candidates.

    The negatives are drawn without repetition among the candidates that are neither left out nor relevant; a user's
    draw depends on the seed and the user's number alone. A user with fewer of them gets all.

    Returns:
        Items (B, k) int64, -1 where there is none, and scores (B, k), as :func:`graphrec.evaluation.rank` gives them.
    """
    if negatives < 1:
        raise InputError(f"sampled_negatives is {negatives}; draw at least 1, or leave it out for the full ranking.")
    stream = derive(seed, "sampled negatives")
    found, values = [], []
    with evaluating(model):
        scorer = Scorer(model, plan.items)
        users = plan.users.to(scorer.device)
        exclude = None if plan.exclude is None else plan.exclude.to(scorer.device)
        truth: UserItems = plan.truth.to(scorer.device)
        # The draws need as much room again as the scores, in double precision.
        for part in score_blocks(scorer, users, exclude, tile=TILE, block=block, memory=memory):
            width = part.scores.shape[1]
            rows, items = truth.gather(part.users)
            if scorer.candidates is not None:
                items = torch.searchsorted(scorer.candidates, items)
            numbers = torch.arange(width)
            draw = hash_uniform(stream, part.users.cpu()[:, None], numbers).to(scorer.device)
            draw[part.scores == -torch.inf] = -1.0
            draw[rows, items] = -1.0
            drawn, column = draw.topk(min(negatives, width), dim=1)
            chosen = torch.zeros_like(part.scores, dtype=torch.bool).scatter_(1, column, drawn >= 0)
            chosen[rows, items] = True
            where, best = top_k(part.scores.masked_fill(~chosen, -torch.inf), k, part.users)
            if scorer.candidates is not None:
                where = torch.where(where < 0, -1, scorer.candidates[where.clamp(min=0)])
            found.append(where)
            values.append(best)
    return torch.cat(found), torch.cat(values)
