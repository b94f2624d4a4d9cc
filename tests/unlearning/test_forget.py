"""A request carried out on a run: what is written, what is left behind, and what happens when something goes wrong."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

import graphrec
from graphrec.datasets import RecDataset
from graphrec.errors import InputError, MissingFileError
from graphrec.models import EASE, LightGCN
from graphrec.runs import Run
from graphrec.serving import Recommender
from graphrec.serving.mask import Mask
from graphrec.unlearning import METHODS, Budget, ForgetRequest, compacted, forget, preview, resolve
from graphrec.unlearning.methods import Finetune, Outcome, Task, Unlearner
from graphrec.unlearning.workspace import lock
from tests.models.planted import choices
from tests.unlearning.test_resolve import world

HPARAMS = {"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3}
FIT = {"epochs": 6, "progress": False, "report": False}
GONE = (2, 5)


def write_files(folder: Path, gone: tuple[int, ...] = (), pairs: tuple[tuple[int, int], ...] = ()) -> Path:
    """A dataset as text, without the lines of some users and some pairs."""
    folder.mkdir(parents=True)
    users, items, parts = choices(90, 40, 3, 10, 0.85, 0)
    frame = pd.DataFrame({"user": users, "item": items, "part": parts})
    drop = frame["user"].isin(gone)
    for user, item in pairs:
        drop |= (frame["user"] == user) & (frame["item"] == item)
    for part in ("train", "test"):
        rows = frame[~drop & (frame["part"] == part)]
        lines = [" ".join(map(str, (user, *sorted(own["item"])))) for user, own in rows.groupby("user")]
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("data") / "planted")


@pytest.fixture(scope="module")
def data(files: Path) -> RecDataset:
    return graphrec.datasets.load(files, cache=False)


@pytest.fixture(scope="module")
def trained(data: RecDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    graphrec.fit(LightGCN(data, **HPARAMS), data, out=out, **FIT)
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy of the trained run that a test may ask to forget."""
    return Run(Path(shutil.copytree(trained, tmp_path / "run")))


def some_pairs(data: RecDataset, count: int) -> tuple[tuple[int, int], ...]:
    """Training pairs of users who keep others, one a user."""
    table = data.interactions("train")
    _, first = np.unique(table.source, return_index=True)
    rows = first[10 : 10 + count]
    users = data.vocabularies["user"].raw[table.source[rows]]
    items = data.vocabularies["item"].raw[table.target[rows]]
    return tuple(zip(users.tolist(), items.tolist(), strict=True))


