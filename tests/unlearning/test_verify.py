"""Verification: a whole run passes, and nothing can be changed, put in or taken out without being seen."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.bpr_mf import BPRMF
from graphrec.runs import Run, write_run
from graphrec.runs.manifest import MANIFEST, json_bytes, sealed, yaml_bytes
from graphrec.runs.tensors import read_tensors, write_tensors
from graphrec.training.fit import fit
from graphrec.unlearning import audit
from graphrec.unlearning.compaction import compacted_model
from graphrec.unlearning.identifiers import Identifiers
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.methods.retrain import Retrain
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import compacted, counts, kept_nodes, remaining, resolve
from graphrec.unlearning.verify import run_verification, verify, weight_hash
from tests.models.planted import planted

REQUEST = ForgetRequest(users=(5,), pairs=((9, 4), (9, 8)))


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return planted(40, 24, 4, 8)


@pytest.fixture(scope="module")
def forgotten(data: RecDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A run, and one that has forgotten by retraining, with two records in its log."""
    folder = tmp_path_factory.mktemp("verify")
    before = fit(BPRMF(data, dim=8), data, epochs=2, out=folder / "before", progress=False, report=False)
    resolved = resolve(REQUEST, data)
    task = Task(before.model(), data, remaining(data, resolved), resolved, 0, before.config["fit"])
    model = compacted_model(Retrain().unlearn(task).model, compacted(data, resolved), kept_nodes(data, resolved))
    kept = compacted(data, resolved)
    config = {**before.config, "dataset": {"name": "planted", "fingerprint": kept.fingerprint}, "unlearning": {}}
    made = write_run(
        folder / "after",
        model=model,
        data=kept,
        config=config,
        metrics={"epochs": 2},
        history=[{"epoch": 1, "loss": 0.6}],
        extra_files=audit.carried(),
    )
    salt = audit.read_salt(made)
    assert salt is not None
    entry = {
        "event": "forgotten",
        "request": {"digest": REQUEST.digest(salt), "counts": counts(resolved)},
        "dataset": {"before": data.fingerprint, "after": kept.fingerprint},
        "method": "retrain",
        "options": asdict(Retrain()),
        "exactness": "exact",
        "seeds": {"training": 0},
        **audit.facts(),
    }
    identifiers = Identifiers.of(data, resolved)
    made = audit.append(made, {"event": "received"}, identifiers)
    return before, audit.append(made, entry, identifiers)


@pytest.fixture
def run(forgotten: tuple[Run, Run], tmp_path: Path) -> Run:
    shutil.copytree(forgotten[1].path, tmp_path / "run")
    return Run(tmp_path / "run")


def reseal(run: Run, **files: bytes | None) -> None:
    """Change files as somebody who knows how a manifest is made."""
    manifest = json.loads((run.path / MANIFEST).read_bytes())
    for name, content in files.items():
        name = name.replace("__", ".")
        if content is None:
            (run.path / name).unlink()
            del manifest["files"][name]
            continue
        (run.path / name).write_bytes(content)
        entry = manifest["files"].setdefault(name, {"holds": ["aggregates"]})
        entry.update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    (run.path / MANIFEST).write_bytes(json_bytes(sealed(manifest)))


# -- whole -------------------------------------------------------------------------------------------------------------


def test_a_whole_run_passes(run: Run) -> None:
    made = verify(run)
    assert made.ok, made.lines()
    assert made.problems == []
    assert made.scan is not None and made.scan.ok
    ok, lines = run_verification(run.path, head=audit.head(run))
    assert ok
    assert any("chain of 2 records is whole, and ends in the hash that was kept" in line for line in lines)
    # What was not looked at is said.
    assert any(line.startswith("not checked: the request") for line in lines)


