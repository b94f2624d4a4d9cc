"""BSPM: interactions are blurred, then sharpened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.base import GraphInputs
from graphrec.models.graph_filter import GraphFilter

# The growth of dy/dt = -P y over one step h: a polynomial in hP.
_STEPS = {"euler": (1.0, -1.0), "rk4": (1.0, -1.0, 1 / 2, -1 / 6, 1 / 24)}


class BSPM(GraphFilter):
    r"""Blurring-sharpening process models (Choi et al., SIGIR 2023, https://arxiv.org/abs/2211.09324).

    .. math:: b = r P, \qquad L(r) = r D_i^{-1/2} V V^\top D_i^{1/2}, \qquad
              \frac{dy}{dt} = -y P \text{ from } y_0 = \beta L(r) + b \text{ for } T_s

    with P and V as in :class:`~graphrec.models.gfcf.GFCF`; the end of sharpening is ranked. The equation is linear, so
    a step of size h is a polynomial, ``I - hP`` for Euler and ``I - hP + h²P²/2 - h³P³/6 + h⁴P⁴/24`` for RK4 (of the
    classical tableau and of the 3/8 rule that the authors' package uses), and no solver is needed. As in the authors'
    code the blur is a single Euler step of size 1.

    Defaults are the authors' for Gowalla (Recall@20 .1920). Yelp2018: ``solver='euler', sharpen_time=1.2,
    factor_dim=384, beta=.3, mean_of_states=True``. Amazon-book: ``sharpen_time=2.2, num_steps=2, factor_dim=0``.

    Args:
        inputs: the dataset or the inputs taken from it.
        factor_dim: width of V; 0: no low-pass filter.
        beta: weight of the ideal low-pass filter.
        sharpen_time: T_s; 0: no sharpening.
        num_steps: steps of the solver.
        solver: ``rk4`` or ``euler``.
        merge: ``early``: L(r) is sharpened too (the authors' ``final_sharpening``); ``late``: it is added at the end.
        mean_of_states: whether the mean of b and of the state after each step is ranked instead of the last state (the
            authors' ``t_point_combination``).
        rounds: power iterations for V.
        seed: seeds their start.
    """

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        factor_dim: int = 448,
        beta: float = 0.2,
        sharpen_time: float = 2.5,
        num_steps: int = 1,
        solver: Literal["rk4", "euler"] = "rk4",
        merge: Literal["early", "late"] = "early",
        mean_of_states: bool = False,
        rounds: int = 8,
        seed: int = 0,
    ) -> None:
        if not beta >= 0:
            raise InputError(f"beta must be 0 or more, found {beta}.")
        if not sharpen_time >= 0:
            raise InputError(f"sharpen_time must be 0 or more, found {sharpen_time}.")
        if num_steps < 1:
            raise InputError(f"num_steps must be 1 or more, found {num_steps}.")
        if solver not in _STEPS:
            raise InputError(f"solver must be rk4 or euler, found {solver!r}.")
        if merge not in ("early", "late"):
            raise InputError(f"merge must be early or late, found {merge!r}.")
        super().__init__(
            inputs,
            factor_dim=factor_dim,
            beta=beta,
            sharpen_time=sharpen_time,
            num_steps=num_steps,
            solver=solver,
            merge=merge,
            mean_of_states=mean_of_states,
            rounds=rounds,
            seed=seed,
        )
        self.beta = beta
        self.sharpen_time = sharpen_time
        self.num_steps = num_steps
        self.solver = solver
        self.merge = merge
        self.mean_of_states = mean_of_states

    def polynomial(self) -> Sequence[float]:
        """What blurring is followed by: the states' polynomials, their mean with the blurred state, or the last one."""
        states = self._states()
        if not self.mean_of_states:
            return states[-1].tolist()
        return _mean([np.ones(1), *states], len(states) + 1)

    def low_pass_polynomial(self) -> Sequence[float]:
        """The same for L(r), which the blurred state does not hold; a constant where it is added afterwards."""
        if self.merge == "late":
            return (self.beta,)
        states = self._states()
        chosen = _mean(states, len(states) + 1) if self.mean_of_states else states[-1].tolist()
        return [self.beta * coefficient for coefficient in chosen]

    def _states(self) -> list[np.ndarray]:
        """Coefficients of the polynomial that leads from y0 to the state after each step."""
        size = self.sharpen_time / self.num_steps
        step = np.array([coefficient * size**power for power, coefficient in enumerate(_STEPS[self.solver])])
        states = [step]
        for _ in range(self.num_steps - 1):
            states.append(np.convolve(states[-1], step))
        return states


def _mean(polynomials: list[np.ndarray], count: int) -> list[float]:
    total = np.zeros(max(len(polynomial) for polynomial in polynomials))
    for polynomial in polynomials:
        total[: len(polynomial)] += polynomial
    return (total / count).tolist()
