"""A run: the folder that holds a trained model, its ids, its metrics, and how it came about."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.fingerprint import file_sha256
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, MissingFileError
from graphrec.models.base import GraphInputs, GraphRecommender
from graphrec.runs.devices import known_device
from graphrec.runs.files import clear_errors, link_or_copy, recover, write_folder
from graphrec.runs.manifest import FORMAT, MANIFEST, SUPERSEDED, Content, record_cache, write_extra, write_manifest
from graphrec.runs.tensors import load_weights, read_inputs, read_tensors

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory


class Run:
    """A run folder, opened.

    Args:
        path: the folder. Its manifest is read and its format version checked; :meth:`open` checks the files too.
        allow_superseded: whether a run may be read that another has taken the place of, because it was asked to forget.

    Attributes:
        path: the folder.
        manifest: format, graphrec version, fingerprint, and for each file ``sha256``, ``size`` and ``holds``.
        config: all that is needed to run it again: ``model``, ``hparams``, ``dataset``, ``fit``, ``seed``, ``status``.
        metrics: flat, lower-case: ``recall@20`` of the test part, ``valid/recall@20``, ``num_users``, ``mask``,
            ``seconds``.

    Raises:
        MissingFileError: there is no run at ``path``.
        InputError: the run is of a newer format, its manifest is damaged, or it is superseded.
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_superseded: bool = False) -> None:
        self.path, self.allow_superseded = Path(path), allow_superseded
        recover(self.path)
        if not (self.path / MANIFEST).is_file():
            found = "no such folder" if not self.path.exists() else f"it has no {MANIFEST}"
            raise MissingFileError(f"{self.path} is no run folder: {found}.")
        try:
            self.manifest: dict[str, Any] = json.loads((self.path / MANIFEST).read_text())
            found_format = int(self.manifest["format"])
            self.files: dict[str, dict[str, Any]] = dict(self.manifest["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path / MANIFEST} is damaged: {error}.") from error
        if found_format > FORMAT:
            raise InputError(
                f"{self.path} is a run of format {found_format}, made by graphrec {self.manifest.get('graphrec')}; "
                f"this graphrec ({version('graphrec')}) reads formats up to {FORMAT}. "
                "Update with: pip install -U graphrec"
            )
        self._check_superseded(SUPERSEDED in self.files)
        self.config: dict[str, Any] = yaml.safe_load(self._read("config.yaml"))
        self.metrics: dict[str, Any] = json.loads(self._read("metrics.json"))
        self._temporary: TemporaryDirectory[str] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = True, allow_superseded: bool = False) -> Run:
        """Open a run and check that every file is there and is the one that was written (size and SHA-256).

        Raises:
            InputError: a file was changed, or another run has taken this one's place because it was asked to forget;
                ``allow_superseded`` opens it nevertheless.
        """
        run = cls(path, allow_superseded=allow_superseded)
        if verify:
            run.verify()
        return run

    def _check_superseded(self, is_superseded: bool) -> None:
        if is_superseded and not self.allow_superseded:
            by = json.loads(self._read(SUPERSEDED))
            raise InputError(
                f"{self.path} is superseded: {by['by']} forgot {by['edges']:,} edges that are still in it. "
                "Open that run, or this one with allow_superseded (--allow-superseded, where a command has it)."
            )

    def verify(self) -> None:
        """Check every file against the manifest.

        Raises:
            MissingFileError: a file is missing.
            InputError: a file is not the one that was written.
        """
        for name, entry in self.files.items():
            file = self.path / name
            if not file.is_file():
                raise MissingFileError(f"{file} is missing; the run's manifest lists it.")
            size = file.stat().st_size
            if size != entry["size"]:
                raise InputError(
                    f"{file} was changed: {size} bytes, the run's manifest says {entry['size']}. "
                    "Train or copy it again."
                )
            if file_sha256(file) != entry["sha256"]:
                raise InputError(f"{file} was changed: its SHA-256 is not the manifest's. Train or copy it again.")

    def _read(self, name: str) -> str:
        file = self.path / name
        if not file.is_file():
            raise MissingFileError(f"{file} is missing; every run has it.")
        return file.read_text(encoding="utf-8")

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the dataset it was trained on."""
        return str(self.manifest["fingerprint"])

    @property
    def superseded(self) -> dict[str, Any] | None:
        """The run that took this one's place (``by``), when (``at``) and how many ``edges`` it forgot; or None."""
        return json.loads(self._read(SUPERSEDED)) if SUPERSEDED in self.files else None

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row an epoch: epoch, loss, each named term, seconds, validation metrics, peak memory."""
        file = self.path / "history.csv"
        return pd.read_csv(file) if file.stat().st_size > 1 else pd.DataFrame()

    @cached_property
    def _id_tables(self) -> dict[str, pa.Table]:
        return {
            Path(name).stem: pq.read_table(self.path / name)
            for name in self.files
            if name.startswith("ids/") and name.endswith(".parquet")
        }

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """Raw ids by node type."""
        out = {}
        for node_type, table in self._id_tables.items():
            ids = table["id"]
            numbers = pa.types.is_integer(ids.type)
            out[node_type] = Vocabulary(ids.to_numpy() if numbers else ids.combine_chunks(), node_type)
        return out

    @cached_property
    def names(self) -> dict[str, np.ndarray]:
        """Names (N,) of str or None by node type, where any is known."""
        return {
            node_type: np.array(table["name"].to_pylist(), dtype=object)
            for node_type, table in self._id_tables.items()
            if table["name"].null_count < len(table)
        }

    def per_user(self) -> pa.Table | None:
        """The metrics of each user, None where the run has no test part."""
        file = self.path / "per_user.parquet"
        return pq.read_table(file) if file.exists() else None

    def inputs(self) -> GraphInputs:
        """The training graph and features, as the model read them."""
        return read_inputs(self.path / "seen.safetensors", self.path / "inputs.safetensors")

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by name.

        Raises:
            InputError: the run has been superseded since it was opened.
        """
        self._check_superseded((self.path / SUPERSEDED).is_file())
        return read_tensors(self.path / "model.safetensors")[0]

    @property
    def model_class(self) -> type[GraphRecommender]:
        """The class of the model, found without opening it.

        Raises:
            InputError: it is not graphrec's own and its module is not imported.
        """
        return _resolve(str(self.config["model"]))

    def model(
        self, device: str | torch.device = "cpu", *, model_class: type[GraphRecommender] | None = None
    ) -> GraphRecommender:
        """The trained model, ready to score, without the dataset.

        Args:
            device: where to put it.
            model_class: the class, for a model that is not graphrec's own and whose module is not imported.

        Raises:
            InputError: there is no such device here.
        """
        device = known_device(device)
        model_class = model_class or self.model_class
        model = model_class.unfilled(self.inputs(), self.config["hparams"])
        load_weights(model, self.weights(), str(self.path / "model.safetensors"))
        return model.to(device).eval()

    def dataset(self, root: str | os.PathLike[str] | None = None) -> RecDataset:
        """Load the dataset it was trained on again, with the same split, and check that it is the same.

        Args:
            root: the folder that holds the dataset's own folder; None: the one that was given when it was trained, if
                any, else as in :func:`graphrec.datasets.load`.

        Raises:
            InputError: the run was trained on data given in memory, or the dataset has changed since.
        """
        from graphrec.datasets.load import load_again

        spec = dict(self.config["dataset"])
        name = spec.pop("name", None)
        spec.pop("fingerprint")
        if "source" not in spec:
            raise InputError(
                f"{self.path} was trained on data given in memory ({name!r}), which cannot be loaded again; pass the "
                "dataset."
            )
        for name in ("digests", "forgotten"):
            spec.pop(name, None)
        data = load_again(spec, root)
        self.check_data(data, f"dataset {spec['source']!r}")
        return data

    def check_data(self, data: RecDataset, what: str = "the dataset") -> None:
        """Check that a dataset is the one the run was trained on.

        After something was forgotten, a source from which it was deleted is that dataset too: edges may then be
        numbered otherwise, but all ids, rows and parts have to agree.

        Args:
            data: the dataset.
            what: what to call it in the message.

        Raises:
            InputError: it is another.
        """
        if data.fingerprint == self.fingerprint:
            return
        spec = self.config["dataset"]
        found = f"its fingerprint is {data.fingerprint}, the run's is {self.fingerprint}"
        if "digests" not in spec:
            raise InputError(
                f"{what} is not the one that {self.path} was trained on, or it has changed since: {found}. Train "
                "again, or restore the data."
            )
        differing = sorted(
            name for name, digest in data.digests().items() if spec["digests"].get(name) != digest
        ) + sorted(set(spec["digests"]) - set(data.digests()))
        if differing:
            raise InputError(
                f"{what} is not what {self.path} knows: {', '.join(differing[:4])} differ ({found}). The run has "
                f"forgotten {spec['forgotten']:,} edges; give it the data without them."
            )

    def add(
        self,
        files: Mapping[str, Content],
        holds: Mapping[str, Sequence[str]] | None = None,
        *,
        remove: Sequence[str] = (),
    ) -> Run:
        """The run with files added, replaced or removed; the folder changes in one step.

        Other files are linked, not copied, where the file system can, and keep their entries in the manifest: one that
        was changed on the disk meanwhile is still found by :meth:`verify`, here already where its size tells.

        Args:
            files: by name within the run: the content, or the path of a file to copy.
            holds: what each holds, for the manifest; known names have a default.
            remove: names of files that go.

        Raises:
            InputError: a file that stays has not the size that the manifest says, or the folder cannot be written.
        """
        with clear_errors(self.path, "run", "It is as it was."):
            write_folder(self.path, lambda folder: self._fill(folder, files, holds or {}, remove))
        run = Run(self.path, allow_superseded=self.allow_superseded or SUPERSEDED in files)
        run._temporary = self._temporary
        return run

    def record(self, path: str | os.PathLike[str], holds: Sequence[str], **about: Any) -> None:
        """Name in the manifest what was made from the run and lies outside its folder.

        Args:
            path: a file or folder.
            holds: words of :data:`graphrec.runs.manifest.KINDS`.
            **about: more to say.
        """
        with clear_errors(self.path / MANIFEST, "manifest", "It is as it was."):
            record_cache(self.path, path, holds, **about)
        self.manifest = json.loads((self.path / MANIFEST).read_text())

    def _fill(
        self,
        folder: Path,
        files: Mapping[str, Content],
        holds: Mapping[str, Sequence[str]],
        remove: Sequence[str] = (),
    ) -> None:
        for name in self.files:
            if name not in files and name not in remove:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(self.path / name, folder / name)
        extra = {name: entry["holds"] for name, entry in self.files.items()}
        write_extra(folder, files)
        kept = {name: entry for name, entry in self.files.items() if name not in files}
        write_manifest(folder, self.fingerprint, {**extra, **holds}, self.manifest.get("caches", []), kept)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, model={self.config.get('model')!r}, status={self.config.get('status')!r})"


