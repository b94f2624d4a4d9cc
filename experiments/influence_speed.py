"""Seconds and memory of the influence of every training edge on one score, on a large graph.

    python experiments/influence_speed.py gowalla --threads 2

LightGCN of width 64 with 3 layers from singular vectors, not trained: of what the parameters are, the cost depends on
the number of the solver's products alone, and that is reported. One linear system and one double backward give all
edges. The seconds are those of ``edge_influence``, the making of the objective included; loading the data and making
the model are stated apart, the peak of memory is that of the whole process. The machine's load before and after says
what else it did. Writes ``experiments/results/influence-speed-NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import graphrec
from graphrec.errors import InputError
from graphrec.influence import edge_influence
from graphrec.layers.benchmark import peak_rss_mb
from graphrec.models import LightGCN
from graphrec.runs.environment import environment

RESULTS = Path(__file__).parent / "results"


def measure(
    dataset: str, root: str | None, threads: int, damping: float, tolerance: float, seed: int
) -> dict[str, Any]:
    """One query on one model."""
    torch.set_num_threads(threads)
    before = os.getloadavg()
    started = time.perf_counter()
    data = graphrec.datasets.load(dataset, root=root)
    model = LightGCN(data, dim=64, num_layers=3, init="spectral", seed=seed)
    made = time.perf_counter() - started
    base = peak_rss_mb()
    user = data.vocabularies["user"].raw[seed]
    with torch.no_grad():
        scores = model.eval().score(torch.tensor([seed]))[0]
    item = data.vocabularies["item"].raw[int(scores.argmax())]
    started, cpu = time.perf_counter(), time.process_time()
    frame = edge_influence(model, data, user=user, item=item, damping=damping, tolerance=tolerance)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "users": data.num_users,
        "items": data.num_items,
        "edges": len(frame),
        "dim": 64,
        "num_layers": 3,
        "negatives_per_edge": 1,
        "seconds": wall,
        "cpu_seconds": cpu,
        "seconds_data_and_model": made,
        "peak_rss_mb": peak_rss_mb(),
        "peak_rss_mb_before": base,
        "products": frame.attrs["iterations"],
        "relative_residual": frame.attrs["relative_residual"],
        "damping": frame.attrs["damping"],
        "damping_share": damping,
        "tolerance": tolerance,
        "gradient_norm": frame.attrs["gradient_norm"],
        "dtype": "float32",
        "threads": threads,
        "seed": seed,
        "load_before": before,
        "load_after": os.getloadavg(),
        "strongest": frame.head(5).to_dict("records"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name of a dataset")
    parser.add_argument("--root", help="folder of the datasets (default: $GRAPHREC_DATA)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--damping", type=float, default=1e-3, help="share of the largest eigenvalue (default: 1e-3)")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="relative residual (default: 1e-3)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        found = measure(
            options.dataset, options.root, options.threads, options.damping, options.tolerance, options.seed
        )
    except InputError as error:
        print(f"influence_speed: {error}", file=sys.stderr)
        return 2
    result = {
        "command": " ".join(["python experiments/influence_speed.py", *(arguments or sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        **found,
    }
    path = RESULTS / f"influence-speed-{options.dataset}.json"
    path.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, default=str))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
