"""Adam for tables of which a step touches few rows."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from graphrec.layers.put_rows import put_rows

_BLOCK = 1 << 14  # rows that are brought up to date at a time where all are


class _Pending:
    """What the rows of one table have coming to them.

    Attributes:
        start: the step at which every row was up to date.
        last: (R,) int64, the step up to which each row is.
    """

    def __init__(self, start: int, last: Tensor) -> None:
        self.start, self.last, self.size = start, last, 1
        # For rows that are up to date with step start + n, number n: how far they would have gone since, in units of
        # their first moment over the root of their second; and what their next move is to the step's own.
        self._moved, self._shares = (torch.zeros(1024, dtype=torch.float64) for _ in range(2))

    def advance(self, move: float, ratio: float) -> None:
        """One more step, by which rows with moments of the step before go on by ``move`` times ``ratio``."""
        if self.size == len(self._moved):
            self._moved, self._shares = (torch.cat([x, torch.zeros_like(x)]) for x in (self._moved, self._shares))
        self._shares[self.size - 1] = 1.0
        self._shares[: self.size].mul_(ratio)
        self._moved[: self.size].add_(self._shares[: self.size], alpha=move)
        self.size += 1

    def factors(self, rows: Tensor, betas: tuple[float, float], eps: float, dtype: torch.dtype) -> Tensor:
        """For rows (n,): how far they go, ε, and what is left of their first and second moment, (n, 4)."""
        last = torch.arange(self.start, self.start + self.size, dtype=torch.float64)
        waited = last.flip(0) - self.start
        # The square root of 1 - β₂^j at the first missed step goes with ε.
        eps_then = eps * (1 - betas[1] ** (last + 1)).sqrt()
        table = torch.stack([self._moved[: self.size], eps_then, betas[0] ** waited, betas[1] ** waited], 1)
        return table.to(rows.device, dtype).index_select(0, self.last.index_select(0, rows) - self.start)


@dataclass(frozen=True)
class _Rows:
    """Rows of a table as they are at a step; the table does not hold them yet.

    Attributes:
        step: the step.
        index: (n,) int64, distinct.
        own: (n, D), and so are ``mean`` and ``square``, the moments.
    """

    step: int
    index: Tensor
    own: Tensor
    mean: Tensor
    square: Tensor


class _Taken(torch.autograd.Function):
    """Rows of a table that somebody else has looked up; the gradient is sparse, with distinct rows."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: _Rows) -> Tensor:
        ctx.index, ctx.shape = rows.index, table.shape
        return rows.own.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return torch.sparse_coo_tensor(ctx.index[None], grad, ctx.shape, check_invariants=False), None


