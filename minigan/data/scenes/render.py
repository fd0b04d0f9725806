"""From a label map and a style to a picture that looks like a photo.

    picture = haze(albedo x (ambient + sun x shade)) and, in the water, the mirror of what is above

Everything is worked out from the map: where the horizon is, where the light comes from (the sun in
the map, if there is one), how far away a row is, which way a crown or a rock is turned. So a map
that somebody painted is rendered as well as one of ours.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import light, noise
from .maps import (
    CLASSES,
    CLOUD,
    FLOWERS,
    GRASS,
    HILL,
    MOUNTAIN,
    ROCK,
    SAND,
    SKY,
    SNOW,
    SUN,
    TREE,
    WATER,
)

Array = npt.NDArray[Any]

_GROUND = (GRASS, WATER, SAND, FLOWERS)


class _Shot:
    """What the parts of the rendering share. Arrays are (N, H, W), colours (N, H, W, 3)."""

    def __init__(self, maps: Array, styles: Any) -> None:
        self.maps, self.styles = maps, styles
        count, height, width = maps.shape
        self.size = height, width
        self.rows = np.arange(count)[:, None, None]
        self.y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[None, :, None]
        self.x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, None, :]
        self.aspect = np.float32(width / height)
        self.lights = {k: v[:, None, None] for k, v in light.lights(styles.hour).items()}
        self.dark = light.darkness(styles.hour)[:, None, None]
        self.horizon = _horizon(maps)
        self.depth = np.clip((self.y - self.horizon) / (1.001 - self.horizon), 0, 1)
        self.has_sun, self.sun_x, self.sun_y = self._sun()
        self.side = np.where(
            self.has_sun, np.clip(3 * (self.sun_x - 0.5), -1, 1), styles.light[:, None, None]
        ).astype(np.float32)
        offsets = _offsets()
        self.places = offsets[styles.texture % len(offsets)]

    def _sun(self) -> tuple[Array, Array, Array]:
        """Whether there is a sun, and its middle."""
        disc = (self.maps == SUN).astype(np.float32)
        pixels = disc.sum((1, 2), keepdims=True)
        x = (disc * self.x).sum((1, 2), keepdims=True) / np.maximum(pixels, 1)
        y = (disc * self.y).sum((1, 2), keepdims=True) / np.maximum(pixels, 1)
        return pixels > 0, x, y

    def texture(self, name: str) -> Array:
        return noise.parts(name, self.places, self.size)

    def lit(self, name: str) -> Array:
        """A relief texture seen in the light: about -1 to 1."""
        return 0.55 * self.texture(f"{name} y") - self.side * self.texture(f"{name} x")

    def of(self, *labels: int) -> Array:
        return np.isin(self.maps, labels)


def render(maps: Array, styles: Any) -> Array:
    """Pictures uint8 (N, 3, H, W) of label maps uint8 (N, H, W) in styles of N."""
    shot = _Shot(maps, styles)
    table = light.materials(styles.season, CLASSES)
    colour = table[shot.rows, maps]
    relief = _relief(shot, colour)
    shade = np.clip(0.62 + relief, 0.08, 1.35)[..., None]
    colour *= shot.lights["ambient"] * (0.75 + 0.25 * shade) + shot.lights["sun"] * shade
    colour *= _shadows(shot)[..., None]
    _haze(shot, colour)
    sky = _sky(shot)
    air = shot.of(SKY, SUN)
    colour = np.where(air[..., None], sky, colour)
    _clouds(shot, colour, sky, relief)
    _water(shot, colour, table[:, WATER][:, None, None])
    _disc(shot, colour)
    colour = _antialiased(maps, colour)
    colour += 0.008 * shot.texture("grain")[..., None]
    np.clip(colour, 0, 1, out=colour)
    return np.ascontiguousarray((colour * 255 + 0.5).astype(np.uint8).transpose(0, 3, 1, 2))


@lru_cache(maxsize=1)
def _offsets() -> Array:
    """Where in the textures a picture may begin: (4096, 2), in random order."""
    rng = np.random.Generator(np.random.Philox(key=7))
    return rng.integers(0, noise.PLACES, (4096, 2))


def _horizon(maps: Array) -> Array:
    """The height at which the ground begins, the mean over the columns, (N, 1, 1)."""
    ground = np.isin(maps, _GROUND)
    height = maps.shape[1]
    columns = np.any(ground, axis=1)
    first = np.where(columns, ground.argmax(1), 0).sum(1) / np.maximum(columns.sum(1), 1) / height
    first = np.where(columns.any(1), first, 0.6)
    return np.clip(first, 0.02, 0.95).astype(np.float32)[:, None, None]


# The land ----------------------------------------------------------------------------------------


def _relief(s: _Shot, colour: Array) -> Array:
    """Paint the textures of the land into `colour`; return how each pixel is turned to the light.

    A region is round where the blur of its mask slopes: that gives crowns and clouds a body.
    """
    near = s.depth
    solid = s.of(TREE, ROCK, CLOUD).astype(np.float32)
    body = noise.blur(solid, 0.022)
    down, across = np.gradient(body, axis=(1, 2))
    scale = 0.045 * s.size[0]
    turned = np.clip(scale * (down * 0.8 - across * s.side * 1.2), -0.6, 0.6)
    clumps, crag, broad = s.lit("clumps"), s.lit("crag"), s.texture("broad")
    blades = s.texture("blades") * (0.25 + 0.75 * near)
    strength = np.zeros((len(CLASSES), 4), np.float32)  # of body, clumps, crag, broad
    strength[[MOUNTAIN, SNOW]] = [[0, 0, 0.24, 0.05], [0, 0, 0.17, 0.03]]
    strength[HILL] = 0, 0.09, 0.04, 0.07
    strength[[GRASS, FLOWERS]] = 0, 0.035, 0, 0.09
    strength[TREE] = 0.55, 0.15, 0, 0.02
    strength[ROCK] = 0.60, 0.04, 0.16, 0.02
    strength[SAND] = 0, 0.02, 0, 0.05
    strength[CLOUD] = 0.42, 0.02, 0, 0.06
    take = strength[s.maps]
    relief = take[..., 0] * turned + take[..., 1] * clumps
    relief += take[..., 2] * crag + take[..., 3] * broad
    relief += np.where(s.of(GRASS, FLOWERS), 0.07 * blades, 0)
    ripples = np.sin((s.y * 26 + 2.2 * broad * 0.35 + s.x * 5) * (2.2 - near) * 2.4)
    relief += np.where(s.maps == SAND, 0.07 * ripples * (0.3 + near), 0)
    fresh = (0.05 * broad)[..., None] * np.array([1.1, 0.2, -0.6], np.float32)
    colour += np.where(s.of(GRASS, HILL, TREE, MOUNTAIN)[..., None], fresh, 0)
    _blossoms(s, colour)
    return relief


def _blossoms(s: _Shot, colour: Array) -> None:
    """Dots in two colours, larger and denser near by."""
    dots = s.texture("dots") + 0.25 * s.texture("grain")
    bloom = np.clip((dots + 0.35 + 0.3 * s.depth) * 1.8, 0.12, 1) * (s.maps == FLOWERS)
    two = light.blossoms(s.styles.season)[:, :, None, None]
    which = np.clip(0.5 + 1.5 * s.texture("broad"), 0, 1)[..., None]
    petals = two[:, 0] * (1 - which) + two[:, 1] * which
    colour += (bloom * 0.9)[..., None] * (petals * 1.05 - colour)


def _shadows(s: _Shot) -> Array:
    """Light that trees and rocks leave to the ground at their feet, on the side off the light."""
    things = s.of(TREE, ROCK).astype(np.float32)
    height, width = s.size
    shadow = np.zeros_like(things)
    steps = max(1, round(0.02 * height))
    for way in (1, -1):
        moved = np.zeros_like(things)
        sideways = max(1, round(0.03 * width))
        if way > 0:  # light from the left
            moved[:, steps:, sideways:] = things[:, :-steps, :-sideways]
        else:
            moved[:, steps:, :-sideways] = things[:, :-steps, sideways:]
        shadow += moved * np.clip(0.5 - 0.5 * way * s.side * 2, 0, 1)
    shadow = noise.blur(shadow, 0.012) * s.of(GRASS, SAND, FLOWERS)
    return 1 - (0.42 * (1 - 0.5 * s.dark)) * shadow * np.clip(s.depth * 4, 0, 1)


def _haze(s: _Shot, colour: Array) -> None:
    """Far things take the colour of the sky at the horizon."""
    tree = s.maps == TREE  # as far away as its foot; the blur makes one of its columns
    foot = np.where(tree, s.depth[s.rows, _below(tree), 0], 0).astype(np.float32)
    there = noise.blur(tree.astype(np.float32), 0.05)
    depth = np.where(tree, noise.blur(foot, 0.05) / np.maximum(there, 1e-3), s.depth)
    far = (1 - depth) ** 3
    share = np.array([0, 0, 0, 0.46, 0.28, 0.30, 0.34, 0.24, 0, 0.30, 0.30, 0.30], np.float32)
    above = np.clip((s.horizon - s.y) / np.maximum(s.horizon, 0.05), 0, 1)
    far = np.where(s.of(MOUNTAIN, SNOW), 1.15 - 1.1 * above, far)
    amount = np.clip(share[s.maps] * far * s.styles.haze[:, None, None], 0, 0.85)[..., None]
    colour += amount * (s.lights["low"] * 0.92 - colour)


def _below(mask: Array) -> Array:
    """For each pixel the row of the first pixel below, or its own, that is not in the mask."""
    height = mask.shape[1]
    rows = np.where(mask, height - 1, np.arange(height)[None, :, None])
    return np.minimum.accumulate(rows[:, ::-1], axis=1)[:, ::-1]


# Sky and water -----------------------------------------------------------------------------------


def _sky(s: _Shot) -> Array:
    """The sky everywhere: a gradient, a glow around the sun, at night stars."""
    t = np.clip(s.y / np.maximum(s.horizon, 0.15), 0, 1)[..., None] ** 1.3
    sky = s.lights["zenith"] * (1 - t) + s.lights["low"] * t
    sky = np.broadcast_to(sky, (*s.maps.shape, 3)).copy()
    away = ((s.x - s.sun_x) * s.aspect) ** 2 + (s.y - s.sun_y) ** 2
    glow = np.where(s.has_sun, 0.34 * np.exp(-away / 0.012) + 0.22 * np.exp(-away / 0.10), 0)
    sky += (glow * (1 - 0.55 * s.dark))[..., None] * (s.lights["disc"] - 0.35 * sky)
    stars = np.clip((s.texture("grain") - 2.1) * 2, 0, 1) * (1 - t[..., 0])
    sky += (stars * 0.8 * s.dark)[..., None]
    return sky


def _clouds(s: _Shot, colour: Array, sky: Array, relief: Array) -> None:
    """White or tinted by the light, thin at the edges, grey below."""
    mask = s.maps == CLOUD
    thick = noise.blur(mask.astype(np.float32), 0.016)
    cover = np.clip(0.45 + 0.75 * (thick - 0.35), 0.38, 0.97)[..., None]
    bright = np.clip(0.97 + 0.75 * relief, 0.45, 1.25)[..., None]
    tint = s.lights["ambient"] * 0.72 + s.lights["sun"] * 0.78 + 0.12 * s.lights["low"]
    cloud = sky * (1 - cover) + np.minimum(tint * bright, 1) * cover
    np.copyto(colour, cloud, where=mask[..., None])


def _water(s: _Shot, colour: Array, deep: Array) -> None:
    """The mirror of the column above the shore, broken by ripples, and the depth below it."""
    water = s.maps == WATER
    if not water.any():
        return
    streaks = s.texture("streaks")
    row, column = _mirrored(s, streaks, water | (s.maps == ROCK))
    mirror = colour[s.rows, row, column]
    wrong = water[s.rows, row, column]  # other water up there: take the sky
    mirror = np.where(wrong[..., None], s.lights["low"] * 0.8 + s.lights["zenith"] * 0.2, mirror)
    row, column = _mirrored(s, streaks, water)
    rock = s.maps[s.rows, row, column] == ROCK  # out of the water, and before the shore
    mirror = np.where(rock[..., None], colour[s.rows, row, column], mirror)
    body = deep * (s.lights["ambient"] + s.lights["sun"]) * 0.9
    share = np.clip(0.70 - 0.38 * s.depth + 0.05 * streaks, 0.2, 0.85)[..., None]
    wet = mirror * share * np.array([0.80, 0.90, 0.94], np.float32) + body * (1 - share * 0.75)
    wet += (0.035 * streaks * (0.5 + s.depth))[..., None] * (0.4 + s.lights["low"])
    path = np.exp(-(((s.x - s.sun_x) / (0.04 + 0.07 * s.depth)) ** 2)) * s.has_sun
    glitter = path * np.clip(streaks * 0.55 + 0.12, 0, 1)
    wet += (glitter * 0.8)[..., None] * s.lights["disc"]
    np.copyto(colour, wet, where=water[..., None])


def _mirrored(s: _Shot, streaks: Array, water: Array) -> tuple[Array, Array]:
    """Row and column of what each pixel of the water mirrors, as far below the shore as that is
    above it, and shifted by the ripples, more so far from the shore."""
    height, width = s.size
    own = np.arange(height)[None, :, None]
    shore = np.maximum.accumulate(np.where(water, -1, own), axis=1)
    away = own - shore
    shift = np.rint(streaks * (0.0024 + 0.03 * away / height) * width).astype(np.intp)
    column = np.clip(np.arange(width)[None, None] + shift, 0, width - 1)
    row = np.clip(shore + 1 - away + np.rint(streaks * 0.3).astype(np.intp), 0, height - 1)
    return np.where(shore < 0, 0, row), column


def _disc(s: _Shot, colour: Array) -> None:
    """The sun; at night the moon with its seas."""
    spots = 0.10 * s.dark * np.clip(s.texture("clumps"), 0, 1)
    disc = np.minimum(s.lights["disc"] * 1.02, 1) - spots[..., None]
    np.copyto(colour, disc, where=(s.maps == SUN)[..., None])


def _antialiased(maps: Array, colour: Array) -> Array:
    """Pixels at the edge of a class take a third from their four neighbours."""
    edge = np.zeros(maps.shape, bool)
    for axis in (1, 2):
        one = (slice(None),) * axis
        differ = maps[(*one, slice(1, None))] != maps[(*one, slice(None, -1))]
        edge[(*one, slice(1, None))] |= differ
        edge[(*one, slice(None, -1))] |= differ
    around = np.pad(colour, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    mean = (around[:, 2:, 1:-1] + around[:, :-2, 1:-1] + around[:, 1:-1, 2:]
            + around[:, 1:-1, :-2]) * np.float32(0.25)  # fmt: skip
    return np.where(edge[..., None], colour + np.float32(0.4) * (mean - colour), colour)
