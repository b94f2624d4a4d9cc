"""The steps of one phase of an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor

from graphrec import randomness
from graphrec.errors import InputError
from graphrec.models.base import Batch, Phase
from graphrec.training.options import FitOptions
from graphrec.training.processes import Processes
from graphrec.training.progress import Progress
from graphrec.training.schedule import factor


@dataclass(frozen=True)
class PhaseResult:
    """What one pass of a phase came to.

    Attributes:
        terms: the mean of each named term over the examples.
        steps: steps of the optimiser.
        stopped: whether it was broken off.
    """

    terms: dict[str, float]
    steps: int
    stopped: bool = False

    @property
    def loss(self) -> float:
        """The sum of the terms."""
        return sum(self.terms.values())


@dataclass
class _Sums:
    """Terms weighted by examples, kept on the device until they are asked for."""

    terms: dict[str, Tensor] = field(default_factory=dict)
    examples: int = 0

    def add(self, terms: dict[str, Tensor], examples: int) -> None:
        for name, value in terms.items():
            share = value.detach().to(torch.float64) * examples
            self.terms[name] = self.terms[name] + share if name in self.terms else share
        self.examples += examples

    def mean_loss(self) -> float:
        total = sum(float(value) for value in self.terms.values())
        return total / max(self.examples, 1)


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of up to ``size`` batches; each is drawn when it is asked for."""
    stream = iter(batches)
    while group := list(islice(stream, size)):
        yield group


class PhaseTrainer:
    """Runs one phase: its batches, gradients, and its optimiser's steps.

    Every process draws the same batch and takes its share of it; gradients are sums of shares weighted by their sizes,
    so that the step is the one of the whole batch, whatever the number of processes or of accumulated batches.

    Args:
        phase: the phase.
        options: of the training.
        seed: of the training.
        device: of the model.
        processes: who takes part.
    """

    def __init__(
        self, phase: Phase, options: FitOptions, seed: int, device: torch.device, processes: Processes
    ) -> None:
        self.phase, self.options, self.seed, self.device = phase, options, seed, device
        self.processes = processes
        self.parameters = list(phase.parameters)
        self.optimiser: torch.optim.Optimizer | None = None
        if self.parameters:
            make = phase.optimiser or (lambda parameters: torch.optim.Adam(parameters, lr=1e-3))
            self.optimiser = make(self.parameters)
        self.rates = [float(group["lr"]) for group in self.optimiser.param_groups] if self.optimiser else []
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "16")
        self.steps_done = 0
        self.steps_per_epoch: int | None = None

    def prepare(self) -> None:
        """Count the steps of an epoch where the learning rate depends on them."""
        if not self.parameters or (self.options.schedule == "constant" and self.options.warmup == 0):
            return
        if self.steps_per_epoch is None:
            batches = self.batches(0)
            count = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
            self.steps_per_epoch = -(-count // self.options.accumulate)

    def batches(self, epoch: int) -> Iterable[Batch]:
        """The batches of one epoch, from the epoch's own stream."""
        stream = randomness.generator(self.seed, f"batches/{self.phase.name}", epoch, device=self.device)
        return self.phase.batches(epoch, stream)

    def run(self, epoch: int, progress: Progress, asked_to_stop: Callable[[], bool]) -> PhaseResult:
        """One pass over the phase's batches.

        Raises:
            InputError: the loss is not finite any more.
        """
        started, sums, number, steps, stopped = time.monotonic(), _Sums(), 0, 0, False
        stream = torch.Generator(device=self.device)
        for group in grouped(self.batches(epoch), self.options.accumulate if self.parameters else 1):
            total = sum(map(len, group))
            for batch in group:
                # A stream of its own for each batch, whatever was drawn before it and by whom.
                stream.manual_seed(randomness.derive(self.seed, f"step/{self.phase.name}/{epoch}", number))
                number += 1
                self._gradients(replace(batch, generator=stream), total, sums)
            if self.parameters and total:
                stopped = self._step(asked_to_stop)
            else:
                stopped = self.processes.world == 1 and asked_to_stop()
            steps += 1
            if progress.due():
                seconds = time.monotonic() - started
                progress.step(epoch, steps, self.steps_per_epoch, sums.mean_loss(), seconds)
            if stopped:
                break
        if not stopped:
            self.steps_per_epoch = steps
        return PhaseResult(self._means(sums, epoch), steps, stopped)

    def _gradients(self, batch: Batch, total: int, sums: _Sums) -> None:
        if not self.parameters:
            # Work done once an epoch: every process does all of it, so that all hold the same.
            with torch.no_grad():
                sums.add(dict(self.phase.loss(batch)), len(batch))
            return
        world = self.processes.world
        share = batch if world == 1 else batch.shard(self.processes.rank, world)
        if len(share) == 0:
            # More processes than examples: this one only learns which terms there are, to add up with the others.
            with torch.no_grad():
                sums.add(dict(self.phase.loss(batch)), 0)
            return
        with self._autocast():
            terms = dict(self.phase.loss(share))
            loss = torch.stack([term.float() for term in terms.values()]).sum()
        if len(share) != total:
            loss = loss * (len(share) / total)
        self.scaler.scale(loss).backward(inputs=self.parameters)
        sums.add(terms, len(share))

    def _autocast(self) -> AbstractContextManager[object]:
        if self.options.precision == "32":
            return nullcontext()
        kind = torch.bfloat16 if self.options.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=kind)

    def _step(self, asked_to_stop: Callable[[], bool]) -> bool:
        assert self.optimiser is not None
        stop = asked_to_stop()
        if self.processes.world > 1:
            stop = self.processes.add_gradients(self.parameters, stop)
        if self.options.clip is not None:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.options.clip)
        self._set_rates()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.steps_done += 1
        return stop

    def _set_rates(self) -> None:
        options = self.options
        if options.schedule == "constant" and options.warmup == 0:
            return
        assert self.optimiser is not None
        now = factor(
            self.steps_done,
            (self.steps_per_epoch or 1) * options.epochs,
            options.schedule,
            warmup=options.warmup,
            milestones=options.milestones,
            decay=options.decay,
        )
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * now

    def _means(self, sums: _Sums, epoch: int) -> dict[str, float]:
        if not sums.terms:
            return {}
        names = list(sums.terms)
        values = torch.stack([sums.terms[name] for name in names] + [sums.terms[names[0]] * 0 + sums.examples])
        if self.parameters:
            values = self.processes.add(values)
        *totals, examples = values.tolist()
        means = {name: total / max(examples, 1) for name, total in zip(names, totals, strict=True)}
        for name, value in means.items():
            if not torch.isfinite(torch.tensor(value)):
                raise InputError(
                    f"the loss {self.phase.name}/{name} is {value} in epoch {epoch + 1}: training has diverged. Lower "
                    "the learning rate, or set clip=1.0."
                )
        return means
