"""Sharded: the model contract, shards apart, aggregators."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphrec
from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models import BPRMF, LightGCN, resolve
from graphrec.models.base import Encoded, GraphInputs, GraphRecommender
from graphrec.models.deletion import without_edges
from graphrec.models.shard_aggregators import Attention, MeanOfScores, WeightedScores, standardised
from graphrec.models.shard_assignment import keyed_assignment, raw_keys, with_assignment
from graphrec.models.shard_bases import base_inputs
from graphrec.models.sharded import Sharded
from tests.models.conformance import ModelConformance, scores, trained
from tests.models.planted import planted

SMALL = {"dim": 8, "num_layers": 2, "lr": 0.05, "batch_size": 256}


class ShardedConformance(ModelConformance):
    model_class = Sharded

    def test_permuted_ids_permute_the_scores(self, data: RecDataset, model: GraphRecommender) -> None:
        """The assignment is permuted with the ids: hashes of other ids would make other shards."""
        assert isinstance(model, Sharded)
        draws = np.random.default_rng(5)
        ids = {node_type: draws.permutation(size) for node_type, size in data.num_nodes.items()}
        other = self.make_data(**{f"{node_type}_ids": order for node_type, order in ids.items()})
        order = {node_type: torch.as_tensor(rows) for node_type, rows in ids.items()}
        inputs = base_inputs(other, model.hparams["base"], model.hparams["base_hparams"])
        if model.by == "interaction":
            pairs = model.graph_inputs.graph[data.target].edge_index.T.tolist()
            place = {(user, item): number for number, (user, item) in enumerate(pairs)}
            back = {kind: torch.argsort(rows) for kind, rows in order.items()}
            users, items = inputs.graph[data.target].edge_index
            old = [place[pair] for pair in zip(back["user"][users].tolist(), back["item"][items].tolist(), strict=True)]
            assignment = model.edge_shard[torch.tensor(old)]
        else:
            assignment = torch.empty_like(model.assignment)
            assignment[order[model.by]] = model.assignment
        permuted = Sharded(with_assignment(inputs, assignment, model.by), **model.hparams)
        permuted.load_state_dict(self.permuted_state(model, permuted, order))
        found = scores(permuted.eval())[order["user"]][:, order["item"]]
        torch.testing.assert_close(found, scores(model), rtol=1e-3, atol=self.tolerance)

    def test_a_weight_of_zero_is_as_good_as_no_edge(self, data: RecDataset, model: GraphRecommender) -> None:
        gone = data.pairs("train").edge_id[3:9]
        edge_id = model.graph_inputs.graph[data.target].edge_id
        weight = (~torch.isin(edge_id, torch.from_numpy(gone.astype(np.int64)))).float()
        with torch.no_grad():
            weighted = model.score(torch.arange(20), edge_weight=weight)
            deleted = without_edges(model, {data.target: edge_id[weight == 0]}).score(torch.arange(20))
        torch.testing.assert_close(weighted, deleted, rtol=1e-4, atol=1e-5)

    def test_a_run_is_saved_and_opened(self, data: RecDataset, model: GraphRecommender, tmp_path: Path) -> None:
        made = Sharded(model.graph_inputs, **model.hparams)
        run = graphrec.fit(made, data, epochs=1, select_on=None, out=tmp_path / "run", progress=False, report=False)
        opened = graphrec.Run.open(tmp_path / "run").model()
        assert torch.equal(scores(opened), scores(made))
        rec = graphrec.Recommender.from_pretrained(tmp_path / "run")
        user = data.vocabularies["user"].raw[3].item()
        listed = rec.recommend(users=[user], k=5)
        seen = set(data.pairs("train").items[slice(*data.pairs("train").indptr[3:5])].tolist())
        assert len(listed) == 5
        assert not seen & {int(item) for item in listed["item"]}
        assert run.metrics["model/shards"] == model.hparams["num_shards"]


class TestMean(ShardedConformance):
    hparams = {"base": "LightGCN", "base_hparams": SMALL, "num_shards": 2}
    epochs = 20


class TestInteractions(ShardedConformance):
    hparams = {"base": "LightGCN", "base_hparams": SMALL, "num_shards": 2, "by": "interaction"}
    epochs = 15
    margin = 0.0


class TestAttention(ShardedConformance):
    hparams = {
        "base": "LightGCN", "base_hparams": SMALL, "num_shards": 2, "by": "item", "aggregator": "attention", "lr": 0.05,
    }  # fmt: skip
    epochs = 12
    margin = -0.1


class TestWeights(ShardedConformance):
    hparams = {
        "base": "BPRMF", "base_hparams": {"dim": 8, "lr": 0.05, "batch_size": 256}, "num_shards": 2,
        "aggregator": "weights", "absent": "history", "lr": 0.02,
    }  # fmt: skip
    epochs = 5
    margin = -0.1


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return planted(num_users=60, num_items=30)


def model_of(data: RecDataset, **hparams: Any) -> Sharded:
    return Sharded(data, **{"base": "BPRMF", "base_hparams": {"dim": 4, "batch_size": 64}, "num_shards": 3, **hparams})


def test_the_name_of_a_run_finds_it() -> None:
    assert resolve("sharded") is Sharded


@pytest.mark.parametrize("by", ["user", "item", "interaction"])
def test_every_edge_is_in_one_shard_and_those_of_a_user_together(data: RecDataset, by: str) -> None:
    model = model_of(data, by=by)
    target = data.target
    listed = [shard.graph_inputs.graph[target].edge_id for shard in model.shards]
    assert torch.equal(torch.cat(listed).sort().values, model.graph_inputs.graph[target].edge_id.sort().values)
    if by != "interaction":
        ends = [shard.graph_inputs.graph[target].edge_index[0 if by == "user" else 1] for shard in model.shards]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert not torch.isin(ends[one], ends[other]).any()


def test_shards_train_on_their_own_edges_alone(data: RecDataset) -> None:
    """A step of one shard leaves every other shard's parameters as they are."""
    model = model_of(data)
    for number in range(3):
        before = copy.deepcopy(model.state_dict())
        (phase,) = model.shard_phases(number)
        own = set(model.shards[number].graph_inputs.graph[data.target].edge_id.tolist())
        batch = next(iter(phase.batches(0, randomness.generator(0, "probe"))))
        assert set(batch.edge_id.tolist()) <= own
        assert phase.optimiser is not None
        optimiser = phase.optimiser(phase.parameters)
        sum(phase.loss(batch).values()).backward()
        optimiser.step()
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert {name.split(".")[1] for name in changed} == {str(number)}


