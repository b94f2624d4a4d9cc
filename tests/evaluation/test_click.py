from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_calibration_error,
    binary_f1_score,
)

import graphrec
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation import ClickEvaluation, compare, evaluate, evaluate_clicks
from graphrec.evaluation.pair_scores import score_pairs
from graphrec.models import BPRMF, EASE, LightGCN
from graphrec.models.base import Encoded
from tests.evaluation.helpers import reference_auc
from tests.evaluation.labelled import labelled
from tests.models.planted import planted


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return labelled()


@pytest.fixture(scope="module")
def encoded(data: RecDataset) -> Encoded:
    """Vectors that know the groups, with noise."""
    draws = np.random.default_rng(1)
    users = np.eye(4)[np.arange(data.num_users) % 4] + 0.3 * draws.normal(size=(data.num_users, 4))
    items = np.eye(4)[np.arange(data.num_items) % 4] + 0.3 * draws.normal(size=(data.num_items, 4))
    return Encoded(torch.from_numpy(users), torch.from_numpy(items - 0.2))


def by_hand(data: RecDataset, encoded: Encoded, part: str) -> list[tuple[int, int, int, float]]:
    """User, item, label and score of each pair of a part, one at a time."""
    table = data.tables[data.target]
    assert table.part is not None and table.label is not None
    rows = []
    for user, item, label, code in zip(table.source, table.target, table.label, table.part, strict=True):
        if code == ("train", "valid", "test").index(part):
            score = sum(float(a) * float(b) for a, b in zip(encoded.users[user], encoded.items[item], strict=True))
            rows.append((int(user), int(item), int(label), score))
    return rows


def test_every_metric_against_loops(data: RecDataset, encoded: Encoded) -> None:
    rows = by_hand(data, encoded, "test")
    found = evaluate(encoded, data, task="ctr")
    assert isinstance(found, ClickEvaluation)
    liked, others = [s for *_, y, s in rows if y], [s for *_, y, s in rows if not y]
    assert found["auc"] == pytest.approx(reference_auc(liked, others), abs=1e-12)
    each: dict[int, float] = {}
    weight: dict[int, int] = {}
    for user in {u for u, *_ in rows}:
        mine = [s for u, _, y, s in rows if u == user and y], [s for u, _, y, s in rows if u == user and not y]
        if mine[0] and mine[1]:
            each[user], weight[user] = reference_auc(*mine), len(mine[0])
    assert found["auc_user"] == pytest.approx(np.mean(list(each.values())))
    assert found["gauc"] == pytest.approx(np.average(list(each.values()), weights=list(weight.values())))
    probability = [1 / (1 + math.exp(-s)) for *_, s in rows]
    labels = [y for *_, y, _ in rows]
    right = [(p > 0.5) == bool(y) for p, y in zip(probability, labels, strict=True)]
    assert found["acc"] == pytest.approx(np.mean(right))
    hit = sum(p > 0.5 and y == 1 for p, y in zip(probability, labels, strict=True))
    assert found["f1"] == pytest.approx(2 * hit / (sum(p > 0.5 for p in probability) + sum(labels)))
    loss = [-math.log(p if y else 1 - p) for p, y in zip(probability, labels, strict=True)]
    assert found["logloss"] == pytest.approx(np.mean(loss))
    ece = 0.0
    for m in range(15):
        inside = [(p, y) for p, y in zip(probability, labels, strict=True) if m / 15 <= p < (m + 1) / 15]
        if inside:
            p, y = np.mean(inside, axis=0)
            ece += len(inside) / len(rows) * abs(p - y)
    assert found["ece"] == pytest.approx(ece)
    told = found.to_dict()
    assert told["num_pairs"] == len(rows) and told["num_positives"] == sum(labels)
    assert told["num_users"] == len({u for u, *_ in rows}) and told["auc_users"] == len(each)
    assert json.loads(json.dumps(told)) == told


