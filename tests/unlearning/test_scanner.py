"""One leak of every kind, each caught; and a run that holds nothing passes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor

from graphrec.datasets.cache import save_dataset
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.bpr_mf import BPRMF
from graphrec.models.item_knn import ItemKNN
from graphrec.models.kgat import KGAT
from graphrec.models.kgcn import KGCN
from graphrec.models.popularity import Popularity
from graphrec.models.ripplenet import RippleNet
from graphrec.models.user_knn import UserKNN
from graphrec.runs import Run
from graphrec.runs.manifest import yaml_bytes
from graphrec.runs.tensors import read_tensors, write_tensors
from graphrec.serving import Recommender
from graphrec.serving.mask import MASK, Mask
from graphrec.training.checkpoint import Standing, write_checkpoint
from graphrec.training.job import Job
from graphrec.training.options import FitOptions
from graphrec.unlearning import audit
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import Resolved, compacted
from graphrec.unlearning.scanner import Scan, lines_of, scan, scan_further
from tests.models.planted import planted
from tests.models.planted_kg import planted_kg
from tests.unlearning.forgotten import GONE_ITEM, GONE_NAME, GONE_USER, World, world

GONE_CODE = 5


@pytest.fixture(scope="module")
def films_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("films"), dim=8, num_layers=2)


@dataclass
class Spoiled:
    """A copy of the clean run, and what a leak puts where."""

    world: World
    run: Run
    folder: Path
    also: list[Path] = field(default_factory=list)
    before: Run | None = None

    def tensors(self, name: str, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
        """Change a file of tensors, the manifest with it."""
        values, header = read_tensors(self.run.path / name)
        change(values, header)
        made = self.folder / "made.safetensors"
        write_tensors(made, values, header)
        self.run = self.run.add({name: made})

    def text(self, name: str, old: str, new: str) -> None:
        """Change a text file, the manifest with it."""
        text = (self.run.path / name).read_text()
        assert old in text
        self.run = self.run.add({name: text.replace(old, new, 1)})

    def table(self, name: str, table: pa.Table) -> None:
        """Change a parquet file, the manifest with it."""
        pq.write_table(table, self.folder / "made.parquet")
        self.run = self.run.add({name: self.folder / "made.parquet"})

    def scan(self) -> Scan:
        before = self.world.before if self.before is None else self.before
        return scan(self.run, self.world.resolved, self.world.data, before, self.also)


@pytest.fixture
def spoiled(films_world: World, tmp_path: Path) -> Spoiled:
    return Spoiled(films_world, films_world.copy(tmp_path), tmp_path)


def gone_row(world: World) -> Tensor:
    return world.before.weights()["user_embedding"][GONE_CODE].clone()


# -- the leaks ---------------------------------------------------------------------------------------------------------


def edge_again(spoiled: Spoiled, edge_id: int | None = None) -> None:
    """A forgotten pair of two who stay is put back into the training graph."""
    data, run = spoiled.world.data, spoiled.run
    table = data.interactions("train")
    gone = np.flatnonzero(np.isin(table.edge_id, spoiled.world.resolved.edges[data.target]))
    kept_users, kept_items = run.vocabularies["user"], run.vocabularies["item"]
    for row in gone:
        user = int(kept_users.encode([data.vocabularies["user"].raw[table.source[row]]], unknown="mark")[0])
        item = int(kept_items.encode([int(table.target[row])], unknown="mark")[0])
        if user >= 0 and item >= 0:
            break

    def change(values: dict[str, Tensor], header: dict[str, Any]) -> None:
        at = int(values["rowptr"][user + 1])
        values["rowptr"][user + 1 :] += 1
        for name, value in (
            ("col", item),
            ("edge_id", int(table.edge_id[row]) if edge_id is None else edge_id),
            ("rating", 3.0),
        ):
            old = values[name]
            values[name] = torch.cat([old[:at], torch.tensor([value], dtype=old.dtype), old[at:]])

    spoiled.tensors("seen.safetensors", change)


def edge_under_another_number(spoiled: Spoiled) -> None:
    edge_again(spoiled, 10**6)


def edge_lost(spoiled: Spoiled) -> None:
    """Somebody else's edge is missing."""

    def change(values: dict[str, Tensor], header: dict[str, Any]) -> None:
        first = int((values["rowptr"] > 0).nonzero()[0])
        values["rowptr"][first:] -= 1
        for name in ("col", "edge_id", "rating"):
            values[name] = values[name][1:].clone()

    spoiled.tensors("seen.safetensors", change)


