from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, MissingFileError
from graphrec.models.bpr_mf import BPRMF
from graphrec.runs import Run, write_run
from graphrec.runs.manifest import MANIFEST, record_cache, seal_problem
from graphrec.runs.portable import portable_files
from graphrec.unlearning import audit
from graphrec.unlearning.identifiers import Identifiers
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import resolve
from tests.models.planted import planted

ENTRY: dict[str, Any] = {
    "event": "forgotten",
    "request": {"id": "r1", "digest": "ab" * 32, "counts": {"nodes/user": 2, "edges/user__interacts__item": 24}},
    "method": "retrain",
    "options": {"seed": None},
    "exactness": "exact",
    "claims": {"id tables": "L0", "parameters": "L4"},
    "touched": {"users": 2, "items": 17},
    "started": audit.timestamp(),
    "purged": ["lists.parquet"],
}


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return planted(40, 24, 4, 8)


@pytest.fixture(scope="module")
def plain_run(data: RecDataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    model = BPRMF(data, dim=4).eval()
    config = {"dataset": {"name": "planted", "source": "/home/somebody/planted", "fingerprint": data.fingerprint}}
    path = tmp_path_factory.mktemp("audit") / "run"
    return write_run(
        path, model=model, data=data, config=config, metrics={"recall@20": 0.5}, extra_files=audit.carried()
    )


@pytest.fixture
def run(plain_run: Run, tmp_path: Path) -> Run:
    """A run with three records."""
    made = write_copy(plain_run, tmp_path / "run")
    for event in ("received", "forgotten", "purged"):
        made = audit.append(made, {**ENTRY, "event": event})
    return made


def write_copy(run: Run, path: Path) -> Run:
    import shutil

    shutil.copytree(run.path, path)
    return Run(path)


def test_records_come_back_in_order(run: Run) -> None:
    records = audit.read(run)
    assert [record["event"] for record in records] == ["received", "forgotten", "purged"]
    assert [record["sequence"] for record in records] == [0, 1, 2]
    assert records[0]["previous"] == audit.FIRST
    assert records[2]["previous"] == records[1]["hash"]
    assert records[1]["touched"] == {"users": 2, "items": 17}
    assert set(records[1]["files"]) == set(run.files) - {"audit.jsonl", "audit.salt"}
    assert audit.head(run) == records[2]["hash"]
    found = audit.latest(records, "forgotten")
    assert found is not None and found["sequence"] == 1
    assert audit.latest(records, "blocked") is None
    run.verify()


def test_every_byte_of_the_log_counts(run: Run) -> None:
    log = run.path / audit.LOG
    whole = log.read_bytes()
    line_of = np.cumsum(np.frombuffer(whole, np.uint8) == ord("\n"))
    for place in range(0, len(whole), 7):
        for bit in (1, 0x20):
            changed = bytearray(whole)
            changed[place] ^= bit
            log.write_bytes(changed)
            with pytest.raises(InputError, match=r"line \d+") as error:
                audit.check_chain(run)
            said = int(str(error.value).split("line ")[1].split(":")[0].split(",")[0])
            # A line feed that is gone joins two lines, a new one parts one.
            assert abs(said - 1 - int(line_of[place] - (whole[place] == ord("\n")))) <= 1


@pytest.mark.parametrize(
    ("tamper", "line"),
    [
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: [lines[1], lines[0], lines[2]], 1),
        (lambda lines: [lines[0], lines[2], lines[1]], 2),
        (lambda lines: [*lines, lines[1]], 4),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
    ],
)
def test_a_line_taken_out_moved_or_repeated_is_named(
    run: Run, tamper: Callable[[list[str]], list[str]], line: int
) -> None:
    log = run.path / audit.LOG
    log.write_text("\n".join([*tamper(log.read_text().splitlines()), ""]))
    with pytest.raises(InputError, match=f"line {line}: it does not follow"):
        audit.check_chain(log)