class RowAdam(torch.optim.Optimizer):
    r"""Adam (Kingma and Ba, ICLR 2015) that takes sparse gradients and works on their rows alone.

    In dense Adam a row without a gradient still moves: its moments decay, and it goes on by
    :math:`\eta \hat m / (\sqrt{\hat v} + \epsilon)`. With ``deferred`` that is made up for: after j such steps the
    moments are :math:`\beta_1^j m` and :math:`\beta_2^j v`, so that all the moves together are
    :math:`m / (\sqrt v + \epsilon')` times a number which depends on the steps alone and is kept for each step of the
    phase. Whoever reads rows takes them from :meth:`rows`, or calls :meth:`catch_up` first, and :meth:`flush` when the
    phase ends; the result is dense Adam's, but for ε, which is taken as it stands in the first of the missed steps.
    Without ``deferred`` a row stays as it is until it has a gradient again.

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
        self._taken: dict[nn.Parameter, _Rows] = {}

    def rows(self, parameter: nn.Parameter, index: Tensor) -> Tensor:
        """Rows (n, D) of a table at the present step, with a sparse gradient.

        The table is left as it is: a step on these very rows writes them once.

        Args:
            parameter: the table.
            index: (n,) int64, distinct.
        """
        with torch.no_grad():
            self._taken[parameter] = self._at_present(parameter, index)
        taken: Tensor = _Taken.apply(parameter, self._taken[parameter])
        return taken

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient are left alone."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self._state_of(parameter)
                if parameter.grad.is_sparse:
                    self._sparse(parameter, parameter.grad, state, group)
                else:
                    self._dense(parameter, parameter.grad, state, group)
        self._taken.clear()

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def _dense(self, parameter: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if parameter in self._pending:
            self._flush(parameter)
        state["step"] += 1
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        first, second = group["betas"]
        mean.lerp_(grad, 1 - first)
        square.mul_(second).addcmul_(grad, grad, value=1 - second)
        rate, root = _corrections(group, state["step"])
        parameter.addcdiv_(mean, (square.sqrt() / root).add_(group["eps"]), value=-rate)

    def _sparse(self, parameter: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        rows, index, values = self._taken.get(parameter), grad._indices()[0], grad._values()
        if rows is None or rows.step != state["step"] or not torch.equal(rows.index, index):
            grad = grad.coalesce()
            index, values = grad.indices()[0], grad.values()
            rows = self._at_present(parameter, index)
        first, second = group["betas"]
        pending = self._pending.get(parameter)
        if group["deferred"] and pending is None:
            now = torch.full((len(parameter),), state["step"], dtype=torch.int64, device=parameter.device)
            pending = self._pending[parameter] = _Pending(state["step"], now)
        state["step"] += 1
        rows.mean.lerp_(values, 1 - first)
        rows.square.mul_(second).addcmul_(values, values, value=1 - second)
        rate, root = _corrections(group, state["step"])
        # Not in place: the rows may be part of somebody's graph.
        own = rows.own.addcdiv(rows.mean, rows.square.sqrt().div_(root).add_(group["eps"]), value=-rate)
        if pending is not None:
            pending.advance(rate * root, first / math.sqrt(second))
        self._write(parameter, replace(rows, step=state["step"], own=own))

    @torch.no_grad()
    def catch_up(self, parameter: nn.Parameter, rows: Tensor) -> None:
        """Bring distinct rows (n,) of a table up to the present step."""
        if parameter in self._pending:
            self._write(parameter, self._at_present(parameter, rows))

    @torch.no_grad()
    def flush(self) -> None:
        """Bring all rows of all tables up to the present step; call when the phase ends."""
        for parameter in list(self._pending):
            self._flush(parameter)

    def _flush(self, parameter: nn.Parameter) -> None:
        for index in torch.arange(len(parameter), device=parameter.device).split(_BLOCK):
            self._write(parameter, self._at_present(parameter, index))
        del self._pending[parameter]

    def _at_present(self, parameter: nn.Parameter, index: Tensor) -> _Rows:
        state, pending = self._state_of(parameter), self._pending.get(parameter)
        tables = parameter, state["exp_avg"], state["exp_avg_sq"]
        own, mean, square = (table.index_select(0, index) for table in tables)
        if pending is not None:
            group = next(group for group in self.param_groups if any(parameter is one for one in group["params"]))
            factors = pending.factors(index, group["betas"], group["eps"], parameter.dtype).unsqueeze(2).unbind(1)
            own.addcdiv_(mean * factors[0], square.sqrt().add_(factors[1]), value=-1)
            mean.mul_(factors[2])
            square.mul_(factors[3])
        return _Rows(state["step"], index, own, mean, square)

    def _write(self, parameter: nn.Parameter, rows: _Rows) -> None:
        state, pending = self.state[parameter], self._pending.get(parameter)
        put_rows(parameter, rows.index, rows.own)
        put_rows(state["exp_avg"], rows.index, rows.mean)
        put_rows(state["exp_avg_sq"], rows.index, rows.square)
        if pending is not None:
            pending.last.index_fill_(0, rows.index, rows.step)


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
