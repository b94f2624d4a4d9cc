"""What ``fit`` is told, checked against the data and the machine before anything is trained or written."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.models.base import GraphRecommender
from graphrec.runs.devices import known_device
from graphrec.training.options import FitOptions


def training_device(options: FitOptions) -> torch.device:
    """The device that is asked for."""
    device = known_device(options.device, options.devices)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def has_part(data: RecDataset, part: str) -> bool:
    """Whether a part has any positive."""
    return part in data.parts and len(data.interactions(part)) > 0


def selection_part(options: FitOptions, data: RecDataset) -> str | None:
    """The part that picks the best epoch; None: the last epoch is taken."""
    part = options.select_on
    if part == "auto":
        part = "valid" if has_part(data, "valid") else None
        if part is None and options.patience is not None:
            raise InputError(
                f"patience needs a part to select on, and {data.name!r} has no valid part; make one with a split, or "
                "pass select_on='test' as some papers did."
            )
    if part is not None and not has_part(data, part):
        raise InputError(f"select_on={part!r}: {data.name!r} has parts {', '.join(data.parts)}.")
    return part


def check_metric(options: FitOptions, part: str | None) -> None:
    """Raise where the selection metric is unknown, or larger values of it are not better."""
    if part is None:
        return
    if options.task == "ctr":
        from graphrec.evaluation import CLICK_METRICS

        if options.metric not in CLICK_METRICS:
            raise unknown("metric of task 'ctr'", options.metric, CLICK_METRICS)
        better: bool | None = CLICK_METRICS[options.metric]
    else:
        better = _ranking_metric(options)
    if not better:
        raise InputError(f"metric {options.metric!r} cannot pick the best epoch: larger values of it are not better.")


def _ranking_metric(options: FitOptions) -> bool | None:
    """Whether larger values of the selection metric are better."""
    from graphrec.evaluation.specs import resolve

    name, _, k = options.metric.partition("@")
    (spec,) = resolve(name)
    if spec.higher_is_better and spec.key(1).endswith("@1") != bool(k):
        wanted = f"{name}@20" if not k else name
        raise InputError(f"metric {options.metric!r} must be written {wanted!r}.")
    return spec.higher_is_better


def check_task(options: FitOptions, model: GraphRecommender, data: RecDataset, parts: Iterable[str]) -> None:
    """Raise where the model is not for the task, or the data has not what it is measured on.

    Args:
        options: of the training.
        model: to be trained.
        data: to train on.
        parts: those that will be evaluated.
    """
    if options.task not in model.tasks:
        raise unknown(f"task of {type(model).__name__}", options.task, model.tasks)
    if options.task == "rank":
        check_lists(options, data, parts)
        return
    from graphrec.evaluation.click import labelled_part

    # Where nothing will be evaluated the training pairs still have to be labelled.
    for part in list(parts) or ["train"]:
        labelled_part(data, part)
    if options.scaling == "platt" and "test" in parts:
        labelled_part(data, "valid")


def check_lists(options: FitOptions, data: RecDataset, parts: Iterable[str]) -> None:
    """Raise where a list that would be evaluated is longer than the catalogue."""
    if not list(parts):
        return
    longest = max(options.evaluated_ks)
    if longest > data.num_items:
        name = "ks" if longest in options.ks else "metric"
        raise InputError(
            f"{name}: {longest} is larger than the catalogue of {data.num_items} items; choose shorter lists, as in "
            + (f"ks={half_the_catalogue(data)}." if name == "ks" else f"metric='auto' or '{_shorter(options, data)}'.")
        )


def half_the_catalogue(data: RecDataset) -> int:
    """A length of lists for a catalogue of fewer than 20 items: a list of all items would find everything."""
    return max(1, data.num_items // 2)


def _shorter(options: FitOptions, data: RecDataset) -> str:
    return f"{options.metric.partition('@')[0]}@{half_the_catalogue(data)}"
