"""Contrast objectives against their definition written densely, their gradients, and the memory they take."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from graphrec.errors import InputError
from graphrec.layers import contrastive
from graphrec.layers.contrastive import cross_view_contrast, info_nce, log_sum_exp


def rows(*shape: int, seed: int = 0, grad: bool = False, dtype: torch.dtype = torch.float64) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=stream, dtype=torch.float64).to(dtype).requires_grad_(grad)


def slow_term(anchor: Tensor, positive: Tensor, candidates: list[Tensor], temperature: float, cosine: bool) -> Tensor:
    """The definition, candidate by candidate."""

    def score(other: Tensor) -> Tensor:
        if cosine:
            return functional.cosine_similarity(anchor, other, dim=0, eps=1e-12) / temperature
        return (anchor * other).sum() / temperature

    return torch.stack([score(other).exp() for other in candidates]).sum().log() - score(positive)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.integers(8, 400), st.booleans())
def test_terms_and_gradients_are_those_of_the_definition(
    count: int, others: int, dim: int, cosine: bool, memory: int, excludes: bool
) -> None:
    anchors, table = rows(count, dim, seed=1, grad=True), rows(others, dim, seed=2, grad=True)
    positive = torch.randint(others, (count,), generator=torch.Generator().manual_seed(3))
    excluded = (positive + 1) % others if excludes and others > 1 else None
    found = info_nce(anchors, positive, table, temperature=0.5, normalise=cosine, excluded=excluded, memory=memory)
    expected = torch.stack(
        [
            slow_term(
                anchors[row],
                table[positive[row]],
                [table[n] for n in range(others) if excluded is None or n != int(excluded[row])],
                0.5,
                cosine,
            )
            for row in range(count)
        ]
    )
    torch.testing.assert_close(found, expected)
    upstream = rows(count, seed=4)
    ours = torch.autograd.grad(found, (anchors, table), upstream)
    slow = torch.autograd.grad(expected, (anchors, table), upstream)
    torch.testing.assert_close(ours, slow)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("intra", [False, True])
@pytest.mark.parametrize("against", ["all", "batch"])
def test_nodes_across_views_with_repeated_nodes(against: Any, intra: bool, repeats: bool) -> None:
    first, second = rows(9, 3, seed=1, grad=True), rows(9, 3, seed=2, grad=True)
    nodes = torch.tensor([4, 1, 4, 8, 0, 4, 1])
    found = cross_view_contrast(
        first, second, nodes, temperature=0.3, against=against, intra=intra, repeats=repeats, memory=64
    )
    distinct = [0, 1, 4, 8]
    listed = range(9) if against == "all" else nodes.tolist() if repeats else distinct
    candidates = [second[n] for n in listed]
    expected = []
    for node in nodes.tolist():
        within = [first[n] for n in distinct if n != node] if intra else []
        expected.append(slow_term(first[node], second[node], candidates + within, 0.3, True))
    torch.testing.assert_close(found, torch.stack(expected))
    upstream = rows(len(nodes), seed=4)
    ours = torch.autograd.grad(found, (first, second), upstream)
    slow = torch.autograd.grad(torch.stack(expected), (first, second), upstream)
    torch.testing.assert_close(ours, slow)


@pytest.mark.parametrize("bound", [None, 20.0])
@pytest.mark.parametrize("memory", [1, 8 * 7 * 2, 2**20])
def test_first_and_second_derivatives(bound: float | None, memory: int) -> None:
    anchors, table = rows(5, 3, seed=1, grad=True), rows(7, 3, seed=2, grad=True)
    excluded = torch.tensor([0, -1, 6, 3, -1])
    multiplicity = torch.tensor([1, 2, 1, 3, 1, 1, 5])

    def total(a: Tensor, c: Tensor) -> Tensor:
        return log_sum_exp(
            a, c, temperature=0.7, multiplicity=multiplicity, excluded=excluded, bound=bound, memory=memory
        )

    assert gradcheck(total, (anchors, table))
    assert gradgradcheck(total, (anchors, table))
    only = anchors.detach()
    assert gradcheck(lambda c: total(only, c), (table,))
    one_view = rows(5, 3, seed=6, grad=True)
    assert gradgradcheck(lambda z: info_nce(z, z, temperature=0.7, intra=True, memory=memory), (one_view,))


def test_multiplicity_counts_a_candidate_as_often() -> None:
    anchors, table = rows(4, 3, seed=1), rows(3, 3, seed=2)
    counts = torch.tensor([2, 1, 3])
    torch.testing.assert_close(
        log_sum_exp(anchors, table, multiplicity=counts), log_sum_exp(anchors, table.repeat_interleave(counts, 0))
    )


def test_identical_views_give_the_log_of_a_sum_of_cosines() -> None:
    view = rows(6, 4)
    unit = functional.normalize(view)
    expected = torch.logsumexp((unit @ unit.T - 1) / 0.2, 1)
    found = cross_view_contrast(view, view, torch.arange(6), temperature=0.2)
    torch.testing.assert_close(found, expected)
    assert (found >= 0).all()


def test_one_candidate_that_is_the_positive_costs_nothing() -> None:
    torch.testing.assert_close(info_nce(rows(1, 4), rows(1, 4, seed=2), temperature=0.2), torch.zeros(1).double())
    alone = info_nce(rows(1, 4), rows(1, 4, seed=2, grad=True), temperature=0.2, intra=True)
    torch.testing.assert_close(alone, torch.zeros(1).double())


def test_without_a_candidate_the_sum_is_empty_and_its_gradient_zero() -> None:
    for bound in (None, 9.0):
        anchors = rows(2, 3, grad=True)
        total = log_sum_exp(anchors, rows(1, 3, seed=2), excluded=torch.tensor([0, -1]), bound=bound)
        assert float(total.detach()[0]) == -math.inf
        (gradient,) = torch.autograd.grad(total, anchors, torch.tensor([0.0, 1.0], dtype=torch.float64))
        assert torch.equal(gradient[0], torch.zeros(3).double())
        assert gradient[1].abs().max() > 0


def test_large_scores_stay_finite() -> None:
    anchors, table = rows(8, 16, dtype=torch.float32) * 30, rows(50, 16, seed=1, dtype=torch.float32) * 30
    found = info_nce(anchors, torch.arange(8), table, temperature=0.05, normalise=False)
    wide = torch.logsumexp(anchors.double() @ table.double().T / 0.05, 1)
    expected = wide - (anchors * table[:8]).sum(1).double() / 0.05
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-2)
    sharp = info_nce(anchors, torch.arange(8), table, temperature=1e-3)
    assert torch.isfinite(sharp).all()
    assert (sharp >= -1e-3).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    first, second = rows(20, 8, dtype=dtype, grad=True), rows(20, 8, seed=1, dtype=dtype, grad=True)
    nodes = torch.arange(20)
    found = cross_view_contrast(first, second, nodes, temperature=0.1)
    exact = cross_view_contrast(first.detach().float(), second.detach().float(), nodes, temperature=0.1)
    torch.testing.assert_close(found, exact)
    found.sum().backward()
    assert first.grad is not None and first.grad.dtype == dtype and torch.isfinite(first.grad).all()


def test_autocast_leaves_the_scores_in_float32() -> None:
    first, second = rows(20, 8, dtype=torch.float32), rows(20, 8, seed=1, dtype=torch.float32)
    plain = cross_view_contrast(first, second, torch.arange(20), temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cross_view_contrast(first, second, torch.arange(20), temperature=0.1), plain)


@pytest.mark.parametrize("normalise", [True, False])
def test_scores_stay_within_the_memory(normalise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    plain = contrastive._Plan.exponents

    def watched(plan: Any, *args: Any) -> Tensor:
        block = plain(plan, *args)
        held.append(block.numel() * block.element_size())
        return block

    monkeypatch.setattr(contrastive._Plan, "exponents", watched)
    anchors, table = rows(300, 4, grad=True), rows(500, 4, seed=1, grad=True)
    info_nce(anchors, torch.arange(300), table, temperature=0.2, normalise=normalise, memory=10_000).sum().backward()
    assert max(held) <= 10_000
    assert sum(held) >= 2 * 300 * 500 * 8  # once forward, once backward
    if normalise:  # what fits is kept instead
        held.clear()
        info_nce(anchors, torch.arange(300), table, temperature=0.2, memory=2**21).sum().backward()
        assert sum(held) == 300 * 500 * 8


def test_weights_are_the_callers() -> None:
    first, second = rows(9, 3, grad=True), rows(9, 3, seed=2, grad=True)
    nodes = torch.tensor([4, 1, 8])
    weight = torch.tensor([0.0, 2.0, 0.5], dtype=torch.float64)
    (weight * cross_view_contrast(first, second, nodes, temperature=0.3)).sum().backward()
    assert first.grad is not None
    assert not first.grad[4].any()
    assert first.grad[1].any()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: info_nce(rows(3, 2), rows(3, 2), temperature=0.0), "temperature"),
        (lambda: info_nce(rows(3, 2), torch.arange(3), temperature=0.1), "candidates"),
        (lambda: info_nce(rows(3, 2), torch.arange(2), rows(4, 2), temperature=0.1), "positives"),
        (lambda: info_nce(rows(3, 2), rows(4, 2), temperature=0.1), "positives"),
        (lambda: log_sum_exp(rows(3, 2), rows(4, 3)), "candidates"),
        (lambda: log_sum_exp(rows(3, 2), rows(4, 2), multiplicity=torch.ones(3)), "multiplicity"),
        (lambda: log_sum_exp(rows(3, 2), rows(4, 2), excluded=torch.zeros(4, dtype=torch.long)), "excluded"),
        (lambda: cross_view_contrast(rows(3, 2), rows(4, 2), torch.arange(3), temperature=0.1), "views"),
        (
            lambda: cross_view_contrast(rows(3, 2), rows(3, 2), torch.arange(3), temperature=0.1, against="al"),  # type: ignore[arg-type]
            "all",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        call()


@pytest.mark.cuda
def test_cuda_gives_the_same_terms() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    first, second = rows(90, 8, grad=True), rows(90, 8, seed=1, grad=True)
    nodes = torch.arange(0, 90, 2)
    expected = cross_view_contrast(first, second, nodes, temperature=0.2)
    found = cross_view_contrast(first.cuda(), second.cuda(), nodes.cuda(), temperature=0.2, memory=4000)
    torch.testing.assert_close(found.cpu(), expected)
    ours, slow = (torch.autograd.grad(x.sum(), first)[0] for x in (found, expected))
    torch.testing.assert_close(ours, slow)
