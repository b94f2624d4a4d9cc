"""Settings, metrics, logs and other text: no word that says who."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from graphrec.unlearning.readers.findings import Notes
from graphrec.unlearning.readers.sought import Subject


def open_text(file: Path, where: str, notes: Notes) -> str | None:
    """A file's text, None where it is none."""
    try:
        return file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        notes.find("unreadable file", where, f"it is no text ({type(error).__name__})")
        return None


def read_values(subject: Subject, text: str, where: str, notes: Notes) -> None:
    """JSON, YAML, or JSON lines: every key and value, and the text as it stands."""
    try:
        if where.endswith((".yaml", ".yml")):
            values: list[Any] = list(yaml.safe_load_all(text))
        elif where.endswith(".jsonl"):
            values = [json.loads(line) for line in text.splitlines()]
        else:
            values = [json.loads(text)]
    except (ValueError, yaml.YAMLError) as error:
        notes.find("unreadable file", where, f"it cannot be read as its name says ({type(error).__name__})")
        return
    sought = subject.sought
    if sought is None:
        notes.check(where, "that it can be read", full=False)
        return
    places = [place for value in values for place in sought.identifiers.mentioned_in(value)]
    if places:
        notes.find("raw id", where, f"who is gone is mentioned in {', '.join(places[:3])}")
    if where == "config.yaml" and values and isinstance(values[0], Mapping):
        _read_config(subject, values[0], where, notes)
    # Comments, and whatever a reader of values leaves out.
    if not places and sought.identifiers.mentions(text):
        notes.find("raw id", where, "who is gone is mentioned in its text")
    notes.check(where, "words and ids")


def _read_config(subject: Subject, config: Mapping[str, Any], where: str, notes: Notes) -> None:
    sought = subject.sought
    dataset = config.get("dataset")
    if sought is None or sought.resolved.empty or not isinstance(dataset, Mapping):
        return
    if dataset.get("fingerprint") == sought.data.fingerprint:
        notes.find("stale", where, "it names the dataset before the request")


def read_plain(subject: Subject, text: str, where: str, notes: Notes) -> None:
    """Any other text."""
    if subject.sought is None:
        notes.check(where, "that it is text", full=False)
        return
    if subject.sought.identifiers.mentions(text):
        notes.find("raw id", where, "who is gone is mentioned in its text")
    notes.check(where, "words and ids")


def read_bytes(subject: Subject, file: Path, where: str, notes: Notes) -> None:
    """A file of another program (TensorBoard's events): its readable words."""
    if subject.sought is None:
        notes.check(where, "nothing", full=False)
        return
    text = file.read_bytes().decode("latin-1")
    if subject.sought.identifiers.mentions(text):
        notes.find("raw id", where, "who is gone is mentioned in its bytes")
    notes.check(where, "readable words", full=False)
