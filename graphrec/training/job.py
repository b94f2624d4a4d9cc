"""A training from its checked options to its run: train, load the best epoch, test, write."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.load import cache_folder
from graphrec.errors import InputError
from graphrec.models.base import GraphRecommender
from graphrec.reports import write_report
from graphrec.runs import Run, write_run
from graphrec.runs.files import clear_errors, write_file
from graphrec.runs.tensors import load_weights
from graphrec.runs.write import model_config
from graphrec.training.checkpoint import Checkpoint, Standing, read_checkpoint, write_checkpoint
from graphrec.training.checks import check_metric, check_task, has_part, selection_part, training_device
from graphrec.training.initial import Copied, initialise_from
from graphrec.training.interruption import Interrupted, Signals
from graphrec.training.launch import processes_for
from graphrec.training.options import FitOptions, Scaling
from graphrec.training.progress import Progress, duration
from graphrec.training.resume import check_same, forget, training_folder
from graphrec.training.trainer import run_loop

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger

    from graphrec.evaluation import ClickEvaluation, Evaluation
    from graphrec.training.loop import Loop


@dataclass
class Job:
    """What stays the same from the start of a training to its run."""

    model: GraphRecommender
    data: RecDataset
    options: FitOptions
    report: bool

    def __post_init__(self) -> None:
        own = self.model.hparams.get("seed")
        self.seed = self.options.seed if self.options.seed is not None else int(own or 0)
        self.device = training_device(self.options)
        self.part = selection_part(self.options, self.data)
        self.tests = has_part(self.data, "test")
        check_metric(self.options, self.part)
        parts = [*([self.part] if self.part else []), *(["test"] if self.tests else [])]
        check_task(self.options, self.model, self.data, parts)
        self.show = Progress(self.options.epochs, self.options.progress)
        self.copied: list[Copied] = []
        self.loggers: list[Logger] = []

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
        self.loggers = loggers
        self.model.to(self.device)
        checkpoint = read_checkpoint(training_folder(source)) if source else None
        if checkpoint is not None:
            check_same(checkpoint.config, self.config(), source)
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
            run = self.write(path, standing, None)
            if folder is not None:
                forget(folder)
            return run
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
            forget(folder)
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

    def _caches(self, checkpoints: Path | None) -> list[dict[str, Any]]:
        """What lies outside the run's folder and was made from the same data, for the run's manifest."""
        found: list[tuple[Path, list[str]]] = []
        if self.data.loaded is not None:
            try:
                converted = cache_folder(self.data.loaded)
            except InputError as error:
                # A training must not be lost because its source is gone meanwhile.
                self.show.say(f"the manifest names no converted copy of the dataset: {error}")
                converted = None
            found += [] if converted is None else [(converted, ["dataset"])]
        found += [] if checkpoints is None else [(checkpoints, ["parameters", "optimiser"])]
        logged = [getattr(logger, "log_dir", None) for logger in self.loggers]
        found += [(Path(folder), ["aggregates"]) for folder in logged if isinstance(folder, (str, os.PathLike))]
        return [{"path": str(path.absolute()), "sha256": None, "holds": holds} for path, holds in found]

    def select(self) -> dict[str, Any]:
        """Metrics of the selection part: the few that a learning curve needs."""
        from graphrec.evaluation import evaluate

        assert self.part is not None
        self.model.eval()
        if self.options.task == "ctr":
            return dict(self._clicks(self.part))
        names = {"recall", "ndcg", self.options.metric.partition("@")[0]}
        return dict(
            evaluate(self.model, self.data, split=self.part, ks=self.options.evaluated_ks, metrics=sorted(names))
        )

    def test(self) -> Evaluation | ClickEvaluation:
        """The evaluation of the test part."""
        from graphrec.evaluation import evaluate

        options = self.options
        if options.task == "ctr":
            return self._clicks("test", options.scaling)
        return evaluate(self.model, self.data, split="test", ks=options.evaluated_ks, mask=options.mask)

    def _clicks(self, part: str, scaling: Scaling = "none") -> ClickEvaluation:
        from graphrec.evaluation import evaluate_clicks

        return evaluate_clicks(
            self.model,
            self.data,
            split=part,
            auc_batch_size=self.options.auc_batch_size,
            auc_batch_last=self.options.auc_batch_last,
            scaling=scaling,
        )

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
        if self.options.task == "ctr":
            metrics["objective"] = self.model.objective or "closed form"
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
            caches=self._caches(training_folder(path) if broken else None),
        )
        if self.report:
            write_report(run, data=self.data, evaluation=evaluation)
            run = Run(path)
        shown = {name: value for name, value in metrics.items() if name in (self.options.metric, "ndcg@20")}
        numbers = "".join(f"  {name} {value:.4f}" for name, value in shown.items())
        ended = f"{config['status']}{', stopped early,' if standing.stopped_early else ''}"
        self.show.say(f"{ended} after {standing.epoch} epochs, {duration(standing.seconds)}{numbers}  {run.path}")
        return run
