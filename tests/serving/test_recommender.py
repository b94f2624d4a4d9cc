from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from graphrec.errors import InputError, MissingFileError
from graphrec.runs import write_run
from graphrec.serving import Recommender
from tests.serving.worlds import Together, Vectors, small_data


def recommender(model_class: type = Vectors, *, names: bool = True) -> Recommender:
    data = small_data(names=names)
    model = model_class(data)
    if not model.encodes():
        model.solve()
    return Recommender(model, data.vocabularies, names={"item": data.names["item"]} if names else None)


def items(frame: pd.DataFrame, user: object) -> list[str]:
    return frame[frame["user"] == user].sort_values("rank")["item"].tolist()


def test_lists_in_order_without_what_was_seen() -> None:
    frame = recommender().recommend([11, 10], k=3)
    assert frame.columns.tolist() == ["user", "rank", "item", "score", "name"]
    assert frame["user"].tolist() == [11, 11, 11, 10, 10, 10]
    assert frame["rank"].tolist() == [1, 2, 3, 1, 2, 3]
    # User 11 has b, c and d; user 10 has a and b. Scores are 6 for a down to 1 for f.
    assert items(frame, 11) == ["a", "e", "f"] and items(frame, 10) == ["c", "d", "e"]
    assert frame["score"].tolist() == [6.0, 2.0, 1.0, 4.0, 3.0, 2.0]
    assert frame["name"].tolist()[:2] == ["Item a", "Item e"] and frame["name"].isna().tolist()[2]


def test_without_names_there_are_four_columns_and_all_users_come_by_default() -> None:
    frame = recommender(names=False).recommend(k=1)
    assert frame.columns.tolist() == ["user", "rank", "item", "score"]
    assert frame["user"].tolist() == [10, 11, 12] and frame["user"].dtype == np.int64


def test_seen_items_can_stay_and_candidates_narrow() -> None:
    rec = recommender()
    assert items(rec.recommend([10], k=3, exclude_seen=False), 10) == ["a", "b", "c"]
    assert items(rec.recommend([10], k=3, candidates=["f", "b", "d"]), 10) == ["d", "f"]
    with pytest.warns(UserWarning, match="1 of 2 item ids are unknown"):
        assert items(rec.recommend([10], candidates=["zz", "e"], k=2), 10) == ["e"]
    with pytest.raises(InputError, match="none of the items"), pytest.warns(UserWarning):
        rec.recommend([10], candidates=["zz"], k=2)


def test_a_user_with_few_items_left_gets_fewer_rows() -> None:
    frame = recommender().recommend(k=6)
    assert frame.groupby("user").size().to_dict() == {10: 4, 11: 3, 12: 6}


def test_unknown_users_by_policy() -> None:
    rec = recommender()
    with pytest.warns(UserWarning, match="1 of 2 user ids are unknown to the model: '77'"):
        frame = rec.recommend(["77", "10"], k=1)
    assert frame["user"].tolist() == [10]
    with pytest.raises(InputError, match="1 of 1 user ids are unknown"):
        rec.recommend([77], k=1, unknown="error")
    with pytest.warns(UserWarning, match="most popular"):
        frame = rec.recommend([77, 10], k=2, unknown="popular")
    # b was chosen twice, a, c and d once.
    assert items(frame, 77) == ["b", "a"] and items(frame, 10) == ["c", "d"]
    with pytest.raises(InputError, match="Did you mean 'popular'"):
        rec.recommend([77], k=1, unknown="populer")
    with pytest.warns(UserWarning):
        assert rec.recommend([77], k=1).empty


@pytest.mark.parametrize("k", [0, -1, 7])
def test_k_outside_the_catalogue(k: int) -> None:
    with pytest.raises(InputError, match="from 1 to 6"):
        recommender().recommend([10], k=k)


