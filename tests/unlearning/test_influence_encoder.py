"""The influence encoder and its losses against dense arithmetic, and who may learn what."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphrec import randomness
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.models import BPRMF, LightGCN, XSimGCL
from graphrec.models.base import PairBatch
from graphrec.models.deletion import without_edges
from graphrec.unlearning.unlearnrec import expected, losses, state, training
from graphrec.unlearning.unlearnrec.backbone import Backbone, initial_tables
from graphrec.unlearning.unlearnrec.encoder import InfluenceEncoder, request_matrix, touched
from graphrec.unlearning.unlearnrec.expected import expected_scores, non_edges
from graphrec.unlearning.unlearnrec.requests import RequestSampler
from graphrec.unlearning.unlearnrec.served import Served
from graphrec.unlearning.unlearnrec.terms import Weights, loss_terms, step_terms
from graphrec.unlearning.unlearnrec.training import HELD_OUT, finetune, pretrain
from tests.models.conformance import trained
from tests.models.planted import planted

USERS, ITEMS = torch.tensor([0, 0, 1, 2, 4]), torch.tensor([1, 3, 1, 5, 0])


def encoder(dim: int = 3, *, size: tuple[int, int] = (6, 6), seed: int = 0, **options: float) -> InfluenceEncoder:
    made = InfluenceEncoder(*size, dim, **options).double()  # type: ignore[arg-type]
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        made.shift.copy_(torch.randn(made.shift.shape, generator=draws))
        made.rates.copy_(torch.rand(made.rates.shape, generator=draws))
    return made


def rows(count: int = 12, dim: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(users: Tensor, items: Tensor, size: tuple[int, int] = (6, 6)) -> Tensor:
    """The (N, N) normalised matrix of a request, entry by entry."""
    count = sum(size)
    adj = torch.zeros(count, count, dtype=torch.float64)
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        adj[user, size[0] + item] = adj[size[0] + item, user] = 1
    degree = adj.sum(1)
    root = torch.tensor([0.0 if d == 0 else float(d) ** -0.5 for d in degree], dtype=torch.float64)
    return root[:, None] * adj * root[None, :]


def request(users: Tensor = USERS, items: Tensor = ITEMS, size: tuple[int, int] = (6, 6)) -> Adjacency:
    return request_matrix(users, items, size).to(dtype=torch.float64)


def test_the_linear_regime_is_a_polynomial_of_the_dense_matrix() -> None:
    made, final, matrix = encoder(num_layers=3, slope=1.0, withdrawal=0.3), rows(), dense(USERS, ITEMS)
    powers = [torch.linalg.matrix_power(matrix, power) for power in range(4)]
    wanted = sum(power @ made.shift for power in powers) - 0.3 * powers[3] @ (made.rates * final)
    torch.testing.assert_close(made.influence(final, request()), wanted, rtol=0, atol=1e-6)
    ego = rows(seed=2)
    torch.testing.assert_close(made(ego, final, request(), everywhere=True), ego + wanted, rtol=0, atol=1e-6)


def test_the_perceptron_is_the_written_one() -> None:
    made = encoder(slope=0.5)
    with torch.no_grad():
        for weight, bias in zip(made.weights, made.biases, strict=True):
            weight.add_(rows(3, 3, seed=3))
            bias.add_(0.1)
    x = rows(5)
    for weight, bias in zip(made.weights, made.biases, strict=True):
        x = x @ weight + bias
        x = torch.where(x > 0, x, 0.5 * x)
    torch.testing.assert_close(made.transform(rows(5)), x)


def test_without_anything_learned_the_tables_stay() -> None:
    made, ego = InfluenceEncoder(6, 6, 3, initial_rate=0.0).double(), rows(seed=2)
    assert torch.equal(made(ego, rows(), request()), ego)
    assert torch.equal(made(ego, rows(), request(), everywhere=True), ego)


def test_nodes_without_an_edge_in_the_request_stay_unless_as_published() -> None:
    made, ego = encoder(), rows(seed=2)
    with torch.no_grad():
        made.biases[0].add_(1.0)
    moved = (made(ego, rows(), request()) != ego).any(1)
    assert torch.equal(moved, touched(request()))
    assert moved.tolist() == [True, True, True, False, True, False, True, True, False, True, False, True]
    assert (made(ego, rows(), request(), everywhere=True) != ego).any(1).all()
    empty = request(USERS[:0], ITEMS[:0])
    assert torch.equal(made(ego, rows(), empty), ego)
    assert not torch.equal(made(ego, rows(), empty, everywhere=True), ego)


def test_a_pair_that_is_named_twice_is_one_pair() -> None:
    twice = request(torch.cat([USERS, USERS]), torch.cat([ITEMS, ITEMS]))
    assert torch.equal(twice.to_dense(), request().to_dense())


def test_each_stage_teaches_its_own_parameters() -> None:
    made = encoder()
    made.learn("pretrain")
    made(rows(seed=2), rows(), request()).square().sum().backward()
    given = {name for name, parameter in made.named_parameters() if parameter.grad is not None}
    assert given == {"shift", "rates"}
    made.zero_grad(set_to_none=True)
    ego = rows(seed=2).requires_grad_(True)
    made.learn("finetune")
    made(ego, rows(), request()).square().sum().backward()
    given = {name for name, parameter in made.named_parameters() if parameter.grad is not None}
    assert given == {"weights.0", "weights.1", "biases.0", "biases.1"} and ego.grad is not None


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="num_layers"):
        InfluenceEncoder(3, 3, 2, num_layers=0)
    with pytest.raises(InputError, match="transforms"):
        InfluenceEncoder(3, 3, 2, transforms=-1)


def test_the_published_forgetting_loss_and_its_gradient() -> None:
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    assert math.isclose(float(losses.forget_below(scores)), math.log(2))
    scores = rows(1, 7)[0].requires_grad_(True)
    losses.forget_below(scores).backward()
    torch.testing.assert_close(scores.grad, torch.sigmoid(scores.detach()) / 7)
    assert float(losses.forget_below(torch.zeros(0))) == 0.0


def test_the_two_sided_loss_is_zero_at_what_is_expected_and_pulls_from_both_sides() -> None:
    expected = rows(1, 5)[0]
    assert float(losses.forget_to(expected.clone(), expected, 2.0)) == 0.0
    for sign in (-1, 1):
        scores = (expected + 0.5 * sign).requires_grad_(True)
        losses.forget_to(scores, expected, 2.0).backward()
        assert scores.grad is not None and (scores.grad.sign() == sign).all()


def test_alignment_is_zero_at_the_teacher_and_blind_to_a_constant_in_a_row() -> None:
    users, items = rows(6, 3), rows(6, 3, seed=5)
    assert float(losses.alignment(users, items, (users, items), 0.7)) == 0.0
    assert float(losses.published_alignment(users, items, (users, items), 0.7)) == 0.0
    # A further coordinate that all items share adds one number to all scores of a user.
    shifted = torch.cat([users, rows(6, 1, seed=9)], 1), torch.cat([items, torch.ones(6, 1, dtype=torch.float64)], 1)
    assert float(losses.alignment(*shifted, (users, items), 0.7)) == pytest.approx(0.0, abs=1e-20)
    other = rows(6, 3, seed=6)
    published = losses.published_alignment(other, items, (users, items), 1.0)
    assert float(6 * losses.alignment(other, items, (users, items), 1.0)) == pytest.approx(float(published), rel=1e-3)


def test_very_low_scores_keep_their_alignment() -> None:
    users, items = torch.full((3, 1), 100.0), torch.tensor([[-10.0], [-10.5], [-11.0]])
    wanted = torch.log_softmax((users @ items.T).double(), 1).diagonal().float()
    torch.testing.assert_close(losses.log_shares(users, items, 1.0), wanted)
    assert not torch.allclose(losses.published_log_shares(users, items, 1.0), wanted)


def test_contrast_prefers_layers_that_survive_dropped_edges() -> None:
    made = encoder(size=(6, 6))
    terms = losses.layer_contrast(
        made.layers(request()), request(), USERS, ITEMS, generator=torch.Generator().manual_seed(0), drop=0.0
    )
    wanted = torch.zeros((), dtype=torch.float64)
    for layer in made.layers(request())[1:]:
        for side, nodes in ((layer[:6], USERS.unique()), (layer[6:], ITEMS.unique())):
            unit = torch.nn.functional.normalize(side[nodes])
            logits = unit @ unit.T
            wanted = wanted - torch.log_softmax(logits, 1).diagonal().mean()
    torch.testing.assert_close(terms, wanted)
    terms.backward()
    assert made.shift.grad is not None and made.shift.grad.abs().max() > 0


def test_the_hooks_give_the_models_own_numbers_and_leave_the_model_alone() -> None:
    data = planted()
    for model in (LightGCN(data, dim=4, num_layers=2), BPRMF(data, dim=4)):
        backbone = Backbone(model.eval())
        tables = backbone.tables()
        assert tables.shape == (data.num_users + data.num_items, 4)
        encoded = model.encode()
        torch.testing.assert_close(backbone.encode(tables), torch.cat([encoded.users, encoded.items]), rtol=0, atol=0)
        phase = backbone.phases()[0]
        batch = next(iter(phase.batches(0, randomness.generator(0, "batches"))))
        other = (tables * 1.5).requires_grad_(True)
        terms = backbone.terms(other, phase, batch)
        sum(terms.values()).backward()
        assert other.grad is not None and other.grad.abs().max() > 0
        assert all(parameter.grad is None for parameter in model.parameters())
        assert torch.equal(backbone.tables(), tables)
        backbone.fill(other.detach())
        for name, term in phase.loss(batch).items():
            torch.testing.assert_close(term, terms[name])


def test_served_without_the_encoder_is_the_model_on_the_residual_graph() -> None:
    data = planted()
    model = trained(LightGCN(data, dim=8, num_layers=2, lr=0.02), 5)
    gone = torch.from_numpy(data.interactions("train").edge_id[::17].copy())
    served = Served(Backbone(model), gone)
    still = InfluenceEncoder(data.num_users, data.num_items, 8, initial_rate=0.0)
    left = without_edges(model, {data.target: gone}).encode()
    found = served.residual.encode(served.moved(still))
    torch.testing.assert_close(found, torch.cat([left.users, left.items]), rtol=0, atol=0)
    kept = served.residual.matrix
    assert not kept.contains(served.users, served.items).any()
    assert len(kept) + len(served.users) == len(model.graph_inputs.adjacency())
    torch.testing.assert_close(served.teacher, found, rtol=0, atol=0)


def test_rows_that_lose_all_their_edges_start_anew() -> None:
    data = planted()
    model = trained(LightGCN(data, dim=8, num_layers=2, lr=0.02), 3)
    table = data.interactions("train")
    served = Served(Backbone(model), torch.from_numpy(table.edge_id[table.source == 4].copy()))
    assert served.emptied.nonzero()[:, 0].tolist() == [4]
    moved = served.moved(InfluenceEncoder(data.num_users, data.num_items, 8))
    assert torch.equal(moved[4], initial_tables(model)[4])
    assert not len(served.scores(served.final))
    published = Served(Backbone(model), torch.from_numpy(table.edge_id[table.source == 4].copy()), exact=True)
    assert torch.equal(published.ego[4], model.user_embedding[4]) and torch.equal(published.teacher, published.final)


def test_the_published_loss_leaves_the_constant_penalty_out_and_aligns_the_whole_batch() -> None:
    data = planted()
    model = trained(LightGCN(data, dim=8, num_layers=2, lr=0.02), 3)
    gone = torch.from_numpy(data.interactions("train").edge_id[::9].copy())
    for exact in (False, True):
        served = Served(Backbone(model), gone, exact=exact)
        tables = served.ego * 1.1
        phase = served.residual.phases()[0]
        batch = next(iter(phase.batches(0, randomness.generator(0, "batches"))))
        assert isinstance(batch, PairBatch)
        own = served.residual.terms(tables, phase, batch)
        terms = loss_terms(served, tables, batch, own, Weights(pairs=32), 0)
        assert set(terms) == {"rank", "forget", "align"} | ({"reg"} - ({"reg"} if exact else set()))
        scores = served.scores(served.residual.encode(tables))
        if exact:
            torch.testing.assert_close(terms["forget"], losses.forget_below(scores))
        skipped = loss_terms(served, tables, batch, own, Weights(every=2), 1)
        assert "forget" not in skipped


@settings(max_examples=25, deadline=None)
@given(number=st.integers(0, 40), seed=st.integers(0, 3))
def test_simulated_requests_are_what_their_kind_says(number: int, seed: int) -> None:
    data = planted(60, 40)
    matrix = BPRMF(data, dim=2).graph_inputs.adjacency()
    sampler = RequestSampler(matrix, seed=seed)
    drawn = sampler.draw(number)
    again = sampler.draw(number)
    assert torch.equal(drawn.edge_id, again.edge_id)
    assert 0 < len(drawn.edge_id) < len(matrix)
    assert len(set(zip(drawn.users.tolist(), drawn.items.tolist(), strict=True))) == len(drawn.edge_id)
    assert matrix.contains(drawn.users, drawn.items).all()
    nodes = {"users": drawn.users, "items": drawn.items}.get(drawn.kind)
    if nodes is None:
        assert len(drawn.edge_id) == max(int(drawn.share * len(matrix)), 1)
    else:
        degree = matrix.degrees(0 if drawn.kind == "users" else 1)
        distinct, counts = nodes.unique(return_counts=True)
        assert torch.equal(degree[distinct], counts)
        assert len(drawn.edge_id) <= drawn.share * len(matrix) or len(distinct) == 1


def test_kinds_take_turns_as_the_mixture_says() -> None:
    sampler = RequestSampler(BPRMF(planted(60, 40), dim=2).graph_inputs.adjacency(), seed=0)
    kinds = [sampler.draw(number).kind for number in range(16)]
    assert [kinds.count(kind) for kind in ("edges", "users", "items")] == [8, 4, 4]
    assert {sampler.draw(number).kind for number in HELD_OUT} == {"edges", "users", "items"}
    with pytest.raises(InputError, match="shares of edges"):
        RequestSampler(sampler.matrix, seed=0, shares=(1.0,))
    with pytest.raises(InputError, match="mixture"):
        RequestSampler(sampler.matrix, seed=0, mixture=(0.5, 0.1, 0.1))


def test_pretraining_moves_the_encoder_alone_and_finetuning_the_rest() -> None:
    data = planted()
    model = trained(LightGCN(data, dim=8, num_layers=2, lr=0.02), 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = InfluenceEncoder(data.num_users, data.num_items, 8, num_layers=2)
    sampler = RequestSampler(model.graph_inputs.adjacency(), seed=0)
    options = {"epochs": 4, "steps": 3, "every": 1, "sampler": sampler, "lr": 1e-3, "seed": 0}
    found = pretrain(model, made, Weights(), **options)  # type: ignore[arg-type]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [epoch for epoch, _ in found.checks] == [0, 1, 2, 3, 4]
    assert all(torch.equal(weight, torch.eye(8)) for weight in found.encoder.weights)
    assert found.best == 0 or found.encoder.shift.abs().max() > 0
    gone = torch.from_numpy(data.interactions("train").edge_id[::9].copy())
    served = Served(Backbone(model), gone)
    shift = found.encoder.shift.clone()
    moved = finetune(served, found.encoder, Weights(), epochs=1, seed=0)
    assert torch.equal(found.encoder.shift, shift)
    assert not torch.equal(found.encoder.weights[0], torch.eye(8))
    assert moved.shape == served.ego.shape and torch.isfinite(moved).all()


def test_scores_of_pairs_that_were_never_edges_are_foretold() -> None:
    """On pairs kept out of training, whose scores a trained model shows: close in the mean, and ordered alike."""
    data = planted(200, 100, per_user=16)
    model = trained(LightGCN(data, dim=8, num_layers=2, lr=0.02), 20)
    matrix = model.graph_inputs.adjacency()
    backbone = Backbone(model)
    final = backbone.encode(backbone.tables()).detach()
    held = data.interactions("test")
    users, items = (torch.from_numpy(x.astype(np.int64)) for x in (held.source, held.target))
    found = expected_scores(final, matrix, users, items, seed=0)
    truth = (final[users] * final[matrix.shape[0] :][items]).sum(-1)
    assert found.fit > 0.6
    assert abs(float(found.scores.mean() - truth.mean())) < 0.5 * found.scale
    assert abs(float(found.scores.mean()) - found.mean) > found.scale
    assert float(torch.corrcoef(torch.stack([found.scores, truth]))[0, 1]) > 0.6
    pairs = non_edges(matrix, 500, seed=0, also=(users, items))
    assert not matrix.contains(*pairs).any()


def test_pairs_are_foretold_alike_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    data = planted(200, 100, per_user=16)
    matrix = trained(LightGCN(data, dim=8, num_layers=2), 1).graph_inputs.adjacency()
    final = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    users, items = non_edges(matrix, 60, seed=1)
    whole = expected_scores(final, matrix, users, items, seed=0)
    monkeypatch.setattr(expected, "_BLOCK", 7)
    assert torch.allclose(expected_scores(final, matrix, users, items, seed=0).scores, whole.scores, atol=1e-5)
    none = expected_scores(final, matrix, users[:0], items[:0], seed=0)
    assert none.scores.shape == (0,)


@pytest.mark.parametrize("exact", [False, True])
def test_the_weight_of_forgetting_grows_and_its_aim_stands_in_the_second_half(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published the weight is constant, and nothing is foretold."""
    data = planted(per_user=8)
    model = LightGCN(data, dim=8, batch_size=16)
    served = Served(Backbone(model), torch.from_numpy(data.interactions("train").edge_id[::9].copy()), exact=exact)
    log: list[float | str] = []
    real, foretell = training.step_terms, served.foretell

    def step_terms(served: Served, tables: torch.Tensor, phase: Any, batch: Any, weights: Weights, step: int) -> Any:
        log.append(weights.forget)
        return real(served, tables, phase, batch, weights, step)

    monkeypatch.setattr(training, "step_terms", step_terms)
    monkeypatch.setattr(served, "foretell", lambda tables: log.append("foretold") or foretell(tables))
    made = encoder(8, size=(data.num_users, data.num_items)).float()
    finetune(served, made, Weights(forget=0.3), epochs=2, seed=0)
    weights = [x for x in log if not isinstance(x, str)]
    if exact:
        assert "foretold" not in log and set(weights) == {0.3}
        return
    assert weights == sorted(weights) and 0 < weights[0] < 0.2 and weights[-1] == pytest.approx(0.6)
    assert np.mean(weights) == pytest.approx(0.3, rel=0.15)
    assert log[0] == "foretold" and 1 < log.count("foretold") <= training.FORETELLINGS + 1
    assert "foretold" not in log[len(log) // 2 + 2 :]


def test_the_encoder_survives_its_files(tmp_path: Path) -> None:
    made = encoder(2, size=(4, 3), slope=0.5, withdrawal=0.2).float()
    files = state.written(made, {"fingerprint": "abc"})
    assert set(state.named(list(files))) == {state.TENSORS, state.SETTINGS}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    found, facts = state.read(tmp_path)
    assert facts == {"fingerprint": "abc"}
    assert torch.equal(found.shift, made.shift) and torch.equal(found.rates, made.rates)
    assert (found.slope, found.withdrawal, found.num_layers, len(found.weights)) == (0.5, 0.2, 3, 2)
    other = state.written(encoder(3, size=(4, 3)).float(), {})
    (tmp_path / state.TENSORS).write_bytes(other[state.TENSORS])
    with pytest.raises(InputError, match="shift must be"):
        state.read(tmp_path)
    (tmp_path / state.SETTINGS).write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 1"):
        state.read(tmp_path)
    with pytest.raises(InputError, match="not prepared"):
        state.read(tmp_path / "nowhere")


def test_rows_leave_the_encoder() -> None:
    made = encoder()
    before = made.shift.clone()
    made.forget(torch.tensor([1, 8]))
    assert not made.shift[[1, 8]].any() and not made.rates[[1, 8]].any()
    left = [row for row in range(12) if row not in (1, 8)]
    assert torch.equal(made.shift[left], before[left])


@pytest.mark.parametrize(
    ("make", "sharing"),
    [
        (lambda data: LightGCN(data, dim=8, num_layers=2, lr=0.02, batch_size=256), "gathered"),
        (lambda data: LightGCN(data, dim=8, num_layers=2, lr=0.02, batch_size=8), "wider"),
        (lambda data: LightGCN(data, dim=8, num_layers=2, lr=0.02, edge_dropout=0.5), "none"),
        (lambda data: BPRMF(data, dim=8, lr=0.02, batch_size=8), "wider"),
        (lambda data: XSimGCL(data, dim=8, lr=0.02), "none"),
    ],
)
def test_terms_of_a_shared_propagation_are_those_of_one_of_their_own(make: Any, sharing: str) -> None:
    """Values and gradients, where the rows of a training step are those that score; no sharing where they are not."""
    data = planted()
    model = trained(make(data), 3)
    served = Served(Backbone(model), torch.from_numpy(data.interactions("train").edge_id[::9].copy()))
    phase = next(phase for phase in served.residual.phases() if phase.parameters)
    served.residual.model.train()
    for step in range(2):  # the first finds out, the second makes use of it
        batch = next(iter(phase.batches(step, randomness.generator(step, "batches"))))
        tables = (served.ego * 1.1).requires_grad_(True)
        terms = step_terms(served, tables, phase, batch, Weights(pairs=5), step)
        assert served.sharing == sharing
        if sharing == "none":
            continue
        apart = (served.ego * 1.1).requires_grad_(True)
        own = served.residual.terms(apart, phase, batch)
        known = loss_terms(served, apart, batch, own, Weights(pairs=5), step)
        assert terms.keys() == known.keys()
        for name in known:
            torch.testing.assert_close(terms[name], known[name], rtol=1e-4, atol=1e-6)
        sum(terms.values()).backward()
        sum(known.values()).backward()
        torch.testing.assert_close(tables.grad, apart.grad, rtol=1e-3, atol=1e-5)
    assert "training_rows" not in vars(served.residual.model)
