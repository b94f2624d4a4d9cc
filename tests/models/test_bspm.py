from __future__ import annotations

import numpy as np
import pytest

from graphrec.errors import InputError
from graphrec.models import BSPM, GFCF
from tests.models.closed_forms import ClosedFormCases, all_scores, dataset, filters, low_pass, random_matrix
from tests.models.conformance import ModelConformance


class TestBSPM(ClosedFormCases, ModelConformance):
    model_class = BSPM
    hparams = {"factor_dim": 4}


def sharpened(start: np.ndarray, matrix: np.ndarray, solver: str, time: float, steps: int) -> list[np.ndarray]:
    """The states of dy/dt = -y P, stage by stage."""

    def slope(y: np.ndarray) -> np.ndarray:
        return -y @ matrix

    states, y, h = [], start, time / steps
    for _ in range(steps):
        if solver == "euler":
            y = y + h * slope(y)
        else:
            k1 = slope(y)
            k2 = slope(y + h / 2 * k1)
            k3 = slope(y + h / 2 * k2)
            k4 = slope(y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        states.append(y)
    return states


@pytest.mark.parametrize("solver", ["rk4", "euler"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("merge", ["early", "late"])
@pytest.mark.parametrize("mean", [False, True])
def test_formula(solver: str, steps: int, merge: str, mean: bool) -> None:
    matrix = random_matrix()
    item_matrix = filters(matrix)[1]
    blurred, smooth = matrix @ item_matrix, 0.4 * matrix @ low_pass(matrix, 5)
    start = blurred + smooth if merge == "early" else blurred
    states = sharpened(start, item_matrix, solver, 1.7, steps)
    expected = np.mean([blurred, *states], axis=0) if mean else states[-1]
    expected = expected if merge == "early" else expected + smooth
    model = BSPM(
        dataset(matrix),
        factor_dim=5,
        beta=0.4,
        solver=solver,
        sharpen_time=1.7,
        num_steps=steps,
        merge=merge,
        mean_of_states=mean,
    )
    np.testing.assert_allclose(all_scores(model), expected, rtol=1e-3, atol=1e-4)


def test_without_sharpening_it_is_gfcf() -> None:
    data = dataset(random_matrix(seed=2))
    expected = all_scores(GFCF(data, factor_dim=6, alpha=0.3))
    found = all_scores(BSPM(data, factor_dim=6, beta=0.3, sharpen_time=0.0))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_settings_are_checked() -> None:
    data = dataset(random_matrix())
    for wrong in ({"solver": "dopri5"}, {"merge": "middle"}, {"num_steps": 0}, {"beta": -1.0}, {"rounds": 0}):
        with pytest.raises(InputError):
            BSPM(data, **wrong)
