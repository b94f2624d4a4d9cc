"""Estimators against retraining, against slow references, and the order in which they come."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphrec.errors import InputError
from graphrec.influence.attribution_metrics import draw_subsets, leave_one_out, linear_datamodelling_score
from graphrec.influence.estimators import attribute
from graphrec.influence.inverse import Inverse
from graphrec.influence.queries import differentiated, part_loss, score_query
from graphrec.influence.tracin import Checkpoint, descent, tracin
from graphrec.influence.trak import SubsetModel, trak
from graphrec.influence.truth import fresh_start, minimise, on_subsets
from graphrec.influence.truth import leave_one_out as retrained
from tests.influence.attribution_case import case

EDGES = np.arange(0, 180, 18)


@pytest.mark.parametrize("negatives", ["frozen", "readmit"])
def test_the_more_is_modelled_the_nearer_to_retraining(negatives: str) -> None:
    known = case(negatives=negatives)
    actual = retrained(known.made, known.theta, known.query, EDGES).change.reshape(-1)
    inverse = Inverse(known.made, known.theta, gauss_newton=False, damping=1e-6, tolerance=1e-8)
    errors, ranks = {}, {}
    for name in ("nothing", "derivative", "gif", "newton"):
        found = attribute(
            known.made,
            known.theta,
            known.query,
            estimator=name,
            inverse=inverse,
            edges=EDGES,  # type: ignore[arg-type]
        )
        assert found.influence.shape == (3, len(EDGES))
        assert found.gradient_norm <= 1e-9
        agreement = leave_one_out(found.influence.reshape(-1), actual, resamples=10)
        errors[name], ranks[name] = agreement.relative_error, agreement.spearman
        if name != "nothing":
            assert found.relative_residual is not None
            assert found.relative_residual <= 1e-7
            assert found.products > 0
        else:
            assert found.relative_residual is None
    assert errors["newton"] < errors["gif"] < errors["derivative"] < errors["nothing"], errors
    assert errors["newton"] < 0.25
    assert ranks["newton"] > 0.95
    assert ranks["derivative"] > 0.75


@pytest.mark.parametrize("gauss_newton", [True, False])
def test_solvers_agree(gauss_newton: bool) -> None:
    known = case()
    slope = differentiated(known.query, known.theta, known.made)[1][0]
    found = {}
    for solver in ("cg", "lissa", "dense", "arnoldi"):
        inverse = Inverse(
            known.made,
            known.theta,
            solver=solver,  # type: ignore[arg-type]
            gauss_newton=gauss_newton,
            damping=1e-3,
            tolerance=1e-7,
            max_iterations=len(known.theta) if solver == "arnoldi" else 5000,
        )
        found[solver] = inverse(slope)
        assert inverse.products > 0
        if solver != "arnoldi":
            assert inverse.worst <= 1e-6
    for solver in ("lissa", "dense"):
        assert torch.allclose(found[solver], found["cg"], rtol=1e-4, atol=1e-6 * float(found["cg"].norm()))
    # Half of the eigenpairs: an approximation whose residual says so.
    assert inverse.worst > 1e-3
    assert float(found["arnoldi"] @ found["cg"]) > 0


def test_a_dense_inverse_preconditions_that_of_other_weights() -> None:
    known = case()
    slope = differentiated(known.query, known.theta, known.made)[1][0]
    weight = known.made.ones()
    weight[5] = 0
    taken = {}
    found = {}
    for solver in ("cg", "dense"):
        inverse = Inverse(known.made, known.theta, solver=solver, tolerance=1e-8)  # type: ignore[arg-type]
        before = inverse.products
        found[solver] = inverse.on(weight, slope)
        taken[solver] = inverse.products - before
    assert torch.allclose(found["dense"], found["cg"], rtol=1e-5, atol=1e-7 * float(found["cg"].norm()))
    assert taken["dense"] < taken["cg"]
    assert not torch.allclose(found["cg"], inverse(slope), rtol=1e-3)


def test_tracin_is_a_sum_of_products_of_gradients() -> None:
    """Against the definition: the gradient of the objective with a little more and a little less of an edge."""
    known = case()
    checkpoints = descent(known.made, fresh_start(known.made, 0), steps=40, rate=0.02, every=15)
    assert [round(point.rate, 6) for point in checkpoints] == [0.3, 0.3, 0.2]
    found = tracin(known.made, checkpoints, known.query)
    step = 1e-5
    for edge in (0, 17):
        expected = torch.zeros(3, dtype=torch.float64)
        for point in checkpoints:
            more, less = known.made.ones(), known.made.ones()
            more[edge] += step
            less[edge] -= step
            mixed = known.made.gradient(point.theta, more, more) - known.made.gradient(point.theta, less, less)
            expected += point.rate * differentiated(known.query, point.theta, known.made)[1] @ (mixed / (2 * step))
        assert torch.allclose(found[:, edge], expected, rtol=1e-5, atol=1e-9)
    with pytest.raises(InputError, match="take a rate below"):
        descent(known.made, known.theta + 0.1, steps=30, rate=50.0, every=10)
    with pytest.raises(InputError, match="at least one checkpoint"):
        tracin(known.made, (), known.query)


def test_trak_of_a_full_projection_is_the_formula() -> None:
    """One model, gradients by hand: wide projections reach the unprojected formula."""
    known = case()
    model = SubsetModel(known.theta, known.made.ones())
    found = trak(known.made, [model], known.query, width=500, ridge=0.1)
    losses = known.made.per_edge(known.theta)
    unit = torch.eye(known.made.num_edges, dtype=torch.float64)
    with torch.enable_grad():
        theta = known.theta.clone().requires_grad_()
        per_edge = known.made.per_edge(theta)
        jacobian = torch.stack([torch.autograd.grad(per_edge, theta, row, retain_graph=True)[0] for row in unit])
    rest = 1 - torch.exp(-losses)
    features = -jacobian / rest[:, None]
    gram = features @ features.T  # in the space of edges, where it is small
    mean = float(gram.diagonal().sum()) / 500
    slopes = differentiated(known.query, known.theta, known.made)[1]
    kernel = slopes @ features.T @ torch.linalg.inv(gram + 0.1 * mean * torch.eye(len(gram), dtype=torch.float64))
    expected = -kernel * rest
    for row, other in zip(found, expected, strict=True):
        assert float(torch.corrcoef(torch.stack([row, other]))[0, 1]) > 0.9
    with pytest.raises(InputError, match="at least one model"):
        trak(known.made, [], known.query)


def test_scores_of_subsets_are_foreseen() -> None:
    """LDS of every estimator on halves of the edges: the controls below, the rest above chance."""
    known = case()
    test = known.data.pairs("test")
    query = score_query(known.made, torch.as_tensor(test.users[::3].copy()), torch.as_tensor(test.items[::3].copy()))
    kept = draw_subsets(12, known.made.num_edges, 0.5, seed=0)
    actual = on_subsets(known.made, known.theta, query, kept).values
    halves = draw_subsets(3, known.made.num_edges, 0.5, seed=1)
    models = []
    for row in halves:
        weight = torch.as_tensor(row, dtype=torch.float64)
        models.append(SubsetModel(minimise(known.made, known.theta, weight).theta, weight))
    checkpoints = descent(known.made, fresh_start(known.made, 0), steps=60, rate=0.02, every=20)
    inverse = Inverse(known.made, known.theta, gauss_newton=False, damping=1e-4, solver="dense")
    scores = {}
    for name in ("derivative", "tracin", "trak", "random"):
        found = attribute(
            known.made,
            known.theta,
            query,
            estimator=name,  # type: ignore[arg-type]
            inverse=inverse,
            checkpoints=checkpoints,
            models=models,
            width=32,
        )
        scores[name] = linear_datamodelling_score(found.influence, kept, actual, resamples=10).mean
    assert scores["derivative"] > 0.3, scores
    assert scores["tracin"] > 0.2, scores
    assert scores["trak"] > 0.1, scores
    assert abs(scores["random"]) < 0.15, scores


def test_influence_on_a_validation_loss_and_without_propagation() -> None:
    known = case("BPRMF")
    query = part_loss(known.made, known.data, "test", num_negatives=3)
    inverse = Inverse(known.made, known.theta, gauss_newton=False, damping=1e-6, tolerance=1e-8)
    found = attribute(known.made, known.theta, query, inverse=inverse)
    assert found.influence.shape == (1, known.made.num_edges)
    actual = retrained(known.made, known.theta, query, EDGES).change[0]
    assert leave_one_out(found.influence[0, EDGES], actual, resamples=10).spearman > 0.6
    # Where nothing is propagated, the same parameters give the same query.
    nothing = attribute(known.made, known.theta, query, estimator="nothing", edges=EDGES)
    assert not nothing.influence.any()


def test_what_is_missing_is_said() -> None:
    known = case()
    with pytest.raises(InputError, match="pass inverse="):
        attribute(known.made, known.theta, known.query)
    with pytest.raises(InputError, match="derivative"):
        attribute(known.made, known.theta, known.query, estimator="derivate")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="positions from 0"):
        attribute(known.made, known.theta, known.query, estimator="nothing", edges=np.array([10**6]))
    with pytest.raises(InputError, match="Did you mean"):
        Inverse(known.made, known.theta, solver="gc")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no pairs"):
        part_loss(known.made, known.data, "valid")
    assert isinstance(Checkpoint(known.theta, 0.1).rate, float)
