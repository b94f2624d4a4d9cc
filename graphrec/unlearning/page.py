"""``forgetting.html``: one page that says what was asked, what was done, what was shown, and what was not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from graphrec.errors import InputError, unknown
from graphrec.reports import svg
from graphrec.reports.markup import document, scroll, section
from graphrec.reports.page import duration
from graphrec.unlearning.evidence.claims import LEVELS, Claim, claims_of, limited
from graphrec.unlearning.evidence.report import Report
from graphrec.unlearning.evidence.sections import (
    cost_and_bounds,
    distances,
    fairness,
    forgotten_scores,
    four_rows,
    membership_attacks,
    plain_words,
    recovered,
    those_who_stay,
)
from graphrec.unlearning.evidence.tables import as_share, pairs_table

_STYLE = """
.level { display: inline-block; min-width: 2.2rem; text-align: center; border-radius: 4px; padding: 0 6px;
  font-weight: 700; background: var(--tint); color: var(--accent); }
.level.cut { background: none; border: 1px solid var(--s1); color: var(--s1); }
.said { font-size: 1.05rem; } .said li { margin-bottom: .35rem; }
.rows td.own, .rows th.own { background: var(--tint); }
.s2.line { stroke-dasharray: 5 3; }
td.met { color: var(--good); font-weight: 600; } td.unmet { color: var(--s1); font-weight: 600; }
.limits { border-left: 4px solid var(--s1); }
.limits li { margin-bottom: .4rem; }
code.digest { overflow-wrap: anywhere; font-size: .85em; }
"""

EXACTNESS: Mapping[str, str] = {
    "exact": "the result is distributed as a training without the data",
    "conditional": "exact but for something that was made with the data and kept, such as how the data was cut up",
    "approximate": "an estimate of what a training without the data would have given",
    "heuristic": "neither exact nor an estimate with a known error",
}

FACTS = (
    "title", "run", "digest", "counts", "unknown", "requested", "finished", "method", "exactness", "options", "seeds",
    "fingerprints", "scan", "log", "code", "machine", "operator", "salt",
)  # fmt: skip
"""What the page may be told; anything else is refused, so that nobody's data gets in by the way."""

_ALWAYS = (
    "Attacks that were not run. An attack that fails says nothing of a stronger one.",
    "That a deletion took place is not hidden from somebody who has the model of before and that of after.",
    "Copies outside the run: backups, exported lists and vectors, other models trained on the same data, logs of "
    "whoever was served.",
    "Whether a law is satisfied. The page states what was done and measured.",
)

Value = str | int | float | bool | None


def forgetting_page(
    report: Report | None,
    facts: Mapping[str, Any],
    claims: Mapping[str, str | tuple[str, str]] | Sequence[Claim],
) -> str:
    """The page: one HTML file, nothing from outside, no id of anybody.

    Claims are cut down to what the report shows (:func:`graphrec.unlearning.evidence.limited`), and the page says so.

    Args:
        report: the evidence; None: the page says that nothing was measured.
        facts: some of :data:`FACTS`: strings, numbers, or mappings of these (``counts``, ``options``, ``unknown`` as
            numbers by kind). ``exactness`` is one of exact, conditional, approximate, heuristic.
        claims: level (L0 to L4) by module, alone or with its reason.

    Raises:
        InputError: a fact that the page does not know, a list among the facts, an unknown level or exactness.
    """
    told = _checked(facts)
    given = list(claims) if isinstance(claims, Sequence) else claims_of(claims)
    final = [limited(claim, report) for claim in given]
    title = str(told.get("title") or _title(report, told))
    sections = (
        _short(report, told, final),
        _request(report, told),
        _method(told),
        _claims(final),
        four_rows(report),
        forgotten_scores(report),
        membership_attacks(report),
        those_who_stay(report),
        fairness(report),
        distances(report),
        recovered(report),
        cost_and_bounds(report),
        _limits(report),
        _record(told),
    )
    return document(
        title,
        header=f'<p class="soft">{_subtitle(report, told)}</p>\n{_tiles(report, told, final)}',
        main="".join(sections),
        footer="F: the forgotten training interactions. Hover over lines and bars for their values. Every number is in "
        "the JSON beside this page.",
        style=_STYLE,
    )


