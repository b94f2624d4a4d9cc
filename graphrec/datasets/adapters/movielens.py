"""MovieLens as GroupLens publishes it: ``u.data`` (100K), ``ratings.dat`` (1M, 10M), ``ratings.csv`` (all others)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphrec.datasets.adapters.common import columns, pair_keys
from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import Ints, first_line, read_bytes
from graphrec.datasets.adapters.recbole import add_category
from graphrec.datasets.builder import Builder
from graphrec.errors import InputError, MissingFileError

_DATA = re.compile(r"\d+\t\d+\t\d+\t\d+\s*")
_DAT = re.compile(r"\d+::\d+::[\d.]+::\d+\s*")
GENRES = 19
NO_GENRE = "(no genres listed)"


def recognise(path: Path) -> bool:
    """A folder with one of the three files of ratings, in its form."""
    if not path.is_dir():
        return False
    csv = first_line(path / "ratings.csv").split(",")
    return (
        bool(_DATA.fullmatch(first_line(path / "u.data")))
        or bool(_DAT.fullmatch(first_line(path / "ratings.dat")))
        or csv[:3] == ["userId", "movieId", "rating"]
    )


def read(path: Path, builder: Builder, *, fold: str | None = None) -> None:
    """Read ratings with times, titles, genres, tags and what is known of the users into ``builder``.

    Genres are triples (item, genre, ``genre:<name>``); users' age, gender and occupation indicator features.

    Args:
        path: the folder.
        builder: takes the data.
        fold: a published split of the 100K set: ``u1`` … ``u5``, ``ua``, ``ub``; None: nothing is split.
    """
    if fold is not None and not (path / "u.data").is_file():
        raise InputError(f"fold={fold!r}: published folds are part of the 100K set, and {path} has no u.data.")
    if (path / "u.data").is_file():
        _read_100k(path, builder, fold)
    elif (path / "ratings.dat").is_file():
        _read_dat(path, builder)
    else:
        _read_csv(path, builder)


def _ratings(path: Path, separator: str, header: bool, low: float) -> pa.Table:
    names = ("userId", "movieId", "rating", "timestamp")
    kinds = (Column(names[0], "id"), Column(names[1], "id"), Column(names[2], "float", low, 5), Column(names[3], "id"))
    return table(path, kinds, separator=separator, header=header)


def _add_ratings(builder: Builder, rows: pa.Table, part: str | None = None) -> None:
    builder.interactions(rows, user="userId", item="movieId", rating="rating", time="timestamp", part=part)


def _add_genres(builder: Builder, items: Ints, genres: list[list[str]]) -> None:
    """Triples from films to genres, and the genres' names."""
    pairs = [(item, genre) for item, row in zip(items.tolist(), genres, strict=True) for genre in row]
    names = sorted({genre for _, genre in pairs})
    if not pairs:
        return
    triples = columns(
        item=np.array([item for item, _ in pairs], dtype=np.int64),
        relation=["genre"] * len(pairs),
        genre=[f"genre:{genre}" for _, genre in pairs],
    )
    builder.triples(triples, head=("item", "item"), relation="relation", tail=("entity", "genre"))
    ids = [f"genre:{name}" for name in names]
    builder.names("entity", ids, names).kinds("entity", ids, ["genre"] * len(ids))


def _add_films(builder: Builder, items: Ints, titles: list[str], genres: list[list[str]]) -> None:
    builder.nodes("item", items)
    builder.names("item", items, titles)
    texts = [f"{title}. {' '.join(row)}" if row else title for title, row in zip(titles, genres, strict=True)]
    builder.texts("item", items, texts)
    _add_genres(builder, items, genres)


