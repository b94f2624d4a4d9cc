from __future__ import annotations

import pytest
import torch

from graphrec.graphs.relational import relational_graph
from graphrec.layers.kge import TransE, TransH, TripleScorer
from graphrec.layers.triple_attention import translation_attention
from tests.models.planted_kg import tiny_kg


@pytest.mark.parametrize("scorer", [TransE(), TransH(distance="l1", normalised="all")], ids=["plain", "hyperplanes"])
@pytest.mark.parametrize("convention", ["kcan", "kgat", "directed"])
def test_equals_a_loop_and_both_directions_agree(scorer: TripleScorer, convention: str) -> None:
    graph = relational_graph(tiny_kg().graph(part="train"), ("user", "interacts", "item"), convention)
    stream = torch.Generator().manual_seed(1)
    x = torch.randn(graph.num_nodes, 4, generator=stream, dtype=torch.float64)
    shapes = scorer.shapes(graph.num_relations, 4)
    tables = {k: torch.randn(shape, generator=stream, dtype=torch.float64) for k, shape in shapes.items()}
    found = translation_attention(graph, x, scorer, tables)
    edges = zip(graph.heads(), graph.relation, graph.tails(), graph.inverse, found, strict=True)
    for head, relation, tail, inverse, value in edges:
        stated = torch.stack([tail, head] if inverse else [head, tail])
        h, t = scorer.project(x[stated], relation, tables)
        expected = (t * (h + scorer.vectors(relation, tables))).sum()
        torch.testing.assert_close(value, expected)