# -- what is given -----------------------------------------------------------------------------------------------------


def _checked(facts: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in facts.items():
        if name not in FACTS:
            raise unknown("fact of the page", str(name), FACTS)
        entries = value.values() if isinstance(value, Mapping) else [value]
        for entry in entries:
            listed = name == "seeds" and isinstance(entry, (list, tuple)) and all(isinstance(n, int) for n in entry)
            if not listed and not isinstance(entry, (str, int, float, bool, type(None))):
                raise InputError(
                    f"facts[{name!r}]: the page takes strings, numbers and mappings of these, so that no list of ids "
                    f"gets onto it; found a {type(entry).__name__}."
                )
    if facts.get("exactness") is not None and facts["exactness"] not in EXACTNESS:
        raise unknown("exactness", str(facts["exactness"]), EXACTNESS)
    return dict(facts)


def _title(report: Report | None, facts: Mapping[str, Any]) -> str:
    if report is None:
        return "Forgetting on request"
    return f"{_many(report.about['forgotten_edges'], 'interaction')} forgotten by {report.about['model']}"


def _many(count: Any, noun: str) -> str:
    return f"{int(count):,} {noun}{'' if int(count) == 1 else 's'}"


def _subtitle(report: Report | None, facts: Mapping[str, Any]) -> str:
    pieces = []
    if report is not None:
        pieces += [
            f"Model <b>{escape(str(report.about['model']))}</b>",
            f"dataset <b>{escape(str(report.about['dataset']))}</b>",
        ]
    if facts.get("method"):
        exact = f" ({escape(str(facts['exactness']))})" if facts.get("exactness") else ""
        pieces.append(f"method <b>{escape(str(facts['method']))}</b>{exact}")
    if facts.get("finished"):
        pieces.append(f"finished {escape(str(facts['finished']))}")
    return ", ".join(pieces)


def _tiles(report: Report | None, facts: Mapping[str, Any], claims: Sequence[Claim]) -> str:
    tiles: list[tuple[str, str, str]] = []
    model = next((claim for claim in claims if claim.module == "model"), None)
    if model is not None:
        tiles.append(("claim for the model", model.level, LEVELS[model.level]))
    if report is not None:
        about = report.about
        tiles += [
            (
                "interactions forgotten",
                svg.number(about["forgotten_edges"]),
                f"{about['forgotten_pairs']:,} of training",
            ),
            ("people concerned", svg.number(about["forgotten_users"]), ""),
            (
                "retrained references",
                svg.number(about["retrained_models"]),
                "models" if about["retrained_models"] else "none",
            ),
        ]
        if not math.isnan(report.efficiency.marginal):
            seconds = report.efficiency.seconds.unlearn
            tiles.append(
                ("time", duration(float(seconds or 0)), f"{report.efficiency.marginal:.1f} × as fast as retraining")
            )
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}{f'<small>{escape(more)}</small>' if more else ''}</dd></div>"
        for name, value, more in tiles
    )
    return f'<dl class="tiles">{cells}</dl>' if tiles else ""


# -- sections ----------------------------------------------------------------------------------------------------------


def _short(report: Report | None, facts: Mapping[str, Any], claims: Sequence[Claim]) -> str:
    said = []
    if report is None:
        said.append("Nothing was measured: no evidence stands behind what is claimed below.")
    else:
        said.append(escape(report.finding))
        said += plain_words(report)
    for claim in claims:
        if claim.level != claim.asked:
            said.append(f"<b>{escape(claim.module)}</b>: {escape(claim.why)}. {claim.level} is what is left.")
    entries = "".join(f"<li>{entry}</li>" for entry in said)
    return section("In short", f'<div class="card"><ul class="said">{entries}</ul></div>')


