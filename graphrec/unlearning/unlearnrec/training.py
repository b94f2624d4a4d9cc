"""The two trainings of UnlearnRec: the encoder on simulated requests, and the tables for a few epochs after one."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphrec import randomness
from graphrec.models.base import GraphRecommender, PairBatch
from graphrec.models.phase_parts import adam
from graphrec.unlearning.unlearnrec import losses
from graphrec.unlearning.unlearnrec.backbone import Backbone
from graphrec.unlearning.unlearnrec.encoder import InfluenceEncoder, touched
from graphrec.unlearning.unlearnrec.requests import RequestSampler, SimulatedRequest
from graphrec.unlearning.unlearnrec.served import Quality, Served, quality
from graphrec.unlearning.unlearnrec.terms import Weights, step_terms, take_step

HELD_OUT = (1 << 20, (1 << 20) + 1, (1 << 20) + 3)
"""Numbers of the simulated requests that are never trained on: one of each kind."""

FORETELLINGS = 3
"""How often in the first half of fine-tuning what is to be reached is foretold again.

Not in the second one: forgetting lowers pairs like the forgotten ones too, and what is foretold from those would go
down with them.
"""


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

            take_step(step_terms(served, tables, phase, batch, weights, step, contrast), optimiser)
    served.residual.model.eval()


def finetune(
    served: Served,
    encoder: InfluenceEncoder,
    weights: Weights,
    *,
    epochs: int,
    seed: int,
    speed: float = 1.0,
    batch: float = 1.0,
    say: Callable[[str], None] | None = None,
) -> Tensor:
    """Train E⁰, W and b for a few epochs on the graph that remains, H⁰ and η held; gives Ẽ⁰, (N, D).

    What is to be reached is foretold again :data:`FORETELLINGS` times in the first half, since every step takes
    something of the forgotten edges out of what it is foretold from.

    Args:
        served: the request.
        encoder: W and b are trained in place.
        weights: of the terms; λ_u grows from 0 to twice its value in a straight line, as published it is constant.
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
        served.residual.model.batch_size = max(round(own_size * batch), 1)  # type: ignore[assignment]
    optimisers: dict[str, torch.optim.Optimizer] = {}
    rates: dict[str, float] = {}
    served.residual.model.train()
    foretold, now, moved = 0, weights, torch.zeros_like(influence)
    for epoch in range(epochs):
        for phase in served.residual.phases():
            stream = randomness.generator(seed, f"finetuning/{phase.name}", epoch, ego.device)
            if phase.parameters and phase.name not in optimisers:
                assert phase.optimiser is not None
                optimisers[phase.name] = phase.optimiser([ego, *transforms])  # type: ignore[list-item]
                rates[phase.name] = optimisers[phase.name].param_groups[0]["lr"]
            seen = 0
            for step, drawn in enumerate(phase.batches(epoch, stream)):
                # Every second step is enough for W and b.
                moved = encoder.transform(influence) if served.exact or step % 2 == 0 else moved.detach()
                tables = ego.index_add(0, rows, moved)
                if not phase.parameters:
                    with torch.no_grad():
                        served.residual.terms(tables, phase, drawn)
                    continue
                if not served.exact:
                    passed = (epoch + min(seen / len(served.residual.matrix), 1.0)) / epochs
                    if passed <= 0.5 and passed * 2 * FORETELLINGS >= foretold:
                        foretold += 1
                        served.residual.model.eval()
                        served.foretell(tables.detach())
                        served.residual.model.train()
                    seen += len(drawn)
                    done = (epoch + min(seen / len(served.residual.matrix), 1.0)) / epochs
                    for group in optimisers[phase.name].param_groups:
                        group["lr"] = rates[phase.name] * speed * (1 - done) + 1e-12
                    # What is foretold first still holds much of the forgotten edges: it counts for little.
                    now = replace(weights, forget=2 * done * weights.forget)
                take_step(step_terms(served, tables, phase, drawn, now, step), optimisers[phase.name])
        if say is not None:
            say(f"fine-tuning {epoch + 1}/{epochs}")
    served.residual.model.eval()
    if isinstance(own_size, int):
        served.residual.model.batch_size = own_size  # type: ignore[assignment]
    with torch.no_grad():
        return ego.index_add(0, rows, encoder.transform(influence)).detach()
