from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from graphrec.graphs.relational import relational_graph
from graphrec.layers.aggregators import Aggregator
from graphrec.layers.receptive import layer_rows
from graphrec.training import knowledge_benchmark
from graphrec.training.knowledge_benchmark import benchmark, plain_layers, synthetic_graph, table
from tests.models.planted_kg import planted_kg


def here(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    found = work(*arguments)
    return {key: [x.numpy() for x in value] if key == "probe" else value for key, value in found.items()}


def test_every_measure_is_there_and_gradients_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(knowledge_benchmark, "_apart", here)
    monkeypatch.setattr(knowledge_benchmark, "_large", lambda *given: {"edges": 7})
    found = benchmark(planted_kg(), dim=8, layer_dims=[8, 4], steps=1, plain_steps=1, threads=1)
    for name in (
        "propagation",
        "plain_propagation",
        "fixed_propagation",
        "pairs_step",
        "triples_step",
        "attention_refresh",
    ):
        assert found[name]["median"] > 0
    assert found["edges"] == 3416 and found["synthetic"] == {"edges": 7}
    assert found["propagation_gradient_error"] < 1e-4 and found["fixed_propagation_gradient_error"] < 1e-4
    steps = [
        found[f"{name}_batches"] * found[key]["median"] / 1e3
        for name, key in (("pairs", "pairs_step"), ("triples", "triples_step"), ("attention", "attention_refresh"))
    ]
    assert found["epoch_seconds"] == pytest.approx(sum(steps))
    shown = table({name: value for name, value in found.items() if name != "synthetic"})
    assert "edge by edge" in shown and "epoch" in shown
    assert torch.get_num_threads() == threads


def test_the_plain_form_computes_the_same() -> None:
    graph = relational_graph(synthetic_graph(300, 60, relations=3, users=4), ("user", "interacts", "item"), "kgat")
    torch.manual_seed(0)
    matrix = graph.adjacency.with_values(torch.rand(len(graph), dtype=torch.float64))
    assert matrix.values is not None
    layers = [Aggregator("bi", 5, 4).double(), Aggregator("bi", 4, 3).double()]
    x = torch.randn(graph.num_nodes, 5, dtype=torch.float64)
    plain = plain_layers(graph.heads(), graph.tails(), matrix.values, x, layers)
    for ours, theirs in zip(layer_rows(matrix, [x], layers), plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_synthetic_graph_has_hubs_and_is_the_same_by_seed() -> None:
    one, same, other = (synthetic_graph(20_000, 1_000, users=10, seed=seed) for seed in (0, 0, 1))
    kind = ("item", "related", "entity")
    assert torch.equal(one[kind].edge_index, same[kind].edge_index)
    assert not torch.equal(one[kind].edge_index, other[kind].edge_index)
    degree = one[kind].edge_index[1].bincount(minlength=900)
    assert int(one[kind].edge_index.max(1).values[1]) < 900 and degree[:90].sum() > 3 * degree[450:540].sum()