def test_metrics_against_torchmetrics(data: RecDataset, encoded: Encoded) -> None:
    rows = by_hand(data, encoded, "test")
    probability = torch.sigmoid(torch.tensor([s for *_, s in rows]))
    labels = torch.tensor([y for *_, y, _ in rows])
    found = evaluate_clicks(encoded, data)
    assert found["auc"] == pytest.approx(float(binary_auroc(probability, labels)), abs=1e-5)
    assert found["acc"] == pytest.approx(float(binary_accuracy(probability, labels)), abs=1e-6)
    assert found["f1"] == pytest.approx(float(binary_f1_score(probability, labels)), abs=1e-6)
    assert found["ece"] == pytest.approx(
        float(binary_calibration_error(probability, labels, n_bins=15, norm="l1")), abs=1e-5
    )


def test_auc_batch_is_the_papers_form(data: RecDataset, encoded: Encoded) -> None:
    whole = evaluate_clicks(encoded, data, auc_batch_size=10**6)
    assert whole["auc_batch"] == pytest.approx(whole["auc"], abs=1e-12)
    assert math.isnan(evaluate_clicks(encoded, data, auc_batch_size=10**6, auc_batch_last="drop")["auc_batch"])
    size = len(whole.pairs)
    assert size % 32
    kept = evaluate_clicks(encoded, data, auc_batch_size=32)["auc_batch"]
    dropped = evaluate_clicks(encoded, data, auc_batch_size=32, auc_batch_last="drop")["auc_batch"]
    # The mean over all batches is that of the full ones and the last one together.
    full = size // 32
    last = kept * (full + 1) - dropped * full
    assert kept != dropped and 0 <= last <= 1
    assert abs(kept - whole["auc"]) < 0.05
    assert evaluate_clicks(encoded, data, auc_batch_size=32)["auc_batch"] == kept


