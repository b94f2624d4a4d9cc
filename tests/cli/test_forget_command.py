"""``graphrec forget`` as a data-protection owner types it: look, forget, read, verify, tamper, verify again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphrec.cli import main
from graphrec.datasets import Builder, load
from graphrec.datasets.cache import save_dataset
from tests.models.planted import choices

Call = Callable[..., tuple[int, str, str]]
TRAIN = ("train", "--model", "LightGCN", "--dataset", "shop", "--root", ".", "--epochs", "4", "--model.dim", "8")
QUIET = ("--report", "false", "--json")


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Commands in a folder with a shop of 60 users and 30 items, and a request of two of the users."""
    folder = tmp_path / "shop"
    folder.mkdir()
    users, items, parts = choices(60, 30, 3, 9, 0.85, 0)
    for part in ("train", "test"):
        lines = [
            " ".join(
                map(str, [user, *(i for u, i, p in zip(users, items, parts, strict=True) if (u, p) == (user, part))])
            )
            for user in range(60)
        ]
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "request.json").write_text('{"users": [42, 7]}')
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        caught = capfd.readouterr()
        return status, caught.out, caught.err

    assert run(*TRAIN, *QUIET, "--out", "run")[0] == 0
    return run


def test_look_forget_verify_and_tamper(call: Call, tmp_path: Path) -> None:
    asked = ("forget", "run", "--request", "request.json")
    status, out, error = call(*asked, "--method", "finetune", "--dry-run", "--json")
    assert status == 0, error
    found = json.loads(out)
    assert found["edges"] == {"user__interacts__item/train": 12, "user__interacts__item/test": 6}
    assert found["nodes"] == {"user": 2} and not (tmp_path / "new").exists()
    assert "retrain" in call(*asked, "--dry-run")[1]

    status, out, error = call(*asked, "--method", "retrain", "--references", "1", "--out", "new", "--data-out", "left")
    assert status == 0, error
    assert "retrain (exact)" in out and "nodes/users 2" in out
    assert (tmp_path / "new" / "forgetting.html").is_file()
    head = out.strip().splitlines()[-1].split()[-1]
    status, out, error = call("forget", "--verify", "new", "--head", head)
    assert status == 0 and "new: verified" in out, error + out
    assert call("forget", "--verify", "new", "--head", "0" * 64)[0] == 1
    known = ("--request", "request.json", "--before", "run", "--replay")
    status, out, error = call("forget", "--verify", "new", *known, "--json")
    assert status == 0 and json.loads(out)["ok"], error + out
    assert "--before" in call("forget", "--verify", "new", "--request", "request.json")[2]

    # The old run opens only when asked to, and serves nothing of the two even then.
    status, _, error = call("recommend", "run", "--users", "3")
    assert status == 2 and "superseded" in error
    status, out, error = call("recommend", "run", "--users", "42", "3", "--k", "2", "--json", "--allow-superseded")
    assert status == 0 and {row["user"] for row in json.loads(out)} == {3}, error
    assert call("evaluate", "new", "--json")[0] == 0, "the cleaned data lies where the run says"
    status, out, error = call("recommend", "new", "--users", "3", "--k", "2", "--json")
    assert status == 0 and len(json.loads(out)) == 2, error

    # A later request goes on from the new run.
    (tmp_path / "later.csv").write_text("uid\n3\n")
    status, out, error = call(
        *("forget", "new", "--request", "later.csv", "--request-columns", "user=uid", "--method", "finetune"),
        *("--method.epochs", "1", "--references", "0", "--out", "newer", "--json"),
    )
    assert status == 0, error
    assert json.loads(out)["counts"]["nodes/users"] == 1

    file = tmp_path / "newer" / "history.csv"
    file.write_bytes(file.read_bytes() + b"\n")
    status, out, error = call("forget", "--verify", "newer")
    assert status == 1 and "history.csv" in out and "NOT verified" in out, error


def test_prepare_then_forget_by_shards(call: Call) -> None:
    status, out, error = call(
        *("forget", "run", "--prepare", "--method", "sisa", "--method.shards", "2", "--out", "shards", "--json")
    )
    assert status == 0, error
    assert json.loads(out)["method"] == "sisa"
    status, out, error = call(
        *("forget", "shards", "--request", "request.json", "--method", "sisa", "--method.shards", "2"),
        *("--references", "0", "--out", "new", "--json"),
    )
    assert status == 0, error
    assert json.loads(out)["exactness"] == "exact"
    assert call("forget", "--verify", "new")[0] == 0


def test_methods_are_listed(call: Call) -> None:
    status, out, error = call("forget", "--methods", "--json")
    assert status == 0, error
    listed = json.loads(out)
    assert listed["retrain"]["exactness"] == "exact" and listed["finetune"]["options"]["epochs"] == 5
    assert "unlearnrec" in call("forget", "--methods")[1]


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        (["run"], ["--out RUN2"]),
        (["run", "--out", "new"], ["--request FILE"]),
        ([], ["a run folder is expected"]),
        (["none", "--request", "request.json", "--out", "new"], ["there is no such run folder"]),
        (["run", "--request", "none.json", "--out", "new"], ["none.json is not there"]),
        (["run", "--request", "bad.json", "--out", "new"], ["line 1, column 11", "malformed JSON"]),
        (["run", "--request", "request.json", "--out", "new", "--method", "magic"], ["unknown method 'magic'"]),
        (["run", "--request", "request.json", "--out", "new", "--method", "gif", "--method.dampin", "1"], ["damping"]),
        (["run", "--request", "request.json", "--out", "new", "--method", "unlearnrec"], ["--prepare --method"]),
        (["run", "--prepare", "--method", "gif", "--out", "new"], ["needs no preparation"]),
        (["run", "--request", "all.json", "--out", "new"], ["nothing would be left"]),
        (["--verify", "nowhere"], ["there is no such run folder"]),
    ],
)
def test_what_is_refused(call: Call, tmp_path: Path, words: list[str], pieces: list[str]) -> None:
    (tmp_path / "bad.json").write_text('{"users": ]}')
    (tmp_path / "all.json").write_text(json.dumps({"users": list(range(60))}))
    status, _, error = call("forget", *words)
    assert status == 2 and "Traceback" not in error
    for piece in pieces:
        assert piece in error
    assert not (tmp_path / "new").exists()


