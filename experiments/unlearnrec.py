"""UnlearnRec against retraining, on edges that were injected to be taken out again.

    python experiments/unlearnrec.py --dataset ml-100k-unlearn --epochs 400 --lr 0.005 --seeds 3
    python experiments/unlearnrec.py --dataset ml-1m --lr 0.001 --methods unlearnrec finetune

The attack of the paper: a model trained on clean data names everybody's least wanted item and every item's least
interested user (r = 1); the model is trained again with these edges, and the request names exactly them. Reference:
trainings on the clean data with other seeds than the one that chose the edges, each stopped by Recall@20 on a tenth of
the training edges. Written to ``experiments/results/unlearnrec-DATASET.json`` and printed: mean score of the injected
edges, its distance from retraining in standard deviations of retrained scores of random pairs, Recall@20 on the test
part, AUC of telling injected edges from test edges by score, and seconds of processor time (one thread) since the
request, beside those of a retraining. Nothing is masked in scoring the injected edges.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import graphrec
from graphrec import models
from graphrec.datasets import RecDataset
from graphrec.evaluation.classification import auc
from graphrec.models.base import GraphRecommender
from graphrec.randomness import derive, hash_uniform
from graphrec.runs.environment import environment
from graphrec.runs.manifest import write_contents
from graphrec.unlearning import ForgetRequest, remaining, resolve
from graphrec.unlearning.injection import Injection, inject_adversarial
from graphrec.unlearning.methods import METHODS
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.unlearnrec.expected import non_edges

RESULTS = Path(__file__).parent / "results"


def with_validation(data: RecDataset, share: float = 0.1) -> RecDataset:
    """A share of the training edges as validation part, drawn by a hash of user and item."""
    if "valid" in data.parts:
        return data
    table = data.tables[data.target]
    assert table.part is not None
    ends = (torch.from_numpy(ends.astype("int64")) for ends in (table.source, table.target))
    part = table.part.copy()
    part[(part == 0) & (hash_uniform(derive(0, "validation"), *ends).numpy() < share)] = 1
    return data.with_table(table.replaced(part=part))


@dataclasses.dataclass(frozen=True)
class Probes:
    """Pairs (2, n) that every model is asked about."""

    injected: Tensor
    random: Tensor
    test: Tensor

    @classmethod
    def of(cls, injection: Injection) -> Probes:
        """Injected edges, random pairs that are no training edges, and test edges."""
        held = injection.clean.interactions("test")
        matrix = models.Popularity(injection.data).graph_inputs.adjacency()
        pairs = (injection.users, injection.items), (held.source, held.target)
        injected, test = (torch.stack([torch.from_numpy(x.astype("int64")) for x in pair]) for pair in pairs)
        return cls(injected, non_edges(matrix, 100_000, seed=7), test)

    def measure(self, model: GraphRecommender, clean: RecDataset) -> dict[str, float]:
        """What a row of the table says of a model."""
        rows = model.eval().encoded()
        injected, random, test = (
            (rows.users[pairs[0]] * rows.items[pairs[1]]).sum(-1).cpu()
            for pairs in (self.injected, self.random, self.test)
        )
        labels = torch.cat([torch.ones(len(injected)), torch.zeros(len(test))])
        return {
            "injected": float(injected.mean()),
            "random": float(random.mean()),
            "random_sd": float(random.std()),
            "recall@20": graphrec.evaluate(model, clean, ks=(20,))["recall@20"],
            "auc": auc(torch.cat([injected, test]), labels),
        }


def main() -> None:
    """Train, inject, train again, unlearn, retrain, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-100k-unlearn")
    parser.add_argument("--root", default=None)
    parser.add_argument("--model", default="LightGCN")
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3, help="retrained references")
    parser.add_argument("--methods", nargs="*", default=["unlearnrec", "finetune"])
    options = parser.parse_args()
    clean = with_validation(graphrec.datasets.load(options.dataset, root=options.root))
    fit = {"epochs": options.epochs, "patience": 5, "evaluate_every": 5, "select_on": "valid", "progress": False}

    def trained(data: RecDataset, seed: int) -> tuple[GraphRecommender, float]:
        started = time.process_time()
        model = getattr(models, options.model)(data, lr=options.lr, seed=seed)
        run = graphrec.fit(model, data, **fit, report=False)
        print(f"seed {seed}: {len(run.history)} epochs, {time.process_time() - started:.1f} s", flush=True)
        return model, time.process_time() - started

    chooser, _ = trained(clean, 0)
    injection = inject_adversarial(chooser, clean)
    attacked, _ = trained(injection.data, 0)
    probes = Probes.of(injection)
    references = [trained(clean, seed) for seed in range(1, options.seeds + 1)]
    rows: dict[str, dict[str, Any]] = {"before": dict(probes.measure(attacked, clean))}
    measured = [probes.measure(model, clean) for model, _ in references]
    rows["retrained"] = {key: statistics.fmean(row[key] for row in measured) for key in measured[0]}
    rows["retrained"]["seconds"] = statistics.fmean(seconds for _, seconds in references)
    kind = "__".join(clean.target)
    found = resolve(ForgetRequest(edges={kind: tuple(injection.edge_id.tolist())}), injection.data)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.methods:
            method, row, state = METHODS[name](), {}, None
            if method.needs_state:
                started, state = time.process_time(), Path(folder) / name
                made = method.prepare(attacked, injection.data, seed=0, fit=fit, folder=Path(folder) / "work")
                write_contents(state, made.files)
                row["prepare_seconds"] = time.process_time() - started
            task = Task(attacked, injection.data, remaining(injection.data, found), found, fit=fit, state=state)
            started = time.process_time()
            outcome = method.unlearn(task)
            row["seconds"] = time.process_time() - started
            rows[name] = {**row, **probes.measure(outcome.model, clean), "facts": dict(outcome.facts)}
    truth = rows["retrained"]
    for name, entry in rows.items():
        entry["gap_sd"] = abs(entry["injected"] - truth["injected"]) / truth["random_sd"]
        entry["recall_ratio"] = entry["recall@20"] / truth["recall@20"]
        entry["auc_difference"] = abs(entry["auc"] - truth["auc"])
        entry["speed_up"] = truth["seconds"] / entry["seconds"] if "seconds" in entry else None
        print(name, {key: round(v, 4) for key, v in entry.items() if isinstance(v, float)}, flush=True)
    record = {"options": vars(options), "injected": len(injection), "rows": rows, "environment": environment()}
    RESULTS.joinpath(f"unlearnrec-{options.dataset}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
