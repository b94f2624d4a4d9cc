"""From a run to the parts of its report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation import CLICK_METRICS, ClickEvaluation, Evaluation, evaluate, evaluate_clicks, intervals
from graphrec.evaluation.comparison import KEYS
from graphrec.reports.explanations_file import read_explanations
from graphrec.reports.parts import (
    ClickCurves,
    EdgeCount,
    Entry,
    Example,
    GraphStatistics,
    ReportParts,
    popularity_bias,
)
from graphrec.reports.svg import number
from graphrec.runs import Run
from graphrec.runs.portable import portable_config

# How often users are drawn anew for an interval: its ends are good to about a fiftieth of its width.
_RESAMPLES = 1000


def graph_statistics(data: RecDataset, part: str = "train") -> GraphStatistics:
    """Nodes and edges by type, and the degrees of the ranked behaviour, of one part's graph."""
    graph = data.graph(part=part)
    order = sorted(graph.edge_types, key=lambda edge_type: edge_type != data.target)
    edges = []
    for source, name, target in order:
        pairs = int(graph[source].num_nodes) * int(graph[target].num_nodes)
        size = int(graph[source, name, target].edge_index.shape[1])
        edges.append(EdgeCount(source, name, target, size, size / pairs if pairs else 0.0))
    users, items = graph[data.target].edge_index
    degrees = {
        f"{data.target[0]}s": torch.bincount(users, minlength=data.num_users).numpy(),
        f"{data.target[2]}s": torch.bincount(items, minlength=data.num_items).numpy(),
    }
    return GraphStatistics(dict(data.num_nodes), edges, degrees)


def _label(data: RecDataset, node_type: str, code: int) -> str:
    raw = str(data.vocabularies[node_type].raw[code])
    name = data.names[node_type][code] if node_type in data.names else None
    return (
        f"{name} ({node_type} {raw})" if node_type == "user" and name else str(name) if name else f"{node_type} {raw}"
    )


def examples_of(data: RecDataset, evaluation: Evaluation, count: int = 4, k: int = 8, shown: int = 8) -> list[Example]:
    """Some users' histories beside their lists: spread over the quality of the lists, so that failures show too.

    Args:
        data: gives names and histories.
        evaluation: gives lists.
        count: of users.
        k: length of the lists.
        shown: items of the history to show, the latest where times are known.
    """
    users = evaluation.protocol.users.cpu().numpy()
    if not len(users) or count < 1:
        return []
    hits = evaluation.hits.cpu().numpy()
    order = np.lexsort((users, -hits[:, :k].sum(axis=1)))
    chosen = order[np.unique(np.linspace(len(order) * 0.02, len(order) * 0.6, count).astype(int))]
    table = data.interactions("train")
    result = []
    for row in chosen.tolist():
        user = int(users[row])
        mine = np.flatnonzero(table.source == user)
        if table.time is not None:
            mine = mine[np.argsort(-table.time[mine], kind="stable")]
        places = [n for n in range(min(k, hits.shape[1])) if int(evaluation.lists[row, n]) >= 0]
        result.append(
            Example(
                user=_label(data, data.target[0], user),
                history=[Entry(_label(data, data.target[2], int(table.target[m]))) for m in mine[:shown]],
                recommended=[
                    Entry(
                        _label(data, data.target[2], int(evaluation.lists[row, n])),
                        number(round(float(evaluation.scores[row, n]), 3)),
                        bool(hits[row, n]),
                    )
                    for n in places
                ],
                history_size=len(mine),
            )
        )
    return result


def reproduce_command(config: Mapping[str, Any]) -> str:
    """The command line that trains the model of a run's config again."""
    dataset = config.get("dataset", {})
    words = ["graphrec", "train", "--model", str(config["model"])]
    words += ["--dataset", str(dataset.get("source") or dataset.get("name") or "world")]
    task = _task(config)
    words += ["--task", task] if task != "rank" else []
    for name in ("format", "columns", "split"):
        value = dataset.get(name)
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={column}" for key, column in value.items())
        if isinstance(value, str) and value:
            words += [f"--{name}", value]
    for name, option in (("seed", "split-seed"), ("min_rating", "min-rating"), ("drawn_negatives", "drawn-negatives")):
        if dataset.get(name) is not None:
            words += [f"--{option}", str(dataset[name])]
    for name in ("kg", "kg_columns", "kg_options", "kg_filter"):
        words += [f"--{name.replace('_', '-')}", str(dataset[name])] if dataset.get(name) is not None else []
    epochs = config.get("fit", {}).get("epochs")
    words += ["--epochs", str(epochs)] if epochs is not None else []
    words += ["--seed", str(config["seed"])] if config.get("seed") is not None else []
    for key, value in config.get("hparams", {}).items():
        if isinstance(value, (str, int, float)) and key != "seed":
            words += [f"--model.{key}", str(value)]
    return " ".join(shlex.quote(word) for word in words)


