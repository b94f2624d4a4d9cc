from __future__ import annotations

import inspect
import io
import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

import graphrec
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.base import PairBatch
from graphrec.runs import Run
from graphrec.training import FitOptions, fit
from graphrec.training.progress import Progress
from tests.training.tiny import TinyCounts, TinyMF, tiny_data

Train = Callable[..., tuple[TinyMF, Run]]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def largest_difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    theirs = other.state_dict()
    return max(float((value - theirs[name]).abs().max()) for name, value in one.state_dict().items())


def test_the_signature_is_the_options() -> None:
    given = inspect.signature(fit).parameters
    for entry in fields(FitOptions):
        assert given[entry.name].default == entry.default, entry.name


def test_every_option_says_what_it_means() -> None:
    source = inspect.getsource(FitOptions)
    for entry in fields(FitOptions):
        after = source.split(f"    {entry.name}: ", 1)[1].split("\n", 1)[1]
        assert after.lstrip().startswith('"""'), entry.name


def test_a_run_says_what_happened(train: Train, data: RecDataset, tmp_path: Path) -> None:
    model, run = train(out=tmp_path / "run", epochs=4)
    assert run.config["status"] == "complete"
    assert run.config["seed"] == 0
    assert run.config["hparams"] == model.hparams
    assert run.config["dataset"]["fingerprint"] == data.fingerprint
    history = run.history
    assert list(history["epoch"]) == [1, 2, 3, 4]
    for column in ("loss", "pairs/rank", "pairs/reg", "bias/rank", "seconds", "valid/recall@2", "peak_memory"):
        assert history[column].notna().all(), column
    terms = history["pairs/rank"] + history["pairs/reg"] + history["bias/rank"]
    torch.testing.assert_close(torch.tensor(history["loss"].to_numpy()), torch.tensor(terms.to_numpy()))
    assert {"recall@2", "valid/recall@2", "num_users", "mask", "seconds", "epochs"} <= set(run.metrics)
    assert all(name == name.lower() for name in run.metrics)
    assert not (tmp_path / "run.training").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    environment = json.loads((run.path / "environment.json").read_text())
    assert str(tmp_path) not in json.dumps(environment)


def test_training_learns(train: Train) -> None:
    _, run = train(epochs=30, hparams={"dropout": 0.0})
    assert run.history["loss"].iloc[-1] < 0.7 * run.history["loss"].iloc[0]


def test_same_seed_same_weights(train: Train) -> None:
    one, other, third = train()[0], train()[0], train(seed=1)[0]
    assert largest_difference(one, other) == 0
    assert largest_difference(one, third) > 0


def test_global_randomness_is_left_alone(train: Train) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train()
    assert torch.equal(before, torch.get_rng_state())


def test_the_best_epoch_is_kept(train: Train, data: RecDataset) -> None:
    model, run = train(epochs=12)
    history = run.history
    # A value that only equals the best does not replace it: the first of the best epochs is the one.
    best = history["valid/recall@2"].idxmax()
    assert run.metrics["best_epoch"] == history["epoch"][best]
    assert run.metrics["valid/recall@2"] == history["valid/recall@2"][best]
    found = graphrec.evaluate(model, data, split="valid", ks=(2,))["recall@2"]
    assert found == pytest.approx(run.metrics["valid/recall@2"], abs=1e-12)
    stopped, _ = train(epochs=int(history["epoch"][best]), select_on=None)
    assert largest_difference(model, stopped) == 0