def _request(report: Report | None, facts: Mapping[str, Any]) -> str:
    counts = dict(facts.get("counts") or {})
    rows = {str(name): svg.number(value) for name, value in counts.items()}
    if report is not None:
        about = report.about
        rows |= {
            "training interactions of the request": svg.number(about["forgotten_pairs"]),
            "users they belong to": svg.number(about["forgotten_users"]),
            "items they belong to": svg.number(about["forgotten_items"]),
            "share of all training interactions": as_share(about["forgotten_pairs"] / max(about["training_edges"], 1)),
            "users left without any": svg.number(about["users_emptied"]),
        }
    missing = facts.get("unknown") or {}
    rows |= {f"named but not in the data: {name}": svg.number(value) for name, value in dict(missing).items()}
    told: dict[str, str] = {}
    if facts.get("digest"):
        told["digest of the request (salted SHA-256)"] = f'<code class="digest">{escape(str(facts["digest"]))}</code>'
    for name, title in (
        ("salt", "salt"),
        ("requested", "received"),
        ("finished", "finished"),
        ("operator", "carried out by"),
    ):
        if facts.get(name):
            told[title] = escape(str(facts[name]))
    prints = dict(facts.get("fingerprints") or {})
    if report is not None:
        prints = {"before": report.about["fingerprint"], "after": report.about["fingerprint_after"], **prints}
    told |= {
        f"fingerprint of the data {name}": f'<code class="digest">{escape(str(value))}</code>'
        for name, value in prints.items()
    }
    left = pairs_table("How much, by kind; no raw id is on this page", rows)
    right = pairs_table("Which request, on which data", told)
    cards = "".join(f'<div class="card">{table}</div>' for table in (left, right) if table)
    return section("What was asked", f'<div class="row">{cards}</div>' if cards else "")


def _method(facts: Mapping[str, Any]) -> str:
    rows: dict[str, str] = {}
    if facts.get("method"):
        rows["method"] = f"<b>{escape(str(facts['method']))}</b>"
    if facts.get("exactness"):
        rows["exactness"] = f"<b>{escape(str(facts['exactness']))}</b>: {escape(EXACTNESS[str(facts['exactness'])])}"
    for name, value in dict(facts.get("options") or {}).items():
        rows[str(name)] = escape(str(value))
    if facts.get("seeds") is not None:
        seeds = facts["seeds"]
        entries = seeds.items() if isinstance(seeds, Mapping) else [("", seeds)]
        for name, value in entries:
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            rows[f"seed {name}".strip()] = escape(shown)
    table = pairs_table("The method, its options and seeds", rows)
    return section("What was done", f'<div class="card">{table}</div>' if table else "")


def _claims(claims: Sequence[Claim]) -> str:
    if not claims:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(claim.module)}</th>'
        f'<td><span class="level{" cut" if claim.level != claim.asked else ""}">{claim.level}</span></td>'
        f"<td>{escape(LEVELS[claim.level])}</td><td>{escape(claim.why)}</td></tr>"
        for claim in claims
    )
    table = (
        '<table><thead><tr><th scope="col">Module</th><th scope="col">Level</th><th scope="col">Meaning</th>'
        f'<th scope="col">Rests on</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    ladder = "".join(f"<li><b>{level}</b> {escape(meaning)}</li>" for level, meaning in LEVELS.items())
    below = (
        "L0 to L2 are observations: they hold for what was looked at. Only L3 and L4 rest on a proof or on how the "
        "model was made."
    )
    return section(
        "What may be claimed",
        f'<div class="card">{scroll("Claims", table)}</div>'
        f'<div class="card"><details><summary>The ladder of claims</summary><ul>{ladder}</ul></details>'
        f'<p class="soft">{below}</p></div>',
    )


def _limits(report: Report | None) -> str:
    notes = [*(report.notes if report is not None else ("No evidence was measured.",)), *_ALWAYS]
    entries = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return section("What is not shown", f'<div class="card limits"><ul>{entries}</ul></div>')


def _record(facts: Mapping[str, Any]) -> str:
    tables = []
    for name, caption in (
        ("run", "The run"), ("scan", "Scan of the run's files"), ("log", "The audit log"), ("code", "Versions"),
        ("machine", "Machine"),
    ):  # fmt: skip
        value = facts.get(name)
        if value is None:
            continue
        rows = value if isinstance(value, Mapping) else {name: value}
        tables.append(pairs_table(caption, {str(key): escape(str(entry)) for key, entry in rows.items()}))
    cards = "".join(f'<div class="card">{table}</div>' for table in tables if table)
    return section("Record", f'<div class="row">{cards}</div>' if cards else "")


__all__ = ["EXACTNESS", "FACTS", "forgetting_page"]
