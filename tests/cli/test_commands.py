"""The commands as a person uses them, in processes of their own where that matters, else by main()."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from graphrec.cli import COMMANDS, main

TRAIN = ["train", "--model", "LightGCN", "--columns", "user=uid,item=sku,time=ts", "--split", "random:.8,.1,.1"]


@dataclass
class Result:
    status: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "graphrec", *map(str, words)]


def process(*words: str | Path, cwd: Path, **environment: str) -> Result:
    """The command as it is typed."""
    done = subprocess.run(
        command(*words),
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Any:
    """The command within this process: imports are paid for once."""

    def run(*words: str | Path) -> Result:
        status = main([str(word) for word in words])
        caught = capfd.readouterr()
        return Result(status, caught.out, caught.err)

    return run


def refused(result: Result, *pieces: str) -> None:
    assert result.status == 2, result
    assert result.out == ""
    last = result.error.splitlines()[-1]
    assert last.startswith("graphrec: error: ") and "Traceback" not in result.error
    for piece in pieces:
        assert piece in last, last


def write_csv(path: Path, users: int = 40, items: int = 30, skip: int = -1) -> Path:
    rows = [
        (f"u{user}", f"sku {item}", 1000 + user * items + item)
        for user in range(users)
        for item in range(items)
        if (user + item) % 2 == 0 and (user * 7 + item * 5) % 3 != 0
    ]
    lines = [f"{user},{item},{ts}" for number, (user, item, ts) in enumerate(rows) if number != skip]
    path.write_text("\n".join(["uid,sku,ts", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a csv made by hand and a run trained on it by a process."""
    folder = tmp_path_factory.mktemp("shop")
    write_csv(folder / "clicks.csv")
    options = ["--dataset", "clicks.csv", "--epochs", "2", "--model.dim", "4", "--seed", "3", "--out", "run", "--json"]
    cache = {"GRAPHREC_CACHE": str(folder / "cache")}
    done = process(*TRAIN, *options, cwd=folder, **cache)
    assert done.status == 0, done.error
    found = done.json
    assert found["run"] == "run" and 0 <= found["recall@20"] <= 1 and found["epochs"] == 2
    assert all(key == key.lower() for key in found)
    assert {path.name for path in folder.iterdir()} == {"clicks.csv", "run", "cache"}
    assert (folder / "run" / "report.html").is_file()
    return folder


def test_help_needs_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys; from graphrec.cli import main; status = main(['--help']); "
        "print([name for name in ('torch', 'pandas', 'numpy') if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


def test_every_option_has_its_type_and_default(call: Any) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            call(name, "--help")
        assert ended.value.code == 0


