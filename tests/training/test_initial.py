from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, MissingFileError
from graphrec.training import fit
from graphrec.training.initial import initialise_from
from tests.training.tiny import TinyMF, tiny_data


def test_rows_of_a_run_are_matched_by_raw_id(data: RecDataset, tmp_path: Path) -> None:
    trained = TinyMF(data, seed=1)
    run = fit(trained, data, epochs=1, ks=(2,), select_on=None, progress=False, out=tmp_path / "run", device="cpu")
    fewer = tiny_data(users=23, items=14, drop=2)
    model = TinyMF(fewer)
    before = model.user_table.detach().clone()
    copied = {entry.parameter: entry for entry in initialise_from(model, fewer, run)}
    # Users 102 to 119 are in both; 120 to 122 are new.
    assert (copied["user_table"].matched, copied["user_table"].rows) == (18, 21)
    assert torch.equal(model.user_table[:18], trained.user_table[2:])
    assert torch.equal(model.user_table[18:], before[18:])
    assert (copied["item_table"].matched, copied["item_table"].rows) == (12, 14)
    assert "bias" not in copied


def test_the_run_says_what_was_copied(data: RecDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"ks": (2,), "select_on": None, "device": "cpu"}
    fit(TinyMF(data), data, epochs=1, out=tmp_path / "a", progress=False, **options)
    run = fit(TinyMF(data), data, epochs=1, out=tmp_path / "b", init_from=tmp_path / "a", **options)
    copied = {entry["parameter"]: entry for entry in run.config["init_from"]["copied"]}
    assert copied["user_table"] == {"parameter": "user_table", "source": "user_table", "rows": 20, "matched": 20}
    assert copied["bias"]["matched"] == 1
    assert "init_from: user_table: 20 of 20 rows" in capsys.readouterr().err
    again = fit(TinyMF(data), data, epochs=0, init_from=run, progress=False, **options)
    assert torch.equal(again.weights()["user_table"], run.weights()["user_table"])


def tables(data: RecDataset) -> dict[str, torch.Tensor]:
    return {
        "embedding_user.weight": torch.randn(data.num_users, 4),
        "embedding_item.weight": torch.randn(data.num_items, 4),
    }


@pytest.mark.parametrize("kind", ["pt", "nested", "npz", "safetensors"])
def test_published_files_are_read(data: RecDataset, tmp_path: Path, kind: str) -> None:
    state = tables(data)
    path = tmp_path / f"file.{kind}"
    if kind == "npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    elif kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if kind == "nested" else state, path)
    model = TinyMF(data)
    copied = initialise_from(model, data, path)
    assert {entry.source: entry.matched for entry in copied} == {
        "embedding_user.weight": 20,
        "embedding_item.weight": 12,
    }
    assert torch.equal(model.user_table, state["embedding_user.weight"])
    assert torch.equal(model.item_table, state["embedding_item.weight"])


@pytest.mark.parametrize("as_text", [False, True])
def test_ids_in_a_file_match_its_rows_in_any_order(data: RecDataset, tmp_path: Path, as_text: bool) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    ids = np.array([105, 101])
    np.savez(tmp_path / "file.npz", user_embedding=rows, user_ids=ids.astype(str) if as_text else ids)
    model = TinyMF(data)
    (copied,) = initialise_from(model, data, tmp_path / "file.npz")
    assert copied.matched == 2
    assert model.user_table[5].tolist() == [0, 1, 2, 3]
    assert model.user_table[1].tolist() == [4, 5, 6, 7]


def test_what_does_not_fit_is_said(data: RecDataset, tmp_path: Path) -> None:
    model = TinyMF(data)
    cases: dict[str, tuple[dict[str, np.ndarray], str]] = {
        "width": ({"user_table": np.zeros((20, 5), np.float32)}, "make the model with dim=5"),
        "rows": ({"user_table": np.zeros((7, 4), np.float32)}, "7 rows and no ids"),
        "ids": ({"user_table": np.zeros((7, 4), np.float32), "user_ids": np.arange(6)}, "7 rows for 6 ids"),
        "twice": ({"user_table": np.zeros((2, 4), np.float32), "user_ids": np.array([1, 1])}, "without repetition"),
        "names": ({"weights": np.zeros((20, 4), np.float32)}, "nothing in .* holds weights"),
        "strangers": ({"user_table": np.zeros((1, 4), np.float32), "user_ids": np.array([7])}, "nothing in"),
    }
    for name, (arrays, words) in cases.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=words):
            initialise_from(model, data, path)
    with pytest.raises(MissingFileError):
        initialise_from(model, data, tmp_path / "nowhere.npz")


def test_pickled_code_is_not_run(data: RecDataset, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.write_text, (tmp_path / "sprung", "x"))

    torch.save({"embedding_user.weight": Trap()}, tmp_path / "trap.pt")
    np.savez(tmp_path / "trap.npz", user_table=np.array([Trap()], dtype=object))
    for name in ("trap.pt", "trap.npz"):
        with pytest.raises(InputError, match="trap"):
            initialise_from(TinyMF(data), data, tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    (tmp_path / "noise.pt").write_bytes(b"\x00\x01noise")
    with pytest.raises(InputError, match=r"noise\.pt"):
        initialise_from(TinyMF(data), data, tmp_path / "noise.pt")