def _read_100k(path: Path, builder: Builder, fold: str | None) -> None:
    rows = _ratings(path / "u.data", "\t", False, 1)
    if (path / "u.item").is_file():
        names = (path / "u.genre").is_file() and [
            line.split("|")[0] for line in read_bytes(path / "u.genre").decode("latin-1").split("\n") if line.strip()
        ]
        words = names or [str(number) for number in range(GENRES)]
        flags = [Column(f"genre {number}", "float", 0, 1) for number in range(len(words))]
        about = [Column("id", "id"), Column("title"), Column("release"), Column("video"), Column("url"), *flags]
        films = table(path / "u.item", about, separator="|", header=False, encoding="latin-1")
        matrix = np.stack([films.column(flag.name).to_numpy() for flag in flags], axis=1)
        genres = [[words[number] for number in np.flatnonzero(row)] for row in matrix]
        _add_films(builder, films.column("id").to_numpy(), films.column("title").to_pylist(), genres)
    if (path / "u.user").is_file():
        _add_users(builder, path / "u.user", "|", ("id", "age", "gender", "occupation", "zip"))
    if fold is None:
        _add_ratings(builder, rows)
        return
    held = path / f"{fold}.test"
    if not held.is_file():
        there = ", ".join(sorted(file.stem for file in path.glob("u*.test"))) or "none"
        raise MissingFileError(f"fold={fold!r}: {held} is not there. Folds that are: {there}.")
    test = _ratings(held, "\t", False, 1)
    keys, test_keys = pair_keys(
        *((part.column("userId").to_numpy(), part.column("movieId").to_numpy()) for part in (rows, test))
    )
    held_out = np.isin(keys, test_keys)
    if held_out.sum() != len(test_keys):
        raise InputError(f"{held}: {len(test_keys) - held_out.sum()} of its ratings are not in u.data.")
    _add_ratings(builder, rows.filter(pa.array(~held_out)), "train")
    _add_ratings(builder, rows.filter(pa.array(held_out)), "test")


def _add_users(builder: Builder, path: Path, separator: str, names: tuple[str, ...]) -> None:
    about = [Column(names[0], "id"), *(Column(name) for name in names[1:])]
    users = table(path, about, separator=separator, header=False, encoding="latin-1")
    ids = users.column(names[0]).to_numpy()
    builder.nodes("user", ids)
    for name in names[1:]:
        add_category(builder, "user", ids, name, users.column(name).to_pylist())


def _read_dat(path: Path, builder: Builder) -> None:
    rows = _ratings(path / "ratings.dat", "::", False, 0.5)
    if (path / "movies.dat").is_file():
        about = [Column("id", "id"), Column("title"), Column("genres")]
        films = table(path / "movies.dat", about, separator="::", header=False, encoding="latin-1")
        genres = [row.split("|") for row in films.column("genres").to_pylist()]
        genres = [[genre for genre in row if genre and genre != NO_GENRE] for row in genres]
        _add_films(builder, films.column("id").to_numpy(), films.column("title").to_pylist(), genres)
    if (path / "users.dat").is_file():
        _add_users(builder, path / "users.dat", "::", ("id", "gender", "age", "occupation", "zip"))
    _add_ratings(builder, rows)
    if (path / "tags.dat").is_file():
        asked = [Column("userId", "id"), Column("movieId", "id"), Column("tag"), Column("timestamp", "id")]
        _add_tags(builder, table(path / "tags.dat", asked, separator="::", header=False))


def _read_csv(path: Path, builder: Builder) -> None:
    rows = _ratings(path / "ratings.csv", ",", True, 0.5)
    if (path / "movies.csv").is_file():
        about = [Column("movieId", "id"), Column("title"), Column("genres")]
        films = table(path / "movies.csv", about, separator=",", quoted=True)
        genres = [row.split("|") for row in films.column("genres").to_pylist()]
        genres = [[genre for genre in row if genre and genre != NO_GENRE] for row in genres]
        _add_films(builder, films.column("movieId").to_numpy(), films.column("title").to_pylist(), genres)
    _add_ratings(builder, rows)
    if (path / "tags.csv").is_file():
        asked = [Column("userId", "id"), Column("movieId", "id"), Column("tag"), Column("timestamp", "id")]
        _add_tags(builder, table(path / "tags.csv", asked, separator=",", quoted=True))
    if (path / "links.csv").is_file():
        asked = [Column("movieId", "id"), Column("imdbId"), Column("tmdbId")]
        links = table(path / "links.csv", asked, separator=",")
        builder.note(
            "available", "links.csv", len(links), "IMDb and TMDb numbers of the films, for catalogues of your own"
        )


def _add_tags(builder: Builder, rows: pa.Table) -> None:
    """Tag assignments with their users and times; a tag is its words as they were typed."""
    builder.tags(rows, item="movieId", tag="tag", user="userId", time="timestamp")