def test_an_edited_record_with_a_new_hash_breaks_the_next_line(run: Run) -> None:
    log = run.path / audit.LOG
    lines = log.read_text().splitlines()
    record = json.loads(lines[1])
    record["exactness"] = "approximate"
    record["hash"] = audit._hash(record)
    log.write_text("\n".join([lines[0], audit._line(record), lines[2], ""]))
    with pytest.raises(InputError, match="line 3: it does not follow"):
        audit.check_chain(run)


def test_a_log_cut_at_its_end_needs_the_head(run: Run) -> None:
    log, head = run.path / audit.LOG, audit.head(run)
    log.write_text("\n".join([*log.read_text().splitlines()[:2], ""]))
    # The chain itself is whole; the manifest and a head that was kept elsewhere tell.
    assert len(audit.check_chain(run)) == 2
    with pytest.raises(InputError, match="no line has it"):
        audit.check_chain(run, head=head)
    with pytest.raises(InputError, match=r"audit\.jsonl was changed"):
        run.verify()
    with pytest.raises(InputError, match="records follow on line 1"):
        audit.check_chain(run, head=audit.check_chain(run)[0]["hash"])


def test_nothing_is_appended_to_a_broken_log(run: Run) -> None:
    log = run.path / audit.LOG
    log.write_text(log.read_text().replace("retrain", "retrait", 1))
    with pytest.raises(InputError, match="line 1: its hash"):
        audit.append(run, ENTRY)


def test_the_log_goes_on_in_the_next_run(run: Run, plain_run: Run, tmp_path: Path) -> None:
    files = audit.carried(run)
    assert files[audit.SALT] == (run.path / audit.SALT).read_bytes()
    after = audit.append(write_copy(plain_run, tmp_path / "next").add(files), ENTRY)
    records = audit.read(after)
    assert [record["sequence"] for record in records] == [0, 1, 2, 3]
    assert audit.read_salt(after) == audit.read_salt(run)
    assert audit.carried()[audit.SALT] != audit.carried()[audit.SALT]
    assert len(audit.new_salt()) == 32


def test_the_salt_can_be_destroyed(run: Run) -> None:
    salt = audit.read_salt(run)
    assert salt is not None
    made = audit.destroy_salt(run, operator="data protection officer")
    assert audit.read_salt(made) is None
    assert not (made.path / audit.SALT).exists()
    made.verify()
    assert audit.read(made)[-1]["event"] == "salt destroyed"
    for file in made.path.rglob("*"):
        assert not file.is_file() or salt.hex().encode() not in file.read_bytes()
    with pytest.raises(MissingFileError):
        audit.destroy_salt(made)


def test_a_copy_without_paths_still_agrees(run: Run) -> None:
    copied = portable_files(run)
    assert "/home/somebody" not in str(copied["config.yaml"])
    assert seal_problem(bytes(copied[MANIFEST])) is None  # type: ignore[arg-type]
    assert audit.read(run)[-1]["files"] == audit.file_hashes(run)


def test_no_log_and_unknown_fields(plain_run: Run, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nothing was forgotten"):
        audit.read(tmp_path / "audit.jsonl")
    for entry, message in (
        ({"event": "forgotten", "users": [5]}, "unknown field of an audit record 'users'"),
        ({"event": "gone"}, "unknown event"),
        ({"event": "forgotten", "exactness": "sure"}, "unknown exactness"),
        ({"event": "forgotten", "touched": {"users": [1]}}, "touched holds counts"),
        ({"event": "forgotten", "request": {"users": ["x"]}}, "personal data"),
        ({"event": "forgotten", "method": 3}, "method must be"),
    ):
        with pytest.raises(InputError, match=message):
            audit.append(plain_run, entry)


# -- identifiers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("note", "user 17 asked for it"),
        ("note", "A2XYZ"),
        ("options", {"users": [3, 17]}),
        ("options", {"user": 17}),
        ("options", {"deep": [{"user_id": "17"}]}),
        ("options", {"per_user": {"17": 0.5}}),
        ("metrics", {"user/17": 0.5}),
        ("note", "the film Heat of Night, 1967"),
        ("purged", ["lists-of-A2XYZ.parquet"]),
    ],
)
def test_a_record_with_personal_data_is_refused(plain_run: Run, place: str, value: Any) -> None:
    identifiers = Identifiers.from_values([17, "A2XYZ"], ["Heat of Night"])
    with pytest.raises(InputError, match=place) as error:
        audit.append(plain_run, {"event": "forgotten", place: value}, identifiers)
    for secret in ("17", "A2XYZ", "Heat of Night"):
        assert secret not in str(error.value)


