from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from graphrec.errors import MissingFileError
from graphrec.runs import write_run
from graphrec.serving import Recommender
from tests.serving.hub_server import running_hub
from tests.serving.test_recommender import saved
from tests.serving.worlds import Vectors, small_data


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("hub_cache")
def test_push_and_pull(tmp_path: Path) -> None:
    rec = Recommender.from_pretrained(saved(tmp_path))
    with running_hub() as hub:
        address = rec.push_to_hub("someone/small", endpoint=hub.address, token="hf_none")
        assert address.startswith(f"{hub.address}/someone/small/commit/")
        files = hub.repositories["someone/small"]
        assert hub.private["someone/small"]
        assert set(files) == {*rec.run.files, "manifest.json", "README.md"}
        assert b"recall@20 | 0.5000" in files["README.md"]
        pulled = Recommender.from_pretrained("someone/small", endpoint=hub.address, token="hf_none")
        pd.testing.assert_frame_equal(pulled.recommend(k=3), rec.recommend(k=3))
        rec.push_to_hub("someone/small", endpoint=hub.address, token="hf_none")
        with pytest.raises(MissingFileError, match="there is no folder someone/none, and repository"):
            Recommender.from_pretrained("someone/none", endpoint=hub.address, token="hf_none")
        manifest = json.loads(files["manifest.json"])
        assert manifest["format"] == 1


@pytest.mark.usefixtures("hub_cache")
def test_what_is_pushed_says_nothing_of_where_the_data_lay(tmp_path: Path) -> None:
    data = small_data()
    dataset = {"source": "/home/someone/clicks.csv", "root": "/home/someone", "fingerprint": data.fingerprint}
    config = {"dataset": {"name": "small", **dataset}, "fit": {}, "seed": 0, "status": "complete"}
    run = write_run(tmp_path / "run", model=Vectors(data), data=data, config=config, metrics={})
    rec = Recommender.from_pretrained(run)
    with running_hub() as hub:
        rec.push_to_hub("someone/else", endpoint=hub.address, token="hf_none")
        assert not [name for name, content in hub.repositories["someone/else"].items() if b"/home" in content]
        pulled = Recommender.from_pretrained("someone/else", endpoint=hub.address, token="hf_none")
    assert pulled.run is not None
    assert pulled.run.config["dataset"] == {"name": "small", "source": "clicks.csv", "fingerprint": data.fingerprint}
