from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.layers.losses import point_loss
from graphrec.models import BPRMF, EASE
from graphrec.models.base import GraphInputs, PointBatch
from graphrec.models.labelled import LabelledPairs
from graphrec.models.pointwise import labelled_batches
from graphrec.runs.tensors import read_inputs, write_inputs
from tests.evaluation.labelled import labelled
from tests.models.conformance import ModelConformance
from tests.models.planted import planted
from tests.models.point_mf import PointMF


class TestPointMF(ModelConformance):
    """The contract where nothing is labelled: negatives are drawn."""

    model_class = PointMF
    hparams: ClassVar = {"lr": 5e-2, "num_negatives": 2}
    epochs = 20


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return labelled()


@pytest.fixture(scope="module")
def inputs(data: RecDataset) -> GraphInputs:
    return GraphInputs.from_dataset(data, labels=True)


def epoch(inputs: GraphInputs, number: int = 0, size: int = 64, **options: object) -> list[PointBatch]:
    return list(labelled_batches(inputs, size, randomness.generator(0, "batches", number), **options))  # type: ignore[arg-type]


def joined(batches: list[PointBatch], name: str) -> list[float]:
    return torch.cat([getattr(batch, name) for batch in batches]).tolist()


def test_an_epoch_has_every_labelled_training_pair_once(data: RecDataset, inputs: GraphInputs) -> None:
    table = data.interactions("train", labels=True)
    assert table.label is not None
    expected = Counter(
        zip(table.source.tolist(), table.target.tolist(), table.label.tolist(), table.edge_id.tolist(), strict=True)
    )
    first, second = epoch(inputs, 0), epoch(inputs, 1)
    for batches in (first, second):
        columns = [joined(batches, name) for name in ("users", "items", "labels", "edge_id")]
        assert Counter(zip(*columns, strict=True)) == expected
        assert [len(batch) for batch in batches[:-1]] == [64] * (len(batches) - 1)
    assert joined(first, "edge_id") != joined(second, "edge_id")
    assert joined(first, "edge_id") == joined(epoch(inputs, 0), "edge_id")


def test_labelled_negatives_are_no_edges(data: RecDataset, inputs: GraphInputs) -> None:
    assert inputs.labelled is not None
    matrix = inputs.adjacency()
    known = matrix.contains(inputs.labelled.users, inputs.labelled.items)
    assert torch.equal(known, inputs.labelled.labels > 0)
    assert len(matrix) == inputs.labelled.positives == len(data.interactions("train"))
    assert GraphInputs.from_dataset(data).labelled is None


def test_a_row_taken_out_leaves_the_order_of_the_others(data: RecDataset, inputs: GraphInputs) -> None:
    gone = [5, 17, 300]
    fewer = GraphInputs.from_dataset(data.without(gone), labels=True)
    left = [edge for edge in joined(epoch(inputs), "edge_id") if edge not in gone]
    assert joined(epoch(fewer), "edge_id") == left


@pytest.mark.parametrize("count", [1, 3])
def test_drawn_negatives_are_no_edges_and_go_with_theirs(data: RecDataset, inputs: GraphInputs, count: int) -> None:
    positives = planted()
    for source, options in ((GraphInputs.from_dataset(positives, labels=True), {}), (inputs, {"examples": "drawn"})):
        batches = epoch(source, num_negatives=count, **options)
        users, items, labels, edges = (
            torch.cat([getattr(batch, name) for batch in batches]) for name in ("users", "items", "labels", "edge_id")
        )
        matrix = source.adjacency()
        assert torch.equal(matrix.contains(users, items), labels > 0)
        assert int(labels.sum()) == len(matrix) and len(labels) == (1 + count) * len(matrix)
        assert set(Counter(edges.tolist()).values()) == {1 + count}
        owner = dict(zip(edges[labels > 0].tolist(), users[labels > 0].tolist(), strict=True))
        assert [owner[edge] for edge in edges.tolist()] == users.tolist()
        again = epoch(source, 1, num_negatives=count, **options)
        assert sorted(joined(again, "items")) != sorted(items.tolist())