@pytest.fixture
def clicks(call: Call, tmp_path: Path) -> Call:
    """A run on purchases and views with times: the purchases of u from hour 100 u on, each view 50 hours later."""
    users, items, parts = choices(60, 30, 3, 9, 0.85, 0)
    frame = pd.DataFrame({"uid": users, "sku": items, "part": parts})
    frame["hour"] = 100 * frame["uid"] + frame.groupby("uid").cumcount()
    builder = Builder("clicks")
    builder.interactions(frame, user="uid", item="sku", behaviour="buy", time="hour", part="part")
    views = frame.assign(sku=(frame["sku"] + 1) % 30, hour=frame["hour"] + 50)
    builder.interactions(views, user="uid", item="sku", behaviour="view", time="hour", part="part")
    builder.target("buy")
    builder.features("item", range(30), np.random.default_rng(0).normal(size=(30, 4)), name="image")
    builder.texts("item", range(30), [f"described by person {number}" for number in range(30)])
    save_dataset(builder.build(), tmp_path / "clicks")
    status, _, error = call(
        *("train", "--model", "LightGCN", "--dataset", "./clicks", "--epochs", "2", "--model.dim", "8", *QUIET),
        *("--out", "clicked"),
    )
    assert status == 0, error
    return call


@pytest.mark.parametrize(
    ("request_", "counted"),
    [
        ({"time": [{"user": 7, "from": 702, "to": 706}]}, {"buy": 4}),
        ({"time": [{"from": 0, "to": 150}]}, {"buy": 18, "view": 9}),
        ({"behaviours": [{"behaviour": "view", "user": 7}]}, {"view": 9}),
        ({"behaviours": ["view"], "pairs": []}, {"view": 540}),
    ],
    ids=["hours of a user", "hours of all", "views of a user", "views of all"],
)
def test_times_and_behaviours_are_forgotten(
    clicks: Call, request_: dict[str, object], counted: dict[str, int], tmp_path: Path
) -> None:
    """From the request to the verification; times and behaviours are those of the file's rows, in whatever part."""
    (tmp_path / "asked.json").write_text(json.dumps(request_))
    asked = ("forget", "clicked", "--request", "asked.json", "--method", "finetune", "--method.epochs", "1")
    status, out, error = clicks(*asked, "--dry-run", "--json")
    assert status == 0, error
    found: dict[str, int] = {}
    for name, count in json.loads(out)["edges"].items():
        behaviour = name.split("/")[0].split("__")[1]
        found[behaviour] = found.get(behaviour, 0) + count
    assert found == counted
    options = ("--references", "1", "--budget-share", "1", "--data-out", "left")
    status, out, error = clicks(*asked, *options, "--out", "new", "--json")
    assert status == 0, error
    evidence = json.loads((tmp_path / "new" / "forgetting.json").read_text())
    levels = {name: claim["level"] for name, claim in evidence["claims"].items()}
    assert evidence["scan"]["ok"] and levels["training graph"] == "L4" and levels["model"] in ("L1", "L2")
    status, out, error = clicks("forget", "--verify", "new", "--request", "asked.json", "--before", "clicked")
    assert status == 0 and "new: verified" in out, out + error


def test_features_and_texts_of_an_item_are_forgotten(clicks: Call, tmp_path: Path) -> None:
    """They go from the data that is kept; no edge goes with them, and the lists stay as they were."""
    (tmp_path / "asked.json").write_text('{"features": [{"item": 4, "name": "image"}], "texts": [5]}')
    asked = ("forget", "clicked", "--request", "asked.json", "--method", "retrain")
    status, out, error = clicks(*asked, "--dry-run", "--json")
    assert status == 0, error
    found = json.loads(out)
    assert found["edges"] == {} and found["features"] == {"item/image": 1, "item/text": 1}
    before = clicks("recommend", "clicked", "--users", "3", "4", "--json")[1]
    status, out, error = clicks(*asked, "--references", "0", "--data-out", "left", "--out", "new", "--json")
    assert status == 0, error
    assert json.loads((tmp_path / "new" / "forgetting.json").read_text())["scan"]["ok"]
    left, old = load(tmp_path / "left"), load(tmp_path / "clicks")
    assert left.texts["item"][5] is None and left.texts["item"][4] == old.texts["item"][4] is not None
    assert not any("person 5" in file.read_bytes().decode("latin-1") for file in files_below(tmp_path / "left"))
    assert clicks("recommend", "new", "--users", "3", "4", "--json")[1] == before
    status, out, error = clicks("forget", "--verify", "new", "--request", "asked.json", "--before", "clicked")
    assert status == 0 and "new: verified" in out, out + error


def files_below(folder: Path) -> list[Path]:
    """All files of a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]
