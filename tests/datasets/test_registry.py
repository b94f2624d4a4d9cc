"""The registry says what is there, where it comes from, and fetches what may be fetched."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from graphrec.datasets import adapters, load, registry
from graphrec.datasets.download import download, git_blob
from graphrec.datasets.registry import Entry, File, Source
from graphrec.datasets.registry_make import make_entry
from graphrec.errors import InputError, MissingFileError


def test_every_entry_is_complete() -> None:
    assert len(registry.entries()) == 23
    for entry in registry.entries().values():
        assert entry.title and entry.licence and entry.citation and entry.split
        assert entry.adapter in adapters.ADAPTERS
        assert all(len(source.commit) == 40 and source.repository.startswith("https://") for source in entry.sources)
        assert all(len(file.sha256) == 64 and file.bytes > 0 for file in entry.files)
        assert entry.sizes["users"] > 0 and entry.sizes["items"] > 0 and entry.interactions > 0
        assert entry.digests and len(entry.fingerprint) == 64
        for file in entry.files:
            assert all(address.startswith("https://") for address in file.addresses)


def test_sets_that_may_not_be_passed_on_have_no_address_of_a_copy() -> None:
    for entry in registry.entries().values():
        if "NO REDISTRIBUTION" in entry.licence.upper():
            addresses = [address for file in entry.files for address in file.addresses]
            assert all(address.startswith("https://files.grouplens.org/") for address in addresses)


def test_known_sizes() -> None:
    gowalla = registry.get("gowalla")
    assert (gowalla.sizes["users"], gowalla.sizes["items"], gowalla.interactions) == (29858, 40981, 1027370)
    assert registry.get("ml-1m").sizes["items"] == 3706
    assert registry.get("music").sizes["labelled negatives"] == 21173
    with pytest.raises(InputError, match=r"unknown dataset 'gowala'. Did you mean 'gowalla'"):
        registry.get("gowala")


def test_the_table_says_what_is_present(tmp_path: Path) -> None:
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "train.txt").write_text("0 1\n")
    rows = {row.entry.name: row for row in registry.table(tmp_path)}
    assert list(rows) == sorted(registry.entries())
    assert not rows["gowalla"].present and rows["gowalla"].folder is None
    assert not rows["ml-1m"].present and rows["ml-1m"].missing == ("test.txt",)
    (tmp_path / "ml-1m" / "test.txt").write_text("0 2\n")
    row = registry.find("ml-1m", tmp_path)
    assert row.present
    assert json.loads(json.dumps(row.as_dict()))["interactions"] == 920193


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["gowalla", "lastfm", "music", "tiktok-mm"])
def test_the_script_makes_what_is_committed(data_root: Path, name: str) -> None:
    if not (data_root / name).is_dir():
        pytest.skip(f"{name} is not in {data_root}")
    assert registry.entry_from(make_entry(data_root / name)) == registry.get(name)


@pytest.mark.realdata
def test_all_that_is_present_has_the_registered_fingerprint(data_root: Path) -> None:
    for row in registry.table(data_root):
        if row.present and row.entry.interactions < 300_000:
            assert load(row.entry.name, root=data_root).fingerprint == row.entry.fingerprint, row.entry.name


FILES = {"train.txt": b"0 0 1\n1 1 2\n", "test.txt": b"0 2\n"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on this machine with the files of a small set, loose and in a zip."""
    site = tmp_path / "site"
    site.mkdir()
    for name, content in FILES.items():
        (site / name).write_bytes(content)
    with zipfile.ZipFile(site / "all.zip", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(f"small/{name}", content)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def entry_at(address: str) -> Entry:
    files = tuple(
        File(name, len(content), hashlib.sha256(content).hexdigest(), (address.format(name=name),))
        for name, content in FILES.items()
    )
    source = Source("https://example.org/set", "0" * 40)
    return Entry("small", "a small set", "lightgcn", "free", "nobody", "fixed", (source,), files, {"users": 2})


@pytest.mark.parametrize("form", ["{site}/{{name}}", "{site}/all.zip#small/{{name}}"])
def test_download(tmp_path: Path, server: str, form: str) -> None:
    folder = download(entry_at(form.format(site=server)), tmp_path / "data" / "small")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert load(folder, cache=False).num_users == 2


def test_download_tries_the_next_address_and_checks_the_bytes(tmp_path: Path, server: str) -> None:
    entry = entry_at(f"{server}/{{name}}")
    first = entry.files[0]
    moved = replace(first, addresses=(f"{server}/gone.txt", f"{server}/test.txt", *first.addresses))
    folder = download(replace(entry, files=(moved, entry.files[1])), tmp_path / "data" / "small")
    assert (folder / first.name).read_bytes() == FILES[first.name]


def test_a_download_that_fails_leaves_nothing_and_says_what_to_do(tmp_path: Path, server: str) -> None:
    entry = entry_at(f"{server}/{{name}}")
    wrong = replace(entry, files=(entry.files[0], replace(entry.files[1], sha256="0" * 64)))
    with pytest.raises(MissingFileError) as error:
        download(wrong, tmp_path / "data" / "small")
    for said in ("test.txt could not be fetched", "sha256", "expected 000000000000", "Put train.txt, test.txt into"):
        assert said in str(error.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_download_keeps_what_else_lies_in_the_folder(tmp_path: Path, server: str) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    download(entry_at(f"{server}/{{name}}"), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.txt", "test.txt", "train.txt"]


def test_other_bytes_with_a_known_git_id_are_as_good(tmp_path: Path, server: str) -> None:
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert git_blob(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"
    entry = entry_at(f"{server}/{{name}}")
    (tmp_path / "train").write_bytes(FILES["train.txt"])
    other = replace(entry.files[0], sha256="0" * 64, blob=git_blob(tmp_path / "train"))
    download(replace(entry, files=(other, entry.files[1])), tmp_path / "data")


def test_a_set_that_may_not_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"cannot be downloaded by its terms or form. Put test.txt, train.txt.*\$GRAPHREC_DATA"
    ):
        download(registry.get("ml-1m"), tmp_path / "ml-1m")


def test_loading_a_downloaded_set_checks_its_content(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load_once(tmp_path, server)
    entry = replace(entry_at(f"{server}/{{name}}"), digests=made)
    monkeypatch.setattr(registry, "entries", lambda: {"small": entry})
    assert load("small", root=tmp_path / "a").num_users == 2
    broken = replace(entry, digests={name: "0" * 64 for name in made})
    monkeypatch.setattr(registry, "entries", lambda: {"small": broken})
    with pytest.raises(InputError, match=r"differs from the registry's in .*Delete the folder"):
        load("small", root=tmp_path / "b")


def load_once(tmp_path: Path, server: str) -> dict[str, str]:
    return load(download(entry_at(f"{server}/{{name}}"), tmp_path / "once"), cache=False).digests()
