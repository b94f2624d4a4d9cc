"""A table of models on one dataset, every row on the same budget: resumable, one process or several at a time.

    python experiments/table.py music-ctr --seeds 5
    python experiments/table.py ml-1m-kg --seeds 3 --rows KGAT KGIN          # some rows; another process may run others
    python experiments/table.py ml-1m-kg --table                              # the table from what is there

A table is a file in experiments/tables: dataset, task, split, budget in seconds, and its rows (a model, its settings).
Each (row, seed) is trained until validation stops it or the budget is spent, and tested once. The budget counts the
processor's seconds, so that rows which share the machine with other work are not cut short for it; run them with
OMP_NUM_THREADS=1. Rows whose model reads a knowledge graph are also run on one whose tails are permuted within each
relation (``permuted``): what they lose there is what the knowledge gave them. Finished runs are folders; a process that
is killed goes on with the row that it was at.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from run import check_keys, finished, processor_seconds, read_mapping, trains, with_seconds

import graphrec
from graphrec.datasets import RecDataset
from graphrec.datasets.knowledge_controls import permuted_tails
from graphrec.errors import InputError, MissingFileError, unknown
from graphrec.models import resolve
from graphrec.runs.environment import environment

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Row:
    """One model of a table."""

    model: str
    """Class name."""
    hparams: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Its hyper-parameters, over the table's."""
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of fit, over the table's."""
    label: str = ""
    """What the row is called; default: the model."""
    permuted: bool | None = None
    """Whether it is also run with permuted tails; default: where the model needs a knowledge graph."""

    @property
    def name(self) -> str:
        """What the row is called."""
        return self.label or self.model


@dataclasses.dataclass(frozen=True)
class Table:
    """Models on one dataset."""

    name: str
    """The file's name."""
    dataset: str
    """Name of the dataset."""
    rows: Sequence[Row]
    """The models."""
    seconds: float
    """Training budget of each (row, seed) in processor seconds, evaluations on the validation part included."""
    metrics: Sequence[str]
    """What the table shows."""
    task: str = "rank"
    """``rank`` or ``ctr``."""
    split: str | None = None
    """How parts are made, by the row's seed where ``split_by_seed``; None: those of the data."""
    split_by_seed: bool = False
    """Whether every seed draws its own split."""
    hparams: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of every row whose model knows them."""
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of fit for every row."""
    load: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further options of load."""
    also: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Further evaluations on the test part: options of evaluate by a name, which their metrics have before a slash."""
    note: str = ""
    """What a reader should know."""


class ProcessorBudget(Callback):
    """Ends a training after the epoch in which it has used so many processor seconds.

    Args:
        seconds: the budget.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.spent = 0.0
        self._started = time.process_time()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for the end when the budget is spent."""
        self.spent = time.process_time() - self._started
        if self.spent >= self.seconds:
            trainer.should_stop = True


def read_table(name: str) -> Table:
    """A table from its file.

    Raises:
        MissingFileError: there is no such table.
        InputError: an unknown key or model.
    """
    path = HERE / "tables" / f"{name}.yaml"
    if not path.is_file():
        raise MissingFileError(f"{path}: no such table; there are {', '.join(table_names())}.")
    content = read_mapping(path, Table)
    rows = []
    for row in content.pop("rows"):
        row = {"model": row} if isinstance(row, str) else row
        check_keys(row, Row, path)
        resolve(row["model"])
        rows.append(Row(**row))
    return Table(name=name, rows=rows, **content)


def table_names() -> list[str]:
    """The tables that are there."""
    return sorted(path.stem for path in (HERE / "tables").glob("*.yaml"))


def load(table: Table, seed: int, root: str | None) -> RecDataset:
    """The table's dataset, split for one seed."""
    options = dict(table.load)
    if table.split is not None:
        options.update(split=table.split, seed=seed if table.split_by_seed else 0)
    return graphrec.datasets.load(table.dataset, root=root, **options)


def run_row(table: Table, row: Row, permuted: bool, seed: int, data: RecDataset, folder: Path) -> dict[str, Any]:
    """Train and test one row on one seed; a finished run is read."""
    out = folder / f"{row.name}{'-permuted' if permuted else ''}-{seed}"
    run = finished(out)
    if run is None:
        model_class = resolve(row.model)
        names = inspect.signature(model_class.__init__).parameters
        hparams = {key: value for key, value in table.hparams.items() if key in names} | dict(row.hparams)
        if "seed" in names:
            hparams["seed"] = seed
        fit = {**table.fit, **row.fit, "task": table.task}
        if not trains(row.model):
            fit.pop("patience", None)
        if permuted:
            data = permuted_tails(data, seed=seed)
        model = model_class(data, **hparams)
        budget = ProcessorBudget(table.seconds)
        # Not resumed: the budget's clock starts with the training.
        run = graphrec.fit(model, data, out=out, seed=seed, report=False, callbacks=[budget], **fit)
        run = with_seconds(run, budget.spent)
    metrics = dict(run.metrics)
    for name, options in table.also.items():
        metrics |= {f"{name}/{key}": value for key, value in graphrec.evaluate(run.model(), data, **options).items()}
    kept = {name: metrics[name] for name in table.metrics if name in metrics}
    part = run.config.get("selected_on")
    validation = {
        key: value for key, value in metrics.items() if part and key == f"{part}/{run.config['fit']['metric']}"
    }
    return {
        **kept,
        **validation,
        "seconds": processor_seconds(run),
        "epochs": metrics["epochs"],
        "best_epoch": metrics.get("best_epoch"),
        "objective": metrics.get("objective") or run.model().objective or "closed form",
    }


