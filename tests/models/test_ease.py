from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import graphrec.models.ease as module
from graphrec.errors import InputError
from graphrec.models import EASE
from tests.models.closed_forms import ClosedFormCases, all_scores, dataset, random_matrix
from tests.models.conformance import ModelConformance


class TestEASE(ClosedFormCases, ModelConformance):
    model_class = EASE
    hparams = {"reg": 5.0}


class TestTruncatedEASE:
    def test_the_largest_weights_of_each_column_stay(self) -> None:
        matrix = random_matrix()
        full, kept = solved(matrix), solved(matrix, keep=6)
        expected = np.zeros_like(full)
        for column in range(full.shape[1]):
            order = np.argsort(-np.abs(full[:, column]), kind="stable")[:6]
            expected[order, column] = full[order, column]
        np.testing.assert_allclose(kept, expected, rtol=1e-4, atol=1e-6)

    def test_what_is_lost_is_stated(self) -> None:
        matrix = random_matrix()
        model = EASE(dataset(matrix), reg=4.0, keep=6)
        found = all_scores(model)
        full, kept = solved(matrix, reg=4.0), solved(matrix, reg=4.0, keep=6)
        loss = model.facts()
        assert loss["weights_kept"] == 6
        assert loss["share_kept"] == pytest.approx((kept**2).sum() / (full**2).sum(), rel=1e-4)
        exact = matrix @ full
        expected = np.linalg.norm(exact - found) / np.linalg.norm(exact)
        assert loss["score_error"] == pytest.approx(expected, rel=1e-3)

    def test_it_survives_a_round_trip(self) -> None:
        model = EASE(dataset(random_matrix()), keep=5)
        scores = all_scores(model)
        fresh = EASE(model.graph_inputs, keep=5)
        fresh.load_state_dict(copy.deepcopy(model.state_dict()))
        np.testing.assert_array_equal(all_scores(fresh), scores)
        assert fresh.facts() == model.facts()


def solved(matrix: np.ndarray, **hparams) -> np.ndarray:
    """B (I, I) float64."""
    model = EASE(dataset(matrix), **{"reg": 4.0, **hparams})
    model.solve()
    weights = model.dense_weights if model.dense_weights is not None else model.weights().to_dense()
    return weights.double().numpy()


def reference(matrix: np.ndarray, reg: float) -> np.ndarray:
    inverse = np.linalg.inv(matrix.T @ matrix + reg * np.eye(matrix.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize("side", ["auto", "items", "users"])
@pytest.mark.parametrize("shape", [(30, 22), (18, 40)])
def test_both_sides_give_the_closed_form(side: str, shape: tuple[int, int]) -> None:
    matrix = random_matrix(*shape)
    found = solved(matrix, side=side)
    np.testing.assert_allclose(found, reference(matrix, 4.0), rtol=1e-3, atol=1e-5)
    assert not np.diag(found).any()


def test_blocks_change_nothing(monkeypatch) -> None:
    matrix = random_matrix(40, 60)
    for side in ("items", "users"):
        whole = solved(matrix, side=side)
        with monkeypatch.context() as patched:
            patched.setattr(module, "WORKING_MEMORY", 4 * 7 * 4 * 60)
            np.testing.assert_allclose(solved(matrix, side=side), whole, rtol=1e-4, atol=1e-6)


def test_it_is_leave_one_out_ridge() -> None:
    """The j-th column predicts item j from the other items by ridge regression."""
    matrix = random_matrix()
    found = matrix @ solved(matrix)
    for column in (0, 7, 13):
        others = np.delete(matrix, column, axis=1)
        gram = others.T @ others + 4.0 * np.eye(others.shape[1])
        expected = others @ np.linalg.solve(gram, others.T @ matrix[:, column])
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-3, atol=1e-5)


def test_a_large_penalty_leaves_the_counts() -> None:
    matrix = random_matrix()
    counts = matrix.T @ matrix
    np.fill_diagonal(counts, 0.0)
    np.testing.assert_allclose(solved(matrix, reg=1e5) * 1e5, counts, rtol=2e-3, atol=1e-3)


def test_weights_of_users_weigh_their_rows() -> None:
    matrix = random_matrix()
    of_user = np.random.default_rng(0).random(len(matrix)) + 0.5
    model = EASE(dataset(matrix, matrix * of_user[:, None]), reg=4.0, weighted=True)
    model.solve()
    inverse = np.linalg.inv(matrix.T @ (of_user[:, None] * matrix) + 4.0 * np.eye(matrix.shape[1]))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(model.dense_weights.numpy(), expected, rtol=1e-3, atol=1e-5)
    history = torch.from_numpy(matrix[3].nonzero()[0])
    weight = torch.full((len(history),), float(of_user[3]))
    torch.testing.assert_close(model.score_history(history, weight), model.score(torch.tensor([3]))[0])


def test_too_little_memory_is_said_before_the_start(monkeypatch) -> None:
    monkeypatch.setattr(module, "DENSE_LIMIT", 100)
    monkeypatch.setattr(module, "free_memory", lambda device: 1000)
    with pytest.raises(InputError, match=r"EASE inverts a 22 x 22 matrix .* are free"):
        solved(random_matrix())


def test_missing_weights_are_said() -> None:
    with pytest.raises(InputError, match="needs a weight"):
        solved(random_matrix(), weighted=True)
