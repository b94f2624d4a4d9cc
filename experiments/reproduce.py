"""Ours beside the published numbers: runs the rows of experiments/published and prints one table.

    python experiments/reproduce.py                     # every row that fits the stated budget
    python experiments/reproduce.py gowalla-gfcf gowalla-bspm --seeds 3
    python experiments/reproduce.py --table             # the table from the results that are there, nothing is run

Each finished row is written to experiments/results at once, so that an interrupted table goes on where it stopped;
rows that were not run say so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from run import Experiment, read_experiment, run_experiment

from graphrec.errors import InputError, unknown

HERE = Path(__file__).parent


def experiments() -> dict[str, Experiment]:
    """Every published row, by name."""
    return {path.stem: read_experiment(path) for path in sorted((HERE / "published").glob("*.yaml"))}


def table(rows: dict[str, Experiment], results: Path) -> str:
    """The rows as Markdown: ours and the published value, seeds, seconds to train and evaluate, and of all trials."""
    lines = [
        "| row | metric | published | ours | deviation | seeds | seconds | tuning | verdict |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, row in rows.items():
        file = results / f"{name}.json"
        result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        for metric, published in row.published.items():
            start = f"| {name} | {metric} | {published:.4f} |"
            if result is None:
                reason = f"not run: {row.note}" if not row.run else "not run"
                lines.append(f"{start} | | | | | {reason} |")
                continue
            ours, deviation = result["mean"][metric], result["deviation"][metric]
            seconds = result["mean"]["seconds"] + result["mean"]["evaluation_seconds"]
            verdict = "reached" if ours >= published - row.tolerance else f"short by {published - ours:.4f}"
            lines.append(
                f"{start} {ours:.4f} | {deviation:.4f} | {len(result['seeds'])} | "
                f"{seconds:.0f} | {result['tuning_seconds']:.0f} | {verdict} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="names of rows (default: all that fit the budget)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to train (default: 1)")
    parser.add_argument("--root", help="folder that holds the datasets (default: $GRAPHREC_DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--again", action="store_true", help="run rows that have a result too")
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    options = parser.parse_args(arguments)
    try:
        known = experiments()
        for name in options.rows:
            if name not in known:
                raise unknown("row", name, known)
        chosen = {name: row for name, row in known.items() if name in options.rows or not options.rows}
        options.results.mkdir(parents=True, exist_ok=True)
        for name, row in chosen.items():
            file = options.results / f"{name}.json"
            wanted = name in options.rows or row.run
            if options.table or not wanted or (file.is_file() and not options.again):
                continue
            result: dict[str, Any] = run_experiment(row, options.runs / name, options.seeds, options.root)
            result["published"] = dict(row.published)
            result["source"] = row.source
            file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            print(f"{name}: {json.dumps({key: result['mean'][key] for key in row.published})}", file=sys.stderr)
    except InputError as error:
        print(f"reproduce.py: error: {error}", file=sys.stderr)
        return 2
    text = table(chosen, options.results)
    print(text)
    if not options.rows:
        (options.results / "published.md").write_text(f"# Ours beside the published\n\n{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
