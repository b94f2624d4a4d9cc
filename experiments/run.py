"""Run an experiment from a YAML file: a grid chosen on validation, then several seeds on the test part.

    python experiments/run.py experiments/published/gowalla-gfcf.yaml --seeds 5

Where the dataset has no validation part, a share of each user's training pairs is held out by seed for the choice,
and the chosen setting is trained again on all of them; the test part is scored once for each seed. Every training is
a run folder of its own, so that a run that is interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import inspect
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import graphrec
from graphrec.datasets import RecDataset
from graphrec.errors import InputError, MissingFileError, unknown
from graphrec.models import resolve
from graphrec.runs.environment import environment

SECONDS = "processor.json"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of a table: a model on a dataset, how its setting is chosen, and what was published."""

    name: str
    """The file's name, and the folder of its runs."""
    model: str
    """Class name of the model."""
    dataset: str
    """Name or path of the dataset."""
    preset: str | None = None
    """Preset of the model that the settings below are laid over."""
    hparams: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of the model."""
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of ``graphrec.fit``."""
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    """Values to choose from, by name: a hyper-parameter, or ``fit.OPTION``."""
    metric: str = "recall@20"
    """Metric that the choice and early stopping go by."""
    hold_out: str = "valid:.1"
    """Split that makes a validation part where the dataset has none."""
    ks: Sequence[int] = (20,)
    """Lengths of the lists that are evaluated."""
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The published metrics."""
    tolerance: float = 0.0
    """How far below the published value ours may lie."""
    source: str = ""
    """Where the published value stands."""
    run: bool = True
    """Whether the row is run by default; rows that need more than the stated budget are not."""
    note: str = ""
    """What a reader of the table should know."""


def read_mapping(path: Path, kind: type) -> dict[str, Any]:
    """The mapping in a YAML file, whose keys are fields of a dataclass.

    Raises:
        InputError: the file is no mapping, or a key is unknown.
        MissingFileError: the file is not there.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such experiment file.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a mapping, found {type(content).__name__}.")
    check_keys(content, kind, path)
    return content


def check_keys(content: Mapping[str, Any], kind: type, path: Path) -> None:
    """Refuse a key that is no field of a dataclass."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in content:
        if key not in known:
            raise unknown(f"key of {path}", str(key), known)


def read_experiment(path: Path) -> Experiment:
    """An experiment from its file; unknown keys and models are refused, see :func:`read_mapping`."""
    experiment = Experiment(**{"name": path.stem, **read_mapping(path, Experiment)})
    resolve(experiment.model)
    return experiment


def settings(experiment: Experiment) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Hyper-parameters and fit options of each point of the grid, the preset and the fixed ones underneath."""
    model = resolve(experiment.model)
    hparams: dict[str, Any] = {}
    fit: dict[str, Any] = {}
    if experiment.preset is not None:
        if experiment.preset not in model.presets:
            raise unknown(f"preset of {model.__name__}", experiment.preset, model.presets)
        hparams.update(model.presets[experiment.preset].model)
        fit.update(model.presets[experiment.preset].fit)
    hparams.update(experiment.hparams)
    fit.update(experiment.fit)
    # What a run selects on is the experiment's affair: validation where something is chosen.
    fit.pop("select_on", None)
    for values in itertools.product(*experiment.grid.values()):
        point_hparams, point_fit = dict(hparams), dict(fit)
        for name, value in zip(experiment.grid, values, strict=True):
            if name.startswith("fit."):
                point_fit[name.removeprefix("fit.")] = value
            else:
                point_hparams[name] = value
        yield point_hparams, point_fit


def trains(model: str) -> bool:
    """Whether a model is trained in epochs; a closed form is not."""
    return bool(resolve(model).phases is not graphrec.models.GraphRecommender.phases)


def finished(out: Path) -> graphrec.Run | None:
    """The run of a folder where :func:`with_seconds` has been; None where that training has to be done."""
    return graphrec.Run.open(out) if (out / SECONDS).is_file() else None


def with_seconds(run: graphrec.Run, seconds: float) -> graphrec.Run:
    """The run with what its training took of the processor; the clock depends on what else the machine does."""
    return run.add({SECONDS: json.dumps({"seconds": seconds})}, {SECONDS: ("aggregates",)})


