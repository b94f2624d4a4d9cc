"""A run that another has taken the place of opens nowhere unless that is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import graphrec
from graphrec import evaluation, influence, unlearning
from graphrec.cli import COMMANDS, main
from graphrec.datasets import RecDataset
from graphrec.errors import InputError
from graphrec.models import LightGCN
from graphrec.runs import Run, as_model
from graphrec.serving import Recommender
from tests.unlearning.test_forget import write_files

HPARAMS = {"dim": 8, "num_layers": 1, "lr": 0.02}
FIT = {"epochs": 2, "progress": False, "report": False}
REQUEST = {"users": [2]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``old``, a superseded run, ``new``, and the dataset ``planted``."""
    place = tmp_path_factory.mktemp("superseded")
    write_files(place / "planted")
    data = graphrec.datasets.load(place / "planted", cache=False)
    for name in ("old", "new"):
        run = graphrec.fit(LightGCN(data, **HPARAMS), data, out=place / name, **FIT)
    run = Run(place / "old").add({"superseded.json": '{"by": "new", "edges": 9, "at": "2030-01-01T00:00:00Z"}'})
    assert run.superseded == {"by": "new", "edges": 9, "at": "2030-01-01T00:00:00Z"}
    (place / "request.json").write_text('{"users": [2]}')
    return place


@pytest.fixture(scope="module")
def data(folder: Path) -> RecDataset:
    return graphrec.datasets.load(folder / "planted", cache=False)


OPENING: dict[str, tuple[tuple[str, ...], ...]] = {
    "evaluate": (("evaluate", "old"),),
    "recommend": (("recommend", "old", "--users", "3"), ("recommend", "old", "--all", "--out", "lists.parquet")),
    "explain": (("explain", "old", "--user", "3", "--item", "1", "--controls", "0"),),
    "compare": (("compare", "old", "new"), ("compare", "new", "old")),
    "forget": (
        ("forget", "old", "--request", "request.json", "--dry-run"),
        ("forget", "old", "--request", "request.json", "--out", "third", "--references", "0"),
        ("forget", "old", "--prepare", "--method", "sisa", "--method.shards", "2", "--out", "third"),
    ),
}
"""Command lines that open a run, by command."""

NEVER: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": (
        ("train", "--model", "LightGCN", "--dataset", "planted", "--init-from", "old", "--out", "third"),
        ("train", "--resume", "old"),
    ),
}
"""Command lines that take a superseded run for nothing: a new model would hold what the old one was asked to forget."""

NO_RUN = {"datasets", "benchmark"}


def test_every_command_is_thought_of() -> None:
    assert {*OPENING, *NEVER, *NO_RUN} == set(COMMANDS)


@pytest.mark.parametrize("words", [words for lines in OPENING.values() for words in lines], ids=" ".join)
def test_commands_refuse_it_unless_allowed(
    words: tuple[str, ...],
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Path(shutil.copytree(folder, tmp_path / "here"))
    monkeypatch.chdir(here)
    # The run names its dataset by the place it was trained in.
    place = () if words[0] == "compare" else ("--dataset", "planted")
    assert main([*words, *place]) == 2
    assert "old is superseded: new forgot 9 edges" in capfd.readouterr().err
    assert not (here / "third").exists() and not (here / "lists.parquet").exists()
    assert main([*words, *place, "--allow-superseded"]) == 0, capfd.readouterr().err


@pytest.mark.parametrize("words", [words for lines in NEVER.values() for words in lines], ids=" ".join)
def test_nothing_is_trained_from_it(
    words: tuple[str, ...], folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main([*words]) == 2
    assert "superseded" in capfd.readouterr().err and not (folder / "third").exists()


Entry = Callable[[Path, RecDataset], object]

ENTRIES: dict[str, Entry] = {
    "Run": lambda path, data: Run(path),
    "Run.open": lambda path, data: Run.open(path),
    "as_model": lambda path, data: as_model(path),
    "Recommender": lambda path, data: Recommender.from_pretrained(path),
    "evaluate": lambda path, data: graphrec.evaluate(path, data),
    "compare": lambda path, data: graphrec.compare([path, path.with_name("new")]),
    "compare by name": lambda path, data: graphrec.compare({"a": path.with_name("new"), "b": path}),
    "explain": lambda path, data: influence.explain(path, data, user=3, item=1),
    "edge_influence": lambda path, data: influence.edge_influence(path, data, user=3, item=1),
    "fit init_from": lambda path, data: graphrec.fit(LightGCN(data, **HPARAMS), data, init_from=path, **FIT),
    "fit resume": lambda path, data: graphrec.fit(LightGCN(data, **HPARAMS), data, out=path, resume=True, **FIT),
    "fit resume another": lambda path, data: graphrec.fit(
        LightGCN(data, **HPARAMS), data, out=path.with_name("third"), resume=path, **FIT
    ),
    "prepare": lambda path, data: unlearning.prepare(path, data, method="sisa", out=path.with_name("third")),
    "forget": lambda path, data: unlearning.forget(path, data, REQUEST, out=path.with_name("third")),
    "evaluate_unlearning": lambda path, data: unlearning.evaluate_unlearning(
        path, LightGCN(data, **HPARAMS), [], data, unlearning.resolve(unlearning.ForgetRequest(users=(2,)), data)
    ),
}
"""What of the package takes the path of a run and reads its model or what was measured on it."""


@pytest.mark.parametrize("name", ENTRIES)
def test_functions_refuse_it(name: str, folder: Path, data: RecDataset) -> None:
    with pytest.raises(InputError, match=r"superseded: new forgot 9 edges.*--allow-superseded"):
        ENTRIES[name](folder / "old", data)
    assert not (folder / "third").exists()


def test_it_opens_where_that_is_asked_for(folder: Path, data: RecDataset) -> None:
    run = Run(folder / "old", allow_superseded=True)
    assert run.model().num_users == Run.open(folder / "old", allow_superseded=True).model().num_users == 90
    assert graphrec.evaluate(run, data, ks=(5,)).metrics
    assert evaluation.compare([run, folder / "new"], metrics=["recall@20"]).frame["model"].tolist() == ["new"]


def test_a_run_that_was_open_before_gives_no_model_after(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder / "new", tmp_path / "run"))
    opened, served = Run.open(path), Run.open(path)
    opened.model()
    opened.add({"superseded.json": '{"by": "newer", "edges": 1, "at": "2030-01-01T00:00:00Z"}'})
    with pytest.raises(InputError, match="superseded: newer forgot 1 edges"):
        opened.model()
    with pytest.raises(InputError, match="superseded: newer forgot 1 edges"):
        Recommender.from_pretrained(served)
