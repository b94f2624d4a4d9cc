"""The epochs of a training, under Lightning's trainer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.models.base import GraphRecommender
from graphrec.runs.tensors import load_weights
from graphrec.training.checkpoint import read_checkpoint
from graphrec.training.interruption import Signals
from graphrec.training.options import FitOptions
from graphrec.training.processes import Processes
from graphrec.training.progress import Progress

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger

    from graphrec.training.loop import Evaluate, Loop


def run_loop(
    model: GraphRecommender,
    options: FitOptions,
    seed: int,
    processes: Processes,
    *,
    resume: Path | None = None,
    evaluate: Evaluate | None = None,
    part: str = "",
    save: Any = None,
    show: Progress | None = None,
    signals: Signals | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> Loop:
    """Train under Lightning's trainer, in one of the training's processes.

    Args:
        model: on its device.
        options: of the training.
        seed: of the training.
        processes: who takes part.
        resume: the folder of the checkpoint to go on from.
        evaluate: metrics of the selection part (process 0 only).
        part: the selection part.
        save: writes a checkpoint (process 0 only).
        show: where to show progress.
        signals: whether the person asked to stop.
        loggers: Lightning's.
        callbacks: Lightning's.
    """
    import logging

    from lightning.pytorch import Trainer

    from graphrec.training.loop import Loop

    show = show or Progress(options.epochs, enabled=False)
    checkpoint = read_checkpoint(resume) if resume else None
    loop = Loop(
        model,
        options,
        seed,
        processes,
        evaluate=evaluate,
        part=part,
        save=save,
        progress=show,
        stop=signals.asked_to_stop if signals else lambda: False,
        listen=signals.listen if signals else lambda: None,
        checkpoint=checkpoint,
    )
    if loop.standing.finished or options.epochs <= loop.standing.epoch:
        if checkpoint is not None:
            load_weights(model, checkpoint.weights, "the checkpoint")
        loop.standing.finished = True
        return loop
    voices = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [voice.level for voice in voices]
    device = model.device
    try:
        # What Lightning says about hardware and data loaders does not concern a person here.
        for voice in voices:
            voice.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            trainer = Trainer(
                accelerator="gpu" if device.type == "cuda" else "cpu",
                devices=[device.index or 0] if device.type == "cuda" else 1,
                max_epochs=options.epochs,
                logger=list(loggers) or False,
                callbacks=list(callbacks),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
            )
            done = dict.fromkeys(("ready", "started", "processed", "completed"), loop.standing.epoch)
            trainer.fit_loop.epoch_progress.current.load_state_dict(done)
            trainer.fit(loop)
    finally:
        show.close()
        for voice, level in zip(voices, levels, strict=True):
            voice.setLevel(level)
    model.to(device)
    return loop
