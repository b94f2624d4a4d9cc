"""The audit log of a run: what was forgotten, when, by which method, and what may be claimed; no personal data.

``audit.jsonl`` is append-only: a record a line, canonical JSON, each with the SHA-256 of the one before, so that a
record that is edited, taken out or moved breaks the chain at its line. Each record names the run's files with their
SHA-256 at that time. Whoever can write the folder can write the whole log anew; that shows only where the hash of the
last record (:func:`head`) is kept elsewhere.

A request stands in the log as a digest over a random salt and the request. The salt lies in ``audit.salt``; once
:func:`destroy_salt` has removed it, the digest cannot be matched with any request.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from graphrec.errors import InputError, MissingFileError, unknown
from graphrec.runs import Run
from graphrec.runs.environment import environment
from graphrec.runs.manifest import Content, as_json, yaml_bytes
from graphrec.runs.portable import portable_config
from graphrec.unlearning.identifiers import Identifiers

LOG: Final = "audit.jsonl"
SALT: Final = "audit.salt"
FIRST: Final = "0" * 64
"""What the first record names as the hash of the record before."""

FORMAT = 1

EVENTS = ("received", "blocked", "forgotten", "superseded", "purged", "verified", "salt destroyed")

# Every field a record may have; all but the first few are given by whoever appends it.
_MADE = ("format", "sequence", "written", "previous", "files", "hash")
FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "event": str,
    "request": dict,  # id, digest (salted), counts by kind, requester (a class, no name)
    "operator": str,  # a role, no name
    "dataset": dict,  # fingerprints: before, after
    "method": str,
    "options": dict,
    "exactness": str,
    "claims": dict,  # level by module
    "seeds": dict,
    "code": dict,
    "machine": dict,
    "started": str,
    "ended": str,
    "seconds": dict,
    "touched": dict,  # counts: users, items, edges, shards
    "metrics": dict,
    "budget": dict,  # what was spent of what is allowed: requests, drift, residual
    "purged": list,  # names of files that held the forgotten data and are gone
    "scan": dict,  # ok, counts of what was checked and found
    "note": str,
}
_EXACTNESS = ("exact", "conditional", "approximate", "heuristic")


def new_salt() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(32)


def read_salt(run: Run) -> bytes | None:
    """The salt of a run's log, None where it was destroyed or there never was one."""
    file = run.path / SALT
    if not file.is_file():
        return None
    try:
        return bytes.fromhex(file.read_text(encoding="ascii").strip())
    except ValueError as error:
        raise InputError(f"{file} is no salt: expected 64 hexadecimal digits.") from error


def carried(before: Run | None = None) -> dict[str, Content]:
    """The log and the salt that a new run takes over from the run before it, as ``extra_files`` of ``write_run``.

    A new salt is made where there is none yet.
    """
    log = b"" if before is None or not (before.path / LOG).is_file() else (before.path / LOG).read_bytes()
    salt = None if before is None else read_salt(before)
    return {LOG: log, SALT: (salt or new_salt()).hex().encode() + b"\n"}


def facts() -> dict[str, Any]:
    """``code`` and ``machine`` of a record, from this process."""
    found = environment()
    versions = found.pop("versions")
    return {"code": versions, "machine": {**found, "devices": ", ".join(found["devices"])}}


def timestamp(moment: datetime | None = None) -> str:
    """UTC to the second, ISO 8601; None: now."""
    return (moment or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")


def append(run: Run, entry: Mapping[str, Any], identifiers: Identifiers | None = None) -> Run:
    """Add a record to a run's log, in one step with the manifest.

    Args:
        run: whose log it is; the record names its files as they are now.
        entry: fields of :data:`FIELDS`; ``event`` is required.
        identifiers: of what was forgotten; a record that mentions one is refused.

    Returns:
        The run with the new log.

    Raises:
        InputError: a field that does not exist or has another type, personal data, or a log that is broken already.
    """
    check_private(entry, identifiers or Identifiers())
    text = _text(run) if (run.path / LOG).is_file() else ""
    records = _checked(text, str(run.path / LOG))
    record = {
        "format": FORMAT,
        "sequence": len(records),
        "written": timestamp(),
        **as_json(entry),
        "files": file_hashes(run),
        "previous": records[-1]["hash"] if records else FIRST,
    }
    record["hash"] = _hash(record)
    return run.add({LOG: text + _line(record) + "\n"}, {LOG: ("aggregates",)})


def check_private(entry: Mapping[str, Any], identifiers: Identifiers) -> None:
    """Refuse a record with a field that is not foreseen, with a list of ids, or that mentions an identifier.

    Raises:
        InputError: names the place, never the identifier.
    """
    for name, value in entry.items():
        if name not in FIELDS:
            raise unknown("field of an audit record", name, FIELDS)
        if not isinstance(value, FIELDS[name]) and not (FIELDS[name] is dict and isinstance(value, Mapping)):
            raise InputError(f"audit record: {name} must be a {FIELDS[name]}, found a {type(value).__name__}.")
    if entry.get("event") not in EVENTS:
        raise unknown("event", str(entry.get("event")), EVENTS)
    if "exactness" in entry and entry["exactness"] not in _EXACTNESS:
        raise unknown("exactness", str(entry["exactness"]), _EXACTNESS)
    for field, group in (("request", ("id", "digest", "counts", "requester", "fingerprint")),):
        for name in entry.get(field, {}):
            if name not in group:
                raise InputError(
                    f"audit record: {field} may hold {', '.join(group)}, found {name!r}; the selectors themselves are "
                    "personal data."
                )
    for field in ("touched",):
        _only_numbers(entry.get(field, {}), field)
    _only_numbers(entry.get("request", {}).get("counts", {}), "request.counts")
    places = identifiers.mentioned_in(as_json(entry))
    if places:
        raise InputError(
            f"audit record: {', '.join(places[:3])} mentions an id or a name of what was forgotten; a record must hold "
            "no personal data."
        )


def _only_numbers(values: Mapping[str, Any], where: str) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"audit record: {where} holds counts; {name!r} is a {type(value).__name__}.")


