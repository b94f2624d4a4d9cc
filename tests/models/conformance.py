"""What every model inherits: one suite for the contract of GraphRecommender.

A model's test class sets ``model_class`` and, where its defaults are too slow or too large for a dataset of 160 users,
``hparams`` and ``epochs``.
"""

from __future__ import annotations

import copy
import inspect
import json
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import graphrec
from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.graphs.relational import RelationalGraph
from graphrec.models import GraphRecommender, Popularity
from graphrec.models.base import GraphInputs
from tests.models.planted import planted
from tests.models.planted_kg import RELATIONS, planted_kg


def trained(model: GraphRecommender, epochs: int, seed: int = 0) -> GraphRecommender:
    """Train by the contract alone: phases in order, every batch, plain steps; or solve."""
    phases = model.phases()
    if not phases:
        model.solve()
        return model.eval()
    optimisers = [phase.optimiser(phase.parameters) if phase.optimiser else None for phase in phases]
    model.train()
    for epoch in range(epochs):
        for phase, optimiser in zip(phases, optimisers, strict=True):
            stream = randomness.generator(seed, f"batches/{phase.name}", epoch)
            for batch in phase.batches(epoch, stream):
                if optimiser is None:
                    with torch.no_grad():
                        phase.loss(batch)
                    continue
                optimiser.zero_grad()
                sum(phase.loss(batch).values()).backward()
                optimiser.step()
    return model.eval()


def scores(model: GraphRecommender) -> torch.Tensor:
    """All scores, without gradients."""
    with torch.no_grad():
        return model.score(torch.arange(model.num_users))


