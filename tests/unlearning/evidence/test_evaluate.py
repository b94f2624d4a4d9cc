"""The evidence as a whole: identities, attacks that find what is there and nothing else, rows that were not run."""

from __future__ import annotations

import copy
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import graphrec
from graphrec.errors import InputError
from graphrec.serving import Recommender
from graphrec.unlearning import ForgetRequest, compacted, evaluate_unlearning, resolve
from graphrec.unlearning.evidence import ROWS, Report
from graphrec.unlearning.evidence.utility import forgotten_pairs
from tests.models.planted import planted
from tests.unlearning.evidence.scene import model, world

SHADOW = {"epochs": 25, "device": "cpu"}


@cache
def report() -> Report:
    """Doing nothing is passed off as unlearning."""
    here = world()
    return evaluate_unlearning(
        here.before, here.before, here.retrained, here.data, here.request, ks=(5, 10), shadow=SHADOW, draws=200,
        injected=True, seconds={"unlearn": 1.0, "retrain": 12.0, "prepare": 22.0, "warm_start": 0.5},
    )  # fmt: skip


def quick(before, after, retrained, data, request, **options) -> Report:
    return evaluate_unlearning(
        before, after, retrained, data, request, **{"ks": (10,), "shadow": False, "draws": 50, **options}
    )


def test_retraining_taken_for_unlearning_leaves_no_gap() -> None:
    here = world()
    found = quick(here.before, here.retrained[0], [here.retrained[0]], here.data, here.request)
    unlearned = [one for one in found.measures if one.row == "unlearned"]
    assert {one.section for one in unlearned} == {"utility", "scores", "membership", "lists", "distance", "fairness"}
    for one in unlearned:
        if one.section in ("utility", "scores", "membership", "fairness") and not math.isnan(one.gap):
            assert one.gap == pytest.approx(0, abs=1e-12), one
    for name in ("overlap@10", "jaccard@10", "rbo@10"):
        assert found.value("lists", name, "unlearned") == pytest.approx(1)
    for name in ("rmse", "jensen_shannon", "jeffreys", "activation", "relative_residual"):
        group = "touched" if name == "relative_residual" else "all"
        assert found.value("distance", name, "unlearned", group) == pytest.approx(0, abs=1e-9)
    assert found.value("distance", "representations/aligned", "unlearned") < 1e-6
    assert found.value("distance", "spearman", "unlearned") == pytest.approx(1)
    assert found.value("scores", "ks_rank_f", "unlearned") == 0
    for one in found.attacks:
        assert math.isnan(one.leak) or one.leak == pytest.approx(0, abs=1e-12)


def test_doing_nothing_has_relative_residual_one_and_is_told_apart() -> None:
    found = report()
    assert found.value("distance", "relative_residual", "unlearned", "touched") == pytest.approx(1)
    assert found.value("distance", "relative_residual", "before", "touched") == pytest.approx(1)
    for one in found.measures:
        same = found.find(one.section, one.metric, "before", one.group)
        if one.row == "unlearned" and same is not None:
            assert one.value == pytest.approx(same.value)
    judged = {one.name: one for one in found.attacks}
    assert judged["known_members"].verdict == "beyond"
    assert judged["known_members"].low > 0.05
    assert not found.indistinguishable
    assert "Told apart" in found.finding


def test_attacks_reach_the_bar_on_an_overfitted_model_and_not_on_retrained_ones() -> None:
    found = report()
    strongest = max(one.auc_before for one in found.attacks if one.strong is not None)
    assert strongest > 0.8
    assert found.strong_attack
    for name in ("threshold", "rank", "known_members", "shadow"):
        assert found.value("membership", f"{name}/auc", "before") > 0.7, name
        assert abs(found.value("membership", f"{name}/auc", "retrained") - 0.5) < 0.1, name
    assert found.value("membership", "known_members/tpr@1%", "before") > 0.05


def test_pairs_that_were_never_trained_on_give_an_auc_of_one_half() -> None:
    here = world()
    # Both models never saw the pairs: what is told of them is chance, and the attack is said to be too weak.
    found = quick(here.retrained[1], here.retrained[2], [here.retrained[0]], here.data, here.request, draws=400)
    for name in ("threshold", "rank", "known_members"):
        one = found.find("membership", f"{name}/auc", "before")
        assert one is not None
        assert one.low < 0.5 < one.high, name
        assert abs(one.value - 0.5) < 0.08
    assert found.strong_attack is False
    assert "too weak" in found.finding
    assert not found.indistinguishable


