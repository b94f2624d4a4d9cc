"""``graphrec benchmark``: how fast the package is on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphrec.cli.arguments import Parser
from graphrec.cli.output import print_json, table
from graphrec.errors import unknown

if TYPE_CHECKING:
    from graphrec.datasets import RecDataset


def parser() -> Parser:
    """Every option of the command."""
    shape = Parser(
        "benchmark",
        "[NAME …] [options]",
        "Measure on this machine. Names: lightgcn (products and the training step, beside the same step written "
        "plainly), spmm (the products alone), ranking (the evaluation of all users, beside implicit where that is "
        "installed), kg (KGAT's propagation beside the same written edge by edge, its attention and an epoch, and a "
        "synthetic graph of ten million triples; it needs a dataset with a knowledge graph).",
    )
    shape.add_argument("names", nargs="*", type=str, default=[], help="what to measure; none: lightgcn and ranking")
    shape.add_argument("--dataset", type=str, default="gowalla", help="whose graph: a known name, a path, or world")
    shape.add_argument(
        "--root",
        type=str | None,
        default=None,
        help="folder that holds the dataset's own folder; none: $GRAPHREC_DATA, then the user cache",
    )
    shape.add_argument("--dim", type=int, default=64, help="width of the representations")
    shape.add_argument("--num-layers", type=int, default=3, help="propagation layers of the training step")
    shape.add_argument("--batch-size", type=int, default=2048, help="examples of a training step")
    shape.add_argument("--steps", type=int, default=40, help="training steps measured")
    shape.add_argument("--plain-steps", type=int, default=8, help="steps measured of the plain form; 0 leaves it out")
    shape.add_argument("--k", type=int, default=20, help="length of the ranked lists")
    shape.add_argument("--repeats", type=int, default=5, help="times that the ranking is measured")
    shape.add_argument("--synthetic", type=bool, default=True, help="whether kg has its synthetic graph too")
    shape.add_argument("--threads", type=int, default=2, help="threads of torch")
    shape.add_argument("--seed", type=int, default=0, help="of tables and batches")
    shape.add_argument("--json", action="store_true", help="print JSON")
    return shape.polish()


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse(arguments)
    for name in options.names:
        if name not in BENCHMARKS:
            raise unknown("benchmark", name, BENCHMARKS)
    from graphrec.datasets import load

    data = load(options.dataset, root=options.root)
    found = {}
    for name in options.names or ["lightgcn", "ranking"]:
        measure, show = BENCHMARKS[name]
        found[name] = measure(data, options)
        if not options.json:
            print(f"{name}\n{show(found[name])}\n", flush=True)
    if options.json:
        print_json(found)
    return 0


def _lightgcn(data: RecDataset, options: Any) -> Mapping[str, Any]:
    return _layers(data, options, options.steps, options.plain_steps)


def _spmm(data: RecDataset, options: Any) -> Mapping[str, Any]:
    measured = _layers(data, options, 1, 0)
    sizes = ("users", "items", "edges", "dim", "threads", "torch", "peak_rss_mb")
    return {name: value for name, value in measured.items() if name in sizes or name.startswith("spmm_")}


def _layers(data: RecDataset, options: Any, steps: int, plain_steps: int) -> Mapping[str, Any]:
    from graphrec.layers.benchmark import benchmark
    from graphrec.models.base import GraphInputs

    return benchmark(
        GraphInputs.from_dataset(data).adjacency(),
        dim=options.dim,
        num_layers=options.num_layers,
        batch_size=options.batch_size,
        steps=steps,
        plain_steps=plain_steps,
        threads=options.threads,
        seed=options.seed,
    )


def _ranking(data: RecDataset, options: Any) -> Mapping[str, Any]:
    from graphrec.evaluation.benchmark import benchmark

    return benchmark(
        data, dim=options.dim, k=options.k, repeats=options.repeats, threads=options.threads, seed=options.seed
    )


def _kg(data: RecDataset, options: Any) -> Mapping[str, Any]:
    from graphrec.training.knowledge_benchmark import benchmark

    return benchmark(
        data,
        dim=options.dim,
        layer_dims=[options.dim >> layer for layer in (0, 1, 2)][: options.num_layers],
        steps=options.steps,
        plain_steps=options.plain_steps,
        synthetic=options.synthetic,
        threads=options.threads,
        seed=options.seed,
    )


def _kg_text(found: Mapping[str, Any]) -> str:
    from graphrec.training.knowledge_benchmark import table as lines

    return lines(found)


def _layers_text(found: Mapping[str, Any]) -> str:
    from graphrec.layers.benchmark import table as lines

    return lines(found)


def _plain_text(found: Mapping[str, Any]) -> str:
    rows = [(name, value) for name, value in found.items() if not isinstance(value, Mapping)]
    timed = [(f"{name} ms", value["median"]) for name, value in found.items() if isinstance(value, Mapping)]
    return table(["measure", "value"], [*rows, *timed], ["value"])


Measure = Callable[["RecDataset", Any], Mapping[str, Any]]
BENCHMARKS: Mapping[str, tuple[Measure, Callable[[Mapping[str, Any]], str]]] = {
    "lightgcn": (_lightgcn, _layers_text),
    "spmm": (_spmm, _plain_text),
    "ranking": (_ranking, _plain_text),
    "kg": (_kg, _kg_text),
}
