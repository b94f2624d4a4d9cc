"""Pruning: what is dropped, that it is measured by training, and the curve on a sum whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from graphrec.errors import InputError
from graphrec.influence.pruning import at_random, least_useful, pruned, pruning_curve
from tests.influence.attribution_case import case


def test_the_least_useful_go_first() -> None:
    influence = np.array([0.5, -2.0, 0.0, -1.0, 3.0])
    assert least_useful(influence, 0.4).tolist() == [1, 3]
    assert least_useful(influence, 0.0).tolist() == []
    assert set(at_random(50, 0.2, 1)) <= set(at_random(50, 0.5, 1))
    assert len(at_random(50, 0.5, 1)) == 25
    with pytest.raises(InputError, match="share"):
        least_useful(influence, 1.0)


def test_the_dataset_without_them() -> None:
    known = case()
    dropped = np.array([0, 7, 30])
    smaller = pruned(known.data, known.made, dropped)
    gone = known.made.edge_id.numpy()[dropped]
    assert len(known.data.pairs("train")) - len(smaller.pairs("train")) == 3
    assert not np.isin(gone, smaller.interactions("train").edge_id).any()
    assert len(smaller.pairs("test")) == len(known.data.pairs("test"))


def test_the_curve_of_a_loss_that_is_a_sum() -> None:
    terms = np.random.default_rng(0).normal(size=40)
    calls: list[tuple[int, int]] = []

    def retrain(dropped: np.ndarray, seed: int) -> dict[str, float]:
        calls.append((len(dropped), seed))
        return {"loss": -float(np.delete(terms, dropped).sum()) + 0.01 * seed}

    curve = pruning_curve(terms, retrain, shares=(0.1, 0.3), seeds=(0, 1), most_useful=True)
    assert curve.shares == (0.0, 0.1, 0.3)
    assert len(calls) == 2 * (1 + 3 * 2)
    means = {kind: by_metric["loss"].mean(1) for kind, by_metric in curve.values.items()}
    assert all(values[0] == means["influence"][0] for values in means.values())
    assert (means["influence"][1:] < means["random"][1:]).all()
    assert (means["random"][1:] < means["most useful"][1:]).all()
    assert curve.to_dict()["values"]["random"]["loss"][0] == curve.values["random"]["loss"][0].tolist()
    assert curve.chart("loss").count("<polyline") == 3
    with pytest.raises(InputError, match="ascend"):
        pruning_curve(terms, retrain, shares=(0.3, 0.1))
    with pytest.raises(InputError, match="seed"):
        pruning_curve(terms, retrain, seeds=())
