"""Verification of a run that has forgotten: its bytes, its log, what a scan can tell, and a replay of the training.

What each level of knowledge shows:

- the run alone: no byte was changed since it was written, no file put in or taken out, the log's chain is whole and
  names these very files; everything derived follows from the training graph.
- with the hash of the log's last record, kept elsewhere: that nobody wrote run and log anew.
- with the request and the data before: that nothing of the request is in the run, and that the log speaks of this
  request.
- with a replay (exact methods): that training on what remains gives these weights, bit for bit on the same machine and
  versions.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.fingerprint import file_sha256
from graphrec.errors import InputError
from graphrec.runs import Run
from graphrec.runs.manifest import MANIFEST, SUPERSEDED, seal_problem
from graphrec.serving.mask import MASK
from graphrec.unlearning import audit
from graphrec.unlearning.compaction import compacted_model
from graphrec.unlearning.methods import METHODS
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.readers.findings import some
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import Resolved, compacted, kept_nodes, remaining, resolve
from graphrec.unlearning.scanner import Scan, scan

# What a later request puts into a run's folder, after the record that names its files.
_LATER = frozenset({MASK, SUPERSEDED})


@dataclass
class Verification:
    """What was checked, in order.

    Attributes:
        steps: whether each check was passed (None: it was not made), and a sentence about it.
        scan: of the run; None where its files are not those that were written.
    """

    steps: list[tuple[bool | None, str]] = field(default_factory=list)
    scan: Scan | None = None

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(passed is not False for passed, _ in self.steps)

    @property
    def problems(self) -> list[str]:
        """The sentences of the checks that failed."""
        return [line for passed, line in self.steps if passed is False]

    def lines(self) -> list[str]:
        """A line for each check."""
        words = {True: "ok", False: "FAILED", None: "not checked"}
        return [f"{words[passed]}: {line}" for passed, line in self.steps]

    def note(self, passed: bool | None, line: str) -> None:
        """Add a check."""
        self.steps.append((passed, line))


def verify(
    run: Run | str | os.PathLike[str],
    request: ForgetRequest | Mapping[str, Any] | None = None,
    data: RecDataset | None = None,
    *,
    before: Run | str | os.PathLike[str] | None = None,
    also: Sequence[str | os.PathLike[str]] = (),
    head: str | None = None,
    replay: bool = False,
) -> Verification:
    """Check a run that has forgotten, with as much as is known.

    Args:
        run: the run after the request.
        request: what was to be forgotten; goes with ``data``.
        data: the dataset before the request.
        before: the run before; see :func:`graphrec.unlearning.scanner.scan`.
        also: further files and folders to scan.
        head: the hash of the log's last record, where it was kept elsewhere.
        replay: train again from what remains and compare the weights; for exact methods, needs request and data, and
            takes as long as the training.

    Raises:
        InputError: there is no folder at ``run``, or request and data are not both given.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    if not path.is_dir():
        raise InputError(f"{path} is no folder of a run.")
    if (request is None) != (data is None):
        raise InputError("the request and the data before it go together: give both or neither.")
    if replay and request is None:
        raise InputError("a replay needs the request and the data before it.")
    made = Verification()
    _check_bytes(path, made)
    records = _check_chain(path, head, made)
    opened = _open(path, made) if made.ok else None
    if opened is None:
        # Whatever is read from files that were changed tells nothing of those that were written.
        made.note(None, "the scan: the files are not those that were written")
        return made
    _check_record(opened, records, made)
    resolved = _check_request(opened, records or [], request, data, made)
    _check_scan(opened, resolved, data, before, also, made)
    if replay and resolved is not None and data is not None:
        _replay(opened, records or [], resolved, data, made)
    return made


def run_verification(run: Run | str | os.PathLike[str], **options: Any) -> tuple[bool, list[str]]:
    """Whether a run passes :func:`verify`, and a line for each check."""
    made = verify(run, **options)
    return made.ok, made.lines()


# -- bytes -------------------------------------------------------------------------------------------------------------


def _check_bytes(path: Path, made: Verification) -> None:
    """Every byte of every file, without trusting anything that is read."""
    file = path / MANIFEST
    if not file.is_file():
        made.note(False, f"{MANIFEST} is not there")
        return
    problem = seal_problem(file.read_bytes())
    if problem is not None:
        made.note(False, f"{MANIFEST} was changed: {problem}")
        return
    made.note(True, f"{MANIFEST} is the one that was written")
    files = json.loads(file.read_bytes())["files"]
    there = {
        (Path(folder) / name).relative_to(path).as_posix()
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
    }
    wrong = []
    for name in sorted(set(files) | there - {MANIFEST}):
        if name not in files:
            wrong.append(f"{name} was put in: the manifest does not name it")
        elif name not in there:
            wrong.append(f"{name} was taken out: the manifest names it")
        elif file_sha256(path / name) != files[name]["sha256"]:
            wrong.append(f"{name} was changed: its SHA-256 is not the manifest's")
    for line in wrong:
        made.note(False, line)
    if not wrong:
        made.note(True, f"{len(files)} files have the SHA-256 that the manifest names, and no other file is there")


