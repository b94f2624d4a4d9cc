"""The scanner: whether anything of what was to be forgotten is still in a run, or in what was made from it.

Each file is read by its schema, and what is made of edges (degrees, matrices, neighbour lists, attention, solutions in
closed form) is made again from what remains and compared. Nothing is passed over: a file that the manifest does not
name, or that no reader knows, is a finding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.base import GraphInputs
from graphrec.reports.explanations_file import FILE as EXPLANATIONS
from graphrec.runs import Run
from graphrec.runs.manifest import KINDS, MANIFEST, SUPERSEDED
from graphrec.serving.mask import MASK, Mask
from graphrec.training.checkpoint import FILE as CHECKPOINT
from graphrec.training.resume import training_folder
from graphrec.unlearning import audit
from graphrec.unlearning.readers import explanations, exports, graphs, models, pages, tables, tensors, words
from graphrec.unlearning.readers.findings import Checked, Finding, Notes, Scan, lines_of
from graphrec.unlearning.readers.sought import OldRows, Sought, Subject
from graphrec.unlearning.resolve import Resolved

_VALUES = (".yaml", ".yml", ".json", ".jsonl")
_ARRAYS = (".safetensors", ".npz", ".npy", ".pt", ".pth", ".ckpt")
_TABLES = (".csv", ".tsv")
_INDICES = (".faiss", ".index")
# What readers raise at content that is not what a file's name and manifest say.
_STUMBLES = (
    InputError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OSError,
    pa.ArrowException,
)


def scan(
    run: Run | str | os.PathLike[str],
    resolved: Resolved | None = None,
    data: RecDataset | None = None,
    before: Run | str | os.PathLike[str] | None = None,
    also: Sequence[str | os.PathLike[str]] = (),
) -> Scan:
    """Look for what was to be forgotten in a run and in what was made from it.

    Args:
        run: the run after the request.
        resolved: the request; None: only what the run can tell by itself is checked (files against the manifest,
            degrees and derived values against its training graph, exports against its model).
        data: the dataset with what was to be forgotten; goes with ``resolved``.
        before: the run before the request; its rows of nodes that are gone are looked for by their bits, and what was
            made from it (exports, checkpoints) has to be gone or clean.
        also: further files and folders that may hold something: exports, logs, copies of the dataset.

    Raises:
        InputError: the request was resolved against another dataset, or ``run`` is no run.
    """
    run = run if isinstance(run, Run) else Run(run, allow_superseded=True)
    before = before if before is None or isinstance(before, Run) else Run(before, allow_superseded=True)
    if (resolved is None) != (data is None):
        raise InputError("scan needs both the request (resolved) and the dataset it names something of, or neither.")
    sought = None
    if resolved is not None and data is not None:
        resolved.check(data)
        sought = Sought(data, resolved)
    old = OldRows.of(before, sought) if before is not None and sought is not None else None
    made = _Scan(Subject(run, sought, old), before)
    made.inventory()
    made.files()
    made.beside()
    made.caches()
    for entry in also:
        made.outside(Path(entry), listed=True)
    made.sources()
    return made.found()


def scan_further(found: Scan, run: Run) -> Scan:
    """A scan brought up to date after files were added to its run, replaced or taken out.

    Inventory and manifest are looked at again in whole, files whose manifest entry is another than then are read; what
    has the same entry is held to be the same file, which is for :meth:`graphrec.runs.Run.verify` to say.

    Args:
        found: of the same folder before.
        run: as it is now.
    """
    made = found.under_way
    if made is None or made.run.path != run.path:
        raise InputError("scan_further goes on from a scan of the same run; use scan for another.")
    changed = {name for name, entry in run.files.items() if made.run.files.get(name) != entry}
    stale = changed | (made.run.files.keys() - run.files.keys()) | {MANIFEST}
    if changed & {graphs.SEEN, graphs.OTHERS, models.MODEL}:
        raise InputError("the graph or the model is another than when the run was scanned; use scan.")
    kept = [finding for finding in made.notes.findings if finding.where not in stale]
    again = [entry for entry in made.notes.checked if entry.where not in stale]
    made.notes = Notes(kept, made.notes.left, again)
    made.run = made.subject.run = run
    made.inventory()
    made.files(changed)
    return made.found()


class _Scan:
    """A scan under way."""

    def __init__(self, subject: Subject, before: Run | None) -> None:
        self.subject, self.run, self.before = subject, subject.run, before
        self.notes = Notes()
        self.inputs: GraphInputs | None = None
        self.usable = False
        self.seen: set[Path] = set()

    def found(self) -> Scan:
        """What was found so far."""
        return Scan(tuple(self.notes.findings), tuple(self.notes.checked), tuple(self.notes.left), self)

    # -- the run's folder ----------------------------------------------------------------------------------------------

    def inventory(self) -> None:
        """Every file is listed, every listed file is there and says what it holds."""
        there = set()
        for folder, _, names in os.walk(self.run.path, followlinks=True):
            there |= {(Path(folder) / name).relative_to(self.run.path).as_posix() for name in names}
        for name in sorted(there - set(self.run.files) - {MANIFEST}):
            self.notes.find("unlisted file", name, "the manifest does not name it")
        for name in sorted(set(self.run.files) - there):
            self.notes.find("missing file", name, "the manifest names it, and it is not there")
        for name, entry in self.run.files.items():
            strange = [word for word in entry.get("holds", ["unknown"]) if word not in KINDS]
            if strange:
                self.notes.find("unknown file", name, "the manifest does not say what it holds")
        self.notes.check(MANIFEST, "files of the folder against the manifest")

    def files(self, only: Collection[str] | None = None) -> None:
        """Each file (or some) by its reader; graph and model first, because others are compared with them."""
        self._read_manifest()
        named = [name for name in self.run.files if only is None or name in only]
        there = [name for name in named if (self.run.path / name).is_file()]
        if graphs.SEEN in there and models.MODEL in there:
            self._guarded(graphs.SEEN, self._graph_and_model)
        for name in there:
            if name not in (graphs.SEEN, graphs.OTHERS, models.MODEL):
                self._guarded(name, partial(self._file, name))

    def _graph_and_model(self) -> None:
        self.inputs = graphs.read_graph(self.subject, self.notes)
        if self.inputs is not None:
            self.usable = models.read_model(self.subject, self.notes)

    def _guarded(self, where: str, read: Callable[[], object]) -> None:
        """Read a file; one that its reader stumbles over is a finding, and the scan goes on."""
        try:
            read()
        except _STUMBLES as error:
            self.notes.find("unreadable file", where, f"it is not as its name says ({type(error).__name__})")

    def _with_model(self, where: str, read: Callable[[], object]) -> None:
        """Read a file that is compared with what the model gives."""
        if self.usable:
            read()
        else:
            self.notes.find("unreadable file", where, "it cannot be compared: the run's model cannot be made")

    def _read_manifest(self) -> None:
        sought = self.subject.sought
        text = words.open_text(self.run.path / MANIFEST, MANIFEST, self.notes)
        if text is None or sought is None:
            return
        # Paths of caches are this machine's; the rest is fixed words.
        words.read_values(self.subject, text, MANIFEST, self.notes)
        if not sought.resolved.empty and self.run.fingerprint not in sought.fingerprints:
            self.notes.find("stale", MANIFEST, "its fingerprint is not that of what remains")

    def _file(self, name: str) -> None:
        file, suffix = self.run.path / name, Path(name).suffix
        if name.startswith("ids/") and suffix == ".parquet":
            tables.read_ids(self.subject, name, self.notes)
        elif name == tables.PER_USER:
            self._with_model(name, lambda: tables.read_per_user(self.subject, self.inputs, self.notes))
        elif name == EXPLANATIONS:
            self._with_model(name, lambda: self._explanations(file, name))
        elif name == MASK:
            self._mask(name)
        elif name == audit.SALT:
            self._salt(name)
        elif suffix in (*_VALUES, *_TABLES, ".html", ".txt", ".md"):
            self._text(file, name)
        elif name.startswith("state/") and suffix in _ARRAYS:
            tensors.read_state(self.subject, file, name, self.notes)
        elif suffix in (*_ARRAYS, ".parquet", *_INDICES):
            self._export(file, name)
        else:
            self.notes.find("unknown file", name, "no reader knows such a file, so nothing can be said of it")

    def _text(self, file: Path, where: str) -> None:
        text = words.open_text(file, where, self.notes)
        if text is None:
            return
        if file.suffix in _VALUES:
            words.read_values(self.subject, text, where, self.notes)
        elif file.suffix in _TABLES:
            tables.read_history(self.subject, text, where, self.notes)
        elif file.suffix == ".html":
            pages.read_page(self.subject, text, where, self.inputs, self.notes)
        else:
            words.read_plain(self.subject, text, where, self.notes)

    def _explanations(self, file: Path, name: str) -> None:
        text = words.open_text(file, name, self.notes)
        if text is not None:
            explanations.read_explanations(self.subject, text, name, self.inputs, self.notes)

    def _salt(self, name: str) -> None:
        try:
            salt = audit.read_salt(self.run)
        except (InputError, UnicodeDecodeError):
            salt = None
        if salt is None or len(salt) != 32:
            self.notes.find("unknown file", name, "it holds something else than a salt")
        self.notes.check(name, "that it is a salt alone")

    def _mask(self, name: str) -> None:
        """A mask that is left in the new run still says who wanted what forgotten."""
        mask, sought = Mask.read(self.run.path), self.subject.sought
        if mask is not None and sought is not None and not sought.resolved.empty:
            blocked = len(mask.users) + len(mask.items) + mask.pairs.shape[1]
            if blocked:
                self.notes.find("mask", name, f"{blocked:,} users, items and pairs are named in the mask")
        self.notes.check(name, "that nobody is named", full=sought is not None)

    # -- what lies outside ---------------------------------------------------------------------------------------------

    def beside(self) -> None:
        """Checkpoints, unfinished copies and workspaces beside the run, which no manifest names."""
        path = self.run.path
        own = [training_folder(path)]
        if self.before is not None and self.before.path.resolve() != path.resolve():
            own.append(training_folder(self.before.path))
        for folder in own:
            if (folder / CHECKPOINT).is_file():
                self.outside(folder, listed=self._listed(folder))
        leftovers = [*path.parent.glob(f"{path.name}.tmp-*"), path.with_name(f"{path.name}.old")]
        for leftover in leftovers:
            if leftover.exists():
                self.notes.find("unlisted file", leftover.name, "an unfinished copy of the run, left by a process")

    def _listed(self, path: Path) -> bool:
        runs = [self.run, *([] if self.before is None else [self.before])]
        return any(Path(cache["path"]) == path.absolute() for run in runs for cache in run.manifest.get("caches", []))

    def caches(self) -> None:
        """What the manifests name outside the run: gone, or clean."""
        for run in (self.run, self.before):
            for cache in [] if run is None else run.manifest.get("caches", []):
                path = Path(cache["path"])
                if "dataset" in cache.get("holds", []):
                    self._copy_of_source(path)
                elif path.exists():
                    self.outside(path, listed=True)
                else:
                    self.notes.check(path.name, "that it is gone")

    def _copy_of_source(self, path: Path) -> None:
        """The converted copy of the data's source: as long as the source holds something, it does too."""
        if not path.is_dir() or path.resolve() in self.seen:
            return
        self.seen.add(path.resolve())
        notes = Notes()
        exports.read_dataset(self.subject, path, f"the dataset cache {path.name[:16]}", notes)
        self.notes.left += notes.findings
        self.notes.checked += notes.checked

    def outside(self, path: Path, *, listed: bool) -> None:
        """A file or folder outside the run, by what it is."""
        self._guarded(path.name, lambda: self._outside(path, listed))

    def _outside(self, path: Path, listed: bool) -> None:
        if path.resolve() in self.seen:
            return
        self.seen.add(path.resolve())
        if not listed:
            self.notes.find("unlisted file", path.name, "it was made from the run, and the manifest does not name it")
        if path.is_file():
            self._export(path, path.name)
        elif (path / CHECKPOINT).is_file():
            tensors.read_training(self.subject, path, path.name, self.notes)
            for file in sorted(path.iterdir()):
                if file.name not in (CHECKPOINT, "lock"):
                    self._export(file, f"{path.name}/{file.name}")
        elif (path / MANIFEST).is_file():
            self._folder_with_manifest(path)
        elif path.is_dir():
            for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
                self._export(file, file.relative_to(path.parent).as_posix())
        else:
            self.notes.find("missing file", path.name, "it is not there")

    def _folder_with_manifest(self, path: Path) -> None:
        """A converted dataset, or another run."""
        try:
            other = Run(path, allow_superseded=True)
        except InputError:
            exports.read_dataset(self.subject, path, path.name, self.notes)
            return
        if self.subject.sought is not None and other.fingerprint == self.subject.sought.data.fingerprint:
            self.notes.find("stale", path.name, "a run that was trained on the data before the request")
        else:
            self.notes.check(path.name, "the dataset it was trained on", full=False)

    def _export(self, file: Path, where: str) -> None:
        suffix = file.suffix
        if suffix == ".parquet":
            columns = exports.parquet_columns(file)
            if exports.is_lists(columns):
                self._with_model(where, lambda: exports.read_lists(self.subject, file, where, self.notes))
            elif {"kind", "id", "vector"} <= columns:
                self._with_model(where, lambda: exports.read_vectors(self.subject, file, where, self.notes))
            else:
                self.notes.find("unknown file", where, "a table that is neither lists nor vectors")
        elif suffix in _ARRAYS:
            arrays = tensors.read_arrays(file, where, Notes())
            if arrays is not None and exports.is_vectors(set(arrays[0])):
                self._with_model(where, lambda: exports.read_vectors(self.subject, file, where, self.notes))
            else:
                tensors.read_state(self.subject, file, where, self.notes)
        elif suffix in _INDICES:
            self._with_model(where, lambda: exports.read_index(self.subject, file, where, self.notes))
        elif suffix in (*_VALUES, *_TABLES, ".html", ".txt", ".md", ".log"):
            self._text(file, where)
        elif file.name.startswith("events.out.tfevents"):
            words.read_bytes(self.subject, file, where, self.notes)
        else:
            self.notes.find("unknown file", where, "no reader knows such a file, so nothing can be said of it")

    def sources(self) -> None:
        """What still holds the data and is no part of the run: its source, and the run before."""
        sought = self.subject.sought
        if sought is None or sought.resolved.empty:
            return
        if self.before is not None and self.before.path.exists() and self.before.fingerprint == sought.data.fingerprint:
            state = "superseded" if SUPERSEDED in self.before.files else "not superseded yet"
            self.notes.left.append(
                Finding("stale", self.before.path.name, f"the run before holds the data; it is {state}")
            )
        if self.before is None:
            return
        try:
            source = self.before.dataset()
        except InputError:
            self.notes.check(
                "source", "nothing: it cannot be loaded, or is another than the run before was trained on", False
            )
            return
        told = exports.what_holds(source, sought)
        self.notes.check("source", "edges, ids, features and texts of what the data was loaded from")
        self.notes.left += [Finding("row", "the data's source", line) for line in told]


__all__ = ["Checked", "Finding", "Scan", "lines_of", "scan", "scan_further"]