def test_the_request_is_looked_for(run: Run, forgotten: tuple[Run, Run], data: RecDataset) -> None:
    made = verify(run, REQUEST, data, before=forgotten[0])
    assert made.ok, made.lines()
    assert any("the last record is of this request" in line for line in made.lines())
    other = verify(run, {"users": [6]}, data)
    assert any("another request" in line for line in other.problems)
    assert any("scan: ids/user.parquet: raw id" in line for line in other.problems)
    wrong = verify(run, REQUEST, planted(40, 24, 4, 8, seed=1))
    assert any("another dataset" in line for line in wrong.problems)


def test_without_the_salt_no_request_can_be_matched(run: Run, data: RecDataset) -> None:
    made = verify(audit.destroy_salt(run), REQUEST, data)
    assert made.ok, made.lines()
    assert any("the salt was destroyed" in line for line in made.lines())


def test_a_replay_gives_the_same_weights(run: Run, data: RecDataset) -> None:
    made = verify(run, REQUEST, data, replay=True)
    assert made.ok, made.lines()
    assert any("gives the same weights" in line for line in made.lines())


def test_a_replay_sees_other_weights(run: Run, data: RecDataset, tmp_path: Path) -> None:
    """Weights of a model that never was retrained, in a run and a log that agree with each other."""
    values, header = read_tensors(run.path / "model.safetensors")
    values["item_embedding"] += 1e-4
    write_tensors(tmp_path / "model.safetensors", values, header)
    log = audit.read(run)[-1]
    changed = run.add({"model.safetensors": tmp_path / "model.safetensors", audit.LOG: b""})
    entry = {name: value for name, value in log.items() if name in audit.FIELDS}
    changed = audit.append(changed, entry)
    assert verify(changed, REQUEST, data).ok
    made = verify(changed, REQUEST, data, replay=True)
    assert ["replay" in line and "item_embedding" in line for line in made.problems] == [True]


def test_weights_are_hashed_by_bits_and_names(forgotten: tuple[Run, Run]) -> None:
    weights = forgotten[1].weights()
    assert weight_hash(weights) == weight_hash(dict(reversed(list(weights.items()))))
    renamed = {f"{name}_": value for name, value in weights.items()}
    negated = {name: value.clone() for name, value in weights.items()}
    negated["user_embedding"][0, 0] = -negated["user_embedding"][0, 0]
    assert len({weight_hash(weights), weight_hash(renamed), weight_hash(negated)}) == 3


# -- tampered with -----------------------------------------------------------------------------------------------------


def test_a_byte_of_any_file(run: Run, forgotten: tuple[Run, Run]) -> None:
    names = sorted(path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file())
    assert set(names) == {*run.files, MANIFEST}
    assert {"audit.jsonl", "audit.salt", "model.safetensors", "config.yaml", "ids/user.parquet"} <= set(names)
    for name in names:
        file = run.path / name
        whole = file.read_bytes()
        for place in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            for bit in (1, 0x80):
                changed = bytearray(whole)
                changed[place] ^= bit
                file.write_bytes(changed)
                ok, lines = run_verification(run.path)
                assert not ok, (name, place, lines)
                assert any(line.startswith("FAILED") and name in line for line in lines)
        for other in (whole[:-1], whole + b"\n", b""):
            file.write_bytes(other)
            assert not run_verification(run.path)[0], (name, len(other))
        file.write_bytes(whole)
    assert run_verification(run.path)[0]


@pytest.mark.parametrize("name", ["extra.json", ".hidden", "ids/extra.parquet", "state/shard.safetensors"])
def test_a_file_put_in(run: Run, name: str) -> None:
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_bytes(b"{}")
    made = verify(run)
    assert any(f"{name} was put in" in line for line in made.problems)


@pytest.mark.parametrize("name", ["audit.jsonl", "audit.salt", "ids/item.parquet", "model.safetensors", MANIFEST])
def test_a_file_taken_out(run: Run, name: str) -> None:
    (run.path / name).unlink()
    made = verify(run.path)
    assert any(name in line for line in made.problems)


