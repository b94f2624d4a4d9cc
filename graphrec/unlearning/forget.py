"""``forget``: a request carried out on a run, from the lock to the evidence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run, as_model
from graphrec.runs.files import clear_errors, replace_folder
from graphrec.runs.manifest import SUPERSEDED, json_bytes
from graphrec.runs.write import check_replaceable
from graphrec.serving import Recommender
from graphrec.serving.mask import MASK, Mask
from graphrec.unlearning import audit
from graphrec.unlearning.budget import Budget, Spent
from graphrec.unlearning.carrying_out import STATE, Work
from graphrec.unlearning.methods import METHODS
from graphrec.unlearning.methods.base import Unlearner
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import Resolved, resolve
from graphrec.unlearning.workspace import Workspace, lock


def forget(
    rec: Run | Recommender | str | os.PathLike[str],
    data: RecDataset | None,
    request: ForgetRequest | Mapping[str, Any],
    *,
    method: str | Unlearner = "retrain",
    out: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    references: int = 3,
    ks: Sequence[int] | None = None,
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
        ks: lengths of the lists that are compared; None: those that the run was tested with.
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
    lengths = tuple(run.config.get("fit", {}).get("ks", (20,)) if ks is None else ks)
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
        work = Work(run, model, data, resolved, chosen, space, references, lengths, progress)
        outcome = work.outcome()
        report, retrained_seconds = work.evidence(outcome)
        new = work.write(outcome, asked, report, retrained_seconds, spent, budget, started, data_out)
        with clear_errors(path, "run", "The run before is whole."):
            replace_folder(new.path, path)
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
    over = spent.after(method.reaches(), gone, left=0, utility=0.0).over(budget)
    if over is not None:
        raise InputError(
            f"{method.name} is {method.reaches()}, and with this request {over} would have been forgotten so since the "
            "last exact model: retrain, or state a larger budget."
        )
