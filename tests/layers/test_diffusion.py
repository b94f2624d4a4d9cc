"""The diffusion library against the card's numbers, a dense reference in float64, and on a relation of its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers import denoiser as denoiser_module
from graphrec.layers import diffusion as diffusion_module
from graphrec.layers.denoiser import Denoiser, gram_matrix
from graphrec.layers.diffusion import (
    Guidance,
    Schedule,
    diffusion_loss,
    noisy_block,
    posterior_mean,
    q_sample,
    variance_schedule,
)
from graphrec.layers.dropout import kept_entries
from graphrec.layers.reconstruction import Reconstruction, entries_of, equal_rows, strongest
from graphrec.randomness import generator


def relation(rows: int = 9, columns: int = 13, share: float = 0.3, seed: int = 0) -> Adjacency:
    """A random matrix of zeros and ones whose last row is empty."""
    dense = torch.rand(rows, columns, generator=generator(seed, "relation")) < share
    dense[-1] = False
    return Adjacency.from_edges(dense.nonzero().T, (rows, columns))


def small(columns: int = 13, hidden: int = 7, **options: object) -> Denoiser:
    made = Denoiser(columns, hidden=hidden, seed=1, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        made.output_bias.normal_(0, 0.1, generator=generator(2, "bias"))  # so that no term of it can hide
        made.input_bias.normal_(0, 0.1, generator=generator(3, "bias"))
    return made


def theta(denoiser: Denoiser, z: Tensor, step: int, kept: Tensor | None = None) -> Tensor:
    """One row through the denoiser, (C,) to (C,), written from its equation."""
    length = math.sqrt(sum(float(x) ** 2 for x in z.detach()))
    x = z / length if length else z
    if kept is not None:
        x = torch.where(kept, x / (1 - denoiser.dropout), 0.0)
    half = denoiser.time_dim // 2
    angles = [step * 10000.0 ** (-i / half) for i in range(half)]
    code = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=z.dtype)
    code = denoiser.code_weight @ code + denoiser.code_bias
    joint = torch.cat([denoiser.input_weight.T, denoiser.time_weight], 1)
    hidden = torch.tanh(joint @ torch.cat([x, code]) + denoiser.input_bias)
    return denoiser.output_weight @ hidden + denoiser.output_bias


def test_the_schedule_is_the_published_one() -> None:
    schedule = variance_schedule()
    beta = torch.tensor([1e-4, 4.975e-4, 4.9775e-4, 4.980e-4, 4.9825e-4], dtype=torch.float64)
    alpha_bar = torch.tensor([0.9999, 0.99940254, 0.99890509, 0.99840763, 0.99791018], dtype=torch.float64)
    torch.testing.assert_close(schedule.beta, beta, rtol=0, atol=1e-8)
    torch.testing.assert_close(schedule.alpha_bar, alpha_bar, rtol=0, atol=1e-8)
    weights = torch.tensor([1, 8326.2, 760.4, 285.3, 149.5], dtype=torch.float64)
    torch.testing.assert_close(schedule.loss_weights, weights, rtol=0, atol=0.05)
    first, second = schedule.posterior
    torch.testing.assert_close(first, torch.tensor([1, 0.8327, 0.4545, 0.3126, 0.2382]).double(), rtol=0, atol=5e-5)
    torch.testing.assert_close(second, torch.tensor([0, 0.1673, 0.5455, 0.6874, 0.7618]).double(), rtol=0, atol=5e-5)
    assert (first[0], second[0]) == (1, 0)


@pytest.mark.parametrize("options", [{}, {"steps": 12, "scale": 1.0}, {"first": None}, {"steps": 1}])
def test_what_any_schedule_keeps(options: dict[str, float]) -> None:
    schedule = variance_schedule(**options)  # type: ignore[arg-type]
    assert (schedule.alpha_bar[1:] < schedule.alpha_bar[:-1]).all()
    before, steps = 1.0, []
    for t in range(schedule.steps):
        beta, now = float(schedule.beta[t]), float(schedule.alpha_bar[t])
        steps.append((math.sqrt(before) * beta / (1 - now), (1 - before) * math.sqrt(1 - beta) / (1 - now)))
        before = now
    found = torch.stack(schedule.posterior, 1)
    torch.testing.assert_close(found, torch.tensor(steps, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_noised_rows_have_the_stated_mean_and_variance() -> None:
    schedule, draws = variance_schedule(scale=10.0), generator(0, "noise")
    rows, size = torch.tensor([[0.0, 1.0, 2.0]]).double(), 200_000
    for step in (0, 4):
        noise = torch.randn(size, 3, generator=draws, dtype=torch.float64)
        z = q_sample(schedule, rows.expand(size, 3), torch.full((size,), step), noise)
        kept = float(schedule.alpha_bar[step])
        error = 5 * math.sqrt((1 - kept) / size)
        torch.testing.assert_close(z.mean(0), math.sqrt(kept) * rows[0], rtol=0, atol=error)
        torch.testing.assert_close(z.var(0), torch.full((3,), 1 - kept).double(), rtol=0.02, atol=0)


def test_a_perfect_denoiser_gives_the_row_back() -> None:
    schedule, clean = variance_schedule(steps=7, scale=3.0), relation().to_dense(torch.float64)
    z = q_sample(schedule, clean, torch.full((9,), 6), torch.randn(clean.shape, generator=generator(0, "n")).double())
    for step in reversed(range(7)):
        z = posterior_mean(schedule, clean, z, step)
    assert torch.equal(z, clean)


def test_a_block_is_the_noised_rows_with_entries_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, count = relation(), 9
    signal, deviation = torch.rand(2, count, generator=generator(0, "s")).double()
    block, scale = noisy_block(rows, signal, deviation, 0.5, generator(4, "b"), torch.float64)
    draws = generator(4, "b")
    noise = torch.empty(count, 13, dtype=torch.float64).normal_(generator=draws)
    kept = kept_entries((count, 13), 0.5, draws)
    expected = signal[:, None] * rows.to_dense(torch.float64) + deviation[:, None] * noise
    torch.testing.assert_close(block, expected * kept)
    torch.testing.assert_close(scale, 2 / expected.norm(dim=1))
    # In several pieces the law is the same: the share left out and the lengths.
    monkeypatch.setattr(diffusion_module, "MEMORY_BUDGET", 5 * 13 * 8)
    pieces, scale = noisy_block(rows, signal, 0 * deviation, 0.5, generator(4, "b"), torch.float64)
    lengths = (signal[:, None] * rows.to_dense(torch.float64)).norm(dim=1)
    torch.testing.assert_close(1 / scale[:-1], lengths[:-1] / 2)
    assert 0 < int((pieces != 0).sum()) < len(rows)


@pytest.mark.parametrize("hidden", [4, 40], ids=["by_squares", "by_differences"])
@pytest.mark.parametrize("train", [True, False])
def test_the_loss_is_that_of_a_dense_loop(hidden: int, train: bool) -> None:
    """Values and gradients; 9 rows are many beside 4 hidden units and few beside 40."""
    rows, denoiser, schedule = relation(), small(hidden=hidden).train(train), variance_schedule()
    draws = generator(5, "guide")
    guide, targets = torch.randn(6, 3, generator=draws).double(), torch.randn(9, 3, generator=draws).double()
    weights = torch.rand(9, generator=draws).double()
    found = diffusion_loss(
        denoiser, schedule, rows, generator=generator(6, "n"), guidance=Guidance(guide, targets, first=2)
    )
    inputs = list(denoiser.parameters())
    gradients = torch.autograd.grad((found.total(0.3) * weights).sum(), inputs)

    draws = generator(6, "n")
    steps = torch.randint(5, (9,), generator=draws)
    noise = torch.empty(9, 13, dtype=torch.float64).normal_(generator=draws)
    kept = kept_entries((9, 13), 0.5, draws)
    clean = rows.to_dense(torch.float64)
    elbo, guided = [], []
    for row, step in enumerate(steps.tolist()):
        left = float(schedule.alpha_bar[step])
        z = math.sqrt(left) * clean[row] + math.sqrt(1 - left) * noise[row]
        predicted = theta(denoiser, z, step, kept[row] if train else None)
        before = float(schedule.alpha_bar[step - 1])
        weight = 1.0 if step == 0 else before / (1 - before) - left / (1 - left)
        elbo.append(weight * torch.stack([(clean[row, j] - predicted[j]) ** 2 for j in range(13)]).mean())
        made = [sum(float(guide[s, d]) * predicted[2 + s] for s in range(6)) for d in range(3)]
        guided.append(torch.stack([(made[d] - targets[row, d]) ** 2 for d in range(3)]).mean())
    expected = torch.stack(elbo), torch.stack(guided)
    torch.testing.assert_close(found.elbo, expected[0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.guide, expected[1], rtol=1e-8, atol=1e-10)
    slow = torch.autograd.grad(((0.7 * expected[0] + 0.3 * expected[1]) * weights).sum(), inputs)
    for name, one, other in zip(dict(denoiser.named_parameters()), gradients, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9, msg=name)


def test_values_of_a_relation_are_what_is_predicted() -> None:
    rows = relation()
    valued = rows.with_stored_values(torch.rand(len(rows), generator=generator(0, "v")).double() + 0.5)
    clean = valued.to_dense(torch.float64)
    for hidden in (4, 40):
        denoiser = small(hidden=hidden).eval()
        found = diffusion_loss(denoiser, variance_schedule(), valued).elbo
        predicted = denoiser(clean, torch.zeros(9, dtype=torch.int64))
        torch.testing.assert_close(found, (clean - predicted).square().mean(1))
        torch.testing.assert_close(predicted[3], theta(denoiser, clean[3], 0))


def test_the_two_parts_are_isolated_and_reach_the_denoiser_alone() -> None:
    rows, denoiser = relation(), small()
    guide = torch.randn(13, 3, generator=generator(0, "g"), dtype=torch.float64).requires_grad_()
    targets = torch.randn(9, 3, generator=generator(1, "g"), dtype=torch.float64).requires_grad_()
    options = {"generator": generator(0, "n"), "guidance": Guidance(guide, targets)}
    terms = diffusion_loss(denoiser, variance_schedule(), rows, **options)  # type: ignore[arg-type]
    assert torch.equal(terms.total(0.0), terms.elbo)
    assert torch.equal(terms.total(1.0), terms.guide)
    terms.total(0.5).sum().backward()
    assert guide.grad is None
    assert targets.grad is None
    assert all(parameter.grad is not None for parameter in denoiser.parameters())


@pytest.mark.parametrize("noised", [0, 5])
@pytest.mark.parametrize("schedule", [variance_schedule(), variance_schedule(3, scale=20.0)], ids=["small", "large"])
def test_reconstruction_equals_the_chain_on_dense_rows(schedule: Schedule, noised: int) -> None:
    rows, denoiser, noised = relation(), small().eval(), min(noised, schedule.steps)
    own = Reconstruction(denoiser, schedule, noised=noised, generator=generator(7, "start"))
    found = own.rows(rows)
    z = rows.to_dense(torch.float64)
    if noised:
        noise = torch.empty(9, 13, dtype=torch.float64).normal_(generator=generator(7, "start"))
        z = q_sample(schedule, z, torch.full((9,), noised - 1), noise)
    for step in reversed(range(schedule.steps)):
        predicted = torch.stack([theta(denoiser, row, step) for row in z])
        z = posterior_mean(schedule, predicted, z, step)
    torch.testing.assert_close(found, z.detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("candidates", ["all", "stored"])
def test_strongest_columns(k: int, candidates: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, denoiser, schedule = relation(), small().eval(), variance_schedule()
    values = Reconstruction(denoiser, schedule).rows(rows)
    if candidates == "stored":
        values = torch.where(rows.to_dense() > 0, values, -torch.inf)
    expected = {
        (row, column)
        for row in range(9)
        for column in values[row].argsort(descending=True)[:k].tolist()
        if values[row, column] > -torch.inf
    }
    monkeypatch.setattr("graphrec.layers.reconstruction.MEMORY_BUDGET", 8 * 4 * 5)
    picked = torch.tensor([4, 8, 0])
    for asked, block in ((None, 4), (picked, 2)):
        heads, tails = strongest(
            denoiser,
            schedule,
            rows,
            k,
            rows=asked,
            candidates=candidates,  # type: ignore[arg-type]
            block=block,
        )
        wanted = expected if asked is None else {pair for pair in expected if pair[0] in picked.tolist()}
        assert sorted(zip(heads.tolist(), tails.tolist(), strict=True)) == sorted(wanted)


@pytest.mark.parametrize("candidates", ["all", "stored"])
def test_rows_with_the_same_entries_are_reconstructed_once(candidates: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = relation().to_dense()[torch.tensor([0, 1, 0, 2, 8, 1, 1, 8, 3])]  # with repeated and with empty rows
    matrix, denoiser, schedule = Adjacency.from_edges(dense.nonzero().T, (9, 13)), small().eval(), variance_schedule()
    asked = torch.tensor([6, 2, 8, 0, 1, 7, 6])
    passed: list[int] = []
    codes = Reconstruction.codes

    def counted(own: Reconstruction, rows: Adjacency) -> Tensor:
        passed.append(rows.shape[0])
        return codes(own, rows)

    monkeypatch.setattr(Reconstruction, "codes", counted)
    together = strongest(denoiser, schedule, matrix, 2, rows=asked, candidates=candidates)  # type: ignore[arg-type]
    assert sum(passed) == 4  # those of rows 6 and 1, of 2 and 0, of 8 and of 7
    single = [
        strongest(denoiser, schedule, matrix, 2, rows=row, candidates=candidates)  # type: ignore[arg-type]
        for row in asked.split(1)
    ]
    for found, parts in zip(together, zip(*single, strict=True), strict=True):
        assert torch.equal(found, torch.cat(parts))


def test_equal_rows_are_those_with_equal_sets_of_columns() -> None:
    dense = torch.rand(200, 4, generator=generator(0, "rows")) < 0.5
    matrix, rows = Adjacency.from_edges(dense.nonzero().T, (200, 4)), torch.arange(200).flip(0)
    sets = [tuple(dense[row].tolist()) for row in rows]
    found = equal_rows(matrix, rows)
    assert found is not None
    assert found.tolist() == [sets.index(own) for own in sets]
    assert equal_rows(matrix.with_values(torch.ones(len(matrix))), rows) is None


@pytest.mark.parametrize("width", [1, 63, 64, 65, 200, 331])
def test_a_gram_matrix_by_its_upper_blocks(width: int) -> None:
    weight = torch.randn(90, width, generator=generator(width, "weight"), dtype=torch.float64)
    torch.testing.assert_close(gram_matrix(weight), weight.T @ weight, rtol=1e-12, atol=1e-12)


def test_pairs_are_looked_up_among_stored_entries() -> None:
    matrix = Adjacency.from_edges(torch.tensor([[0, 0, 1, 2, 3], [1, 3, 0, 2, 1]]), (4, 4))
    heads, tails = torch.tensor([0, 3, 2, 1]), torch.tensor([1, 0, 1, 1])
    assert entries_of(matrix, heads, tails).tolist() == [True, False, False, False, False]
    assert entries_of(matrix, heads, tails, both_ways=True).tolist() == [True, True, True, False, False]
    nothing = torch.empty(0, dtype=torch.int64)
    assert not entries_of(matrix, nothing, nothing).any()
    with pytest.raises(InputError, match="square"):
        entries_of(relation(), heads, tails, both_ways=True)


def test_half_precision_is_near_and_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoiser_module, "CHUNK", 5)
    rows, schedule = relation(40, 30), variance_schedule()
    wide, half = (Denoiser(30, hidden=16, precision=name, seed=1) for name in ("float32", "bfloat16"))
    results = []
    for model in (wide, half):
        guidance = Guidance(torch.eye(30)[:, :4], torch.ones(40, 4))
        terms = diffusion_loss(model, schedule, rows, generator=generator(0, "n"), guidance=guidance)
        terms.total(0.5).sum().backward()
        results.append((terms, [parameter.grad for parameter in model.parameters()], model))
    torch.testing.assert_close(results[0][0].elbo, results[1][0].elbo, rtol=0.03, atol=1e-3)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert one is not None
        assert other is not None
        assert float((one - other).norm() / one.norm()) < 0.03
    exact, near = (Reconstruction(model.eval(), schedule).rows(rows).float() for model in (wide, half))
    torch.testing.assert_close(exact, near, rtol=0.05, atol=0.02)


def test_another_relation_is_denoised_in_five_lines() -> None:
    """Users by items: groups of users that take groups of items, and one random item each, which is left out."""
    draws, groups = generator(0, "world"), 4
    users, items = torch.arange(200).repeat_interleave(8), torch.randint(10, (1600,), generator=draws) * groups
    wrong = (torch.arange(200) + 1 + torch.randint(3, (200,), generator=draws)) % groups
    items = torch.cat([items + users % groups, torch.randint(10, (200,), generator=draws) * groups + wrong])
    pairs = torch.unique(torch.stack([torch.cat([users, torch.arange(200)]), items]), dim=1)
    matrix = Adjacency.from_edges(pairs, (200, 40))
    stream = generator(0, "steps")

    schedule, denoiser = variance_schedule(), Denoiser(40, hidden=32)
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
    for epoch in range(20):
        for rows in torch.randperm(200, generator=generator(0, "order", epoch)).split(50):
            terms = diffusion_loss(denoiser, schedule, matrix.row_subset(rows), generator=stream)
            terms.total().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
    kept = entries_of(matrix, *strongest(denoiser.eval(), schedule, matrix, k=4))

    own = matrix.rows() % groups == matrix.col % groups
    assert float(own[kept].float().mean()) > 0.97
    assert float(own[~kept].float().mean()) < 0.8
    assert int(kept.sum()) > 500


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: variance_schedule(0), "at least 1 step"),
        (lambda: variance_schedule(high=1e-5), "rise"),
        (lambda: variance_schedule(first=1.0), "first"),
        (lambda: Denoiser(0), "num_columns"),
        (lambda: Denoiser(3, time_dim=5), "even"),
        (lambda: Denoiser(3, dropout=1.0), "dropout"),
        (lambda: Denoiser(3, precision="bfloat"), "Did you mean 'bfloat16'"),  # type: ignore[arg-type]
        (lambda: diffusion_loss(small(5), variance_schedule(), relation()), "5 columns"),
        (lambda: Reconstruction(small(), variance_schedule(), noised=6), "noised"),
        (lambda: Reconstruction(small(), variance_schedule(), noised=2), "generator"),
        (lambda: strongest(small(), variance_schedule(), relation(), k=0), "positive"),
        (lambda: strongest(small(), variance_schedule(), relation(), candidates="known"), "candidates"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