def test_counts_are_no_ids() -> None:
    identifiers = Identifiers.from_values([17, 943, 20])
    for value in (
        {"users": 17, "num_users": 17, "epochs": 17, "touched": {"users": 943, "items": 17}},
        {"recall@20": 17, "seconds": 17.0, "counts": {"nodes/user": 17, "edges/user__interacts__item": 20}},
        "means over 943 users; 17 items; 20 epochs",
        {"options": {"seed": 17, "ks": [17, 20]}},
    ):
        assert identifiers.mentioned_in(value) == []
    assert not identifiers.mentions("users 943") and identifiers.mentions("user 943")
    assert identifiers.mentions("users: [5, 17, 8]") == 1
    assert identifiers.mentions('"user_id": "17"') == 1
    assert identifiers.mentions("user_17 and item#20") == 2


@given(
    st.integers(0, 10**6), st.sampled_from(["user {}", "user: {}", '"user": {}', "(user {})", "user={}", "user_id {}"])
)
def test_an_id_that_is_said_is_found(number: int, sentence: str) -> None:
    assert Identifiers.from_values([number]).mentions(f"list of {sentence.format(number)}, and more") == 1
    assert not Identifiers.from_values([number]).mentions(f"list of {sentence.format(number + 1)}, and more")


def test_what_a_request_names_is_identified(data: RecDataset) -> None:
    resolved = resolve(ForgetRequest(users=(5, 12345678), pairs=((7, 3),)), data)
    identifiers = Identifiers.of(data, resolved)
    assert identifiers.mentions("user 5")
    assert identifiers.mentions("user 12345678")
    # Somebody else's ids: an item of the same number, the pair's own user and item.
    assert not identifiers.mentions("item 5, user 6, user 7, item 3")
    assert not identifiers.mentioned_in({"item": 5, "items": [5], "user": 7})
    assert identifiers.mentioned_in({"user": 5, "ids": [5]}) == ["user", "ids[0]"]
    assert len(Identifiers()) == 0


# -- the manifest ------------------------------------------------------------------------------------------------------


def test_every_byte_of_a_manifest_counts(run: Run) -> None:
    raw = (run.path / MANIFEST).read_bytes()
    assert seal_problem(raw) is None
    for place in range(0, len(raw), 11):
        for bit in (1, 0x20, 0x29):
            changed = bytearray(raw)
            changed[place] ^= bit
            assert seal_problem(bytes(changed)) is not None
    assert "no digest" in str(seal_problem(b'{"format": 1}'))


def test_what_was_made_from_a_run_is_recorded(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lists.parquet"
    file.write_bytes(b"lists")
    run.record(file, ["ids", "lists"])
    file.write_bytes(b"other lists")
    run.record(file, ["ids", "lists"])
    run.record(tmp_path, ["aggregates"], made_by="a logger")
    caches = Run(run.path).manifest["caches"]
    assert [cache["path"] for cache in caches] == [str(file), str(tmp_path)]
    assert caches[0]["sha256"] is not None and caches[1]["sha256"] is None
    assert caches[1]["made_by"] == "a logger"
    assert seal_problem((run.path / MANIFEST).read_bytes()) is None
    run.verify()
    assert audit.append(run, ENTRY).manifest["caches"] == caches
    with pytest.raises(InputError, match="caches hold"):
        record_cache(run.path, file, ["things"])
