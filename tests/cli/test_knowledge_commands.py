"""A catalogue on the command line: trained on, noted in the run, loaded again, looked at for leaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from graphrec.cli import main

Call = Callable[..., tuple[int, str, str]]
TRAIN = ("train", "--model", "KGIN", "--epochs", "1", "--model.dim", "4", "--report", "false", "--json", "--root", ".")
CATALOGUE = ("--kg", "goods.csv", "--kg-columns", "brand=made_by,tags=has:separator=|", "--kg-options", "max_share=1.0")


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Commands in a folder with a shop: 30 users, 20 items, a catalogue, and what is bought together."""
    folder = tmp_path / "shop"
    folder.mkdir()
    seen = {user: [(user + 3 * step) % 20 for step in range(6)] for user in range(30)}
    for part, cut in (("train", slice(0, 4)), ("test", slice(4, 6))):
        lines = (" ".join(map(str, [user, *items[cut]])) for user, items in seen.items())
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")
    goods = (f"{item},brand {item % 4},{'red|' if item % 2 else ''}size {item % 3}" for item in range(20))
    (folder / "goods.csv").write_text("\n".join(["sku,brand,tags", *goods]) + "\n")
    bought = {f"{items[4]}\talso_bought\t{items[5]}" for items in seen.values()}
    (folder / "bought.tsv").write_text("\n".join(sorted(bought)) + "\n")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        caught = capfd.readouterr()
        return status, caught.out, caught.err

    return run


def test_train_on_a_catalogue_and_again_by_its_config(call: Call, tmp_path: Path) -> None:
    status, out, error = call(*TRAIN, "--dataset", "shop", *CATALOGUE, "--out", "run")
    assert status == 0, error
    assert "shop: 20 items matched: 20 of 20 items of the dataset (100.0%)" in error
    noted = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["dataset"]
    assert noted["kg"] == "goods.csv" and json.loads(noted["kg_options"]) == {"max_share": 1.0}
    again, other, error = call("train", "--config", "run/config.yaml", "--out", "again", "--report", "false", "--json")
    assert again == 0, error
    assert json.loads(other)["recall@20"] == json.loads(out)["recall@20"]
    status, out, error = call("recommend", "run", "--users", "3", "--k", "2", "--json")
    assert status == 0 and len(json.loads(out)) == 2, error
    status, out, error = call("evaluate", "run", "--json")
    assert status == 0, error


def test_the_report_explains_a_recommendation(call: Call, tmp_path: Path) -> None:
    words = [word for word in TRAIN if word not in ("--report", "false")]
    status, out, error = call(*words, "--dataset", "shop", *CATALOGUE, "--out", "run")
    assert status == 0, error
    explained = json.loads((tmp_path / "run" / "explanations.json").read_text())["explanations"]
    assert len(explained) == 1
    user, item = explained[0]["user"], explained[0]["item"]
    status, out, error = call("recommend", "run", "--users", user, "--k", "20", "--json")
    assert item in [line["item"] for line in json.loads(out)], error
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"item {item}" in page and "<svg" in page and "made_by" in page
    status, out, error = call(*words, "--dataset", "shop", *CATALOGUE, "--out", "without", "--explain", "false")
    assert status == 0 and not (tmp_path / "without" / "explanations.json").exists(), error
    assert (tmp_path / "without" / "report.html").is_file()


def test_what_is_refused(call: Call) -> None:
    for words, said in (
        ((), "KGIN needs a knowledge graph (graphrec.datasets.kg_from_table"),
        (("--kg", "nowhere.csv"), "nowhere.csv is not there"),
        (("--kg-columns", "brand=made_by"), "say kg=FILE"),
        ((*CATALOGUE, "--kg-filter", "keep=made_buy"), "unknown relation 'made_buy'. Did you mean 'made_by'?"),
    ):
        status, _, error = call(*TRAIN, "--dataset", "shop", *words, "--out", "refused")
        assert status == 2 and said in error and "Traceback" not in error


def test_leaks_of_a_dataset(call: Call, tmp_path: Path) -> None:
    (tmp_path / "shop" / "kg_final.txt").write_text(
        (tmp_path / "shop" / "bought.tsv").read_text().replace("also_bought", "0")
    )
    (tmp_path / "shop" / "relation_list.txt").write_text("org_id remap_id\nalso_bought 0\n")
    status, out, error = call("datasets", "shop", "--root", ".", "--leaks")
    assert status == 0 and out.startswith("possible leak: also_bought: 100.00% of"), error
    status, out, error = call("datasets", "shop", "--root", ".", "--leaks", "--json")
    assert status == 0 and json.loads(out)[0]["test_share"] == 1.0, error
    status, _, error = call("datasets", "--leaks")
    assert status == 2 and "--leaks: the name or path of a dataset" in error
