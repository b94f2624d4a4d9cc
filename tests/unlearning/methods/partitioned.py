"""What every method keeps that trains in shards: exactness, untouched shards, resuming, state for later requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from graphrec.datasets import RecDataset
from graphrec.errors import InputError
from graphrec.models import BPRMF, LightGCN
from graphrec.models.base import GraphRecommender
from graphrec.models.sharded import Sharded
from graphrec.runs.manifest import write_contents
from graphrec.unlearning import ForgetRequest, remaining, resolve
from graphrec.unlearning.methods.base import Prepared, Task, Unlearner
from graphrec.unlearning.shards import STATE, slice_file
from tests.models.planted import planted
from tests.unlearning.methods.conformance import MethodConformance, scores

HPARAMS = {"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3}
FIT = {"epochs": 6, "progress": False, "select_on": None}


def prepared_by(method: Unlearner, data: RecDataset, folder: Path, *, base: GraphRecommender | None = None) -> Prepared:
    """Prepared with the state's files in ``folder / "state"``."""
    model = LightGCN(data, **HPARAMS) if base is None else base
    work = folder / "work"
    work.mkdir(parents=True)
    made = method.prepare(model, data, seed=3, fit=FIT, folder=work)
    write_contents(folder / "state", made.files)
    return made


def task_of(data: RecDataset, made: Prepared, request: ForgetRequest, folder: Path, **more: Any) -> Task:
    found = resolve(request, data)
    left = remaining(data, found)
    return Task(made.model, data, left, found, seed=3, fit=FIT, state=folder / "state", **more)


