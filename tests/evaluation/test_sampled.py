"""Ranking among drawn negatives: the draws against a slow loop, and that nothing but what was drawn is scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.evaluation.protocol import Candidates, Protocol, protocol
from graphrec.evaluation.sampled import rank_sampled
from graphrec.models import BPRMF
from graphrec.models.base import EdgeWeight, Encoded
from graphrec.randomness import derive, hash_uniform
from tests.evaluation import helpers

USERS, ITEMS = 15, 30


def world(seed: int) -> RecDataset:
    """Users with few and with many items; user 3 has tested items that were trained on, too."""
    random = np.random.default_rng(seed)
    taken = [random.choice(ITEMS, random.integers(3, 25), replace=False).tolist() for _ in range(USERS)]
    train, test = [items[2:] for items in taken], [items[:2] for items in taken]
    train[3] = [*train[3], test[3][0]]
    return helpers.dataset(train, test, ITEMS)


def slow_lists(scores: np.ndarray, plan: Protocol, negatives: int, seed: int) -> list[list[int]]:
    """The lists of each user, from the definition."""
    candidates = list(range(ITEMS)) if plan.items is None else plan.items.tolist()
    found = []
    for user in plan.users.tolist():
        truth = set(plan.truth.gather(torch.tensor([user]))[1].tolist())
        out = set() if plan.exclude is None else set(plan.exclude.gather(torch.tensor([user]))[1].tolist())
        draws = {
            item: float(hash_uniform(derive(seed, "sampled negatives"), user, column))
            for column, item in enumerate(candidates)
            if item not in truth | out
        }
        chosen = sorted(draws, key=lambda item: -draws[item])[:negatives] + sorted(truth - out)
        found.append(sorted(chosen, key=lambda item: (-scores[user, item], item)))
    return found


@pytest.mark.parametrize("block", [None, 4])
@pytest.mark.parametrize("candidates", ["all", "seen", range(1, ITEMS, 2)])
@pytest.mark.parametrize("negatives", [1, 5, 15])
def test_lists_are_those_of_a_slow_loop(negatives: int, candidates: Candidates, block: int | None) -> None:
    for seed in range(3):
        data = world(seed)
        scores = np.random.default_rng(seed).integers(0, 6, (USERS, ITEMS)).astype(np.float32)
        plan = protocol(data, split="test", mask="train", cold="keep", candidates=candidates)
        table = torch.from_numpy(scores)
        for model in (table.__getitem__, Encoded(table, torch.eye(ITEMS))):
            lists, values = rank_sampled(model, plan, 7, negatives, seed, block=block)
            expected = [items[:7] for items in slow_lists(scores, plan, negatives, seed)]
            assert [[item for item in row if item >= 0] for row in lists.tolist()] == expected
            own = table[plan.users[:, None], lists.clamp_min(0)]
            assert torch.equal(values, own.where(lists >= 0, -torch.inf))


def test_only_what_was_drawn_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    data = world(0)
    plan = protocol(data, split="test", mask="train", cold="keep", candidates="all")
    model = BPRMF(data, dim=4)
    whole = slow_lists(model.score(torch.arange(USERS)).detach().numpy(), plan, 3, 1)
    asked = []
    score = BPRMF.score

    def counted(self: BPRMF, users: Tensor, items: Tensor | None = None, *, edge_weight: EdgeWeight = None) -> Tensor:
        assert items is not None
        asked.append(items)
        return score(self, users, items, edge_weight=edge_weight)

    monkeypatch.setattr(BPRMF, "score", counted)
    lists, _ = rank_sampled(model, plan, 5, 3, 1)
    assert [[item for item in row if item >= 0] for row in lists.tolist()] == whole
    assert sum(items.numel() for items in asked) <= len(plan.users) * (3 + 2)