def report_parts(
    run: Run,
    data: RecDataset | None = None,
    *,
    evaluation: Evaluation | ClickEvaluation | None = None,
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
    examples: int = 4,
    command: str | None = None,
) -> ReportParts:
    """The parts of a run's report.

    Args:
        run: trained and written.
        data: what it was trained on; None: loaded again by the run's config.
        evaluation: of its test part; None: made here, where the data has a test part.
        baselines: metrics of other models by name.
        examples: how many users to show.
        command: what to type to run it again; None: put together from the config.

    Raises:
        InputError: ``data`` is not what the run was trained on.
    """
    data = run.dataset() if data is None else data
    if data.fingerprint != run.fingerprint:
        raise InputError(
            f"report: the run was trained on data with fingerprint {run.fingerprint}, "
            f"{data.name!r} has {data.fingerprint}."
        )
    if evaluation is None and "test" in data.parts and _task(run.config) == "ctr":
        fit = run.config["fit"]
        evaluation = evaluate_clicks(
            run,
            data,
            auc_batch_size=fit["auc_batch_size"],
            auc_batch_last=fit["auc_batch_last"],
            scaling=fit["scaling"],
        )
    elif evaluation is None and "test" in data.parts:
        ks = sorted({int(key.rpartition("@")[2]) for key in run.metrics if "@" in key and "/" not in key}) or [20]
        evaluation = evaluate(run, data, split="test", ks=ks, mask=run.metrics.get("mask", "train"))
    per_user: dict[str, Any] = {}
    ends: dict[str, tuple[float, float]] = {}
    if evaluation is not None:
        table = evaluation.per_user
        names = [name for name in table.column_names if name not in KEYS]
        per_user = {name: table[name].to_numpy() for name in names}
        ends = intervals(evaluation, resamples=_RESAMPLES)
    metrics = {**(dict(evaluation) if evaluation is not None else {}), **run.metrics}
    config = portable_config(run.config)
    drawn = {key: per_user[key] for key in sorted(per_user, key=_first_metrics) if key in metrics}
    return ReportParts(
        model=str(run.config["model"]),
        dataset=data.name,
        metrics={key: metrics[key] for key in sorted(metrics, key=_first_metrics)},
        intervals={key: ends[key] for key in drawn},
        baselines=baselines or {},
        history=[{str(key): value for key, value in row.items()} for row in run.history.to_dict("records")],
        per_user=drawn,
        graph=graph_statistics(data),
        popularity=_popularity(data, evaluation) if isinstance(evaluation, Evaluation) else None,
        clicks=click_curves(evaluation) if isinstance(evaluation, ClickEvaluation) else None,
        examples=examples_of(data, evaluation, examples) if isinstance(evaluation, Evaluation) else (),
        explanations=read_explanations(run),
        config=config,
        environment=json.loads((run.path / "environment.json").read_text(encoding="utf-8")),
        command=reproduce_command(config) if command is None else command,
        notes=[str(note) for note in data.notes],
        fingerprint=data.fingerprint,
    )


def _task(config: Mapping[str, Any]) -> str:
    return str(config.get("fit", {}).get("task", "rank"))


def click_curves(evaluation: ClickEvaluation) -> ClickCurves:
    """The ROC curve and the calibration of an evaluation."""
    false, true = evaluation.roc()
    bins = evaluation.calibration
    if evaluation.about["scaling"] == "platt":
        about = f"sigmoid of the scores after Platt's scaling, fitted on the {evaluation.about['scaled_on']} part"
    else:
        about = "sigmoid of the scores as they are"
    return ClickCurves(
        false.tolist(),
        true.tolist(),
        bins.predicted.tolist(),
        bins.observed.tolist(),
        bins.count.tolist(),
        about,
    )


def _first_metrics(key: str) -> tuple[int, int, str]:
    """The longest lists first; among metrics of one length recall, then NDCG, then the rest."""
    name, _, k = key.partition("@")
    first = ("recall", "ndcg", "precision", "hitrate", "hit_rate", "mrr", "map", *CLICK_METRICS)
    rank = first.index(name) if name in first else len(first)
    return -int(k) if k.isdigit() else 0, rank, key


def _popularity(data: RecDataset, evaluation: Evaluation) -> Any:
    if evaluation.lists.numel() == 0:
        return None
    training = np.bincount(data.pairs("train").items, minlength=data.num_items)
    return popularity_bias(training, evaluation.lists.cpu().numpy())
