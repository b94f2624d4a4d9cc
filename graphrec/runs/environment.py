"""What a run was made with: versions, machine, threads. No names of folders, users or hosts."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from typing import Any

import torch

_PACKAGES = (
    "graphrec",
    "torch",
    "torch-geometric",
    "lightning",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "safetensors",
)


def environment() -> dict[str, Any]:
    """Versions, processor, memory, threads and accelerators as JSON values."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": {"python": platform.python_version(), **versions},
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()
    return platform.processor()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def peak_memory(device: torch.device | str = "cpu") -> int:
    """The largest memory the process has held so far, in bytes: on a GPU of tensors there, else resident."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
