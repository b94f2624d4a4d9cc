"""What is observed of pairs, against one user at a time."""

from __future__ import annotations

import pytest
import torch

from graphrec.evaluation.user_items import UserItems
from graphrec.unlearning.evidence.distance import scores_of
from graphrec.unlearning.evidence.observed import observe, sampled_users
from graphrec.unlearning.evidence.pairs import PairSet
from graphrec.unlearning.evidence.views import view
from tests.unlearning.evidence.scene import world


def some_pairs(count: int) -> PairSet:
    stream = torch.Generator().manual_seed(3)
    return PairSet(torch.randint(160, (count,), generator=stream), torch.randint(80, (count,), generator=stream))


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_that_of_sorting_each_row(masked: bool) -> None:
    here = world()
    pairs = some_pairs(200)
    known = UserItems.of(here.left.pairs("train"))
    seen = observe(view(here.before, here.data), pairs, exclude=known if masked else None, sample=torch.arange(160))
    with torch.no_grad():
        table = here.before.score(torch.arange(160)).double()
    for n, (user, item) in enumerate(zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)):
        row = table[user]
        own = row[item]
        left_out = set(known.items[known.indptr[user] : known.indptr[user + 1]].tolist()) if masked else set()
        others = torch.tensor([row[j] for j in range(80) if j != item and j not in left_out])
        ahead = (others > own).sum() + (others == own).sum() / 2
        assert float(seen.score[n]) == pytest.approx(float(own), abs=1e-5)
        assert float(seen.percentile[n]) == pytest.approx(float(ahead) / len(others), abs=1e-9)
        assert float(seen.user_mean[n]) == pytest.approx(float(row.mean()), abs=1e-5)
        assert float(seen.user_sd[n]) == pytest.approx(float(row.std(correction=0)), abs=1e-5)
        assert float(seen.item_mean[n]) == pytest.approx(float(table[:, item].mean()), abs=1e-5)
        if not masked:
            best = row.sort(descending=True).values
            assert seen.margins[n].tolist() == pytest.approx([float(own - best[9]), float(own - best[19])], abs=1e-5)


def test_the_block_does_not_matter() -> None:
    here = world()
    pairs, seen_by = some_pairs(120), view(here.before, here.data)
    whole, small = observe(seen_by, pairs), observe(seen_by, pairs, block=7)
    for name in ("score", "percentile", "margins", "user_mean"):
        assert torch.allclose(getattr(whole, name), getattr(small, name), atol=1e-5)
    assert torch.allclose(scores_of(seen_by, pairs), whole.score, atol=1e-6)
    assert len(whole[:5]) == 5


def test_a_sample_of_users_does_not_depend_on_the_others() -> None:
    every = torch.arange(1000)
    few = sampled_users(every, 100, 0, "x")
    assert len(few) == 100
    without = sampled_users(every[~torch.isin(every, few[:10])], 100, 0, "x")
    assert set(few[10:].tolist()) <= set(without.tolist())
    assert torch.equal(sampled_users(few, 100, 1, "y"), few)
