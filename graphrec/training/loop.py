"""Epochs, phases, selection and checkpoints, as a Lightning module.

Lightning runs the epochs, the callbacks and the loggers; one of its batches is a whole phase. A batch of examples is
drawn only after the step before it, because a phase's batches may depend on what the phase before it changed, and
Lightning would fetch one ahead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from graphrec.errors import unknown
from graphrec.models.base import GraphRecommender
from graphrec.runs.environment import peak_memory
from graphrec.runs.tensors import load_weights
from graphrec.training.checkpoint import Checkpoint, Standing
from graphrec.training.options import FitOptions
from graphrec.training.phases import PhaseResult, PhaseTrainer
from graphrec.training.processes import Processes
from graphrec.training.progress import Progress

Evaluate = Callable[[], Mapping[str, Any]]


class PhaseNumbers:
    """The "batches" that Lightning sees: the numbers of the phases."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


class Loop(LightningModule):
    """One training.

    Args:
        model: trained in place, on its device already.
        options: of the training.
        seed: of the training.
        processes: who takes part.
        evaluate: metrics of the selection part; None where nothing is selected.
        part: the selection part; its metrics are prefixed with it.
        save: writes a checkpoint; None where none are written.
        progress: where to show it.
        stop: whether the person asked to stop.
        listen: called when Lightning has set its signal handlers.
        checkpoint: where to go on from.
    """

    def __init__(
        self,
        model: GraphRecommender,
        options: FitOptions,
        seed: int,
        processes: Processes,
        *,
        evaluate: Evaluate | None,
        part: str,
        save: Callable[[Loop], None] | None,
        progress: Progress,
        stop: Callable[[], bool],
        listen: Callable[[], None],
        checkpoint: Checkpoint | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.options, self.seed, self.processes = options, seed, processes
        self.evaluate, self.save, self.show, self.asked_to_stop = evaluate, save, progress, stop
        self.selected = f"{part}/{options.metric}"
        self.part = part
        self.listen = listen
        self.standing = checkpoint.standing if checkpoint else Standing()
        self.checkpoint = checkpoint
        self.phases: list[PhaseTrainer] = []
        self.results: list[PhaseResult] = []
        self.stopped = False
        self._saved_epoch, self._saved_at, self._epoch_started, self._started = 0, 0.0, 0.0, 0.0
        self._seconds_before = self.standing.seconds

    def configure_optimizers(self) -> list[torch.optim.Optimizer] | None:
        """The phases' optimisers; made here, when the model is where it trains."""
        device = self.model.device
        self.phases = [
            PhaseTrainer(phase, self.options, self.seed, device, self.processes) for phase in self.model.phases()
        ]
        if self.checkpoint is not None:
            self._restore(self.checkpoint)
        for phase in self.phases:
            phase.prepare()
        return [phase.optimiser for phase in self.phases if phase.optimiser] or None

    def _restore(self, checkpoint: Checkpoint) -> None:
        load_weights(self.model, checkpoint.weights, "the checkpoint")
        for phase in self.phases:
            name = phase.phase.name
            if phase.optimiser is not None:
                phase.optimiser.load_state_dict(checkpoint.optimisers[name])
                phase.scaler.load_state_dict(checkpoint.scalers[name])
            done, per_epoch = checkpoint.steps[name]
            phase.steps_done, phase.steps_per_epoch = int(done or 0), per_epoch

    def train_dataloader(self) -> PhaseNumbers:
        """The numbers of the phases."""
        return PhaseNumbers(len(self.model.phases()))

    def on_train_start(self) -> None:
        """Start the clocks."""
        self.listen()
        self._started = self._saved_at = time.monotonic()
        self._saved_epoch = self.standing.epoch

    def on_train_epoch_start(self) -> None:
        """Start the epoch's clock."""
        self._epoch_started, self.results = time.monotonic(), []

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One phase."""
        if self.stopped:
            return
        self.model.train()
        result = self.phases[batch].run(self.standing.epoch, self.show, self.asked_to_stop)
        self.results.append(result)
        if result.stopped:
            self.stopped = True
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Write the epoch's row, evaluate, select, save, and say whether to go on."""
        standing, options = self.standing, self.options
        if self.stopped:
            return
        row: dict[str, Any] = {"epoch": standing.epoch + 1, "loss": sum(r.loss for r in self.results)}
        for phase, result in zip(self.phases, self.results, strict=True):
            row.update({f"{phase.phase.name}/{name}": value for name, value in result.terms.items()})
        row["seconds"] = time.monotonic() - self._epoch_started
        standing.epoch += 1
        spent = self._seconds_before + time.monotonic() - self._started
        over = options.max_seconds is not None and spent >= options.max_seconds
        last = over or standing.epoch >= options.epochs
        shown: dict[str, float] = {}
        if self.evaluate is not None and (last or standing.epoch % options.evaluate_every == 0):
            metrics = {f"{self.part}/{name}": value for name, value in self.evaluate().items()}
            row.update(metrics)
            self._select(metrics)
            shown = {self.selected: metrics[self.selected]}
        row["peak_memory"] = peak_memory(self.model.device)
        standing.history.append(row)
        standing.finished = last or (options.patience is not None and standing.waited >= options.patience)
        standing.stopped_early = standing.finished and standing.epoch < options.epochs
        standing.seconds = self._seconds_before + time.monotonic() - self._started
        self.show.epoch(standing.epoch - 1, row["loss"], time.monotonic() - self._epoch_started, shown)
        if self.processes.rank == 0:
            for logger in self.trainer.loggers:
                numbers = {k: v for k, v in row.items() if k != "epoch" and isinstance(v, (int, float))}
                logger.log_metrics(numbers, step=standing.epoch)
        # Process 0 alone evaluates and hears the person; the others follow it.
        wish = int(standing.finished) + 2 * int(self.asked_to_stop())
        wish = self.processes.agree(wish | 4 * int(self.trainer.should_stop))
        standing.finished = bool(wish & 1)
        self.stopped = bool(wish & 2)
        if wish & 4 and not standing.finished:
            # A callback of Lightning's asked for the end.
            standing.finished = standing.stopped_early = True
        self.trainer.should_stop = bool(wish)
        if self.save is not None and (wish or self._save_is_due()):
            self.save(self)
            self._saved_epoch, self._saved_at = standing.epoch, time.monotonic()

    def _select(self, metrics: Mapping[str, Any]) -> None:
        standing = self.standing
        if self.selected not in metrics:
            raise unknown("metric", self.options.metric, [n.removeprefix(f"{self.part}/") for n in metrics])
        value = metrics[self.selected]
        if standing.best_value is None or value > standing.best_value:
            standing.best_value, standing.best_epoch, standing.waited = float(value), standing.epoch, 0
            standing.best_metrics = dict(metrics)
            standing.best = copy_weights(self.model)
        else:
            standing.waited += 1

    def _save_is_due(self) -> bool:
        options = self.options
        epochs, seconds = options.checkpoint_every, options.checkpoint_seconds
        return (epochs is not None and self.standing.epoch - self._saved_epoch >= epochs) or (
            seconds is not None and time.monotonic() - self._saved_at >= seconds
        )


def copy_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The state dict, copied to the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
