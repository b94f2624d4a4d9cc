from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphrec.errors import InputError
from graphrec.evaluation import scoring
from graphrec.evaluation.ranking import rank
from graphrec.evaluation.user_items import UserItems
from graphrec.models.base import Encoded
from tests.evaluation import helpers


def excluded(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([[0], np.cumsum([len(x) for x in lists])]), np.array(
        [item for row in lists for item in row], dtype=np.int64
    )


def expected(scores: np.ndarray, lists: list[list[int]], k: int, items: list[int] | None = None) -> np.ndarray:
    rows = []
    for row, out in zip(scores, lists, strict=True):
        found = [item for item in helpers.ranking(row, out) if items is None or item in items][:k]
        rows.append(found + [-1] * (k - len(found)))
    return np.array(rows)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]], int, int]:
    users, items = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    values = st.sampled_from([-1.5, 0.0, -0.0, 0.25, 1.0, float("-inf")])
    scores = draw(arrays(np.float32, (users, items), elements=values))
    out = [draw(st.lists(st.integers(0, items - 1), unique=True)) for _ in range(users)]
    return scores, out, draw(st.integers(1, items + 3)), draw(st.integers(1, 7))


@settings(deadline=None, max_examples=80)
@given(problems())
def test_small_rankings_are_those_of_a_full_sort(problem: tuple[np.ndarray, list[list[int]], int, int]) -> None:
    scores, out, k, block = problem
    table = torch.from_numpy(scores)
    found, values = rank(lambda users: table[users], np.arange(len(scores)), k, excluded(out), block=block)
    assert found.numpy().tolist() == expected(scores, out, k).tolist()
    there = found >= 0
    assert torch.equal(values[there], table.gather(1, found.clamp(min=0))[there])
    assert (values[~there] == -torch.inf).all()


@pytest.mark.parametrize("levels", [2, 7, 50, 100_000])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_tiles_give_what_a_full_sort_gives(levels: int, k: int) -> None:
    # 9,000 items go through the two stages; few levels put ties at the boundary of almost every row.
    random = np.random.default_rng(levels * 100 + k)
    scores = random.integers(0, levels, (6, 9000)).astype(np.float32)
    out = [sorted(random.choice(9000, size, replace=False).tolist()) for size in (0, 1, 300, 8990, 8999, 9000)]
    table = torch.from_numpy(scores)
    for block in (1, 4, 100):
        found, _ = rank(lambda users: table[users], np.arange(6), k, excluded(out), block=block)
        assert found.numpy().tolist() == expected(scores, out, k).tolist()


def test_a_constant_model_ranks_by_item_number() -> None:
    found, _ = rank(lambda users: torch.zeros(len(users), 5000), [0, 1], 3, excluded([[0, 2], []]))
    assert found.tolist() == [[1, 3, 4], [0, 1, 2]]


def test_the_winning_tiles_may_hold_all_the_winners() -> None:
    scores = torch.zeros(1, 9000)
    scores[0, 640:704] = torch.arange(64).flip(0) + 1.0
    found, _ = rank(lambda users: scores[users], [0], 20)
    assert found[0].tolist() == list(range(640, 660))


def test_users_in_any_order_and_again() -> None:
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 300))).float()
    out = excluded([[1], [2, 3], [], [4], [5]])
    whole, _ = rank(lambda users: table[users], range(5), 4, out)
    users = [3, 0, 3, 4]
    again, _ = rank(lambda users: table[users], users, 4, out)
    assert torch.equal(again, whole[users])


def test_candidates_are_ranked_alone() -> None:
    random = np.random.default_rng(3)
    scores = random.integers(0, 4, (4, 200)).astype(np.float32)
    out = [sorted(random.choice(200, 50, replace=False).tolist()) for _ in range(4)]
    items = [150, 3, 77, 3, 20, 199]
    table = torch.from_numpy(scores)
    found, _ = rank(lambda users: table[users], range(4), 4, excluded(out), items=items)
    assert found.numpy().tolist() == expected(scores, out, 4, items).tolist()


