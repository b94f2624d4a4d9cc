from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models import KGCN, KGNNLS
from tests.models.planted_kg import tiny_kg
from tests.models.test_kgcn import TestKGCN as KGCNSuite
from tests.models.test_kgcn import batch_of


class TestKGNNLS(KGCNSuite):
    model_class = KGNNLS
    hparams = {**KGCNSuite.hparams, "smoothness": 0.5}


def labelled_kg(seed: int = 0) -> RecDataset:
    """6 users, 8 items, 6 entities; 30 pairs labelled 1 or 0, and triples drawn at random."""
    draws = np.random.default_rng(seed)
    builder = Builder()
    for node_type, size in (("user", 6), ("item", 8), ("entity", 6)):
        builder.nodes(node_type, np.arange(size))
    pairs = draws.permutation(6 * 8)[:30]
    frame = pd.DataFrame({"user": pairs // 8, "item": pairs % 8, "label": draws.integers(0, 2, 30), "part": "train"})
    builder.interactions(frame, user="user", item="item", label="label", part="part")
    triples = draws.permutation(7 * 3 * 6)[:20]
    builder.triples(
        pd.DataFrame({"head": triples % 7, "relation": triples // 7 % 3, "tail": triples // 21}),
        head=("item", "head"),
        relation="relation",
        tail=("entity", "tail"),
    )
    builder.triples(
        pd.DataFrame({"head": [0, 1, 2, 5], "relation": [0, 1, 2, 1], "tail": [1, 2, 0, 6]}),
        head=("item", "head"),
        relation="relation",
        tail=("item", "tail"),
    )
    return builder.build()


def make(data: RecDataset, **hparams: Any) -> KGNNLS:
    return KGNNLS(data, **{"dim": 5, "num_neighbours": 3, "num_layers": 2, **hparams}).double()


def slow_label(model: KGNNLS, labels: dict[tuple[int, int], float], user: int, item: int) -> torch.Tensor:
    """The label of a pair by recursion, from the card: one node at a time, its own label held out."""

    def known(node: int) -> float | None:
        return None if node == item else labels.get((user, node))

    def propagated(node: int, step: int) -> torch.Tensor:
        label = known(node)
        if step == 0 or label is not None:
            return torch.tensor(0.5 if label is None else label, dtype=torch.float64)
        listed = [(int(t), int(r)) for t, r in model.neighbours[node] if t >= 0]
        u = model.user_embedding[user]
        logits = [(u * model.relation_embedding[r]).mean() for _, r in listed]
        total = sum(torch.exp(logit) for logit in logits)
        value = torch.zeros((), dtype=torch.float64)
        for (t, _), logit in zip(listed, logits, strict=True):
            value = value + torch.exp(logit) / total * propagated(t, step - 1)
        return value / max(len(listed), 1) if model.mix == "mean" else value

    return propagated(item, model.num_layers)


@pytest.mark.parametrize("hparams", [{"num_layers": 1}, {"num_layers": 2}, {"num_layers": 3, "mix": "sum"}], ids=str)
def test_propagated_labels_and_gradients_equal_a_slow_loop(hparams: dict[str, Any]) -> None:
    data = labelled_kg()
    model = make(data, **hparams)
    table = data.interactions("train", labels=True)
    labels = {(int(u), int(i)): float(y) for u, i, y in zip(table.source, table.target, table.positive, strict=True)}
    assert {0.0, 1.0} == set(labels.values())
    users, items = torch.arange(6).repeat_interleave(8), torch.arange(8).repeat(6)
    expected = torch.stack([slow_label(model, labels, int(u), int(i)) for u, i in zip(users, items, strict=True)])
    found = model.propagated_labels(users, items)
    torch.testing.assert_close(found, expected)
    assert len(expected.unique()) > 10
    parameters = [model.user_embedding, model.relation_embedding]
    weight = torch.linspace(-1, 1, len(found), dtype=torch.float64)
    for gradient, right in zip(
        torch.autograd.grad((found * weight).sum(), parameters),
        torch.autograd.grad((expected * weight).sum(), parameters),
        strict=True,
    ):
        assert right.abs().max() > 0
        torch.testing.assert_close(gradient, right)


def test_the_own_label_of_a_pair_is_held_out() -> None:
    """With the pair's label turned round the prediction stays; with another's it changes."""
    data = labelled_kg()
    model = make(data)
    users = torch.arange(6).repeat_interleave(8)
    items = torch.arange(8).repeat(6)
    before = model.propagated_labels(users, items).view(6, 8).detach()
    user, item = (int(ends[0]) for ends in data.graph()[data.target].edge_index[:, :1])
    without = make(data.without(data.interactions("train").edge_id[:1]))
    without.load_state_dict(model.state_dict())
    after = without.propagated_labels(users, items).view(6, 8).detach()
    torch.testing.assert_close(after[user, item], before[user, item])
    changed = (after - before).abs() > 1e-9
    assert changed[user].any()
    assert not changed[torch.arange(6) != user].any()


def test_loss_adds_the_smoothness_term() -> None:
    data = labelled_kg()
    model = make(data, smoothness=0.7)
    batch = batch_of(model, [0, 5], [1, 3], [1, 0])
    terms = model.point_terms(batch)
    predicted = model.propagated_labels(batch.users, batch.items).tolist()
    expected = (math.log1p(math.exp(-predicted[0])) + math.log1p(math.exp(predicted[1]))) / 2
    assert float(terms["smoothness"].detach()) == pytest.approx(0.7 * expected)
    plain = KGCN(data, dim=5, num_neighbours=3, num_layers=2).double()
    plain.load_state_dict(model.state_dict())
    for name, value in plain.point_terms(batch).items():
        torch.testing.assert_close(value, terms[name])
    assert set(make(data, smoothness=0.0).point_terms(batch)) == {"click", "reg"}


def test_drawn_negatives_are_no_labels() -> None:
    model = make(tiny_kg(), examples="drawn")
    assert model.disliked is None
    labels = model.known_labels(torch.arange(8), torch.arange(22).expand(8, 22))
    assert set(labels.unique().tolist()) == {0.5, 1.0}
    assert int((labels == 1).sum()) == 24


def test_a_negative_weight_of_the_term_is_refused() -> None:
    with pytest.raises(InputError, match="smoothness"):
        make(tiny_kg(), smoothness=-1.0)


def test_presets_build() -> None:
    for name, preset in KGNNLS.presets.items():
        assert KGNNLS(tiny_kg(), **preset.model).hparams["smoothness"] == preset.model.get("smoothness", 0.1), name
