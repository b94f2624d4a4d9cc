"""What may be said of a model after forgetting: the ladder L0 to L4, and a claim cut down to what was shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from graphrec.errors import unknown
from graphrec.unlearning.evidence.report import Report

Level = Literal["L0", "L1", "L2", "L3", "L4"]

LEVELS: Mapping[str, str] = {
    "L0": "removed from storage",
    "L1": "not recommended, not used as input",
    "L2": "empirically indistinguishable from retraining under the stated attacks",
    "L3": "certified for this module",
    "L4": "exact by construction",
}
"""What each level says; only L3 and L4 are more than an observation."""


@dataclass(frozen=True)
class Claim:
    """What is claimed of one module (the model, the lists that are served, a file).

    Attributes:
        module: its name.
        level: see :data:`LEVELS`.
        why: what it rests on.
        asked: the level that was claimed before it was cut down; the same where it was not.
    """

    module: str
    level: str
    why: str = ""
    asked: str = ""

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise unknown("claim level", str(self.level), LEVELS)
        if not self.asked:
            object.__setattr__(self, "asked", self.level)


def claims_of(claims: Mapping[str, str | tuple[str, str]]) -> list[Claim]:
    """Claims from levels by module, each alone or with its reason."""
    return [
        Claim(module, given) if isinstance(given, str) else Claim(module, given[0], given[1])
        for module, given in claims.items()
    ]


def limited(claim: Claim, report: Report | None) -> Claim:
    """The claim, or what is left of it where the evidence does not carry it.

    L2 rests on the attacks alone: it becomes L1 where no report shows it (:attr:`Report.indistinguishable`). L3 and L4
    rest on a proof or on how the model was made, which the method answers for; but a model that an attack tells from
    retraining with its whole interval is not exact, whatever the method says, and L1 is what is left.
    """
    if claim.level in ("L0", "L1"):
        return claim
    if report is not None and any(one.verdict == "beyond" for one in report.attacks):
        doubt = report.in_doubt
    elif claim.level == "L2":
        doubt = "no evidence was measured" if report is None else report.in_doubt
    else:
        return claim
    if not doubt:
        return claim
    return Claim(claim.module, "L1", f"{claim.level} was claimed and is not shown: {doubt}", claim.asked)
