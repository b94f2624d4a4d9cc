"""Completion: ranks against a loop over triples, PyKEEN's evaluator and ogb's, and what is held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation.completion import ScoresTriples, evaluate_completion
from graphrec.evaluation.held_out import HeldOut, hold_out_triples, numbered_triples
from graphrec.evaluation.ranks import Ranks, hits_above, rank_metrics, ranks_among
from graphrec.graphs.relational import RelationalGraph, knowledge_edge_types, relational_graph
from graphrec.layers.kge import DistMult
from graphrec.models import BPRMF, CFKG, CKE, KCAN, KGAT, GraphRecommender
from tests.models.conformance import trained
from tests.models.planted_kg import planted_kg, tiny_kg

Facts = set[tuple[int, int, int]]


@dataclass
class Whole:
    """A scorer of triples with whole-numbered tables, so that many scores are equal."""

    knowledge: RelationalGraph
    nodes: Tensor
    vectors: Tensor

    @classmethod
    def drawn(cls, knowledge: RelationalGraph, width: int = 3) -> Whole:
        stream = torch.Generator().manual_seed(1)
        nodes = torch.randint(-2, 3, (knowledge.num_nodes, width), generator=stream)
        return cls(knowledge, nodes.float(), torch.randint(-1, 2, (knowledge.num_relations, width)).float())

    def score_triples(self, heads: Tensor | None, relations: Tensor, tails: Tensor | None) -> Tensor:
        tables, scorer = {"vectors": self.vectors}, DistMult()
        if heads is None:
            assert tails is not None
            return scorer.score_all(self.nodes[tails], relations, self.nodes, tables, missing="head")
        if tails is None:
            return scorer.score_all(self.nodes[heads], relations, self.nodes, tables, missing="tail")
        return scorer(self.nodes[heads], relations, self.nodes[tails], tables)


def scorer_of(held: HeldOut, convention: str) -> Whole:
    training = held.training
    graph = training.graph(edge_types=[training.target, *knowledge_edge_types(training.tables)])
    return Whole.drawn(relational_graph(graph, training.target, convention))


def facts_of(graph: RelationalGraph, data: RecDataset) -> Facts:
    return set(zip(*(column.tolist() for column in numbered_triples(graph, data)), strict=True))


def by_loop(model: Whole, held: HeldOut, side: str, filtered: bool, ties: str) -> list[float]:
    """Ranks by the definition, one candidate at a time."""
    graph = model.knowledge
    facts = facts_of(graph, held.data)
    candidates = [
        node for name in ("item", "entity") for node in range(graph.nodes(name).start, graph.nodes(name).stop)
    ]
    ranks = []
    for h, r, t in zip(*(column.tolist() for column in numbered_triples(graph, held.data, held.edges)), strict=True):

        def score(h: int, t: int, r: int = r) -> float:
            return float((model.nodes[h] * model.vectors[r] * model.nodes[t]).sum())

        better, equal = 0, 0
        for node in candidates:
            ends = (h, node) if side == "tail" else (node, t)
            if ends == (h, t) or (filtered and (ends[0], r, ends[1]) in facts):
                continue
            better += score(*ends) > score(h, t)
            equal += score(*ends) == score(h, t)
        ranks.append(1 + better + {"optimistic": 0.0, "realistic": 0.5, "pessimistic": 1.0}[ties] * equal)
    return ranks


@pytest.mark.parametrize("convention", ["directed", "kgat", "kcan"])
def test_ranks_are_those_of_a_loop(convention: str) -> None:
    held = hold_out_triples(tiny_kg(), 0.3, seed=1)
    model = scorer_of(held, convention)
    assert isinstance(model, ScoresTriples)
    for ties in ("realistic", "optimistic", "pessimistic"):
        found = evaluate_completion(model, held, ties=ties, ks=(1, 2, 5), block=4)
        for kind, prefix in (("filtered", ""), ("raw", "raw/")):
            both = []
            for side in ("head", "tail"):
                expected = by_loop(model, held, side, kind == "filtered", ties)
                assert sorted(found.ranks[kind, side].of(ties).tolist()) == sorted(expected)
                assert found[f"{prefix}{side}/mean_rank"] == pytest.approx(np.mean(expected))
                both += expected
            assert found[f"{prefix}mrr"] == pytest.approx(np.mean(1 / np.array(both)))
            assert found[f"{prefix}mean_rank"] == pytest.approx(np.mean(both))
            for k in (1, 2, 5):
                assert found[f"{prefix}hits@{k}"] == pytest.approx(np.mean(np.array(both) <= k))
    assert found.num_candidates == 22
    assert "22 nodes" in repr(found) and found.to_dict()["kg/mrr"] == found["mrr"]


def test_blocks_and_sides_change_nothing() -> None:
    held = hold_out_triples(planted_kg(), 0.2)
    model = scorer_of(held, "cfkg")
    whole, pieces = evaluate_completion(model, held), evaluate_completion(model, held, block=7)
    assert whole.metrics == pieces.metrics
    tails = evaluate_completion(model, held, sides=("tail",))
    assert tails["mrr"] == whole["tail/mrr"] and "head/mrr" not in tails
    with pytest.raises(KeyError, match="mrr"):
        whole["mmr"]


def test_metrics_are_those_of_pykeen() -> None:
    evaluation = pytest.importorskip("pykeen.evaluation", reason="pykeen is not installed")
    from pykeen.models import DistMult as Theirs
    from pykeen.triples import CoreTriplesFactory

    held = hold_out_triples(planted_kg(), 0.3, seed=2)
    model = scorer_of(held, "directed")
    graph = model.knowledge
    known = torch.stack(numbered_triples(graph, held.training), 1)
    asked = torch.stack(numbered_triples(graph, held.data, held.edges), 1)
    factory = CoreTriplesFactory(known, num_entities=graph.num_nodes, num_relations=graph.num_relations)
    theirs = Theirs(triples_factory=factory, embedding_dim=3, random_seed=0)
    theirs.entity_representations[0]._embeddings.weight.data = model.nodes.clone()
    theirs.relation_representations[0]._embeddings.weight.data = model.vectors.clone()
    filtered = evaluation.RankBasedEvaluator().evaluate(
        theirs, asked, batch_size=32, use_tqdm=False, additional_filter_triples=[known]
    )
    # With filtered=False its evaluate() withholds the true scores that its evaluator asks for: they are given here.
    evaluator = evaluation.RankBasedEvaluator(filtered=False)
    for side, column, score in (("head", 0, theirs.score_h), ("tail", 2, theirs.score_t)):
        scores = score(asked[:, 1:] if side == "head" else asked[:, :2]).detach()
        evaluator.process_scores_(asked, side, scores, scores.gather(1, asked[:, column, None]))
    for result, prefix in ((filtered, ""), (evaluator.finalize(), "raw/")):
        for ties in ("realistic", "optimistic", "pessimistic"):
            found = evaluate_completion(model, held, ties=ties, ks=(1, 3, 5, 10))
            for side in ("head", "tail", "both"):
                own = prefix if side == "both" else f"{prefix}{side}/"
                for key, name in (("mrr", "inverse_harmonic_mean_rank"), ("mean_rank", "arithmetic_mean_rank")):
                    expected = result.get_metric(f"{side}.{ties}.{name}")
                    assert found[f"{own}{key}"] == pytest.approx(expected, rel=1e-6), (side, ties, key)
                for k in (1, 3, 5, 10):
                    expected = result.get_metric(f"{side}.{ties}.hits_at_{k}")
                    assert found[f"{own}hits@{k}"] == pytest.approx(expected, rel=1e-6), (side, ties, k)


def ogb_evaluator(name: str) -> object:
    return pytest.importorskip("ogb.linkproppred", reason="ogb is not installed").Evaluator(name)


@pytest.mark.parametrize("name", ["ogbl-wikikg2", "ogbl-biokg", "ogbl-citation2"])
def test_ranks_among_given_negatives_are_those_of_ogb(name: str) -> None:
    stream = torch.Generator().manual_seed(0)
    positive = torch.randint(0, 40, (60,), generator=stream).float()
    negative = torch.randint(0, 40, (60, 25), generator=stream).float()
    theirs = ogb_evaluator(name).eval({"y_pred_pos": positive, "y_pred_neg": negative})  # type: ignore[attr-defined]
    found = rank_metrics(ranks_among(positive, negative).of("realistic"))
    assert found["mrr"] == pytest.approx(float(theirs["mrr_list"].mean()))
    for k in (1, 3, 10):
        assert found[f"hits@{k}"] == pytest.approx(float(theirs[f"hits@{k}_list"].mean()))


@pytest.mark.parametrize("name", ["ogbl-collab", "ogbl-ddi", "ogbl-ppa"])
@pytest.mark.parametrize("count", [10, 400])
def test_hits_among_shared_negatives_are_those_of_ogb(name: str, count: int) -> None:
    stream = torch.Generator().manual_seed(0)
    positive = torch.randint(0, 300, (80,), generator=stream).float()
    negative = torch.randint(0, 300, (count,), generator=stream).float()
    evaluator = ogb_evaluator(name)
    k = evaluator.K  # type: ignore[attr-defined]
    theirs = evaluator.eval({"y_pred_pos": positive, "y_pred_neg": negative})  # type: ignore[attr-defined]
    assert hits_above(positive, negative, k) == pytest.approx(theirs[f"hits@{k}"])


def test_held_out_triples_leave_everything_known() -> None:
    data = planted_kg()
    held = hold_out_triples(data, 0.3, seed=4)
    graph = relational_graph(data.graph(edge_types=list(data.tables)), data.target, "directed")
    everything, kept = facts_of(graph, data), facts_of(graph, held.training)
    out = set(zip(*(x.tolist() for x in numbered_triples(graph, data, held.edges)), strict=True))
    assert kept | out == everything and not kept & out
    assert len(out) == len(held) and 0.15 * len(everything) < len(out) < 0.35 * len(everything)
    ends = {node for h, _, t in kept for node in (h, t)}
    assert {node for h, _, t in out for node in (h, t)} <= ends
    assert {r for _, r, _ in out} <= {r for _, r, _ in kept}
    assert len(held.training.tables[data.target]) == len(data.tables[data.target])
    again = hold_out_triples(data, 0.3, seed=4)
    assert all(np.array_equal(again.edges[kind], ids) for kind, ids in held.edges.items())
    assert any(not np.array_equal(hold_out_triples(data, 0.3, seed=5).edges[k], ids) for k, ids in held.edges.items())


def test_a_triple_is_held_out_whatever_other_triples_there_are() -> None:
    data = planted_kg()
    kind = ("item", "related", "entity")
    assert kind in data.tables
    held = hold_out_triples(data, 0.2).edges[kind]
    removed = data.tables[kind].edge_id[::7]
    fewer = hold_out_triples(data.without({kind: removed}), 0.2).edges[kind]
    # Only what had its last other triple removed may have gone back to training.
    assert set(fewer) <= set(held)
    assert len(fewer) > 0.8 * len(set(held) - set(removed))


@pytest.mark.parametrize(
    "model_class, hparams", [(CFKG, {}), (CKE, {}), (KCAN, {"triple_batch_size": 128}), (KGAT, {})]
)
def test_models_with_triples_score_them_by_the_numbers_of_their_graph(
    model_class: type[GraphRecommender], hparams: dict[str, int]
) -> None:
    """Held-out triples found in the model's own numbers score alike in all three forms, and training lifts them."""
    held = hold_out_triples(planted_kg(), 0.1, seed=1)
    model = model_class(held.training, dim=8, lr=2e-2, **hparams).eval()
    assert isinstance(model, ScoresTriples)
    heads, relations, tails = numbered_triples(model.knowledge, held.data, held.edges)
    with torch.no_grad():
        single = model.score_triples(heads, relations, tails)
        by_tail, by_head = model.score_triples(heads, relations, None), model.score_triples(None, relations, tails)
    assert by_tail.shape == by_head.shape == (len(held), model.knowledge.num_nodes)
    rows = torch.arange(len(held))
    torch.testing.assert_close(by_tail[rows, tails], single, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_head[rows, heads], single, rtol=1e-4, atol=1e-5)
    before = evaluate_completion(model, held, sides=("tail",))
    after = evaluate_completion(trained(model, 6), held, sides=("tail",))
    assert after["mrr"] > before["mrr"] + 0.05