def test_initial_tables_do_not_depend_on_the_edges(data: RecDataset) -> None:
    fewer = model_of(data.without(data.interactions("train").edge_id[::2]))
    for name, tensor in model_of(data).named_parameters():
        assert torch.equal(tensor, dict(fewer.named_parameters())[name]), name


def test_assignments_by_hash_follow_the_raw_id_alone() -> None:
    one, other = planted(), planted(num_users=90)
    assert torch.equal(model_of(one).assignment[:90], model_of(other).assignment)
    words = np.array([f"u{n}" for n in range(160)])
    named = planted(user_ids=words)
    kept = dict(zip(named.vocabularies["user"].raw, model_of(named).assignment.tolist(), strict=True))
    half = planted(num_users=90, user_ids=words[:90])
    for raw, shard in zip(half.vocabularies["user"].raw, model_of(half).assignment.tolist(), strict=True):
        assert kept[raw] == shard
    assert len(raw_keys(named.vocabularies["user"]).unique()) == 160


def test_hash_shards_are_about_even_and_random_ones_are() -> None:
    keys = torch.arange(20_000)
    hashed = torch.bincount(keyed_assignment(keys, 10, "hash", 3))
    assert (hashed - 2000).abs().max() < 5 * (2000 * 0.9) ** 0.5
    assert torch.bincount(keyed_assignment(keys, 10, "random", 3)).tolist() == [2000] * 10


def test_a_mean_by_user_is_the_own_shards_score(data: RecDataset) -> None:
    model = trained(model_of(data), 2)
    found = scores(model)
    for user in (0, 7, 31):
        shard = model.shards[int(model.assignment[user])]
        with torch.no_grad():
            torch.testing.assert_close(found[user], shard.score(torch.tensor([user]))[0])


def test_a_mean_by_interaction_is_over_the_shards_that_know_the_user(data: RecDataset) -> None:
    model = trained(model_of(data, by="interaction"), 2)
    found, edges = scores(model), model.graph_inputs.graph[data.target].edge_index
    for user in (0, 7, 31):
        known = model.edge_shard[edges[0] == user].unique().tolist()
        with torch.no_grad():
            own = torch.stack([model.shards[s].score(torch.tensor([user]))[0] for s in known]).mean(0)
        torch.testing.assert_close(found[user], own)