def _open(path: Path, made: Verification) -> Run | None:
    try:
        return Run(path, allow_superseded=True)
    except (InputError, OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        made.note(False, f"the run cannot be opened ({type(error).__name__})")
        return None


# -- the log -----------------------------------------------------------------------------------------------------------


def _check_chain(path: Path, head: str | None, made: Verification) -> list[dict[str, Any]] | None:
    """The chain; None where there is no log, or a broken one."""
    if not (path / audit.LOG).is_file():
        return None
    try:
        records = audit.check_chain(path, head=head)
    except InputError as error:
        made.note(False, str(error))
        return None
    if not records:
        made.note(False, f"{audit.LOG} is empty: its records were taken out")
        return None
    kept = "" if head is None else ", and ends in the hash that was kept"
    made.note(True, f"{audit.LOG}: the chain of {some(len(records), 'record')} is whole{kept}")
    return records


def _check_record(run: Run, records: list[dict[str, Any]] | None, made: Verification) -> None:
    """The last record against the run."""
    if records is None:
        forgot = "unlearning" in run.config or audit.SALT in run.files
        made.note(False if forgot else None, "there is no audit log" + (", and the run has forgotten" * forgot))
        return
    named, now = dict(records[-1].get("files", {})), audit.file_hashes(run)
    differing = sorted(name for name in named.keys() & now.keys() if named[name] != now[name])
    strange = sorted(now.keys() - named.keys() - _LATER)
    missing = sorted(named.keys() - now.keys())
    for names, what in ((differing, "changed"), (strange, "put in"), (missing, "taken out")):
        if names:
            made.note(False, f"since the last record {what}: {', '.join(names)}")
    if not (differing or strange or missing):
        made.note(True, f"the last record names these {len(named)} files by their SHA-256")
    forgotten = audit.latest(records, "forgotten")
    if forgotten is None:
        made.note(False, "no record says that anything was forgotten")
    else:
        agrees = forgotten.get("dataset", {}).get("after") == run.fingerprint
        made.note(agrees, f"the log and the manifest name {'the same dataset' if agrees else 'two datasets'}")
    if SUPERSEDED in run.files:
        made.note(None, f"this run is superseded: see {SUPERSEDED}")


# -- the request -------------------------------------------------------------------------------------------------------


def _check_request(
    run: Run,
    records: list[dict[str, Any]],
    request: ForgetRequest | Mapping[str, Any] | None,
    data: RecDataset | None,
    made: Verification,
) -> Resolved | None:
    """Whether the log speaks of this request, on this dataset."""
    if request is None or data is None:
        made.note(None, "the request: it was not given, so what it names was not looked for")
        return None
    asked = request if isinstance(request, ForgetRequest) else ForgetRequest.from_dict(request)
    record = audit.latest(records, "forgotten")
    salt = audit.read_salt(run)
    if record is None:
        made.note(False, "the request: the log has no record of any")
    elif salt is None:
        made.note(None, "the request's digest: the salt was destroyed, so no request can be matched with the log")
    else:
        said = record.get("request", {}).get("digest")
        same = asked.digest(salt) == said
        made.note(same, "the last record is of this request" if same else "the last record is of another request")
    if record is not None and record.get("dataset", {}).get("before") != data.fingerprint:
        made.note(False, "the last record names another dataset than the one that was given")
    return resolve(asked, data)


def _check_scan(
    run: Run,
    resolved: Resolved | None,
    data: RecDataset | None,
    before: Run | str | os.PathLike[str] | None,
    also: Sequence[str | os.PathLike[str]],
    made: Verification,
) -> None:
    try:
        found = scan(run, resolved, None if resolved is None else data, before, also)
    except (InputError, RuntimeError, ValueError, KeyError, TypeError) as error:
        made.note(False, f"the scan could not be done ({type(error).__name__}: {error})")
        return
    made.scan = found
    for finding in found.findings:
        made.note(False, f"scan: {finding}")
    part = sum(not entry.full for entry in found.checked)
    if found.ok:
        partly = f", {part} of them in part" if part else ""
        made.note(True, f"scan: nothing found in {len(found.checked)} checks{partly}")
    for finding in found.left:
        made.note(None, f"outside the run, and still there: {finding}")


# -- replay ------------------------------------------------------------------------------------------------------------


def weight_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bits of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _replay(run: Run, records: list[dict[str, Any]], resolved: Resolved, data: RecDataset, made: Verification) -> None:
    """Train on what remains, by the log's method and seed, and compare the weights."""
    record = audit.latest(records, "forgotten") or {}
    name, exactness = str(record.get("method")), record.get("exactness")
    if exactness != "exact" or name not in METHODS or METHODS[name].needs_state or resolved.empty:
        why = "nothing was asked for" if resolved.empty else f"{name} was {exactness}"
        if exactness == "exact" and not resolved.empty:
            why = f"{name} starts from shards that only the run before has"
        made.note(None, f"replay: {why}")
        return
    model, left = run.model(), remaining(data, resolved)
    seed = int(record.get("seeds", {}).get("training", run.config.get("seed", 0)))
    fit = {key: value for key, value in run.config.get("fit", {}).items() if key != "progress"}
    task = Task(model=model, data=data, remaining=left, resolved=resolved, seed=seed, fit=fit)
    trained = METHODS[name](**record.get("options", {})).unlearn(task).model
    keep = kept_nodes(data, resolved)
    if keep:
        trained = compacted_model(trained, compacted(data, resolved), keep)
    ours, theirs = weight_hash(model.state_dict()), weight_hash(trained.state_dict())
    if ours == theirs:
        made.note(True, f"replay: {name} on what remains gives the same weights (SHA-256 {ours[:16]})")
        return
    gaps = {
        key: float((value.double() - trained.state_dict()[key].double()).abs().max())
        for key, value in model.state_dict().items()
        if key in trained.state_dict() and value.shape == trained.state_dict()[key].shape and value.numel()
    }
    largest = max(gaps, key=lambda key: gaps[key]) if gaps else "a shape"
    versions, now = record.get("code", {}), audit.facts()["code"]
    other = [key for key in versions if versions[key] != now.get(key)]
    since = f"; versions differ: {', '.join(other)}" if other else ""
    gap = f"farthest in {largest} ({gaps.get(largest, 0):.2g}){since}"
    made.note(False, f"replay: {name} on what remains gives other weights, {gap}")