def stars(table: Table, folder: Path, reference: str, seeds: Sequence[int]) -> dict[str, float]:
    """Wilcoxon p-values over users of each row against a reference row on the first seed, Holm-corrected."""
    runs = {row.name: folder / f"{row.name}-{seeds[0]}" for row in table.rows}
    there = [name for name, path in runs.items() if (path / "metrics.json").is_file() and name != reference]
    if reference not in runs or not (runs[reference] / "metrics.json").is_file() or not there:
        return {}
    compared = {name: graphrec.Run.open(runs[name]) for name in (reference, *there)}
    metric = "auc_user" if table.task == "ctr" else table.metrics[0]
    frame = graphrec.compare(compared, reference, metrics=(metric,)).frame
    return dict(zip(frame["model"], frame["wilcoxon_holm"].astype(float), strict=True))


def markdown(table: Table, results: Mapping[str, Any], reference: str | None) -> str:
    """The rows as Markdown; rows that were not run say so."""
    shown = list(table.metrics)
    lines = [
        f"# {table.name}",
        "",
        f"{table.dataset}, task {table.task}, split {table.split or 'of the data'}; at most {table.seconds:g} "
        f"processor seconds of training for each row and seed, validation included. {table.note}".strip(),
        "",
        "| row | " + " | ".join(shown) + " | epochs | seconds | seeds | trained by |",
        "|---|" + "---:|" * len(shown) + "---:|---:|---:|---|",
    ]
    for row in table.rows:
        for permuted in (False, True):
            if permuted and not wants_permuted(row):
                continue
            name = row.name + (" (permuted)" if permuted else "")
            found = list(results["rows"].get(name, {}).values())
            if not found:
                lines.append(f"| {name} | " + " | ".join("" for _ in shown) + " | | | | not run |")
                continue
            cells = [_cell([entry[metric] for entry in found if entry.get(metric) is not None]) for metric in shown]
            p = results.get("p", {}).get(name)
            mark = "" if p is None else (" **" if p < 0.01 else " *" if p < 0.05 else "")
            middle = [statistics.fmean(entry[key] for entry in found) for key in ("epochs", "seconds")]
            lines.append(
                f"| {name}{mark} | " + " | ".join(cells) + f" | {middle[0]:.0f} | {middle[1]:.0f} | {len(found)} | "
                f"{found[0]['objective']} |"
            )
    if reference:
        lines += ["", f"* and **: differs from {reference} over users (first seed, Wilcoxon, Holm) at .05 and .01."]
    if results.get("remark"):
        lines += ["", str(results["remark"])]
    runtime = results.get("environment", {})
    lines += [
        "",
        f"{results.get('date', '')}, {runtime.get('processor', '')}, {results.get('command', '')}",
    ]
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def wants_permuted(row: Row) -> bool:
    """Whether a row is also run with permuted tails."""
    return resolve(row.model).needs.kg if row.permuted is None else row.permuted


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help=f"one of {', '.join(table_names())}")
    parser.add_argument("--rows", nargs="+", help="rows to run (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default: 1)")
    parser.add_argument("--permuted", choices=("also", "no", "only"), default="also", help="rows with permuted tails")
    parser.add_argument("--reference", help="row that the others are tested against")
    parser.add_argument("--root", help="folder that holds the datasets (default: $GRAPHREC_DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/tables"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--table", action="store_true", help="write the table from the results, run nothing")
    options = parser.parse_args(arguments)
    try:
        table = read_table(options.name)
        for name in options.rows or ():
            if name not in {row.name for row in table.rows}:
                raise unknown("row", name, [row.name for row in table.rows])
        folder = options.runs / table.name
        for seed in range(0 if options.table else options.seeds):
            data = load(table, seed, options.root)
            for row in table.rows:
                for permuted in (False, True):
                    if options.rows and row.name not in options.rows:
                        continue
                    if permuted and (options.permuted == "no" or not wants_permuted(row)):
                        continue
                    if not permuted and options.permuted == "only":
                        continue
                    found = run_row(table, row, permuted, seed, data, folder)
                    _store(options.results, table, row.name + (" (permuted)" if permuted else ""), seed, found, options)
        results = _results(options.results, table)
        if options.reference:
            results["p"] = stars(table, folder, options.reference, range(options.seeds))
    except InputError as error:
        print(f"table.py: error: {error}", file=sys.stderr)
        return 2
    text = markdown(table, results, options.reference)
    print(text)
    (options.results / f"table-{table.name}.md").write_text(text + "\n", encoding="utf-8")
    return 0


def _results(folder: Path, table: Table) -> dict[str, Any]:
    file = folder / f"table-{table.name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {"rows": {}}


def _store(folder: Path, table: Table, name: str, seed: int, found: Mapping[str, Any], options: Any) -> None:
    """Add one result to the file, read anew: another process may have added rows of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    results = _results(folder, table)
    results["rows"].setdefault(name, {})[str(seed)] = dict(found)
    results.update(
        dataset=table.dataset,
        task=table.task,
        split=table.split,
        seconds=table.seconds,
        date=time.strftime("%Y-%m-%d"),
        environment=environment(),
        command=f"OMP_NUM_THREADS=1 python experiments/table.py {table.name} --seeds {options.seeds}",
    )
    file = folder / f"table-{table.name}.json"
    fresh = file.with_suffix(".json.new")
    fresh.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    fresh.replace(file)
    print(f"{name}, seed {seed}: {json.dumps(dict(found))}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