def test_scores_of_the_forgotten_fall_to_those_of_retraining() -> None:
    here = world()
    found = quick(here.before, here.retrained[1], here.retrained, here.data, here.request)
    assert found.value("scores", "score_gap_sd", "before") > 1
    assert abs(found.value("scores", "score_gap_sd", "unlearned")) < 0.5
    assert found.value("scores", "mi_bf", "before") == 1
    ratio = found.value("scores", "probability_f", "before") / found.value("scores", "probability_f", "unlearned")
    assert found.value("scores", "mi_bf", "unlearned") == pytest.approx(ratio)
    assert found.value("scores", "rank_f", "before") < found.value("scores", "rank_f", "unlearned")
    assert found.value("scores", "f_auc", "before") > found.value("scores", "f_auc", "unlearned")
    delta = found.value("scores", "probability_f", "unlearned") - found.value("scores", "probability_n", "unlearned")
    assert found.value("scores", "delta_n", "unlearned") == pytest.approx(delta)


def test_a_mask_changes_lists_and_nothing_that_the_model_says() -> None:
    found = report()
    for one in found.measures:
        masked = found.find(one.section, one.metric, "before + mask", one.group)
        if one.row == "before" and one.section in ("scores", "membership") and masked is not None:
            assert masked.value == one.value
    assert found.value("utility", "recall@10", "before + mask", "own") > found.value(
        "utility", "recall@10", "before", "own"
    )


def test_rows_without_models_say_that_they_were_not_run() -> None:
    here = world()
    found = quick(here.before, None, [], here.data, here.request, masked=False)
    assert set(found.rows) == set(ROWS)
    assert found.rows["before"] == "measured"
    assert all(found.rows[row].startswith("not run") for row in ROWS[1:])
    assert {one.row for one in found.measures} == {"before"}
    assert found.markdown().count("not run") >= 3
    assert all(one.verdict == "not run" for one in found.attacks)
    assert any("Nothing was retrained" in note for note in found.notes)


def test_the_report_is_json_with_lower_case_keys_and_no_id() -> None:
    found = report()
    text = found.to_json()
    values = json.loads(text)

    def keys(value) -> list[str]:
        if isinstance(value, dict):
            return [key for name, entry in value.items() for key in [name, *keys(entry)]]
        return [key for entry in value for key in keys(entry)] if isinstance(value, list) else []

    assert all(key == key.lower() for key in keys(values))
    assert len(values["measures"]) == len(found.frame()) == len(found.measures)
    for written in (text, found.markdown(), found.frame().to_csv()):
        assert "person-" not in written
        assert "thing-" not in written
    assert values["about"]["forgotten_pairs"] == 240
    assert [one["verdict"] for one in values["recovery"]]
    assert set(found.table()["row"]) == set(ROWS)


def test_the_same_arguments_give_the_same_report() -> None:
    here = world()
    first, second = (quick(here.before, None, here.retrained[:2], here.data, here.request) for _ in range(2))
    assert first.to_json() == second.to_json()


def test_references_of_the_same_seed_are_held_apart_from_the_ceiling() -> None:
    here = world()
    found = quick(here.before, here.retrained[0], here.retrained, here.data, here.request)
    assert found.value("lists", "overlap@10", "unlearned", "same seed") == 1
    assert found.value("distance", "relative_residual", "unlearned", "touched") == 0
    lists = found.find("lists", "overlap@10", "unlearned")
    ceiling = found.find("lists", "overlap@10", "retrained")
    assert lists is not None
    assert ceiling is not None
    assert abs(lists.gap) < 4 * ceiling.sd + 0.02
    assert lists.value < 0.95


def test_a_run_without_the_forgotten_users_row_is_matched_by_raw_ids() -> None:
    here = world()
    request = ForgetRequest(users=("person-004", "person-077"), pairs=here.request.pairs[:30])
    resolved = resolve(request, here.data)
    short = compacted(here.data, resolved)
    assert short.num_users == here.data.num_users - 2
    after = Recommender(model(short, 0, 3), short.vocabularies)
    found = quick(here.before, after, [after], here.data, request)
    assert found.about["unscorable_pairs"] > 0
    assert any("no row for" in note for note in found.notes)
    assert found.about["users_who_stay"] == here.data.num_users - 2
    own = graphrec.evaluate(after.model, short, ks=[10], metrics=["recall", "ndcg"])
    assert found.value("utility", "recall@10", "unlearned") == pytest.approx(own["recall@10"])
    assert found.value("utility", "ndcg@10", "unlearned") == pytest.approx(own["ndcg@10"])
    with pytest.raises(InputError, match="brings no ids"):
        quick(here.before, after.model, [], here.data, request)


