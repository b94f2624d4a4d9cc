"""The objective's derivatives against autograd, finite differences and deletion."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.influence.general_objective import GeneralObjective
from graphrec.influence.linear_objective import LinearObjective, is_linear
from graphrec.influence.objective import Objective, objective
from graphrec.models import BPRMF, EASE, KGAT, NCL, NGCF, SGL, DirectAU, LightGCN, SimGCL
from graphrec.models.deletion import without_edges
from tests.influence.small_graph import dense, minimum, small_graph, small_model, small_objective
from tests.models.planted_kg import tiny_kg

torch.set_num_threads(1)

KINDS = [
    {},
    {"negatives": "readmit"},
    {"num_negatives": 2, "negatives": "readmit", "positives": "user"},
    {"loss": "bce", "reg": 0.1, "regulariser": "rows", "positives": "user"},
    {"loss": "softmax", "negatives": "readmit"},
]


def weights(count: int = 18, seed: int = 0) -> Tensor:
    """Edges that are partly there."""
    return 0.4 + 0.6 * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(like: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)


def general(made: Objective) -> GeneralObjective:
    """The same objective by double backward."""
    return GeneralObjective(made.model, made.terms, made.reg, made.regulariser)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("layers", [0, 2])
def test_products_are_those_of_the_dense_hessian(layers: int, options: dict[str, object]) -> None:
    made = small_objective(layers, **options)
    w = weights()
    theta = made.theta
    hessian = torch.autograd.functional.hessian(lambda x: made.value(x, w, w), theta)
    found = dense(made.curvature(theta, w, w, gauss_newton=False), theta)
    assert float((found - hessian).abs().max()) < 1e-8
    torch.testing.assert_close(made.hvp(theta, draw(theta), w, w), hessian @ draw(theta), atol=1e-9, rtol=1e-9)
    slope = torch.autograd.functional.jacobian(lambda x: made.value(x, w, w), theta)
    torch.testing.assert_close(made.gradient(theta, w, w), slope, atol=1e-11, rtol=1e-10)


@pytest.mark.parametrize("options", KINDS)
def test_closed_forms_and_double_backward_agree(options: dict[str, object]) -> None:
    made = small_objective(2, **options)
    other, theta, w = general(made), made.theta, weights()
    v = draw(theta)
    for ours, theirs in (
        (made.gradient(theta, w, w), other.gradient(theta, w, w)),
        (made.hvp(theta, v, w, w), other.hvp(theta, v, w, w)),
        (made.gauss_newton(theta, v, w, w), other.gauss_newton(theta, v, w, w)),
        (made.mixed(theta, v, w, w), other.mixed(theta, v, w, w)),
        (made.per_edge(theta, w, w), other.per_edge(theta, w, w)),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("options", KINDS)
def test_gauss_newton_has_no_negative_eigenvalue_and_the_hessian_has(options: dict[str, object]) -> None:
    made = small_objective(2, **options)
    values = torch.linalg.eigvalsh(dense(made.curvature(made.theta), made.theta))
    assert float(values.min()) > -1e-12
    exact = torch.linalg.eigvalsh(dense(made.curvature(made.theta, gauss_newton=False), made.theta))
    assert float(exact.min()) < -1e-2  # far from a minimum


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("layers", [0, 2])
def test_the_double_backward_is_the_difference_of_gradients(layers: int, options: dict[str, object]) -> None:
    made = small_objective(layers, **options)
    theta, w = made.theta, weights()
    q, step = draw(theta), 1e-5
    found = made.mixed(theta, q, w, w)
    for edge in (0, 7, 17):
        move = torch.zeros_like(w)
        move[edge] = step
        up, down = (made.gradient(theta, w + s * move, w + s * move) for s in (1, -1))
        assert float((up - down) @ q) / (2 * step) == pytest.approx(float(found[edge]), abs=1e-7)
    delta = draw(w, 2)
    assert float(made.mixed_step(theta, delta, w, w) @ q) == pytest.approx(float(found @ delta), abs=1e-9)
    parts = [made.mixed(theta, q, w, w, parts=(part,)) for part in ("loss", "graph", "negatives")]
    torch.testing.assert_close(sum(parts), found, atol=1e-10, rtol=1e-9)
    assert (float(parts[1].abs().max()) == 0) == (layers == 0)
    assert (float(parts[2].abs().max()) == 0) == (made.terms.special.numel() == 0)


def test_there_are_as_many_zero_directions_as_rotations() -> None:
    made = small_objective()
    values = torch.linalg.eigvalsh(dense(made.curvature(minimum(made), gauss_newton=False), made.theta))
    assert int((values.abs() < 1e-9).sum()) == 3 * 2 // 2
    assert float(values[3]) > 1e-3 and float(values[0]) > -1e-12


@pytest.mark.parametrize(("layers", "count", "loss"), itertools.product([0, 2], ["all", 1], ["bpr", "softmax"]))
def test_a_weight_of_zero_is_a_deletion_with_negatives_readmitted(layers: int, count: object, loss: str) -> None:
    options = {"num_negatives": count, "loss": loss, "negatives": "readmit", "reg": 0.05, "positives": "edge"}
    model = small_model(layers)
    made = objective(model, **options)  # type: ignore[arg-type]
    gone = torch.tensor([1, 8])
    w_loss, w_graph = made.weights(gone)
    left = objective(without_edges(model, {made.target: gone}), **options)  # type: ignore[arg-type]
    assert left.num_edges == 16
    torch.testing.assert_close(made.value(made.theta, w_loss, w_graph), left.value(left.theta), atol=1e-12, rtol=1e-12)
    ours, theirs = made.gradient(made.theta, w_loss, w_graph), left.gradient(left.theta)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-11)


def test_frozen_negatives_are_another_objective() -> None:
    frozen, readmitted = small_objective(), small_objective(negatives="readmit")
    assert torch.equal(frozen.value(frozen.theta), readmitted.value(frozen.theta))
    w_loss, w_graph = frozen.weights([3])
    apart = frozen.value(frozen.theta, w_loss, w_graph) - readmitted.value(frozen.theta, w_loss, w_graph)
    assert abs(float(apart)) > 1e-3


def test_users_alike_weigh_edges_by_degree() -> None:
    data = small_graph([[0, 1, 2, 3], [0], [1, 4]])
    made = objective(LightGCN(data, dim=3), positives="user", num_negatives="all")
    weight = made.terms.coefficients(made.ones())
    torch.testing.assert_close(weight, torch.tensor([7 / 12] * 4 + [7 / 3] + [7 / 6] * 2, dtype=torch.float64))
    rows = made.terms.row_counts(made.ones(), made.ones())
    assert float(rows[0].sum()) == pytest.approx(7) and float(rows[1].sum()) == pytest.approx(14)


def test_the_objective_is_the_models_own_training_loss() -> None:
    """A batch of all edges with the same negatives: the loss of training times E."""
    model = LightGCN(small_graph(), dim=3, num_layers=2, positives="edge", reg=0.1, init_scale=0.5, batch_size=100)
    made = objective(model, num_negatives=1, seed=7)
    stream = torch.Generator().manual_seed(7)
    (batch,) = model.batches(0, stream)
    total = sum(model.pair_loss(batch).values())
    assert float(made.value(made.theta)) == pytest.approx(18 * float(total), rel=1e-6)


def test_linear_models_are_recognised() -> None:
    data = small_graph()
    for model in (BPRMF(data, dim=4), *(LightGCN(data, dim=4, normalisation=n) for n in ("sym", "left", "l1"))):
        assert is_linear(model) and isinstance(objective(model), LinearObjective)
    assert is_linear(LightGCN(data, dim=4, self_loops=True))
    for other in (NGCF(data, dim=4), LightGCN(data, dim=4, layer_weights="learned")):
        assert not is_linear(other) and isinstance(objective(other), GeneralObjective)


@pytest.mark.parametrize("normalisation", ["left", "l1", "sqrt_right"])
def test_every_normalisation_and_self_loops_have_closed_forms(normalisation: str) -> None:
    model = LightGCN(
        small_graph(),
        dim=3,
        num_layers=2,
        normalisation=normalisation,
        self_loops=True,
        init_scale=0.5,  # type: ignore[arg-type]
    )
    made = objective(model, num_negatives="all", reg=0.05)
    other, theta, w = general(made), made.theta, weights()
    v = draw(theta)
    torch.testing.assert_close(made.hvp(theta, v, w, w), other.hvp(theta, v, w, w), atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(made.mixed(theta, v, w, w), other.mixed(theta, v, w, w), atol=1e-10, rtol=1e-9)


def test_narrow_blocks_of_columns_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = small_objective()
    v = draw(made.theta)
    whole = made.mixed(made.theta, v)
    monkeypatch.setattr("graphrec.influence.linear_objective._CHUNK_BYTES", 1)
    torch.testing.assert_close(made.mixed(made.theta, v), whole, atol=1e-12, rtol=1e-12)


def test_a_general_models_products_are_those_of_its_dense_hessian() -> None:
    model = NGCF(small_graph(), dim=2, num_layers=1)
    made = objective(model, num_negatives="all", reg=0.05)
    theta, w = made.theta, weights()
    hessian = torch.autograd.functional.hessian(lambda x: made.value(x, w, w), theta)
    assert float((dense(made.curvature(theta, w, w, gauss_newton=False), theta) - hessian).abs().max()) < 1e-8
    assert float(torch.linalg.eigvalsh(dense(made.curvature(theta, w, w), theta)).min()) > -1e-10


def test_edges_of_a_knowledge_graph_act_through_the_propagation() -> None:
    with pytest.warns(UserWarning, match="phase 'triples'"):
        made = objective(KGAT(tiny_kg(), dim=3), num_negatives=1, reg=0.05)
    assert isinstance(made, GeneralObjective)
    graph, theta = made.model.graph_inputs.graph, made.theta
    q, step = draw(theta), 1e-5
    found = made.mixed_by_type(theta, q, tuple(graph.edge_types))
    moved = 0.0
    for kind in graph.edge_types:
        if kind == made.target:
            continue
        ones = torch.ones(graph[kind].edge_index.shape[1], dtype=torch.float64)
        for edge in range(min(3, len(ones))):
            move = torch.zeros_like(ones)
            move[edge] = step
            up, down = (made.gradient(theta, None, {kind: ones + s * move}) for s in (1, -1))
            slope = float((up - down) @ q) / (2 * step)
            assert slope == pytest.approx(float(found[kind][edge]), abs=1e-6)
            moved = max(moved, abs(slope))
    assert moved > 1e-4
    kind = next(kind for kind in graph.edge_types if kind != made.target)
    w_loss, w_graph = made.weights({kind: graph[kind].edge_id[:2]})
    assert float(w_loss.min()) == 1 and isinstance(w_graph, dict) and int((w_graph[kind] == 0).sum()) == 2


def test_losses_without_a_fixed_value_are_refused() -> None:
    data = small_graph()
    for model in (SimGCL(data, dim=4), SGL(data, dim=4), DirectAU(data, dim=4)):
        with pytest.raises(InputError, match="no fixed objective"):
            objective(model)
    with pytest.raises(InputError, match="ranks no pairs"):
        objective(DirectAU(data, dim=4), terms="rank")
    with pytest.raises(InputError, match="closed form"):
        objective(EASE(data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert objective(SimGCL(data, dim=4), terms="rank").closed_form
        assert objective(DirectAU(data, dim=4), terms="rank", loss="bpr").num_edges == 18
        objective(NCL(data, dim=4, num_clusters=2), terms="rank")
    with pytest.warns(UserWarning, match="structure"):
        objective(NCL(data, dim=4, num_clusters=2))


def test_bad_input_says_what_was_found() -> None:
    model = small_model()
    with pytest.raises(InputError, match="fingerprint"):
        objective(model, small_graph([[0, 1], [2]]))
    with pytest.raises(InputError, match="num_negatives must be"):
        objective(model, num_negatives=0)
    with pytest.raises(InputError, match="Did you mean 'readmit'"):
        objective(model, negatives="readmitt")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown regulariser"):
        objective(model, regulariser="ridge")  # type: ignore[arg-type]
    made = small_objective()
    with pytest.raises(InputError, match=r"theta must be \(36,\)"):
        made.value(torch.zeros(35, dtype=torch.float64))


def test_the_model_is_left_alone_and_given_back() -> None:
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = objective(model)
    given = made.recommender(made.theta + 1.0)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.user_embedding.dtype == torch.float32 and model.user_embedding.requires_grad
    torch.testing.assert_close(given.user_embedding.float(), model.user_embedding + 1)
    torch.testing.assert_close(
        made.recommender(made.theta).score(torch.arange(6)).float(), model.eval().score(torch.arange(6))
    )
