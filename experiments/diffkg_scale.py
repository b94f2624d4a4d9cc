"""How long DiffKG takes and what memory it needs, where its dense form needs hundreds of gigabytes.

    python experiments/diffkg_scale.py [epoch items items-half all all-half] [--threads 2] [--out FILE.json]

``epoch``   a whole epoch on ml-1m-kg, phase by phase.
``items``   amazon-beauty-kg, rows of items: a few steps of each phase, the epoch extrapolated from them.
``all``     amazon-beauty-kg, rows of all nodes, at most 256 at a time: the same, and the peak of memory.
``-half``   behind either of these: wide layers in bfloat16.

Each part runs in a process of its own, so that its peak of resident memory is its own. CPU seconds stand beside the
clock's: on a machine that others use too, they are what the part took.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import graphrec
from graphrec import randomness
from graphrec.layers.reconstruction import Reconstruction, strongest
from graphrec.models import DiffKG
from graphrec.models.base import Batch, Phase
from graphrec.runs.environment import environment


class Clock:
    """Seconds of the clock and of the CPU since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Both, in seconds."""
        return {"seconds": time.perf_counter() - self.wall, "cpu_seconds": time.process_time() - self.cpu}


def times(taken: dict[str, float], factor: float) -> dict[str, float]:
    """Seconds multiplied."""
    return {name: value * factor for name, value in taken.items()}


def total(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Seconds added up."""
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def rounded(taken: dict[str, float]) -> dict[str, float]:
    """Seconds to be read."""
    return {name: float(f"{value:.4g}") for name, value in taken.items()}


def steps(model: DiffKG, phase: Phase, limit: int | None, skip: int = 0) -> tuple[dict[str, float], int]:
    """Train with a phase's batches, ``limit`` of them after ``skip`` that are not counted; seconds and steps."""
    assert phase.optimiser is not None
    optimiser = phase.optimiser(phase.parameters)
    stream = randomness.generator(0, phase.name)
    batches: Iterator[Batch] = iter(phase.batches(0, stream))
    for batch in islice(batches, skip):
        step(phase, optimiser, batch)
    clock, count = Clock(), 0
    for batch in islice(batches, limit):
        step(phase, optimiser, batch)
        count += 1
    return clock.read(), count


def step(phase: Phase, optimiser: torch.optim.Optimizer, batch: Batch) -> None:
    """One step of an optimiser."""
    torch.stack(list(phase.loss(batch).values())).sum().backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def epoch(root: str | None) -> dict[str, Any]:
    """A whole epoch on ml-1m-kg."""
    data = graphrec.datasets.load("ml-1m-kg", root=root)
    model = DiffKG(data).train()
    found: dict[str, Any] = {"dataset": "ml-1m-kg", "nodes": model.knowledge.num_nodes, "edges": len(model.knowledge)}
    parts = {}
    for phase in model.phases():
        if phase.parameters:
            parts[phase.name], found[f"{phase.name}_steps"] = steps(model, phase, None)
        else:
            clock = Clock()
            for batch in phase.batches(0, randomness.generator(0, phase.name)):
                phase.loss(batch)
            parts[phase.name] = clock.read()
    found |= {name: rounded(taken) for name, taken in parts.items()}
    return found | {"epoch": rounded(total(list(parts.values()))), "extrapolated": False}


def amazon(root: str | None, rows: str, precision: str, row_batch_size: int, count: int) -> dict[str, Any]:
    """A few steps of each phase on amazon-beauty-kg, and what an epoch of them takes."""
    data = graphrec.datasets.load("amazon-beauty-kg", root=root)
    options: dict[str, Any] = {"rows": rows, "precision": precision, "row_batch_size": row_batch_size}
    model = DiffKG(data, **options).train()
    denoiser = model.denoiser
    assert denoiser is not None
    phases = {phase.name: phase for phase in model.phases()}
    every = len(model.diffused_rows())
    parts, measured = {}, {}
    taken, measured["pairs"] = steps(model, phases["pairs"], 6, skip=2)
    pairs = -(-len(data.pairs("train").items) // model.batch_size)
    parts["pairs"] = times(taken, pairs / measured["pairs"])
    after_pairs = peak()
    taken, measured["diffusion"] = steps(model, phases["diffusion"], count, skip=1)
    parts["diffusion"] = times(taken, -(-every // row_batch_size) / measured["diffusion"])
    degrees = model.knowledge.adjacency.degrees()[:every]
    known = torch.nonzero(degrees)[:, 0]
    clock = Clock()
    Reconstruction(denoiser, model.schedule)
    fixed = clock.read()
    clock = Clock()
    strongest(denoiser, model.schedule, model.knowledge.adjacency, rows=known[:row_batch_size], block=row_batch_size)
    block = {name: value - fixed[name] for name, value in clock.read().items()}
    parts["rebuild"] = total([fixed, times(block, len(known) / min(row_batch_size, len(known)))])
    return {
        "dataset": "amazon-beauty-kg",
        "rows": rows,
        "precision": precision,
        "row_batch_size": row_batch_size,
        "nodes": model.knowledge.num_nodes,
        "edges": len(model.knowledge),
        "rows_diffused": every,
        "rows_rebuilt": len(known),
        "denoiser_parameters": sum(parameter.numel() for parameter in denoiser.parameters()),
        "steps_measured": measured,
        "peak_gb_before_diffusion": round(after_pairs, 2),
        **{name: rounded(taken) for name, taken in parts.items()},
        "epoch": rounded(total(list(parts.values()))),
        "extrapolated": True,
    }


def peak() -> float:
    """Largest resident memory so far, GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def part(name: str, root: str | None) -> dict[str, Any]:
    """One part, in this process."""
    if name == "epoch":
        found = epoch(root)
    elif name.startswith("items"):
        found = amazon(root, "items", "bfloat16" if name.endswith("half") else "float32", 1024, 2)
    else:
        found = amazon(root, "all", "bfloat16" if name.endswith("half") else "float32", 256, 3)
    return found | {"peak_gb": round(peak(), 2)}


PARTS = ("epoch", "items", "items-half", "all", "all-half")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; none: all of them")
    parser.add_argument("--root", help="folder that holds the datasets (default: $GRAPHREC_DATA)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument("--out", type=Path, help="file for the result (default: standard output)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"{name!r} is no part; there are {', '.join(PARTS)}.")
    if options.here:
        torch.set_num_threads(options.threads)
        print(json.dumps(part(options.parts[0], options.root)))
        return 0
    result: dict[str, Any] = {"threads": options.threads, "environment": environment(), "parts": {}}
    for name in options.parts or PARTS:
        command = [sys.executable, __file__, name, "--here", "--threads", str(options.threads)]
        command += ["--root", options.root] if options.root else []
        own = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        load = os.getloadavg()[0]
        done = subprocess.run(command, capture_output=True, text=True, env=own)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1
        result["parts"][name] = json.loads(done.stdout.splitlines()[-1]) | {"load_before": round(load, 1)}
        print(f"{name}: {result['parts'][name]}", file=sys.stderr, flush=True)
    command = ["python experiments/diffkg_scale.py", *options.parts, f"--threads {options.threads}"]
    text = json.dumps({"command": " ".join(command), "date": time.strftime("%Y-%m-%d")} | result, indent=2)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
