from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import metrics as pyg
from torchmetrics import retrieval

from graphrec.errors import InputError
from graphrec.evaluation import metrics
from graphrec.evaluation.specs import DEFAULT, FAIRNESS, METRICS, resolve
from tests.evaluation import helpers

HIT_METRICS = [spec for spec in METRICS.values() if spec.kind == "hits"]


def case(
    seed: int, users: int = 30, items: int = 25, k: int = 12
) -> tuple[torch.Tensor, list[set[int]], torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    lists = np.stack([random.permutation(items)[:k] for _ in range(users)])
    truth = [set(random.choice(items, random.integers(1, 18), replace=False).tolist()) for _ in range(users)]
    hits = np.array([[item in own for item in row] for row, own in zip(lists, truth, strict=True)])
    return torch.from_numpy(lists), truth, torch.from_numpy(hits), torch.tensor([len(own) for own in truth])


@pytest.mark.parametrize("seed", range(3))
def test_every_metric_is_its_definition(seed: int) -> None:
    lists, truth, hits, sizes = case(seed)
    ks = [1, 3, 10, 12]
    for spec in HIT_METRICS:
        if spec.name == "micro_recall":
            continue
        assert spec.hits is not None
        values = spec.hits(hits, sizes, ks)
        assert values.shape == (30, 4) and values.dtype == torch.float64
        for column, k in enumerate(ks):
            wanted = [
                helpers.reference(row, own, k, 12)[spec.name] for row, own in zip(lists.tolist(), truth, strict=True)
            ]
            np.testing.assert_allclose(values[:, column], wanted, rtol=1e-12, atol=1e-15, err_msg=f"{spec.name}@{k}")


@pytest.mark.parametrize("k", [1, 5, 12])
def test_torch_geometric_agrees(k: int) -> None:
    lists, truth, hits, sizes = case(7)
    pairs = torch.tensor([(user, item) for user, own in enumerate(truth) for item in sorted(own)]).T
    for function, theirs in (
        (metrics.precision, pyg.LinkPredPrecision(k)),
        (metrics.recall, pyg.LinkPredRecall(k)),
        (metrics.f1, pyg.LinkPredF1(k)),
        (metrics.average_precision, pyg.LinkPredMAP(k)),
        (metrics.ndcg, pyg.LinkPredNDCG(k)),
        (metrics.mrr, pyg.LinkPredMRR(k)),
        (metrics.hit_rate, pyg.LinkPredHitRatio(k)),
    ):
        theirs.update(lists[:, :k], pairs)
        assert float(function(hits, sizes, [k]).mean()) == pytest.approx(float(theirs.compute()), abs=1e-6), function


@pytest.mark.parametrize("k", [1, 5, 12])
def test_torchmetrics_agrees(k: int) -> None:
    lists, truth, hits, sizes = case(11)
    scores = torch.zeros(30, 25)
    # The list in front, the rest behind it in any order.
    scores.scatter_(1, lists, torch.arange(12, 0, -1).float().expand(30, -1))
    target = torch.tensor([[item in own for item in range(25)] for own in truth])
    index = torch.arange(30)[:, None].expand(-1, 25)
    for function, theirs in (
        (metrics.precision, retrieval.RetrievalPrecision(top_k=k)),
        (metrics.recall, retrieval.RetrievalRecall(top_k=k)),
        (metrics.ndcg, retrieval.RetrievalNormalizedDCG(top_k=k)),
        (metrics.mrr, retrieval.RetrievalMRR(top_k=k)),
        (metrics.hit_rate, retrieval.RetrievalHitRate(top_k=k)),
        (metrics.average_precision_hits, retrieval.RetrievalMAP(top_k=k)),
    ):
        value = theirs(scores.flatten(), target.flatten(), indexes=index.flatten())
        assert float(function(hits, sizes, [k]).mean()) == pytest.approx(float(value), abs=1e-6), function


def test_micro_recall_is_pairs_found_over_pairs() -> None:
    hits = torch.tensor([[True, False], [True, True]])
    truth = torch.tensor([1, 9])
    assert metrics.micro_recall(hits, truth, [2]).mean() == pytest.approx(3 / 10)
    assert metrics.recall(hits, truth, [2]).mean() == pytest.approx((1 + 2 / 9) / 2)


def test_a_perfect_ranking() -> None:
    truth = torch.tensor([1, 3, 30])
    ks = [1, 3, 10]
    hits = torch.arange(10) < truth[:, None]
    cut = torch.minimum(torch.tensor(ks), truth[:, None])
    torch.testing.assert_close(metrics.recall(hits, truth, ks), cut.double() / truth[:, None])
    for function in (metrics.capped_recall, metrics.average_precision, metrics.ndcg, metrics.ndcg_hit, metrics.mrr):
        assert torch.equal(function(hits, truth, ks), torch.ones(3, 3, dtype=torch.float64)), function


@pytest.mark.parametrize("position", [1, 2, 7, 10])
def test_a_single_hit(position: int) -> None:
    hits = torch.zeros(1, 10, dtype=torch.bool)
    hits[0, position - 1] = True
    for relevant in (1, 4, 40):
        ideal = sum(1 / math.log2(j + 1) for j in range(1, min(10, relevant) + 1))
        value = metrics.ndcg(hits, torch.tensor([relevant]), [10])
        assert float(value) == pytest.approx(1 / (math.log2(position + 1) * ideal), rel=1e-12)
    assert float(metrics.mrr(hits, torch.tensor([1]), [10])) == pytest.approx(1 / position)


def test_a_reversed_list_has_the_same_recall_and_a_smaller_ndcg() -> None:
    hits = torch.tensor([[True, True, False, False, False]])
    truth = torch.tensor([2])
    assert torch.equal(metrics.recall(hits, truth, [5]), metrics.recall(hits.flip(1), truth, [5]))
    assert metrics.ndcg(hits.flip(1), truth, [5]) < metrics.ndcg(hits, truth, [5])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=6), st.integers(0, 20))
