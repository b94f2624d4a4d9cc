"""Influence of edges, measured: estimators against retraining, injected edges by self-influence, pruning.

    python experiments/influence.py attribution --dataset world --users 130
    python experiments/influence.py attribution --dataset lastfm --users 150 --queries 10 --quick
    python experiments/influence.py noise --dataset ml-100k --negatives 1 --epochs 15
    python experiments/influence.py pruning --dataset ml-100k --negatives 1 --dim 16 --epochs 10

Each writes ``experiments/results/influence-NAME.json`` and a table beside it. ``attribution`` trains a LightGCN to a
gradient norm of 1e-6, retrains it without each of 100 edges and on 50 halves of the edges (from a warm start, to the
same norm), and holds every estimator against that. ``noise`` injects random edges and looks for them by self-influence;
``pruning`` drops the least useful edges by their influence on the validation loss, trains again and tests, beside
random dropping.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

import graphrec
from graphrec.datasets import RecDataset, load
from graphrec.errors import InputError
from graphrec.evaluation.classification import auc
from graphrec.influence.attribution_metrics import (
    draw_subsets,
    leave_one_out,
    linear_datamodelling_score,
)
from graphrec.influence.estimators import attribute
from graphrec.influence.inverse import Inverse
from graphrec.influence.noise import self_influence
from graphrec.influence.objective import objective
from graphrec.influence.pruning import PruningCurve, pruned, pruning_curve
from graphrec.influence.queries import part_loss, score_query
from graphrec.influence.tracin import descent
from graphrec.influence.trak import SubsetModel
from graphrec.influence.truth import fresh_start, minimise, on_subsets
from graphrec.influence.truth import leave_one_out as retrained
from graphrec.models import LightGCN
from graphrec.runs.environment import environment
from graphrec.unlearning.injection import inject_random

RESULTS = Path(__file__).parent / "results"

# Name in the table, estimator, curvature and solver of its inverse.
ROWS: Sequence[tuple[str, str, str | None]] = (
    ("random", "random", None),
    ("nothing (parameters stay)", "nothing", None),
    ("loss term only, Gauss-Newton", "loss_term", "gauss-newton cg"),
    ("loss term only, Hessian", "loss_term", "hessian cg"),
    ("derivative, Gauss-Newton, CG", "derivative", "gauss-newton cg"),
    ("derivative, Gauss-Newton, LiSSA", "derivative", "gauss-newton lissa"),
    ("derivative, Gauss-Newton, Arnoldi", "derivative", "gauss-newton arnoldi"),
    ("derivative, Hessian, CG", "derivative", "hessian cg"),
    ("derivative, Hessian, LiSSA", "derivative", "hessian lissa"),
    ("derivative, Hessian, Arnoldi", "derivative", "hessian arnoldi"),
    ("GIF difference, Gauss-Newton", "gif", "gauss-newton dense"),
    ("GIF difference, Hessian", "gif", "hessian dense"),
    ("Newton on what is left, Hessian", "newton", "hessian dense"),
    ("TracIn, full gradient", "tracin", None),
    ("TRAK, loss gradient", "trak", None),
    ("TRAK, full gradient", "trak full", None),
)


def small(dataset: str, users: int, seed: int, root: str | None) -> RecDataset:
    """A dataset of a few users: the seeded world made small, or users drawn from a real one, items of three or more."""
    if dataset == "world":
        return load("world", users=users, seed=seed, sides=(), split="random:.8,.1,.1")
    whole = load(dataset, root=root)
    drawn = np.random.default_rng(seed).permutation(whole.num_users)[:users]
    table = whole.interactions("train+test")
    counts = np.bincount(table.target[np.isin(table.source, drawn)], minlength=whole.num_items)
    gone = ~np.isin(table.source, drawn) | (counts[table.target] < 3)
    cut = whole.without(table.edge_id[gone])
    cut = cut.changed(tables={cut.target: cut.tables[cut.target]})  # links would keep everybody
    return cut.filter_isolated("drop", [whole.target[0], whole.target[2]]).split("random:.8,.1,.1", seed=seed)


def attribution(options: argparse.Namespace) -> dict[str, Any]:
    """Every estimator against leave-one-out retraining and retraining on halves."""
    data = small(options.dataset, options.users, options.seed, options.root)
    model = LightGCN(data, dim=8, num_layers=2, reg=0.0, positives="edge")
    made = objective(model, data, num_negatives=options.negatives, reg=options.reg, positives="edge", seed=options.seed)
    found = minimise(made, fresh_start(made, options.seed))
    if not found.converged:
        raise InputError(f"the model ended at a gradient norm of {found.gradient_norm:.2g}.")
    theta = found.theta
    say(f"{data!r}: {made.num_edges} edges, {len(theta)} parameters, gradient norm {found.gradient_norm:.1e}")
    stream = np.random.default_rng(options.seed)
    test = data.pairs("test")
    picked = stream.choice(len(test), min(options.queries, len(test)), replace=False)
    query = score_query(made, torch.as_tensor(test.users[picked].copy()), torch.as_tensor(test.items[picked].copy()))
    edges = stream.choice(made.num_edges, min(options.edges, made.num_edges), replace=False)

    alone = retrained(made, theta, query, edges)
    say(f"leave-one-out: {alone.seconds:.0f} s, gradient norm at most {alone.gradient_norm.max():.1e}")
    kept = draw_subsets(options.subsets, made.num_edges, 0.5, seed=options.seed)
    halves = on_subsets(made, theta, query, kept)
    say(f"halves: {halves.seconds:.0f} s, gradient norm at most {halves.gradient_norm.max():.1e}")

    started = time.perf_counter()
    models = []
    for row in draw_subsets(options.models, made.num_edges, 0.5, seed=options.seed + 1):
        weight = torch.as_tensor(row, dtype=made.dtype)
        models.append(SubsetModel(minimise(made, theta, weight).theta, weight))
    model_seconds = time.perf_counter() - started
    started = time.perf_counter()
    checkpoints = descent(made, fresh_start(made, options.seed), steps=300, rate=options.rate, every=30)
    descent_seconds = time.perf_counter() - started

    inverses: dict[str, Inverse] = {}
    rows = []
    for label, name, wanted in ROWS:
        if options.quick and wanted not in (None, "gauss-newton cg", "hessian cg"):
            continue
        if wanted is not None and wanted not in inverses:
            curvature, solver = wanted.split()
            inverses[wanted] = Inverse(
                made,
                theta,
                solver=solver,  # type: ignore[arg-type]
                gauss_newton=curvature == "gauss-newton",
                damping=options.damping,
                tolerance=1e-4,
                max_iterations={"arnoldi": 200, "lissa": 200}.get(solver, 2000),
            )
            say(f"{wanted}: prepared in {inverses[wanted].prepared:.0f} s")
        every = name not in ("gif", "newton", "nothing") or options.all
        estimator = name.split()[0]
        result = attribute(
            made,
            theta,
            query,
            estimator=estimator,  # type: ignore[arg-type]
            inverse=None if wanted is None else inverses[wanted],
            edges=None if every else edges,
            checkpoints=checkpoints,
            models=models,
            parts=("loss", "graph", "negatives") if name in ("tracin", "trak full") else ("loss",),
            width=options.width,
            seed=options.seed,
        )
        on_edges = result.influence[:, edges] if every else result.influence
        agreements = [leave_one_out(p, a, resamples=200) for p, a in zip(on_edges, alone.change, strict=True)]
        row = {
            "estimator": label,
            "loo_spearman": mean(a.spearman for a in agreements),
            "loo_spearman_lowest": min(a.spearman for a in agreements),
            "loo_slope": mean(a.slope for a in agreements),
            "loo_relative_error": mean(a.relative_error for a in agreements),
            "seconds": result.seconds,
            "prepared_seconds": {"tracin": descent_seconds, "trak": model_seconds}.get(
                estimator, inverses[wanted].prepared if wanted else 0.0
            ),
            "edges": len(result.edges),
            "hvps": result.products,
            "relative_residual": result.relative_residual,
            "damping": result.damping,
            "more_damping": result.raised,
        }
        if every:
            score = linear_datamodelling_score(result.influence, kept, halves.values)
            row |= {"lds": score.mean, "lds_low": score.low, "lds_high": score.high}
        rows.append(row)
        say(json.dumps(row))
    return {
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        "users": data.num_users,
        "items": data.num_items,
        "edges": made.num_edges,
        "parameters": len(theta),
        "model": "LightGCN, dim 8, 2 layers",
        "objective": {"reg": options.reg, "negatives": options.negatives, "kind": "frozen", "dtype": "float64"},
        "gradient_norm": found.gradient_norm,
        "queries": len(picked),
        "truth": {
            "start": "warm",
            "leave_one_out_edges": len(edges),
            "leave_one_out_seconds": alone.seconds,
            "halves": len(kept),
            "halves_seconds": halves.seconds,
            "largest_gradient_norm": float(max(alone.gradient_norm.max(), halves.gradient_norm.max())),
            "mean_absolute_change": float(np.abs(alone.change).mean()),
        },
        "trak": {"models": options.models, "width": options.width},
        "tracin": {"checkpoints": len(checkpoints), "rate": options.rate},
        "damping_share": options.damping,
        "rows": rows,
    }


def trained(data: RecDataset, options: argparse.Namespace, seed: int) -> LightGCN:
    """A LightGCN trained as usual, by Adam on drawn batches, for a fixed number of epochs."""
    model = LightGCN(
        data, dim=options.dim, num_layers=2, lr=1e-2, reg=1e-4, batch_size=4096, positives="edge", seed=seed
    )
    fit = {"epochs": options.epochs, "seed": seed, "select_on": None, "report": False, "progress": False}
    graphrec.fit(model, data, evaluate_every=options.epochs, device="cpu", **fit)
    return model


def noise(options: argparse.Namespace) -> dict[str, Any]:
    """Random pairs injected into the training part, and how well self-influence tells them from the others."""
    clean = load(options.dataset, root=options.root)
    rows = []
    for seed in range(options.seed, options.seed + options.seeds):
        injected = inject_random(clean, round(options.share * clean.part_counts()["train"]), seed=seed)
        model = trained(injected.data, options, seed)
        made = objective(model, injected.data, num_negatives=options.negatives, positives="edge", seed=seed)
        labels = torch.as_tensor(np.isin(made.edge_id.numpy(), injected.edge_id)).long()
        users, items = made.edge_index
        degree = 1 / (torch.bincount(users)[users].double() * torch.bincount(items)[items].double()).sqrt()
        for name, parts in (("loss term", ("loss",)), ("all parts", ("loss", "graph", "negatives"))):
            found = self_influence(made, draws=options.draws, parts=parts, damping=1e-3, seed=seed)
            scores = torch.as_tensor(found.values)
            first = torch.argsort(scores, descending=True)[: len(injected)]
            rows.append(
                {
                    "seed": seed,
                    "gradient": name,
                    "auc": auc(scores, labels),
                    "precision_at_count": float(labels[first].double().mean()),
                    "auc_loss": auc(torch.as_tensor(found.losses), labels),
                    "auc_degree": auc(degree, labels),
                    "edges": made.num_edges,
                    "injected": len(injected),
                    "draws": found.draws,
                    "damping": found.damping,
                    "relative_residual": found.relative_residual,
                    "hvps": found.products,
                    "gradient_norm": found.gradient_norm,
                    "seconds": found.seconds,
                }
            )
            say(json.dumps(rows[-1]))
    return {
        "dataset": clean.name,
        "fingerprint": clean.fingerprint,
        "model": f"LightGCN, dim {options.dim}, 2 layers, {options.epochs} epochs",
        "share": options.share,
        "rows": rows,
    }


def noise_table(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"{result['model']} on {result['dataset']} with {100 * result['share']:g} % random pairs injected into the "
        "training part. AUC: an injected edge has the larger self-influence (Gauss-Newton) than one that was there. "
        "Precision: of as many first suspects as edges were injected. Controls: the edge's own loss, and "
        "1/√(degree of the user · degree of the item): uniformly drawn pairs meet rare items, so that it tells.",
        "",
        "| seed | gradient of an edge | AUC | precision | AUC, loss | AUC, degree | draws | products | residual | "
        "gradient norm | seconds |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['seed']} | {row['gradient']} | {row['auc']:.3f} | {row['precision_at_count']:.3f} | "
            f"{row['auc_loss']:.3f} | {row['auc_degree']:.3f} | {row['draws']} | {row['hvps']} | "
            f"{row['relative_residual']:.1e} | {row['gradient_norm']:.2g} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def pruning(options: argparse.Namespace) -> dict[str, Any]:
    """Edges dropped by their influence on the validation loss, and at random; trained again and tested."""
    data = load(options.dataset, root=options.root).split("random:.8,.1,.1", seed=options.seed)
    model = trained(data, options, options.seed)
    made = objective(model, data, num_negatives=options.negatives, positives="edge", seed=options.seed)
    query = part_loss(made, data, "valid", num_negatives=20, seed=options.seed)
    inverse = Inverse(made, made.theta, damping=1e-3, tolerance=1e-3)
    found = attribute(made, made.theta, query, inverse=inverse)
    say(f"influence: {found.seconds:.0f} s, {found.products} products, residual {found.relative_residual:.1e}")

    def retrain(dropped: np.ndarray, seed: int) -> dict[str, float]:
        fresh = trained(pruned(data, made, dropped), options, seed)
        # Whoever dropped an interaction still knows of it: it is left out of the lists as before.
        measured = graphrec.evaluate(fresh.encode(), data, ks=20, metrics=["recall", "ndcg"])
        row = {"recall@20": measured["recall@20"], "ndcg@20": measured["ndcg@20"]}
        say(f"{len(dropped)} dropped, seed {seed}: {row}")
        return row

    seeds = range(options.seed, options.seed + options.seeds)
    curve = pruning_curve(found.influence[0], retrain, seeds=seeds, most_useful=True)
    return {
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        "model": f"LightGCN, dim {options.dim}, 2 layers, {options.epochs} epochs",
        "edges": made.num_edges,
        "influence": {
            "seconds": found.seconds,
            "hvps": found.products,
            "damping": found.damping,
            "relative_residual": found.relative_residual,
            "gradient_norm": found.gradient_norm,
            "positive": float((found.influence > 0).mean()),
        },
        "seeds": list(seeds),
        **curve.to_dict(),
    }


def pruning_table(result: dict[str, Any]) -> str:
    """As Markdown; the picture lies beside it."""
    facts = result["influence"]
    lines = [
        f"{result['model']} on {result['dataset']}, {result['edges']} training edges. Influence on the validation loss "
        f"(derivative, Gauss-Newton, damping {facts['damping']:.2g}, relative residual "
        f"{facts['relative_residual']:.1e}, gradient norm {facts['gradient_norm']:.2g}, {facts['seconds']:.0f} s): "
        f"{100 * facts['positive']:.0f} % of the edges are useful. Seeds: {len(result['seeds'])}; what was "
        "dropped stays out of the lists.",
        "",
        "| dropped | metric | " + " | ".join(result["values"]) + " |",
        "|---:|---|" + "---:|" * len(result["values"]),
    ]
    for place, share in enumerate(result["shares"]):
        for metric in ("recall@20", "ndcg@20"):
            cells = (f"{np.mean(kind[metric][place]):.4f}" for kind in result["values"].values())
            lines.append(f"| {100 * share:.0f} % | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pruning_picture(result: dict[str, Any]) -> str:
    """Recall after dropping, as an SVG file of its own."""
    values = {
        kind: {name: np.array(table) for name, table in by_metric.items()}
        for kind, by_metric in result["values"].items()
    }
    return standalone(PruningCurve(tuple(result["shares"]), values).chart("recall@20"))


def standalone(chart: str) -> str:
    """The SVG of a chart as a file that needs no page: name space, colours, and the legend as a line of text."""
    drawing, _, legend = chart.partition("</svg>")
    names = re.findall(r"</svg>\s*([^<]+)<", legend)
    colours = ("#2563ab", "#c2570c", "#2f855a", "#7c3aed")
    style = "text{font:11px sans-serif;fill:#333}.grid{stroke:#ddd}.axis{stroke:#888}.line{fill:none;stroke-width:1.8}"
    style += "".join(f".s{n}.line{{stroke:{c}}}.s{n}.fill{{fill:{c}}}" for n, c in enumerate(colours))
    words = "".join(
        f'<text x="{66 + 110 * n}" y="10" style="fill:{colours[n]}">{escape(name)}</text>'
        for n, name in enumerate(names)
    )
    head = drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="840" ', 1)
    return (
        head.replace(">", f'><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>', 1)
        + words
        + "</svg>\n"
    )


def mean(values: Any) -> float:
    """Of what is no NaN."""
    return float(np.nanmean(list(values)))


def attribution_table(result: dict[str, Any]) -> str:
    """As Markdown."""
    truth = result["truth"]
    lines = [
        f"{result['model']} on {result['dataset']}: {result['users']} users, {result['items']} items, "
        f"{result['edges']} training edges, {result['parameters']} parameters; objective: sum of BPR over "
        f"{result['objective']['negatives']} fixed negatives an edge + {result['objective']['reg']}/2 |θ|²; gradient "
        f"norm {result['gradient_norm']:.1e}. Means over {result['queries']} queries (scores of test pairs).",
        "",
        f"Truth: {truth['leave_one_out_edges']} random edges left out one at a time "
        f"({truth['leave_one_out_seconds']:.0f} s) and {truth['halves']} random halves of the edges "
        f"({truth['halves_seconds']:.0f} s), retrained from a warm start to a gradient norm of at most "
        f"{truth['largest_gradient_norm']:.1e}. Damping: {result['damping_share']:g} of the largest eigenvalue.",
        "",
        "| estimator | LOO rank correlation | lowest query | slope | relative error | LDS (95 % interval) | seconds | "
        "prepared | products | relative residual |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        lds = f"{row['lds']:.3f} ({row['lds_low']:.3f} to {row['lds_high']:.3f})" if "lds" in row else ""
        residual = "" if row["relative_residual"] is None else f"{row['relative_residual']:.1e}"
        numbers = (f"{row[key]:.2f}" for key in ("loo_slope", "loo_relative_error"))
        lines.append(
            f"| {row['estimator']} | {row['loo_spearman']:.3f} | {row['loo_spearman_lowest']:.3f} | "
            f"{' | '.join(numbers)} | {lds} | {row['seconds']:.1f} | {row['prepared_seconds']:.1f} | {row['hvps']:,} | "
            f"{residual} |"
        )
    lines += ["", "Slope: of actual on predicted change; 1 is right, above 1 the prediction is too small."]
    return "\n".join(lines)


def say(text: str) -> None:
    """Progress, to standard error."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(EXPERIMENTS))
    parser.add_argument("--dataset", default="world", help="world, or the name of a dataset")
    parser.add_argument("--users", type=int, default=130, help="attribution: how many users")
    parser.add_argument("--edges", type=int, default=100, help="attribution: left out one at a time")
    parser.add_argument("--subsets", type=int, default=50, help="attribution: halves")
    parser.add_argument("--queries", type=int, default=20, help="attribution: scores of test pairs")
    parser.add_argument("--models", type=int, default=5, help="attribution: models of TRAK")
    parser.add_argument("--width", type=int, default=512, help="attribution: of TRAK's projection")
    parser.add_argument("--rate", type=float, default=0.05, help="attribution: of gradient descent for TracIn")
    parser.add_argument("--reg", type=float, default=1.0, help="attribution: λ")
    parser.add_argument("--negatives", type=int, default=2, help="fixed negatives of each edge")
    parser.add_argument("--damping", type=float, default=1e-4, help="share of the largest eigenvalue")
    parser.add_argument("--all", action="store_true", help="attribution: estimators with a solve an edge on all edges")
    parser.add_argument("--quick", action="store_true", help="attribution: one solver, and nothing that solves an edge")
    parser.add_argument("--share", type=float, default=0.02, help="noise: injected, as a share of the training edges")
    parser.add_argument("--draws", type=int, default=16, help="noise: of self-influence")
    parser.add_argument("--dim", type=int, default=32, help="noise, pruning: width of the tables")
    parser.add_argument("--epochs", type=int, default=20, help="noise, pruning: of training")
    parser.add_argument("--seeds", type=int, default=1, help="noise, pruning: how many")
    parser.add_argument("--seed", type=int, default=0, help="of every draw")
    parser.add_argument("--root", help="folder that holds the datasets (default: $GRAPHREC_DATA)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the result")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    run = EXPERIMENTS[options.what][0]
    started = time.monotonic()
    try:
        result = run(options)
    except InputError as error:
        print(f"influence.py: error: {error}", file=sys.stderr)
        return 2
    given = sys.argv[1:] if arguments is None else list(arguments)
    result |= {
        "seconds": time.monotonic() - started,
        "seed": options.seed,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python experiments/influence.py", *given]),
        "environment": environment(),
    }
    print(write(result, options.what, options.dataset, options.results))
    return 0


def write(result: dict[str, Any], what: str, dataset: str, folder: Path) -> str:
    """The JSON, the table beside it, and the picture where there is one; gives the table."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"influence-{what}-{dataset}.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    text = f"# influence: {what}, {dataset}\n\n{EXPERIMENTS[what][1](result)}\n\n{origin(result)}\n"
    if what == "pruning":
        picture = file.with_suffix(".svg")
        picture.write_text(pruning_picture(result), encoding="utf-8")
        text += f"\n![recall after dropping edges]({picture.name})\n"
    file.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def origin(result: dict[str, Any]) -> str:
    """Where a result comes from: date, machine, seed, seconds, command."""
    machine = result["environment"]
    return (
        f"{result['date']}, {machine['processor']}, {machine['threads']} thread of {machine['cores']} cores (shared "
        f"with other work), seed {result['seed']}, {result['seconds']:.0f} s in all, `{result['command']}`"
    )


EXPERIMENTS = {
    "attribution": (attribution, attribution_table),
    "noise": (noise, noise_table),
    "pruning": (pruning, pruning_table),
}


if __name__ == "__main__":
    sys.exit(main())
