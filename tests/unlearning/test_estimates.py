"""What a request will take, foretold: finite for every method that a model supports, and near what is then counted."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import graphrec
from graphrec.datasets import RecDataset
from graphrec.influence.solvers import conjugate_gradient
from graphrec.models import BPRMF, EASE, KGAT, LightGCN, SimGCL
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run
from graphrec.runs.manifest import write_contents
from graphrec.unlearning import METHODS, ForgetRequest, preview, remaining, resolve
from graphrec.unlearning.methods.base import Task, Unlearner
from graphrec.unlearning.methods.estimates import Pace, conjugate_gradient_products
from graphrec.unlearning.preview import estimates
from tests.models.planted import planted
from tests.models.planted_kg import tiny_kg

REQUEST = ForgetRequest(users=(2, 5))
FACTOR = 5
"""A count of work is foretold within this factor."""


def trained(folder: Path, data: RecDataset, model_class: type[GraphRecommender] = LightGCN, **hparams: object) -> Run:
    model = model_class(data, **hparams)
    lists = {"ks": (5,), "metric": "recall@5"}
    return graphrec.fit(model, data, out=folder / "run", epochs=4, progress=False, report=False, **lists)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("run"), planted(), dim=8, num_layers=2, lr=0.02, seed=3)


@pytest.mark.parametrize(("model_class", "hparams"), [(BPRMF, {"dim": 8}), (SimGCL, {"dim": 8}), (EASE, {})])
def test_every_supported_method_says_how_long(
    model_class: type[GraphRecommender], hparams: dict[str, object], tmp_path: Path
) -> None:
    data = planted()
    made = trained(tmp_path, data, model_class, **hparams)
    found = preview(made.model(), data, resolve(REQUEST, data), made)
    assert set(found.seconds) == set(METHODS) - set(found.refused) == set(found.basis)
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in found.seconds.values()), found.seconds
    assert all(found.basis.values())


def test_triples_are_estimated_too(tmp_path: Path) -> None:
    data = tiny_kg()
    made = trained(tmp_path, data, KGAT, dim=4)
    heads = data.tables[next(name for name in data.tables if name != data.target)]
    kind = "__".join(heads.edge_type)
    found = preview(made.model(), data, resolve(ForgetRequest(edges={kind: (int(heads.edge_id[0]),)}), data), made)
    assert {"retrain", "finetune", "gif"} <= set(found.seconds) == set(METHODS) - set(found.refused)
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in found.seconds.values()), found.seconds


def test_nothing_to_forget_takes_no_time(run: Run) -> None:
    data = planted()
    found = preview(run.model(), data, resolve(ForgetRequest(), data), run)
    assert set(found.seconds.values()) == {0.0}


QUICK: dict[str, Unlearner] = {
    "retrain": METHODS["retrain"](),
    "finetune": METHODS["finetune"](),
    "gif": METHODS["gif"](),
    "ifru": METHODS["ifru"](),
    "scif": METHODS["scif"](),
    "gnndelete": METHODS["gnndelete"](steps=20),  # type: ignore[call-arg]
    "alteraser": METHODS["alteraser"](),
    "unlearnrec": METHODS["unlearnrec"](pretrain_epochs=1),  # type: ignore[call-arg]
    "sisa": METHODS["sisa"](shards=4),  # type: ignore[call-arg]
    "ultrare": METHODS["ultrare"](shards=4, partition="hash", aggregator="mean"),  # type: ignore[call-arg]
}


BESIDE = {"gif": 15, "ifru": 16, "scif": 15, "alteraser": 10 + 3 * 6}


@pytest.mark.parametrize("name", QUICK)
def test_the_work_that_is_foretold_is_about_what_is_done(name: str, run: Run, tmp_path: Path) -> None:
    """Counts of epochs, products, steps and shards; seconds are these times one that was measured."""
    data, method = planted(), QUICK[name]
    found = resolve(REQUEST, data)
    told = estimates(run.model(), data, found, run, [method])[name]
    assert told.seconds > 0 and told.basis
    model, state = run.model(), None
    if method.needs_state:
        (tmp_path / "work").mkdir()
        made = method.prepare(model, data, seed=3, fit={"epochs": 4}, folder=tmp_path / "work")
        model, state = made.model, tmp_path / "state"
        state.mkdir()
        write_contents(state, made.files)
    task = Task(model, data, remaining(data, found), found, seed=3, fit={**run.config["fit"]}, state=state)
    facts = method.unlearn(task).facts
    counted = {"products": "iterations", "steps": "steps", "epochs": "epochs", "shards": "shards_touched"}
    compared = 0
    for unit, foretold in told.work.items():
        if counted[unit] in facts and not (unit == "epochs" and "shards" in told.work):
            # What is counted in ``facts`` are the solver's; eigenvalue, gradients and values come on top.
            done = float(facts[counted[unit]]) + BESIDE.get(name, 0)
            assert done / FACTOR <= foretold <= done * FACTOR, (unit, foretold, done)
            compared += 1
    if name == "unlearnrec":
        assert told.work == {"epochs": method.finetune_epochs + 1}  # type: ignore[attr-defined]
    else:
        assert compared == 1


def test_a_model_in_shards_knows_which_are_touched(run: Run, tmp_path: Path) -> None:
    data, method = planted(), dataclasses.replace(QUICK["sisa"], slices=1)
    (tmp_path / "work").mkdir()
    model = method.prepare(run.model(), data, seed=3, fit={"epochs": 2}, folder=tmp_path / "work").model
    found = resolve(ForgetRequest(users=(2,)), data)
    told = method.estimate(Task(model, data, remaining(data, found), found), Pace(8.0, 4, 2.0, 0.0))
    assert told is not None and told.work["shards"] == 1
    # A quarter of four epochs.
    assert told.seconds == pytest.approx(2.0 * 4 / 4) and told.work["epochs"] == 1


def test_estimates_follow_the_options(run: Run) -> None:
    data = planted()
    found = resolve(REQUEST, data)
    few, many = METHODS["finetune"](epochs=2), METHODS["finetune"](epochs=20)  # type: ignore[call-arg]
    two, twenty = (estimates(run.model(), data, found, run, [m])["finetune"].seconds for m in (few, many))
    assert twenty == pytest.approx(10 * two)


def test_the_bound_on_products_holds_on_the_worst_spectra() -> None:
    draws = torch.Generator().manual_seed(0)
    for damping, tolerance in ((1e-2, 1e-3), (0.1, 1e-3), (1e-3, 1e-4)):
        values = torch.from_numpy(np.geomspace(damping / 10, 1.0, 400))
        right = torch.randn(400, generator=draws, dtype=torch.float64)
        found = conjugate_gradient(lambda v, d=values: d * v, right, damping=damping, tolerance=tolerance)
        bound = conjugate_gradient_products(damping, tolerance, 10_000)
        assert found.converged and bound / 3 <= found.iterations <= 2 * bound
    assert conjugate_gradient_products(0.0, 1e-3, 7) == 7 == conjugate_gradient_products(1e-9, 1e-3, 7)
    assert dataclasses.replace(METHODS["gif"](), paper_exact=True).products(None) == 7  # type: ignore