def test_runs_and_paths_are_taken_and_the_shadow_follows_their_options(tmp_path: Path) -> None:
    data = planted(num_users=60, num_items=40, per_user=10)
    bpr = graphrec.models.BPRMF(data, dim=8, lr=0.05)
    run = graphrec.fit(bpr, data, epochs=3, out=tmp_path / "run", select_on=None, progress=False, report=False)
    request = ForgetRequest(users=(3,))
    found = evaluate_unlearning(run, tmp_path / "run", [], data, request, draws=20, ks=(5,))
    assert found.about["shadow"] == {"pairs": len(data.pairs("train")) - 7, "epochs": 3}
    assert not math.isnan(found.value("membership", "shadow/auc", "before"))


def test_a_request_without_training_pairs_has_no_pairs_to_attack() -> None:
    here = world()
    test = here.data.interactions("test")
    user, item = here.data.vocabularies["user"].raw[test.source[0]], here.data.vocabularies["item"].raw[test.target[0]]
    found = quick(here.before, here.before, here.retrained, here.data, ForgetRequest(pairs=((user, item),)))
    assert found.attacks == ()
    assert any("no training interaction" in note for note in found.notes)
    assert found.find("scores", "score_f", "before") is None
    assert found.find("utility", "recall@10", "unlearned") is not None


def test_bad_arguments_are_refused() -> None:
    here = world()
    with pytest.raises(InputError, match="names nothing"):
        quick(here.before, None, [], here.data, ForgetRequest(users=("nobody",)))
    with pytest.raises(InputError, match="lengths from 1 to 80"):
        quick(here.before, None, [], here.data, here.request, ks=(81,))
    with pytest.raises(InputError, match="resolved against the dataset"):
        quick(here.before, None, [], here.left, resolve(here.request, here.data))
    with pytest.raises(InputError, match="entry of seconds"):
        quick(here.before, None, [], here.data, here.request, seconds={"forget": 1.0})


def test_bounds_are_checked_and_costs_compared() -> None:
    found = report()
    checks = {one.name.split(",")[0]: one for one in found.checks}
    assert checks["times as fast as retraining"].met
    assert checks["largest leak of an attack's AUC"].met is False
    assert found.efficiency.marginal == 12
    assert found.efficiency.against_warm_start == 0.5


def test_utility_means_are_those_of_evaluate() -> None:
    here = world()
    own = graphrec.evaluate(here.retrained[2], here.left, ks=[5, 10], metrics=["recall", "ndcg"])
    found = quick(here.before, here.retrained[2], [], here.data, here.request, ks=(5, 10))
    for key in ("recall@5", "recall@10", "ndcg@5", "ndcg@10"):
        assert found.value("utility", key, "unlearned") == pytest.approx(own[key])
    groups = found.about["users_by_group"]
    assert groups["all"] == groups["touched"] + groups["near"] + groups["far"]
    assert groups["own"] == 80
    assert np.isfinite(found.frame().query("section == 'utility'")["value"]).all()


def test_models_stay_as_they_were() -> None:
    here = world()
    state = {name: value.clone() for name, value in here.before.state_dict().items()}
    quick(here.before, None, [], here.data, here.request)
    assert all(torch.equal(value, state[name]) for name, value in here.before.state_dict().items())


def test_forgetting_too_much_is_told_apart_both_ways() -> None:
    here = world()
    over = copy.deepcopy(here.retrained[1]).train()
    gone = forgotten_pairs(here.data, here.left)
    optimiser = torch.optim.Adam(over.parameters(), lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        scores = (over.user_embedding[gone.users] * over.item_embedding[gone.items]).sum(1)
        torch.nn.functional.softplus(scores + 4).mean().backward()
        optimiser.step()
    found = quick(here.before, over.eval(), here.retrained, here.data, here.request, draws=200)
    verdicts = {one.name: one for one in found.attacks}
    # Low scores are called forgotten by the ratios of means; to an attacker they are as good as high ones.
    assert found.value("scores", "mi_bf", "unlearned") > found.value("scores", "mi_bf", "retrained")
    assert verdicts["threshold"].leak < -0.2
    assert verdicts["threshold"].verdict == "beyond"
    assert verdicts["two_sided_reference"].leak > 0.1
    assert verdicts["two_sided_reference"].verdict == "beyond"
    assert not found.indistinguishable