def other_rating(spoiled: Spoiled) -> None:
    spoiled.tensors("seen.safetensors", lambda values, header: values["rating"][3:4].add_(1))


def degrees_that_do_not_add_up(spoiled: Spoiled) -> None:
    spoiled.tensors("seen.safetensors", lambda values, header: values["rowptr"][-1:].add_(1))


def old_degrees_as_attribute(spoiled: Spoiled) -> None:
    data = spoiled.world.data
    degrees = np.bincount(data.interactions("train").source, minlength=data.num_users)
    old = torch.from_numpy(np.delete(degrees, GONE_CODE))
    spoiled.tensors("inputs.safetensors", lambda values, header: values.update({"node/user/activity": old}))


def old_counts_of_users(spoiled: Spoiled) -> None:
    table = spoiled.run.per_user()
    assert table is not None
    column = table["train"].to_numpy().copy()
    column[9] += 1
    spoiled.table("per_user.parquet", table.set_column(2, "train", pa.array(column)))


def history_too_long(spoiled: Spoiled) -> None:
    text = (spoiled.run.path / "report.html").read_text()
    entry = re.search(r"<h4>History \(training part\)</h4><ul>(<li>[^<]*</li>)", text)
    assert entry is not None
    spoiled.text("report.html", entry.group(1), entry.group(1) * 2)


def forgotten_pair_in_an_example(spoiled: Spoiled) -> None:
    """An example whose history has what the user took back; both are still there."""
    own = (spoiled.run.path / "report.html").read_text()
    start, end = own.index("<article"), own.rindex("</article>") + len("</article>")
    card = (
        '<article class="card"><h3>user U009x</h3><div class="pair"><div><h4>History (training part)</h4><ul>'
        "<li>The Lost Valley 4</li></ul></div><div><h4>Recommended</h4><ol></ol></div></div></article>"
    )
    spoiled.run = spoiled.run.add({"report.html": own[:start] + card + own[end:]})


def hit_that_was_forgotten(spoiled: Spoiled) -> None:
    """An example that says a training item was found in the test part."""
    own = (spoiled.run.path / "report.html").read_text()
    found = re.search(r"<h4>Recommended</h4><ol><li>[^<]*<small>[^<]*</small>", own)
    assert found is not None
    hit = ' <span class="hit">in the test part</span>'
    assert not own[found.end() :].startswith(hit)
    spoiled.run = spoiled.run.add({"report.html": own[: found.end()] + hit + own[found.end() :]})


def old_row_in_the_model(spoiled: Spoiled) -> None:
    row = gone_row(spoiled.world)
    spoiled.tensors("model.safetensors", lambda values, header: values["user_embedding"][2].copy_(row))


def old_row_in_the_state(spoiled: Spoiled) -> None:
    made = spoiled.folder / "shard.safetensors"
    write_tensors(made, {"tables": torch.stack([torch.randn(8), gone_row(spoiled.world)]).half()})
    spoiled.run = spoiled.run.add({"state/shard.safetensors": made}, {"state/shard.safetensors": ["parameters"]})


def moments_in_the_state(spoiled: Spoiled) -> None:
    made = spoiled.folder / "shard.safetensors"
    write_tensors(made, {"optimiser/pairs/0/exp_avg": torch.ones(spoiled.world.data.num_users, 8)})
    spoiled.run = spoiled.run.add({"state/moments.safetensors": made}, {"state/moments.safetensors": ["optimiser"]})


def edge_numbers_in_the_state(spoiled: Spoiled) -> None:
    ids = torch.from_numpy(spoiled.world.data.tables[spoiled.world.data.target].edge_id.copy())
    made = spoiled.folder / "shards.safetensors"
    write_tensors(made, {"edge_id": ids, "shard": torch.zeros(len(ids), dtype=torch.int8)})
    spoiled.run = spoiled.run.add({"state/shards.safetensors": made}, {"state/shards.safetensors": ["edge ids"]})