def same_parameters(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = dict(one.named_parameters()), dict(other.named_parameters())
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def users_of_shard(model: GraphRecommender, shard: int, count: int) -> list[int]:
    """Codes of some users all of whose interactions are in one shard."""
    assert isinstance(model, Sharded)
    return torch.nonzero(model.assignment == shard)[:count, 0].tolist()


class PartitionedConformance(MethodConformance):
    """``method`` as in :class:`MethodConformance`; ``exact`` the same method with ``partition="hash"``."""

    exact: ClassVar[Unlearner]

    @pytest.fixture(scope="class")
    def from_data(self, data: RecDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Path]:
        folder = tmp_path_factory.mktemp("from_data")
        return prepared_by(self.method, data, folder), folder

    def request_of(self, data: RecDataset, codes: list[int]) -> ForgetRequest:
        return ForgetRequest(users=tuple(data.vocabularies["user"].raw[codes].tolist()))

    def test_a_shard_trained_anew_is_one_that_never_saw_the_data(self, data: RecDataset, tmp_path: Path) -> None:
        """Invariant 1 of the methods' card, with the aggregator: prepared without the data, every bit the same."""
        made = prepared_by(self.exact, data, tmp_path / "with")
        task = task_of(data, made, self.request_of(data, [2, 5, 77]), tmp_path / "with")
        outcome = self.exact.unlearn(task)
        never = prepared_by(self.exact, task.remaining, tmp_path / "without", base=LightGCN(task.remaining, **HPARAMS))
        assert outcome.exactness == "exact"
        assert same_parameters(outcome.model, never.model)
        assert torch.equal(scores(outcome.model), scores(never.model))
        assert outcome.files.keys() == never.files.keys()
        write_contents(tmp_path / "carried", outcome.files)
        for name in never.files:
            if name == STATE:
                assert (tmp_path / "carried" / name).read_text() == (tmp_path / "without/state" / name).read_text()

    def test_shards_that_hold_nothing_of_it_stay_bit_for_bit(
        self, data: RecDataset, from_data: tuple[Prepared, Path]
    ) -> None:
        made, folder = from_data
        assert isinstance(made.model, Sharded)
        pairs = data.interactions("train")
        edge_id = pairs.edge_id[[7]]
        request = ForgetRequest(edges={"user__interacts__item": tuple(edge_id.tolist())})
        outcome = self.method.unlearn(task_of(data, made, request, folder))
        assert isinstance(outcome.model, Sharded)
        touched = int(made.model.shards_of_edges(torch.from_numpy(edge_id.astype(np.int64)))[0])
        assert outcome.facts["shards_touched"] == 1
        for number in range(made.model.num_shards):
            same = same_parameters(made.model.shards[number], outcome.model.shards[number])
            assert same == (number != touched), number

    def test_only_what_is_made_of_ids_alone_is_exact(self, data: RecDataset, from_data: tuple[Prepared, Path]) -> None:
        made, folder = from_data
        outcome = self.method.unlearn(task_of(data, made, self.request_of(data, [2]), folder))
        hashed = made.model.hparams["partition"] == "hash"
        assert outcome.exactness == ("exact" if hashed else "conditional")

    def test_one_request_after_another_is_both_at_once(self, data: RecDataset, tmp_path: Path) -> None:
        made = prepared_by(self.exact, data, tmp_path)
        first, second = [4], [9, 60]
        one = self.exact.unlearn(task_of(data, made, self.request_of(data, first), tmp_path))
        write_contents(tmp_path / "next/state", one.files)
        found = resolve(self.request_of(data, first), data)
        between = Prepared(one.model, one.files, one.holds, 0.0)
        last = self.exact.unlearn(
            task_of(remaining(data, found), between, self.request_of(data, second), tmp_path / "next")
        )
        both = self.exact.unlearn(task_of(data, made, self.request_of(data, first + second), tmp_path))
        assert torch.equal(scores(last.model), scores(both.model))

    def test_test_rows_alone_change_no_parameter(self, data: RecDataset, from_data: tuple[Prepared, Path]) -> None:
        made, folder = from_data
        tests = data.interactions("test").edge_id[:3]
        request = ForgetRequest(edges={"user__interacts__item": tuple(tests.tolist())})
        outcome = self.method.unlearn(task_of(data, made, request, folder))
        assert outcome.facts["shards_touched"] == 0
        assert same_parameters(outcome.model, made.model)
        assert outcome.model.graph_inputs.fingerprint != made.model.graph_inputs.fingerprint

    def test_state_of_other_data_is_refused(self, data: RecDataset, from_data: tuple[Prepared, Path]) -> None:
        made, folder = from_data
        fewer = data.without(data.interactions("train").edge_id[:5])
        other = Prepared(Sharded(made.model.inputs_on(fewer), **made.model.hparams), {}, {}, 0.0)
        with pytest.raises(InputError, match="other edges"):
            self.method.unlearn(task_of(fewer, other, self.request_of(fewer, [30]), folder))

    def test_a_model_that_was_not_prepared_is_refused(self, data: RecDataset, tmp_path: Path) -> None:
        plain = Prepared(BPRMF(data, dim=8), {}, {}, 0.0)
        with pytest.raises(InputError, match="only what it prepared"):
            self.method.unlearn(task_of(data, plain, self.request_of(data, [2]), tmp_path))
        made = Prepared(Sharded(data, base="BPRMF", base_hparams={"dim": 8}, num_shards=2), {}, {}, 0.0)
        with pytest.raises(InputError, match=STATE):
            self.method.unlearn(task_of(data, made, self.request_of(data, [2]), tmp_path))

    def test_a_killed_request_goes_on(
        self, data: RecDataset, from_data: tuple[Prepared, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, folder = from_data
        task = task_of(data, made, self.request_of(data, [2, 5, 77]), folder, work=tmp_path / "work")
        expected = self.method.unlearn(task_of(data, made, self.request_of(data, [2, 5, 77]), folder))
        from graphrec.unlearning import shards

        real, calls = shards.train, []

        def dying(*arguments: Any, **options: Any) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            real(*arguments, **options)

        monkeypatch.setattr(shards, "train", dying)
        with pytest.raises(KeyboardInterrupt):
            self.method.unlearn(task)
        monkeypatch.setattr(shards, "train", real)
        trained: list[int] = []
        monkeypatch.setattr(shards, "train", lambda *a, **k: (trained.append(1), real(*a, **k))[1])
        again = self.method.unlearn(task)
        assert torch.equal(scores(again.model), scores(expected.model))
        assert list((tmp_path / "work").glob("shard-*")), "nothing was kept on the way"

    def test_rows_of_who_went_are_taken_out_of_the_state(
        self, data: RecDataset, from_data: tuple[Prepared, Path], tmp_path: Path
    ) -> None:
        from graphrec.runs.tensors import read_tensors

        made, folder = from_data
        outcome = self.method.unlearn(task_of(data, made, self.request_of(data, [2]), folder))
        keep = {"user": np.arange(data.num_users) != 2}
        smaller = self.method.compacted_state(outcome.files, keep, tmp_path)
        assert smaller is not None and smaller.keys() == outcome.files.keys()
        for name, content in smaller.items():
            if name != STATE:
                tables, _ = read_tensors(Path(str(content)))
                assert len(tables["user_embedding"]) == data.num_users - 1
                assert len(tables["item_embedding"]) == data.num_items
        assert (slice_file(0, 0) in smaller) == (self.method.slices > 1)  # type: ignore[attr-defined]


def small() -> RecDataset:
    """A smaller planted dataset."""
    return planted(num_users=60, num_items=40)
