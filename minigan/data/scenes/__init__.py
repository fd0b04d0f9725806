"""Procedural landscapes: a label map of twelve classes, a picture of it, and words for both.

made = scenes.make(8, seed=0, size=64)
made.maps        # uint8 (8, 64, 64), the class of each pixel
made.photos      # uint8 (8, 3, 64, 64)
made.captions    # "a lake below snowy mountains at sunset in autumn, with trees"

A landscape of a seed and a number is the same one at every size, in whatever portions it is made.
Its style (hour, season, haze, side of the light) is drawn apart from its map, so that a style can
be learned: `render(made.maps, style("night", "winter", count=8))` is the same land by night.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import ShapeError, UsageError, did_you_mean
from minigan.random import generator

from . import maps as _maps
from . import render as _render
from .light import SEASONS, TIMES
from .maps import CLASSES, KINDS
from .words import caption

__all__ = ["CLASSES", "COLOURS", "KINDS", "SEASONS", "TIMES", "Scenes", "Style", "at", "make",
           "render", "style"]  # fmt: skip

Array = npt.NDArray[Any]

VERSION = 1  # raise it when the pictures change: fingerprints of the data depend on it
COLOURS = np.array(
    [
        [134, 193, 240], [203, 208, 222], [255, 214, 64], [126, 112, 142], [255, 255, 255],
        [74, 124, 96], [124, 190, 70], [26, 88, 46], [38, 100, 190], [238, 210, 142],
        [112, 96, 84], [232, 92, 152],
    ],
    np.uint8,
)  # fmt: skip
_PIXELS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Style:
    """How landscapes look, apart from what is where; every field is an array (N,).

    hour : 0 to 24. TIMES names some.
    season : 0 to 4, a circle: whole numbers are the middles of SEASONS.
    haze : how fast distance fades, about 0.4 to 1.6.
    light : where the light comes from if no sun is in the picture, -1 left to 1 right.
    texture : int64, which part of the textures is used.
    """

    hour: Array
    season: Array
    haze: Array
    light: Array
    texture: Array

    def __len__(self) -> int:
        return len(self.hour)

    def __getitem__(self, which: Any) -> Style:
        """The styles of some pictures: a slice or an array of indices."""
        return Style(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass(frozen=True)
class Scenes:
    """Landscapes and what is known about them.

    maps : uint8 (N, H, W).
    photos : uint8 (N, 3, H, W).
    styles : of N.
    kinds : int64 (N,), which of KINDS.
    """

    maps: Array
    photos: Array
    styles: Style
    kinds: Array

    @property
    def shares(self) -> Array:
        """The share of each class in each picture: (N, 12)."""
        return np.stack([(self.maps == c).mean((1, 2)) for c in range(len(CLASSES))], 1)

    @property
    def captions(self) -> list[str]:
        """One sentence about each picture."""
        styles = self.styles
        rows = zip(self.kinds, self.shares, styles.hour, styles.season, strict=True)
        return [caption(KINDS[k], dict(zip(CLASSES, s, strict=True)), h, y) for k, s, h, y in rows]


def make(count: int, seed: int = 0, start: int = 0, size: int | tuple[int, int] = 64) -> Scenes:
    """Make the landscapes `start` to `start + count` of the endless set of a seed.

    size : the side in pixels, or (H, W); 16 to 1024.
    """
    if count < 0 or start < 0:
        raise UsageError(f"cannot make {count} scenes from number {start} on")
    return at(np.arange(start, start + count), seed, size)


def at(indices: Array, seed: int = 0, size: int | tuple[int, int] = 64) -> Scenes:
    """Make the landscapes of some numbers."""
    height, width = (size, size) if isinstance(size, int) else size
    if not (16 <= height <= 1024 and 16 <= width <= 1024):
        raise UsageError(
            f"scenes of {height} x {width} pixels cannot be made", fix="use 16 to 1024"
        )
    indices = np.asarray(indices, np.int64)
    styles = drawn_styles(indices, seed)
    found = np.empty((len(indices), height, width), np.uint8)
    kinds = np.empty(len(indices), np.int64)
    for part in _portions(len(indices), height * width):
        plan = _maps.plans(indices[part], seed)
        found[part], kinds[part] = _maps.draw(plan, (height, width)), plan.kinds
    return Scenes(found, render(found, styles), styles, kinds)


def render(maps: Array, styles: Style) -> Array:
    """Pictures uint8 (N, 3, H, W) of label maps (N, H, W) in N styles."""
    maps = np.asarray(maps)
    if maps.ndim != 3 or len(maps) != len(styles):
        raise ShapeError(f"scenes.render: maps of shape {maps.shape}, {len(styles)} styles")
    if maps.size and not (maps.min() >= 0 and maps.max() < len(CLASSES)):
        raise UsageError(f"scenes.render: classes are 0 to {len(CLASSES) - 1}")
    maps = maps.astype(np.uint8)
    photos = np.empty((len(maps), 3, *maps.shape[1:]), np.uint8)
    for part in _portions(len(maps), maps.shape[1] * maps.shape[2]):
        photos[part] = _render.render(maps[part], styles[part])
    return photos


def style(
    time: str | float = "noon",
    season: str | float = "summer",
    *,
    haze: float = 0.8,
    light: float = -0.6,
    texture: int = 0,
    count: int = 1,
) -> Style:
    """One style, `count` times: a time of TIMES or an hour, a season of SEASONS or 0 to 4."""
    hour = TIMES[_known(time, tuple(TIMES), "time")] if isinstance(time, str) else time
    if isinstance(season, str):
        season = SEASONS.index(_known(season, SEASONS, "season"))
    one = np.ones(count, np.float32)
    numbers = np.full(count, texture, np.int64)
    return Style(one * hour, one * season, one * haze, one * light, numbers)


def drawn_styles(indices: Array, seed: int) -> Style:
    """The styles of the landscapes of these numbers."""
    dice = [generator(seed, "scene-styles", int(i)).random(5) for i in indices]
    a = np.array(dice, np.float32).reshape(-1, 5)
    return Style(
        hour=np.mod(5 + 20 * a[:, 0], 24),  # nights are short
        season=4 * a[:, 1],
        haze=0.4 + 1.0 * a[:, 2],
        light=2 * a[:, 3] - 1,
        texture=(a[:, 4] * 4096).astype(np.int64),
    )


def _known(name: str, names: tuple[str, ...], what: str) -> str:
    if name not in names:
        raise UsageError(
            f"scenes know no {what} '{name}'{did_you_mean(name, names)}",
            fix=f"use one of {', '.join(names)}",
        )
    return name


def _portions(count: int, pixels: int) -> Iterator[slice]:
    """As many pictures at once as fit into the caches of a processor."""
    step = max(1, _PIXELS_AT_ONCE // pixels)
    return (slice(i, i + step) for i in range(0, count, step))