def test_train_help_shows_the_models_options(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--model", "lightgcn", "--help"])
    text = " ".join(capfd.readouterr().out.split())
    for piece in (
        "--model.num_layers",
        "(type: int, default: 3)",
        "Options of graphrec.fit; all of them are written to the run:",
        "--epochs EPOCHS Passes over the training examples",
        "(type: int, default: 100)",
        "--init-from",
        "here: LightGCN",
    ):
        assert piece in text, text


def test_datasets(call: Any, tmp_path: Path) -> None:
    rows = call("datasets", "--json", "--root", tmp_path).json
    gowalla = next(row for row in rows if row["name"] == "gowalla")
    assert gowalla["users"] == 29858 and gowalla["present"] is False
    described = call("datasets", "gowalla", "--root", tmp_path)
    assert described.status == 0 and "train.txt" in described.out
    refused(call("datasets", "--root", tmp_path / "nowhere"), "there is no such folder")
    refused(call("datasets", "gowala"), "unknown dataset 'gowala'. Did you mean 'gowalla'?")


def test_config_of_a_run_trains_the_same_again(call: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.parent)
    again = place / "again"
    done = call("train", "--config", place / "run" / "config.yaml", "--out", again, "--json", "--report", "false")
    assert done.status == 0, done.error
    assert (again / "model.safetensors").read_bytes() == (place / "run" / "model.safetensors").read_bytes()
    other = call("train", "--config", place / "run" / "config.yaml", "--seed", "4", "--out", again, "--report=false")
    assert other.status == 0 and "recall@20" in other.out
    assert (again / "model.safetensors").read_bytes() != (place / "run" / "model.safetensors").read_bytes()
    compared = call("compare", place / "run", again, "--json").json
    assert {row["metric"] for row in compared["rows"]} >= {"recall@20", "ndcg@20"}
    assert "p (Wilcoxon)" in call("compare", place / "run", again).out
    shutil.rmtree(again)


def test_evaluate(call: Any, place: Path) -> None:
    trained = json.loads((place / "run" / "metrics.json").read_text())
    found = call("evaluate", place / "run", "--ks", "5", "20", "--json").json
    assert found["recall@20"] == pytest.approx(trained["recall@20"]) and "recall@5" in found
    table = call("evaluate", place / "run", "--metrics", "recall", "ndcg", "--split", "valid")
    assert table.status == 0 and "ndcg@10" in table.out and "mrr" not in table.out


def test_recommend(call: Any, place: Path) -> None:
    rows = call("recommend", place / "run", "--users", "u1", "u2", "--k", "3", "--json").json
    assert [row["user"] for row in rows] == ["u1"] * 3 + ["u2"] * 3 and rows[0]["rank"] == 1
    seen = call("recommend", place / "run", "--users", "u1", "--k", "30", "--include-seen", "--json").json
    assert len(seen) == 30
    table = call("recommend", place / "run", "--users", "u1", "nobody", "--k", "1")
    assert table.status == 0 and table.out.splitlines()[0].split() == ["user", "rank", "item", "score"]
    assert table.error == "graphrec: warning: 1 of 2 user ids are unknown to the model: 'nobody' (left out)\n"
    out = place / "lists.parquet"
    said = call("recommend", place / "run", "--all", "--k", "4", "--out", out, "--json").json
    frame = pd.read_parquet(out)
    assert said["rows"] == len(frame) == 160 and frame["user"].nunique() == 40
    assert call("recommend", place / "run", "--users", "u1", "--k", "4", "--out", out).status == 0
    assert pd.read_parquet(out)["item"].tolist() == frame[frame["user"] == "u1"]["item"].tolist()
    assert call("recommend", place / "run", "--history", "sku 1", "--k", "4", "--out", out).status == 0
    assert len(pd.read_parquet(out)) == 4
    streamed = call("recommend", place / "run", "--all", "--k", "4", "--json").json
    assert [row["item"] for row in streamed] == frame["item"].tolist()
    csv = call("recommend", place / "run", "--all", "--k", "4").out.splitlines()
    assert csv[0] == "user,rank,item,score" and len(csv) == 161
    new = call("recommend", place / "run", "--history", "sku 1", "sku 3", "--k", "2")
    assert new.out.splitlines()[0].split() == ["rank", "item", "score"] and len(new.out.splitlines()) == 3
    near = call("recommend", place / "run", "--similar-to", "sku 1", "--k", "2", "--json").json
    assert near[0]["item"] == "sku 1" and near[0]["similar"] != "sku 1"


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        (["frobnicate"], ["unknown command"]),
        (["recomend"], ["Did you mean 'recommend'?"]),
        (["train", "--dataset", "clicks.csv"], ["--model NAME is expected"]),
        (["train", "--model", "LightGCN"], ["--dataset NAME|PATH is expected"]),
        (["train", "--model", "LigthGCN", "--dataset", "x"], ["unknown model 'LigthGCN'. Did you mean 'LightGCN'?"]),
        ([*TRAIN, "--dataset", "gowala"], ["unknown dataset 'gowala'. Did you mean 'gowalla'?"]),
        ([*TRAIN, "--dataset", "nothing.csv"], ["nothing.csv"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--model.dmi", "3"], ["'--model.dmi'. Did you mean '--model.dim'?"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--epoch", "3"], ["'--epoch'. Did you mean '--epochs'?"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--model.dim", "wide"], ["--model.dim: expected int, got wide"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--metric", "recal@20"], ["Did you mean 'recall'?"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--ks", "31"], ["ks: 31 is larger than the catalogue of 30 items"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--columns", "user=uid,item=sku,time=when"], ["when", "ts"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--preset", "fsat"], ["preset"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--task", "ctr"], ["no pair labelled 0", "--drawn-negatives 1"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--out", "clicks.csv"], ["clicks.csv is a file"]),
        ([*TRAIN, "--dataset", "clicks.csv", "--out", "clicks.csv/run"], ["clicks.csv"]),
        (["train", "--config", "none.yaml"], ["none.yaml: there is no such file"]),
        (["train", "--resume", "none"], ["--resume none: neither none nor none.training holds a training"]),
        (["evaluate", "none"], ["none: there is no such run folder"]),
        (["evaluate", "run", "--metrics", "recal"], ["unknown metric 'recal'. Did you mean 'recall'?"]),
        (["evaluate", "run", "--ks", "31"], ["31", "30 items"]),
        (["evaluate", "run", "--split", "tset"], ["tset"]),
        (["recommend", "run"], ["one of --users"]),
        (["recommend", "run", "--users", "u1", "--all"], ["one of --users"]),
        (["recommend", "run", "--users", "u1", "--k", "31"], ["k=31", "30, the size of the catalogue"]),
        (["recommend", "run", "--users", "u1", "--device", "gpu"], ["device 'gpu' is none; expected auto, cpu, cuda"]),
        (["recommend", "run", "--users", "u1", "--device", "cuda:99"], ["device='cuda:99'", "GPUs are here"]),
        (["evaluate", "run", "--device", "cuda:99"], ["device='cuda:99'", "GPUs are here"]),
        (["compare", "run", "./run"], ["./run is given twice"]),
        (["evaluate", "run", "--sampled-negatives", "31", "--ks", "5"], ["31", "30 items"]),
        (["explain", "run", "--user", "u1", "--item", "s1", "--k", "0"], ["k must be 1 or more, found 0"]),
        (["recommend", "run", "--users", "nobody", "--k", "3"], ["none of the ids is known"]),
        (["recommend", "run", "--all", "--out", "lists.csv"], ["a name ending in .parquet is expected"]),
        (["recommend", "run", "--all", "--out", "clicks.csv/x.parquet"], ["clicks.csv/x.parquet"]),
        (["compare", "run"], ["at least two runs"]),
        (["benchmark", "ranknig"], ["Did you mean 'ranking'?"]),
    ],
)
def test_bad_words(
    words: Sequence[str], pieces: Sequence[str], call: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    refused(call(*words), *pieces)
    assert sorted(place.iterdir()) == before


def test_a_run_that_was_never_finished_says_how_to_go_on(call: Any, tmp_path: Path) -> None:
    (tmp_path / "cut.training").mkdir()
    refused(call("evaluate", tmp_path / "cut"), "no such run folder; its training was stopped", "--resume")
    assert "--resume" not in call("evaluate", tmp_path / "none").error


def test_unknown_key_of_a_config_file(call: Any, place: Path) -> None:
    file = place / "mine.yaml"
    file.write_text("model: {name: LightGCN, dim: 4}\ndataset: clicks.csv\nepoch: 3\n")
    refused(call("train", "--config", file), "mine.yaml", "'epoch'. Did you mean 'epochs'?")
    file.unlink()


def test_damaged_and_newer_runs(call: Any, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    weights = run / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(call("recommend", run, "--users", "u1"), "model.safetensors was changed")
    weights.unlink()
    refused(call("evaluate", run), "model.safetensors is missing")
    weights.write_bytes(content)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    refused(call("recommend", run, "--all"), "run of format 99", "pip install -U graphrec")
    (run / "manifest.json").write_text("{")
    refused(call("recommend", run, "--all"), "manifest.json is damaged")
    (run / "manifest.json").unlink()
    refused(call("recommend", run, "--all"), "no run folder")


def test_an_edited_dataset_is_refused_by_name(call: Any, place: Path, tmp_path: Path) -> None:
    edited = write_csv(tmp_path / "clicks.csv", skip=5)
    refused(call("evaluate", place / "run", "--dataset", edited), str(edited), "fingerprint")
    refused(call("recommend", place / "run", "--users", "u1", "--k=3", "--dataset", edited), "fingerprint")
    unchanged = write_csv(tmp_path / "same.csv")
    assert call("recommend", place / "run", "--users", "u1", "--k=3", "--dataset", unchanged).status == 0


def test_a_full_disk_leaves_the_old_run_whole(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    program = (
        "import resource, signal, sys; from graphrec.cli import main; import graphrec.training; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); "
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", "--config", str(run / "config.yaml"), "--dataset", str(place / "clicks.csv"), "--out", str(run)]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
    )
    refused(Result(done.returncode, done.stdout, done.stderr), "File too large")
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir() if ".tmp-" in path.name] == []


def test_interrupted_and_resumed(place: Path, tmp_path: Path) -> None:
    options = ["--dataset", str(place / "clicks.csv"), "--epochs", "100000", "--model.dim=4", "--out", "run"]
    with subprocess.Popen(
        command(*TRAIN, *options), cwd=tmp_path, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL
    ) as started:
        deadline = time.monotonic() + 120
        assert started.stderr is not None
        for line in started.stderr:
            if line.startswith("epoch 1/") or time.monotonic() > deadline:
                break
        started.send_signal(signal.SIGINT)
        rest = started.stderr.read()
        assert started.wait(60) == 130, rest
    assert rest.splitlines()[-1] == "graphrec: interrupted; the run so far is in run"
    assert "status: interrupted" in (tmp_path / "run" / "config.yaml").read_text()
    listed = subprocess.Popen(
        command("recommend", "run", "--all", "--k", "30", "--include-seen"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listed.stdout is not None and listed.stderr is not None
    listed.stdout.close()
    assert listed.wait(60) == 141 and listed.stderr.read() == b""
    listed.stderr.close()


def test_two_processes_share_a_training(place: Path, tmp_path: Path) -> None:
    options = ["--dataset", str(place / "clicks.csv"), "--epochs", "1", "--model.dim=4", "--devices", "2", "--json"]
    done = process(*TRAIN, *options, cwd=tmp_path)
    assert done.status == 0, done.error
    assert done.json["run"] == "runs/lightgcn-clicks.csv"
    assert (tmp_path / "runs" / "lightgcn-clicks.csv" / "model.safetensors").is_file()


def test_a_catalogue_of_fewer_than_twenty_items(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "few.csv", items=15)
    monkeypatch.chdir(tmp_path)
    words = ["train", "--model", "BPRMF", "--dataset", "few.csv", "--split", "random:.6,.2,.2", "--epochs", "1"]
    words += ["--columns", "user=uid,item=sku,time=ts", "--model.dim", "2"]
    made = call(*words, "--out", "plain", "--json")
    assert made.status == 0, made.error
    assert "lists of 7 are evaluated, for there are 15 items" in made.error
    assert "recall@7" in made.json
    assert not any(key.endswith("@20") for key in made.json)
    # One option is enough to ask for others.
    assert "recall@5" in call(*words, "--out", "five", "--ks", "5", "--json").json
    assert "recall@4" in call(*words, "--out", "four", "--metric", "recall@4", "--json").json
    refused(call(*words, "--out", "long", "--ks", "20"), "20 is larger than the catalogue of 15 items", "ks=7")
    shown = call("evaluate", "plain", "--json")
    assert "lists of 10 are evaluated" in shown.error
    assert "recall@10" in shown.json
    refused(call("evaluate", "plain", "--ks", "20"), "20", "15 items")
