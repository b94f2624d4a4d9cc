"""What a mask blocks is served to nobody, at once and after the run is opened again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graphrec.errors import InputError
from graphrec.runs import Run, write_run
from graphrec.serving import Recommender
from graphrec.serving.mask import MASK, Mask
from tests.serving.test_recommender import items, recommender
from tests.serving.worlds import Together, Vectors, small_data


def mask(users: list[int] = [], items: list[int] = [], pairs: list[list[int]] = []) -> Mask:  # noqa: B006
    pairs_of = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return Mask(torch.tensor(users, dtype=torch.int64), torch.tensor(items, dtype=torch.int64), pairs_of)


def test_a_blocked_user_is_unknown() -> None:
    rec = recommender()
    rec.hide(mask(users=[1]))
    assert rec.recommend(k=1)["user"].tolist() == [10, 12]
    assert rec.recommend([12, 10], k=1)["user"].tolist() == [12, 10]
    with pytest.warns(UserWarning, match="1 of 2 user ids are unknown"):
        assert rec.recommend([11, 10], k=1)["user"].tolist() == [10]
    with pytest.raises(InputError, match="unknown"):
        rec.recommend([11], k=1, unknown="error")
    assert [frame["user"].tolist() for frame in rec.recommend_blocks(1, block=1)] == [[10], [12]]


def test_a_blocked_item_is_in_no_list() -> None:
    rec = recommender()
    rec.hide(mask(items=[0]))
    assert items(rec.recommend([11], k=3), 11) == ["e", "f"]
    assert "a" not in rec.recommend(k=6, exclude_seen=False)["item"].tolist()
    assert "a" not in rec.similar_items(["b"], k=5)["similar"].tolist()
    with pytest.warns(UserWarning, match="unknown"):
        assert rec.similar_items(["a"], k=2).empty
    with pytest.warns(UserWarning, match="unknown"):
        assert items(rec.recommend([10], k=2, candidates=["a", "e"]), 10) == ["e"]


def test_a_blocked_pair_is_in_the_user_s_list_neither_as_new_nor_as_seen() -> None:
    rec = recommender()
    rec.hide(mask(pairs=[[0, 1], [0, 2]]))  # user 10 had b; c would be the best new item
    assert items(rec.recommend([10], k=2), 10) == ["d", "e"]
    assert items(rec.recommend([10], k=6, exclude_seen=False), 10) == ["a", "d", "e", "f"]
    assert items(rec.recommend([12], k=3, exclude_seen=False), 12) == ["a", "b", "c"]


def test_popularity_for_unknown_users_counts_nothing_that_is_blocked() -> None:
    rec = recommender()
    plain = rec.recommend(["new"], k=6, unknown="popular")
    assert dict(zip(plain["item"], plain["score"], strict=True))["b"] == 2
    rec.hide(mask(users=[1], pairs=[[0, 1]]))
    shown = rec.recommend(["new"], k=6, unknown="popular")
    counts = dict(zip(shown["item"], shown["score"], strict=True))
    assert counts["a"] == 1 and counts["b"] == 0 and counts["c"] == 0


def test_masks_add_up_and_vectors_of_the_blocked_are_not_exported(tmp_path: Path) -> None:
    rec = recommender()
    rec.hide(mask(users=[1]))
    rec.hide(mask(users=[1, 2], items=[5]))
    assert rec.mask is not None and rec.mask.users.tolist() == [1, 2]
    with np.load(rec.export_embeddings(tmp_path / "vectors.npz"), allow_pickle=False) as file:
        assert file["user_ids"].tolist() == [10] and len(file["users"]) == 1
        assert file["item_ids"].tolist() == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("model_class", [Vectors, Together])
def test_a_run_keeps_its_mask_and_says_who_took_its_place(tmp_path: Path, model_class: type) -> None:
    data = small_data(names=True)
    model = model_class(data)
    if not model.encodes():
        model.solve()
    config = {"dataset": {"name": "small", "fingerprint": data.fingerprint}, "fit": {}, "seed": 0, "status": "complete"}
    run = write_run(tmp_path / "run", model=model, data=data, config=config, metrics={})
    mask(users=[0]).write(tmp_path / MASK)
    run = run.add({MASK: tmp_path / MASK})
    run.verify()
    rec = Recommender.from_pretrained(run)
    assert rec.recommend(k=1)["user"].tolist() == [11, 12]
    run = run.add({"superseded.json": '{"by": "other", "edges": 3, "at": "2030-01-01T00:00:00Z"}'})
    with pytest.raises(InputError, match="superseded: other forgot 3 edges"):
        Run.open(run.path)
    with pytest.raises(InputError, match="--allow-superseded"):
        Recommender.from_pretrained(run.path)
    opened = Recommender.from_pretrained(run.path, allow_superseded=True)
    assert opened.recommend(k=1)["user"].tolist() == [11, 12]