def test_loss_and_gradient_against_a_loop(data: RecDataset) -> None:
    model = PointMF(data, dim=3, reg=0.1).double()
    batch = next(iter(model.batches(0, randomness.generator(0, "batches"))))
    weight = torch.linspace(0, 2, len(batch), dtype=torch.float64)
    batch = replace(batch, weight=weight)
    terms = model.point_terms(batch)
    click = reg = 0.0
    gradient = torch.zeros_like(model.bias)
    for user, item, label, w in zip(batch.users, batch.items, batch.labels, weight, strict=True):
        p, q = model.users[user].tolist(), model.items[item].tolist()
        score = sum(a * b for a, b in zip(p, q, strict=True)) + float(model.bias[item].detach())
        probability = 1 / (1 + math.exp(-score))
        click -= float(w) * math.log(probability if label else 1 - probability) / len(batch)
        reg += 0.1 * float(w) * (sum(a * a for a in p) + sum(b * b for b in q)) / len(batch)
        gradient[item] += w * (probability - float(label)) / len(batch)
    assert float(terms["click"].detach()) == pytest.approx(click, rel=1e-12)
    assert float(terms["reg"].detach()) == pytest.approx(reg, rel=1e-12)
    (found,) = torch.autograd.grad(terms["click"], model.bias)
    torch.testing.assert_close(found, gradient)


def test_point_loss_is_checked_and_steady() -> None:
    loss = point_loss(torch.tensor([300.0, -300.0]), torch.tensor([1, 1]))
    assert loss.tolist() == [0.0, 300.0]
    scores = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda y: point_loss(y, torch.tensor([0.0, 1, 0, 1, 1]).double()), scores)
    with pytest.raises(InputError, match="one shape"):
        point_loss(torch.zeros(3), torch.zeros(3, 1))


def test_labels_travel_with_the_inputs(inputs: GraphInputs, tmp_path: Path) -> None:
    write_inputs(tmp_path / "seen", tmp_path / "others", inputs)
    found = read_inputs(tmp_path / "seen", tmp_path / "others")
    assert found.labelled is not None and inputs.labelled is not None
    for name, column in vars(inputs.labelled).items():
        assert torch.equal(getattr(found.labelled, name), column), name
    wide = inputs.apply(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    assert wide.labelled is not None and wide.labelled.labels.dtype == torch.float64
    assert wide.labelled.users.dtype == torch.int64


def test_who_does_not_ask_for_labels_keeps_none(data: RecDataset, tmp_path: Path) -> None:
    drawn = PointMF(data, examples="drawn")
    assert drawn.graph_inputs.labelled is None and BPRMF(data).graph_inputs.labelled is None
    write_inputs(tmp_path / "seen", tmp_path / "others", drawn.graph_inputs)
    assert not (tmp_path / "others").exists()


def test_a_model_says_what_it_is_trained_with(data: RecDataset) -> None:
    assert PointMF(data).objective == "cross entropy of labelled pairs"
    assert PointMF(data, examples="drawn").objective == "cross entropy of drawn pairs"
    assert PointMF(planted()).objective == "cross entropy of drawn pairs"
    assert BPRMF(data).objective == "bpr" and BPRMF(data, loss="bce").objective == "bce"
    assert EASE(data).objective == ""


def test_what_is_wrong_is_said(data: RecDataset) -> None:
    table = data.tables[data.target]
    assert table.part is not None
    one_class = data.without(table.edge_id[(table.part == 0) & ~table.positive])
    with pytest.raises(InputError, match=r"pairs labelled 1 and 0 labelled 0; training on labels needs both"):
        epoch(GraphInputs.from_dataset(one_class, labels=True))
    with pytest.raises(InputError, match="Did you mean 'drawn'"):
        PointMF(data, examples="drwan")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_negatives"):
        PointMF(data, num_negatives=0)
    assert LabelledPairs.of(planted()) is None
