"""Methods of forgetting beside each other, on one model, one request, and the same retrained references.

    python experiments/unlearning.py ml-100k-lightgcn --seeds 5
    python experiments/unlearning.py ml-100k-lightgcn --rows gif finetune   # some rows; another process may run others
    python experiments/unlearning.py ml-100k-lightgcn --table               # the table from what is there

A setting is a file in experiments/unlearning: dataset, model, request, rows (a method, its options). The request is a
file of the dataset's folder, or ``inject``: the adversarial edges of UnlearnRec's protocol, which the model was trained
with and has to forget. The model and the references (retrained without the data, one seed each) are runs; each row is
written as soon as it is measured, so that a process that is killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from run import check_keys, finished, processor_seconds, read_mapping, with_seconds

import graphrec
from graphrec.datasets import RecDataset
from graphrec.datasets.load import locate
from graphrec.errors import InputError, MissingFileError, unknown
from graphrec.models import resolve as resolve_model
from graphrec.models.base import GraphRecommender
from graphrec.runs.environment import environment
from graphrec.runs.manifest import write_contents
from graphrec.unlearning import METHODS, ForgetRequest, Resolved, evaluate_unlearning, remaining, resolve
from graphrec.unlearning.evidence import Report, Seconds
from graphrec.unlearning.forget import method_of
from graphrec.unlearning.injection import inject_adversarial
from graphrec.unlearning.methods.base import Task

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Row:
    """One method of a table."""

    method: str
    """Its name."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Its options."""
    label: str = ""
    """What the row is called; default: the method."""

    @property
    def name(self) -> str:
        """What the row is called."""
        return self.label or self.method


@dataclasses.dataclass(frozen=True)
class Setting:
    """A model, a request, and the methods that are to meet it."""

    name: str
    """The file's name."""
    dataset: str
    """Name of the dataset."""
    model: str
    """Class of the model."""
    rows: Sequence[Row]
    """The methods."""
    request: str | None = None
    """A request file below the dataset's folder; None where edges are injected."""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Columns of the request file."""
    inject: float | None = None
    """Share of users and of items that adversarial edges are injected for."""
    split: str | None = None
    """How a validation part is made; None: the parts of the data."""
    hparams: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of the model."""
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of fit, for the model and every reference."""
    note: str = ""
    """What a reader should know."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """What every row of a setting shares."""

    data: RecDataset
    left: RecDataset
    resolved: Resolved
    before: graphrec.Run
    retrained: Sequence[graphrec.Run]
    injected: bool


def settings() -> list[str]:
    """The settings that are there."""
    return sorted(path.stem for path in (HERE / "unlearning").glob("*.yaml"))


def read_setting(name: str) -> Setting:
    """A setting from its file.

    Raises:
        MissingFileError: there is no such setting.
        InputError: an unknown key, method or model, or neither or both of a request file and injected edges.
    """
    path = HERE / "unlearning" / f"{name}.yaml"
    if not path.is_file():
        raise MissingFileError(f"{path}: no such setting; there are {', '.join(settings())}.")
    content = read_mapping(path, Setting)
    rows = []
    for row in content.pop("rows"):
        row = {"method": row} if isinstance(row, str) else row
        check_keys(row, Row, path)
        rows.append(Row(**row))
        method_of(rows[-1].method, rows[-1].options)
    made = Setting(name=name, rows=rows, **content)
    resolve_model(made.model)
    if (made.request is None) == (made.inject is None):
        raise InputError(f"{path}: one of request and inject is expected.")
    return made


def train(setting: Setting, data: RecDataset, seed: int, out: Path) -> graphrec.Run:
    """The setting's model on some data, one seed; a finished run is read."""
    done = finished(out)
    if done is not None:
        return done
    started = time.process_time()
    model = resolve_model(setting.model)(data, **{**setting.hparams, "seed": seed})
    run = graphrec.fit(model, data, out=out, seed=seed, report=False, **setting.fit)
    return with_seconds(run, time.process_time() - started)


def scene(setting: Setting, seeds: int, folder: Path, root: str | None) -> Scene:
    """Data, request, the model that knows all of it, and the references that never did."""
    data = graphrec.datasets.load(setting.dataset, root=root, split=setting.split)
    if setting.inject is not None:
        clean = train(setting, data, 0, folder / "clean")
        made = inject_adversarial(clean.model(), data, users=setting.inject, items=setting.inject)
        data, request = made.data, ForgetRequest(edges={"__".join(data.target): tuple(made.edge_id.tolist())})
    else:
        assert setting.request is not None
        request = ForgetRequest.from_file(_source(setting, root) / setting.request, setting.columns or None)
    resolved = resolve(request, data)
    left = remaining(data, resolved)
    before = train(setting, data, 0, folder / "before")
    retrained = [train(setting, left, seed, folder / f"retrained-{seed}") for seed in range(seeds)]
    return Scene(data, left, resolved, before, retrained, setting.inject is not None)


