"""UnlearnRec: the identity on nothing, what it keeps and drops, and a planted graph forgotten end to end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphrec
from graphrec.datasets import RecDataset
from graphrec.errors import InputError
from graphrec.models import BPRMF, EASE, NCL, NGCF, SGL, DirectAU, LightGCL, LightGCN, SimGCL, XSimGCL
from graphrec.models.base import GraphRecommender
from graphrec.runs.manifest import write_contents
from graphrec.unlearning import ForgetRequest, remaining, resolve
from graphrec.unlearning.injection import inject
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.methods.unlearnrec import UnlearnRec
from graphrec.unlearning.unlearnrec import state
from tests.models.planted import planted
from tests.unlearning.methods.conformance import MethodConformance, scores

QUICK = UnlearnRec(pretrain_epochs=2, pretrain_every=1, finetune_epochs=1)


class TestUnlearnRec(MethodConformance):
    method = QUICK


class TestOnePass(MethodConformance):
    method = dataclasses.replace(QUICK, finetune_epochs=0)


class TestOnTables(MethodConformance):
    method = QUICK
    model_class = BPRMF
    hparams = {"dim": 8, "lr": 0.02, "seed": 3}


def fitted(data: RecDataset, model_class: type[GraphRecommender] = LightGCN, **options: Any) -> GraphRecommender:
    model = model_class(data, **{"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3, **options})
    graphrec.fit(model, data, epochs=8, progress=False, select_on=None, report=False)
    return model


def task_of(model: GraphRecommender, data: RecDataset, request: ForgetRequest, folder: Path | None) -> Task:
    found = resolve(request, data)
    return Task(model, data, remaining(data, found), found, seed=3, state=folder)


def prepared(method: UnlearnRec, model: GraphRecommender, data: RecDataset, tmp_path: Path) -> Path:
    made = method.prepare(model, data, seed=3, fit={}, folder=tmp_path / "work")
    assert set(made.holds) == set(made.files)
    write_contents(tmp_path / "state", made.files)
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("model_class", "refused"), [(LightGCN, False), (BPRMF, False), (SGL, False), (NGCF, True), (EASE, True)]
)
def test_it_says_which_models_it_serves(model_class: type[GraphRecommender], refused: bool) -> None:
    assert (UnlearnRec.refuses(model_class) is not None) == refused
    assert (UnlearnRec.refuses(model_class(planted(40, 40))) is not None) == refused


@pytest.mark.parametrize("model_class", [SGL, SimGCL, XSimGCL, LightGCL, NCL, DirectAU])
def test_every_model_of_two_tables_is_served(model_class: type[GraphRecommender], tmp_path: Path) -> None:
    """Phases that draw views or clusters run with the moved tables; what they drew is of the graph that remains."""
    data = planted(60, 40)
    model = model_class(data, dim=8, lr=0.02, seed=3)
    graphrec.fit(model, data, epochs=2, progress=False, select_on=None, report=False)
    assert UnlearnRec.refuses(model) is None and UnlearnRec.refuses(model_class) is None
    method = dataclasses.replace(QUICK, pretrain_epochs=1, keep_encoder=False)
    folder = prepared(method, model, data, tmp_path)
    before = scores(model).clone()
    task = task_of(model, data, ForgetRequest(users=(2,)), folder)
    made = method.unlearn(task)
    assert torch.equal(scores(model), before)
    assert torch.isfinite(scores(made.model)).all() and not torch.equal(scores(made.model), before)
    assert made.model.graph_inputs.fingerprint == task.remaining.fingerprint
    empty = method.unlearn(task_of(model, data, ForgetRequest(), folder))
    assert torch.equal(scores(empty.model), before)


def test_learned_layer_weights_are_refused_by_name() -> None:
    reason = UnlearnRec.refuses(LightGCN(planted(), dim=4, layer_weights="learned"))
    assert reason is not None and "layer_weights" in reason


def test_what_is_missing_or_of_other_data_is_named(tmp_path: Path) -> None:
    data = planted()
    model = fitted(data)
    request = ForgetRequest(users=(0,))
    with pytest.raises(InputError, match="call prepare first"):
        QUICK.unlearn(task_of(model, data, request, None))
    with pytest.raises(InputError, match=r"no unlearnrec\.safetensors"):
        QUICK.unlearn(task_of(model, data, request, tmp_path))
    folder = prepared(QUICK, model, data, tmp_path)
    other = data.without(data.interactions("train").edge_id[:1])
    with pytest.raises(InputError, match="trained on the dataset"):
        QUICK.unlearn(task_of(fitted(other), other, request, folder))


def test_rows_of_the_request_leave_the_encoder(tmp_path: Path) -> None:
    data = planted()
    model = fitted(data)
    method = dataclasses.replace(QUICK, drift=100.0)
    folder = prepared(method, model, data, tmp_path)
    before, _ = state.read(folder)
    assert (before.shift.abs().sum(1) > 0).float().mean() > 0.5
    task = task_of(model, data, ForgetRequest(users=(2, 5)), folder)
    made = method.unlearn(task)
    assert made.facts["encoder_kept"] == 1
    write_contents(tmp_path / "after", made.files)
    after, facts = state.read(tmp_path / "after")
    table = data.interactions("train")
    gone = np.isin(table.source, [2, 5])
    rows = torch.zeros(data.num_users + data.num_items, dtype=torch.bool)
    rows[torch.from_numpy(table.source[gone].astype(np.int64))] = True
    rows[data.num_users + torch.from_numpy(table.target[gone].astype(np.int64))] = True
    assert not after.shift[rows].any() and not after.rates[rows].any()
    assert torch.equal(after.shift[~rows], before.shift[~rows])
    assert facts["fingerprint"] == task.remaining.fingerprint
    assert not torch.equal(before.shift[rows], after.shift[rows])
    # The next request is served by what is left.
    second = task_of(made.model, task.remaining, ForgetRequest(users=(7,)), tmp_path / "after")
    assert torch.isfinite(scores(method.unlearn(second).model)).all()


def test_an_encoder_that_no_longer_serves_is_dropped(tmp_path: Path) -> None:
    data = planted()
    model = fitted(data)
    folder = prepared(QUICK, model, data, tmp_path)
    for method in (dataclasses.replace(QUICK, drift=-100.0), dataclasses.replace(QUICK, keep_encoder=False)):
        made = method.unlearn(task_of(model, data, ForgetRequest(users=(2,)), folder))
        assert made.facts["encoder_kept"] == 0 and not made.files and not made.holds


def test_a_user_who_leaves_wholly_stands_where_a_training_without_would_leave_the_row(tmp_path: Path) -> None:
    data = planted()
    model = fitted(data)
    folder = prepared(QUICK, model, data, tmp_path)
    task = task_of(model, data, ForgetRequest(users=(2, 5)), folder)
    made = QUICK.unlearn(task)
    fresh = task.fresh()
    assert torch.equal(made.model.user_embedding[[2, 5]], fresh.user_embedding[[2, 5]])
    assert not torch.equal(made.model.user_embedding[[3]], fresh.user_embedding[[3]])


def test_a_request_for_held_out_edges_alone_moves_no_score(tmp_path: Path) -> None:
    data = planted()
    model = fitted(data)
    folder = prepared(QUICK, model, data, tmp_path)
    kind = "__".join(data.target)
    request = ForgetRequest(edges={kind: tuple(data.interactions("test").edge_id[:3].tolist())})
    task = task_of(model, data, request, folder)
    made = QUICK.unlearn(task)
    assert torch.equal(scores(made.model), scores(model))
    assert made.model.graph_inputs.fingerprint == task.remaining.fingerprint
    assert json.loads(bytes(made.files[state.SETTINGS]))["fingerprint"] == task.remaining.fingerprint


def test_the_published_method_moves_everybody(tmp_path: Path) -> None:
    data = planted()
    model = fitted(data)
    published = dataclasses.replace(QUICK, paper_exact=True, finetune_epochs=0)
    folder = prepared(published, model, data, tmp_path)
    request = ForgetRequest(pairs=((2, int(data.pairs("train").items[data.pairs("train").indptr[2]])),))
    made = published.unlearn(task_of(model, data, request, folder))
    assert (made.model.user_embedding != model.user_embedding).any(1).all()
    assert not made.files
    mended = dataclasses.replace(QUICK, finetune_epochs=0).unlearn(task_of(model, data, request, folder))
    assert (mended.model.user_embedding != model.user_embedding).any(1).nonzero()[:, 0].tolist() == [2]


@pytest.mark.parametrize(("option", "value"), [("pretrain_steps", 0), ("finetune_epochs", -1), ("lr", 0.0)])
def test_bad_options_are_refused(option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        UnlearnRec(**{option: value})


def test_one_bad_edge_for_each_user_of_a_block_graph_is_forgotten(tmp_path: Path) -> None:
    """Against a training without them: mean score within .5 sd of random pairs, Recall@20 at least .97."""
    clean = planted(200, 200, groups=4, per_user=20, loyalty=0.9, seed=1)
    draws = np.random.default_rng(0)
    users = np.arange(200)
    known = set(
        zip(*(x.tolist() for x in (clean.table(clean.target).source, clean.table(clean.target).target)), strict=True)
    )
    items = np.array(
        [next(i for i in draws.permutation(200) if i % 4 == (u + 2) % 4 and (u, i) not in known) for u in users]
    )
    added = inject(clean, users, items)
    options = {"dim": 16, "num_layers": 2, "lr": 0.01, "batch_size": 256, "seed": 3}

    def trained(data: RecDataset, seed: int) -> GraphRecommender:
        model = LightGCN(data, **{**options, "seed": seed})
        graphrec.fit(model, data, epochs=50, progress=False, select_on=None, report=False, seed=seed)
        return model.eval()

    attacked, retrained = trained(added.data, 3), trained(clean, 4)
    method = UnlearnRec(pretrain_epochs=6, pretrain_every=2, finetune_epochs=3)
    folder = prepared(method, attacked, added.data, tmp_path)
    kind = "__".join(clean.target)
    task = task_of(attacked, added.data, ForgetRequest(edges={kind: tuple(added.edge_id.tolist())}), folder)
    made = method.unlearn(task)

    def at(model: GraphRecommender, left: np.ndarray, right: np.ndarray) -> torch.Tensor:
        return scores(model)[torch.from_numpy(left), torch.from_numpy(right)]

    pairs = draws.integers(200, size=(2, 4000))
    pairs = pairs[:, [pair not in known for pair in zip(*pairs.tolist(), strict=True)]]
    unit = float(at(retrained, *pairs).std())
    reference = float(at(retrained, users, items).mean())
    before = abs(float(at(attacked, users, items).mean()) - reference) / unit
    after = abs(float(at(made.model, users, items).mean()) - reference) / unit
    assert before > 1, "the attack is too weak to say anything"
    assert after <= 0.5, (before, after)
    recall = [
        graphrec.evaluate(m, d, ks=(20,))["recall@20"] for m, d in ((made.model, task.remaining), (retrained, clean))
    ]
    assert recall[0] >= 0.97 * recall[1]
