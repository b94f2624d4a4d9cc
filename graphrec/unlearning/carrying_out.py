"""A request under way: what the method makes of it, the evidence, and the new run, complete and scanned."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphrec.datasets.cache import save_dataset
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation import evaluate
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run
from graphrec.runs.manifest import Content, json_bytes, yaml_bytes
from graphrec.training.checkpoint import Standing
from graphrec.training.job import Job
from graphrec.training.options import FitOptions
from graphrec.unlearning import audit
from graphrec.unlearning.budget import Budget, Spent
from graphrec.unlearning.claims import claims_for
from graphrec.unlearning.compaction import compacted_model
from graphrec.unlearning.evidence import Report, Seconds, evaluate_unlearning
from graphrec.unlearning.identifiers import Identifiers
from graphrec.unlearning.methods.base import Outcome, Task, Unlearner
from graphrec.unlearning.methods.retrain import Retrain
from graphrec.unlearning.page import forgetting_page
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import Resolved, compacted, counts, kept_nodes, remaining
from graphrec.unlearning.scanner import Scan, scan, scan_further
from graphrec.unlearning.workspace import Workspace

STATE = "state/"
"""Where a run keeps what a method needs for later requests."""

EVIDENCE, PAGE = "forgetting.json", "forgetting.html"


@dataclass
class Work:
    """A request under way."""

    run: Run
    model: GraphRecommender
    data: RecDataset
    resolved: Resolved
    method: Unlearner
    space: Workspace
    references: int
    ks: tuple[int, ...]
    progress: bool

    def __post_init__(self) -> None:
        self.left = remaining(self.data, self.resolved)
        self.fit: dict[str, Any] = dict(self.run.config.get("fit", {}))
        self.seed = int(self.run.config.get("seed", 0))
        self.dropped: list[str] = []

    def task(self, name: str) -> Task:
        """The task, with a folder of its own for checkpoints."""
        work = self.space.work / name
        work.mkdir(parents=True, exist_ok=True)
        state = self.run.path / STATE if any(file.startswith(STATE) for file in self.run.files) else None
        return Task(
            model=self.model,
            data=self.data,
            remaining=self.left,
            resolved=self.resolved,
            seed=self.seed,
            fit=self.fit,
            state=state,
            work=work,
            progress=self.progress,
        )

    def outcome(self) -> Outcome:
        """What the method makes of it."""
        return self.method.unlearn(self.task("method"))

    def evidence(self, outcome: Outcome) -> tuple[Report | None, float | None]:
        """The four rows, and the seconds of one retraining; None where nothing was to be forgotten."""
        if self.resolved.empty:
            return None, None
        retrained: list[GraphRecommender] = []
        seconds: list[float] = []
        for number in range(self.references):
            if number == 0 and self.method == Retrain():
                # The method's own seed is one of them.
                retrained.append(outcome.model)
                seconds.append(float(outcome.seconds["request"]))
                continue
            made = Retrain(seed=self.seed + number).unlearn(self.task(f"reference-{number}"))
            retrained.append(made.model)
            seconds.append(float(made.seconds["request"]))
        one = float(np.median(seconds)) if seconds else None
        report = evaluate_unlearning(
            self.run,
            outcome.model,
            retrained,
            self.data,
            self.resolved,
            ks=self.ks,
            seconds=Seconds(
                unlearn=float(outcome.seconds["request"]),
                retrain=one,
                train=float(self.run.metrics.get("seconds", 0.0)),
                prepare=float(self.run.metrics.get("unlearning/prepare_seconds", 0.0)),
            ),
            seed=self.seed,
        )
        return report, one

    def write(
        self,
        outcome: Outcome,
        asked: ForgetRequest,
        report: Report | None,
        retrained_seconds: float | None,
        spent: Spent,
        budget: Budget,
        started: str,
        data_out: str | os.PathLike[str] | None,
    ) -> Run:
        """The new run, complete and scanned, in the workspace.

        Raises:
            InputError: the scan found something in it; nothing is put in place.
        """
        keep = kept_nodes(self.data, self.resolved)
        data = compacted(self.data, self.resolved) if keep else self.left
        model = compacted_model(outcome.model, data, keep) if keep else outcome.model
        state = self._state(outcome, keep)
        facts = self._facts(outcome, self._spent(spent, outcome), budget, retrained_seconds)
        staged = self._staged(model, data, outcome)
        config = {**staged.config, "dataset": self._dataset(data, data_out), "unlearning": facts}
        metrics = {**staged.metrics, **{f"unlearning/{name}_seconds": v for name, v in outcome.seconds.items()}}
        metrics |= {f"unlearning/{name}": value for name, value in outcome.facts.items()}
        metrics |= {} if report is None else report.metrics()
        contents = {"config.yaml": yaml_bytes(config), "metrics.json": json_bytes(metrics)}
        held = {STATE + name: words for name, words in outcome.holds.items()}
        staged = staged.add({**state, **audit.carried(self.run), **contents}, held)
        found = scan(staged, self.resolved, self.data, before=self.run)
        claims = claims_for(outcome.exactness, found, report)
        salt = audit.read_salt(staged)
        assert salt is not None  # audit.carried has just made or brought one
        about = audit.facts()
        told = {
            "digest": asked.digest(salt),
            "started": started,
            "ended": audit.timestamp(),
            "fingerprints": {"before": self.data.fingerprint, "after": data.fingerprint},
        }
        evidence = {
            **facts,
            "claims": {name: asdict(claim) for name, claim in claims.items()},
            "scan": found.to_dict(),
            "evidence": None if report is None else report.to_dict(),
        }
        page = forgetting_page(report, self._page_facts(facts, told, found, about), list(claims.values()))
        staged = staged.add({EVIDENCE: json_bytes(evidence), PAGE: page})
        found = scan_further(found, staged)
        _check_clean(staged, found)
        staged.verify()  # what is sealed is what was written and scanned
        entry = {
            "event": "forgotten",
            "request": {"digest": told["digest"], "counts": facts["counts"]},
            "dataset": told["fingerprints"],
            **{name: facts[name] for name in ("method", "options", "exactness", "seconds")},
            "claims": {name: claim.level for name, claim in claims.items()},
            "seeds": {"training": self.seed},
            "started": started,
            "ended": told["ended"],
            "touched": {"edges": len(self.resolved)},
            "metrics": {} if report is None else report.metrics(),
            "budget": {**facts["spent"], "due": facts["due"] or "no"},
            "scan": found.summary(),
            **about,
        }
        return audit.append(staged, entry, Identifiers.of(self.data, self.resolved))

    def _facts(self, outcome: Outcome, spent: Spent, budget: Budget, retrained_seconds: float | None) -> dict[str, Any]:
        """What was done, as the run's config and evidence hold it."""
        facts: dict[str, Any] = {
            "method": self.method.name,
            "options": asdict(self.method),
            "exactness": outcome.exactness,
            "seconds": dict(outcome.seconds),
            "facts": dict(outcome.facts),
            "counts": counts(self.resolved),
            "spent": spent.to_dict(),
            "budget": asdict(budget),
            "due": spent.over(budget),
            "state_dropped": self.dropped,
        }
        return facts if retrained_seconds is None else {**facts, "retrain_seconds": retrained_seconds}

    def _dataset(self, data: RecDataset, data_out: str | os.PathLike[str] | None) -> dict[str, Any]:
        """Where the new run finds its data: where it was written to, else where it was, once that is cleaned."""
        known = dict(self.run.config.get("dataset", {}))
        own = {"fingerprint": data.fingerprint, "digests": data.digests(), "forgotten": len(self.resolved)}
        if data_out is None:
            return {**known, **own}
        return {"name": known.get("name", data.name), "source": str(save_dataset(data, data_out).resolve()), **own}

    def _page_facts(
        self, facts: Mapping[str, Any], told: Mapping[str, Any], found: Scan, about: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the page is told: counts and words, no list of anything."""
        scanned = {name: value for name, value in found.summary().items() if name != "findings"}
        still_there = ", ".join(dict.fromkeys(finding.where for finding in found.findings)) or "nothing"
        return {
            "run": self.space.out.name,
            "digest": told["digest"],
            "counts": {name: count for name, count in facts["counts"].items() if not name.startswith("unknown/")},
            "unknown": {kind: len(entries) for kind, entries in self.resolved.unknown.items()},
            "requested": told["started"],
            "finished": told["ended"],
            "fingerprints": told["fingerprints"],
            **{name: facts[name] for name in ("method", "exactness", "options")},
            "seeds": {"training": self.seed, "references": self.references},
            "scan": {**scanned, "still_there": still_there},
            "code": about["code"],
            "machine": {name: str(value) for name, value in about["machine"].items()},
        }

    def _staged(self, model: GraphRecommender, data: RecDataset, outcome: Outcome) -> Run:
        """The run of the unlearned model as any training writes one."""
        known = {name: value for name, value in self.fit.items() if name != "progress"}
        job = Job(model, data, FitOptions.from_config({**known, "progress": self.progress}), report=True)
        job.seed = self.seed
        epochs = int(outcome.facts.get("epochs", 0))
        standing = Standing(epoch=epochs, seconds=float(outcome.seconds["request"]), finished=True)
        return job.write(self.space.staged, standing, None)

    def _state(self, outcome: Outcome, keep: Mapping[str, np.ndarray]) -> dict[str, Content]:
        """The state that the new run carries on; without what its method cannot bring to the smaller tables."""
        if not keep or not outcome.files:
            return {STATE + name: content for name, content in outcome.files.items()}
        made = self.method.compacted_state(outcome.files, keep, self.space.work)
        if made is None:
            self.dropped = sorted(outcome.files)
            return {}
        return {STATE + name: content for name, content in made.items()}

    def _spent(self, spent: Spent, outcome: Outcome) -> Spent:
        gone = len(self.resolved.training(self.data).get(self.data.target, ()))
        loss = 0.0
        if outcome.exactness != "exact" and gone and "test" in self.left.parts:
            k = max(self.ks)
            was, now = (
                float(evaluate(model, self.left, split="test", ks=(k,), metrics=["recall"])[f"recall@{k}"])
                for model in (self.model, outcome.model)
            )
            loss = (was - now) / was if was else 0.0
        return spent.after(outcome.exactness, gone, len(self.left.interactions("train")), loss)


def _check_clean(staged: Run, found: Scan) -> None:
    """Raise where the new run holds what it must not; warn of what others made from the old one."""
    inside = [finding for finding in found.findings if (staged.path / finding.where).exists()]
    if inside:
        raise InputError(
            f"the new run would hold what was to be forgotten, so it was not written: {'; '.join(map(str, inside[:5]))}"
        )
    for outside in dict.fromkeys(finding.where for finding in found.findings):
        said = "made from the run before, still holds what was forgotten: delete it"
        warnings.warn(f"{outside}, {said}", stacklevel=4)
