"""Do the explained paths matter? Their triples are taken out, and so are others of the same relations and degrees.

    python experiments/explanations.py RUN --pairs 200

For pairs of a user and an item of the user's list, the triples of the first path are taken out of the graph and the
pair is scored again. First by three orders:

- ``strength``: the model's attention along the path alone, or shares by degree where the model has none;
- ``estimate``: of the 100 strongest paths, the largest estimate of what the score loses, nothing measured;
- ``effect``: the largest measured drop among the first ten of both orders; what ``explain`` shows first, which measures
  a few more, costs as much or more.

Beside each stand the drops for control triples of the same relations and of the most alike degrees: one draw elsewhere
in the graph, and one at the item itself. ``effect`` picks the largest of several measured drops, so that a single draw
would be an unfair control; it is also compared with the largest of ten draws elsewhere (``best_elsewhere``).
Wilcoxon's signed-rank test says whether the path's drop is the larger one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

import graphrec
from graphrec.errors import InputError
from graphrec.influence import Explainer
from graphrec.reports import reproduce_command
from graphrec.runs.environment import environment
from graphrec.runs.portable import portable_config

CANDIDATES = 100
DRAWS = 10
Row = dict[str, Any]


def drops(explainer: Explainer, user: int, item: int, seed: int) -> Row | None:
    """What the score loses without the first path's triples by each order, and without control triples.

    None where there is no path, or no control for the strongest one.
    """
    found = explainer.paths(user, item, limit=CANDIDATES)
    if len(found) == 0:
        return None
    score = explainer.score(user, item)
    estimates, reason = explainer.effects(user, item, found.edges)
    losses = explainer.measured(user, item, score, found, estimates, 10)
    measured = list(losses)
    first = {"strength": 0}
    row: Row = {"score": score, "candidates": len(found), "reason": reason}
    if estimates is not None:
        first |= {"estimate": int(estimates.argmax()), "effect": measured[0]}
        if len(set(losses.values())) > 1:
            lost = list(losses.values())
            row["estimate_agrees"] = float(stats.spearmanr(estimates[measured], lost).statistic)
            row["strength_agrees"] = float(stats.spearmanr(found.strength[measured], lost).statistic)
    for order, place in first.items():
        triples = explainer.triples_of(found.edges[place])
        own = controls(explainer, user, item, score, triples, seed, DRAWS if order == "effect" else 1)
        if own is None:
            return None
        row[order] = {"path": losses[place], **own}
    row["same_path"] = len(set(first.values())) == 1
    return row


def controls(
    explainer: Explainer, user: int, item: int, score: float, triples: torch.Tensor, seed: int, draws: int
) -> dict[str, float] | None:
    """Drops of the controls of one path; None where there is none elsewhere."""
    start, end = explainer.ends(user, item)
    elsewhere = [
        score - explainer.score(user, item, other)
        for other in explainer.control_edges(triples, start, end, draws, seed)
    ]
    if not elsewhere:
        return None
    found = {"elsewhere": elsewhere[0]}
    if draws > 1:
        found["best_elsewhere"] = max(elsewhere)
    beside = at_the_item(explainer, triples, end, seed)
    if beside is not None:
        found["at_the_item"] = score - explainer.score(user, item, beside)
    return found


def at_the_item(explainer: Explainer, top: torch.Tensor, end: int, seed: int) -> torch.Tensor | None:
    """As many other triples of the item, of the path's last relation if there are, else of any; of like degree."""
    graph = explainer.graph
    last = int(top[-1])
    into = graph.adjacency.transposed.row_subset(torch.tensor([end])).edge_positions()
    into = into[explainer.triples[into]]
    into = into[~torch.isin(graph.heads()[into], graph.heads()[top])]
    if len(into) < len(top):
        return None
    degree = graph.adjacency.degrees(0).double().log1p()
    apart = (degree[graph.heads()[into]] - degree[graph.heads()[last]]).abs()
    apart = apart + 100.0 * (graph.relation[into] != graph.relation[last])
    order = torch.argsort(apart, stable=True)[: max(4, len(top))]
    chosen = np.random.default_rng(seed).choice(order.numpy(), size=len(top), replace=False)
    return into[torch.as_tensor(chosen)]


