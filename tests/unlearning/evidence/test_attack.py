"""The logistic regression is at its optimum, and the features say what they are called."""

from __future__ import annotations

import torch

from graphrec.unlearning.evidence.attack import FEATURES, attack_features, fit_logistic
from graphrec.unlearning.evidence.observed import observe
from graphrec.unlearning.evidence.pairs import pair_set
from graphrec.unlearning.evidence.scores import separation
from graphrec.unlearning.evidence.shadow import degrees
from graphrec.unlearning.evidence.views import view
from tests.unlearning.evidence.scene import world


def test_the_gradient_is_zero_at_what_is_found() -> None:
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, dtype=torch.float64, generator=stream)
    y = (torch.rand(300, generator=stream) < (2 * x[:, 0] - x[:, 2] + 0.5).sigmoid()).double()
    found = fit_logistic(x, y, ridge=0.05)
    weight = found.weight.clone().requires_grad_()
    bias = found.bias.clone().requires_grad_()
    share = torch.where(y > 0, 0.5 / y.sum(), 0.5 / (1 - y).sum())
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, y, weight=share, reduction="sum")
    (loss + 0.5 * 0.05 * weight.square().sum()).backward()
    assert float(weight.grad.abs().max()) < 1e-7
    assert float(bias.grad.abs()) < 1e-7
    assert separation(found(x)[y > 0], found(x)[y == 0]) > 0.8
    assert float(found.weight[0]) > 0.2 > float(found.weight[1].abs())


def test_classes_that_are_apart_do_not_run_away() -> None:
    x = torch.cat([torch.ones(20, 1), -torch.ones(20, 1)])
    y = torch.cat([torch.ones(20), torch.zeros(20)])
    found = fit_logistic(x, y)
    assert bool(found.weight.isfinite().all())
    assert separation(found(x.double())[:20], found(x.double())[20:]) == 1


def test_features_are_scaled_and_those_that_say_nothing_are_zero() -> None:
    here = world()
    seen_by = view(here.before, here.data)
    pairs = pair_set(here.data, "train")[:500]
    seen = observe(seen_by, pairs, sample=torch.arange(160))
    features = attack_features(seen_by, pairs, seen, *degrees(here.data))
    assert features.shape == (500, len(FEATURES))
    assert torch.allclose(features.mean(0), torch.zeros(len(FEATURES), dtype=torch.float64), atol=1e-9)
    by_name = dict(zip(FEATURES, features.unbind(1), strict=True))
    # Every user of the planted data has as many items.
    assert bool((by_name["log_user_degree"] == 0).all())
    assert torch.allclose(features.square().mean(0)[features.any(0)], torch.ones(1, dtype=torch.float64))
    order = seen.score.argsort()
    assert bool((by_name["score"][order].diff() >= 0).all())
    assert bool((by_name["loss"][order].diff() <= 1e-12).all())
    users, items = here.before.user_embedding[pairs.users], here.before.item_embedding[pairs.items]
    cosine = torch.nn.functional.cosine_similarity(users, items).double().detach()
    expected = (cosine - cosine.mean()) / cosine.std(correction=0)
    assert torch.allclose(by_name["cosine"], expected, atol=1e-4)