def checkpoint_of_before(spoiled: Spoiled) -> None:
    """The optimiser's moments of a training with the data, beside the run."""
    world = spoiled.world
    model = type(world.before.model())(world.data, **world.before.config["hparams"])
    job = Job(model, world.data, FitOptions(epochs=1, progress=False), report=False)
    phase = model.phases()[0]
    assert phase.optimiser is not None
    optimiser = phase.optimiser(phase.parameters)
    batch = next(iter(phase.batches(0, torch.Generator().manual_seed(0))))
    sum(phase.loss(batch).values(), torch.zeros(())).backward()
    optimiser.step()
    folder = spoiled.run.path.with_name("after.training")
    folder.mkdir()
    write_checkpoint(
        folder,
        standing=Standing(epoch=1),
        config=job.config(),
        weights=world.before.weights(),
        optimisers={"pairs": optimiser},
        scalers={},
        steps={},
    )


def old_lists(spoiled: Spoiled) -> None:
    """Lists that were made before, named in the manifest of the run before."""
    spoiled.before = spoiled.world.copy(spoiled.folder, "before")
    file = Recommender.from_pretrained(spoiled.before).recommend_all(spoiled.folder / "lists.parquet", k=5)
    spoiled.before.record(file, ["ids", "lists"])


def old_lists_of_others(spoiled: Spoiled) -> None:
    """Nobody who is gone is in them, but the model before made them."""
    old = Recommender.from_pretrained(spoiled.world.copy(spoiled.folder, "before"))
    frame = old.recommend(["U001x", "U002x"], k=5, candidates=[1, 2, 3, 4, 5, 6])
    frame.to_parquet(spoiled.folder / "some.parquet")
    spoiled.also.append(spoiled.folder / "some.parquet")


def metrics_of_somebody_gone(spoiled: Spoiled) -> None:
    table = spoiled.run.per_user()
    assert table is not None
    more = table.slice(0, 1).set_column(0, "user", pa.array([GONE_USER], table["user"].type))
    spoiled.table("per_user.parquet", pa.concat_tables([table, more]))


def metrics_of_before(spoiled: Spoiled) -> None:
    metrics = {**spoiled.run.metrics, "recall@20": spoiled.run.metrics["recall@20"] + 0.01}
    spoiled.run = spoiled.run.add({"metrics.json": json.dumps(metrics)})


def id_in_the_report(spoiled: Spoiled) -> None:
    spoiled.text("report.html", "<main>", f"<main><!-- {GONE_USER} -->")


def name_in_the_report(spoiled: Spoiled) -> None:
    spoiled.text("report.html", "<main>", f"<main><p>{GONE_NAME}</p>")


def number_in_the_report(spoiled: Spoiled) -> None:
    spoiled.text("report.html", "<main>", f"<main><p>item {GONE_ITEM}</p>")


def id_in_the_config(spoiled: Spoiled) -> None:
    spoiled.run = spoiled.run.add({"config.yaml": yaml_bytes({**spoiled.run.config, "asked_by": [GONE_USER]})})


def id_in_a_comment_of_the_config(spoiled: Spoiled) -> None:
    spoiled.run = spoiled.run.add({"config.yaml": yaml_bytes(spoiled.run.config) + b"# user " + GONE_USER.encode()})


def number_in_the_config(spoiled: Spoiled) -> None:
    spoiled.run = spoiled.run.add({"config.yaml": yaml_bytes({**spoiled.run.config, "items": [1, GONE_ITEM]})})


def unknown_id_in_the_config(spoiled: Spoiled) -> None:
    """Of somebody who asked and was not in the data."""
    spoiled.run = spoiled.run.add({"config.yaml": yaml_bytes({**spoiled.run.config, "x": "nobody-of-this-name"})})


def old_data_in_the_config(spoiled: Spoiled) -> None:
    dataset = {**spoiled.run.config["dataset"], "fingerprint": spoiled.world.data.fingerprint}
    spoiled.run = spoiled.run.add({"config.yaml": yaml_bytes({**spoiled.run.config, "dataset": dataset})})


def id_in_the_history(spoiled: Spoiled) -> None:
    spoiled.text("history.csv", "loss", f"loss of {GONE_USER}")


def id_in_a_metric(spoiled: Spoiled) -> None:
    spoiled.run = spoiled.run.add({"metrics.json": json.dumps({**spoiled.run.metrics, f"item/{GONE_ITEM}": 1.0})})


def id_in_metadata(spoiled: Spoiled) -> None:
    table = spoiled.run.per_user()
    assert table is not None
    spoiled.table("per_user.parquet", table.replace_schema_metadata({**table.schema.metadata, "left_out": GONE_USER}))


