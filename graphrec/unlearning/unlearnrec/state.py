"""The encoder as files of a run, and what of it may stay when people leave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from graphrec.errors import InputError
from graphrec.unlearning.unlearnrec.encoder import InfluenceEncoder

TENSORS, SETTINGS = "unlearnrec.safetensors", "unlearnrec.json"
FORMAT = 1

HOLDS: Mapping[str, tuple[str, ...]] = {
    TENSORS: ("parameters", "aggregates"),
    SETTINGS: ("aggregates",),
}
"""H⁰ and η have a row for each user and item, learned from the edges themselves: whoever deletes an edge must delete
what the encoder learned of it too."""


def written(encoder: InfluenceEncoder, facts: Mapping[str, Any]) -> dict[str, bytes]:
    """The encoder's files by name; ``facts`` go beside its settings (fingerprint, checks).

    W and b are left out: they are learned for one request, and start anew for the next.
    """
    tensors = {"shift": encoder.shift.detach().cpu().contiguous(), "rates": encoder.rates.detach().cpu().contiguous()}
    settings = {
        "format": FORMAT,
        "encoder": {
            "num_users": encoder.num_users,
            "num_items": len(encoder.shift) - encoder.num_users,
            "dim": encoder.shift.shape[1],
            "num_layers": encoder.num_layers,
            "transforms": len(encoder.weights),
            "slope": encoder.slope,
            "withdrawal": encoder.withdrawal,
        },
        **facts,
    }
    return {TENSORS: save(tensors), SETTINGS: (json.dumps(settings, indent=2) + "\n").encode()}


def read(folder: Path) -> tuple[InfluenceEncoder, dict[str, Any]]:
    """The encoder of a folder, and the facts that were written with it.

    Raises:
        InputError: a file is missing, of another format, or its tensors are of other sizes than its settings say.
    """
    for name in (TENSORS, SETTINGS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}: the influence encoder was not prepared for this run.")
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if settings.pop("format", None) != FORMAT:
        raise InputError(f"{folder / SETTINGS} is not of format {FORMAT}; prepare the run again.")
    encoder = InfluenceEncoder(**settings.pop("encoder"))
    tensors = load((folder / TENSORS).read_bytes())
    for name, own in (("shift", encoder.shift), ("rates", encoder.rates)):
        given = tensors.get(name)
        if given is None or given.shape != own.shape:
            shape = "nothing" if given is None else tuple(given.shape)
            raise InputError(f"{folder / TENSORS}: {name} must be {tuple(own.shape)}, found {shape}.")
        with torch.no_grad():
            own.copy_(given)
    return encoder, settings


def named(files: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What each of some files holds, as a manifest says it."""
    return {name: HOLDS[name] for name in files}