def _source(setting: Setting, root: str | None) -> Path:
    return locate(setting.dataset, root).path


def run_row(setting: Setting, row: Row, scene: Scene) -> dict[str, Any]:
    """Prepare where the method needs it, forget, and measure."""
    method = method_of(row.method, row.options)
    model: GraphRecommender = scene.before.model()
    why = method.refuses(model)
    if why is not None:
        return {"refused": why}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        state, prepared = None, 0.0
        if method.needs_state:
            started = time.process_time()
            (work / "prepare").mkdir()
            made = method.prepare(model, scene.data, seed=0, fit=dict(setting.fit), folder=work / "prepare")
            prepared, state, model = time.process_time() - started, work / "state", made.model
            state.mkdir()
            write_contents(state, made.files)
        task = Task(
            model, scene.data, scene.left, scene.resolved, seed=0, fit={**scene.before.config["fit"]}, state=state
        )
        started, began = time.process_time(), time.perf_counter()
        outcome = method.unlearn(task)
        spent = time.process_time() - started
        # What a method does for the requests that may follow is no part of this one.
        upkeep = spent * outcome.seconds.get("validation", 0.0) / (time.perf_counter() - began)
        seconds = spent - upkeep
    again = statistics.fmean(map(processor_seconds, scene.retrained))
    report = evaluate_unlearning(
        model if method.needs_state else scene.before,
        outcome.model,
        list(scene.retrained),
        scene.data,
        scene.resolved,
        seconds=Seconds(unlearn=seconds, retrain=again, prepare=prepared),
        injected=scene.injected,
        shadow=False,
    )
    times = {"seconds": seconds, "prepare_seconds": prepared, "upkeep_seconds": upkeep}
    return {**figures(report), **times, "exactness": outcome.exactness} | {
        f"facts/{name}": value for name, value in outcome.facts.items()
    }


def figures(report: Report) -> dict[str, Any]:
    """What the table shows, of the unlearned model and of the retrained ones."""
    out: dict[str, Any] = {}
    for row in ("before", "unlearned", "retrained"):
        for name in ("recall@20", "ndcg@20"):
            out[f"{row}/{name}"] = report.value("utility", name, row)
        for name in ("score_f", "score_n", "f_auc", "rank_f"):
            out[f"{row}/{name}"] = report.value("scores", name, row)
        out[f"{row}/overlap@20"] = report.value("lists", "overlap@20", row)
    out["score_gap_sd"] = report.value("scores", "score_gap_sd", "unlearned")
    out["spearman"] = report.value("distance", "spearman", "unlearned")
    for attack in report.attacks:
        out[f"attack/{attack.name}/before"] = attack.auc_before
        out[f"attack/{attack.name}/leak"] = attack.leak
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in out.items()}


COLUMNS = (
    ("Recall@20", "unlearned/recall@20", "{:.4f}"),
    ("of retrained", "ratio", "{:.3f}"),
    ("score gap (sd)", "score_gap_sd", "{:+.2f}"),
    ("leak, threshold", "attack/threshold/leak", "{:+.3f}"),
    ("leak, two-sided", "attack/two_sided/leak", "{:+.3f}"),
    ("overlap@20", "unlearned/overlap@20", "{:.3f}"),
    ("seconds", "seconds", "{:.1f}"),
    ("prepared", "prepare_seconds", "{:.0f}"),
    ("upkeep", "upkeep_seconds", "{:.1f}"),
)