def file_hashes(run: Run) -> dict[str, str]:
    """SHA-256 of each file of a run as the manifest has it, the log and the salt left out.

    Of ``config.yaml`` it is that of its portable form, so that a copy without this machine's paths agrees.
    """
    found = {name: str(entry["sha256"]) for name, entry in run.files.items() if name not in (LOG, SALT)}
    if "config.yaml" in found:
        found["config.yaml"] = hashlib.sha256(yaml_bytes(portable_config(run.config))).hexdigest()
    return found


def read(source: Run | str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a log, in order, after :func:`check_chain`.

    Args:
        source: a run, or the path of a run or of a log.
    """
    return check_chain(source)


def check_chain(source: Run | str | os.PathLike[str], *, head: str | None = None) -> list[dict[str, Any]]:
    """Check that a log is the one that was written, as far as it can tell itself.

    Args:
        source: a run, or the path of a run or of a log.
        head: the hash of the last record, where it was kept elsewhere.

    Returns:
        The records.

    Raises:
        MissingFileError: there is no log.
        InputError: names the first line that was edited, follows on a line that is not there, or is out of order.
    """
    path = _path(source)
    records = _checked(_text(source), str(path))
    last = records[-1]["hash"] if records else FIRST
    if head is not None and head != last:
        known = [record["hash"] for record in records]
        behind = f"records follow on line {known.index(head) + 1}" if head in known else "no line has it"
        raise InputError(f"{path}: the last record should have the hash {head}, it has {last}; {behind}.")
    return records


def head(source: Run | str | os.PathLike[str]) -> str:
    """The hash of the last record: kept elsewhere, it pins the whole log."""
    records = check_chain(source)
    return str(records[-1]["hash"]) if records else FIRST


def destroy_salt(run: Run, *, operator: str | None = None) -> Run:
    """Remove the salt at the end of retention; a record says so.

    Other copies of the run (backups, a hub) have to be seen to apart.
    """
    if not (run.path / SALT).is_file():
        raise MissingFileError(f"{run.path / SALT} is not there; nothing is left to destroy.")
    run = run.add({}, remove=(SALT,))
    entry: dict[str, Any] = {"event": "salt destroyed", "purged": [SALT]}
    return append(run, entry if operator is None else {**entry, "operator": operator})


def _path(source: Run | str | os.PathLike[str]) -> Path:
    path = source.path if isinstance(source, Run) else Path(source)
    return path / LOG if path.is_dir() else path


def _text(source: Run | str | os.PathLike[str]) -> str:
    path = _path(source)
    if not path.is_file():
        raise MissingFileError(f"{path} is not there: nothing was forgotten by this run, or its log was taken away.")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: no UTF-8.") from error


def _checked(text: str, where: str) -> list[dict[str, Any]]:
    """The records of a log's text; raises at the first line that breaks the chain."""
    records: list[dict[str, Any]] = []
    lines = text.split("\n")
    if lines.pop() != "":
        raise InputError(f"{where}, line {len(lines) + 1}: the record was cut; every line ends in a line feed.")
    previous = FIRST
    for number, line in enumerate(lines, start=1):
        at = f"{where}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{at}: no JSON: {error.msg} in column {error.colno}.") from error
        if not isinstance(record, dict) or _line(record) != line:
            raise InputError(f"{at}: not written as graphrec writes it; the line was edited.")
        if record.get("hash") != _hash(record):
            raise InputError(f"{at}: its hash is not that of its content; the record was edited.")
        if record.get("previous") != previous or record.get("sequence") != number - 1:
            raise InputError(f"{at}: it does not follow on the line before; a record was taken out, put in or moved.")
        records.append(record)
        previous = record["hash"]
    return records


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _hash(record: Mapping[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name != "hash"}
    return hashlib.sha256(_line(content).encode()).hexdigest()


def latest(records: Sequence[Mapping[str, Any]], event: str) -> Mapping[str, Any] | None:
    """The last record of an event, None where there is none."""
    return next((record for record in reversed(records) if record.get("event") == event), None)