def test_patience_counts_evaluations_without_a_better_value(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphrec.training.job import Job

    values = iter([0.1, 0.3, 0.3, 0.2, 0.9, 0.9])
    monkeypatch.setattr(Job, "select", lambda self: {"recall@2": next(values)})
    _, run = train(epochs=6, patience=2)
    # Better, better, equal (1), worse (2): the end, although the next value would have been better.
    assert len(run.history) == 4
    assert run.metrics["best_epoch"] == 2


def test_evaluate_every_also_evaluates_the_last_epoch(train: Train) -> None:
    _, run = train(epochs=5, evaluate_every=2)
    assert list(run.history["valid/recall@2"].notna()) == [False, True, False, True, True]


def test_a_budget_of_seconds_ends_after_an_epoch(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphrec.training import loop

    clock = iter(range(0, 10_000, 3))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    _, run = train(epochs=1000, max_seconds=100.0, evaluate_every=1000)
    assert 1 <= len(run.history) < 40
    # The epoch that ended it is evaluated like any last one.
    assert run.history["valid/recall@2"].notna().tolist() == [False] * (len(run.history) - 1) + [True]


def test_selection_on_test_is_said(train: Train) -> None:
    _, run = train(select_on="test")
    assert run.config["selected_on"] == "test"
    assert "test/recall@2" in run.history


def test_a_closed_form_is_solved(data: RecDataset, tmp_path: Path) -> None:
    model = TinyCounts(data)
    run = fit(model, data, out=tmp_path / "run", metric="recall@2", ks=(2,), progress=False)
    assert {"recall@2", "valid/recall@2"} <= set(run.metrics)
    assert len(run.history) == 0
    again = Run.open(run.path).model(model_class=TinyCounts)
    assert torch.equal(again.score(torch.arange(3)), model.score(torch.arange(3)))


def test_without_out_the_run_lives_as_long_as_its_object(train: Train) -> None:
    _, run = train(epochs=1)
    path = run.path
    assert Run.open(path).metrics == run.metrics
    del run
    assert not path.exists()


def test_accumulated_batches_make_one_step(train: Train) -> None:
    plain = {"dropout": 0.0, "sgd": True}
    whole, run = train(hparams={**plain, "batch_size": 16})
    halves, run_halves = train(hparams={**plain, "batch_size": 8}, accumulate=2)
    assert largest_difference(whole, halves) < 1e-6
    assert run.history["loss"].to_numpy() == pytest.approx(run_halves.history["loss"].to_numpy(), abs=1e-6)
    apart, _ = train(hparams={**plain, "batch_size": 8})
    assert largest_difference(whole, apart) > 1e-4


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_low_precision_trains_close_to_full(train: Train, precision: str) -> None:
    plain = {"dropout": 0.0, "sgd": True}
    full, _ = train(hparams=plain)
    low, run = train(hparams=plain, precision=precision)
    assert all(parameter.dtype == torch.float32 for parameter in low.parameters())
    assert largest_difference(full, low) < 0.02
    assert math.isfinite(run.history["loss"].iloc[-1])


def test_the_schedule_sets_the_rate_of_each_step(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def note(self: torch.optim.SGD, *arguments: Any, **keywords: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.SGD, "step", note)
    train(hparams={"sgd": True, "lr": 1.0, "batch_size": 1000}, epochs=4, schedule="linear")
    # One step a phase and epoch; two phases are trained.
    assert rates[::2] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    rates.clear()
    train(hparams={"sgd": True, "lr": 1.0, "batch_size": 1000}, epochs=4, warmup=3)
    assert rates[::2] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_clipping_bounds_the_step(train: Train) -> None:
    start = TinyMF(tiny_data())
    model, _ = train(hparams={"sgd": True, "lr": 1.0, "batch_size": 1000}, epochs=1, clip=1e-3, select_on=None)
    tables = torch.cat([(model.user_table - start.user_table), (model.item_table - start.item_table)])
    assert 0 < tables.norm().item() <= 1.001e-3


def test_parameters_of_other_phases_are_left_alone(data: RecDataset) -> None:
    class OnlyBias(TinyMF):
        def phases(self) -> Any:
            return super().phases()[2:]

    model = OnlyBias(data)
    before = weights(model)
    fit(model, data, epochs=1, select_on=None, ks=(2,), progress=False, device="cpu")
    assert torch.equal(before["user_table"], model.user_table)
    assert not torch.equal(before["bias"], model.bias)
    assert model.user_table.grad is None


def test_batches_are_drawn_after_the_step_before(data: RecDataset) -> None:
    seen: list[float] = []

    class Watching(TinyMF):
        def batches(self, epoch: int, generator: torch.Generator) -> Any:
            for batch in super().batches(epoch, generator):
                seen.append(float(self.user_table.detach().sum()))
                yield batch

    fit(Watching(data, sgd=True), data, epochs=1, select_on=None, ks=(2,), progress=False, device="cpu")
    steps = len(seen) // 2
    assert len(set(seen[:steps])) == steps


def test_divergence_is_one_clear_error(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"diverged.*learning rate"):
        train(hparams={"sgd": True, "lr": 1e30}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_loggers_and_callbacks_pass_through(train: Train, tmp_path: Path) -> None:
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.loggers import CSVLogger

    class StopAfterTwo(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    logger = CSVLogger(tmp_path / "logs")
    _, run = train(epochs=5, logger=logger, callbacks=[StopAfterTwo()])
    assert len(run.history) == 2
    text = Path(logger.log_dir, "metrics.csv").read_text()
    assert "valid/recall@2" in text.splitlines()[0]
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": -1}, "epochs"),
        ({"accumulate": 0}, "accumulate"),
        ({"precision": "8"}, "precision"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"clip": 0.0}, "clip"),
        ({"warmup": 2.5}, "warmup"),
        ({"ks": ()}, "ks"),
        ({"device": "gpux"}, "gpux"),
        ({"metric": "recall@x"}, "recall@x"),
        ({"metric": "recal@2"}, "Did you mean 'recall'"),
        ({"metric": "recall"}, "recall@20"),
        ({"metric": "gini@2"}, "larger values of it are not better"),
        ({"metric": "recall@13"}, "larger than the catalogue of 12"),
        ({"ks": (50,), "select_on": None}, "larger than the catalogue of 12"),
    ],
)
def test_wrong_options_are_named(train: Train, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        train(**options)


def test_lists_longer_than_the_catalogue_are_refused_before_training(data: RecDataset, tmp_path: Path) -> None:
    model = TinyMF(data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="ks: 13 is larger than the catalogue of 12 items"):
        fit(model, data, ks=(2, 13), metric="recall@2", out=tmp_path / "deep" / "run", progress=False)
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_patience_needs_something_to_select_on(data: RecDataset) -> None:
    table = data.interactions().replaced(part=None)
    whole = data.with_table(table)
    with pytest.raises(InputError, match="valid part"):
        fit(TinyMF(whole), whole, patience=3, progress=False)


def test_the_model_has_to_be_made_from_the_data(data: RecDataset) -> None:
    with pytest.raises(InputError, match="other data"):
        fit(TinyMF(data), tiny_data(drop=2), progress=False)


def test_a_folder_that_is_no_run_is_not_replaced(train: Train, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    with pytest.raises(InputError, match="not empty"):
        train(out=tmp_path / "notes")
    assert (tmp_path / "notes" / "diary.txt").read_text() == "dear diary"


def test_two_trainings_do_not_share_a_folder(train: Train, tmp_path: Path) -> None:
    from graphrec.runs.files import FolderLock

    with FolderLock(tmp_path / "run.training", "taken"), pytest.raises(InputError, match="another training"):
        train(out=tmp_path / "run")
    train(out=tmp_path / "run")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_is_a_line_an_epoch() -> None:
    stream = io.StringIO()
    progress = Progress(3, stream=stream, every=0.0)
    progress.every = 0.0
    for epoch in range(3):
        progress.step(epoch, 1, 2, 0.5, 1.0)
        progress.epoch(epoch, 0.5, 2.0, {"valid/recall@20": 0.125})
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "epoch 1/3  loss 0.5000  2.0 s  left 4.0 s  valid/recall@20 0.1250"


def test_progress_on_a_terminal_rewrites_its_line() -> None:
    stream = Terminal()
    progress = Progress(2, stream=stream, every=0.0)
    assert progress.due()
    progress.step(0, 1, 2, 0.5, 1.0)
    progress.epoch(0, 0.5, 2.0, {})
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "[##########          ]" in text


def test_progress_can_be_silent() -> None:
    stream = io.StringIO()
    progress = Progress(1, enabled=False, stream=stream)
    progress.epoch(0, 0.5, 2.0, {})
    progress.say("word")
    progress.close()
    assert stream.getvalue() == ""


def test_shares_of_a_batch_keep_all_examples(data: RecDataset) -> None:
    batch = next(iter(TinyMF(data).batches(0, torch.Generator().manual_seed(0))))
    assert isinstance(batch, PairBatch)
    shares = [batch.shard(rank, 3) for rank in range(3)]
    assert sum(map(len, shares)) == len(batch)


def test_a_closed_form_leaves_nothing_beside_its_run(data: RecDataset, tmp_path: Path) -> None:
    run = fit(TinyCounts(data), data, out=tmp_path / "run", ks=(2,), metric="recall@2", progress=False)
    assert run.config["status"] == "complete"
    assert (tmp_path / "run" / "report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