def markdown(setting: Setting, results: Mapping[str, Any]) -> str:
    """The rows as Markdown; rows that were not run say so, and which of the targets each row meets."""
    about = results.get("about", {})
    lines = [f"# Forgetting: {setting.name}", ""]
    if about:
        lines += [
            f"{setting.model} on {setting.dataset}; {about['edges']:,} edges to forget, {about['share']:.1%} of the "
            f"training edges. Before: Recall@20 {about['before']:.4f}. Retrained, {about['seeds']} seeds: "
            f"{about['retrained']:.4f} ± {about['retrained_sd']:.4f}, {about['retrain_seconds']:.0f} s each, "
            f"overlap@20 between two of them {about['overlap']:.3f}. {setting.note}".strip(),
            "",
        ]
    lines += ["| method | " + " | ".join(title for title, _, _ in COLUMNS) + " | meets | exactness |"]
    lines += ["|---|" + "---:|" * len(COLUMNS) + "---|---|"]
    for row in setting.rows:
        found = results.get("rows", {}).get(row.name)
        if found is None or "refused" in found:
            said = "not run" if found is None else f"refused: {found['refused']}"
            lines.append(f"| {row.name} |" + " |" * len(COLUMNS) + f" | {said} |")
            continue
        shown = {**found, "ratio": found["unlearned/recall@20"] / found["retrained/recall@20"]}
        cells = ["" if shown.get(key) is None else form.format(shown[key]) for _, key, form in COLUMNS]
        lines.append(f"| {row.name} | " + " | ".join(cells) + f" | {met(shown, about)} | {found['exactness']} |")
    runtime = results.get("environment", {})
    lines += [
        "",
        "Score gap: mean score of the forgotten edges minus that of retrained models, in standard deviations of "
        "retrained scores of random pairs. Leak: AUC of a membership attack minus that on retrained models. Seconds: "
        "of the processor, one thread, since the request. Upkeep: seconds after it, in which a prepared encoder is "
        "checked for the next request. Meets: r Recall@20 at least .97 of retrained, g gap within "
        ".5, m leak of the threshold attack within .03, t at least ten times faster than retraining.",
        "",
        f"{results.get('date', '')}, {runtime.get('processor', '')}, {results.get('command', '')}",
    ]
    return "\n".join(lines)


def met(row: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The letters of the targets that a row meets."""
    gap, leak = row.get("score_gap_sd"), row.get("attack/threshold/leak")
    letters = {
        "r": row["ratio"] >= 0.97,
        "g": gap is not None and abs(gap) <= 0.5,
        "m": leak is not None and abs(leak) <= 0.03,
        "t": row["seconds"] * 10 <= about["retrain_seconds"],
    }
    return " ".join(letter for letter, reached in letters.items() if reached)


def store(path: Path, change: Mapping[str, Any], row: str | None = None) -> dict[str, Any]:
    """Add to a file of results, and give back all of it."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    if row is None:
        results |= change
    else:
        results["rows"][row] = dict(change)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help=f"one of {', '.join(settings())}")
    parser.add_argument("--rows", nargs="+", help="rows to run (default: all that are not there yet)")
    parser.add_argument("--seeds", type=int, default=3, help="how many retrained references (default: 3)")
    parser.add_argument("--root", help="folder that holds the datasets (default: $GRAPHREC_DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/unlearning"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--table", action="store_true", help="write the table from the results, run nothing")
    options = parser.parse_args(arguments)
    file = options.results / f"unlearning-{options.name}.json"
    try:
        setting = read_setting(options.name)
        for name in options.rows or ():
            if name not in {row.name for row in setting.rows}:
                raise unknown("row", name, [row.name for row in setting.rows])
        results = json.loads(file.read_text()) if file.is_file() else {"rows": {}}
        if not options.table:
            stage = scene(setting, options.seeds, options.runs / setting.name, options.root)
            results = store(file, facts(setting, stage))
            for row in setting.rows:
                if row.name not in options.rows if options.rows else row.name in results["rows"]:
                    continue
                found = run_row(setting, row, stage)
                results = store(file, found, row.name)
                print(f"{row.name}: {json.dumps(found)}", flush=True)
    except InputError as error:
        print(f"unlearning.py: error: {error}", file=sys.stderr)
        return 2
    text = markdown(setting, results)
    print(text)
    file.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    return 0


def facts(setting: Setting, stage: Scene) -> dict[str, Any]:
    """What the table says above its rows, and how it was made."""
    report = evaluate_unlearning(
        stage.before, None, list(stage.retrained), stage.data, stage.resolved, shadow=False, masked=False
    )
    recall = [report.value("utility", "recall@20", row) for row in ("before", "retrained")]
    own = [run.metrics["recall@20"] for run in stage.retrained]
    gone = len(stage.resolved.training(stage.data)[stage.data.target])
    return {
        "about": {
            "edges": gone,
            "share": gone / len(stage.data.interactions("train")),
            "before": recall[0],
            "retrained": recall[1],
            "retrained_sd": statistics.stdev(own) if len(own) > 1 else 0.0,
            "retrain_seconds": statistics.fmean(map(processor_seconds, stage.retrained)),
            "train_seconds": processor_seconds(stage.before),
            "overlap": report.value("lists", "overlap@20", "retrained"),
            "seeds": len(own),
        },
        "methods": sorted(METHODS),
        "environment": environment(),
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python experiments/unlearning.py {setting.name} --seeds {len(own)}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
