"""Training in shards and slices: expected shares, slices, digests, and one shard as the plain model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import graphrec
from graphrec.datasets import RecDataset
from graphrec.errors import InputError, MissingFileError
from graphrec.models import BPRMF, NGCF, SGL, LightGCN
from graphrec.models.base import GraphRecommender
from graphrec.models.sharded import Sharded
from graphrec.unlearning import ForgetRequest, remaining, resolve
from graphrec.unlearning.budget import Budget
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.methods.retrain import Retrain
from graphrec.unlearning.methods.sisa import SISA
from graphrec.unlearning.shards import (
    Plan,
    check_digests,
    edge_slices,
    expected_replay,
    expected_touched,
    index_digests,
    put,
    read_state,
    touched,
)
from tests.models.planted import planted
from tests.models.planted_kg import planted_kg
from tests.unlearning.methods.conformance import scores
from tests.unlearning.methods.partitioned import prepared_by, same_parameters, task_of


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return planted(num_users=80, num_items=40)


@pytest.mark.parametrize(("num_shards", "deletions"), [(10, 1), (10, 5), (10, 30), (4, 3), (1, 7)])
def test_the_expected_number_of_touched_shards_is_that_of_a_simulation(num_shards: int, deletions: int) -> None:
    draws = np.random.default_rng(0).integers(0, num_shards, (200_000, deletions))
    hit = np.zeros((len(draws), num_shards), bool)
    np.put_along_axis(hit, draws, True, 1)
    assert expected_touched(num_shards, deletions) == pytest.approx(hit.sum(1).mean(), rel=0.01)


@pytest.mark.parametrize("slices", [1, 2, 3, 10])
def test_the_expected_replay_is_that_of_a_simulation(slices: int) -> None:
    """Epochs of stage r cost r parts; a deletion in part r makes stages r to R anew."""
    part = np.random.default_rng(0).integers(1, slices + 1, 400_000)
    whole = slices * (slices + 1) / 2
    replayed = whole - part * (part - 1) / 2
    assert expected_replay(slices) == pytest.approx((replayed / whole).mean(), rel=0.01)


def test_nothing_is_expected_of_no_shards() -> None:
    assert expected_touched(7, 0) == 0
    with pytest.raises(InputError, match="at least one shard"):
        expected_touched(0, 1)
    with pytest.raises(InputError, match="at least one slice"):
        expected_replay(0)


@pytest.mark.parametrize("model_class", [LightGCN, BPRMF, NGCF, SGL])
def test_one_shard_is_the_plain_model(data: RecDataset, model_class: type[GraphRecommender], tmp_path: Path) -> None:
    """Invariant 2 of the methods' card: with one shard and one slice, training and forgetting are retraining."""
    hparams = {"dim": 8, "lr": 0.02, "seed": 3}
    fit = {"epochs": 6, "progress": False, "select_on": None}
    plain = model_class(data, **hparams)
    graphrec.fit(plain, data, **fit)
    method = SISA(shards=1, slices=1)
    made = prepared_by(method, data, tmp_path, base=model_class(data, **hparams))
    assert isinstance(made.model, Sharded)
    assert same_parameters(made.model.shards[0], plain)
    assert torch.equal(scores(made.model), scores(plain))
    request = ForgetRequest(users=(data.vocabularies["user"].raw[4].item(),))
    outcome = method.unlearn(task_of(data, made, request, tmp_path))
    found = resolve(request, data)
    retrained = Retrain().unlearn(Task(plain, data, remaining(data, found), found, seed=3, fit=fit))
    assert torch.equal(scores(outcome.model), scores(retrained.model))


@pytest.mark.parametrize("name", ["LightGCL", "NCL", "SimGCL", "DirectAU", "KGAT", "KGIN"])
def test_every_kind_of_shard_forgets_exactly(name: str, data: RecDataset, tmp_path: Path) -> None:
    """Whatever a model makes of its edges or keeps beside its parameters."""
    model_class = graphrec.models.resolve(name)
    given = planted_kg() if name.startswith("KG") else data
    method = SISA(shards=2, slices=2, epochs=3)
    made = prepared_by(method, given, tmp_path / "with", base=model_class(given, dim=8))
    request = ForgetRequest(users=(given.vocabularies["user"].raw[4].item(),))
    task = task_of(given, made, request, tmp_path / "with")
    outcome = method.unlearn(task)
    left = task.remaining
    never = prepared_by(method, left, tmp_path / "without", base=model_class(left, dim=8))
    assert outcome.facts["shards_touched"] == 1
    assert same_parameters(outcome.model, never.model)
    assert torch.equal(scores(outcome.model), scores(never.model))


def sharded(data: RecDataset, by: str = "user", num_shards: int = 3) -> Sharded:
    return Sharded(data, base="BPRMF", base_hparams={"dim": 4}, num_shards=num_shards, by=by)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["user", "item", "interaction"])
def test_slices_and_shards_of_who_stays_do_not_depend_on_who_goes(data: RecDataset, by: str) -> None:
    before = sharded(data, by)
    gone = data.interactions("train").edge_id[::3]
    left = data.without(gone)
    after = sharded(left, by)
    kept = ~np.isin(before.graph_inputs.graph[data.target].edge_id.numpy(), gone)
    assert torch.equal(before.edge_shard[torch.from_numpy(kept)], after.edge_shard)
    slices = edge_slices(before, data, 4)
    assert torch.equal(slices[torch.from_numpy(kept)], edge_slices(after, left, 4))
    assert set(slices.tolist()) == set(range(4))
    if by != "interaction":
        ends = before.graph_inputs.graph[data.target].edge_index[0 if by == "user" else 1]
        for node in ends.unique()[:10]:
            assert len(slices[ends == node].unique()) == len(before.edge_shard[ends == node].unique()) == 1


