"""The evidence as one value: facts, measures by row, attacks, histograms, cost; as JSON, Markdown and a frame."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from graphrec.errors import unknown
from graphrec.unlearning.evidence.efficiency import Efficiency
from graphrec.unlearning.evidence.measures import ROWS, Measure, Row, plain
from graphrec.unlearning.evidence.membership import STRONG, Attack
from graphrec.unlearning.evidence.recovery import Recovery
from graphrec.unlearning.evidence.scores import Histogram

FORMAT = 1


@dataclass(frozen=True)
class Check:
    """A number held against a bound that was stated beforehand.

    Attributes:
        name: what was asked.
        value: what was found; NaN where it was not run.
        bound: what was asked for.
        met: None where it was not run.
    """

    name: str
    value: float
    bound: float
    met: bool | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"name": self.name, "value": plain(self.value), "bound": self.bound, "met": self.met}


@dataclass(frozen=True)
class Report:
    """What :func:`graphrec.unlearning.evaluate_unlearning` found; aggregates alone, no id of anybody.

    Attributes:
        about: counts and names: ``dataset``, ``fingerprint``, ``model``, ``forgotten_edges``, ``retrained_models``, …
        rows: what became of each of the four rows: ``measured``, or ``not run: …`` and why.
        measures: every number, by section, metric, group and row.
        attacks: the membership attacks.
        histograms: of the forgotten pairs' scores and ranks.
        efficiency: seconds, memory, speed-ups.
        recovery: from injected edges, where the request was one of these.
        checks: numbers held against bounds.
        notes: everything that limits what the numbers show, in sentences.
        margin: the leak that was called none.
    """

    about: Mapping[str, Any]
    rows: Mapping[Row, str]
    measures: Sequence[Measure]
    attacks: Sequence[Attack]
    histograms: Mapping[str, Histogram]
    efficiency: Efficiency
    recovery: Sequence[Recovery] = ()
    checks: Sequence[Check] = ()
    notes: Sequence[str] = ()
    margin: float = 0.05
    _index: dict[tuple[str, str, str, str], Measure] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for one in self.measures:
            self._index[one.section, one.metric, one.row, one.group] = one

    def find(self, section: str, metric: str, row: str, group: str = "all") -> Measure | None:
        """One measure, None where it was not run."""
        if row not in ROWS:
            raise unknown("row", row, ROWS)
        return self._index.get((section, metric, row, group))

    def value(self, section: str, metric: str, row: str, group: str = "all") -> float:
        """Its value, NaN where it was not run."""
        found = self.find(section, metric, row, group)
        return math.nan if found is None else found.value

    @property
    def strong_attack(self) -> bool | None:
        """Whether some attack tells the forgotten pairs from others on the model trained with them; None: not run."""
        tried = [one.strong for one in self.attacks if one.strong is not None]
        return any(tried) if tried else None

    @property
    def indistinguishable(self) -> bool:
        """Whether the attacks show what level L2 says.

        At least one attack reaches AUC .7 on the model trained with the pairs, none is beyond the margin, and the whole
        interval of the leak of every attack that is strong, looks both ways or has both models is within it.
        """
        said = [one.verdict for one in self.attacks if one.verdict != "too weak"]
        return bool(self.strong_attack) and bool(said) and all(one == "within" for one in said)

    @property
    def in_doubt(self) -> str:
        """Why level L2 is not shown, in a clause; empty where it is."""
        if any(one.verdict == "beyond" for one in self.attacks):
            return "an attack tells it from retraining"
        if not self.attacks:
            return "no attack was run"
        if not self.strong_attack:
            return "no attack is strong enough to show it"
        if all(one.verdict == "not run" for one in self.attacks):
            return "nothing was retrained to compare with"
        return "" if self.indistinguishable else "the intervals of some leaks are too wide"

    @property
    def finding(self) -> str:
        """What the membership attacks show, in a sentence."""
        if not self.attacks:
            return "No membership attack was run."
        judged = [one for one in self.attacks if not math.isnan(one.leak)]
        beyond = [one.name for one in judged if one.verdict == "beyond"]
        strongest = max((one.auc_before for one in self.attacks if one.strong is not None), default=math.nan)
        if beyond:
            return (
                f"Told apart from retraining: the leak of {', '.join(beyond)} is beyond {self.margin:g} with its "
                "whole 95 % interval."
            )
        if not self.strong_attack:
            return (
                f"The attacks are too weak to show anything: the best reaches AUC {strongest:.3f} on the model that "
                f"was trained with the forgotten pairs, and {STRONG:g} is needed."
            )
        if not judged:
            return "No model was retrained, so there is nothing to compare the attacks with."
        if self.indistinguishable:
            return f"Not told apart from retraining: every attack's leak is within {self.margin:g} at 95 %."
        return (
            f"Undecided: no attack is beyond {self.margin:g}, but some intervals are wider than that; more retrained "
            "models or more pairs are needed."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values with lower-case keys; what was not run is None."""
        return {
            "format": FORMAT,
            "about": plain(self.about),
            "rows": dict(self.rows),
            "finding": self.finding,
            "strong_attack": self.strong_attack,
            "indistinguishable": self.indistinguishable,
            "margin": self.margin,
            "measures": [one.to_dict() for one in self.measures],
            "attacks": [one.to_dict() for one in self.attacks],
            "histograms": {name: one.to_dict() for name, one in self.histograms.items()},
            "efficiency": self.efficiency.to_dict(),
            "recovery": [one.to_dict() for one in self.recovery],
            "checks": [one.to_dict() for one in self.checks],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def metrics(self) -> dict[str, float]:
        """Flat numbers for a run's ``metrics.json``: ``unlearning/lists/overlap@20``, of the unlearned row."""
        return {
            f"unlearning/{one.section}/{one.metric}": one.value
            for one in self.measures
            if one.row == "unlearned" and one.group == "all"
        }

    def frame(self) -> pd.DataFrame:
        """A row for each measure."""
        names = ["section", "metric", "group", "row", "value", "sd", "low", "high", "gap", "gap_sd", "count", "models"]
        return pd.DataFrame([{name: getattr(one, name) for name in names} for one in self.measures], columns=names)

    def table(self) -> pd.DataFrame:
        """The four rows and what matters most of each: see :func:`key_columns`."""
        lines = []
        for row in ROWS:
            cells: dict[str, Any] = {"row": row}
            for title, (section, metric) in key_columns(self).items():
                found = self.find(section, metric, row)
                cells[title] = math.nan if found is None else found.value
                cells[f"{title} sd"] = math.nan if found is None else found.sd
            lines.append(cells)
        return pd.DataFrame(lines)

    def markdown(self) -> str:
        """The four-row table, the attacks, the checks and the notes as Markdown."""
        columns = key_columns(self)
        out = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
        for row in ROWS:
            if not self.rows[row].startswith("measured"):
                out.append(f"| {row} | {' | '.join([self.rows[row], *[''] * (len(columns) - 1)])} |")
                continue
            cells = [_cell(self.find(section, metric, row)) for section, metric in columns.values()]
            out.append(f"| {row} | {' | '.join(cells)} |")
        out += ["", self.finding, ""]
        if self.attacks:
            out += [
                "| attack | AUC before | unlearned | retrained | leak (95 %) | verdict |",
                "|---|---:|---:|---:|---:|---|",
            ]
            for one in self.attacks:
                values = [
                    _short(self.value("membership", f"{one.name}/auc", row)) for row in ("unlearned", "retrained")
                ]
                ends = "" if math.isnan(one.low) else f" ({one.low:+.3f} to {one.high:+.3f})"
                out.append(
                    f"| {one.name} | {_short(one.auc_before)} | {values[0]} | {values[1]} | "
                    f"{_short(one.leak, sign=True)}{ends} | {one.verdict} |"
                )
            out.append("")
        if self.checks:
            out += ["| asked | found | bound | met |", "|---|---:|---:|---|"]
            for check in self.checks:
                met = "not run" if check.met is None else "yes" if check.met else "no"
                out.append(f"| {check.name} | {_short(check.value)} | {check.bound:g} | {met} |")
            out.append("")
        out += [f"- {note}" for note in self.notes]
        return "\n".join(out).rstrip() + "\n"


def key_columns(report: Report) -> dict[str, tuple[str, str]]:
    """What the four-row table shows: title to section and metric."""
    k = max(report.about.get("ks", (20,)))
    attack = next(
        (one.name for one in sorted(report.attacks, key=lambda one: -one.auc_before) if one.strong is not None
         and not math.isnan(one.auc_before)), "threshold",
    )  # fmt: skip
    return {
        f"Recall@{k}": ("utility", f"recall@{k}"),
        f"NDCG@{k}": ("utility", f"ndcg@{k}"),
        "mean score of F": ("scores", "score_f"),
        "Δ_N": ("scores", "delta_n"),
        "rank of F": ("scores", "rank_f"),
        "F-AUC": ("scores", "f_auc"),
        f"attack AUC ({attack})": ("membership", f"{attack}/auc"),
        "TPR at 1 % FPR": ("membership", f"{attack}/tpr@1%"),
        f"overlap@{k} with retrained": ("lists", f"overlap@{k}"),
        f"RBO@{k}": ("lists", f"rbo@{k}"),
        "aligned distance": ("distance", "representations/aligned"),
    }


def _cell(found: Measure | None) -> str:
    if found is None:
        return "–"
    spread = "" if math.isnan(found.sd) else f" ± {found.sd:.4f}"
    return f"{found.value:.4f}{spread}"


def _short(value: float, sign: bool = False) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:+.3f}" if sign else f"{value:.3f}"
