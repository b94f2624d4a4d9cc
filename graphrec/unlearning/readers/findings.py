"""What a scan finds and what it looked at. No finding names an id: findings go to logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "row",
    "degree",
    "embedding row",
    "optimiser row",
    "neighbour",
    "list",
    "vector",
    "metric",
    "raw id",
    "feature",
    "text",
    "derived",
    "stale",
    "mask",
    "unlisted file",
    "missing file",
    "unknown file",
    "unreadable file",
]
"""``row``: an edge, or an edge that is missing; ``derived``: something made of edges that is not made of those that are
left; ``stale``: something that was made before the request."""


@dataclass(frozen=True)
class Finding:
    """Something that should not be there, or is not as it should be.

    Attributes:
        kind: of leak.
        where: the file, within the run or by its path.
        what: what was found, in a sentence that names nobody.
    """

    kind: Kind
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.what}"


@dataclass(frozen=True)
class Checked:
    """Something that was looked at.

    Attributes:
        where: the file.
        what: what was compared with what.
        full: whether all that could be leaked in it was looked for; False where that needs the request or the run
            before.
    """

    where: str
    what: str
    full: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}{'' if self.full else ' (in part)'}"


@dataclass
class Notes:
    """Findings and checks as they come.

    Attributes:
        findings: what fails the scan.
        left: what lies outside the run and still holds the data: its source, the run before.
        checked: what was looked at.
    """

    findings: list[Finding] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    checked: list[Checked] = field(default_factory=list)

    def find(self, kind: Kind, where: str, what: str) -> None:
        """Note a finding, once."""
        found = Finding(kind, where, what)
        if found not in self.findings:
            self.findings.append(found)

    def check(self, where: str, what: str, full: bool = True) -> None:
        """Note what was looked at."""
        self.checked.append(Checked(where, what, full))


def some(count: int, singular: str, plural: str | None = None) -> str:
    """ "1 row", "3 rows"."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
