"""Adam for tables of which a step touches few rows."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class _Pending:
    """What the rows of one table have coming to them.

    Attributes:
        start: the step at which every row was up to date.
        last: (R,) int64, the step up to which each row is.
        moved: for rows that are up to date with step ``start + n``, number n: how far they would have gone since, in
            units of their first moment over the root of their second.
    """

    start: int
    last: Tensor
    moved: list[float]


class RowAdam(torch.optim.Optimizer):
    r"""Adam (Kingma and Ba, ICLR 2015) that takes sparse gradients and works on their rows alone.

    In dense Adam a row without a gradient still moves: its moments decay, and it goes on by
    :math:`\eta \hat m / (\sqrt{\hat v} + \epsilon)`. With ``deferred`` that is made up for: after j such steps the
    moments are :math:`\beta_1^j m` and :math:`\beta_2^j v`, so that all the moves together are
    :math:`m / (\sqrt v + \epsilon')` times a number which depends on the steps alone and is kept for each step of the
    phase. It takes whoever reads a row to call :meth:`catch_up` first, and :meth:`flush` when the phase ends; the
    result is dense Adam's, but for ε, which is taken as it stands in the first of the missed steps. Without
    ``deferred`` a row stays as it is until it has a gradient again.

    Dense gradients are stepped as in Adam.

    Args:
        parameters: tables (R, D) with sparse gradients, and any others.
        lr: η.
        betas: β₁, β₂.
        eps: ε.
        deferred: see above.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        deferred: bool = True,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "deferred": deferred})
        self._pending: dict[nn.Parameter, _Pending] = {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient are left alone."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                if parameter.grad.is_sparse:
                    self._sparse(parameter, parameter.grad.coalesce(), state, group)
                else:
                    self._dense(parameter, parameter.grad, state, group)

    def _dense(self, parameter: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if parameter in self._pending:
            self._make_up(parameter, slice(None))
            del self._pending[parameter]
        state["step"] += 1
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        first, second = group["betas"]
        mean.lerp_(grad, 1 - first)
        square.mul_(second).addcmul_(grad, grad, value=1 - second)
        rate, root = _corrections(group, state["step"])
        parameter.addcdiv_(mean, (square.sqrt() / root).add_(group["eps"]), value=-rate)

    def _sparse(self, parameter: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        rows, values = grad.indices()[0], grad.values()
        first, second = group["betas"]
        pending = self._pending.get(parameter)
        if group["deferred"]:
            if pending is None:
                now = torch.full((len(parameter),), state["step"], dtype=torch.int64, device=parameter.device)
                pending = self._pending[parameter] = _Pending(state["step"], now, [0.0])
            if not bool((pending.last[rows] == state["step"]).all()):  # rows that nobody caught up before reading
                self._make_up(parameter, rows)
        state["step"] += 1
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        own_mean = mean.index_select(0, rows).lerp_(values, 1 - first)
        own_square = square.index_select(0, rows).mul_(second).addcmul_(values, values, value=1 - second)
        mean.index_copy_(0, rows, own_mean)
        square.index_copy_(0, rows, own_square)
        rate, root = _corrections(group, state["step"])
        own = parameter.index_select(0, rows)
        own.addcdiv_(own_mean, own_square.sqrt_().div_(root).add_(group["eps"]), value=-rate)
        parameter.index_copy_(0, rows, own)
        if pending is not None:
            ratio = first / math.sqrt(second)
            share = rate * root * ratio
            for number in range(len(pending.moved) - 1, -1, -1):
                pending.moved[number] += share
                share *= ratio
                if share < 1e-12 * rate:  # what comes to rows that have waited longer is nothing
                    break
            pending.moved.append(0.0)
            pending.last.index_fill_(0, rows, state["step"])

    @torch.no_grad()
    def catch_up(self, parameter: nn.Parameter, rows: Tensor) -> None:
        """Bring distinct rows (n,) of a table up to the present step; call before they are read."""
        if parameter in self._pending:
            self._make_up(parameter, rows)

    @torch.no_grad()
    def flush(self) -> None:
        """Bring all rows of all tables up to the present step; call when the phase ends."""
        for parameter in list(self._pending):
            self._make_up(parameter, slice(None))
            del self._pending[parameter]

    def _make_up(self, parameter: nn.Parameter, rows: Tensor | slice) -> None:
        pending, state = self._pending[parameter], self.state[parameter]
        group = next(group for group in self.param_groups if any(parameter is own for own in group["params"]))
        step, (first, second) = state["step"], group["betas"]
        last = pending.last[rows]
        moved = torch.tensor(pending.moved, dtype=torch.float64, device=parameter.device)[last - pending.start]
        waited = (step - last).to(torch.float64)
        # The square root of 1 - β₂^j at the first missed step goes with ε.
        eps = group["eps"] * (1 - second ** (last + 1).to(torch.float64)).sqrt()
        factors = [x.to(parameter.dtype).unsqueeze(1) for x in (moved, eps, first**waited, second**waited)]
        if isinstance(rows, slice):
            mean, square, own = state["exp_avg"], state["exp_avg_sq"], parameter.data
        else:
            mean, square = state["exp_avg"].index_select(0, rows), state["exp_avg_sq"].index_select(0, rows)
            own = parameter.index_select(0, rows)
        own.addcdiv_(mean * factors[0], square.sqrt().add_(factors[1]), value=-1)
        mean.mul_(factors[2])
        square.mul_(factors[3])
        if not isinstance(rows, slice):
            parameter.index_copy_(0, rows, own)
            state["exp_avg"].index_copy_(0, rows, mean)
            state["exp_avg_sq"].index_copy_(0, rows, square)
        pending.last[rows] = step


def _corrections(group: dict[str, Any], step: int) -> tuple[float, float]:
    """The rate over 1 - β₁^t, and the root of 1 - β₂^t."""
    first, second = group["betas"]
    return group["lr"] / (1 - first**step), math.sqrt(1 - second**step)


class RowAdamLink:
    """The optimiser of the triples' phase, as long as it lives; copies of the model have none."""

    def __init__(self) -> None:
        self._optimiser: weakref.ref[RowAdam] | None = None

    def set(self, optimiser: RowAdam) -> None:
        """The optimiser from now on; it is not kept alive."""
        self._optimiser = weakref.ref(optimiser)

    def live(self) -> RowAdam | None:
        """The optimiser, None before it was made and after it is gone."""
        return None if self._optimiser is None else self._optimiser()

    def flush(self) -> None:
        """Bring all rows up to date."""
        optimiser = self.live()
        if optimiser is not None:
            optimiser.flush()

    def __deepcopy__(self, memo: Any) -> RowAdamLink:
        return RowAdamLink()

    def __reduce__(self) -> Any:
        return (RowAdamLink, ())
