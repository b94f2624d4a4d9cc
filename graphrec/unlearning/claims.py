"""What may be claimed of each part of a run after a request, from the method, the scan and the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, get_args

from graphrec.errors import unknown
from graphrec.unlearning.evidence.claims import Claim, Level, limited
from graphrec.unlearning.evidence.report import Report
from graphrec.unlearning.methods.base import Exactness
from graphrec.unlearning.readers.graphs import OTHERS, SEEN
from graphrec.unlearning.readers.models import MODEL
from graphrec.unlearning.scanner import Scan

MODULES: Final[Mapping[str, str]] = {
    "data source": "the files that the data was loaded from, and their converted copy",
    "run before": "the folder of the run that the request was made to",
    "id tables": "raw ids and names in the run's folder",
    "training graph": "edges, degrees and features that the model reads",
    "model": "parameters, and what is computed from them",
    "state": "what the method keeps for later requests: shards, an influence encoder",
    "evaluation": "metrics, pages and logs of the run",
    "caches": "lists, vectors, checkpoints and logs outside the run's folder",
    "serving": "the lists that the run gives",
}
"""The parts that claims are made of."""


def claims_for(
    exactness: Exactness, found: Scan, report: Report | None = None, *, retrained_state: bool | None = None
) -> dict[str, Claim]:
    """A claim for each part of a run; a part with a finding, or that was not looked at, has none.

    - ``data source``: L0 where it was loaded again and holds nothing of the request; L1 where it still does, because
      the run refuses such data.
    - ``run before``: L1 where it is still there: it is masked at serving and refuses to open.
    - ``id tables``, ``evaluation``, ``caches``: L0, observed by the scan.
    - ``training graph``: L4: it is compared edge by edge with the graph of what remains.
    - ``model``: L4 for an ``exact`` method. All others, the ``conditional`` ones with partitions made from the data
      among them, have L2 where the membership attacks of ``report`` show it and L1 where they do not.
    - ``state``: L4 for an ``exact`` method, else L0: attacks are run on the model and not on what lies beside it.
    - ``serving``: L1.

    Args:
        exactness: what the method reached for this request.
        found: the scan of the new run, with the request.
        report: the evidence, where there is any.
        retrained_state: whether the state is exact too; None: as the method is.

    Raises:
        InputError: ``exactness`` is no word of the contract.
    """
    if exactness not in get_args(Exactness):
        raise unknown("exactness", str(exactness), get_args(Exactness))
    claims = [
        _source(found),
        _before(found),
        _observed(found, "id tables", "L0", "the scan found no id and no name", lambda where: where.startswith("ids/")),
        _observed(
            found,
            "training graph",
            "L4",
            "equal to the graph of what remains, edge by edge",
            lambda where: where in (SEEN, OTHERS),
        ),
        _model(exactness, found, report),
        _state(exactness if retrained_state is None else ("exact" if retrained_state else "approximate"), found),
        _observed(found, "evaluation", "L0", "the scan found no id, no name and no metric of anybody", _evaluation),
        _caches(found),
        _serving(found),
    ]
    return {claim.module: claim for claim in claims if claim is not None}


def _observed(found: Scan, module: str, level: Level, why: str, own: Callable[[str], bool]) -> Claim | None:
    """A claim that rests on files that were looked at in full, None where there is a finding or no such file."""
    looked_at = [entry for entry in found.checked if own(entry.where)]
    if not looked_at or any(own(finding.where) for finding in found.findings):
        return None
    if not all(entry.full for entry in looked_at):
        return None
    return Claim(module, level, why)


def _evaluation(where: str) -> bool:
    return "/" not in where and where.endswith((".json", ".jsonl", ".html", ".csv", ".yaml", "per_user.parquet"))


def _source(found: Scan) -> Claim | None:
    there = [finding.where for finding in found.left if finding.kind != "stale"]
    if there:
        why = f"still in {there[0]}, and not read: the run refuses data that holds it"
        return Claim("data source", "L1", why, "L0")
    looked_at = [entry for entry in found.checked if entry.where == "source" and entry.full]
    return Claim("data source", "L0", "loaded again: nothing of the request is in it") if looked_at else None


def _before(found: Scan) -> Claim | None:
    there = any(finding.kind == "stale" for finding in found.left)
    why = "kept: masked at serving, and refuses to open once it is superseded; delete its folder to remove it"
    return Claim("run before", "L1", why, "L0") if there else None


def _model(exactness: Exactness, found: Scan, report: Report | None) -> Claim | None:
    if any(finding.where == MODEL for finding in found.findings):
        return None
    if exactness == "exact":
        return limited(Claim("model", "L4", "trained without the data, as if it had never been there"), report)
    why = "the membership attacks that were run do not tell it from retraining"
    return limited(Claim("model", "L2", why), report)


def _state(exactness: Exactness, found: Scan) -> Claim | None:
    if not any(entry.where.startswith("state/") for entry in found.checked):
        return None
    if any(finding.where.startswith("state/") for finding in found.findings):
        return None
    if exactness == "exact":
        return Claim("state", "L4", "every part that the data had touched was trained again")
    return Claim(
        "state", "L0", "no edge and no row of it is left; what it taught the rest is, and no attack was run on it"
    )


def _caches(found: Scan) -> Claim | None:
    outside = {finding.where for finding in found.findings if finding.kind in ("unlisted file", "missing file")}
    inside = ("ids/", "state/", SEEN, OTHERS, MODEL, "manifest.json", "source", "the dataset cache")
    own = [entry for entry in found.checked if not entry.where.startswith(inside) and not _evaluation(entry.where)]
    if outside or any(entry.where == finding.where for entry in own for finding in found.findings):
        return None
    if not own:
        return Claim("caches", "L0", "the manifests name none")
    part = [entry for entry in own if not entry.full]
    why = f"{len(own)} looked at" + (f", {len(part)} of them in part" if part else "")
    return Claim("caches", "L0", why)


def _serving(found: Scan) -> Claim | None:
    if not found.ok:
        return None
    return Claim("serving", "L1", "its lists rest on a graph without it; an item that was forgotten may come up again")
