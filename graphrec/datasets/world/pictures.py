"""Pictures of the seeded world's items: a ground in the genre's colour, stripes of the topic, a disc of the maker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphrec.datasets.world.content import unit_rows
from graphrec.datasets.world.draws import integers
from graphrec.datasets.world.latent import Items

_BLOCK = 4096


def draw_pictures(seed: int, items: Items, size: int = 16, which: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
    """Pictures as (N, size, size, 3) uint8 arrays of red, green and blue.

    Args:
        seed: of the world.
        items: of the world.
        size: height and width in pixels.
        which: (N,) items to draw; default: all.
    """
    which = np.arange(len(items)) if which is None else which
    colour = np.arange(3)[None, :]
    genre, topic, maker = items.genre[which], items.topic[which], items.maker[which]
    ground = 40 + integers(seed, "ground", 160, genre[:, None], colour)
    ground += integers(seed, "shade", 41, which[:, None], colour) - 20
    ink = integers(seed, "ink", 256, topic[:, None], colour)
    disc = integers(seed, "disc", 256, maker[:, None], colour)
    across, down = (integers(seed, name, 7, topic)[:, None, None] - 3 for name in ("across", "down"))
    y, x = np.arange(size)[None, :, None], np.arange(size)[None, None, :]
    phase = integers(seed, "phase", 16, which)[:, None, None]
    stripes = ((across * x + down * y) * 16 // size + phase) % 16 < 6
    centre = [integers(seed, f"centre-{axis}", size, which)[:, None, None] for axis in "xy"]
    radius = size // 8 + integers(seed, "radius", max(size // 5, 1), maker)[:, None, None]
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    picture = np.where(stripes[..., None], (ground + ink)[:, None, None, :] // 2, ground[:, None, None, :])
    picture = np.where(inside[..., None], disc[:, None, None, :], picture)
    pixel = np.arange(size * size * 3).reshape(1, size, size, 3)
    grain = integers(seed, "grain", 49, which[:, None, None, None], pixel) - 24
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def picture_features(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colours and edges of pictures, (N, 88) float32 rows of length 1, computed from the pixels alone.

    A histogram of 4 x 4 x 4 colours; the mean colour of the four quarters; the mean absolute difference of neighbours
    to the right, below and on both diagonals for each colour.
    """
    count, size = pictures.shape[:2]
    bins = (pictures >> 6).astype(np.int64) @ np.array([16, 4, 1])
    histogram = np.zeros((count, 64), dtype=np.int64)
    np.add.at(histogram, (np.arange(count)[:, None], bins.reshape(count, -1)), 1)
    pixels = pictures.astype(np.int64)
    half = size // 2
    quarters = [pixels[:, a : a + half, b : b + half].sum(axis=(1, 2)) for a in (0, half) for b in (0, half)]
    right, below = np.diff(pixels, axis=2)[:, :-1], np.diff(pixels, axis=1)[:, :, :-1]
    edges = [np.abs(right), np.abs(below), np.abs(right + below), np.abs(right - below)]
    scale = size * size
    parts = [
        histogram * 256 * 4 // scale,
        np.concatenate(quarters, axis=1) * 4 // scale - 512,
        np.concatenate([edge.sum(axis=(1, 2)) for edge in edges], axis=1) * 4 // scale,
    ]
    return unit_rows(np.concatenate(parts, axis=1))


def item_picture_features(seed: int, items: Items) -> NDArray[np.float32]:
    """:func:`picture_features` of every item's picture, drawn and forgotten in blocks."""
    blocks = [np.arange(start, min(start + _BLOCK, len(items))) for start in range(0, len(items), _BLOCK)]
    return np.concatenate([picture_features(draw_pictures(seed, items, which=block)) for block in blocks])