def as_model(model: Any, device: str | torch.device | None = None) -> tuple[GraphRecommender, Run | None]:
    """The model behind a model, a :class:`Run`, a Recommender (anything with ``model`` and ``run``) or a path.

    Args:
        model: one of these.
        device: where to put it; None: where it is, or the CPU for one that is loaded.

    Raises:
        InputError: it is none of these, or there is no such device here.
    """
    device = None if device is None else known_device(device)
    if isinstance(model, GraphRecommender):
        return (model if device is None else model.to(device)), None
    if isinstance(model, (str, os.PathLike)):
        model = Run.open(model)
    if isinstance(model, Run):
        return model.model(device or "cpu"), model
    inner = getattr(model, "model", None)
    if isinstance(inner, GraphRecommender):
        return (inner if device is None else inner.to(device)), getattr(model, "run", None)
    raise InputError(f"expected a model, a run, a recommender or the path of a run, found a {type(model).__name__}.")


def _resolve(name: str) -> type[GraphRecommender]:
    if ":" not in name:
        from graphrec.models import resolve

        return resolve(name)
    # A module that a folder names is never imported on its word: the folder may come from anywhere.
    module_name, _, class_name = name.partition(":")
    found: Any = sys.modules.get(module_name)
    for part in class_name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, GraphRecommender):
        return found
    raise InputError(f"the run's model is {name}; import {module_name} first, or pass model_class=.")
