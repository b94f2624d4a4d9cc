from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation import METRICS, Evaluation, evaluate
from graphrec.models.base import Encoded
from tests.evaluation import helpers

USERS, ITEMS = 24, 40
LOOK = np.random.default_rng(5).normal(size=(ITEMS, 3)).astype(np.float32)


def world(seed: int = 0, extra_items: int = 0) -> tuple[RecDataset, np.ndarray, list[dict[str, list[int]]]]:
    """A dataset with three parts, scores with ties, and the parts of each user; user 5 has no truth."""
    random = np.random.default_rng(seed)
    parts = []
    for user in range(USERS):
        items = random.choice(ITEMS, random.integers(6, 20), replace=False).tolist()
        test = [] if user == 5 else sorted(items[:3])
        parts.append({"test": test, "valid": sorted(items[3:5]), "train": sorted(items[5:])})
    scores = random.integers(0, 12, (USERS, ITEMS)).astype(np.float32)
    data = helpers.dataset(
        *([part[name] for part in parts] for name in ("train", "test")),
        ITEMS + extra_items,
        [part["valid"] for part in parts],
        features=np.concatenate([LOOK, np.ones((extra_items, 3), np.float32)]),
    )
    return data, scores, parts


def scorer(scores: np.ndarray) -> object:
    table = torch.from_numpy(scores)
    return lambda users: table[users]


def slow(
    scores: np.ndarray, parts: list[dict[str, list[int]]], mask: list[str], k: int, k_max: int
) -> dict[str, float]:
    values = []
    for user, part in enumerate(parts):
        if part["test"]:
            ranked = helpers.ranking(scores[user], [item for name in mask for item in part[name]])
            values.append(helpers.reference(ranked, set(part["test"]), k, k_max))
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}


@pytest.mark.parametrize("mask", ["train", "train+valid", "none"])
@pytest.mark.parametrize("block", [1, 7, None])
def test_metrics_are_those_of_a_slow_loop(mask: str, block: int | None) -> None:
    data, scores, parts = world()
    found = evaluate(scorer(scores), data, ks=(10, 3), mask=mask, metrics="all", block=block)
    assert found.ks == (3, 10) and found.num_users == USERS - 1 and found.protocol.skipped_users == 1
    for k in (3, 10):
        for name, value in slow(scores, parts, mask.split("+") if mask != "none" else [], k, 10).items():
            assert found[f"{name}@{k}"] == pytest.approx(value, rel=1e-12), f"{name}@{k}"
    assert all(key == key.lower() for key in found)
    for key, value in found.items():
        low, high = METRICS[key.split("@")[0]].bounds
        assert math.isnan(value) or low - 1e-9 <= value <= high + 1e-9, key


def test_per_user_table_has_raw_ids_and_the_means() -> None:
    data, scores, parts = world()
    found = evaluate(scorer(scores), data, ks=5, metrics=["recall", "ndcg", "arp", "auc_user", "gauc", "coverage"])
    frame = found.per_user.to_pandas()
    assert frame["user"].tolist() == [10 * user for user in range(USERS) if user != 5]
    assert frame["truth"].tolist() == [len(part["test"]) for part in parts if part["test"]]
    assert frame["train"].tolist() == [len(part["train"]) for part in parts if part["test"]]
    assert list(frame.columns[3:]) == ["recall@5", "ndcg@5", "arp@5", "auc_user"]
    for key in frame.columns[3:]:
        assert found[key] == pytest.approx(frame[key].mean())
    facts = {key.decode(): value.decode() for key, value in found.per_user.schema.metadata.items()}
    assert facts["graphrec.split"] == "test" and facts["graphrec.mask"] == "train"


