"""The HetRec 2011 sets: tab-separated ``.dat`` files with a header, here the Last.FM one (``user_artists.dat`` …)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from graphrec.datasets.adapters.common import columns
from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import first_line
from graphrec.datasets.builder import Builder

DAY = 86400.0


def recognise(path: Path) -> bool:
    """A folder whose ``user_artists.dat`` has the header of the set."""
    return path.is_dir() and first_line(path / "user_artists.dat").split("\t") == ["userID", "artistID", "weight"]


def read(path: Path, builder: Builder, *, unlisted: str = "drop") -> None:
    """Read listening counts (as weights), tag assignments with their days, friends and names into ``builder``.

    Args:
        path: the folder.
        builder: takes the data.
        unlisted: tag assignments on artists that ``artists.dat`` lacks: ``drop`` (counted and said) or ``keep``,
            which makes items of these artists.
    """
    artists = table(path / "artists.dat", [Column("id", "id"), Column("name"), Column("url"), Column("pictureURL")])
    items = artists.column("id").to_numpy()
    listens = table(
        path / "user_artists.dat", [Column("userID", "id"), Column("artistID", "id"), Column("weight", "float", 0)]
    )
    builder.nodes("item", items)
    builder.names("item", items, artists.column("name").to_pylist())
    builder.interactions(listens, user="userID", item="artistID", weight="weight")
    if (path / "tags.dat").is_file():
        tags = table(path / "tags.dat", [Column("tagID", "id"), Column("tagValue")], encoding="latin-1")
        builder.nodes("tag", tags.column("tagID").to_numpy())
        builder.names("tag", tags.column("tagID").to_numpy(), tags.column("tagValue").to_pylist())
    if (path / "user_taggedartists.dat").is_file():
        _add_tags(path / "user_taggedartists.dat", builder, items, unlisted == "drop")
    if (path / "user_friends.dat").is_file():
        friends = table(path / "user_friends.dat", [Column("userID", "id"), Column("friendID", "id")])
        builder.links(friends, source=("user", "userID"), relation="trusts", target=("user", "friendID"))


def _add_tags(path: Path, builder: Builder, items: np.ndarray, drop: bool) -> None:
    days = (Column("day", "float", 1, 31), Column("month", "float", 1, 12), Column("year", "float", 1900, 2200))
    rows = table(path, [Column("userID", "id"), Column("artistID", "id"), Column("tagID", "id"), *days])
    known = np.isin(rows.column("artistID").to_numpy(), items)
    if drop and not known.all():
        builder.note("dropped", "tag assignments", int((~known).sum()), "on artists that artists.dat does not list")
        rows = rows.filter(pa.array(known))
    builder.tags(
        columns(
            user=rows.column("userID").to_numpy(),
            item=rows.column("artistID").to_numpy(),
            tag=rows.column("tagID").to_numpy(),
            time=_seconds(*(rows.column(name).to_numpy() for name in ("year", "month", "day"))),
        ),
        item="item",
        tag="tag",
        user="user",
        time="time",
    )


def _seconds(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Unix seconds of the beginning of a day, UTC."""
    months = (year.astype(np.int64) - 1970) * 12 + (month.astype(np.int64) - 1)
    dates = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.float64) + day - 1
    return dates * DAY