def test_standardised_scores_have_mean_zero_and_variance_one() -> None:
    stream = torch.Generator().manual_seed(0)
    table = Encoded(torch.randn(5, 3, generator=stream) * 7, torch.randn(40, 3, generator=stream) + 2)
    both = standardised(table)
    found, raw = both.users @ both.items.T, table.users @ table.items.T
    torch.testing.assert_close(found.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.var(1, correction=0), torch.ones(5))
    assert torch.equal(found.argsort(1), raw.argsort(1))


def tables(count: int = 3, dim: int = 4) -> list[Encoded]:
    stream = torch.Generator().manual_seed(0)
    return [Encoded(torch.randn(6, dim, generator=stream), torch.randn(5, dim, generator=stream)) for _ in range(count)]


def test_attention_sums_to_one_and_follows_the_shards() -> None:
    """Invariant 2 of the methods' card: permuting shards permutes the weights, and nothing else."""
    attention, given = Attention(3, 4, seed=1), tables()
    with torch.no_grad():
        attention.transform.mul_(50)
        attention.hidden["user_query"].mul_(30)
    votes = torch.ones(6, 3)
    stacked = torch.stack([table.users for table in given], 1)
    weights, _ = attention.weights(stacked, "user", None)
    torch.testing.assert_close(weights.sum(1), torch.ones(6))
    assert float(weights.detach().std()) > 0.01
    order = [2, 0, 1]
    turned = copy.deepcopy(attention)
    with torch.no_grad():
        turned.transform.copy_(attention.transform[order])
        turned.shift.copy_(attention.shift[order])
    other, _ = turned.weights(stacked[:, order], "user", None)
    torch.testing.assert_close(other, weights[:, order])
    one, two = attention(given, votes), turned([given[n] for n in order], votes)
    torch.testing.assert_close(one.users, two.users)
    torch.testing.assert_close(one.items, two.items)


def test_a_shard_without_a_say_gets_no_attention() -> None:
    attention, given = Attention(3, 4, seed=1), tables()
    votes = torch.ones(6, 3)
    votes[2, 1] = 0
    stacked = torch.stack([table.users for table in given], 1)
    weights, _ = attention.weights(stacked, "user", votes > 0)
    assert weights[2, 1] == 0
    assert (weights[:2] > 0).all()
    alone = torch.zeros(6, 3)
    alone[:, 0] = 1
    found = attention(given, alone).users
    torch.testing.assert_close(found, given[0].users @ attention.transform[0] + attention.shift[0])


def test_learned_weights_find_the_shard_that_knows() -> None:
    """One shard scores the positive highest, one at random, one the wrong way round."""
    stream = torch.Generator().manual_seed(0)
    users, items = torch.randn(30, 8, generator=stream), torch.randn(50, 8, generator=stream)
    given = [
        standardised(Encoded(users, items)),
        standardised(Encoded(torch.randn(30, 8, generator=stream), items)),
        standardised(Encoded(-users, items)),
    ]
    best = (users @ items.T).argmax(1)
    weights = WeightedScores(3)
    optimiser = torch.optim.Adam(weights.parameters(), lr=0.01)
    votes = torch.ones(30, 3)
    for _ in range(300):
        others = torch.randint(0, 50, (30, 20), generator=stream)
        terms, penalty = weights.terms(given, votes, torch.arange(30), torch.cat([best[:, None], others], 1))
        optimiser.zero_grad()
        (terms.mean() + penalty).backward()
        optimiser.step()
    found = weights.weight.detach().clamp_min(0)
    found = found / found.sum()
    assert found[0] > 0.9
    together = weights(given, votes)
    assert (together.users @ together.items.T).argmax(1).eq(best).float().mean() > 0.9


def test_weights_that_are_all_zero_count_alike() -> None:
    weights, given, votes = WeightedScores(3), tables(), torch.full((6, 3), 1 / 3)
    with torch.no_grad():
        weights.weight.zero_()
    one, other = weights(given, votes), MeanOfScores()(given, votes)
    torch.testing.assert_close(one.users @ one.items.T, other.users @ other.items.T)


