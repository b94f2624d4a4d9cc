"""SSLRec's sparse matrices, users x items.

``{train,valid,test}_mat.npz``, or one ``train_mat_<behaviour>.npz`` for each behaviour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from graphrec.datasets.adapters.common import columns
from graphrec.datasets.adapters.parsing import integers
from graphrec.datasets.builder import Builder
from graphrec.errors import InputError, MissingFileError

PARTS = {"train": ("train_mat", "trn_mat"), "valid": ("valid_mat", "val_mat"), "test": ("test_mat", "tst_mat")}
SPARSE, ROOM = 1000, 10_000_000
TARGETS = ("buy", "purchase", "pur", "pos")


def behaviours(path: Path) -> dict[str, Path]:
    """Behaviour to the file of its training interactions, paths such as ``view_buy`` included."""
    found = {}
    for stem in PARTS["train"]:
        for file in sorted(path.glob(f"{stem}_*.npz")):
            found[file.stem.removeprefix(f"{stem}_")] = file
    return found


def recognise(path: Path) -> bool:
    """A folder with ``train_mat.npz`` or ``train_mat_<behaviour>.npz``."""
    return path.is_dir() and (_part(path, "train") is not None or bool(behaviours(path)))


def _part(path: Path, part: str) -> Path | None:
    return next((path / f"{stem}.npz" for stem in PARTS[part] if (path / f"{stem}.npz").is_file()), None)


def load_matrix(path: Path) -> scipy.sparse.coo_matrix:
    """A sparse matrix without pickles, its index arrays checked before anything follows them."""
    try:
        matrix: Any = scipy.sparse.load_npz(path)
        if matrix.format in ("csr", "csc", "bsr"):
            matrix.check_format(full_check=True)
        found: Any = matrix.tocoo()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} is not there.") from error
    except Exception as error:  # the readers of zip, numpy and SciPy raise whatever the bytes trip in them
        raise InputError(f"{path} is no SciPy sparse matrix that can be read without unpickling: {error}.") from error
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.number) or np.iscomplexobj(found.data):
        raise InputError(f"{path}: a {found.ndim}-dimensional array of {found.dtype}. Expected numbers, users x items.")
    if max(found.shape) > SPARSE * found.nnz + ROOM:
        raise InputError(f"{path}: shape {found.shape} for {found.nnz} entries. Expected users x items; is it damaged?")
    if not np.isfinite(found.data).all():
        raise InputError(f"{path}: {int((~np.isfinite(found.data)).sum())} entries are not finite.")
    return found


def read(path: Path, builder: Builder, *, target: str | None = None, paths: bool = False) -> None:
    """Read the matrices, and ``kg.txt.gz`` (item, relation, item), into ``builder``.

    Args:
        path: the folder.
        builder: takes the data.
        target: the behaviour that is ranked; None: buy, where there are behaviours.
        paths: read the matrices of behaviour paths (``train_mat_view_buy.npz``) too, each as a behaviour of its own.
            They are made from the others, and are left out, and said to be, otherwise.
    """
    single = _part(path, "train")
    found = {"": single} if single is not None else behaviours(path)
    files: dict[str, Path] = {name: file for name, file in found.items() if file is not None}
    if not files:
        raise MissingFileError(f"{path} has no train_mat.npz and no train_mat_<behaviour>.npz.")
    made = [name for name in files if "_" in name and all(part in files for part in name.split("_"))]
    if single is None and not paths:
        for name in made:
            builder.note("left out", f"path {name}", load_matrix(files.pop(name)).nnz, "made from the other behaviours")
    ranked = target or next((name for name in TARGETS if name in files), next(iter(files)))
    if ranked not in files:
        raise InputError(f"{path} has no behaviour {ranked!r}. Found: {', '.join(files) or 'no name of a behaviour'}.")
    matrices = [("train", name, load_matrix(file)) for name, file in files.items()]
    for part in ("valid", "test"):
        file = _part(path, part)
        if file is not None:
            matrices.append((part, ranked, load_matrix(file)))
    _check_shapes(path, matrices)
    users, items = matrices[0][2].shape
    builder.nodes("user", np.arange(users))
    builder.nodes("item", np.arange(items))
    for part, name, matrix in matrices:
        _add_matrix(builder, part, name, matrix)
    if single is None:
        builder.target(ranked)
    _add_relations(path, builder)


def _check_shapes(path: Path, matrices: list[tuple[str, str, scipy.sparse.coo_matrix]]) -> None:
    shapes = {(part, name): matrix.shape for part, name, matrix in matrices}
    if len(set(shapes.values())) > 1:
        said = ", ".join(f"{' '.join(key).strip()} {shape[0]} x {shape[1]}" for key, shape in shapes.items())
        raise InputError(f"{path}: the matrices differ in shape: {said}. Expected the same users x items in all.")


def _add_matrix(builder: Builder, part: str, name: str, matrix: scipy.sparse.coo_matrix) -> None:
    """One matrix; values that look like Unix seconds are times."""
    user, item = matrix.row.astype(np.int64), matrix.col.astype(np.int64)
    rows = columns(user=user, item=item)
    timed = len(matrix.data) > 0 and float(matrix.data.min()) > 1e8
    if timed:
        rows = columns(user=user, item=item, time=matrix.data.astype(np.float64))
    builder.interactions(
        rows, user="user", item="item", behaviour=name or None, time="time" if timed else None, part=part
    )


def _add_relations(path: Path, builder: Builder) -> None:
    file = next((path / name for name in ("kg.txt", "kg.txt.gz") if (path / name).is_file()), None)
    if file is None:
        return
    head, relation, tail = integers(file, ("head", "relation", "tail"))
    triples = columns(head=head, relation=relation, tail=tail)
    builder.triples(triples, head=("item", "head"), relation="relation", tail=("item", "tail"))