def id_in_unused_values(spoiled: Spoiled) -> None:
    """A dictionary of a column keeps values that no row has."""
    table = pq.read_table(spoiled.run.path / "ids/user.parquet")
    values = pa.array([*table["id"].to_pylist(), GONE_USER], pa.large_string())
    column = pa.DictionaryArray.from_arrays(pa.array(np.arange(len(table)), pa.int32()), values)
    spoiled.table("ids/user.parquet", table.set_column(0, "id", column))


def id_in_the_id_table(spoiled: Spoiled) -> None:
    old = spoiled.world.before.path / "ids/user.parquet"
    spoiled.run = spoiled.run.add({"ids/user.parquet": old})


def name_in_the_id_table(spoiled: Spoiled) -> None:
    table = pq.read_table(spoiled.run.path / "ids/item.parquet")
    names = table["name"].to_pylist()
    names[0] = GONE_NAME
    spoiled.table("ids/item.parquet", table.set_column(1, "name", pa.array(names)))


def old_feature_row(spoiled: Spoiled) -> None:
    old = torch.from_numpy(spoiled.world.data.features["item", "image"][11].copy())
    spoiled.tensors("inputs.safetensors", lambda values, header: values["node/item/x_image"][10].copy_(old))


def unlisted_file(spoiled: Spoiled) -> None:
    (spoiled.run.path / "notes.txt").write_text("nothing in particular")


def hidden_file_in_a_folder(spoiled: Spoiled) -> None:
    (spoiled.run.path / "ids" / ".cache").mkdir()
    (spoiled.run.path / "ids" / ".cache" / "rows.npy").write_bytes(b"")


def file_of_unknown_content(spoiled: Spoiled) -> None:
    spoiled.run = spoiled.run.add({"state/rest.pkl": b"\x80"}, {"state/rest.pkl": ["parameters"]})


def file_that_does_not_say_what_it_holds(spoiled: Spoiled) -> None:
    spoiled.run = spoiled.run.add({"notes.txt": "nothing in particular"})


def missing_file(spoiled: Spoiled) -> None:
    (spoiled.run.path / "environment.json").unlink()


def tensor_of_no_model(spoiled: Spoiled) -> None:
    spoiled.tensors("model.safetensors", lambda values, header: values.update({"more": torch.ones(3)}))


def copy_left_by_a_dead_process(spoiled: Spoiled) -> None:
    shutil.copytree(spoiled.world.before.path, spoiled.run.path.with_name("after.tmp-1-abc"))


def mask_that_names_people(spoiled: Spoiled) -> None:
    file = spoiled.folder / MASK
    Mask(torch.tensor([5]), torch.tensor([7]), torch.tensor([[9], [4]])).write(file)
    spoiled.run = spoiled.run.add({MASK: file})


def old_vectors(ending: str) -> Callable[[Spoiled], None]:
    def plant(spoiled: Spoiled) -> None:
        file = spoiled.folder / f"vectors{ending}"
        # The manifest of the run that it was made from names it, so that is a copy.
        old = Recommender.from_pretrained(spoiled.world.copy(spoiled.folder, "before"))
        spoiled.also.append(old.export_embeddings(file))

    plant.__name__ = f"old_vectors{ending}"
    return plant


def old_index(spoiled: Spoiled) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    vectors = spoiled.world.before.model().encoded().items.numpy()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    faiss.write_index(index, str(spoiled.folder / "items.faiss"))
    spoiled.also.append(spoiled.folder / "items.faiss")


def converted_copy_of_the_data(spoiled: Spoiled) -> None:
    spoiled.also.append(save_dataset(spoiled.world.data, spoiled.folder / "copy"))


def run_of_before(spoiled: Spoiled) -> None:
    spoiled.also.append(spoiled.world.before.path)


def id_in_events(spoiled: Spoiled) -> None:
    folder = spoiled.folder / "tensorboard"
    folder.mkdir()
    (folder / "events.out.tfevents.1.host").write_bytes(b"\x18\0\0\0\0\0\0\0\x0closs/" + GONE_USER.encode() + b"\x12")
    spoiled.also.append(folder)


def id_in_the_audit_log(spoiled: Spoiled) -> None:
    run = spoiled.run.add(audit.carried())
    # append() would refuse it where it is told what to look for.
    spoiled.run = audit.append(run, {"event": "forgotten", "note": f"user {GONE_USER} asked"})


