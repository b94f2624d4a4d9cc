"""``graphrec train``: a dataset and a model's options in, a run folder out."""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.cli.arguments import Parser, take
from graphrec.cli.data import add_dataset_arguments, load_dataset
from graphrec.cli.output import metrics_table, print_json
from graphrec.cli.recipe import Recipe, read_recipe
from graphrec.errors import InputError, MissingFileError, unknown

if TYPE_CHECKING:
    from graphrec.datasets import RecDataset
    from graphrec.models.base import GraphRecommender

CLICK_SPLIT = "random_pairs:.6,.2,.2"
"""How labelled pairs are split where nothing else is asked for: over all pairs, as RippleNet's and KGCN's papers do."""

USAGE = "--model NAME --dataset NAME|PATH [--preset NAME] [--config FILE] [--out RUN] [options]"


def parser(model: type[GraphRecommender] | None) -> Parser:
    """Every option of the command; those of the model too once it is known."""
    from graphrec.models import MODELS
    from graphrec.training.options import FitOptions

    shape = Parser(
        "train",
        USAGE,
        "Train a model and write a run folder: weights, ids, metrics, history, and the config to run it again. "
        "The options of a model itself are shown by: graphrec train --model NAME --help",
        lists=("--ks", "--milestones"),
    )
    presets = "" if model is None else f": {', '.join(model.presets) or 'it has none'}"
    about_model = f"the model, expected: {', '.join(sorted(MODELS))}"
    texts = [
        ("--preset", f"a recipe of the model{presets}"),
        ("--config", "YAML file of options, or a run's config.yaml; typed options win"),
        ("--out", "run folder to write; none: runs/MODEL-DATASET, numbered when that is taken"),
        ("--init-from", "run or file of vectors to start from, copied by raw id"),
        ("--resume", "run folder of a training that was stopped; it goes on as if it had not been"),
    ]
    if model is None:
        texts.insert(0, ("--model", about_model))
    for name, about in texts:
        shape.add_argument(name, type=str | None, default=None, help=about)
    shape.add_argument("--report", type=bool, default=True, help="whether to write report.html into the run folder")
    shape.add_argument(
        "--explain",
        type=bool,
        default=True,
        help="whether report.html explains one of the recommendations, where the model reads a knowledge graph",
    )
    shape.add_argument("--json", action="store_true", help="print the run's folder and its metrics as JSON")
    add_dataset_arguments(shape)
    shape.add_class_arguments(FitOptions, None)
    if model is not None:
        shape.add_class_arguments(model, "model", skip={"inputs"})
        shape.describe("--model", "NAME", f"{about_model} (here: {model.__name__})")
    return shape.polish()


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    resumed, rest = take(arguments, "--resume")
    if resumed is None:
        recipe = read_recipe(arguments)
    else:
        config = _broken_off(resumed)
        if config is None:
            print(f"{resumed} is finished; nothing is left to do.")
            return 0
        recipe = read_recipe(rest, config)
    options = parser(recipe.model).parse(recipe.words)
    if recipe.model is None:
        raise InputError("--model NAME is expected (see graphrec train --help)")
    if options.dataset is None:
        raise InputError("--dataset NAME|PATH is expected (see graphrec datasets)")
    if options.task not in recipe.model.tasks:
        raise unknown(f"task of {recipe.model.__name__}", options.task, recipe.model.tasks)
    fit_options = _fit_options(options)
    data = load_dataset(options)
    if options.task == "ctr":
        data = _labelled(options, data)
    _check_fingerprint(recipe, data, options.dataset, resumed)
    if "test" not in data.parts:
        cure = (
            "--split random:.8,.1,.1 makes one" if options.split is None else f"--split {options.split} left it empty"
        )
        print(f"graphrec: {data.name} has no test part, so nothing is measured; {cure}", file=sys.stderr)
    for note in data.notes:
        print(f"graphrec: {data.name}: {note}", file=sys.stderr)
    if options.task == "rank" and not _said(recipe.words, "ks"):
        shortened = _shortened(options.metric, data)
        if shortened:
            fit_options["ks"] = (shortened,)
            print(
                f"graphrec: {data.name}: lists of {shortened} are evaluated, for there are {data.num_items} items "
                "(--ks asks for others)",
                file=sys.stderr,
            )
    out = options.out or resumed or _free_folder(recipe.model, data)
    from graphrec.training import fit

    finished = fit(
        recipe.model(data, **vars(options.model)),
        data,
        out=out,
        resume=resumed,
        init_from=options.init_from,
        report=options.report,
        **fit_options,
    )
    if options.report and options.explain:
        from graphrec.influence import add_example

        finished = add_example(finished, data)
    if options.json:
        print_json({"run": str(finished.path), **finished.metrics})
    else:
        print(f"{metrics_table(finished.metrics)}\n\nrun: {finished.path}")
    return 0