def test_auc_of_the_whole_ranking() -> None:
    data, scores, parts = world()
    found = evaluate(scorer(scores), data, ks=5, metrics=["auc_user", "gauc"], block=5)
    each, weight = [], []
    for user, part in enumerate(parts):
        if part["test"]:
            others = [item for item in range(ITEMS) if item not in part["train"] and item not in part["test"]]
            each.append(helpers.reference_auc(scores[user, part["test"]].tolist(), scores[user, others].tolist()))
            weight.append(len(part["test"]))
    assert list(found) == ["auc_user", "gauc"]
    assert found["auc_user"] == pytest.approx(np.mean(each)) and found["gauc"] == pytest.approx(
        np.average(each, weights=weight)
    )
    constant = evaluate(scorer(np.zeros_like(scores)), data, ks=5, metrics=["auc_user", "gauc"])
    assert constant["gauc"] == constant["auc_user"] == 0.5 and constant.tie_rate == 1


def test_items_that_nobody_can_be_given_change_no_accuracy() -> None:
    data, scores, _ = world()
    larger, _, _ = world(extra_items=7)
    added = np.concatenate([scores, np.full((USERS, 7), -np.inf, np.float32)], axis=1)
    accuracy = [name for name, spec in METRICS.items() if spec.kind != "lists"]
    ours = evaluate(scorer(scores), data, ks=(5, 10), metrics=accuracy)
    theirs = evaluate(scorer(added), larger, ks=(5, 10), metrics=accuracy)
    assert dict(ours) == dict(theirs)


def test_item_numbers_do_not_matter_without_ties() -> None:
    _, _, parts = world()
    random = np.random.default_rng(9)
    scores = random.permutation(USERS * ITEMS).reshape(USERS, ITEMS).astype(np.float32)
    order = random.permutation(ITEMS)
    moved = np.empty_like(scores)
    moved[:, order] = scores
    names = ("train", "test", "valid")
    plain, renamed = (
        helpers.dataset(
            *([[int(number[item]) for item in part[name]] for part in parts] for name in names[:2]),
            ITEMS,
            [[int(number[item]) for item in part["valid"]] for part in parts],
        )
        for number in (np.arange(ITEMS), order)
    )
    ours = evaluate(scorer(scores), plain, ks=(3, 10), metrics="all")
    theirs = evaluate(scorer(moved), renamed, ks=(3, 10), metrics="all")
    tail = {key for key in ours if key.startswith("tail")}  # Which of equally popular items is tail goes by number.
    for key in set(ours) - tail:
        assert ours[key] == pytest.approx(theirs[key], nan_ok=True), key


def test_candidates_and_cold_items() -> None:
    # Item 3 occurs in the test part only; user 2 has no training edge.
    data = helpers.dataset([[0], [1], []], [[3, 2], [0], [1]], 5)
    scores = np.array([[9, 1, 2, 3, 0], [1, 9, 0, 2, 3], [0, 5, 1, 4, 3]], np.float32)

    def top(**options: object) -> tuple[list[list[int]], Evaluation]:
        found = evaluate(scorer(scores), data, ks=1, metrics=["recall", "coverage"], **options)
        return found.lists.tolist(), found

    lists, found = top()
    assert lists == [[3], [4], [1]] and found["recall@1"] == pytest.approx((0.5 + 0 + 1) / 3)
    # Seen are 0 and 1; item 2 of user 0 is no candidate either, so that user has no truth left.
    lists, found = top(candidates="seen")
    assert lists == [[0], [1]] and found.protocol.users.tolist() == [1, 2] and found.protocol.dropped_truth == 2
    assert found["coverage@1"] == 1.0
    lists, found = top(candidates="cold")
    assert lists == [[3]] and found["recall@1"] == 0.5
    lists, found = top(candidates=[4, 2, 2])
    assert lists == [[2]] and found.protocol.candidates == "given" and found["coverage@1"] == 0.5
    lists, found = top(cold="drop")
    assert found.protocol.users.tolist() == [1] and found.protocol.dropped_users == 1
    assert found.to_dict()["dropped_truth"] == 3
    with pytest.raises(InputError, match="item number 9"):
        top(candidates=[9])
    with pytest.raises(InputError, match="2 items"):
        evaluate(scorer(scores), data, ks=3, candidates="seen")


