from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from graphrec.errors import InputError
from graphrec.unlearning.claims import MODULES, claims_for
from graphrec.unlearning.evidence.claims import LEVELS
from graphrec.unlearning.evidence.efficiency import efficiency
from graphrec.unlearning.evidence.membership import Attack
from graphrec.unlearning.evidence.report import Report
from graphrec.unlearning.methods import METHODS
from graphrec.unlearning.readers.findings import Checked, Finding
from graphrec.unlearning.scanner import Scan

FILES = ("ids/user.parquet", "seen.safetensors", "model.safetensors", "metrics.json", "report.html", "lists.parquet")
CLEAN = Scan((), tuple(Checked(name, "all") for name in FILES))
WITH_STATE = replace(CLEAN, checked=(*CLEAN.checked, Checked("state/shards.safetensors", "all")))


def report(verdict: str | None) -> Report:
    """The evidence of one membership attack, or of none."""
    auc = 0.6 if verdict == "too weak" else 0.9
    attacks = [] if verdict is None else [Attack("threshold", auc, auc > 0.7, 0.01, -0.02, 0.04, verdict)]
    return Report({}, {}, [], attacks, {}, efficiency(None))


def levels(exactness: Any, found: Scan = CLEAN, evidence: Any = None, **options: Any) -> dict[str, str]:
    return {name: claim.level for name, claim in claims_for(exactness, found, evidence, **options).items()}


@pytest.mark.parametrize(
    ("exactness", "evidence", "level"),
    [
        ("exact", None, "L4"),
        ("exact", report("within"), "L4"),
        ("exact", report("beyond"), "L1"),
        ("conditional", None, "L1"),
        ("conditional", report("within"), "L2"),
        ("conditional", report("too weak"), "L1"),
        ("approximate", report("within"), "L2"),
        ("approximate", report("undecided"), "L1"),
        ("approximate", report("beyond"), "L1"),
        ("heuristic", None, "L1"),
        ("heuristic", report(None), "L1"),
        ("heuristic", report("within"), "L2"),
    ],
)
def test_a_model_is_said_to_be_no_more_than_was_shown(exactness: Any, evidence: Any, level: str) -> None:
    claim = claims_for(exactness, CLEAN, evidence)["model"]
    assert claim.level == level
    if level == "L1":
        assert claim.asked > claim.level and "not shown" in claim.why
    if exactness != "exact":
        assert level not in ("L3", "L4")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_only_exact_methods_reach_the_top(name: str) -> None:
    best = levels(METHODS[name].exactness, CLEAN, report("within"))["model"]
    assert (best == "L4") == (METHODS[name].exactness == "exact")


@pytest.mark.parametrize("name", [name for name in ("receraser", "ultrare", "grapheraser") if name in METHODS])
def test_partitions_made_from_the_data_are_never_exact(name: str) -> None:
    assert METHODS[name].exactness != "exact"


def test_the_other_parts() -> None:
    assert levels("exact") == {
        "id tables": "L0",
        "training graph": "L4",
        "model": "L4",
        "evaluation": "L0",
        "caches": "L0",
        "serving": "L1",
    }
    assert levels("exact", WITH_STATE)["state"] == "L4"
    for exactness in ("conditional", "approximate", "heuristic"):
        # What a method keeps is attacked by nobody, whatever the attacks on the model say.
        assert levels(exactness, WITH_STATE, report("within"))["state"] == "L0"
    assert levels("conditional", WITH_STATE, retrained_state=True)["state"] == "L4"
    assert set(levels("exact", WITH_STATE)) <= set(MODULES)
    assert set(LEVELS) == {"L0", "L1", "L2", "L3", "L4"}


@pytest.mark.parametrize(
    ("where", "lost"),
    [
        ("ids/user.parquet", "id tables"),
        ("seen.safetensors", "training graph"),
        ("model.safetensors", "model"),
        ("report.html", "evaluation"),
        ("lists.parquet", "caches"),
        ("state/shards.safetensors", "state"),
    ],
)
def test_a_part_with_a_finding_has_no_claim(where: str, lost: str) -> None:
    before = levels("exact", WITH_STATE)
    found = replace(WITH_STATE, findings=(Finding("row", where, "one too many"),))
    assert lost in before
    # Lists rest on all of it.
    assert set(before) - set(levels("exact", found)) == {lost, "serving"}


def test_what_was_looked_at_in_part_has_no_claim() -> None:
    half = replace(CLEAN, checked=tuple(replace(entry, full=False) for entry in CLEAN.checked))
    assert set(levels("approximate", half)) == {"model", "caches", "serving"}
    assert "id tables" not in levels("exact", Scan((), ()))


def test_the_source_and_the_run_before() -> None:
    assert "data source" not in levels("exact")
    looked_at = replace(CLEAN, checked=(*CLEAN.checked, Checked("source", "all")))
    assert levels("exact", looked_at)["data source"] == "L0"
    left = replace(
        looked_at,
        left=(Finding("row", "the data's source", "3 edges"), Finding("stale", "run", "the run before holds the data")),
    )
    claims = claims_for("exact", left)
    assert claims["data source"].level == claims["run before"].level == "L1"
    assert claims["data source"].asked == "L0"


def test_unknown_words() -> None:
    with pytest.raises(InputError, match="exactness"):
        claims_for("certain", CLEAN)  # type: ignore[arg-type]
