from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torchmetrics.functional.classification import binary_accuracy, binary_auroc, binary_f1_score, binary_roc

from graphrec.evaluation import classification as c
from tests.evaluation.helpers import reference_auc


def labelled(seed: int, levels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    return (
        torch.from_numpy(random.integers(0, levels, 200) / levels - 0.5),
        torch.from_numpy(random.integers(0, 2, 200)),
        torch.from_numpy(random.integers(0, 15, 200) * 3),
    )


@pytest.mark.parametrize("levels", [2, 10, 10_000])
def test_auc_of_labelled_pairs(levels: int) -> None:
    scores, labels, users = labelled(levels, levels)
    assert c.auc(scores, labels) == pytest.approx(
        reference_auc(scores[labels == 1].tolist(), scores[labels == 0].tolist())
    )
    assert c.auc(scores, labels) == pytest.approx(float(binary_auroc(scores + 0.5, labels)), abs=1e-6)
    each, weight = [], []
    for user in users.unique():
        mine = users == user
        positive, negative = scores[mine & (labels == 1)].tolist(), scores[mine & (labels == 0)].tolist()
        if positive and negative:
            each.append(reference_auc(positive, negative))
            weight.append(len(positive))
    assert c.auc_user(scores, labels, users) == pytest.approx(np.mean(each))
    assert c.gauc(scores, labels, users) == pytest.approx(np.average(each, weights=weight))
    batches = [c.auc(scores[i : i + 64], labels[i : i + 64]) for i in range(0, 200, 64)]
    assert c.auc_batch(scores, labels, 64) == pytest.approx(np.mean(batches))


def test_ranks_are_those_of_scipy() -> None:
    scores, _, users = labelled(1, 7)
    np.testing.assert_allclose(c.average_ranks(scores), rankdata(scores))
    ranks = c.average_ranks(scores, users)
    for user in users.unique():
        np.testing.assert_allclose(ranks[users == user], rankdata(scores[users == user]))


def test_threshold_metrics() -> None:
    scores, labels, _ = labelled(2, 10_000)
    assert c.accuracy(scores, labels) == pytest.approx(float(binary_accuracy(scores.sigmoid(), labels)))
    assert c.click_f1(scores, labels) == pytest.approx(float(binary_f1_score(scores.sigmoid(), labels)))
    assert c.click_f1(torch.tensor([-1.0]), torch.tensor([0])) == 0


def test_one_class_has_no_auc() -> None:
    assert math.isnan(c.auc(torch.tensor([1.0, 2.0]), torch.tensor([1, 1])))
    assert math.isnan(c.gauc(torch.tensor([1.0, 2.0]), torch.tensor([1, 0]), torch.tensor([0, 1])))


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auc_of_a_full_ranking(levels: int, dtype: torch.dtype) -> None:
    random = np.random.default_rng(levels)
    scores = random.integers(0, levels, (9, 50)).astype(np.float64)
    rows, items, wanted = [], [], []
    for user in range(9):
        masked = random.choice(50, 10, replace=False)
        scores[user, masked] = -np.inf
        open_items = np.setdiff1d(np.arange(50), masked)
        chosen = np.sort(random.choice(open_items, user + 1, replace=False))
        rows += [user] * len(chosen)
        items += chosen.tolist()
        wanted.append(
            reference_auc(scores[user, chosen].tolist(), scores[user, np.setdiff1d(open_items, chosen)].tolist())
        )
    table = torch.from_numpy(scores).to(dtype)
    sums, found = c.rank_sums(table, torch.tensor(rows), torch.tensor(items))
    value = c.auc_of_ranks(sums, found, torch.full((9,), 40))
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    if levels == 1:
        assert (value == 0.5).all()
    assert c.auc_of_ranks(torch.tensor([1.0]), torch.tensor([2]), torch.tensor([2])).isnan().all()


def test_auc_batch_drops_or_keeps_the_last() -> None:
    scores, labels, _ = labelled(3, 1000)
    batches = [c.auc(scores[i : i + 64], labels[i : i + 64]) for i in range(0, 200, 64)]
    assert c.auc_batch(scores, labels, 64) == pytest.approx(np.mean(batches))
    assert c.auc_batch(scores, labels, 64, last="drop") == pytest.approx(np.mean(batches[:-1]))
    assert c.auc_batch(scores[:192], labels[:192], 64, last="drop") == pytest.approx(np.mean(batches[:-1]))
    assert math.isnan(c.auc_batch(scores, labels, 201, last="drop"))


@pytest.mark.parametrize("levels", [1, 3, 10_000])
def test_roc_curve(levels: int) -> None:
    scores, labels, _ = labelled(levels, levels)
    false, true = c.roc(scores, labels, 10**6)
    expected_false, expected_true, _ = binary_roc(torch.sigmoid(scores), labels)
    torch.testing.assert_close(false, expected_false.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(true, expected_true.double(), rtol=0, atol=1e-6)
    assert float(torch.trapezoid(true, false)) == pytest.approx(c.auc(scores, labels))
