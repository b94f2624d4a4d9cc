from __future__ import annotations

import errno
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, MissingFileError
from graphrec.models.base import GraphInputs
from graphrec.runs import FORMAT, Run, as_model, files, manifest, write_run
from graphrec.runs.tensors import load_weights, read_inputs, read_tensors, write_inputs, write_tensors
from tests.training.tiny import TARGET, TinyCounts, TinyMF, tiny_data


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return tiny_data()


@pytest.fixture(scope="module")
def model(data: RecDataset) -> TinyMF:
    return TinyMF(data, seed=3).eval()


def write(path: Path, model: TinyMF, data: RecDataset, **keywords: Any) -> Run:
    given: dict[str, Any] = {
        "config": {"dataset": {"name": "tiny", "fingerprint": data.fingerprint}, "status": "complete"},
        "metrics": {"recall@20": np.float64(0.25), "mask": "train"},
        "history": [{"epoch": 1, "loss": 0.5}],
        **keywords,
    }
    return write_run(path, model=model, data=data, **given)


@pytest.fixture
def run(tmp_path: Path, model: TinyMF, data: RecDataset) -> Run:
    return write(tmp_path / "run", model, data, per_user=pa.table({"user": ["a"], "recall@20": [0.25]}))


def test_what_is_written_is_read(run: Run, model: TinyMF, data: RecDataset) -> None:
    again = Run.open(run.path)
    assert again.config["hparams"] == model.hparams
    assert again.metrics == {"recall@20": 0.25, "mask": "train"}
    assert list(again.history["loss"]) == [0.5]
    assert again.fingerprint == data.fingerprint
    assert list(again.vocabularies["user"].raw) == list(data.vocabularies["user"].raw)
    assert list(again.vocabularies["item"].raw) == list(data.vocabularies["item"].raw)
    assert again.per_user() is not None
    loaded = again.model()
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    users = torch.arange(3)
    with torch.no_grad():
        assert torch.equal(loaded.score(users), model.score(users))


def test_the_inputs_come_back_with_their_edge_ids(run: Run, data: RecDataset) -> None:
    inputs, graph = run.inputs(), data.graph()
    assert inputs.fingerprint == data.fingerprint
    assert inputs.target == TARGET
    assert inputs.num_users == data.num_users
    for name in ("edge_index", "edge_id"):
        assert torch.equal(inputs.graph[TARGET][name], graph[TARGET][name])
        assert inputs.graph[TARGET][name].dtype == graph[TARGET][name].dtype


def test_the_manifest_names_every_file(run: Run) -> None:
    there = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()}
    assert there == {*run.files, "manifest.json"}
    assert run.files["seen.safetensors"]["holds"] == ["pairs", "edge ids"]
    assert run.files["ids/user.parquet"]["holds"] == ["ids"]
    assert all(entry["holds"] != ["unknown"] for entry in run.files.values())
    seen, header = read_tensors(run.path / "seen.safetensors")
    assert seen["col"].dtype == torch.int32
    assert header["target"] == "user__interacts__item"


def test_nothing_is_pickled(run: Run) -> None:
    suffixes = {p.suffix for p in run.path.rglob("*") if p.is_file()}
    assert suffixes <= {".yaml", ".json", ".csv", ".safetensors", ".parquet", ".html"}


def test_files_are_as_readable_as_others(run: Run) -> None:
    modes = {p.stat().st_mode & 0o777 for p in run.path.rglob("*") if p.is_file()}
    assert len(modes) == 1


def test_a_missing_file_is_named(run: Run) -> None:
    (run.path / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model\.safetensors is missing"):
        Run.open(run.path)


@pytest.mark.parametrize("name", ["model.safetensors", "seen.safetensors", "ids/item.parquet", "metrics.json"])
def test_a_changed_file_is_named(run: Run, name: str) -> None:
    file = run.path / name
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{Path(name).name} was changed: its SHA-256"):
        run.verify()
    file.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"was changed: \d+ bytes"):
        run.verify()


def test_a_newer_format_is_refused_by_name(run: Run) -> None:
    manifest = json.loads((run.path / "manifest.json").read_text())
    (run.path / "manifest.json").write_text(json.dumps({**manifest, "format": FORMAT + 1, "graphrec": "9.9"}))
    with pytest.raises(InputError, match=rf"format {FORMAT + 1}, made by graphrec 9\.9.*pip install -U graphrec"):
        Run.open(run.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "x", "files": {}}', '{"format": 1}'])
def test_a_damaged_manifest_is_one_error(run: Run, text: str) -> None:
    (run.path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        Run.open(run.path)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match=r"has no manifest\.json"):
        Run.open(tmp_path)