def test_fewer_candidates_than_places() -> None:
    data = helpers.dataset([[0, 1, 2], [3]], [[3], [0]], 4)
    found = evaluate(scorer(np.zeros((2, 4), np.float32)), data, ks=(1, 4), metrics="all")
    assert found.lists.tolist() == [[3, -1, -1, -1], [0, 1, 2, -1]]
    assert found["recall@4"] == found["ndcg@4"] == 1 and found["precision@4"] == 0.25


def test_sampled_negatives_warn_and_follow_the_binomial() -> None:
    users, items = 3000, 60
    random = np.random.default_rng(0)
    truth = random.integers(0, items, users)
    data = helpers.dataset([[] for _ in range(users)], [[int(item)] for item in truth], items)
    scores = random.permutation(users * items).reshape(users, items).astype(np.float32)
    with pytest.warns(UserWarning, match="drawn negatives"):
        found = evaluate(scorer(scores), data, ks=(1, 5), metrics=["hit_rate"], sampled_negatives=10, seed=3)
    assert found.to_dict()["sampled_negatives"] == 10
    rank = (scores > scores[np.arange(users), truth][:, None]).sum(1)  # from 0
    # Without repetition the number of better items among the drawn is hypergeometric.
    from scipy.stats import hypergeom

    for k in (1, 5):
        expected = hypergeom(items - 1, rank, 10).cdf(k - 1).mean()
        assert found[f"hit_rate@{k}"] == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(users))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"ks": (1, 5), "metrics": ["hit_rate"], "sampled_negatives": 10}
        assert dict(evaluate(scorer(scores), data, seed=3, block=17, **options)) == dict(found)
        assert dict(evaluate(scorer(scores), data, seed=4, **options)) != dict(found)
        # All negatives drawn is the full ranking.
        whole = evaluate(scorer(scores), data, ks=(1, 5), metrics=["hit_rate"])
        assert dict(evaluate(scorer(scores), data, **{**options, "sampled_negatives": items})) == dict(whole)
        with pytest.raises(InputError, match="whole ranking"):
            evaluate(scorer(scores), data, metrics=["auc_user"], sampled_negatives=5)
        with pytest.raises(InputError, match="at least 1"):
            evaluate(scorer(scores), data, sampled_negatives=0)
        with pytest.raises(InputError, match=f"more than the {items} items"):
            evaluate(scorer(scores), data, ks=(1,), sampled_negatives=items + 1)


def test_groups() -> None:
    data, scores, parts = world()
    found = evaluate(scorer(scores), data, ks=(3, 10))
    activity = found.by_activity(4)
    assert activity["users"].sum() == found.num_users
    assert np.average(activity["recall@10"], weights=activity["users"]) == pytest.approx(found["recall@10"])
    totals = [
        sum(len(p["train"]) + len(p["test"]) for p in parts if p["test"] and low <= len(p["train"]) + 3 <= high)
        for low, high in zip(activity["from"], activity["to"], strict=True)
    ]
    assert min(totals) > 0 and (activity["from"].diff().dropna() >= 0).all()
    popularity = found.by_popularity(3)
    assert popularity["items"].sum() == ITEMS and popularity["relevant"].sum() == 3 * (USERS - 1)
    assert popularity["share@10"].sum() == pytest.approx(1)
    micro = (popularity["recall@10"] * popularity["relevant"]).sum() / popularity["relevant"].sum()
    assert micro == pytest.approx(evaluate(scorer(scores), data, ks=10, metrics="micro_recall")["micro_recall@10"])
    with pytest.raises(InputError, match="groups is 0"):
        found.by_activity(0)


