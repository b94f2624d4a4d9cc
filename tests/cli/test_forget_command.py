"""``graphrec forget`` as a data-protection owner types it: look, forget, read, verify, tamper, verify again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from graphrec.cli import main
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
        (["--verify", "none"], ["there is no such run folder"]),
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
