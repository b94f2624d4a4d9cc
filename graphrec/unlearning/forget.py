"""``forget``: a request carried out on a run, from the lock to the evidence."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphrec.datasets.cache import save_dataset
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.evaluation import evaluate
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run, as_model
from graphrec.runs.files import clear_errors
from graphrec.runs.manifest import SUPERSEDED, Content, json_bytes, yaml_bytes
from graphrec.runs.write import check_replaceable
from graphrec.serving import Recommender
from graphrec.serving.mask import MASK, Mask
from graphrec.training.checkpoint import Standing
from graphrec.training.job import Job
from graphrec.training.options import FitOptions
from graphrec.unlearning import audit
from graphrec.unlearning.budget import Budget, Spent
from graphrec.unlearning.claims import claims_for
from graphrec.unlearning.compaction import compacted_model
from graphrec.unlearning.evidence import Report, Seconds, evaluate_unlearning
from graphrec.unlearning.identifiers import Identifiers
from graphrec.unlearning.methods import METHODS
from graphrec.unlearning.methods.base import Outcome, Task, Unlearner
from graphrec.unlearning.methods.retrain import Retrain
from graphrec.unlearning.page import forgetting_page
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import Resolved, compacted, counts, kept_nodes, remaining, resolve
from graphrec.unlearning.scanner import scan
from graphrec.unlearning.workspace import Workspace, lock

STATE = "state/"
"""Where a run keeps what a method needs for later requests."""

EVIDENCE, PAGE = "forgetting.json", "forgetting.html"


def forget(
    rec: Run | Recommender | str | os.PathLike[str],
    data: RecDataset | None,
    request: ForgetRequest | Mapping[str, Any],
    *,
    method: str | Unlearner = "retrain",
    out: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    references: int = 3,
    ks: Sequence[int] = (20,),
    budget: Budget | None = None,
    strict: bool = False,
    resume: bool = False,
    data_out: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
    allow_superseded: bool = False,
) -> Run:
    """Forget, and write a run that holds nothing of it, with the evidence.

    What is asked for is blocked at serving at once, in the old run's folder and in ``rec``. Then the method works; its
    model is measured beside the old one, the old one with the mask, and models trained anew without the data; the rows
    of users and items that go wholly are taken out; the new run is written, scanned for what it must not hold, and put
    in place in one step; last, the old run is marked as superseded. A process that dies on the way leaves the old run
    (masked) and no new one; ``resume=True`` goes on.

    Args:
        rec: a run, its path, or a recommender opened from one (whose lists change at once).
        data: what it was trained on; None: loaded again as the run says.
        request: what is to be forgotten.
        method: the name of a method (:data:`graphrec.unlearning.METHODS`), or one with its options.
        out: folder of the new run.
        options: of the method, where it is given by name.
        references: how many models are trained anew to compare with, seeds apart; 0: none, and the evidence says so.
        ks: lengths of the lists that are compared.
        budget: how much may add up before an exact method is demanded; None: a :class:`Budget` as it is.
        strict: whether something the dataset does not have is an error; else it is reported.
        resume: go on with this request where a process died.
        data_out: folder to write the dataset without what was forgotten to; later requests need it, unless the source
            itself is cleaned.
        device: where to compute; None: the CPU.
        progress: whether to show progress on standard error.
        allow_superseded: whether a superseded run may be asked again.

    Returns:
        The new run: ``forgetting.json`` and ``forgetting.html`` hold the evidence, ``audit.jsonl`` the log.

    Raises:
        InputError: the request is malformed, of another dataset, or leaves nothing; the method does not support the
            model, or the budget is spent; the run is locked by another request; the new run would hold what it must
            not.

    Warns:
        UserWarning: lists, vectors or pages that were made from the old run still hold what was forgotten; the page
            says so too, and makes no claim for caches.
    """
    run = run_of(rec, allow_superseded)
    data = run.dataset() if data is None else data
    run.check_data(data)
    asked = request if isinstance(request, ForgetRequest) else ForgetRequest.from_dict(request)
    resolved = resolve(asked, data, strict=strict)
    chosen = method_of(method, options)
    model = rec.model if isinstance(rec, Recommender) and device is None else run.model(device or "cpu")
    check_supported(chosen, model, run)
    budget = Budget() if budget is None else budget
    spent = Spent.read(run.config, len(data.interactions("train")))
    _check_budget(chosen, spent, budget, resolved, data)
    path = Path(out)
    if path.resolve() == run.path.resolve():
        raise InputError(f"out={str(out)!r} is the run itself; the new run needs a folder of its own.")
    with clear_errors(path, "run", "Nothing was changed."):
        check_replaceable(path)
    space = Workspace(path)
    order = {
        "run": str(run.path.resolve()),
        "fingerprint": data.fingerprint,
        "request": asked.to_dict(),
        "method": chosen.name,
        "options": asdict(chosen),
    }
    with lock(run) as guard:
        space.open(order, resume)
        started = audit.timestamp()
        run = block(run, resolved, data, rec if isinstance(rec, Recommender) else None)
        work = _Work(run, model, data, resolved, chosen, space, references, tuple(ks), progress)
        outcome = work.outcome()
        report, retrained_seconds = work.evidence(outcome)
        new = work.write(outcome, asked, report, retrained_seconds, spent, budget, started, data_out)
        with clear_errors(path, "run", "The run before is whole."):
            _put_in_place(new, path)
        done = Run(path)
        run.add({SUPERSEDED: json_bytes({"by": path.name, "edges": len(resolved), "at": audit.timestamp()})})
        space.remove()
        shutil.rmtree(guard.folder)
    return done


def method_of(method: str | Unlearner, options: Mapping[str, Any] | None = None) -> Unlearner:
    """A method by its name with options, or one as it is.

    Raises:
        InputError: an unknown name or option.
    """
    if isinstance(method, Unlearner):
        if options:
            raise InputError("options go with the name of a method; this one has its own.")
        return method
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    cls = METHODS[method]
    known = [name for name in cls.__dataclass_fields__]
    for name in options or {}:
        if name not in known:
            raise unknown(f"option of {method}", name, known or ["none"])
    return cls(**(options or {}))


def check_supported(method: Unlearner, model: GraphRecommender, run: Run) -> None:
    """Raise where a method does not support a model, or needs a preparation that the run lacks."""
    why = method.refuses(model)
    if why is not None:
        able = ", ".join(name for name, other in METHODS.items() if other.refuses(model) is None)
        raise InputError(f"{method.name} does not support {type(model).__name__}: {why}. Methods that do: {able}.")
    if method.needs_state and not any(name.startswith(STATE) for name in run.files):
        raise InputError(
            f"{run.path} was not prepared for {method.name}: graphrec forget {run.path} --prepare --method "
            f"{method.name} --out OUT makes a run that is."
        )


def block(run: Run, resolved: Resolved, data: RecDataset, rec: Recommender | None = None) -> Run:
    """Stop serving what a request names: in the run's folder, and in a recommender that is in use.

    Args:
        run: trained on ``data``.
        resolved: the request.
        data: the dataset.
        rec: whose lists change at once.
    """
    table = data.tables[data.target]
    rows = table.positions(resolved.edges.get(data.target, np.empty(0, np.int64)))
    whole = {kind: resolved.nodes.get(kind, np.empty(0, np.int64)) for kind in (data.target[0], data.target[2])}
    mask = Mask(
        users=torch.from_numpy(whole[data.target[0]].copy()),
        items=torch.from_numpy(whole[data.target[2]].copy()),
        pairs=torch.from_numpy(np.stack([table.source[rows], table.target[rows]]).astype(np.int64)),
    )
    if rec is not None:
        rec.hide(mask)
    with clear_errors(run.path, "mask", "Nothing was changed."):
        file = run.path.with_name(f"{run.path.name}.forgetting") / MASK
        mask.union(Mask.read(run.path)).write(file)
        run = run.add({MASK: file})
        file.unlink()
    return run


@dataclass
class _Work:
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
        """The new run, complete and scanned, in the workspace."""
        keep = kept_nodes(self.data, self.resolved)
        data = compacted(self.data, self.resolved) if keep else self.left
        model = compacted_model(outcome.model, data, keep) if keep else outcome.model
        files = self._state(outcome, keep)
        staged = self._staged(model, data, outcome)
        spent = self._spent(spent, outcome)
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
        if retrained_seconds is not None:
            facts["retrain_seconds"] = retrained_seconds
        dataset = {**dict(self.run.config.get("dataset", {})), "fingerprint": data.fingerprint}
        dataset |= {"digests": data.digests(), "forgotten": len(self.resolved)}
        if data_out is not None:
            where = save_dataset(data, data_out)
            dataset = {key: dataset[key] for key in ("name", "fingerprint", "digests", "forgotten") if key in dataset}
            dataset["source"] = str(where.resolve())
        config = {**staged.config, "dataset": dataset, "unlearning": facts}
        metrics = {**staged.metrics, **{f"unlearning/{name}_seconds": v for name, v in outcome.seconds.items()}}
        metrics |= {f"unlearning/{name}": value for name, value in outcome.facts.items()}
        if report is not None:
            metrics |= report.metrics()
        contents: dict[str, Content] = {
            **files,
            **audit.carried(self.run),
            "config.yaml": yaml_bytes(config),
            "metrics.json": json_bytes(metrics),
        }
        staged = staged.add(contents, {STATE + name: words for name, words in outcome.holds.items()})
        identifiers = Identifiers.of(self.data, self.resolved)
        found = scan(staged, self.resolved, self.data, before=self.run)
        claims = claims_for(outcome.exactness, found, report)
        evidence = {
            **facts,
            "claims": {name: asdict(claim) for name, claim in claims.items()},
            "scan": found.to_dict(),
            "evidence": None if report is None else report.to_dict(),
        }
        salt = audit.read_salt(staged)
        assert salt is not None
        digest, ended, about = asked.digest(salt), audit.timestamp(), audit.facts()
        fingerprints = {"before": self.data.fingerprint, "after": data.fingerprint}
        told = {
            "run": self.space.out.name,
            "digest": digest,
            "counts": {name: count for name, count in facts["counts"].items() if not name.startswith("unknown/")},
            "unknown": {kind: len(entries) for kind, entries in self.resolved.unknown.items()},
            "requested": started,
            "finished": ended,
            "method": self.method.name,
            "exactness": outcome.exactness,
            "options": asdict(self.method),
            "seeds": {"training": self.seed, "references": self.references},
            "fingerprints": fingerprints,
            "scan": {
                **{name: value for name, value in found.summary().items() if name != "findings"},
                "still_there": ", ".join(dict.fromkeys(finding.where for finding in found.findings)) or "nothing",
            },
            "code": about["code"],
            "machine": {name: str(value) for name, value in about["machine"].items()},
        }
        page = forgetting_page(report, told, list(claims.values()))
        staged = staged.add({EVIDENCE: json_bytes(evidence), PAGE: page})
        found = scan(staged, self.resolved, self.data, before=self.run)
        inside = [finding for finding in found.findings if (staged.path / finding.where).exists()]
        if inside:
            raise InputError(
                "the new run would hold what was to be forgotten, so it was not written: "
                f"{'; '.join(map(str, inside[:5]))}"
            )
        for outside in dict.fromkeys(finding.where for finding in found.findings):
            warnings.warn(
                f"{outside}, made from the run before, still holds what was forgotten: delete it", stacklevel=3
            )
        entry = {
            "event": "forgotten",
            "request": {"digest": digest, "counts": facts["counts"]},
            "dataset": fingerprints,
            "method": self.method.name,
            "options": asdict(self.method),
            "exactness": outcome.exactness,
            "claims": {name: claim.level for name, claim in claims.items()},
            "seeds": {"training": self.seed},
            "started": started,
            "ended": ended,
            "seconds": dict(outcome.seconds),
            "touched": {"edges": len(self.resolved)},
            "metrics": {} if report is None else report.metrics(),
            "budget": {**spent.to_dict(), "due": spent.over(budget) or "no"},
            "scan": found.summary(),
            **about,
        }
        return audit.append(staged, entry, identifiers)

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
            was, now = (
                float(evaluate(model, self.left, split="test", ks=(20,), metrics=["recall"])["recall@20"])
                for model in (self.model, outcome.model)
            )
            loss = (was - now) / was if was else 0.0
        return spent.after(outcome.exactness, gone, len(self.left.interactions("train")), loss)


def run_of(rec: Any, allow_superseded: bool = False) -> Run:
    """The run behind a run, a recommender or a path, opened anew and checked."""
    if isinstance(rec, (str, os.PathLike)):
        return Run.open(rec, allow_superseded=allow_superseded)
    run = as_model(rec)[1] if not isinstance(rec, Run) else rec
    if run is None:
        raise InputError("forget works on a run, so that nothing of the old one is left behind: fit(…, out=FOLDER).")
    # What is in memory may be older than the folder.
    return Run.open(run.path, allow_superseded=allow_superseded)


def _check_budget(method: Unlearner, spent: Spent, budget: Budget, resolved: Resolved, data: RecDataset) -> None:
    if method.reaches() == "exact":
        return
    gone = len(resolved.training(data).get(data.target, ()))
    over = replace(spent, edges=spent.edges + gone, requests=spent.requests + bool(gone)).over(budget)
    if over is not None:
        raise InputError(
            f"{method.name} is {method.reaches()}, and with this request {over} would have been forgotten so since the "
            "last exact model: retrain, or state a larger budget."
        )


def _put_in_place(new: Run, path: Path) -> None:
    """Move the new run from the workspace to its place, in one step."""
    if path.exists():
        aside = path.with_name(f"{path.name}.forgetting") / "replaced"
        os.rename(path, aside)
        os.rename(new.path, path)
        shutil.rmtree(aside)
        return
    os.rename(new.path, path)