LEAKS: list[tuple[Callable[[Spoiled], None], str]] = [
    (edge_again, "row"),
    (edge_under_another_number, "row"),
    (edge_lost, "row"),
    (other_rating, "row"),
    (degrees_that_do_not_add_up, "degree"),
    (old_degrees_as_attribute, "degree"),
    (old_counts_of_users, "degree"),
    (history_too_long, "degree"),
    (forgotten_pair_in_an_example, "row"),
    (hit_that_was_forgotten, "row"),
    (old_row_in_the_model, "embedding row"),
    (old_row_in_the_state, "embedding row"),
    (moments_in_the_state, "optimiser row"),
    (edge_numbers_in_the_state, "row"),
    (checkpoint_of_before, "optimiser row"),
    (checkpoint_of_before, "embedding row"),
    (old_lists, "list"),
    (old_lists_of_others, "list"),
    (metrics_of_somebody_gone, "metric"),
    (metrics_of_before, "metric"),
    (id_in_the_report, "raw id"),
    (name_in_the_report, "raw id"),
    (number_in_the_report, "raw id"),
    (id_in_the_config, "raw id"),
    (id_in_a_comment_of_the_config, "raw id"),
    (number_in_the_config, "raw id"),
    (unknown_id_in_the_config, "raw id"),
    (old_data_in_the_config, "stale"),
    (id_in_the_history, "raw id"),
    (id_in_a_metric, "raw id"),
    (id_in_metadata, "raw id"),
    (id_in_unused_values, "raw id"),
    (id_in_the_id_table, "raw id"),
    (name_in_the_id_table, "text"),
    (old_feature_row, "feature"),
    (unlisted_file, "unlisted file"),
    (hidden_file_in_a_folder, "unlisted file"),
    (file_of_unknown_content, "unknown file"),
    (file_that_does_not_say_what_it_holds, "unknown file"),
    (missing_file, "missing file"),
    (tensor_of_no_model, "unreadable file"),
    (copy_left_by_a_dead_process, "unlisted file"),
    (mask_that_names_people, "mask"),
    (old_vectors(".npz"), "vector"),
    (old_vectors(".safetensors"), "embedding row"),
    (old_vectors(".parquet"), "stale"),
    (old_index, "embedding row"),
    (converted_copy_of_the_data, "row"),
    (run_of_before, "stale"),
    (id_in_events, "raw id"),
    (id_in_the_audit_log, "raw id"),
]


@pytest.mark.parametrize(("plant", "kind"), LEAKS, ids=[f"{plant.__name__}-{kind}" for plant, kind in LEAKS])
def test_a_leak_is_caught(spoiled: Spoiled, plant: Callable[[Spoiled], None], kind: str) -> None:
    plant(spoiled)
    found = spoiled.scan()
    assert not found.ok
    assert kind in [finding.kind for finding in found.findings], lines_of(found)
    # What is found goes to logs, so it names nobody.
    assert not any(word in line for line in found.lines() for word in (GONE_USER, GONE_NAME, "nobody-of"))


# -- runs that hold nothing --------------------------------------------------------------------------------------------


