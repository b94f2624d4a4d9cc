"""``fit``: train a model on a dataset, pick its best epoch, test it, and write the run."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, MissingFileError
from graphrec.models.base import GraphRecommender
from graphrec.reports import write_report
from graphrec.runs import Run, write_run
from graphrec.runs.files import FolderLock, clear_errors, recover, write_file
from graphrec.runs.run import check_replaceable, model_config
from graphrec.runs.tensors import load_weights
from graphrec.training.checkpoint import Checkpoint, Standing, read_checkpoint, write_checkpoint
from graphrec.training.initial import Copied, initialise_from
from graphrec.training.interruption import Interrupted, Signals
from graphrec.training.launch import processes_for
from graphrec.training.options import FREE_ON_RESUME, FitOptions, Mask, Precision, Selection
from graphrec.training.processes import Processes
from graphrec.training.progress import Progress, duration
from graphrec.training.schedule import ScheduleName

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger

    from graphrec.evaluation import Evaluation
    from graphrec.training.loop import Evaluate, Loop


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
    metric: str = "recall@20",
    patience: int | None = None,
    evaluate_every: int = 1,
    ks: Sequence[int] = (20,),
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
        evaluate_every: see :class:`FitOptions`.
        ks: see :class:`FitOptions`.
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
        evaluate_every=evaluate_every,
        ks=tuple(ks),
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
    if resume not in (None, False, True):
        out = out or resume  # type: ignore[assignment]
    if resume and out is None:
        raise InputError("resume=True needs out=, the folder of the run.")
    training = _Training(model, data, options, report and out is not None)
    loggers = [] if logger is None else list(logger) if isinstance(logger, Sequence) else [logger]
    if out is None:
        temporary = tempfile.TemporaryDirectory(prefix="graphrec-")
        run = training.run(Path(temporary.name) / "run", None, None, init_from, loggers, callbacks)
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
            if _nothing_left(source, strict=resume is not True):
                run = Run.open(source)
                _check_same(run.config, training.config(), source)
                training.show.say(f"{source} is finished; nothing is left to do.")
                _forget(training_folder(path))
                return run
        return training.run(path, training_folder(path), source, init_from, loggers, callbacks)


def training_folder(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoints of the training that writes to ``path`` lie."""
    path = Path(path)
    return path.with_name(f"{path.name}.training")