def test_a_module_is_not_imported_on_a_folder_s_word(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**run.config, "model": "antigravity:Flight"}
    monkeypatch.setattr(run, "config", config)
    with pytest.raises(InputError, match="import antigravity first"):
        run.model()
    monkeypatch.setattr(run, "config", {**config, "model": "os:system"})
    with pytest.raises(InputError, match="import os first"):
        run.model()


def test_any_form_of_a_model_is_taken(run: Run, model: TinyMF) -> None:
    assert as_model(model) == (model, None)
    assert as_model(run)[1] is run
    found, opened = as_model(str(run.path))
    assert opened is not None
    assert torch.equal(found.user_table, model.user_table)

    class Recommender:
        def __init__(self) -> None:
            self.model, self.run = model, run

    assert as_model(Recommender()) == (model, run)
    with pytest.raises(InputError, match="found a int"):
        as_model(3)


def test_data_in_memory_cannot_be_loaded_again(run: Run) -> None:
    with pytest.raises(InputError, match="given in memory"):
        run.dataset()


def test_files_can_be_added(run: Run) -> None:
    more = run.add({"report.html": "<p>well</p>", "extra/notes.txt": b"x"}, {"extra/notes.txt": ["ids"]})
    assert Run.open(run.path).files.keys() == {*run.files, "report.html", "extra/notes.txt"}
    assert more.files["extra/notes.txt"]["holds"] == ["ids"]
    assert more.files["seen.safetensors"] == run.files["seen.safetensors"]
    replaced = more.add({"report.html": "<p>better</p>"})
    assert Run.open(run.path).files == replaced.files
    for name in ("../outside", "manifest.json"):
        with pytest.raises(InputError, match="no name for a file"):
            run.add({name: "x"})
    assert [p.name for p in run.path.parent.iterdir()] == ["run"]


# -- whole or absent ---------------------------------------------------------------------------------------------------


