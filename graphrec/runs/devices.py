"""Devices by name, refused where the machine has none of that name."""

from __future__ import annotations

import torch

from graphrec.errors import InputError


def known_device(name: str | torch.device, count: int = 1) -> torch.device:
    """The device of a name; ``auto`` is a GPU where there is one.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …, or a device.
        count: how many GPUs are needed, where it is one.

    Raises:
        InputError: no such kind of device, or fewer GPUs here than that.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is none; expected auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if max(count, (device.index or 0) + 1) > there:
            several = f", devices={count}" if count > 1 else ""
            raise InputError(f"device={str(name)!r}{several}: {there} GPUs are here; use device='cpu' or fewer.")
    return device