def test_a_clean_run_passes(spoiled: Spoiled) -> None:
    new = Recommender.from_pretrained(spoiled.run)
    for ending in (".npz", ".safetensors", ".parquet"):
        spoiled.also.append(new.export_embeddings(spoiled.folder / f"vectors{ending}"))
    spoiled.also.append(new.recommend_all(spoiled.folder / "lists.parquet", k=5))
    spoiled.also.append(save_dataset(_kept(spoiled.world), spoiled.folder / "copy"))
    made = spoiled.folder / "shard.safetensors"
    write_tensors(made, {"tables": torch.randn(5, 8)})
    spoiled.run = spoiled.run.add(
        {**audit.carried(), "state/shard.safetensors": made}, {"state/shard.safetensors": ["parameters"]}
    )
    spoiled.run = audit.append(spoiled.run, {"event": "forgotten", "touched": {"users": 5, "items": 7}})
    spoiled.run.record(spoiled.folder / "lists.parquet", ["ids", "lists"])
    found = spoiled.scan()
    assert found.ok, lines_of(found)
    assert [finding.kind for finding in found.left] == ["stale"]
    assert {entry.where for entry in found.checked} >= set(spoiled.run.files)
    assert found.summary()["findings"] == {}
    assert found.summary()["checked"] == len(found.checked)
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def test_exports_are_named_by_themselves(spoiled: Spoiled) -> None:
    """Nobody has to remember what was made from a run: its manifest does."""
    old = spoiled.before = spoiled.world.copy(spoiled.folder, "before")
    made = Recommender.from_pretrained(old)
    made.recommend_all(spoiled.folder / "lists.parquet", k=5)
    made.export_embeddings(spoiled.folder / "vectors.npz")
    spoiled.before = Run(old.path)
    named = [(Path(cache["path"]).name, cache["holds"]) for cache in spoiled.before.manifest["caches"]]
    assert named == [("lists.parquet", ["ids", "lists"]), ("vectors.npz", ["ids", "vectors"])]
    assert {finding.where for finding in spoiled.scan().findings} == {"lists.parquet", "vectors.npz"}
    (spoiled.folder / "lists.parquet").unlink()
    (spoiled.folder / "vectors.npz").unlink()
    found = spoiled.scan()
    assert found.ok, lines_of(found)
    assert sum(entry.what == "that it is gone" for entry in found.checked) == 2


def test_a_clean_index_passes(spoiled: Spoiled) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    vectors = spoiled.run.model().encoded().users.numpy()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(spoiled.folder / "users.faiss"))
    spoiled.also.append(spoiled.folder / "users.faiss")
    assert spoiled.scan().ok


def test_a_training_on_what_remains_may_lie_beside_it(spoiled: Spoiled, films_world: World) -> None:
    checkpoint_of_before(replace(spoiled, world=replace(films_world, data=_kept(films_world), before=spoiled.run)))
    found = spoiled.scan()
    assert [finding.kind for finding in found.findings] == ["unlisted file"], lines_of(found)
    spoiled.run.record(spoiled.run.path.with_name("after.training"), ["parameters", "optimiser"])
    found = spoiled.scan()
    assert found.ok, lines_of(found)


def _kept(world: World) -> RecDataset:
    return compacted(world.data, world.resolved)


def test_the_run_before_is_full_of_it(films_world: World) -> None:
    found = scan(films_world.before, films_world.resolved, films_world.data)
    assert {"row", "raw id", "metric", "feature", "text", "stale"} <= {finding.kind for finding in found.findings}


def test_a_request_of_pairs_alone(tmp_path: Path) -> None:
    """Everybody stays, but one user keeps no edge: the learned row has to go."""
    data = planted(40, 24, 4, 8)
    table = data.interactions("train")
    pairs = tuple((6, int(item)) for item in table.target[table.source == 6])
    made = world(tmp_path, BPRMF, ForgetRequest(pairs=pairs), data, dim=8)
    clean = scan(made.after, made.resolved, data, made.before)
    assert clean.ok, lines_of(clean)

    def change(values: dict[str, Tensor], header: dict[str, Any]) -> None:
        values["user_embedding"][6] = made.before.weights()["user_embedding"][6]

    spoiled = Spoiled(made, made.after, tmp_path)
    spoiled.tensors("model.safetensors", change)
    assert [finding.kind for finding in spoiled.scan().findings] == ["embedding row"]


# -- what is made of edges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [ItemKNN, UserKNN, Popularity], ids=lambda model: model.__name__)
def test_closed_forms(model: Any, tmp_path: Path) -> None:
    made = world(tmp_path, model, **({"k": 5} if model is not Popularity else {}))
    clean = scan(made.after, made.resolved, made.data, made.before)
    assert clean.ok, lines_of(clean)
    spoiled = Spoiled(made, made.after, tmp_path)

    def change(values: dict[str, Tensor], header: dict[str, Any]) -> None:
        if model is Popularity:
            counts = np.bincount(made.data.interactions("train").target, minlength=made.data.num_items)
            values["popularity"] = torch.from_numpy(np.delete(counts, GONE_ITEM)).float()
        elif model is ItemKNN:
            values["weight_col"][4] = (values["weight_col"][4] + 1) % 31
        else:
            counts = np.bincount(made.data.interactions("train").source, minlength=made.data.num_users)
            values["degrees"] = torch.from_numpy(np.delete(counts, GONE_CODE)).to(values["degrees"])

    spoiled.tensors("model.safetensors", change)
    wanted = "neighbour" if model is ItemKNN else "degree"
    found = spoiled.scan()
    assert wanted in [finding.kind for finding in found.findings], lines_of(found)
    # The run alone can tell as much: its training graph makes something else of it.
    assert not scan(spoiled.run).ok


