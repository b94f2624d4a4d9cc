"""The demo: train LightGCN, put it beside the baselines, recommend, write the run folder with its report.

python experiments/demo.py                                  # the seeded world, made on the spot
python experiments/demo.py --dataset gowalla --root data    # real data
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import graphrec
from graphrec.errors import InputError
from graphrec.reports import write_report

METRICS = ("recall@20", "ndcg@20", "coverage@20", "gini@20")


def metric_table(rows: Mapping[str, Mapping[str, float]], seconds: Mapping[str, float]) -> str:
    """The metrics of each model, aligned, best recall first."""
    lines = [f"{'model':<12}" + "".join(f"{name:>14}" for name in METRICS) + f"{'seconds':>10}"]
    for name, metrics in sorted(rows.items(), key=lambda row: -row[1][METRICS[0]]):
        values = "".join(f"{metrics[metric]:>14.4f}" for metric in METRICS)
        lines.append(f"{name:<12}{values}{seconds[name]:>10.1f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="world", help="name or path (default: the seeded world)")
    parser.add_argument("--root", help="folder that holds the dataset's own folder")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="the run folder")
    parser.add_argument("--epochs", type=int, help="epochs of LightGCN (default: 60, stopping early)")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        data = graphrec.datasets.load(options.dataset, root=options.root)
        if "test" not in data.parts:
            data = data.split("random:.8,.1,.1")
        print(data.summary(), end="\n\n")
        small = data.num_users < 10_000
        model = graphrec.models.LightGCN(data, lr=5e-3 if small else 1e-3, batch_size=1024 if small else 2048)
        run = graphrec.fit(
            model, data, epochs=options.epochs or (60 if small else 10), patience=10, out=options.out, ks=(20,)
        )
        metrics: dict[str, Mapping[str, float]] = {}
        seconds: dict[str, float] = {}
        for name in ("Popularity", "ItemKNN", "EASE"):
            begun = time.perf_counter()
            baseline = graphrec.models.resolve(name)(data)
            baseline.solve()
            metrics[name] = graphrec.evaluate(baseline, data, ks=(20,))
            seconds[name] = time.perf_counter() - begun
        begun = time.perf_counter()
        metrics["LightGCN"] = graphrec.evaluate(run, data, ks=(20,))
        seconds["LightGCN"] = float(run.metrics["seconds"]) + time.perf_counter() - begun
        print(metric_table(metrics, seconds), end="\n\n")
        recommender = graphrec.Recommender.from_pretrained(options.out)
        users = recommender.users[:3]
        print(recommender.recommend(users=users, k=5).to_string(index=False), end="\n\n")
        baselines = {name: row for name, row in metrics.items() if name != "LightGCN"}
        write_report(run, data=data, baselines=baselines)
    except InputError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 2
    print(f"run folder: {options.out}    report: {options.out / 'report.html'}")
    print(f"{time.perf_counter() - started:.0f} seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