def test_touched_names_each_shard_and_its_first_slice(data: RecDataset) -> None:
    model = sharded(data, "interaction")
    slices = edge_slices(model, data, 3)
    edge_id = model.graph_inputs.graph[data.target].edge_id
    picked = torch.tensor([0, 11, 50, 51, 52])
    expected: dict[int, int] = {}
    for position in picked.tolist():
        shard, part = int(model.edge_shard[position]), int(slices[position])
        expected[shard] = min(expected.get(shard, part), part)
    assert touched(model, slices, edge_id[picked]) == expected
    assert touched(model, slices, edge_id[:0]) == {}


def test_digests_tell_shards_with_other_edges(data: RecDataset) -> None:
    model = sharded(data)
    slices = edge_slices(model, data, 2)
    digests = index_digests(model, slices, 2)
    plan = Plan("sisa", 0, 4, 2, 0)
    check_digests(model, slices, plan, digests)
    gone = model.graph_inputs.graph[data.target].edge_id[model.edge_shard == 1][:1]
    left = data.without(gone.numpy())
    fewer = sharded(left)
    now = index_digests(fewer, edge_slices(fewer, left, 2), 2)
    assert [a == b for a, b in zip(now, digests, strict=True)] == [True, False, True]
    with pytest.raises(InputError, match="shard 1 was trained on other edges"):
        check_digests(fewer, edge_slices(fewer, left, 2), plan, digests)


@pytest.mark.parametrize(("slices", "expected"), [(1, 12), (2, 8), (3, 6), (5, 4)])
def test_slices_share_the_epochs(slices: int, expected: int) -> None:
    """Epochs e of each of R stages of growing size: e (1 + ... + R) / R passes, as many as asked for."""
    plan = Plan("sisa", 0, 12, slices, 0)
    assert plan.slice_epochs == expected
    assert plan.slice_epochs * (slices + 1) / 2 == 12


def test_a_plan_keeps_what_changes_the_steps_alone() -> None:
    fit = {"epochs": 7, "patience": 3, "select_on": "valid", "clip": 1.0, "milestones": [0.5], "progress": True}
    plan = Plan.of("sisa", 1, fit, epochs=None, slices=1, aggregator_epochs=0)
    assert plan.epochs == 7
    assert plan.options == {"clip": 1.0, "milestones": [0.5]}
    with pytest.raises(InputError, match="slices"):
        Plan.of("sisa", 1, fit, epochs=None, slices=0, aggregator_epochs=0)


def test_state_that_is_missing_damaged_or_of_another_method_is_named(data: RecDataset, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="prepared"):
        read_state(tmp_path, "sisa")
    prepared_by(SISA(shards=2, slices=1), data, tmp_path)
    assert read_state(tmp_path / "state", "sisa")[0].epochs == 6
    with pytest.raises(InputError, match="prepared for sisa, not for ultrare"):
        read_state(tmp_path / "state", "ultrare")
    file = tmp_path / "state" / "shards.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(InputError, match="damaged"):
        read_state(tmp_path / "state", "sisa")
    file.write_text('{"format": 2}')
    with pytest.raises(InputError, match="format 2"):
        read_state(tmp_path / "state", "sisa")


def test_what_cannot_be_prepared_is_refused(data: RecDataset, tmp_path: Path) -> None:
    fit = {"epochs": 2}
    with pytest.raises(InputError, match="later slices"):
        spectral = BPRMF(data, dim=8, init="spectral")
        SISA(shards=2, slices=2).prepare(spectral, data, seed=0, fit=fit, folder=tmp_path)
    with pytest.raises(InputError, match="already"):
        SISA(shards=2).prepare(sharded(data), data, seed=0, fit=fit, folder=tmp_path)
    with pytest.raises(InputError, match="not those of this model"):
        put(sharded(data).shards[0], {})
    assert SISA.refuses(graphrec.models.EASE) is not None
    assert SISA.refuses(graphrec.models.SGL) is None


@pytest.mark.parametrize(
    ("method", "options", "exactness"),
    [("receraser", {"partition": "inbp", "aggregator_epochs": 2}, "conditional"), ("sisa", {"slices": 2}, "exact")],
)
def test_a_saved_run_in_shards_forgets_the_whole_way(
    data: RecDataset, tmp_path: Path, method: str, options: dict[str, object], exactness: str
) -> None:
    """Prepare a run, open it, take its state, forget, scan; the new run can forget again."""
    plain = BPRMF(data, dim=8, lr=0.02)
    run = graphrec.fit(plain, data, epochs=3, select_on=None, out=tmp_path / "plain", progress=False, report=False)
    made = graphrec.unlearning.prepare(
        run, data, method=method, options={"shards": 2, **options}, out=tmp_path / "shards"
    )
    assert "state/shards.json" in made.files
    model = made.model()
    assert isinstance(model, Sharded)
    assert model.hparams["partition"] == options.get("partition", "hash")
    users = data.vocabularies["user"].raw[[4, 9]].tolist()
    for number, user in enumerate(users):
        out = tmp_path / f"forgot{number}"
        kept = tmp_path / f"data{number}"
        made = graphrec.unlearning.forget(
            made, data, {"users": [user]}, method=method, out=out, references=0, data_out=kept, budget=Budget(utility=1)
        )
        assert made.config["unlearning"]["exactness"] == exactness
        assert made.model().num_users == 79 - number
        assert any(name.startswith("state/shard-") for name in made.files) == ("slices" in options)
        data = made.dataset()