def test_representations_and_their_scores_agree_whatever_the_block() -> None:
    # Small integers: every product is exact, so that ties are ties in any order of summation.
    random = torch.Generator().manual_seed(0)
    encoded = Encoded(
        torch.randint(-2, 3, (70, 8), generator=random).float(),
        torch.randint(-2, 3, (3000, 8), generator=random).float(),
    )
    out = excluded([[int(user)] for user in range(70)])
    whole = rank(lambda users: encoded.users[users] @ encoded.items.T, range(70), 10, out)
    for options in ({}, {"block": 1}, {"block": 33}, {"memory": 100_000}):
        found, values = rank(encoded, range(70), 10, out, **options)
        assert torch.equal(found, whole[0]) and torch.equal(values, whole[1])
    half = Encoded(encoded.users.bfloat16(), encoded.items.bfloat16())
    assert torch.equal(rank(half, range(70), 10, out)[0], whole[0])


def test_scores_that_a_model_keeps_are_not_written_to() -> None:
    popularity = torch.arange(10.0)
    found, _ = rank(lambda users: popularity.expand(len(users), -1), [0, 1], 2, excluded([[9], [8]]))
    assert found.tolist() == [[8, 7], [9, 7]]
    assert torch.equal(popularity, torch.arange(10.0))


def test_excluded_items_as_objects() -> None:
    class Matrix:
        indptr, items = excluded([[0], [1]])

    class Adjacency:
        rowptr, col = torch.tensor([0, 1, 2], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)

    for given_as in (Matrix(), Adjacency(), UserItems.of(Matrix())):
        assert rank(lambda users: torch.zeros(len(users), 3), [0, 1], 1, given_as)[0].tolist() == [[1], [0]]
    with pytest.raises(InputError, match="CSR"):
        rank(lambda users: torch.zeros(len(users), 3), [0], 1, "train")


@pytest.mark.parametrize("items", [50, 9000])
def test_nan_is_refused(items: int) -> None:
    scores = torch.zeros(3, items)
    scores[1, items // 2] = torch.nan
    with pytest.raises(InputError, match="user number 1 contain NaN"):
        rank(lambda users: scores[users], [0, 1, 2], 5)


def test_numbers_that_do_not_exist_are_refused() -> None:
    encoded = Encoded(torch.zeros(2, 1), torch.zeros(3, 1))
    for users, items, what in (
        ([2], None, "user number 2"),
        ([-1], None, "user number -1"),
        ([0], [3], "item number 3"),
    ):
        with pytest.raises(InputError, match=what):
            rank(encoded, users, 1, items=items)
    with pytest.raises(InputError, match="k is 0"):
        rank(encoded, [0], 0)
    with pytest.raises(InputError, match="block"):
        rank(encoded, [0], 1, block=0)


def test_nobody_to_rank_for() -> None:
    found, values = rank(Encoded(torch.zeros(2, 1), torch.zeros(3, 1)), torch.empty(0, dtype=torch.int64), 2)
    assert found.shape == values.shape == (0, 2)


def test_membership() -> None:
    truth = UserItems.of(excluded([[1, 4], [], [0]]))
    lists = torch.tensor([[4, 0, -1], [1, 2, 3], [-1, -1, 0]])
    assert truth.contains(torch.arange(3), lists, 5).tolist() == [
        [True, False, False],
        [False, False, False],
        [False, False, True],
    ]
    assert not UserItems.of(excluded([[], []])).contains(torch.arange(2), torch.zeros(2, 1, dtype=torch.int64), 5).any()


def test_the_block_keeps_to_the_budget() -> None:
    for width in (10, 1000, 40_000, 10_000_000):
        size = scoring.block_size(torch.device("cpu"), width, None, 1 << 24)
        assert size == 1 or size * width * 4 <= 1 << 24


def test_transposed_scores_are_ranked_like_any_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "COPIED_COLUMNS", 16)
    random = np.random.default_rng(0)
    table = torch.from_numpy(random.integers(0, 9, (12, 70)).astype(np.float32))
    columns = table.T.contiguous()
    out = [sorted(random.choice(70, 10, replace=False).tolist()) for _ in range(12)]
    for block in (1, 5, 12):
        found, values = rank(lambda users: columns[:, users].T, np.arange(12), 7, excluded(out), block=block)
        assert found.numpy().tolist() == expected(table.numpy(), out, 7).tolist()
        assert torch.equal(values, table.gather(1, found))
