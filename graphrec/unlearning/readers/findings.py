"""What a scan finds and what it looked at. No finding names an id: findings go to logs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

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


@dataclass(frozen=True)
class Scan:
    """What a scan found.

    Attributes:
        findings: everything that is not as it should be; nobody's id is in it.
        checked: what was looked at.
        left: what lies outside the run and still holds the data: the source it came from, the run before. It is no
            fault of the run, and as long as it is there the data is not removed from storage.
        under_way: the scan itself, for who goes on with it.
    """

    findings: tuple[Finding, ...]
    checked: tuple[Checked, ...]
    left: tuple[Finding, ...] = ()
    under_way: Any = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def of(self, *kinds: str) -> tuple[Finding, ...]:
        """The findings of some kinds."""
        return tuple(finding for finding in self.findings if finding.kind in kinds)

    def lines(self) -> list[str]:
        """The findings, then what is left, a sentence each."""
        return [str(finding) for finding in self.findings] + [f"still there: {finding}" for finding in self.left]

    def summary(self) -> dict[str, Any]:
        """Counts, for a log."""
        kinds = [finding.kind for finding in self.findings]
        return {
            "ok": self.ok,
            "checked": len(self.checked),
            "in_part": sum(not entry.full for entry in self.checked),
            "findings": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
            "left": len(self.left),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "ok": self.ok,
            "findings": [asdict(finding) for finding in self.findings],
            "checked": [asdict(entry) for entry in self.checked],
            "left": [asdict(finding) for finding in self.left],
        }


def lines_of(found: Scan) -> list[str]:
    """What a person reads of a scan: findings, or that there are none; what was checked; what is left."""
    head = [some(len(found.findings), "finding") if found.findings else "nothing found"]
    head += [f"  {line}" for line in found.lines()]
    return head + [f"  looked at {entry}" for entry in found.checked]