def measure(run: graphrec.Run, pairs: int, seed: int, root: str | None) -> dict[str, Any]:
    """Drops of ``pairs`` pairs: drawn users, an item drawn from the top ten of each."""
    data = run.dataset(root=root)
    explainer = Explainer(run.model(), data)
    stream = np.random.default_rng(seed)
    recommender = graphrec.Recommender.from_pretrained(run)
    rows: list[Row] = []
    started, spent = time.monotonic(), time.process_time()
    for user in stream.permutation(data.num_users).tolist():
        raw = data.vocabularies["user"].raw[user]
        listed = recommender.recommend([raw], k=10)["item"]
        item = explainer.code("item", listed.iloc[int(stream.integers(10))])
        found = drops(explainer, user, item, int(stream.integers(2**31)))
        if found is not None:
            rows.append(found)
            if len(rows) % 20 == 0:
                print(f"{len(rows)} pairs, {time.monotonic() - started:.0f} s", file=sys.stderr)
        if len(rows) == pairs:
            break
    if not rows:
        raise InputError("no pair has a path and triples to compare with.")
    return {
        "command": command(run, pairs, seed),
        "model": run.config["model"],
        "dataset": data.name,
        "strength_by": explainer.strength_by,
        "pairs": len(rows),
        "candidates": CANDIDATES,
        "median_paths": float(np.median([row["candidates"] for row in rows])),
        "draws": DRAWS,
        "no_effect_because": rows[0]["reason"],
        "orders": {name: order(rows, name) for name in ("strength", "estimate", "effect") if name in rows[0]},
        "all_orders_agree": float(np.mean([row["same_path"] for row in rows])),
        **{
            f"rank_correlation_of_{name}": float(np.mean(values))
            for name in ("estimate", "strength")
            if (values := [row[f"{name}_agrees"] for row in rows if f"{name}_agrees" in row])
        },
        "deletions_by_weights": explainer.deletions.by_weights,
        "seconds": time.monotonic() - started,
        "processor_seconds": time.process_time() - spent,
        "seed": seed,
        "epochs": run.metrics.get("epochs"),
        "recall@20": run.metrics.get("recall@20"),
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
    }


def command(run: graphrec.Run, pairs: int, seed: int) -> str:
    """What to type to train such a run, for as many epochs as it had whatever ended it, and to measure it again."""
    config = portable_config(run.config)
    fit = {**config["fit"], "epochs": run.metrics.get("epochs")}
    training = reproduce_command({**config, "fit": fit})
    return f"{training} --out RUN; python experiments/explanations.py RUN --pairs {pairs} --seed {seed}"


def order(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Of the first paths by one order: their drops, and how they compare with each control and the other orders."""
    path = np.array([row[name]["path"] for row in rows])
    found: dict[str, Any] = {"path": _spread(path), "share_above_zero": float((path > 0).mean())}
    for control in ("elsewhere", "at_the_item", "best_elsewhere"):
        if any(control in row[name] for row in rows):
            found[control] = _compared(path, np.array([row[name].get(control, np.nan) for row in rows]))
    if name != "strength":
        found["strength"] = _compared(path, np.array([row["strength"]["path"] for row in rows]))
    return found


def _compared(path: np.ndarray, other: np.ndarray) -> Mapping[str, float]:
    there = ~np.isnan(other)
    gap = path[there] - other[there]
    return {
        **_spread(other[there]),
        "pairs": int(there.sum()),
        "path_larger": float((gap > 0).mean()),
        "wilcoxon_p": float(stats.wilcoxon(gap, alternative="greater").pvalue) if gap.any() else 1.0,
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"mean": float(values.mean()), "median": float(np.median(values))}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run of a model that reads a knowledge graph")
    parser.add_argument("--pairs", type=int, default=200, help="how many pairs (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs and the controls")
    parser.add_argument("--root", help="folder that holds the datasets (default: $GRAPHREC_DATA)")
    parser.add_argument("--out", type=Path, help="file for the result (default: standard output)")
    options = parser.parse_args(arguments)
    try:
        result = measure(graphrec.Run.open(options.run), options.pairs, options.seed, options.root)
    except InputError as error:
        print(f"explanations.py: error: {error}", file=sys.stderr)
        return 2
    text = json.dumps(result, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
