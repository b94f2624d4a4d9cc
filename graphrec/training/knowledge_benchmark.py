"""How fast KGAT is here: its propagation beside the same written edge by edge, its attention, an epoch, a large graph.

The propagations run in processes of their own, one after the other with the same threads, so that the memory of each
can be told. What a training makes once of its graph is part of neither. That their gradients agree is part of the
result.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.relational import Relation, RelationalGraph, relational_graph
from graphrec.layers.aggregators import Aggregator
from graphrec.layers.benchmark import milliseconds, peak_rss_mb
from graphrec.layers.kge import Tables, TransR
from graphrec.layers.knowledge_attention import relation_shares, translated_logits
from graphrec.layers.receptive import layer_rows
from graphrec.layers.relational import edge_softmax
from graphrec.models.base import Phase
from graphrec.models.kgat import KGAT

Measured = dict[str, Any]

TRIPLES, ENTITIES = 10_000_000, 1_000_000
"""Size of the synthetic knowledge graph."""


def benchmark(
    data: RecDataset,
    *,
    dim: int = 64,
    layer_dims: Sequence[int] = (64, 32, 16),
    batch_size: int = 1024,
    triple_batch_size: int = 2048,
    steps: int = 10,
    plain_steps: int = 3,
    synthetic: bool = True,
    threads: int = 2,
    seed: int = 0,
) -> Measured:
    """Measure KGAT on a dataset with a knowledge graph.

    Args:
        data: the dataset.
        dim: D.
        layer_dims: widths of the layers.
        batch_size: pairs of a step.
        triple_batch_size: triples of a step.
        steps: propagations and steps on pairs measured; steps on triples are ten times as many.
        plain_steps: propagations measured of the plain form; 0 leaves it out.
        synthetic: whether a graph of ten million triples is built and propagated on too.
        threads: of torch, during the measurement.
        seed: of tables and batches.

    Returns:
        milliseconds as ``{"median", "low", "high", "runs"}`` under ``propagation`` (all nodes, forward and backward,
        attention from E⁰ in it), ``fixed_propagation`` (with the attention given), both again with ``plain_``,
        ``pairs_step``, ``triples_step`` and ``attention_refresh``; for each propagation ``_mb`` (resident memory above
        what the process held before), ``_speedup`` and ``_memory_ratio`` (plain over ours) and ``_gradient_error`` (the
        largest difference over the largest gradient);
        ``epoch_seconds`` (batches of an epoch times the medians, drawing included) and ``peak_rss_mb`` of this process;
        under ``synthetic`` the seconds and memory of the large graph; sizes and versions.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = KGAT(
            data,
            dim=dim,
            layer_dims=layer_dims,
            batch_size=batch_size,
            triple_batch_size=triple_batch_size,
            seed=seed,
        )
        result: Measured = {
            "nodes": model.knowledge.num_nodes,
            "edges": len(model.knowledge),
            "relations": model.knowledge.num_relations,
            "dim": dim,
            "layer_dims": list(layer_dims),
            "batch_size": batch_size,
            "triple_batch_size": triple_batch_size,
            "threads": threads,
            "torch": torch.__version__,
        }
        result |= _epoch(model, steps)
        result["peak_rss_mb"] = peak_rss_mb()
        graph = (*_arrays(model.matrix()), model.knowledge.relation)
        shape = (dim, list(layer_dims), threads, seed)
        for name, attended in (("propagation", True), ("fixed_propagation", False)):
            ours = _apart(_propagation, graph, *shape, steps, False, attended)
            result[name], result[f"{name}_mb"] = ours["milliseconds"], ours["mb"]
            if plain_steps:
                plain = _apart(_propagation, graph, *shape, plain_steps, True, attended)
                result[f"plain_{name}"], result[f"plain_{name}_mb"] = plain["milliseconds"], plain["mb"]
                result[f"{name}_speedup"] = plain["milliseconds"]["median"] / ours["milliseconds"]["median"]
                result[f"{name}_memory_ratio"] = plain["mb"] / ours["mb"]
                result[f"{name}_gradient_error"] = _difference(ours["probe"], plain["probe"])
        if synthetic:
            result["synthetic"] = _apart(_large, dim, list(layer_dims), threads, seed)
    finally:
        torch.set_num_threads(before)
    return result