def test_what_holds_for_all_lists(rows: list[list[bool]], more: int) -> None:
    hits = torch.tensor(rows)
    truth = (hits.sum(1) + more).clamp(min=1)
    ks = [1, 2, 5, 8]
    by_truth, kmax, by_hits = (f(hits, truth, ks) for f in (metrics.ndcg, metrics.ndcg_hit_kmax, metrics.ndcg_hit))
    assert (by_truth <= kmax + 1e-12).all() and (kmax <= by_hits + 1e-12).all()
    assert torch.equal(metrics.hit_rate(hits, truth, ks) == 1, metrics.recall(hits, truth, ks) > 0)
    assert (metrics.recall(hits, truth, ks).diff(dim=1) >= 0).all()
    for spec in HIT_METRICS:
        assert spec.hits is not None
        values = spec.hits(hits, truth, ks)
        assert (values >= 0).all() and float(values.mean(0).max()) <= 1 + 1e-12, spec.name
        # One cut-off at a time gives the same, but for the metric whose point is that it does not.
        if spec.name != "ndcg_hit_kmax":
            single = torch.cat([spec.hits(hits[:, :k], truth, [k]) for k in ks], dim=1)
            torch.testing.assert_close(values, single)


def test_names() -> None:
    assert tuple(spec.name for spec in resolve(None)) == DEFAULT
    assert tuple(spec.name for spec in resolve("fairness")) == FAIRNESS
    assert [spec.name for spec in resolve(["ndcg", "recall", "ndcg"])] == ["ndcg", "recall"]
    assert "diversity" not in {spec.name for spec in resolve("all")}
    with pytest.raises(InputError, match="Did you mean 'recall'"):
        resolve(["recal"])
    for name, spec in METRICS.items():
        assert name == spec.name == name.lower() and spec.summary and spec.bounds[0] < spec.bounds[1]
        assert (spec.kind == "hits") == (spec.hits is not None) and (spec.kind == "lists") == (spec.lists is not None)
