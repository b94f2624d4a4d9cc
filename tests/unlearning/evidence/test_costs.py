"""Recovery refuses weak attacks; speed-ups are what the times come to; claims are cut down to what was shown."""

from __future__ import annotations

import math

import pytest

from graphrec.errors import InputError
from graphrec.unlearning.evidence import Claim, Report, Seconds, claims_of, efficiency, limited, recovery
from graphrec.unlearning.evidence.measures import Measure, measured, plain
from graphrec.unlearning.evidence.membership import Attack


def test_recovery_is_the_share_of_the_harm_that_was_undone() -> None:
    found = recovery("recall@20", clean=[0.30, 0.31, 0.29], poisoned=0.20, unlearned=0.28)
    assert found.value == pytest.approx(0.8)
    assert found.verdict == "measured"
    assert found.needed == pytest.approx(0.03)


def test_recovery_refuses_an_attack_that_is_no_more_than_noise() -> None:
    found = recovery("recall@20", clean=[0.30, 0.31, 0.29], poisoned=0.275, unlearned=0.30)
    assert found.verdict == "attack too weak"
    assert math.isnan(found.value)
    assert recovery("recall@20", clean=[0.30, 0.31, 0.29], poisoned=0.269, unlearned=0.30).verdict == "measured"
    assert recovery("recall@20", clean=[0.3], poisoned=0.1, unlearned=0.3).verdict == "not run"
    with pytest.raises(InputError, match="at least one training"):
        recovery("recall@20", clean=[], poisoned=0.1, unlearned=0.3)


def test_speed_ups_are_marginal_and_amortised() -> None:
    found = efficiency({"unlearn": 2, "retrain": 20, "prepare": 90, "warm_start": 6})
    assert found.marginal == 10
    assert found.amortised == {
        "1": pytest.approx(20 / 92),
        "10": pytest.approx(200 / 110),
        "100": pytest.approx(2000 / 290),
    }
    assert found.break_even == 5
    assert found.against_warm_start == 3
    assert math.isinf(efficiency({"unlearn": 20, "retrain": 2, "prepare": 1}).break_even)
    assert efficiency({"unlearn": 20, "retrain": 2, "prepare": 0}).break_even == 0


def test_what_was_not_timed_is_not_free() -> None:
    found = efficiency({"unlearn": 2, "retrain": 20})
    assert math.isnan(found.amortised["1"])
    assert math.isnan(found.break_even)
    assert math.isnan(efficiency(None).marginal)
    assert efficiency(Seconds(unlearn=1, retrain=2)).marginal == 2
    with pytest.raises(InputError, match="Did you mean 'unlearn'"):
        efficiency({"unlern": 1})
    with pytest.raises(InputError, match="must not be below 0"):
        efficiency({"unlearn": -1})


def test_gaps_are_in_deviations_of_the_retrained_models() -> None:
    rows = {one.row: one for one in measured("x", "y", {"before": [5.0], "retrained": [1.0, 2.0, 3.0]})}
    assert rows["retrained"].value == 2
    assert rows["retrained"].sd == 1
    assert rows["before"].gap == rows["before"].gap_sd == 3
    alone = {one.row: one for one in measured("x", "y", {"before": [5.0], "retrained": [1.0]})}
    assert alone["before"].gap == 4
    assert math.isnan(alone["before"].gap_sd)
    assert measured("x", "y", {"before": [math.nan]}) == []
    assert plain({"a": [math.nan, (1.0, math.inf)]}) == {"a": [None, [1.0, None]]}


def said(*attacks: Attack) -> Report:
    return Report({"ks": [20]}, {}, [Measure("x", "y", "before", 1.0)], attacks, {}, efficiency(None))


def attack(name: str, before: float, verdict: str) -> Attack:
    return Attack(name, before, None if math.isnan(before) else before >= 0.7, 0.01, -0.02, 0.03, verdict)


def test_a_claim_is_cut_down_to_what_was_shown() -> None:
    shown = said(attack("threshold", 0.9, "within"), attack("deletion_diff", math.nan, "within"))
    assert shown.indistinguishable
    assert limited(Claim("model", "L2"), shown) == Claim("model", "L2")
    weak = said(attack("threshold", 0.6, "too weak"), attack("deletion_diff", math.nan, "within"))
    undecided = said(attack("threshold", 0.9, "within"), attack("two_sided", 0.6, "undecided"))
    for report, why in ((weak, "strong enough"), (undecided, "too wide"), (said(), "no attack"), (None, "no evidence")):
        cut = limited(Claim("model", "L2"), report)
        assert (cut.level, cut.asked) == ("L1", "L2")
        assert why in cut.why
        assert limited(Claim("model", "L4"), report).level == "L4"
    beyond = said(attack("threshold", 0.9, "within"), attack("rank", 0.8, "beyond"))
    assert limited(Claim("model", "L4"), beyond).level == "L1"
    assert limited(Claim("files", "L0"), beyond) == Claim("files", "L0")


def test_a_strong_attack_is_needed_and_a_weak_one_does_not_spoil_it() -> None:
    assert said(attack("threshold", 0.6, "too weak"), attack("known_members", 0.9, "within")).indistinguishable
    assert not said(attack("threshold", 0.6, "too weak")).indistinguishable
    assert not said(attack("two_sided", 0.6, "within")).indistinguishable


def test_claims_are_read_by_module_and_unknown_levels_refused() -> None:
    assert claims_of({"a": "L0", "b": ("L4", "hash")}) == [Claim("a", "L0"), Claim("b", "L4", "hash")]
    with pytest.raises(InputError, match="unknown claim level 'L5'"):
        claims_of({"a": "L5"})