def plain_layers(heads: Tensor, tails: Tensor, values: Tensor, x: Tensor, layers: Sequence[Aggregator]) -> list[Tensor]:
    """The layers as they are written edge by edge: gather tails, weigh them, scatter them to heads, by autograd."""
    outputs = [x]
    for layer in layers:
        messages = x[tails] * values.unsqueeze(1)
        x = layer(x, torch.zeros_like(x).index_add(0, heads, messages))
        outputs.append(x)
    return outputs


def synthetic_graph(
    triples: int = TRIPLES, entities: int = ENTITIES, relations: int = 20, users: int = 10_000, seed: int = 0
) -> HeteroData:
    """A knowledge graph with hubs: items (a tenth of the entities) point at entities, and users at items.

    Tails are drawn so that entity number q E' comes with a density that falls like 1 / sqrt(q).
    """
    items = max(entities // 10, 1)
    graph = HeteroData()
    graph["user"].num_nodes, graph["item"].num_nodes, graph["entity"].num_nodes = users, items, entities - items
    number = torch.arange(triples)
    own = randomness.derive(seed, "synthetic")
    heads = randomness.hash_integers(own, items, number, 0)
    tails = (randomness.hash_uniform(own, number, 1).square() * (entities - items)).long()
    kind = ("item", "related", "entity")
    graph[kind].edge_index, graph[kind].edge_id = torch.stack([heads, tails]), number
    graph[kind].relation = randomness.hash_integers(own, relations, number, 2)
    target, few = ("user", "interacts", "item"), torch.arange(10 * users)
    graph[target].edge_index = torch.stack([few // 10, randomness.hash_integers(own, items, few, 3)])
    graph[target].edge_id = few
    return graph


def _epoch(model: KGAT, steps: int) -> Measured:
    """Medians of the phases' steps, drawing included, and what an epoch of them comes to."""
    model.train()
    result: Measured = {}
    seconds = 0.0
    for phase in model.phases():
        batches = phase.batches(0, randomness.generator(model.seed, f"benchmark/{phase.name}"))
        count = len(batches)  # type: ignore[arg-type]
        runs = {"pairs": steps, "triples": 10 * steps, "attention": 3}[phase.name]
        work = _step(phase, model)
        name = "attention_refresh" if phase.name == "attention" else f"{phase.name}_step"
        result[name] = milliseconds(work, runs, warm_up=2)
        result[f"{phase.name}_batches"] = count
        seconds += count * result[name]["median"] / 1e3
    return {**result, "epoch_seconds": seconds}


def _step(phase: Phase, model: KGAT) -> Callable[[], None]:
    """The next step of a phase; its batches begin again where they end."""
    parameters = list(phase.parameters)
    optimiser = phase.optimiser(parameters) if phase.optimiser else None
    stream = torch.Generator().manual_seed(model.seed)

    def endless() -> Any:
        epoch = 0
        while True:
            yield from phase.batches(epoch, randomness.generator(model.seed, f"benchmark/{phase.name}", epoch))
            epoch += 1

    batches = endless()

    def step() -> None:
        batch = replace(next(batches), generator=stream)
        if optimiser is None:
            phase.loss(batch)
            return
        torch.stack(list(phase.loss(batch).values())).sum().backward(inputs=parameters)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _arrays(matrix: Adjacency) -> tuple[Tensor, Tensor, Tensor]:
    assert matrix.values is not None
    return matrix.rowptr, matrix.col, matrix.values


def plain_attention(heads: Tensor, tails: Tensor, relation: Tensor, x: Tensor, tables: Tables) -> Tensor:
    """KGAT's attention edge by edge: both ends gathered and put through W_r for each edge, by autograd."""
    order = torch.argsort(relation, stable=True)
    counts = torch.bincount(relation, minlength=len(tables["vectors"])).tolist()
    logits = []
    for number, edges in enumerate(order.split(counts)):
        matrix = tables["matrices"][number]
        shifted = torch.tanh(x[heads[edges]] @ matrix + tables["vectors"][number])
        logits.append(((x[tails[edges]] @ matrix) * shifted).sum(1))
    placed = torch.zeros(len(heads), dtype=x.dtype).index_copy(0, order, torch.cat(logits))
    shares = torch.exp(placed - placed.max())
    return shares / torch.zeros(len(x), dtype=x.dtype).index_add(0, heads, shares)[heads]


def _propagation(
    arrays: tuple[Tensor, Tensor, Tensor, Tensor],
    dim: int,
    layer_dims: list[int],
    threads: int,
    seed: int,
    runs: int,
    plain: bool,
    attended: bool,
) -> Measured:
    """One form of the propagation over all nodes, forward and backward."""
    torch.set_num_threads(threads)
    rowptr, col, values, relation = arrays
    size = len(rowptr) - 1
    matrix = Adjacency(rowptr, col, (size, size), values)
    stream = randomness.generator(seed, "benchmark/propagation")
    x = nn.Parameter(torch.randn(size, dim, generator=stream).mul_(0.1))
    layers = _aggregators(dim, layer_dims, stream)
    shapes = {"vectors": (int(relation.max()) + 1, dim), "matrices": (int(relation.max()) + 1, dim, dim)}
    tables = {name: nn.Parameter(torch.randn(shape, generator=stream) / dim) for name, shape in shapes.items()}
    parameters = [x, *(parameter for layer in layers for parameter in layer.parameters())]
    parameters += tables.values() if attended else ()
    weights = [torch.randn(width, generator=stream) for width in (dim, *layer_dims)]
    graph = _bare_graph(matrix, relation)
    heads, tails = graph.heads(), graph.tails()
    if not plain:  # as a training does once
        _ = matrix.transposed, matrix.transposed_pattern()
        if attended:
            _ = graph.pair_matrix.transposed_pattern()
    before = _resident_mb()

    def layers_of() -> list[Tensor]:
        if plain:
            shares = plain_attention(heads, tails, relation, x, tables) if attended else values
            return plain_layers(heads, tails, shares, x, layers)
        if not attended:
            return layer_rows(matrix, [x], layers)
        shares = edge_softmax(graph.adjacency, translated_logits(graph, x, TransR(), tables))
        return layer_rows(graph.adjacency, [x], layers, values=shares)

    def work() -> None:
        for parameter in parameters:
            parameter.grad = None
        sums = [(output @ weight).sum() for output, weight in zip(layers_of(), weights, strict=True)]
        torch.stack(sums).sum().backward()

    taken = milliseconds(work, runs, warm_up=1)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    probe = [grad[:: max(len(grad) // 1000, 1)].clone() for grad in grads]
    return {"milliseconds": taken, "mb": peak_rss_mb() - before, "probe": probe}


def _bare_graph(matrix: Adjacency, relation: Tensor) -> RelationalGraph:
    """A relational graph of one kind of nodes and of edges, from its matrix."""
    kind = ("node", "related", "node")
    edges = torch.zeros(len(relation), dtype=torch.int64)
    relations = tuple(Relation(code, None, False) for code in range(int(relation.max()) + 1))
    return RelationalGraph(
        matrix.with_values(None),
        relation,
        edges,
        edges,
        edges.bool(),
        (kind,),
        (len(relation),),
        ("node",),
        (matrix.shape[0],),
        relations,
        {},
    )


def _large(dim: int, layer_dims: list[int], threads: int, seed: int) -> Measured:
    """The synthetic graph: built, then one propagation over all nodes, forward and backward."""
    torch.set_num_threads(threads)
    inputs = synthetic_graph(seed=seed)
    given = peak_rss_mb()
    start = time.perf_counter()
    graph: RelationalGraph = relational_graph(inputs, ("user", "interacts", "item"), "kgat")
    built, build_mb = time.perf_counter() - start, peak_rss_mb()
    del inputs
    matrix = graph.adjacency.with_stored_values(relation_shares(graph, torch.ones(len(graph))))
    stream = randomness.generator(seed, "benchmark/synthetic")
    x = nn.Parameter(torch.randn(graph.num_nodes, dim, generator=stream).mul_(0.1))
    layers = _aggregators(dim, layer_dims, stream)
    sizes = {"nodes": graph.num_nodes, "edges": len(graph), "relations": graph.num_relations}
    start = time.perf_counter()
    torch.stack([output.sum() for output in layer_rows(matrix, [x], layers)]).sum().backward()
    seconds = time.perf_counter() - start
    return {
        **sizes,
        "given_mb": given,
        "build_seconds": built,
        "build_peak_mb": build_mb,
        "propagation_seconds": seconds,
        "propagation_peak_mb": peak_rss_mb(),
    }


def _aggregators(dim: int, layer_dims: Sequence[int], stream: torch.Generator) -> list[Aggregator]:
    widths = [dim, *layer_dims]
    return [Aggregator("bi", own, out, generator=stream) for own, out in zip(widths, layer_dims, strict=False)]


def _difference(ours: Sequence[np.ndarray], plain: Sequence[np.ndarray]) -> float:
    """The largest difference over the largest gradient, over all parameters."""
    pairs = zip(ours, plain, strict=True)
    return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)


def _resident_mb() -> float:
    """Resident memory, or the peak so far where that is all that can be told."""
    if sys.platform != "linux":
        return peak_rss_mb()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def _apart(work: Callable[..., Measured], *arguments: Any) -> Measured:
    """Do ``work`` in a fresh process, which ends with it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(there, work, arguments))
    process.start()
    there.close()
    try:
        result: Measured = here.recv()
    except EOFError as error:
        process.join()
        raise RuntimeError(f"the measuring process ended with status {process.exitcode}.") from error
    process.join()
    return result


def _report(pipe: Any, work: Callable[..., Measured], arguments: tuple[Any, ...]) -> None:
    result = work(*arguments)
    # By value: shared memory would go with this process.
    pipe.send({key: [x.numpy() for x in value] if key == "probe" else value for key, value in result.items()})
    pipe.close()


def table(result: Mapping[str, Any]) -> str:
    """The result as lines for a terminal."""
    widths = ", ".join(map(str, result["layer_dims"]))
    lines = [
        f"{result['nodes']} nodes, {result['edges']} edges, {result['relations']} relations; dim {result['dim']}, "
        f"layers {widths}, {result['threads']} threads, torch {result['torch']}"
    ]
    for key, name in (
        ("propagation", "attention and propagation"),
        ("plain_propagation", "the same edge by edge"),
        ("fixed_propagation", "propagation alone"),
        ("plain_fixed_propagation", "the same edge by edge"),
        ("pairs_step", f"step, {result['batch_size']} pairs"),
        ("triples_step", f"step, {result['triple_batch_size']} triples"),
        ("attention_refresh", "refresh of the attention"),
    ):
        if key in result:
            value = result[key]
            memory = f"   {result[f'{key}_mb']:.0f} MB" if f"{key}_mb" in result else ""
            lines.append(f"{name:28}{value['median']:10.1f} ms   {value['low']:.1f} to {value['high']:.1f}{memory}")
    for key, name in (("propagation", "attention and propagation"), ("fixed_propagation", "propagation alone")):
        if f"{key}_speedup" in result:
            lines.append(
                f"{name}: edge by edge takes {result[f'{key}_speedup']:.1f} times as long and "
                f"{result[f'{key}_memory_ratio']:.1f} times the memory; gradients differ by "
                f"{result[f'{key}_gradient_error']:.1e}"
            )
    batches = f"{result['pairs_batches']} + {result['triples_batches']} batches"
    lines.append(
        f"{'epoch, from the medians':28}{result['epoch_seconds']:10.1f} s   {batches}, peak memory "
        f"{result['peak_rss_mb']:.0f} MB"
    )
    if "synthetic" in result:
        large = result["synthetic"]
        lines.append(
            f"synthetic, {large['nodes']} nodes, {large['edges']} edges: built in {large['build_seconds']:.1f} s (peak "
            f"{large['build_peak_mb']:.0f} MB), propagation in {large['propagation_seconds']:.1f} s (peak "
            f"{large['propagation_peak_mb']:.0f} MB)"
        )
    return "\n".join(lines)