class ModelConformance:
    """The suite; see the module."""

    model_class: ClassVar[type[GraphRecommender]]
    hparams: ClassVar[dict[str, Any]] = {}
    epochs: ClassVar[int] = 30
    # How far above popularity's recall the model has to come on the planted data.
    margin: ClassVar[float] = 0.1
    tolerance: ClassVar[float] = 1e-5

    @pytest.fixture(scope="class")
    def data(self) -> RecDataset:
        return self.make_data()

    def make_data(self, **ids: np.ndarray) -> RecDataset:
        """The planted data; ``user_ids`` and ``item_ids`` give its raw ids."""
        return planted(**ids)

    @pytest.fixture(scope="class")
    def model(self, data: RecDataset) -> GraphRecommender:
        return trained(self.make(data), self.epochs)

    def make(self, inputs: RecDataset | GraphInputs) -> GraphRecommender:
        return self.model_class(inputs, **self.hparams)

    def test_hparams_are_the_signature_and_json(self, model: GraphRecommender) -> None:
        names = set(inspect.signature(self.model_class.__init__).parameters) - {"self", "inputs"}
        assert set(model.hparams) == names
        assert json.loads(json.dumps(model.hparams)) == model.hparams

    def test_scores_agree_between_the_three_forms(self, model: GraphRecommender) -> None:
        users = torch.tensor([3, 0, 7])
        with torch.no_grad():
            everything = model.score(users)
            candidates = torch.tensor([5, 1, 30])
            own = torch.tensor([[5, 1], [2, 9], [0, 4]])
            assert everything.shape == (3, model.num_items)
            torch.testing.assert_close(model.score(users, candidates), everything[:, candidates], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(model.score(users, own), everything.gather(1, own), rtol=1e-4, atol=1e-6)
        assert torch.isfinite(everything).all()

    def test_gradients_reach_every_parameter(self, data: RecDataset) -> None:
        model = self.make(data)
        phases = model.phases()
        if not phases:
            assert not list(model.parameters())
            return
        model.train()
        for phase in phases:
            stream = randomness.generator(0, f"batches/{phase.name}")
            for batch in phase.batches(0, stream):
                if phase.parameters:
                    sum(phase.loss(batch).values()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_training_lowers_the_loss(self, data: RecDataset) -> None:
        model = self.make(data)
        if not model.phases():
            pytest.skip("a closed form has no training loss")

        def total() -> float:
            sums = 0.0
            with torch.no_grad():
                for phase in model.eval().phases():
                    for batch in phase.batches(0, randomness.generator(0, "probe")):
                        sums += float(sum(phase.loss(batch).values()))
            return sums

        before = total()
        trained(model, self.epochs)
        assert total() < before

    def test_a_weight_of_zero_takes_an_example_out(self, data: RecDataset) -> None:
        import dataclasses

        model = self.make(data)
        if not model.phases():
            pytest.skip("a closed form has no batches")
        model.eval()
        for phase in model.phases():
            if not phase.parameters:
                continue
            batch = next(iter(phase.batches(0, randomness.generator(0, "probe"))))
            silent = dataclasses.replace(batch, weight=torch.zeros_like(batch.weight))
            assert float(sum(phase.loss(silent).values()).detach()) == 0.0

    def test_same_seed_same_numbers(self, data: RecDataset, model: GraphRecommender) -> None:
        again = trained(self.make(data), self.epochs)
        assert torch.equal(scores(model), scores(again))

    def test_better_than_popularity(self, data: RecDataset, model: GraphRecommender) -> None:
        if self.model_class is Popularity:
            pytest.skip("this is popularity")
        floor = graphrec.evaluate(trained(Popularity(data), 0), data, ks=(10,))["recall@10"]
        assert graphrec.evaluate(model, data, ks=(10,))["recall@10"] > floor + self.margin

    def test_state_survives_a_round_trip(self, data: RecDataset, model: GraphRecommender) -> None:
        fresh = self.make(model.graph_inputs)
        fresh.load_state_dict(copy.deepcopy(model.state_dict()))
        assert torch.equal(scores(fresh.eval()), scores(model))

    def permuted_state(
        self, model: GraphRecommender, permuted: GraphRecommender, order: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The state of ``model`` for a model of the data under other ids; row i of a node type goes to ``order[i]``.

        A model with buffers that follow its edges moves them too.
        """
        state = copy.deepcopy(model.state_dict())
        for name, node_type in model.row_parameters.items():
            rows = state[name].clone()
            rows[order[node_type]] = state[name]
            state[name] = rows
        return state

    def test_permuted_ids_permute_the_scores(self, data: RecDataset, model: GraphRecommender) -> None:
        draws = np.random.default_rng(5)
        ids = {node_type: draws.permutation(size) for node_type, size in data.num_nodes.items()}
        permuted = self.make(self.make_data(**{f"{node_type}_ids": order for node_type, order in ids.items()}))
        order = {node_type: torch.as_tensor(rows) for node_type, rows in ids.items()}
        if model.phases():
            permuted.load_state_dict(self.permuted_state(model, permuted, order))
            permuted.eval()
        else:
            trained(permuted, 0)
        expected = scores(model)
        found = scores(permuted)[order["user"]][:, order["item"]]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=self.tolerance)

    def test_an_item_without_edges_changes_nothing_else(self, data: RecDataset) -> None:
        """A user whose edges are all removed no longer tells the model anything: two such users score alike."""
        if not self.model_class.folds_in() and not self.model_class.encodes():
            pytest.skip("scores rest on more than a history or a vector")
        pairs = data.pairs("train")
        removed = pairs.edge_id[pairs.indptr[0] : pairs.indptr[1]]
        model = trained(self.make(data.without(removed)), min(self.epochs, 2))
        assert torch.isfinite(scores(model)).all()
        assert int(model.graph_inputs.adjacency().degrees(0)[0]) == 0

    def test_history_of_a_known_user_gives_the_known_scores(self, data: RecDataset, model: GraphRecommender) -> None:
        if not self.model_class.folds_in():
            pytest.skip("no fold-in")
        pairs = data.pairs("train")
        history = torch.as_tensor(pairs.items[pairs.indptr[4] : pairs.indptr[5]].astype(np.int64))
        with torch.no_grad():
            torch.testing.assert_close(
                model.score_history(history), model.score(torch.tensor([4]))[0], rtol=1e-4, atol=1e-6
            )

    def test_derived_names_what_is_there(self, model: GraphRecommender) -> None:
        for name, derived in model.derived().items():
            assert hasattr(model, name)
            assert derived.edge_types
            derived.rebuild()

    @pytest.mark.cuda
    def test_cuda_gives_the_same_scores(self, model: GraphRecommender) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        expected = scores(model)
        moved = copy.deepcopy(model).to("cuda").eval()
        with torch.no_grad():
            found = moved.score(torch.arange(model.num_users, device="cuda")).cpu()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def edges_follow(values: torch.Tensor, old: RelationalGraph, new: RelationalGraph) -> torch.Tensor:
    """Values of the edges of one relational graph in the order of another that has the same edge ids."""

    def keys(graph: RelationalGraph) -> torch.Tensor:
        largest = int(graph.edge_id.max()) + 1
        return (graph.edge_type * largest + graph.edge_id) * 2 + graph.inverse

    moved = values.clone()
    moved[keys(new).argsort()] = values[keys(old).argsort()]
    return moved


class KnowledgeConformance(ModelConformance):
    """The same suite on data with a knowledge graph."""

    def make_data(self, **ids: Any) -> RecDataset:
        return planted_kg(**ids)

    def test_renumbered_relations_leave_scores_triples_and_attention(
        self, data: RecDataset, model: GraphRecommender
    ) -> None:
        names = {name: f"{number * 2 % len(RELATIONS)} {name}" for number, name in enumerate(RELATIONS)}
        renamed = self.make_data(relation_names=names)
        other = self.make(renamed)
        old, new = relations_of(model), relations_of(other)
        numbers = {title: number for number, title in enumerate(titles(new, renamed))}
        place = torch.tensor([numbers[names.get(name, name), way] for name, way in titles(old, data)])
        assert sorted(place.tolist()) == list(range(len(old.relations)))
        assert not torch.equal(place, torch.arange(len(place)))
        # No two relations join the same nodes of this data, so that edges and what is kept of them lie where they lay.
        assert torch.equal(old.heads(), new.heads()) and torch.equal(old.tails(), new.tails())
        assert torch.equal(place[old.relation], new.relation)

        expected = seen(model, old.relation)
        other.load_state_dict(self.renumbered_state(model, place))
        for one, same in zip(expected, seen(other.eval(), new.relation), strict=True):
            torch.testing.assert_close(same, one, rtol=1e-3, atol=self.tolerance)
        # And it matters which relation has which parameters.
        other.load_state_dict({**self.renumbered_state(model, place), **dict(model.named_parameters())})
        assert any(
            not torch.allclose(same, one, rtol=1e-3, atol=self.tolerance)
            for one, same in zip(expected, seen(other, new.relation), strict=True)
        )

    def renumbered_state(self, model: GraphRecommender, place: torch.Tensor) -> dict[str, torch.Tensor]:
        """The state of ``model`` for relations of other numbers; relation i becomes ``place[i]``.

        Parameters whose names say so have a row for each relation, KGIN's logits a column; KGCN's lists hold numbers.
        """
        state = copy.deepcopy(model.state_dict())
        for name, values in state.items():
            if name.startswith("relation"):  # the interactions, which come last, may have none
                state[name] = torch.empty_like(values).index_copy_(0, place[: len(values)], values)
            elif name == "intent_logits":
                state[name] = torch.empty_like(values).index_copy_(1, place, values)
            elif name == "neighbours" and values.dim() == 3:
                listed = values[..., 1]
                state[name] = torch.stack([values[..., 0], place[listed.clamp_min(0)].where(listed >= 0, -1)], -1)
        return state


def titles(graph: RelationalGraph, data: RecDataset) -> list[tuple[str, bool]]:
    """The names of a graph's relations, and whether they run backwards."""
    names = data.relations.raw
    return [(str(names[made.code]) if made.code >= 0 else made.title(), made.inverse) for made in graph.relations]


def relations_of(model: GraphRecommender) -> RelationalGraph:
    """The typed edges of a model."""
    graph = model.knowledge
    assert isinstance(graph, RelationalGraph)
    return graph


@torch.no_grad()
def seen(model: GraphRecommender, relation: torch.Tensor) -> list[torch.Tensor]:
    """All that a model says: its scores, those of the graph's triples, and the attention that it would refresh to."""
    found, graph = [scores(model)], relations_of(model)
    if hasattr(model, "score_triples"):
        found.append(model.score_triples(graph.heads(), relation, graph.tails()))
    if "attention" in model.derived():
        found.append(model.derived()["attention"].rebuild())
    return found