def test_streamed_file_is_the_frame(tmp_path: Path) -> None:
    rec, out = recommender(), tmp_path / "new" / "lists.parquet"
    assert rec.recommend_all(out, k=3, block=2) == out
    assert pq.ParquetFile(out).num_row_groups == 2
    pd.testing.assert_frame_equal(pd.read_parquet(out), rec.recommend(k=3), check_dtype=False)
    assert [path.name for path in out.parent.iterdir()] == ["lists.parquet"]
    with pytest.raises(InputError, match="is a folder"):
        rec.recommend_all(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        rec.recommend_all(tmp_path / "file" / "lists.parquet", k=3)


def test_new_users_by_the_mean_of_their_items() -> None:
    rec = recommender()
    frame = rec.recommend_for(["f", "e"], k=2, user="new", fold_in="mean")
    # The mean of (2, 1) and (1, 1) is (1.5, 1): a scores 6 * 1.5 + 1 = 10, b 8.5.
    assert items(frame, "new") == ["a", "b"] and frame["score"].tolist() == [10.0, 8.5]
    assert rec.recommend_for(["f", "e"], [0, 1], k=1, fold_in="mean")["score"].tolist() == [13.0]
    ridge = rec.recommend_for(["a"], k=6, exclude_seen=False, fold_in="ridge")
    assert ridge["item"].tolist()[0] == "a"
    pd.testing.assert_frame_equal(rec.recommend_for(["a"], k=6, exclude_seen=False), ridge)
    with pytest.raises(InputError, match="weights: 2 numbers"):
        rec.recommend_for(["f", "e"], [1.0], k=1)
    with pytest.raises(InputError, match="at least one known item"), pytest.warns(UserWarning):
        rec.recommend_for(["zz"], k=1)
    with pytest.warns(UserWarning):
        assert rec.recommend_for(["zz"], k=1, unknown="popular")["item"].tolist() == ["b"]


def test_new_users_exactly_where_the_model_can() -> None:
    rec = recommender(Together)
    own = rec.recommend([11], k=6, exclude_seen=False)
    new = rec.recommend_for(["b", "c", "d"], k=6, exclude_seen=False)
    assert own["item"].tolist() == new["item"].tolist() and own["score"].tolist() == new["score"].tolist()
    with pytest.raises(InputError, match="leave fold_in out"):
        rec.recommend_for(["b"], k=1, fold_in="mean")


def test_similar_items() -> None:
    frame = recommender().similar_items(["a", "f"], k=2)
    assert frame.columns.tolist() == ["item", "rank", "similar", "score", "name"]
    # The angle to the second axis grows with the first coordinate, so neighbours are next to each other.
    assert frame["similar"].tolist() == ["b", "c", "e", "d"]
    together = recommender(Together).similar_items(["b"], k=2)
    assert together["similar"].tolist() == ["a", "c"] and together["score"].tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match="unknown"):
        recommender().similar_items(["zz"], k=1, unknown="error")


def test_exported_vectors_carry_their_ids(tmp_path: Path) -> None:
    rec = recommender()
    with np.load(rec.export_embeddings(tmp_path / "v.npz"), allow_pickle=False) as arrays:
        assert arrays["item_ids"].tolist() == list("abcdef") and arrays["user_ids"].tolist() == [10, 11, 12]
        assert arrays["items"].shape == (6, 2) and arrays["items"].dtype == np.float32
    tensors = load_file(rec.export_embeddings(tmp_path / "v.safetensors"))
    assert bytes(tensors["item_ids_utf8"].numpy()) == b"abcdef"
    assert tensors["item_ids_offsets"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert torch.equal(tensors["items"], rec.model.encoded().items)
    frame = pd.read_parquet(rec.export_embeddings(tmp_path / "v.parquet"))
    assert frame["id"].tolist() == ["10", "11", "12", *"abcdef"]
    assert frame["vector"].tolist()[3].tolist() == [6.0, 1.0]
    with pytest.raises(InputError, match=r"\.npz, \.safetensors, \.parquet"):
        rec.export_embeddings(tmp_path / "v.csv")
    with pytest.raises(InputError, match="no representations"):
        recommender(Together).export_embeddings(tmp_path / "w.npz")


def saved(tmp_path: Path) -> Path:
    data = small_data()
    config = {"dataset": {"name": "small", "fingerprint": data.fingerprint}, "fit": {}, "seed": 0, "status": "finished"}
    run = write_run(
        tmp_path / "run", model=Vectors(data, scale=2.0), data=data, config=config, metrics={"recall@20": 0.5}
    )
    return run.path


def test_a_run_opened_without_its_data_gives_the_same_lists(tmp_path: Path) -> None:
    path, data = saved(tmp_path), small_data()
    fresh = Recommender(Vectors(data, scale=2.0), data.vocabularies, names={"item": data.names["item"]})
    opened = Recommender.from_pretrained(path)
    pd.testing.assert_frame_equal(opened.recommend(k=4), fresh.recommend(k=4))
    copy = opened.save_pretrained(tmp_path / "copy")
    pd.testing.assert_frame_equal(Recommender.from_pretrained(copy).recommend(k=4), fresh.recommend(k=4))
    assert opened.save_pretrained(path) == path
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("keep me")
    with pytest.raises(MissingFileError):
        opened.save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="in memory"):
        fresh.save_pretrained(tmp_path / "x")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no run folder"):
        Recommender.from_pretrained(tmp_path / "none")
