from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphrec.datasets import Builder, RecDataset
from graphrec.errors import InputError

T = ("user", "interacts", "item")


def toy() -> RecDataset:
    """Users 1 to 3, items 10 to 13; edge ids 0 to 6 in the order written."""
    builder = Builder("toy")
    rows = {
        "user": [1, 1, 1, 2, 2, 3, 3],
        "item": [10, 11, 12, 10, 13, 11, 12],
        "part": [0, 0, 2, 0, 1, 0, 2],
        "label": [1, 0, 1, 1, 1, 1, 1],
        "rating": [5, 1, 4, 4, 5, 3, 4],
        "time": [7, 6, 5, 4, 3, 2, 1],
    }
    builder.interactions(rows, part="part", label="label", rating="rating", time="time")
    builder.links({"source": [1, 2], "target": [3, 1]})
    return builder.build()


def test_parts_pairs_and_labels() -> None:
    data = toy()
    assert data.parts == ("train", "valid", "test")
    assert data.part_counts() == {"train": 4, "valid": 1, "test": 2}
    assert data.interactions("train").edge_id.tolist() == [0, 3, 5]
    assert data.interactions("train", labels=True).edge_id.tolist() == [0, 1, 3, 5]
    assert len(data.interactions()) == 6
    pairs = data.pairs("train")
    assert pairs.indptr.tolist() == [0, 1, 2, 3] and pairs.items.tolist() == [0, 0, 1]
    assert pairs.users.tolist() == [0, 1, 2] and pairs.edge_id.tolist() == [0, 3, 5]
    assert data.pairs("train+valid").items.tolist() == [0, 0, 3, 1]
    with pytest.raises(InputError, match=r"unknown part 'trian'. Did you mean 'train'"):
        data.pairs("trian")


def test_a_pair_in_two_parts_is_one_pair_of_both() -> None:
    builder = Builder().interactions({"user": [1, 1], "item": [1, 2]}, part="train")
    data = builder.interactions({"user": [1], "item": [1]}, part="test").build()
    assert data.pairs("train+test").items.tolist() == [0, 1]
    assert data.pairs(None).items.tolist() == [0, 1]


def test_without_parts_everything_is_train() -> None:
    data = Builder().interactions({"user": [1], "item": [1]}).build()
    assert data.parts == ("train",) and len(data.pairs("train")) == 1 and len(data.pairs("test")) == 0


def test_the_graph_holds_training_positives() -> None:
    data = toy()
    graph = data.graph()
    assert graph[T].edge_index.tolist() == [[0, 1, 2], [0, 0, 1]]
    assert graph[T].edge_id.tolist() == [0, 3, 5]
    assert graph[T].rating.tolist() == [5, 4, 3] and graph[T].time.dtype == torch.int64
    assert "label" not in graph[T] and "part" not in graph[T]
    assert graph["user"].num_nodes == 3 and graph["item"].num_nodes == 4
    assert graph["user", "trusts", "user"].edge_index.tolist() == [[0, 1], [2, 0]]
    assert data.graph("test")[T].edge_id.tolist() == [2, 6]
    only = data.graph(edge_types=[("user", "trusts", "user")])
    assert only.edge_types == [("user", "trusts", "user")] and only["item"].num_nodes == 4
    assert data.graph(edge_types=("user", "trusts", "user")).edge_types == only.edge_types
    with pytest.raises(InputError, match="unknown edge type"):
        data.graph(edge_types=[("user", "trust", "user")])
    assert graph.validate()


def test_changing_a_graph_leaves_the_dataset_alone() -> None:
    data = toy()
    graph = data.graph()
    graph[T].edge_index = graph[T].edge_index[:, :1]
    graph["item"].x = torch.zeros(4, 2)
    graph["item", "new", "item"].edge_index = torch.zeros(2, 1, dtype=torch.long)
    again = data.graph()
    assert again[T].edge_index.shape == (2, 3)
    assert "x" not in again["item"] and ("item", "new", "item") not in again.edge_types
    assert again[T].edge_index.data_ptr() == data.graph()[T].edge_index.data_ptr()