def test_what_cannot_be_evaluated_is_refused() -> None:
    data = planted_kg()
    held = hold_out_triples(data, 0.2)
    with pytest.raises(InputError, match="no method score_triples"):
        evaluate_completion(BPRMF(held.training, dim=4), held)
    with pytest.raises(InputError, match=r"share must lie in \(0, 1\)"):
        hold_out_triples(data, 1.0)
    with pytest.raises(InputError, match="can be held out"):
        hold_out_triples(data, 1e-9)
    model = scorer_of(held, "directed")
    with pytest.raises(InputError, match="sides among head and tail"):
        evaluate_completion(model, held, sides=("relation",))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="policy for equal scores"):
        evaluate_completion(model, held, ties="random")  # type: ignore[arg-type]
    model.nodes[3] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        evaluate_completion(model, held)
    other = hold_out_triples(tiny_kg(), 0.3)
    with pytest.raises(InputError, match=r"the graph has \d+ (item|entity) nodes"):
        evaluate_completion(model, other)
    builder = Builder()
    builder.interactions(pd.DataFrame({"user": [0, 1], "item": [0, 1]}), user="user", item="item")
    with pytest.raises(InputError, match="no triples"):
        hold_out_triples(builder.build(), 0.5)
    with pytest.raises(InputError, match="must be"):
        ranks_among(torch.zeros(3), torch.zeros(2, 4))
    with pytest.raises(InputError, match="must be vectors"):
        hits_above(torch.zeros(3, 1), torch.zeros(2), 1)
    assert Ranks(torch.tensor([1]), torch.tensor([4])).of("realistic").item() == 2.5