@pytest.mark.parametrize("model", [KGAT, KGCN, RippleNet], ids=lambda model: model.__name__)
def test_models_of_knowledge(model: Any, tmp_path: Path) -> None:
    data = planted_kg(40, 24, 8)
    request = ForgetRequest(users=(5,), items=(7,), triples=((3, "made_by", _maker(data, 3)),))
    made = world(tmp_path, model, request, data)
    clean = scan(made.after, made.resolved, data, made.before)
    assert clean.ok, lines_of(clean)
    spoiled = Spoiled(made, made.after, tmp_path)
    values, _ = read_tensors(made.after.path / "model.safetensors")
    buffers = [name for name in made.after.model().derived() if name in values]
    assert buffers

    def change(values: dict[str, Tensor], header: dict[str, Any]) -> None:
        one = values[buffers[0]].view(-1)
        one[0] = one[0] + 1

    spoiled.tensors("model.safetensors", change)
    assert {finding.kind for finding in spoiled.scan().findings} & {"derived", "neighbour"}
    # Triples that go are gone from inputs.safetensors as well.
    old = scan(made.before, made.resolved, data)
    assert any(finding.where == "inputs.safetensors" and finding.kind == "row" for finding in old.findings)


def _maker(data: Any, item: int) -> int:
    table = next(table for name, table in data.tables.items() if name[0] == "item" and name[2] == "entity")
    made_by = int(data.relations.encode(["made_by"])[0])
    assert table.relation is not None
    row = np.flatnonzero((table.source == item) & (table.relation == made_by))[0]
    return int(data.vocabularies["entity"].raw[table.target[row]])


# -- without the request -----------------------------------------------------------------------------------------------


def test_what_a_run_can_tell_by_itself(spoiled: Spoiled) -> None:
    assert scan(spoiled.run).ok
    assert any(not entry.full for entry in scan(spoiled.run).checked)
    for plant in (degrees_that_do_not_add_up, unlisted_file, old_counts_of_users, missing_file):
        fresh = Spoiled(spoiled.world, spoiled.world.copy(spoiled.folder / plant.__name__), spoiled.folder)
        plant(fresh)
        assert not scan(fresh.run).ok
    old_vectors(".npz")(spoiled)
    assert {finding.kind for finding in scan(spoiled.run, also=spoiled.also).findings} == {"vector", "stale"}


def test_bad_questions(films_world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both the request"):
        scan(films_world.after, films_world.resolved)
    with pytest.raises(InputError, match="resolve it again"):
        scan(films_world.after, replace(films_world.resolved, fingerprint="other"), films_world.data)
    with pytest.raises(InputError, match="no run folder"):
        scan(tmp_path)
    nothing = Resolved(films_world.data.fingerprint)
    assert scan(films_world.before, nothing, films_world.data, films_world.before).ok
    yaml.safe_load((films_world.after.path / "config.yaml").read_text())


def test_a_scan_goes_on_with_what_was_added(spoiled: Spoiled) -> None:
    """Files that were added or replaced are read, and no others; what is found is what a whole scan finds."""
    of = spoiled.world
    first = scan(spoiled.run, of.resolved, of.data, before=of.before)
    assert first.ok
    run = spoiled.run.add({"forgetting.json": json.dumps({"users": [GONE_USER]}), "metrics.json": "{}"})
    found, whole = scan_further(first, run), scan(run, of.resolved, of.data, before=of.before)
    assert found.findings == whole.findings and {entry.where for entry in found.findings} == {"forgetting.json"}
    assert sorted(map(str, found.checked)) == sorted(map(str, whole.checked)) and found.left == whole.left
    run = run.add({}, remove=("forgetting.json",))
    assert scan_further(found, run).ok
    (run.path / "stray.txt").write_text("something")
    assert [entry.kind for entry in scan_further(found, run).findings] == ["unlisted file"]
    with pytest.raises(InputError, match="same run"):
        scan_further(first, of.before)
    with pytest.raises(InputError, match="graph or the model is another"):
        scan_further(first, run.add({"model.safetensors": of.before.path / "model.safetensors"}))