def unfinished(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The config (model, hparams, dataset, fit, seed) of a training that was broken off, None where there is none.

    Args:
        path: the run's folder, as given to ``out``.
    """
    folder = training_folder(path)
    checkpoint = read_checkpoint(folder)
    if checkpoint is not None:
        return checkpoint.config
    config = folder / "config.yaml"
    return yaml.safe_load(config.read_text(encoding="utf-8")) if config.exists() else None


def _nothing_left(source: Path, strict: bool) -> bool:
    """Whether the run is finished already. ``strict``: raise where there is nothing to resume either."""
    if unfinished(source) is not None:
        return False
    if (source / "manifest.json").exists() and Run(source).config.get("status") == "complete":
        return True
    if strict:
        raise MissingFileError(
            f"there is nothing to resume: neither {source} nor {training_folder(source)} holds a training "
            "that can go on."
        )
    return False


def _forget(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@dataclass
class _Training:
    """What stays the same from the start of a training to its run."""

    model: GraphRecommender
    data: RecDataset
    options: FitOptions
    report: bool

    def __post_init__(self) -> None:
        own = self.model.hparams.get("seed")
        self.seed = self.options.seed if self.options.seed is not None else int(own or 0)
        self.device = _device(self.options)
        self.part = _selection_part(self.options, self.data)
        self.tests = _has(self.data, "test")
        _check_metric(self.options, self.part)
        longest = max(self.options.evaluated_ks)
        if (self.part or self.tests) and longest > self.data.num_items:
            raise InputError(
                f"k is {longest}, larger than the catalogue of {self.data.num_items} items; choose smaller ones."
            )
        self.show = Progress(self.options.epochs, self.options.progress)
        self.copied: list[Copied] = []

    def config(self) -> dict[str, Any]:
        """What is needed to run it again."""
        return {
            **model_config(self.model),
            "dataset": {"name": self.data.name, **(self.data.loaded or {}), "fingerprint": self.data.fingerprint},
            "fit": self.options.as_config(),
            "seed": self.seed,
        }

    def run(
        self,
        path: Path,
        folder: Path | None,
        source: Path | None,
        init_from: str | os.PathLike[str] | Run | None,
        loggers: list[Logger],
        callbacks: Sequence[Callback],
    ) -> Run:
        """Train and write the run to ``path``.

        Args:
            path: of the run.
            folder: for checkpoints; None: none are written.
            source: the run to resume.
            init_from: where to start from.
            loggers: Lightning's.
            callbacks: Lightning's.
        """
        started = time.monotonic()
        self.model.to(self.device)
        checkpoint = read_checkpoint(training_folder(source)) if source else None
        if checkpoint is not None:
            _check_same(checkpoint.config, self.config(), source)
            self.show.say(f"resuming after epoch {checkpoint.standing.epoch} of {self.options.epochs}")
        elif init_from is not None:
            self.copied = initialise_from(self.model, self.data, init_from)
            for copied in self.copied:
                self.show.say(f"init_from: {copied}")
        if not self.model.phases():
            self.model.eval()
            with torch.no_grad():
                self.model.solve()
            standing = Standing(seconds=time.monotonic() - started, finished=True)
            if self.part is not None:
                standing.best_metrics = {f"{self.part}/{name}": v for name, v in self.select().items()}
            return self.write(path, standing, None)
        with Signals() as signals:
            if folder is not None:
                self._announce(folder)
            loop = self._train(folder, source, checkpoint, loggers, callbacks, signals)
            standing = loop.standing
            if standing.best:
                load_weights(self.model, standing.best, "the best epoch")
            run = self.write(path, standing, signals.number, init_from)
        if signals.number is not None and not standing.finished:
            raise Interrupted(run, signals.number)
        if folder is not None:
            _forget(folder)
        return run

    def _announce(self, folder: Path) -> None:
        """Write down what is being trained, so that it can be resumed before its first checkpoint."""
        text = yaml.safe_dump(self.config(), sort_keys=False, allow_unicode=True)
        with clear_errors(folder, "training's config"):
            write_file(folder / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))

    def _train(
        self,
        folder: Path | None,
        source: Path | None,
        checkpoint: Checkpoint | None,
        loggers: list[Logger],
        callbacks: Sequence[Callback],
        signals: Signals,
    ) -> Loop:
        config = self.config()

        def save(loop: Loop) -> None:
            assert folder is not None
            write_checkpoint(
                folder,
                standing=loop.standing,
                config=config,
                weights=self.model.state_dict(),
                optimisers={p.phase.name: p.optimiser for p in loop.phases if p.optimiser},
                scalers={p.phase.name: p.scaler.state_dict() for p in loop.phases},
                steps={p.phase.name: [p.steps_done, p.steps_per_epoch] for p in loop.phases},
            )

        resumed = training_folder(source) if source is not None and checkpoint is not None else None
        with processes_for(self.model, self.options, self.seed, self.device, resumed) as processes:
            return run_loop(
                self.model,
                self.options,
                self.seed,
                processes,
                resume=resumed,
                evaluate=self.select if self.part else None,
                part=self.part or "",
                save=save if folder is not None else None,
                show=self.show,
                signals=signals,
                loggers=loggers,
                callbacks=callbacks,
            )

    def select(self) -> dict[str, Any]:
        """Metrics of the selection part: the few that a learning curve needs."""
        from graphrec.evaluation import evaluate

        assert self.part is not None
        self.model.eval()
        names = {"recall", "ndcg", self.options.metric.partition("@")[0]}
        return dict(
            evaluate(self.model, self.data, split=self.part, ks=self.options.evaluated_ks, metrics=sorted(names))
        )

    def test(self) -> Evaluation:
        """The evaluation of the test part."""
        from graphrec.evaluation import evaluate

        options = self.options
        return evaluate(self.model, self.data, split="test", ks=options.evaluated_ks, mask=options.mask)

    def write(
        self,
        path: Path,
        standing: Standing,
        interrupted: int | None,
        init_from: str | os.PathLike[str] | Run | None = None,
    ) -> Run:
        """Test the model and write the run."""
        self.model.eval()
        metrics: dict[str, Any] = {}
        evaluation = self.test() if self.tests else None
        if evaluation is not None:
            metrics = evaluation.to_dict()
            metrics["evaluation_seconds"] = metrics.pop("seconds")
        metrics.update(standing.best_metrics)
        metrics.update({f"model/{name}": value for name, value in self.model.facts().items()})
        metrics["seconds"] = standing.seconds
        metrics["epochs"] = standing.epoch
        if standing.best_epoch is not None:
            metrics["best_epoch"] = standing.best_epoch
        broken = interrupted is not None and not standing.finished
        config = self.config()
        config["status"] = "interrupted" if broken else "complete"
        config["selected_on"] = self.part
        if self.copied:
            name = init_from.path if isinstance(init_from, Run) else init_from
            config["init_from"] = {"source": str(name), "copied": [vars(copied) for copied in self.copied]}
        run = write_run(
            path,
            model=self.model,
            data=self.data,
            config=config,
            metrics=metrics,
            history=standing.history,
            per_user=None if evaluation is None else evaluation.per_user,
        )
        if self.report:
            write_report(run, data=self.data, evaluation=evaluation)
            run = Run(path)
        shown = {name: value for name, value in metrics.items() if name in (self.options.metric, "ndcg@20")}
        numbers = "".join(f"  {name} {value:.4f}" for name, value in shown.items())
        ended = f"{config['status']}{', stopped early,' if standing.stopped_early else ''}"
        self.show.say(f"{ended} after {standing.epoch} epochs, {duration(standing.seconds)}{numbers}  {run.path}")
        return run


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


def _device(options: FitOptions) -> torch.device:
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is none; expected auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if max(options.devices, (device.index or 0) + 1) > there:
            raise InputError(
                f"device={name!r}, devices={options.devices}: {there} GPUs are here; use device='cpu' or fewer."
            )
        return torch.device("cuda", device.index or 0)
    return device


def _has(data: RecDataset, part: str) -> bool:
    return part in data.parts and len(data.interactions(part)) > 0


def _selection_part(options: FitOptions, data: RecDataset) -> str | None:
    part = options.select_on
    if part == "auto":
        part = "valid" if _has(data, "valid") else None
        if part is None and options.patience is not None:
            raise InputError(
                f"patience needs a part to select on, and {data.name!r} has no valid part; make one with a split, or "
                "pass select_on='test' as some papers did."
            )
    if part is not None and not _has(data, part):
        raise InputError(f"select_on={part!r}: {data.name!r} has parts {', '.join(data.parts)}.")
    return part


def _check_metric(options: FitOptions, part: str | None) -> None:
    """Raise where the selection metric is unknown, or larger values of it are not better."""
    if part is None:
        return
    from graphrec.evaluation.specs import resolve

    name, _, k = options.metric.partition("@")
    (spec,) = resolve(name)
    if not spec.higher_is_better:
        raise InputError(f"metric {options.metric!r} cannot pick the best epoch: larger values of it are not better.")
    if spec.key(1).endswith("@1") != bool(k):
        wanted = f"{name}@20" if not k else name
        raise InputError(f"metric {options.metric!r} must be written {wanted!r}.")


def _check_same(before: Mapping[str, Any], config: Mapping[str, Any], source: Path | None) -> None:
    """Raise where a resumed training would not be the one that was broken off."""
    differing = [
        f"{name} was {before.get(name)!r}, is {config.get(name)!r}"
        for name in ("model", "seed")
        if before.get(name) != config.get(name)
    ]
    if before["dataset"]["fingerprint"] != config["dataset"]["fingerprint"]:
        differing.append("the dataset has changed (its fingerprint)")
    for part in ("hparams", "fit"):
        for name in sorted({*before[part], *config[part]}):
            old, new = before[part].get(name), config[part].get(name)
            longer = name == "epochs" and config["fit"]["schedule"] == "constant"
            if _same(old, new) or (part == "fit" and (name in FREE_ON_RESUME or name == "seed" or longer)):
                continue
            differing.append(f"{name} was {old!r}, is {new!r}")
    if differing:
        raise InputError(f"{source} cannot be resumed with other settings: {'; '.join(differing)}.")


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)