def _fit_options(options: Any) -> dict[str, Any]:
    """The options of ``fit``, checked before any data is read."""
    from graphrec.training.checks import check_metric
    from graphrec.training.options import FitOptions

    chosen = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(FitOptions)}
    checked = FitOptions(**chosen)
    check_metric(checked, checked.select_on)
    return chosen


def _said(words: Sequence[str], name: str) -> bool:
    """Whether an option was typed or stands in a config."""
    return any(word == f"--{name}" or word.startswith(f"--{name}=") for word in words)


def _shortened(metric: str, data: RecDataset) -> int:
    """Length of the lists where the usual 20 are more than there are items: that of the metric, or half; else 0."""
    from graphrec.training.checks import half_the_catalogue

    if data.num_items >= 20:
        return 0
    length = metric.rpartition("@")[2] if "@" in metric else ""
    return int(length) if length.isdigit() and 0 < int(length) <= data.num_items else half_the_catalogue(data)


def _labelled(options: Any, data: RecDataset) -> RecDataset:
    """The dataset for click prediction: split over all labelled pairs where its own parts are for ranking."""
    from graphrec.evaluation.click import labelled_part
    from graphrec.models.labelled import LabelledPairs

    if options.split is not None:
        return data
    everything = LabelledPairs.of(data, None)
    if everything is None:
        labelled_part(data, data.parts[0])
    own = [LabelledPairs.of(data, part) for part in data.parts]
    if "test" in data.parts and all(pairs and 0 < pairs.positives < len(pairs) for pairs in own):
        return data
    options.split = CLICK_SPLIT
    made = load_dataset(options)
    print(
        f"graphrec: {data.name} comes without parts for click prediction: all labelled pairs are split by "
        f"{CLICK_SPLIT} (--split-seed draws another)",
        file=sys.stderr,
    )
    return made


def _broken_off(folder: str) -> dict[str, Any] | None:
    """The config of a training that was broken off; None where it is finished.

    Raises:
        MissingFileError: there is no training.
    """
    from graphrec.training.resume import training_folder, unfinished

    config = unfinished(folder)
    if config is None and not Path(folder, "manifest.json").is_file():
        raise MissingFileError(
            f"--resume {folder}: neither {folder} nor {training_folder(folder)} holds a training to go on with"
        )
    if config is None:
        from graphrec.runs import Run

        Run(folder)  # raises where it is no run any more that counts as finished: superseded, damaged
    return config


def _check_fingerprint(recipe: Recipe, data: RecDataset, name: str, resumed: str | None) -> None:
    if recipe.fingerprint in (None, data.fingerprint):
        return
    if resumed is not None:
        raise InputError(
            f"--resume {resumed}: dataset {name!r} has changed since (its fingerprint is {data.fingerprint}, the "
            f"training's is {recipe.fingerprint}); a training goes on with the same data only"
        )
    warnings.warn(f"dataset {name!r} is not the one this config was written for: it has changed since", stacklevel=1)


def _free_folder(model: type[GraphRecommender], data: RecDataset) -> str:
    """``runs/MODEL-DATASET``, with a number behind it when that is taken."""
    from graphrec.training.resume import training_folder

    name = re.sub(r"[^\w.-]+", "-", data.name).strip("-.") or "data"
    base = Path("runs", f"{model.__name__.lower()}-{name}")
    for number in itertools.count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if not path.exists() and not training_folder(path).exists():
            break
    return str(path)