# -- tampered with by somebody who writes the manifest anew ------------------------------------------------------------


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda lines: [lines[1]], "line 1: it does not follow"),
        (lambda lines: [lines[1], lines[0]], "line 1: it does not follow"),
        (lambda lines: [lines[0].replace("received", "verified"), lines[1]], "line 1: its hash"),
        (lambda lines: [lines[0]], "no record says that anything was forgotten"),
        (lambda lines: [], "its records were taken out"),
    ],
)
def test_a_log_that_was_edited_and_sealed_again(
    run: Run, tamper: Callable[[list[str]], list[str]], message: str
) -> None:
    lines = (run.path / audit.LOG).read_text().splitlines()
    reseal(run, audit__jsonl="".join(f"{line}\n" for line in tamper(lines)).encode())
    made = verify(run.path)
    assert any(message in line for line in made.problems), made.lines()


def test_a_log_that_was_taken_away_and_sealed_again(run: Run) -> None:
    reseal(run, audit__jsonl=None)
    assert any("there is no audit log" in line for line in verify(run.path).problems)


def test_files_that_were_changed_and_sealed_again(run: Run) -> None:
    reseal(run, metrics__json=b'{"epochs": 3}\n', notes__txt=b"more")
    problems = " ".join(verify(run.path).problems)
    assert "since the last record changed: metrics.json" in problems
    assert "since the last record put in: notes.txt" in problems
    reseal(run, history__csv=None)
    assert "taken out: history.csv" in " ".join(verify(run.path).problems)


def test_a_config_that_was_changed_and_sealed_again(run: Run) -> None:
    reseal(run, config__yaml=yaml_bytes({**run.config, "seed": 9}))
    assert any("changed: config.yaml" in line for line in verify(run.path).problems)


def test_another_fingerprint_sealed_again(run: Run) -> None:
    manifest = json.loads((run.path / MANIFEST).read_bytes())
    (run.path / MANIFEST).write_bytes(json_bytes(sealed({**manifest, "fingerprint": "0" * 64})))
    assert any("name two datasets" in line for line in verify(run.path).problems)


def test_run_and_log_written_anew_need_the_head(run: Run) -> None:
    head = audit.head(run)
    entry = {name: value for name, value in audit.read(run)[-1].items() if name in audit.FIELDS}
    anew = audit.append(run.add({audit.LOG: b""}), {**entry, "exactness": "heuristic"})
    assert verify(anew).ok
    assert any("the last record should have the hash" in line for line in verify(anew, head=head).problems)


def test_degrees_that_are_not_those_of_the_graph(run: Run, tmp_path: Path) -> None:
    """All hashes agree; the scan sees that the content does not."""
    values, header = read_tensors(run.path / "seen.safetensors")
    values["rowptr"][-1] += 1
    write_tensors(tmp_path / "seen.safetensors", values, header)
    log = audit.read(run)[-1]
    changed = run.add({"seen.safetensors": tmp_path / "seen.safetensors", audit.LOG: b""})
    changed = audit.append(changed, {name: value for name, value in log.items() if name in audit.FIELDS})
    assert any("scan: seen.safetensors: degree" in line for line in verify(changed).problems)


# -- runs that never forgot, and bad questions -------------------------------------------------------------------------


def test_a_run_that_never_forgot(forgotten: tuple[Run, Run]) -> None:
    made = verify(forgotten[0])
    assert made.ok
    assert any(line == "not checked: there is no audit log" for line in made.lines())


def test_bad_questions(run: Run, data: RecDataset, tmp_path: Path) -> None:
    questions: list[tuple[Any, dict[str, Any], str]] = [
        (tmp_path / "nowhere", {}, "no folder"),
        (run, {"request": REQUEST}, "go together"),
        (run, {"replay": True}, "needs the request"),
    ]
    for source, options, message in questions:
        with pytest.raises(InputError, match=message):
            verify(source, **options)
    (tmp_path / "empty").mkdir()
    assert verify(tmp_path / "empty").problems == ["manifest.json is not there"]
