"""SCIF: relabelled samples, involved rows alone."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from graphrec.errors import InputError
from graphrec.models import BPRMF, EASE, NGCF, LightGCN
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.methods.scif import SCIF
from graphrec.unlearning.neighbourhood import touched_edges
from tests.unlearning.methods.conformance import MethodConformance, scores
from tests.unlearning.methods.truth import Case, case, converged, small, some_edges


class TestScif(MethodConformance):
    method = SCIF(num_negatives=4, iterations=20)


class TestScifOnTables(MethodConformance):
    method = SCIF(num_negatives=4, iterations=20)
    model_class = BPRMF
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "lr": 0.02, "loss": "bce", "seed": 3}


class TestPublished(MethodConformance):
    method = SCIF(num_negatives=4, iterations=10, paper_exact=True, damping=0.5)
    model_class = NGCF
    hparams: ClassVar[dict[str, Any]] = {"dim": 8, "num_layers": 1, "lr": 0.02, "seed": 3}


@pytest.fixture(scope="module", params=["bpr", "bce"])
def found(request: pytest.FixtureRequest) -> Case:
    data = small()
    model = converged(LightGCN, data, dim=4, num_layers=2, reg=0.05, loss=request.param)
    return case(model, data, some_edges(data, 40))


def test_the_logits_of_forgotten_edges_fall(found: Case) -> None:
    made = SCIF(damping=1e-2).unlearn(found.task)
    places = found.made.positions(found.task.removed)
    users, items = found.made.edge_index[:, places]
    nothing, after = scores(found.task.rebuilt()), scores(made.model)
    fallen = (after - nothing)[users, items] - (after - nothing)[users].mean(1)
    assert float(fallen.mean()) < 0
    assert float(made.facts["relative_residual"]) < 1e-2


def test_only_involved_rows_move(found: Case) -> None:
    made = SCIF(damping=1e-2).unlearn(found.task).model
    touched = touched_edges(found.task.model.graph_inputs.graph, found.task.removed)
    for name, node_type in made.row_parameters.items():
        moved = (made.get_parameter(name) != found.task.model.get_parameter(name)).any(1)
        assert torch.equal(moved, touched[node_type] > 0)


def test_the_gradient_is_that_of_the_relabelled_loss(found: Case) -> None:
    """Finite differences of Σ c_e (l(1) - l(ȳ)), written out over edges and negatives."""
    made, edges, label = found.made, found.made.positions(found.task.removed), 0.3
    terms, ones = made.terms, made.ones()
    weight, shares = terms.coefficients(ones), terms.shares(ones)

    def apart(theta: torch.Tensor) -> float:
        total = 0.0
        for edge in edges.tolist():
            own = made.pair_scores(theta, terms.users[[edge]], terms.items[[edge]])
            logits, parts = own, ones.new_ones(1)
            if terms.loss == "bpr":
                mine = torch.nonzero(terms.owner == edge)[:, 0]
                others = terms.items_of_triples[mine]
                logits = own - made.pair_scores(theta, terms.users[[edge]].expand(len(mine)), others)
                parts = shares[mine]
            plus, minus = torch.nn.functional.softplus(-logits), torch.nn.functional.softplus(logits)
            total += float(weight[edge] * (parts * (plus - label * plus - (1 - label) * minus)).sum())
        return total

    gradient = SCIF.relabelled(made, edges, made.theta.new_full((len(edges),), label))
    direction = torch.randn(len(made.theta), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-5
    numeric = (apart(made.theta + step * direction) - apart(made.theta - step * direction)) / (2 * step)
    assert abs(numeric - float(gradient @ direction)) < 1e-6 * max(1.0, abs(numeric))


def test_labels_are_the_users_own_predictions_on_what_remains(found: Case) -> None:
    made, edges = found.made, found.made.positions(found.task.removed)
    terms = made.terms
    labels = SCIF().labels(made, edges)
    stays = torch.ones(made.num_edges, dtype=torch.bool)
    stays[edges] = False
    for place, found_label in zip(edges.tolist(), labels.tolist(), strict=True):
        own = torch.nonzero(stays & (terms.users == terms.users[place]))[:, 0].tolist()
        predicted = []
        for edge in own:
            score = made.pair_scores(made.theta, terms.users[[edge]], terms.items[[edge]])
            mine = torch.nonzero(terms.owner == edge)[:, 0]
            others = made.pair_scores(made.theta, terms.users[[edge]].expand(len(mine)), terms.items_of_triples[mine])
            shares = terms.shares(made.ones())[mine]
            label_of = score if terms.loss == "bce" else score - others
            parts = shares.new_ones(1) if terms.loss == "bce" else shares
            predicted.append(float((parts * label_of.sigmoid()).sum()))
        assert abs(found_label - sum(predicted) / len(predicted)) < 1e-9
    assert float(SCIF(label=0.3).labels(made, edges).max()) == float(made.theta.new_tensor(0.3))


def test_the_published_label_pulls_far_further(found: Case) -> None:
    plain, half, published = (
        SCIF(damping=1e-2, **options).unlearn(found.task) for options in ({}, {"label": 0.5}, {"paper_exact": True})
    )
    assert float(half.facts["right_norm"]) > 1.2 * float(plain.facts["right_norm"])
    # At an optimum the gradient of the whole objective is 0.
    torch.testing.assert_close(scores(half.model), scores(published.model), rtol=1e-3, atol=1e-3)


def test_training_on_is_not_forgetting(found: Case) -> None:
    away = type(found.task.model)(found.task.data, **found.task.model.hparams).eval()
    task = Task(away, found.task.data, found.task.remaining, found.task.resolved)
    half, published = (SCIF(label=0.5, paper_exact=exact).unlearn(task) for exact in (False, True))
    assert float(published.facts["right_norm"]) > 2 * float(half.facts["right_norm"])


def test_options_are_checked() -> None:
    assert SCIF.refuses(EASE) is not None
    with pytest.raises(InputError):
        SCIF(label=1.0)
    with pytest.raises(InputError):
        SCIF(damping=-1.0)