def processor_seconds(run: graphrec.Run) -> float:
    """What :func:`with_seconds` noted."""
    return float(json.loads((run.path / SECONDS).read_text(encoding="utf-8"))["seconds"])


def train(
    experiment: Experiment,
    data: RecDataset,
    hparams: Mapping[str, Any],
    fit: Mapping[str, Any],
    folder: Path,
    seed: int,
    select_on: str | None,
) -> graphrec.Run:
    """Train one setting in its own folder; a finished run is read, an interrupted one resumed.

    A setting that was chosen on a validation part of the data itself is thus not trained twice on the first seed.
    """
    key = json.dumps([experiment.model, hparams, fit, seed, select_on, data.fingerprint], sort_keys=True)
    out = folder / f"{experiment.model}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    model_class = resolve(experiment.model)
    given = dict(hparams)
    if "seed" in inspect.signature(model_class.__init__).parameters:
        given["seed"] = seed
    return graphrec.fit(
        model_class(data, **given),
        data,
        out=out,
        seed=seed,
        select_on=select_on,
        metric=experiment.metric,
        ks=experiment.ks,
        resume=True,
        **fit,
    )


def best_of(run: graphrec.Run, metric: str) -> tuple[float, int]:
    """Best validation value of a run and its epoch (1 for a model without epochs)."""
    return float(run.metrics[f"valid/{metric}"]), int(run.metrics.get("best_epoch", 1))


def run_experiment(experiment: Experiment, folder: Path, seeds: int, root: str | None = None) -> dict[str, Any]:
    """Choose on validation, train each seed, score the test part once a seed; the result as JSON values."""
    data = graphrec.datasets.load(experiment.dataset, root=root)
    points = list(settings(experiment))
    has_valid = "valid" in data.parts
    trainable = trains(experiment.model)
    trials = []
    # A single setting with a fixed number of epochs leaves nothing to choose.
    choose = len(points) > 1
    if choose:
        tuning = data if has_valid else data.split(experiment.hold_out)
        for hparams, fit in points:
            run = train(experiment, tuning, hparams, fit, folder, 0, "valid")
            value, epoch = best_of(run, experiment.metric)
            seconds = float(run.metrics["seconds"])
            trials.append({"hparams": hparams, "fit": fit, "value": value, "epoch": epoch, "seconds": seconds})
    best = max(trials, key=lambda trial: trial["value"]) if trials else None
    hparams, fit = (best["hparams"], dict(best["fit"])) if best else points[0]
    refit = best is not None and not has_valid
    if refit and trainable and fit.get("schedule", "constant") == "constant":
        fit["epochs"] = best["epoch"] if best else fit["epochs"]
    rows = []
    for seed in range(seeds):
        select_on = "valid" if has_valid and trainable else None
        run = train(experiment, data, hparams, fit, folder, seed, select_on)
        metrics = {key: value for key, value in run.metrics.items() if "/" not in key}
        rows.append({"seed": seed, **metrics})
    numbers = [key for key, value in rows[0].items() if isinstance(value, float)]
    return {
        "name": experiment.name,
        "model": experiment.model,
        "dataset": experiment.dataset,
        "fingerprint": data.fingerprint,
        "hparams": hparams,
        "fit": fit,
        "selection": "validation part" if has_valid else (experiment.hold_out if choose else "none: one setting"),
        "trials": trials,
        "tuning_seconds": round(sum(trial["seconds"] for trial in trials), 1),
        "seeds": rows,
        "mean": {key: statistics.fmean(row[key] for row in rows) for key in numbers},
        "deviation": {key: statistics.stdev(row[key] for row in rows) if len(rows) > 1 else 0.0 for key in numbers},
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "command": f"python experiments/run.py experiments/published/{experiment.name}.yaml --seeds {seeds}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the experiment, a YAML file")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to train (default: 1)")
    parser.add_argument("--root", help="folder that holds the datasets (default: $GRAPHREC_DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="file for the result (default: standard output)")
    options = parser.parse_args(arguments)
    try:
        experiment = read_experiment(options.file)
        result = run_experiment(experiment, options.runs / experiment.name, options.seeds, options.root)
    except InputError as error:
        print(f"run.py: error: {error}", file=sys.stderr)
        return 2
    text = json.dumps(result, indent=2)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