def test_adding_a_file_reads_and_writes_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that stay are the same files on the disk, and their entries are not made anew."""
    weights = (run.path / "model.safetensors").stat().st_ino
    read: list[str] = []
    own = manifest.file_sha256
    monkeypatch.setattr(manifest, "file_sha256", lambda path: read.append(Path(path).name) or own(path))
    more = run.add({"notes.json": "{}", "metrics.json": "{}"})
    assert sorted(read) == ["metrics.json", "notes.json"]
    assert (more.path / "model.safetensors").stat().st_ino == weights
    assert (more.path / "model.safetensors").stat().st_nlink == 1, "the folder before is gone"
    assert {name: entry for name, entry in more.files.items() if name in run.files and name != "metrics.json"} == {
        name: entry for name, entry in run.files.items() if name != "metrics.json"
    }
    more.verify()


def test_without_hard_links_files_are_copied(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    weights = (run.path / "model.safetensors").stat().st_ino
    monkeypatch.setattr(os, "link", refuse)
    more = run.add({"notes.json": "{}"})
    assert (more.path / "model.safetensors").stat().st_ino != weights
    more.verify()


def test_a_file_that_was_changed_is_not_sealed_anew(run: Run) -> None:
    """Whatever is added later: the manifest keeps the SHA-256 of what was written, and a change is found."""
    file = run.path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    more = run.add({"notes.json": "{}"})
    with pytest.raises(InputError, match=r"model\.safetensors was changed"):
        more.verify()
    file.write_bytes(content + b"x")
    with pytest.raises(InputError, match=r"model\.safetensors was changed"):
        more.add({"more.json": "{}"})
    assert "more.json" not in Run(run.path).files


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["sync", "_put_in_place"])
def test_a_failed_write_leaves_the_old_run(
    run: Run, model: TinyMF, data: RecDataset, monkeypatch: pytest.MonkeyPatch, code: int, where: str
) -> None:
    def fail(*paths: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, where, fail)
    with pytest.raises(InputError, match=os.strerror(code)):
        write(run.path, model, data, metrics={"recall@20": 0.9})
    monkeypatch.undo()
    assert Run.open(run.path).metrics["recall@20"] == 0.25
    assert [p.name for p in run.path.parent.iterdir()] == ["run"]


def test_a_disk_without_room_leaves_the_old_run(run: Run, data: RecDataset) -> None:
    """A limit on the size of files stands for the full disk: writes fail in the same libraries."""
    large = TinyMF(data, dim=4096)
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[0][1]))
    try:
        with pytest.raises(InputError, match="could not be written"):
            write(run.path, large, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert Run.open(run.path).metrics["recall@20"] == 0.25
    assert [p.name for p in run.path.parent.iterdir()] == ["run"]


def test_replacing_without_an_exchange_and_after_a_crash_in_it(
    run: Run, model: TinyMF, data: RecDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda new, path: False)
    write(run.path, model, data, metrics={"recall@20": 0.5})
    assert Run.open(run.path).metrics["recall@20"] == 0.5
    assert [p.name for p in run.path.parent.iterdir()] == ["run"]
    # A crash between the two renames leaves the old run beside its place; the next reader puts it back.
    os.rename(run.path, run.path.with_name("run.old"))
    assert Run.open(run.path).metrics["recall@20"] == 0.5


def test_leftovers_of_killed_writers_are_removed(run: Run, model: TinyMF, data: RecDataset) -> None:
    dead = run.path.with_name("run.tmp-999999999-abc")
    dead.mkdir()
    (dead / "part").write_text("x")
    alive = run.path.with_name(f"run.tmp-{os.getpid()}-abc")
    alive.mkdir()
    write(run.path, model, data)
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_is_no_run_is_not_replaced(tmp_path: Path, model: TinyMF, data: RecDataset, name: str) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("precious")
    with pytest.raises(InputError, match="choose another output folder"):
        write(tmp_path / name, model, data)
    assert (tmp_path / "folder" / "file").read_text() == (tmp_path / "file").read_text() == "precious"


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    with (
        files.FolderLock(tmp_path / "a", "taken"),
        pytest.raises(InputError, match=f"taken \\(process {os.getpid()} holds"),
        files.FolderLock(tmp_path / "a", "taken"),
    ):
        pass
    with files.FolderLock(tmp_path / "a", "taken"):
        pass


# -- tensors -----------------------------------------------------------------------------------------------------------


def test_many_edge_types_and_features_come_back(tmp_path: Path) -> None:
    graph = HeteroData()
    graph["user"].num_nodes, graph["item"].num_nodes, graph["entity"].num_nodes = 4, 3, 2
    # Unsorted, with a repeated pair: the list's order has to come back too.
    graph[TARGET].edge_index = torch.tensor([[3, 0, 3, 1], [0, 2, 0, 1]])
    graph[TARGET].edge_id = torch.tensor([7, 5, 9, 2])
    graph[TARGET].weight = torch.tensor([0.1, 0.2, 0.3, 0.4])
    related = ("item", "related", "entity")
    graph[related].edge_index = torch.tensor([[0, 1], [1, 0]])
    graph[related].relation = torch.tensor([4, 5])
    graph["item"].x_text = torch.arange(6.0).reshape(3, 2)
    inputs = GraphInputs(graph, TARGET, "print")
    write_inputs(tmp_path / "seen", tmp_path / "others", inputs)
    again = read_inputs(tmp_path / "seen", tmp_path / "others")
    assert again.target == TARGET
    assert again.fingerprint == "print"
    assert again.graph.node_types == graph.node_types
    assert set(again.graph.edge_types) == set(graph.edge_types)
    for store in (*graph.node_types, *graph.edge_types):
        for name, value in graph[store].items():
            found = again.graph[store][name]
            assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value
    graph["item"].odd = object()
    with pytest.raises(InputError, match="'odd'"):
        write_inputs(tmp_path / "seen", tmp_path / "others", inputs)


def test_a_plain_model_writes_no_other_inputs(run: Run) -> None:
    assert not (run.path / "inputs.safetensors").exists()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.bfloat16]),
            st.lists(st.integers(0, 3), max_size=3),
            st.booleans(),
        ),
        max_size=4,
    )
)
def test_any_tensors_come_back(tmp_path_factory: pytest.TempPathFactory, shapes: list[Any]) -> None:
    path = tmp_path_factory.mktemp("tensors") / "file"
    tensors = {}
    for number, (dtype, shape, turned) in enumerate(shapes):
        value = torch.randint(0, 2, shape).to(dtype)
        tensors[f"t{number}"] = value.T if turned and value.dim() == 2 else value
        tensors[f"shared{number}"] = value
    write_tensors(path, tensors, {"n": len(shapes)})
    found, header = read_tensors(path)
    assert header == {"n": len(shapes)}
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_sparse_tensors_are_refused_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="plain tensors"):
        write_tensors(tmp_path / "file", {"x": torch.eye(2).to_sparse()})


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_random_bytes_are_one_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no complete safetensors file"):
        read_tensors(path)


def test_weights_have_to_fit(model: TinyMF, data: RecDataset) -> None:
    state = model.state_dict()
    with pytest.raises(InputError, match="lacks bias"):
        load_weights(TinyMF(data), {k: v for k, v in state.items() if k != "bias"}, "file")
    with pytest.raises(InputError, match="holds 'other'"):
        load_weights(TinyMF(data), {**state, "other": torch.zeros(1)}, "file")
    with pytest.raises(InputError, match=r"of shape \(20, 4\), TinyMF has \(20, 5\)"):
        load_weights(TinyMF(data, dim=5), state, "file")


def test_buffers_made_by_solving_are_put_back(data: RecDataset) -> None:
    solved, fresh = TinyCounts(data), TinyCounts(data)
    solved.solve()
    load_weights(fresh, solved.state_dict(), "file")
    assert torch.equal(fresh.counts, solved.counts)