def test_absent_users_are_scored_by_their_items(data: RecDataset) -> None:
    """Vectors of a shard's strangers point to the mean of its vectors of their items, as long as its own users'."""
    model = trained(model_of(data, absent="history"), 2)
    with torch.no_grad():
        ready, matrix = model._tables(None), model.graph_inputs.adjacency().to_dense()
        for number, shard in enumerate(model.shards):
            own = shard.encode()
            known = model.assignment == number
            assert torch.equal(ready[number].users[known], own.users[known])
            folded = (matrix @ own.items)[~known]
            torch.testing.assert_close(
                torch.cosine_similarity(ready[number].users[~known], folded), torch.ones(int((~known).sum()))
            )
            length = own.users[known].square().sum(1).mean().sqrt()
            torch.testing.assert_close(ready[number].users[~known].norm(dim=1), length.expand(len(folded)))


def test_whoever_stays_keeps_the_shard(data: RecDataset) -> None:
    """Also where the partition was made from data that is not there any more."""
    inputs = base_inputs(data, "LightGCN", None)
    for by in ("user", "interaction"):
        count = data.num_users if by == "user" else inputs.graph[data.target].edge_index.shape[1]
        given = torch.arange(count) % 3
        partition = "bekm" if by == "user" else "inbp"
        model = Sharded(with_assignment(inputs, given, by), partition=partition, by=by, num_shards=3)  # type: ignore[arg-type]
        left = data.without(data.interactions("train").edge_id[10:30])
        again = model.inputs_on(left)
        expected = given if by == "user" else torch.cat([given[:10], given[30:]])
        store = again.graph[data.target[0] if by == "user" else data.target]
        assert torch.equal(store.shard, expected)
        keep = np.arange(data.num_users) != 4
        if by == "user":
            fewer = data.without(data.pairs("train").edge_id[slice(*data.pairs("train").indptr[4:6])])
            from graphrec.datasets.filters import drop_nodes

            tests = fewer.interactions("test")
            fewer = fewer.without(tests.edge_id[tests.source == 4])
            smaller = drop_nodes(fewer, {"user": keep}, "gone")
            assert torch.equal(model.inputs_on(smaller, {"user": keep}).graph["user"].shard, given[keep])
    with pytest.raises(InputError, match="does not have"):
        model.shards_of_edges(torch.tensor([10_000_000]))


def test_what_cannot_be_is_refused(data: RecDataset) -> None:
    with pytest.raises(InputError, match="'attention'"):
        model_of(data, aggregator="atention")
    with pytest.raises(InputError, match="num_shards"):
        model_of(data, num_shards=0)
    with pytest.raises(InputError, match="made from the data"):
        model_of(data, partition="bekm")
    with pytest.raises(InputError, match="cuts by user"):
        model_of(data, partition="ubp", by="item")
    with pytest.raises(InputError, match="EASE cannot be the model of a shard"):
        model_of(data, base="EASE", base_hparams=None)
    with pytest.raises(InputError, match="no assignment"):
        Sharded(GraphInputs.from_dataset(data), base="BPRMF")
    with pytest.raises(InputError, match="beyond the 2"):
        Sharded(with_assignment(GraphInputs.from_dataset(data), torch.arange(60), "user"), base="BPRMF", num_shards=2)
    with pytest.raises(InputError, match="60 entries"):
        with_assignment(GraphInputs.from_dataset(data), torch.arange(7), "user")


def test_a_shard_without_edges_is_left_untrained(data: RecDataset) -> None:
    inputs = with_assignment(GraphInputs.from_dataset(data), torch.zeros(60, dtype=torch.int64), "user")
    model = Sharded(inputs, base="LightGCN", base_hparams={"dim": 4}, num_shards=2)
    initial = copy.deepcopy(model.shards[1].state_dict())
    trained(model, 1)
    assert all(torch.equal(tensor, initial[name]) for name, tensor in model.shards[1].state_dict().items())
    assert torch.isfinite(scores(model)).all()


def test_a_plain_fit_of_one_shard_is_the_plain_model(data: RecDataset) -> None:
    plain, one = LightGCN(data, **SMALL), Sharded(data, base="LightGCN", base_hparams=SMALL, num_shards=1)
    for model in (plain, one):
        graphrec.fit(model, data, epochs=3, select_on=None, progress=False)
    assert torch.equal(scores(plain), scores(one))
    assert isinstance(one.shards[0], LightGCN)
    assert not isinstance(one.shards[0], BPRMF)