def test_columns_are_read_only() -> None:
    data = toy()
    with pytest.raises(ValueError, match="read-only"):
        data.tables[T].source[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        data.pairs("train").items[0] = 1
    with pytest.raises(TypeError):
        data.tables[T] = None
    with pytest.raises(AttributeError):
        data.name = "other"


def test_without_keeps_edge_ids_and_shares_no_cache() -> None:
    data = toy()
    graph, before = data.graph(), data.fingerprint
    less = data.without([0, 5])
    assert less.tables[T].edge_id.tolist() == [1, 2, 3, 4, 6]
    assert less.graph()[T].edge_id.tolist() == [3]
    assert less.num_users == 3 and less.num_items == 4
    assert less.rows(T, 3).tolist() == [3]
    assert data.fingerprint == before != less.fingerprint
    assert data.graph()[T].edge_id.tolist() == graph[T].edge_id.tolist()
    assert str(less.notes[-1]) == "2 interactions removed: taken out by edge id"
    both = data.without({T: [1], ("user", "trusts", "user"): [0]})
    assert len(both.tables[T]) == 6 and both.tables["user", "trusts", "user"].edge_id.tolist() == [1]
    assert data.without([]).fingerprint == before


@pytest.mark.parametrize("edges", [[99], [-1], {("user", "trusts", "user"): [2]}])
def test_without_an_edge_that_is_not_there(edges: Any) -> None:
    with pytest.raises(InputError, match="has no edge id"):
        toy().without(edges)
    with pytest.raises(InputError, match="has no edge id 0"):
        toy().without([0]).without([0])


@pytest.mark.parametrize("edges", [["x"], [0.5], [[0, 1]]])
def test_edge_ids_are_whole_numbers(edges: Any) -> None:
    with pytest.raises(InputError, match="expected whole numbers"):
        toy().without(edges)
    with pytest.raises(InputError, match="expected whole numbers"):
        toy().rows(T, edges)


def test_rows_of_merged_edges() -> None:
    rows = {"user": [2, 1, 2, 2], "item": [1, 1, 1, 2], "w": [1, 2, 3, 4]}
    data = (
        Builder()
        .interactions(rows, weight="w", duplicates="sum")
        .interactions(rows, weight="w", duplicates="sum")
        .build()
    )
    assert data.tables[T].weight.tolist() == [4, 8, 8]
    assert data.rows(T, 0).tolist() == [1, 5]
    assert data.rows(T, 1).tolist() == [0, 2, 4, 6]
    assert data.rows(T, [0, 2]).tolist() == [1, 3, 5, 7]
    with pytest.raises(InputError, match="edge id 3 is not there"):
        data.rows(T, 3)


def test_fingerprints_tell_contents_apart() -> None:
    def make(**changes: Any) -> str:
        rows = {"user": [1, 2], "item": [1, 2], "rating": [1.0, 2.0], **changes}
        builder = Builder().interactions(rows, rating="rating").names("item", [1], ["one"])
        return builder.build().fingerprint

    assert make() == make()
    assert make() == make(user=[2, 1], item=[2, 1], rating=[2.0, 1.0])
    different = {make(), make(rating=[1.0, 3.0]), make(item=[1, 3]), make(item=["1", "x"]), make(user=[1, 1])}
    assert len(different) == 5
    data = toy()
    assert len({data.fingerprint, data.split("random:.8,.1,.1").fingerprint}) == 2


def test_digests_of_a_part_do_not_depend_on_the_others() -> None:
    data = toy()
    one, other = data.digests(), data.without([2]).digests()
    assert one["user__interacts__item/train"] == other["user__interacts__item/train"]
    assert one["user__interacts__item/test"] != other["user__interacts__item/test"]


def test_the_summary_says_everything() -> None:
    text = toy().summary()
    for piece in ("3 users, 4 items, 6 interactions", "1 labelled negatives", "train 4, valid 1, test 2",
                  "2 edges ('user', 'trusts', 'user')", "cold"):  # fmt: skip
        assert piece in text
    assert "RecDataset('toy'" in repr(toy())


def test_tables_are_found_by_several_names() -> None:
    data = toy()
    for name in (T, "interacts", "user__interacts__item"):
        assert data.table(name).edge_type == T
    with pytest.raises(InputError, match="unknown edge type"):
        data.table("interact")


def test_importing_datasets_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys, graphrec.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_features_become_tensors_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    builder = Builder().interactions({"user": [1], "item": [5]}).features("item", [5], np.ones((1, 2)), name="image")
    torch.as_tensor(builder.build().features["item", "image"])
    assert not [warning for warning in recwarn if "writ" in str(warning.message)]


def test_a_dataset_can_be_sent_to_another_process() -> None:
    import pickle

    data = toy()
    data.graph()
    again = pickle.loads(pickle.dumps(data))
    assert again.fingerprint == data.fingerprint and again.summary() == data.summary()
    with pytest.raises(ValueError, match="read-only"):
        again.tables[T].source[0] = 1
