"""The two trainings of UnlearnRec: the encoder on simulated requests, and the tables for a few epochs after one."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec import randomness
from graphrec.errors import InputError
from graphrec.models.base import Batch, GraphRecommender, PairBatch
from graphrec.models.phase_parts import adam
from graphrec.unlearning.unlearnrec import losses
from graphrec.unlearning.unlearnrec.backbone import Backbone, initial_tables
from graphrec.unlearning.unlearnrec.encoder import InfluenceEncoder, request_matrix, touched
from graphrec.unlearning.unlearnrec.expected import Expected, expected_scores, non_edges
from graphrec.unlearning.unlearnrec.requests import RequestSampler, SimulatedRequest

PROBES = 4096
"""Pairs that say how well a model still tells edges from pairs that are none."""

HELD_OUT = (1 << 20, (1 << 20) + 1, (1 << 20) + 3)
"""Numbers of the simulated requests that are never trained on: one of each kind."""


@dataclass(frozen=True)
class Weights:
    """What the terms beside the backbone's loss count in one of the two trainings.

    Attributes:
        forget: λ_u, of the scores of the request.
        align: λ_p of the published sum over a batch; times the number of aligned pairs it weighs the mean.
        temperature: τ of the alignment.
        contrast: λ_c.
        pairs: pairs of a batch that are aligned; None: all, as published. The work grows with the square.
        every: steps from one computation of the request's and the alignment's terms to the next; they count so many
            times as much, so that the sum over an epoch is the same.
    """

    forget: float = 1.0
    align: float = 0.005
    temperature: float = 1.0
    contrast: float = 1e-3
    pairs: int | None = 512
    every: int = 1


class Served:
    """A request met with a model: the graph without it, what the encoder reads, and what is to be reached.

    Args:
        whole: the trained model on all edges.
        edge_id: (M,) int64, edges of the ranked behaviour to forget.
        exact: as published: the teacher is the model on the whole graph, nothing is foretold, and rows that lose all
            their edges keep what they learned.
        seed: of the pairs that scores are foretold by.
    """

    def __init__(self, whole: Backbone, edge_id: Tensor, *, exact: bool = False, seed: int = 0) -> None:
        matrix = whole.matrix
        own = matrix.edge_positions() if matrix.edge_id is None else matrix.edge_id
        gone = torch.isin(own, edge_id.to(own.device))
        self.users, self.items = matrix.rows().long()[gone], matrix.col.long()[gone]
        self.residual = Backbone.residual(whole.model, own[gone])
        self.request = request_matrix(self.users, self.items, matrix.shape)
        self.exact, self.seed = exact, seed
        self.ego, self.final = whole.tables(), _detached(whole, whole.tables())
        left = torch.cat([self.residual.matrix.degrees(0), self.residual.matrix.degrees(1)])
        self.emptied = (left == 0) & touched(self.request)
        if not exact and bool(self.emptied.any()):
            self.ego[self.emptied] = initial_tables(whole.model)[self.emptied]
        # Two edges may lie between one pair: what is left of it is no forgotten pair.
        split = matrix.shape[0]
        self.learned = ~(self.emptied[self.users] | self.emptied[split + self.items])
        self.learned &= ~self.residual.matrix.contains(self.users, self.items)
        self.teacher = self.final if exact else _detached(self.residual, self.ego)
        self.expected: Expected | None = None
        if not exact:
            self.foretell(self.ego)

    def foretell(self, tables: Tensor) -> Expected:
        """Scores of the forgotten pairs as the other edges have them, for a model with these tables (N, D)."""
        users, items = self.users[self.learned], self.items[self.learned]
        final = _detached(self.residual, tables)
        self.expected = expected_scores(final, self.residual.matrix, users, items, seed=self.seed)
        return self.expected

    def scores(self, final: Tensor) -> Tensor:
        """Of the forgotten pairs whose two ends still have edges (all of them as published), (M',)."""
        users, items = self.users, self.items
        if not self.exact:
            users, items = users[self.learned], items[self.learned]
        split = self.request.shape[0]
        return (final[users] * final[split + items]).sum(-1)

    def moved(self, encoder: InfluenceEncoder, ego: Tensor | None = None) -> Tensor:
        """Ẽ⁰, (N, D); rows that lost all their edges stand at their initial values."""
        ego = self.ego if ego is None else ego
        tables: Tensor = encoder(ego, self.final, self.request, everywhere=self.exact)
        if self.exact or not bool(self.emptied.any()):
            return tables
        return torch.where(self.emptied.unsqueeze(1), ego, tables)


def loss_terms(
    served: Served,
    tables: Tensor,
    batch: Batch,
    own: Mapping[str, Tensor],
    weights: Weights,
    step: int,
    contrast: Callable[[PairBatch], Tensor] | None = None,
) -> dict[str, Tensor]:
    """L_M, λ_u L_u, λ_p L_p and λ_c L_c of one step by name.

    Args:
        served: the request.
        tables: (N, D), Ẽ⁰.
        batch: of the residual graph.
        own: the backbone's own terms with these tables. As published, the penalty on rows of its table is a constant
            and left out.
        weights: of the terms.
        step: counts the steps.
        contrast: gives L_c for the batch's nodes.
    """
    terms = {name: term for name, term in own.items() if not (served.exact and name == "reg")}
    if step % weights.every == 0:
        final = served.residual.encode(tables)
        scores = served.scores(final)
        if len(scores):
            if served.exact:
                forget = losses.forget_below(scores)
            else:
                assert served.expected is not None
                forget = losses.forget_to(scores, served.expected.scores, served.expected.scale)
            terms["forget"] = weights.every * weights.forget * forget
        if weights.align and isinstance(batch, PairBatch):
            part = slice(None) if served.exact else slice(weights.pairs)
            rows = batch.users[part], batch.items[part] + served.request.shape[0]
            teacher = served.teacher[rows[0]], served.teacher[rows[1]]
            if served.exact:
                term = losses.published_alignment(final[rows[0]], final[rows[1]], teacher, weights.temperature)
            else:
                mean = losses.alignment(final[rows[0]], final[rows[1]], teacher, weights.temperature)
                term = len(rows[0]) * mean
            terms["align"] = weights.every * weights.align * term
    if contrast is not None and weights.contrast and isinstance(batch, PairBatch):
        terms["contrast"] = weights.contrast * contrast(batch)
    return terms


@dataclass(frozen=True)
class Quality:
    """How a request went, without a retrained model at hand.

    Attributes:
        gap: mean score of the forgotten pairs less the foretold mean, in standard deviations of the scores of random
            pairs; as published: mean score of the request less that of random pairs.
        separation: share of (edge, random pair of its user) in which the edge scores higher, on the graph that remains.
        teacher: the same of the trained model on that graph before anything moved.
    """

    gap: float
    separation: float
    teacher: float


@torch.no_grad()
def quality(served: Served, tables: Tensor, *, seed: int = 0) -> Quality:
    """Measure tables (N, D) after a request; see :class:`Quality`."""
    final = served.residual.encode(tables)
    scores = served.scores(final)
    matrix, split = served.residual.matrix, served.request.shape[0]
    if served.expected is not None:
        gap = float((scores - served.expected.scores).sum() / max(len(scores), 1)) / served.expected.scale
    else:
        pairs = non_edges(matrix, PROBES, seed=seed)
        random = (final[pairs[0]] * final[split + pairs[1]]).sum(-1)
        gap = float(scores.sum() / max(len(scores), 1) - random.mean())
    entries = randomness.hash_integers(
        randomness.derive(seed, "probes"), len(matrix), torch.arange(PROBES, device=matrix.device)
    )
    users, items = matrix.rows().long()[entries], matrix.col.long()[entries]
    others = randomness.hash_integers(randomness.derive(seed, "others"), matrix.shape[1], users, entries)
    free = ~matrix.contains(users, others)
    users, items, others = users[free], items[free], others[free]

    def separation(rows: Tensor) -> float:
        higher = (rows[users] * (rows[split + items] - rows[split + others])).sum(-1) > 0
        return float(higher.float().mean()) if len(higher) else 1.0

    return Quality(gap, separation(final), separation(served.teacher))


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained encoder.

    Attributes:
        encoder: with the parameters of the best check.
        seconds: the training took.
        checks: number of the epoch and quality on the held-out requests, in order (one of all epochs for 0: before).
        best: the epoch that was taken, 0 where no training was better than none.
    """

    encoder: InfluenceEncoder
    seconds: float
    checks: tuple[tuple[int, Quality], ...]
    best: int


def pretrain(
    model: GraphRecommender,
    encoder: InfluenceEncoder,
    weights: Weights,
    *,
    epochs: int,
    steps: int,
    every: int,
    sampler: RequestSampler,
    lr: float,
    seed: int,
    exact: bool = False,
    say: Callable[[str], None] | None = None,
) -> Pretrained:
    """Train H⁰ and η on simulated requests.

    Requests that are never trained on pick the epoch: the one whose forgotten pairs come closest to what is foretold,
    among those that tell edges from other pairs as well as the encoder did before (a drop counts as a gap). The
    published code picks by the request it is tested on, and by the distance *below* random pairs: ``exact`` does so
    with the last simulated request.

    Args:
        model: trained; left as it is.
        encoder: trained in place.
        weights: of the terms.
        epochs: passes over the edges that remain of the request of the moment.
        steps: the most steps of one epoch.
        every: epochs for which a request stands; the held-out requests are looked at as often.
        sampler: of the requests.
        lr: of Adam.
        seed: of batches and requests.
        exact: as published; see :class:`Served` and :func:`loss_terms`.
        say: told of each check.

    Raises:
        InputError: a loss that is not finite.
    """
    started = time.perf_counter()
    whole = Backbone(copy.deepcopy(model).eval())
    held = [] if exact else [_met(whole, sampler.draw(number), exact, seed) for number in HELD_OUT]
    optimiser = adam(lr)(encoder.learn("pretrain"))
    best: tuple[float, int, dict[str, Tensor]] | None = None
    checks: list[tuple[int, Quality]] = []
    served: Served | None = None
    floor = 0.0
    for epoch in range(epochs + 1):
        if epoch % every == 0 or epoch == epochs:
            found = _mean_quality(held or ([served] if served else []), encoder, seed)
            if found is not None:
                checks.append((epoch, found))
                value = _value(found, exact)
                if best is None or value < best[0]:
                    best = value, epoch, {name: x.clone() for name, x in encoder.state_dict().items()}
                if say is not None:
                    say(f"encoder {epoch}/{epochs}: gap {found.gap:+.3f}, separation {found.separation:.4f}")
                floor = floor or 0.5 + 0.5 * (found.separation - 0.5)
                if found.separation < floor:
                    break
        if epoch == epochs:
            break
        if epoch % every == 0:
            served = _met(whole, sampler.draw(epoch // every), exact, seed)
        assert served is not None
        _pretraining_epoch(served, encoder, weights, optimiser, epoch, steps, seed)
    if best is not None:
        encoder.load_state_dict(best[2])
    return Pretrained(encoder, time.perf_counter() - started, tuple(checks), best[1] if best else 0)


@torch.no_grad()
def validated(model: GraphRecommender, encoder: InfluenceEncoder, sampler: RequestSampler, *, seed: int) -> Quality:
    """How an encoder serves the held-out requests on a model that it may not have been trained for."""
    whole = Backbone(copy.deepcopy(model).eval())
    found = _mean_quality([_met(whole, sampler.draw(number), False, seed) for number in HELD_OUT], encoder, seed)
    assert found is not None
    return found


def _met(whole: Backbone, request: SimulatedRequest, exact: bool, seed: int) -> Served:
    return Served(whole, request.edge_id, exact=exact, seed=seed)


def _value(found: Quality, exact: bool) -> float:
    """What the choice of an epoch makes small."""
    return found.gap if exact else abs(found.gap) + 20 * max(found.teacher - found.separation, 0.0)


def _mean_quality(held: list[Served], encoder: InfluenceEncoder, seed: int) -> Quality | None:
    if not held:
        return None
    with torch.no_grad():
        all_of_them = [quality(served, served.moved(encoder), seed=seed) for served in held]
    # Gaps of two signs do not cancel.
    size = len(all_of_them)
    gap = sum(found.gap if served.exact else abs(found.gap) for found, served in zip(all_of_them, held, strict=True))
    return Quality(
        gap / size, sum(found.separation for found in all_of_them) / size, sum(f.teacher for f in all_of_them) / size
    )


def _pretraining_epoch(
    served: Served,
    encoder: InfluenceEncoder,
    weights: Weights,
    optimiser: torch.optim.Optimizer,
    epoch: int,
    steps: int,
    seed: int,
) -> None:
    served.residual.model.train()
    for phase in served.residual.phases():
        stream = randomness.generator(seed, f"pretraining/{phase.name}", epoch, served.ego.device)
        drops = randomness.generator(seed, f"pretraining drops/{phase.name}", epoch)
        for step, batch in enumerate(phase.batches(epoch, stream)):
            if not phase.parameters:
                with torch.no_grad():
                    served.residual.terms(served.moved(encoder), phase, batch)
                continue
            if step >= steps:
                break
            layers = encoder.layers(served.request)
            tables = encoder(served.ego, served.final, served.request, layers=layers, everywhere=served.exact)
            if not served.exact:
                tables = torch.where(served.emptied.unsqueeze(1), served.ego, tables)

            def contrast(pairs: PairBatch, layers: list[Tensor] = layers, drops: torch.Generator = drops) -> Tensor:
                return losses.layer_contrast(layers, served.request, pairs.users, pairs.items, generator=drops)

            own = served.residual.terms(tables, phase, batch)
            _step(loss_terms(served, tables, batch, own, weights, step, contrast), optimiser)
    served.residual.model.eval()


def finetune(
    served: Served,
    encoder: InfluenceEncoder,
    weights: Weights,
    *,
    epochs: int,
    seed: int,
    speed: float = 1.0,
    batch: int = 1,
    say: Callable[[str], None] | None = None,
) -> Tensor:
    """Train E⁰, W and b for a few epochs on the graph that remains, H⁰ and η held; gives Ẽ⁰, (N, D).

    What is to be reached is foretold again before every epoch, since every epoch takes something of the forgotten edges
    out of what it is foretold from.

    Args:
        served: the request.
        encoder: W and b are trained in place.
        weights: of the terms.
        epochs: 0 gives the encoder's own answer.
        seed: of the batches.
        speed: the learning rate starts at so many times the model's own, and falls to 0 in a straight line; as
            published it is the model's own throughout.
        batch: batches are so many times as large as the model's own: most of a step's work, the propagation, does not
            grow with them.
        say: told of each epoch.
    """
    ego = served.ego.clone().requires_grad_(True)
    transforms = encoder.learn("finetune")
    with torch.no_grad():
        influence = encoder.influence(served.final, served.request)
    rows = touched(served.request) | torch.full_like(served.emptied, served.exact)
    rows = (rows & ~(served.emptied & (not served.exact))).nonzero()[:, 0]
    influence = influence[rows]
    own_size = getattr(served.residual.model, "batch_size", None)
    if not served.exact and isinstance(own_size, int):
        served.residual.model.batch_size = own_size * batch  # type: ignore[assignment]
    optimisers: dict[str, torch.optim.Optimizer] = {}
    rates: dict[str, float] = {}
    served.residual.model.train()
    for epoch in range(epochs):
        if not served.exact and epoch:
            with torch.no_grad():
                served.residual.model.eval()
                served.foretell(ego.index_add(0, rows, encoder.transform(influence)))
                served.residual.model.train()
        for phase in served.residual.phases():
            stream = randomness.generator(seed, f"finetuning/{phase.name}", epoch, ego.device)
            if phase.parameters and phase.name not in optimisers:
                assert phase.optimiser is not None
                optimisers[phase.name] = phase.optimiser([ego, *transforms])  # type: ignore[list-item]
                rates[phase.name] = optimisers[phase.name].param_groups[0]["lr"]
            seen = 0
            for step, drawn in enumerate(phase.batches(epoch, stream)):
                tables = ego.index_add(0, rows, encoder.transform(influence))
                if not phase.parameters:
                    with torch.no_grad():
                        served.residual.terms(tables, phase, drawn)
                    continue
                if not served.exact:
                    seen += len(drawn)
                    done = (epoch + min(seen / len(served.residual.matrix), 1.0)) / epochs
                    for group in optimisers[phase.name].param_groups:
                        group["lr"] = rates[phase.name] * speed * (1 - done) + 1e-12
                own = served.residual.terms(tables, phase, drawn)
                _step(loss_terms(served, tables, drawn, own, weights, step), optimisers[phase.name])
        if say is not None:
            say(f"fine-tuning {epoch + 1}/{epochs}")
    served.residual.model.eval()
    with torch.no_grad():
        return ego.index_add(0, rows, encoder.transform(influence)).detach()


def _step(terms: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> None:
    loss = torch.stack([term for term in terms.values()]).sum()
    if not bool(torch.isfinite(loss.detach())):
        values = ", ".join(f"{name} {float(term.detach()):.4g}" for name, term in terms.items())
        raise InputError(f"the loss of the influence encoder is not finite ({values}); choose a smaller learning rate.")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _detached(backbone: Backbone, tables: Tensor) -> Tensor:
    with torch.no_grad():
        return backbone.encode(tables)