def test_diversity_needs_features() -> None:
    data, scores, _ = world()
    by_name = evaluate(scorer(scores), data, ks=5, metrics="diversity", features="look")
    by_array = evaluate(scorer(scores), data, ks=5, metrics="diversity", features=LOOK)
    assert by_name["diversity@5"] == pytest.approx(by_array["diversity@5"])
    for options, message in (
        ({}, "features="),
        ({"features": "sound"}, "it has look"),
        ({"features": LOOK[:3]}, r"\(3, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(scorer(scores), data, ks=5, metrics="diversity", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": 41}, "k is 41, larger than the catalogue of 40 items"),
        ({"ks": ()}, "at least one length"),
        ({"ks": (0, 5)}, "at least 1"),
        ({"metrics": ["ndgc"]}, "Did you mean 'ndcg'"),
        ({"mask": "trian"}, "Did you mean 'train'"),
        ({"cold": "melt"}, "unknown policy"),
        ({"candidates": "some"}, "unknown set of candidates"),
        ({"candidates": []}, "no item to rank"),
        ({"split": "holdout"}, "it has train, valid, test"),
        ({"split": "valid", "mask": "train+valid"}, "leave out the very items"),
    ],
)
def test_what_cannot_be_evaluated(options: dict[str, object], message: str) -> None:
    data, scores, _ = world()
    with pytest.raises(InputError, match=message):
        evaluate(scorer(scores), data, **options)


def test_models_that_do_not_fit() -> None:
    data, scores, _ = world()
    with pytest.raises(InputError, match="the model has 3 users and 40 items"):
        evaluate(Encoded(torch.zeros(3, 2), torch.zeros(ITEMS, 2)), data)
    with pytest.raises(InputError, match="expected a model"):
        evaluate(3, data)
    with pytest.raises(InputError, match="needs the dataset"):
        evaluate(scorer(scores))
    with pytest.raises(InputError, match="users and 40 items"):
        evaluate(scorer(scores[:, :-1]), data, ks=5)
    with pytest.raises(InputError, match="NaN"):
        evaluate(scorer(np.full_like(scores, np.nan)), data)


def test_the_mapping_and_what_is_written() -> None:
    data, scores, _ = world()
    found = evaluate(scorer(scores), data, ks=5, metrics=["recall"])
    assert list(found) == ["recall@5"] and "recall@5" in found and "recall@6" not in found and len(found) == 1
    with pytest.raises(KeyError, match="Did you mean 'recall@5'"):
        found["recal@5"]
    flat = json.loads(json.dumps(found.to_dict("valid/")))
    assert flat["valid/recall@5"] == found["recall@5"] and flat["valid/num_users"] == USERS - 1
    assert flat["valid/mask"] == "train" and flat["valid/seconds"] >= 0 and 0 <= flat["valid/tie_rate"] <= 1
    assert "23 users" in repr(found)


@pytest.mark.realdata
def test_gowalla(data_root: Path) -> None:
    from graphrec.datasets import load

    data = load("gowalla", root=data_root)
    popularity = torch.from_numpy(np.bincount(data.pairs("train").items, minlength=data.num_items)).float()
    encoded = Encoded(torch.ones(data.num_users, 1), popularity[:, None])
    found = evaluate(encoded, data, ks=20)
    train, test = data.pairs("train"), data.pairs("test")
    order = np.lexsort((np.arange(data.num_items), -popularity.numpy()))
    recalls = []
    for user in range(0, data.num_users, 500):
        known = set(train.items[train.indptr[user] : train.indptr[user + 1]].tolist())
        truth = set(test.items[test.indptr[user] : test.indptr[user + 1]].tolist())
        top = [item for item in order[: 20 + len(known)].tolist() if item not in known][:20]
        recalls.append(len(truth & set(top)) / len(truth))
    assert found.num_users == 29_858
    np.testing.assert_allclose(found.per_user["recall@20"].to_numpy()[::500], recalls)