def test_scores_come_the_same_in_any_blocks(data: RecDataset, encoded: Encoded) -> None:
    draws = np.random.default_rng(4)
    users = torch.from_numpy(draws.integers(0, data.num_users, 500) ** 2 // data.num_users)
    items = torch.from_numpy(draws.integers(0, data.num_items, 500))
    expected = (encoded.users[users] * encoded.items[items]).sum(1)
    for block in (1, 7, 64, None):
        assert torch.allclose(score_pairs(encoded, users, items, block=block), expected)

    def function(asked: torch.Tensor) -> torch.Tensor:
        return encoded.users[asked] @ encoded.items.T

    assert torch.allclose(score_pairs(function, users, items), expected)
    model = LightGCN(data, dim=4)
    with torch.no_grad():
        every = model.eval().score(torch.arange(data.num_users))
    assert torch.allclose(score_pairs(model, users, items, block=50), every[users, items], atol=1e-6)
    assert len(score_pairs(model, users[:0], items[:0])) == 0


def test_a_block_holds_no_more_cells_than_it_may(data: RecDataset) -> None:
    widest = 0

    class Watched(BPRMF):
        def score(self, users: torch.Tensor, items: torch.Tensor | None = None, **more: Any) -> torch.Tensor:
            nonlocal widest
            assert items is not None and items.dim() == 2
            widest = max(widest, items.numel())
            return super().score(users, items, **more)

    evaluate_clicks(Watched(data, dim=2), data, block=33)
    assert 0 < widest <= 33


def test_platt_is_fitted_on_valid_and_stated(data: RecDataset, encoded: Encoded) -> None:
    raw = evaluate_clicks(Encoded(encoded.users * 30, encoded.items), data)
    scaled = evaluate_clicks(Encoded(encoded.users * 30, encoded.items), data, scaling="platt")
    for key in ("auc", "auc_batch", "auc_user", "gauc"):
        assert scaled[key] == raw[key]
    assert scaled["logloss"] < 0.5 * raw["logloss"] and scaled["ece"] < raw["ece"]
    told = scaled.to_dict()
    assert told["scaling"] == "platt" and told["scaled_on"] == "valid" and 0 < told["platt_slope"] < 1
    assert raw.to_dict()["scaling"] == "none"
    with pytest.raises(InputError, match="very labels"):
        evaluate_clicks(encoded, data, split="valid", scaling="platt")


def test_cold_users_are_counted_and_can_be_dropped(data: RecDataset, encoded: Encoded) -> None:
    train = data.pairs("train")
    alone = data.without(train.edge_id[train.indptr[0] : train.indptr[2]])
    kept, dropped = evaluate_clicks(encoded, alone), evaluate_clicks(encoded, alone, cold="drop")
    rows = [row for row in by_hand(data, encoded, "test") if row[0] < 2]
    assert rows and kept.to_dict()["cold_pairs"] >= len(rows)
    assert dropped.to_dict()["dropped_pairs"] == len(rows)
    assert len(dropped.pairs) == len(kept.pairs) - len(rows)


def test_roc_of_an_evaluation_has_its_auc_under_it(data: RecDataset, encoded: Encoded) -> None:
    found = evaluate_clicks(encoded, data)
    false, true = found.roc(10**6)
    assert float(torch.trapezoid(true, false)) == pytest.approx(found["auc"], abs=1e-12)
    false, true = found.roc(50)
    assert len(false) <= 50 and false[0] == true[0] == 0 and false[-1] == true[-1] == 1
    assert float(torch.trapezoid(true, false)) == pytest.approx(found["auc"], abs=0.01)


def test_what_is_wrong_is_said(data: RecDataset, encoded: Encoded) -> None:
    table = data.tables[data.target]
    assert table.part is not None
    ranked = planted(num_users=data.num_users, num_items=data.num_items)
    with pytest.raises(InputError, match=r"no pair labelled 0.*drawn_negatives=1"):
        evaluate_clicks(encoded, ranked)
    with pytest.raises(InputError, match="no part 'test'; it has train"):
        evaluate_clicks(encoded, labelled(split=None))
    one_class = data.without(table.edge_id[(table.part == 2) & ~table.positive])
    with pytest.raises(InputError, match=r"part 'test' .* pairs labelled 1 and 0 labelled 0.*random_pairs"):
        evaluate_clicks(encoded, one_class)
    none = data.without(table.edge_id[(table.part == 2) & table.positive])
    with pytest.raises(InputError, match="0 pairs labelled 1"):
        evaluate_clicks(encoded, none)
    broken = Encoded(encoded.users * torch.nan, encoded.items)
    with pytest.raises(InputError, match="scores are NaN"):
        evaluate_clicks(broken, data)
    with pytest.raises(InputError, match="the model has 5 users"):
        evaluate_clicks(Encoded(encoded.users[:5], encoded.items), data)
    for option, word in (("auc_batch_last", "drop"), ("scaling", "platt"), ("cold", "keep")):
        with pytest.raises(InputError, match=f"Did you mean '{word}'"):
            evaluate_clicks(encoded, data, **{option: word + "x"})
    for option in ("auc_batch_size", "block"):
        with pytest.raises(InputError, match="at least 1"):
            evaluate_clicks(encoded, data, **{option: 0})


def test_the_task_decides_the_options(data: RecDataset) -> None:
    model = BPRMF(data, dim=4)
    with pytest.raises(InputError, match="unknown task 'click'"):
        evaluate(model, data, task="click")  # type: ignore[call-overload]
    with pytest.raises(InputError, match=r"unknown option of evaluate\(task='ctr'\) 'ks'"):
        evaluate(model, data, task="ctr", ks=5)  # type: ignore[call-overload]
    with pytest.raises(InputError, match=r"option of evaluate.*scaling"):
        evaluate(model, data, scaling="platt")  # type: ignore[call-overload]


def test_closed_forms_tell_pairs_apart(data: RecDataset) -> None:
    model = EASE(data, reg=10.0)
    model.solve()
    assert graphrec.evaluate(model, data, task="ctr")["auc"] > 0.7


def test_comparison_of_users(data: RecDataset, encoded: Encoded, tmp_path: Path) -> None:
    good = evaluate_clicks(encoded, data)
    noise = Encoded(torch.randn_like(encoded.users), encoded.items)
    bad = evaluate_clicks(noise, data)
    found = compare({"noise": bad, "groups": good}, metrics=["auc_user", "acc_user"])
    row = found.frame.set_index("metric").loc["auc_user"]
    assert row["difference"] == pytest.approx(good["auc_user"] - bad["auc_user"]) and row["t_holm"] < 1e-3
    assert found.popularity is None and len(found.activity) == 8
    with pytest.raises(InputError, match="scaling is 'platt' in one and 'none' in the other"):
        compare([good, evaluate_clicks(encoded, data, scaling="platt")])
    with pytest.raises(InputError, match="cannot be compared: candidates is"):
        compare([good, evaluate(encoded, data, ks=(5,))])
