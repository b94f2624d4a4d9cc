"""``fit``: train a model on a dataset, pick its best epoch, test it, and write the run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run
from graphrec.runs.files import FolderLock, clear_errors, recover
from graphrec.runs.write import check_replaceable
from graphrec.training.job import Job
from graphrec.training.options import FitOptions, Last, Mask, Precision, Scaling, Selection, Task
from graphrec.training.resume import check_same, forget, nothing_left, training_folder
from graphrec.training.schedule import ScheduleName

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger


def fit(
    model: GraphRecommender,
    data: RecDataset,
    *,
    epochs: int = 100,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    device: str = "auto",
    devices: int = 1,
    precision: Precision = "32",
    schedule: ScheduleName = "constant",
    warmup: float = 0,
    milestones: Sequence[float] = (0.5, 0.75),
    decay: float = 0.1,
    accumulate: int = 1,
    clip: float | None = None,
    select_on: Selection | None = "auto",
    metric: str = "auto",
    patience: int | None = None,
    max_seconds: float | None = None,
    evaluate_every: int = 1,
    ks: Sequence[int] = (20,),
    task: Task = "rank",
    auc_batch_size: int = 1024,
    auc_batch_last: Last = "keep",
    scaling: Scaling = "none",
    mask: Mask = "train",
    checkpoint_every: int | None = None,
    checkpoint_seconds: float | None = 60.0,
    progress: bool = True,
    resume: str | os.PathLike[str] | bool | None = None,
    init_from: str | os.PathLike[str] | Run | None = None,
    logger: Logger | Sequence[Logger] | None = None,
    callbacks: Sequence[Callback] = (),
    report: bool = True,
) -> Run:
    """Train a model (or solve a closed form), test it, and write the run folder.

    The model itself ends with the weights of the best epoch where one was selected, else of the last, in evaluation
    mode. While it trains, checkpoints lie in ``OUT.training`` beside the run's folder, which is removed at the end; a
    run that was there before stays whole until the new one is complete.

    Args:
        model: trained in place.
        data: the dataset it was made from.
        epochs: see :class:`FitOptions`, as for every option down to ``progress``.
        out: the run's folder; None keeps the run in a temporary folder that goes when the run object does, without
            checkpoints.
        seed: see :class:`FitOptions`.
        device: see :class:`FitOptions`.
        devices: see :class:`FitOptions`.
        precision: see :class:`FitOptions`.
        schedule: see :class:`FitOptions`.
        warmup: see :class:`FitOptions`.
        milestones: see :class:`FitOptions`.
        decay: see :class:`FitOptions`.
        accumulate: see :class:`FitOptions`.
        clip: see :class:`FitOptions`.
        select_on: see :class:`FitOptions`.
        metric: see :class:`FitOptions`.
        patience: see :class:`FitOptions`.
        max_seconds: see :class:`FitOptions`.
        evaluate_every: see :class:`FitOptions`.
        ks: see :class:`FitOptions`.
        task: see :class:`FitOptions`.
        auc_batch_size: see :class:`FitOptions`.
        auc_batch_last: see :class:`FitOptions`.
        scaling: see :class:`FitOptions`.
        mask: see :class:`FitOptions`.
        checkpoint_every: see :class:`FitOptions`.
        checkpoint_seconds: see :class:`FitOptions`.
        progress: see :class:`FitOptions`.
        resume: a run's folder whose training was broken off (``out`` is then that folder unless it is given): goes on
            from the last checkpoint and ends with the numbers of an unbroken training, bit for bit on the CPU. True:
            from ``out`` where something is there to go on from, else from the start.
        init_from: a run or a file of tables to start from; see :func:`graphrec.training.initial.initialise_from`.
        logger: one or several of Lightning's loggers; they get the row of each epoch.
        callbacks: Lightning's callbacks; a "batch" of theirs is one phase of an epoch.
        report: whether the run gets its ``report.html`` (one evaluation's lists are kept for it; about a second).

    Raises:
        InputError: an option, the output folder or the dataset is wrong, or training diverged.
        Interrupted: Ctrl-C or SIGTERM came; the run so far was written before (its ``status`` is "interrupted").
    """
    if metric == "auto" and task == "rank" and max(ks, default=0) <= data.num_items < 20:
        metric = f"recall@{max(ks, default=1)}"
    options = FitOptions(
        epochs=epochs,
        seed=seed,
        device=device,
        devices=devices,
        precision=precision,
        schedule=schedule,
        warmup=warmup,
        milestones=tuple(milestones),
        decay=decay,
        accumulate=accumulate,
        clip=clip,
        select_on=select_on,
        metric=metric,
        patience=patience,
        max_seconds=max_seconds,
        evaluate_every=evaluate_every,
        ks=tuple(ks),
        task=task,
        auc_batch_size=auc_batch_size,
        auc_batch_last=auc_batch_last,
        scaling=scaling,
        mask=mask,
        checkpoint_every=checkpoint_every,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
    )
    if model.graph_inputs.fingerprint != data.fingerprint:
        raise InputError(
            f"the model was made from other data than {data.name!r}: its fingerprint is "
            f"{model.graph_inputs.fingerprint}, the dataset's is {data.fingerprint}. Make the model from this dataset."
        )
    if isinstance(resume, (str, os.PathLike)):
        out = out or resume
    if resume and out is None:
        raise InputError("resume=True needs out=, the folder of the run.")
    job = Job(model, data, options, report and out is not None)
    loggers = [] if logger is None else list(logger) if isinstance(logger, Sequence) else [logger]
    if out is None:
        temporary = tempfile.TemporaryDirectory(prefix="graphrec-")
        run = job.run(Path(temporary.name) / "run", None, None, init_from, loggers, callbacks)
        run._temporary = temporary
        return run
    path = Path(out)
    with ExitStack() as stack:
        with clear_errors(path, "run", "Nothing was trained."):
            path.parent.mkdir(parents=True, exist_ok=True)
            recover(path)
            check_replaceable(path)
            stack.enter_context(FolderLock(training_folder(path), f"another training writes to {path}"))
        source = None
        if resume:
            source = path if resume is True else Path(resume)
            if nothing_left(source, strict=resume is not True):
                run = Run.open(source)
                check_same(run.config, job.config(), source)
                job.show.say(f"{source} is finished; nothing is left to do.")
                forget(training_folder(path))
                return run
        return job.run(path, training_folder(path), source, init_from, loggers, callbacks)
