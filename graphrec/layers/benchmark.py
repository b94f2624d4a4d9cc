"""How fast the products and the LightGCN training step are here, beside the same step written plainly.

Everything is measured in one process with the same threads, after a warm-up: the median and the quartiles of repeated
runs. What a training makes once of its matrix (its transpose, the plain step's COO form) is part of neither step. Both
steps compute the same thing; that their gradients agree is part of the result. They are measured in turns, some of one
and one of the other, so that what else the machine does meanwhile slows both.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise
from graphrec.graphs.sampling import positive_pairs, sample_negatives
from graphrec.layers.losses import bpr_loss, squared_norms
from graphrec.layers.propagation import propagation_and_ego_rows
from graphrec.layers.spmm import sddmm, spmm
from graphrec.randomness import generator

Triples = tuple[Tensor, Tensor, Tensor]


def benchmark(
    adj: Adjacency,
    *,
    dim: int = 64,
    num_layers: int = 3,
    batch_size: int = 2048,
    steps: int = 40,
    plain_steps: int = 8,
    threads: int = 2,
    reg: float = 1e-4,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure products, sampling, the exact training step and the plain one on one graph.

    Args:
        adj: users x items; its values are not looked at.
        dim: D.
        num_layers: K.
        batch_size: B.
        steps: steps measured of the exact algorithm.
        plain_steps: steps measured of the plain one; 0 leaves it out.
        threads: of torch, during the measurement.
        reg: weight of the regulariser.
        seed: of tables and batches.

    Returns:
        milliseconds as ``{"median", "low", "high", "runs"}`` (quartiles) under ``spmm_forward``, ``spmm_backward``,
        ``spmm_values_backward``, ``step`` and ``plain_step``; ``sampling_seconds`` of an epoch, ``epoch_seconds`` and
        ``plain_epoch_seconds`` (steps times the median, plus sampling), ``speedup`` of the two, ``gradient_error`` (the
        largest difference over the largest gradient), ``peak_rss_mb`` (before the plain step ran), sizes and versions.
    """
    with _threads(threads):
        matrix = normalise(adj.with_values(None))
        tables = _tables(adj, dim, seed)
        result: dict[str, Any] = _environment(adj, dim, num_layers, batch_size, threads)
        result |= _products(matrix, dim, seed)
        start = time.perf_counter()
        batches = _batches(adj, batch_size, seed)
        result["sampling_seconds"] = time.perf_counter() - start
        step = ExactStep(matrix, tables, num_layers, reg)
        turn = itertools.cycle(batches)
        _times(lambda: step(next(turn)), 3)  # a warm-up
        result["peak_rss_mb"] = peak_rss_mb()
        times: list[float] = []
        plain_times: list[float] = []
        if plain_steps:
            plain = PlainStep(matrix, tables, num_layers, reg)
            result["gradient_error"] = gradient_error(step, plain, batches[0])
        groups = max(plain_steps, 1)
        for group in range(groups):
            times += _times(lambda: step(next(turn)), steps * (group + 1) // groups - steps * group // groups)
            if plain_steps:
                plain_times += _times(lambda: plain(next(turn)), 1)
        result["step"] = _spread(times)
        result["epoch_seconds"] = len(batches) * result["step"]["median"] / 1e3 + result["sampling_seconds"]
        if plain_steps:
            result["plain_step"] = _spread(plain_times)
            seconds = len(batches) * result["plain_step"]["median"] / 1e3 + result["sampling_seconds"]
            result["plain_epoch_seconds"] = seconds
            result["speedup"] = seconds / result["epoch_seconds"]
    return result


class ExactStep:
    """One step of LightGCN, BPR and Adam: rows alone in the last layer, own backward, fused optimiser."""

    def __init__(self, matrix: Adjacency, tables: tuple[Tensor, Tensor], num_layers: int, reg: float) -> None:
        self.matrix, self.reg = matrix, reg
        self.weights = [1.0 / (num_layers + 1)] * (num_layers + 1)
        self.tables = [nn.Parameter(table.clone()) for table in tables]
        self.optimiser = torch.optim.Adam(self.tables, lr=1e-3, fused=True)

    def gradients(self, batch: Triples) -> Tensor:
        """Fill the gradients of the tables for (users, positives, negatives); the loss."""
        users, positives, negatives = batch
        count = len(users)
        self.optimiser.zero_grad(set_to_none=True)
        items = torch.cat([positives, negatives])
        (user, item), ego = propagation_and_ego_rows(
            self.matrix, self.tables[0], self.tables[1], self.weights, users, items
        )
        positive, negative = item.split(count)  # the gradient of a split is one concatenation
        scores = (user * positive).sum(1), (user * negative).sum(1, keepdim=True)
        loss = bpr_loss(*scores).mean()
        loss = loss + self.reg * 0.5 / count * (squared_norms(ego[0]).sum() + squared_norms(ego[1]).sum())
        loss.backward()
        return loss.detach()

    def __call__(self, batch: Triples) -> None:
        """One step."""
        self.gradients(batch)
        self.optimiser.step()


class PlainStep:
    """The same step as the published code writes it: one coalesced COO matrix, autograd, a stack of all layers."""

    def __init__(self, matrix: Adjacency, tables: tuple[Tensor, Tensor], num_layers: int, reg: float) -> None:
        users, items = matrix.shape
        rows, cols = matrix.rows().long(), matrix.col.long() + users
        index = torch.stack([torch.cat([rows, cols]), torch.cat([cols, rows])])
        assert matrix.values is not None
        values = matrix.values.repeat(2)
        self.graph = torch.sparse_coo_tensor(index, values, (users + items, users + items)).coalesce()
        self.tables = [nn.Parameter(table.clone()) for table in tables]
        self.num_layers, self.reg = num_layers, reg
        self.optimiser = torch.optim.Adam(self.tables, lr=1e-3)

    def propagate(self) -> tuple[Tensor, ...]:
        """All layers of all nodes, then their mean."""
        everything = torch.cat(tuple(self.tables))
        layers = [everything]
        for _ in range(self.num_layers):
            everything = torch.sparse.mm(self.graph, everything)
            layers.append(everything)
        return torch.split(torch.stack(layers, dim=1).mean(dim=1), [len(table) for table in self.tables])

    def gradients(self, batch: Triples) -> Tensor:
        """Fill the gradients of the tables for (users, positives, negatives); the loss."""
        users, positives, negatives = batch
        self.optimiser.zero_grad()
        all_users, all_items = self.propagate()
        user, positive, negative = all_users[users], all_items[positives], all_items[negatives]
        ego = self.tables[0][users], self.tables[1][positives], self.tables[1][negatives]
        norms = sum(rows.norm(2).pow(2) for rows in ego) / 2 / len(users)
        difference = (user * negative).sum(dim=1) - (user * positive).sum(dim=1)
        loss = nn.functional.softplus(difference).mean() + self.reg * norms
        loss.backward()
        return loss.detach()

    def __call__(self, batch: Triples) -> None:
        """One step."""
        self.gradients(batch)
        self.optimiser.step()


def gradient_error(step: ExactStep, plain: PlainStep, batch: Triples) -> float:
    """Largest difference of the two gradients on one batch from the same tables, over the largest gradient."""
    with torch.no_grad():
        for ours, theirs in zip(step.tables, plain.tables, strict=True):
            theirs.copy_(ours)
    step.gradients(batch)
    plain.gradients(batch)
    pairs = [(ours.grad, theirs.grad) for ours, theirs in zip(step.tables, plain.tables, strict=True)]
    worst = max(float((ours - theirs).abs().max()) for ours, theirs in pairs if ours is not None and theirs is not None)
    return worst / max(float(theirs.abs().max()) for _, theirs in pairs if theirs is not None)


def table(result: Mapping[str, Any]) -> str:
    """The result as lines for a terminal."""
    lines = [
        f"{result['users']} users, {result['items']} items, {result['edges']} edges; dim {result['dim']}, "
        f"{result['num_layers']} layers, batch {result['batch_size']}, {result['threads']} threads, "
        f"torch {result['torch']}"
    ]
    for key, name in (
        ("spmm_forward", "product, both halves"),
        ("spmm_backward", "its gradient"),
        ("spmm_values_backward", "gradient of edge values"),
        ("step", "training step"),
        ("plain_step", "training step, plain"),
    ):
        if key in result:
            value = result[key]
            lines.append(f"{name:28}{value['median']:10.1f} ms   {value['low']:.1f} to {value['high']:.1f}")
    lines.append(f"{'sampling an epoch':28}{result['sampling_seconds']:10.2f} s")
    lines.append(f"{'epoch':28}{result['epoch_seconds']:10.1f} s   peak memory {result['peak_rss_mb']:.0f} MB")
    if "speedup" in result:
        seconds = result["plain_epoch_seconds"]
        lines.append(f"{'epoch, plain':28}{seconds:10.1f} s   {result['speedup']:.1f} times as long")
        lines.append(f"{'difference of gradients':28}{result['gradient_error']:10.1e}")
    return "\n".join(lines)


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in units of 10^6 bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def milliseconds(work: Callable[[], object], runs: int, warm_up: int = 2) -> dict[str, float]:
    """Median and quartiles of the time that ``work`` takes."""
    _times(work, warm_up)
    return _spread(_times(work, runs))


def _times(work: Callable[[], object], runs: int) -> list[float]:
    """Milliseconds of each of some runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _spread(times: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return {"median": median, "low": low, "high": high, "runs": len(times)}


def _products(matrix: Adjacency, dim: int, seed: int, runs: int = 20) -> dict[str, Any]:
    users, items = (table.requires_grad_() for table in _tables(matrix, dim, seed))
    sums = [spmm(matrix, items), spmm(matrix.transposed, users)]
    grads = [torch.ones_like(x) for x in sums]

    def forward() -> None:
        with torch.no_grad():
            spmm(matrix, items), spmm(matrix.transposed, users)

    def backward() -> None:
        torch.autograd.grad(sums, (items, users), grads, retain_graph=True)

    return {
        "spmm_forward": milliseconds(forward, runs),
        "spmm_backward": milliseconds(backward, runs),
        "spmm_values_backward": milliseconds(lambda: sddmm(matrix, users.detach(), items.detach()), runs),
    }


def _batches(adj: Adjacency, batch_size: int, seed: int) -> list[Triples]:
    """An epoch of triples, drawn as for training."""
    pairs = positive_pairs(adj, positives="user", seed=seed)
    negatives = sample_negatives(adj, pairs.users, 1, seed=seed)[:, 0]
    parts = (given.split(batch_size) for given in (pairs.users, pairs.items, negatives))
    return list(zip(*parts, strict=True))


def _tables(adj: Adjacency, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    stream = generator(seed, "benchmark")
    users, items = (torch.randn(size, dim, generator=stream).mul_(0.1) for size in adj.shape)
    return users, items


def _environment(adj: Adjacency, dim: int, num_layers: int, batch_size: int, threads: int) -> dict[str, Any]:
    return {
        "users": adj.shape[0],
        "items": adj.shape[1],
        "edges": len(adj),
        "dim": dim,
        "num_layers": num_layers,
        "batch_size": batch_size,
        "threads": threads,
        "torch": torch.__version__,
    }


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
