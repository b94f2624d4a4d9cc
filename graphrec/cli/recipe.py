"""Where a training's options come from: a preset, a config file, the command line; the later one wins."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphrec.cli.arguments import as_words, read_yaml, take
from graphrec.errors import InputError, unknown

if TYPE_CHECKING:
    from graphrec.models.base import GraphRecommender, Preset

DATASET_OPTIONS = (
    "dataset",
    "root",
    "format",
    "columns",
    "split",
    "split_seed",
    "min_rating",
    "drawn_negatives",
    "cold",
    "duplicates",
    "kg",
    "kg_columns",
    "kg_options",
    "kg_filter",
)
OWN_OPTIONS = ("model", "preset", "out", "init_from", "report")

# What a run's config.yaml holds beside options: what came out, not what goes in.
_FINDINGS = frozenset({"status", "selected_on", "name"})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training's model and the words that say all about it.

    Attributes:
        model: the class; None when nothing names one.
        words: options as typed, the winning ones last.
        fingerprint: of the dataset that the config file's run was trained on, when that dataset is used.
    """

    model: type[GraphRecommender] | None
    words: list[str]
    fingerprint: str | None = None


def read_recipe(arguments: Sequence[str], resumed: Mapping[str, Any] | None = None) -> Recipe:
    """Put preset, config file and typed options together.

    Args:
        arguments: as typed.
        resumed: the config of a training that goes on, in the place of a file.

    Raises:
        InputError: an unknown model, preset or key of the file; the nearest known one is named.
    """
    file, typed = take(arguments, "--config")
    name, typed = take(typed, "--model")
    preset, typed = take(typed, "--preset")
    config = flat(resumed, "of the run") if resumed is not None else flat(read_yaml(file), file) if file else {}
    fingerprint = config.pop("fingerprint", None)
    own_model, own_preset = config.pop("model", None), config.pop("preset", None)
    name, preset = name or own_model, preset or own_preset
    if name is None:
        if preset is not None:
            raise InputError(f"--preset {preset}: --model NAME is needed with it")
        return Recipe(None, [*as_words(config), *typed])
    from graphrec.models import resolve

    model = resolve(name)
    if own_model is not None and resolve(own_model) is not model:
        # Another model's hyper-parameters say nothing about this one.
        config = {key: value for key, value in config.items() if not key.startswith("model.")}
    if config:
        _check_keys(config, model, file or "of the run")
    words = [] if preset is None else [f"--preset={preset}", *_preset_words(model, preset)]
    words += [*as_words(config), *typed]
    if "seed" in hyper_parameters(model):
        words += _model_seed(config, typed)
    return Recipe(model, words, fingerprint if take(typed, "--dataset")[0] is None else None)


def hyper_parameters(model: type[GraphRecommender]) -> list[str]:
    """Names of the keyword arguments of a model's constructor."""
    return [name for name in inspect.signature(model).parameters if name != "inputs"]


def flat(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """A config file as options by name: a run's own (``hparams``, ``dataset``, ``fit``), or one written by
    hand.

    Raises:
        InputError: a part has another form than expected, or the run's data was given in memory.
    """
    options: dict[str, Any] = {}
    for key, value in config.items():
        if key in _FINDINGS:
            continue
        if key == "model" and isinstance(value, Mapping):
            options["model"] = value.get("name")
            options.update({f"model.{name}": entry for name, entry in value.items() if name != "name"})
        elif key == "hparams":
            options.update({f"model.{name}": entry for name, entry in _mapping(value, key, file).items()})
        elif key == "fit":
            options.update(_mapping(value, key, file))
        elif key == "dataset" and isinstance(value, Mapping):
            entries = {name: entry for name, entry in value.items() if name not in _FINDINGS}
            source = entries.pop("source", None)
            if source is None:
                raise InputError(f"--config {file}: its run was trained on data given in memory; give --dataset")
            options["dataset"] = source
            options.update({"split_seed" if name == "seed" else name: entry for name, entry in entries.items()})
        elif key == "init_from" and isinstance(value, Mapping):
            options["init_from"] = value.get("source")
        else:
            options[key.replace("-", "_") if "." not in key else key] = value
    if config.get("seed") is not None:
        options["seed"] = config["seed"]
    return options


def _mapping(value: Any, key: str, file: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"--config {file}: {key}: a mapping of options to values is expected")
    return value


def _check_keys(config: Mapping[str, Any], model: type[GraphRecommender], file: str) -> None:
    from graphrec.training.options import FitOptions

    known = {*DATASET_OPTIONS, *OWN_OPTIONS, *(entry.name for entry in dataclasses.fields(FitOptions))}
    known |= {f"model.{name}" for name in hyper_parameters(model)}
    for key in config:
        if key not in known:
            raise unknown(f"option in --config {file}:", key, known)


def _preset_words(model: type[GraphRecommender], name: str) -> list[str]:
    if not model.presets:
        raise InputError(f"--preset {name}: {model.__name__} has no presets")
    if name not in model.presets:
        raise unknown(f"preset of {model.__name__}", name, model.presets)
    preset: Preset = model.presets[name]
    return as_words({**{f"model.{key}": value for key, value in preset.model.items()}, **preset.fit})


def _model_seed(config: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """``--seed`` is the model's seed too (its initial tables), where that is not given apart."""
    if take(typed, "--model.seed")[0] is not None:
        return []
    seed = take(typed, "--seed")[0]
    if seed is None and "model.seed" not in config and config.get("seed") is not None:
        seed = str(config["seed"])
    return [] if seed is None else [f"--model.seed={seed}"]
