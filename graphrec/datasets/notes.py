"""What was done to data before it became the dataset it is."""

from __future__ import annotations

from dataclasses import dataclass

_BEFORE = ("check", "possible leak", "without", "zero")
"""Actions that are said before what they are about; the others after it, as in "3 items removed"."""


@dataclass(frozen=True)
class Note:
    """Something that was removed, merged, moved, or kept by a policy, and how much of it.

    Attributes:
        action: what was done ("merged", "removed", "kept", "split", …).
        subject: what it was done to: the name of a node type ("item") or an edge type ("user__interacts__item"), which
            a person is shown as "items" and "interactions"; or words.
        count: how many.
        detail: why, as a person would say it.
    """

    action: str
    subject: str
    count: int
    detail: str = ""

    def __str__(self) -> str:
        counted = f"{self.count:,} {_spoken(self.subject, self.count)}"
        said = f"{self.action}: {counted}" if self.action in _BEFORE else f"{counted} {self.action}"
        if not self.detail:
            return said
        # One colon is enough in a sentence.
        return f"{said}{', ' if ': ' in f'{said}{self.detail}' else ': '}{self.detail}"


def _spoken(subject: str, count: int) -> str:
    """The name of a type as a person would say it, in the plural but for one."""
    ends = subject.split("__")
    if len(ends) == 3:
        source, relation, target = ends
        if relation == "interacts":
            return "interaction" if count == 1 else "interactions"
        kind = "edge" if count == 1 else "edges"
        return f"{relation.replace('_', ' ')!r} {kind} from {source} to {target}"
    if subject not in _PLURALS:
        return subject
    return subject if count == 1 else _PLURALS[subject]


_PLURALS = {"user": "users", "item": "items", "entity": "entities", "tag": "tags", "triples": "triples"}
