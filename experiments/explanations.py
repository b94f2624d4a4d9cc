"""Do the explained paths matter? Their triples are taken out, and so are others of the same relations and degrees.

    python experiments/explanations.py RUN --pairs 200

For pairs of a user and an item of the user's list, the triples of the strongest path are taken out of the graph and the
pair is scored again; beside it stand the drops for two kinds of control triples of the same relations and of the most
alike degrees: elsewhere in the graph, and at the item itself. Wilcoxon's signed-rank test says whether the path's drop
is the larger one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

import graphrec
from graphrec.errors import InputError
from graphrec.influence import Explainer
from graphrec.runs.environment import environment


def drops(explainer: Explainer, user: int, item: int, seed: int) -> dict[str, float] | None:
    """What the score loses: without the strongest path's triples, and without control triples; None without a path."""
    start, end = explainer.ends(user, item)
    found = explainer.paths(user, item, limit=1)
    if len(found) == 0:
        return None
    top = explainer.triples_of(found.edges[0])
    whole = explainer.score(user, item)
    elsewhere = list(explainer.control_edges(top, start, end, 1, seed))
    if not elsewhere:
        return None
    values = {
        "score": whole,
        "path": whole - explainer.score(user, item, top),
        "elsewhere": whole - explainer.score(user, item, elsewhere[0]),
    }
    beside = at_the_item(explainer, top, end, seed)
    if beside is not None:
        values["at_the_item"] = whole - explainer.score(user, item, beside)
    return values


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
    rows: list[dict[str, float]] = []
    started = time.monotonic()
    for user in stream.permutation(data.num_users).tolist():
        raw = data.vocabularies["user"].raw[user]
        listed = recommender.recommend([raw], k=10)["item"]
        item = explainer.code("item", listed.iloc[int(stream.integers(10))])
        found = drops(explainer, user, item, int(stream.integers(2**31)))
        if found is not None:
            rows.append(found)
        if len(rows) == pairs:
            break
    path = np.array([row["path"] for row in rows])
    summary: dict[str, Any] = {"pairs": len(rows), "path": _spread(path)}
    for control in ("elsewhere", "at_the_item"):
        other = np.array([row.get(control, np.nan) for row in rows])
        there = ~np.isnan(other)
        gap = path[there] - other[there]
        summary[control] = {
            **_spread(other[there]),
            "pairs": int(there.sum()),
            "path_larger": float((gap > 0).mean()),
            "wilcoxon_p": float(stats.wilcoxon(gap, alternative="greater").pvalue),
        }
    return {
        "model": run.config["model"],
        "dataset": data.name,
        "strength_by": explainer.strength_by,
        **summary,
        "seconds": time.monotonic() - started,
        "seed": seed,
        "recall@20": run.metrics.get("recall@20"),
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
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
