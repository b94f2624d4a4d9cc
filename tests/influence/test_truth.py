"""Retraining: it is that of the smaller dataset, ends where it says, and refuses to start elsewhere than a minimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import graphrec
from graphrec.errors import InputError
from graphrec.influence.attribution_metrics import draw_subsets
from graphrec.influence.objective import objective
from graphrec.influence.truth import fresh_start, leave_one_out, minimise, on_subsets
from tests.influence.attribution_case import case


def test_leaving_an_edge_out_is_training_without_it() -> None:
    """A weight of 0 and a dataset that never had the edge: the same scores of everything, negatives readmitted."""
    known = case(negatives="readmit")
    edges = np.array([3, 40])
    found = leave_one_out(known.made, known.theta, known.query, edges)
    assert found.gradient_norm.max() <= 1e-6
    assert found.change.shape == (3, 2)
    assert np.abs(found.change).min() > 1e-5
    for column, edge in enumerate(edges):
        smaller = known.data.without([int(known.made.edge_id[edge])])
        model = graphrec.models.LightGCN(smaller, dim=2, num_layers=1, reg=0.0, positives="edge")
        made = objective(model, smaller, num_negatives="all", reg=0.3, negatives="readmit")
        again = minimise(made, known.theta, tolerance=1e-9)
        test = known.data.pairs("test")
        pairs = torch.as_tensor(test.users[::30].copy()), torch.as_tensor(test.items[::30].copy())
        scores = made.pair_scores(again.theta, *pairs)
        assert found.values[:, column] == pytest.approx(scores.numpy(), abs=1e-6)


def test_a_start_that_is_no_minimum_is_refused() -> None:
    known = case()
    with pytest.raises(InputError, match="minimise the objective first"):
        leave_one_out(known.made, known.theta + 0.01, known.query, np.array([0]))


def test_subsets_warm_and_fresh() -> None:
    known = case()
    kept = draw_subsets(3, known.made.num_edges, 0.5, seed=0)
    warm = on_subsets(known.made, known.theta, known.query, kept)
    again = on_subsets(known.made, known.theta, known.query, kept)
    assert np.array_equal(warm.values, again.values)
    assert warm.gradient_norm.max() <= 1e-6
    fresh = on_subsets(known.made, known.theta, known.query, kept, seeds=2)
    assert fresh.values.shape == warm.values.shape == (3, 3)
    assert np.array_equal(fresh.before, warm.before)
    one = minimise(known.made, fresh_start(known.made, 1), torch.as_tensor(kept[0], dtype=torch.float64))
    other = minimise(known.made, fresh_start(known.made, 0), torch.as_tensor(kept[0], dtype=torch.float64))
    weight = torch.as_tensor(kept[0], dtype=torch.float64)
    mean = (known.query(one.theta, weight) + known.query(other.theta, weight)) / 2
    assert fresh.values[:, 0] == pytest.approx(mean.numpy(), abs=1e-12)