def test_a_retrained_run_holds_nothing_and_says_what_was_done(run: Run, data: RecDataset, tmp_path: Path) -> None:
    request = ForgetRequest(users=GONE, pairs=some_pairs(data, 3))
    new = forget(run, data, request, out=tmp_path / "new", references=2)
    assert "user" in new.vocabularies and not set(GONE) & set(new.vocabularies["user"].raw.tolist())
    model = new.model()
    assert model.num_users == data.num_users - 2 == len(model.user_embedding)
    about = new.config["unlearning"]
    assert (about["method"], about["exactness"], about["due"]) == ("retrain", "exact", None)
    evidence = json.loads((new.path / "forgetting.json").read_text())
    assert evidence["scan"]["ok"] and evidence["claims"]["model"]["level"] == "L4"
    assert evidence["claims"]["data source"]["level"] == "L1", "the files it came from still hold it"
    page = (new.path / "forgetting.html").read_text()
    assert "L4" in page and "user 2<" not in page
    record = json.loads((new.path / "audit.jsonl").read_text().splitlines()[-1])
    assert record["event"] == "forgotten" and record["request"]["counts"]["nodes/users"] == 2
    rec = Recommender.from_pretrained(new)
    with pytest.warns(UserWarning, match="1 of 2 user ids are unknown"):
        assert rec.recommend([GONE[0], 8], k=3)["user"].unique().tolist() == [8]
    # The old run is masked and superseded; nothing else is left beside the two.
    with pytest.raises(InputError, match="superseded: new forgot"):
        Run.open(run.path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new", "run"]


_REFERENCE = """
import sys
import graphrec, torch
from graphrec.models import LightGCN
files, out, hparams, fit = sys.argv[1], sys.argv[2], eval(sys.argv[3]), eval(sys.argv[4])
data = graphrec.datasets.load(files, cache=False)
graphrec.fit(LightGCN(data, **hparams), data, out=out, **fit)
"""


def test_retraining_equals_a_training_from_files_without_the_lines(run: Run, data: RecDataset, tmp_path: Path) -> None:
    """Another process reads raw files that never held the lines; ids that stay are the same, and so are the weights."""
    pairs = some_pairs(data, 25)
    cleaned = write_files(tmp_path / "cleaned", pairs=pairs)
    subprocess.run(
        [sys.executable, "-c", _REFERENCE, str(cleaned), str(tmp_path / "reference"), repr(HPARAMS), repr(FIT)],
        check=True,
        timeout=300,
    )
    new = forget(run, data, ForgetRequest(pairs=pairs), out=tmp_path / "new", references=0)
    reference = Run.open(tmp_path / "reference")
    assert new.files["model.safetensors"]["sha256"] == reference.files["model.safetensors"]["sha256"]
    assert new.metrics["recall@20"] == reference.metrics["recall@20"]
    # The cleaned files are the data of the new run, though their edges are numbered otherwise.
    again = graphrec.datasets.load(cleaned, cache=False)
    assert again.fingerprint != new.fingerprint
    new.check_data(again)
    with pytest.raises(InputError, match="has forgotten 25 edges; give it the data without them"):
        new.check_data(data)


@dataclass(frozen=True)
class Failing(Unlearner):
    """Looks at what is served while it works, then breaks off."""

    name: ClassVar[str] = "failing"
    exactness: ClassVar[str] = "heuristic"
    run: str = ""

    def unlearn(self, task: Task) -> Outcome:
        mask = Mask.read(self.run)
        assert mask is not None and mask.users.tolist() == list(GONE)
        raise RuntimeError("broken off")


def test_the_mask_is_on_before_the_method_ends_and_a_failure_leaves_the_old_run(
    run: Run, data: RecDataset, tmp_path: Path
) -> None:
    rec = Recommender.from_pretrained(run)
    assert set(GONE) <= set(rec.recommend(k=1)["user"])
    with pytest.raises(RuntimeError, match="broken off"):
        forget(rec, data, ForgetRequest(users=GONE), method=Failing(str(run.path)), out=tmp_path / "new")
    assert not set(GONE) & set(rec.recommend(k=1)["user"]), "the recommender in use serves them no more"
    assert not (tmp_path / "new").exists()
    opened = Run.open(run.path)
    assert opened.superseded is None
    assert not set(GONE) & set(Recommender.from_pretrained(opened).recommend(k=1)["user"])


_SLOW = """
import sys, time
import graphrec
from graphrec.training.phases import PhaseTrainer
from graphrec.unlearning import ForgetRequest, forget
ran = PhaseTrainer.run
def slow(self, epoch, *rest, **options):
    if epoch == 4:
        print("waiting", flush=True)
        time.sleep(300)
    return ran(self, epoch, *rest, **options)
PhaseTrainer.run = slow
data = graphrec.datasets.load(sys.argv[1], cache=False)
forget(sys.argv[2], data, ForgetRequest(users=(2, 5)), out=sys.argv[3], references=0)
"""


def test_a_killed_process_leaves_the_old_run_and_resume_goes_on(
    trained: Path, run: Run, files: Path, data: RecDataset, tmp_path: Path
) -> None:
    out = tmp_path / "new"
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(files), str(run.path), str(out)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline().strip() == "waiting"
        with pytest.raises(InputError, match=rf"another request is being carried out on .* \(process {process.pid}"):
            forget(run, data, ForgetRequest(users=(7,)), out=tmp_path / "other")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists() and Run.open(run.path).superseded is None
    with pytest.raises(InputError, match="begun with another request"):
        forget(run, data, ForgetRequest(users=(7,)), out=out, resume=True, references=0)
    resumed = forget(run, data, ForgetRequest(users=GONE), out=out, resume=True, references=0)
    whole = Run(Path(shutil.copytree(trained, tmp_path / "again")))
    straight = forget(whole, data, ForgetRequest(users=GONE), out=tmp_path / "straight", references=0)
    assert resumed.files["model.safetensors"]["sha256"] == straight.files["model.safetensors"]["sha256"]
    with pytest.raises(MissingFileError, match="nothing to resume"):
        forget(whole, data, ForgetRequest(users=(7,)), out=tmp_path / "third", resume=True, allow_superseded=True)


def test_a_full_disk_leaves_the_old_run(run: Run, data: RecDataset, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[0][1]))
    try:
        with pytest.raises(InputError, match="could not be written"):
            forget(run, data, ForgetRequest(users=GONE), out=tmp_path / "new", references=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert not (tmp_path / "new").exists()
    assert Run.open(run.path).metrics["recall@20"] > 0


def test_requests_follow_one_another_until_the_budget_is_spent(run: Run, data: RecDataset, tmp_path: Path) -> None:
    budget = Budget(share=0.04, utility=1.0)
    one = forget(
        run,
        data,
        ForgetRequest(users=(2,)),
        method=Finetune(epochs=1),
        out=tmp_path / "one",
        references=0,
        budget=budget,
        data_out=tmp_path / "left",
    )
    spent = one.config["unlearning"]["spent"]
    assert spent["requests"] == 1 and spent["edges"] == 7 and spent["of"] == len(data.interactions("train"))
    left = graphrec.datasets.load(tmp_path / "left")
    assert left.fingerprint == one.fingerprint
    two = forget(
        one, None, {"users": [5]}, method="finetune", options={"epochs": 1}, out=tmp_path / "two", references=0,
        budget=budget, data_out=tmp_path / "left2",
    )  # fmt: skip
    assert two.config["unlearning"]["spent"]["edges"] == 14
    assert len((two.path / "audit.jsonl").read_text().splitlines()) == 2, "the log goes on"
    rest = ForgetRequest(users=tuple(range(30, 36)))
    with pytest.raises(InputError, match=r"of .* training edges, more than the share of 0.04.*retrain"):
        forget(two, None, rest, method="finetune", out=tmp_path / "three", references=0, budget=budget)
    three = forget(two, None, rest, method="retrain", out=tmp_path / "three", references=0, budget=budget)
    assert three.config["unlearning"]["spent"] == {
        "edges": 0, "of": len(data.interactions("train")) - 8 * 7, "requests": 0, "utility": 0.0,
    }  # fmt: skip


def test_the_budget_is_for_what_is_not_exact() -> None:
    assert METHODS["receraser"](partition="hash").reaches() == "exact"  # type: ignore[call-arg]
    assert METHODS["receraser"]().reaches() == "conditional"
    assert METHODS["gif"]().reaches() == "approximate" and METHODS["retrain"]().reaches() == "exact"


def test_an_approximate_method_claims_no_more_than_was_shown(run: Run, data: RecDataset, tmp_path: Path) -> None:
    new = forget(run, data, ForgetRequest(users=GONE), method="finetune", out=tmp_path / "new", references=0)
    claims = json.loads((new.path / "forgetting.json").read_text())["claims"]
    assert claims["model"]["level"] == "L1" and claims["model"]["asked"] == "L2"
    assert "not run" in (new.path / "forgetting.html").read_text()


def test_a_closed_form_forgets_by_being_solved_again(data: RecDataset, tmp_path: Path) -> None:
    graphrec.fit(EASE(data), data, out=tmp_path / "ease", **FIT)
    with pytest.raises(
        InputError, match=r"finetune does not support EASE: it is a closed form.*Methods that do: retrain"
    ):
        forget(tmp_path / "ease", data, ForgetRequest(users=GONE), method="finetune", out=tmp_path / "new")
    new = forget(tmp_path / "ease", data, ForgetRequest(users=GONE), out=tmp_path / "new", references=1)
    assert new.model().num_users == data.num_users - 2


def test_lists_made_from_the_old_run_are_named(run: Run, data: RecDataset, tmp_path: Path) -> None:
    Recommender.from_pretrained(run).recommend_all(tmp_path / "lists.parquet", k=3)
    with pytest.warns(UserWarning, match=r"lists\.parquet, made from the run before, still holds what was forgotten"):
        new = forget(Run(run.path), data, ForgetRequest(users=GONE), out=tmp_path / "new", references=0)
    evidence = json.loads((new.path / "forgetting.json").read_text())
    assert not evidence["scan"]["ok"] and "caches" not in evidence["claims"]
    assert "lists.parquet" in (new.path / "forgetting.html").read_text()


@pytest.mark.parametrize(
    ("asked", "interactions"),
    [
        (ForgetRequest(texts=("i4",), features=(("i2", None),)), False),
        (ForgetRequest(behaviours=(("views", None),)), False),
        (ForgetRequest(relations=("made_by",)), False),
        (ForgetRequest(users=("u3",), items=("i1",)), True),
    ],
)
def test_requests_of_every_kind_end_in_a_run_with_evidence(
    asked: ForgetRequest, interactions: bool, tmp_path: Path
) -> None:
    """On a catalogue of ten items, with lists as long as those that the run was tested with."""
    data = world()
    options = {"epochs": 2, "progress": False, "report": False, "ks": (5,), "metric": "recall@5"}
    run = graphrec.fit(LightGCN(data, dim=4), data, out=tmp_path / "run", **options)
    new = forget(run, data, asked, method="finetune", out=tmp_path / "new", references=1, budget=Budget(share=1.0))
    found = json.loads((new.path / "forgetting.json").read_text())
    assert found["scan"]["ok"] and set(found["evidence"]["rows"].values()) == {"measured"}
    none_taken = any("takes no training interaction away" in note for note in found["evidence"]["notes"])
    assert none_taken != interactions
    left = compacted(data, resolve(asked, data))
    assert new.fingerprint == left.fingerprint
    assert "recall@5" in new.metrics


def test_nothing_to_forget_gives_the_same_model(run: Run, data: RecDataset, tmp_path: Path) -> None:
    new = forget(run, data, ForgetRequest(users=(10**6,)), method="finetune", out=tmp_path / "new")
    assert new.files["model.safetensors"]["sha256"] == run.files["model.safetensors"]["sha256"]
    assert new.config["unlearning"]["counts"] == {"unknown/users": 1}


def test_what_a_request_would_touch(run: Run, data: RecDataset) -> None:
    found = preview(run.model(), data, resolve(ForgetRequest(users=GONE, items=(10**6,)), data), run)
    assert found.edges == {"user__interacts__item/train": 14, "user__interacts__item/test": 6}
    assert (found.users, found.emptied_users, found.nodes) == (2, 2, {"user": 2})
    assert found.unknown == {"items": 1} and found.share == pytest.approx(14 / 630)
    assert found.seconds["retrain"] == pytest.approx(run.metrics["seconds"] * (1 - found.share))
    assert json.loads(json.dumps(found.to_dict()))["shards"] is None


def test_bad_requests_change_nothing(run: Run, data: RecDataset, tmp_path: Path) -> None:
    everybody = tuple(data.vocabularies["user"].raw.tolist())
    other = data.without(data.interactions("train").edge_id[:1])
    for asked, options, message in (
        (ForgetRequest(users=everybody), {}, "nothing would be left to learn from"),
        (ForgetRequest(users=(10**6,)), {"strict": True}, "nothing was done"),
        (ForgetRequest(users=GONE), {"method": "finetun"}, "Did you mean 'finetune'"),
        (ForgetRequest(users=GONE), {"method": "finetune", "options": {"epoch": 3}}, "Did you mean 'epochs'"),
        (ForgetRequest(users=GONE), {"method": "finetune", "options": {"epochs": 0}}, "epochs must be 1 or more"),
        (ForgetRequest(users=GONE), {"method": "sisa"}, "was not prepared for sisa"),
        (ForgetRequest(users=GONE), {"out": run.path}, "is the run itself"),
        (ForgetRequest(edges={"user__interacts__item": (1,)}, fingerprint="0"), {}, "edge ids mean something else"),
        ({"user": [1]}, {}, "Did you mean 'users'"),
    ):
        with pytest.raises(InputError, match=message):
            forget(run, data, asked, **{"out": tmp_path / "new", **options})
    with pytest.raises(InputError, match=r"is not the one that .* was trained on"):
        forget(run, other, ForgetRequest(users=GONE), out=tmp_path / "new")
    with pytest.raises(InputError, match="forget works on a run"):
        forget(run.model(), data, ForgetRequest(users=GONE), out=tmp_path / "new")
    assert Mask.read(run.path) is None and sorted(entry.name for entry in tmp_path.iterdir()) == ["run"]


def test_a_run_whose_data_is_not_at_hand_says_so(run: Run, files: Path, tmp_path: Path) -> None:
    moved = files.with_name("elsewhere")
    os.rename(files, moved)
    try:
        with pytest.raises(MissingFileError, match="is not there"):
            forget(run, None, ForgetRequest(users=GONE), out=tmp_path / "new")
    finally:
        os.rename(moved, files)


def test_the_lock_ends_with_its_holder(run: Run) -> None:
    with lock(run), pytest.raises(InputError, match="another request"), lock(run):
        pytest.fail("two requests at once")
    with lock(run) as again:
        assert again.folder.is_dir()
