"""Label maps of landscapes: which class each pixel belongs to.

A landscape is put together from the back to the front: sky, clouds, sun, a range of mountains with
snow, hills, meadow, water with its banks, rocks, flowers, trees. x runs to the right and y down,
both from 0 to 1. What lies at the same depth shares a row: the ground recedes from y = 1 (near) to
the horizon (far), and trees and rocks shrink with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.random import generator

from . import noise

Array = npt.NDArray[Any]

CLASSES = (
    "sky", "cloud", "sun", "mountain", "snow", "hill",
    "grass", "tree", "water", "sand", "rock", "flowers",
)  # fmt: skip
SKY, CLOUD, SUN, MOUNTAIN, SNOW, HILL, GRASS, TREE, WATER, SAND, ROCK, FLOWERS = range(12)
KINDS = ("lake", "sea", "river", "meadow", "dunes")
_SHARES = np.cumsum([0.28, 0.24, 0.16, 0.22, 0.10])
_TREES, _ROCKS = 9, 4
_OUTLINE = tuple((0, 4 * 2**i) for i in range(5))  # cells of the outline of a range
_SOFT = tuple((0, 2 * 2**i) for i in range(3))
_CLOUDS = ((6, 3), (12, 6), (24, 12), (48, 24))
_SHAPES = ((5, 5), (10, 10), (20, 20), (40, 40))


@dataclass(frozen=True)
class Plans:
    """The random numbers that landscapes are made of; every array begins with N.

    dice : (N, 32) in [0, 1): what there is, and where.
    trees, rocks : (N, count, 5) in [0, 1): x, y, size, shape, whether.
    outline, soft, clouds, shapes : lattices of noise, see `noise.field`.
    """

    dice: Array
    trees: Array
    rocks: Array
    outline: list[Array]
    soft: list[Array]
    clouds: list[Array]
    shapes: list[Array]

    @property
    def kinds(self) -> Array:
        """The kind of landscape (N,), an index into KINDS."""
        return np.minimum(np.searchsorted(_SHARES, self.dice[:, 0], side="right"), 4)


def plans(indices: Array, seed: int) -> Plans:
    """Draw the landscapes of these numbers; each depends on (seed, number) alone."""
    rows = [_plan(generator(seed, "scenes", int(index))) for index in indices]
    dice, trees, rocks = (np.stack([row[i] for row in rows]) for i in range(3))
    nets = [[np.stack(same) for same in zip(*(row[i] for row in rows), strict=True)]
            for i in range(3, 7)]  # fmt: skip
    return Plans(dice, trees, rocks, *nets)


def _plan(rng: np.random.Generator) -> tuple[Any, ...]:
    dice = rng.random(32, dtype=np.float32)
    trees = rng.random((_TREES, 5), dtype=np.float32)
    rocks = rng.random((_ROCKS, 5), dtype=np.float32)
    nets = [noise.lattices(rng, cells) for cells in (_OUTLINE, _SOFT, _CLOUDS, _SHAPES)]
    return dice, trees, rocks, *nets


class _Canvas:
    """The maps in the making: later layers cover earlier ones."""

    def __init__(self, plan: Plans, size: tuple[int, int]) -> None:
        height, width = size
        self.plan, self.size = plan, size
        self.y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[None, :, None]
        self.x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, None, :]
        self.aspect = np.float32(width / height)
        self.maps = np.full((len(plan.dice), height, width), SKY, np.uint8)
        self.horizon = 0.40 + 0.20 * self.die(1)
        self.depth = (self.y - self.horizon) / (1 - self.horizon)  # 0 far, 1 near
        self.shapes = noise.field(plan.shapes, size) - np.float32(0.5)
        self.outline = noise.curve(plan.outline, width, 0.55, ridged=True)[:, None]
        self.soft = noise.curve(plan.soft, width)[:, None]

    def die(self, number: int) -> Array:
        """One random number for each picture, (N, 1, 1)."""
        return self.plan.dice[:, number, None, None]

    def put(self, label: int, where: Array) -> None:
        """Cover pixels with a class."""
        np.copyto(self.maps, np.uint8(label), where=where)

    def kind(self, name: str) -> Array:
        """Which pictures are of a kind, (N, 1, 1)."""
        return (self.plan.kinds == KINDS.index(name))[:, None, None]


def draw(plan: Plans, size: tuple[int, int]) -> Array:
    """The label maps uint8 (N, H, W) of some plans."""
    canvas = _Canvas(plan, size)
    for layer in (_sky, _mountains, _ground, _water, _flowers, _rocks, _trees):
        layer(canvas)
    return canvas.maps


def _sky(c: _Canvas) -> None:
    clouds = noise.field(c.plan.clouds, c.size, 0.55)
    middle, thin = c.horizon * (0.2 + 0.5 * c.die(2)), 0.8 + 1.2 * c.die(3)
    dense = clouds - 0.44 - 0.16 * c.die(4) - thin * (c.y - middle) ** 2 / c.horizon
    c.put(CLOUD, (dense > 0) & (c.die(5) < 0.78))
    across = (c.x - 0.12 - 0.76 * c.die(6)) * c.aspect
    down = c.y - 0.09 - (c.horizon - 0.17) * c.die(7)
    radius = 0.042 + 0.028 * c.die(8)
    c.put(SUN, (across**2 + down**2 < radius**2) & (c.die(9) < 0.62))


def _mountains(c: _Canvas) -> None:
    height = (0.16 + 0.26 * c.die(10)) * np.where(c.kind("dunes"), 0.6, 1)
    there = c.die(11) < 0.74
    tilt = 0.7 * (c.die(12) - 0.5) * (c.x - 0.5)
    top = c.horizon + 0.05 - height * (1.35 * c.outline + tilt)
    c.put(MOUNTAIN, there & (c.y > top) & (c.y < c.horizon + 0.03))
    line = c.horizon - height * (0.35 + 0.35 * c.die(13)) + 0.22 * c.shapes
    c.put(SNOW, (c.maps == MOUNTAIN) & (c.y < line) & (c.die(14) < 0.62))
    low = c.horizon + 0.03 - (0.05 + 0.13 * c.die(15)) * (0.3 + c.soft[..., ::-1])
    c.put(HILL, (c.y > low) & (c.y < c.horizon + 0.03) & (c.die(16) < 0.6))


def _ground(c: _Canvas) -> None:
    edge = c.horizon + 0.03 * (c.soft - 0.5)
    c.put(GRASS, c.y > edge)
    bare = c.shapes + 0.25 * (c.die(17) - 0.5) + 0.22 > 0
    c.put(SAND, c.kind("dunes") & (c.y > edge) & bare)


def _water(c: _Canvas) -> None:
    t, bank = np.maximum(c.depth, 0), 0.25 + 0.5 * c.die(18)
    # A lake is an ellipse with a ragged edge, a river a band that winds and widens as it comes
    # near, the sea all from the horizon to the beach. Each is where its distance is below 0.
    cx, cy = 0.2 + 0.6 * c.die(19), 0.22 + 0.36 * c.die(20)
    rx, ry = 0.28 + 0.40 * c.die(21), 0.13 + 0.20 * c.die(22)
    lake = ((c.x - cx) / rx) ** 2 + ((t - cy) / ry) ** 2 - 1 + 1.3 * c.shapes
    bend = np.sin(2.5 + 7 * c.die(19) + (5 + 5 * c.die(20)) * np.sqrt(t))
    middle = 0.3 + 0.4 * c.die(21) + bend * (0.04 + 0.20 * t)
    river = (np.abs(c.x - middle) - 0.015 - (0.10 + 0.16 * c.die(22)) * t) * 5 + 0.25 * c.shapes
    slope = (c.die(20) - 0.5) * (c.x - 0.5)
    sea = (t - 0.38 - 0.35 * c.die(21) - slope) * 3 + 0.9 * c.shapes
    distance = np.where(c.kind("lake"), lake, np.where(c.kind("river"), river, sea))
    wet = (c.kind("lake") | c.kind("river") | c.kind("sea")) & (c.depth > 0)
    beach = np.where(c.kind("sea"), bank * 2, bank * (c.die(23) < 0.55)) * (0.35 + t)
    on_land = np.where(c.kind("sea"), True, c.depth > 0.03)
    c.put(SAND, wet & (distance < beach) & on_land)
    c.put(WATER, wet & (distance < 0))


def _flowers(c: _Canvas) -> None:
    often = np.where(c.kind("meadow"), 0.75, 0.3)
    dense = c.shapes[:, ::-1, ::-1] + 0.10 - 0.12 * c.die(24) > 0
    c.put(FLOWERS, (c.die(25) < often) & dense & (c.maps == GRASS) & (c.depth > 0.15))


def _standing(c: _Canvas, draws: Array, least: float) -> tuple[Array, Array, Array]:
    """Where something stands: x, y of its foot and the depth there, each (N, 1, 1)."""
    depth = least + (1 - least) * draws[:, 1, None, None] ** 1.2
    foot = c.horizon + (1 - c.horizon) * depth * 0.94
    return draws[:, 0, None, None], foot, depth


def _stands_on(c: _Canvas, x: Array, y: Array, labels: tuple[int, ...]) -> Array:
    """Whether the class at a point is one of those, (N, 1, 1)."""
    height, width = c.size
    row = np.minimum((y[:, 0, 0] * height).astype(int), height - 1)
    column = np.minimum((x[:, 0, 0] * width).astype(int), width - 1)
    return np.isin(c.maps[np.arange(len(row)), row, column], labels)[:, None, None]


def _rocks(c: _Canvas) -> None:
    for draws in np.moveaxis(c.plan.rocks, 1, 0):
        x, foot, depth = _standing(c, draws, 0.1)
        radius = (0.02 + 0.085 * depth) * (0.6 + 0.8 * draws[:, 2, None, None])
        flat = 0.55 + 0.35 * draws[:, 3, None, None]
        across, up = (c.x - x) * c.aspect / radius, (foot - c.y) / (radius * flat)
        inside = across**2 + up**2 * np.where(up > 0, 1, 12) + 1.6 * c.shapes < 1
        there = (draws[:, 4, None, None] < 0.45) & (c.die(26) < 0.6)
        c.put(ROCK, inside & there & _stands_on(c, x, foot, (GRASS, SAND, WATER, FLOWERS)))


def _trees(c: _Canvas) -> None:
    far = c.horizon - 0.012 - 0.05 * (c.die(27) + c.outline[..., ::-1] - 0.6)
    wood = (c.y > far) & (c.y < c.horizon + 0.022) & (c.soft > 0.25 + 0.35 * c.die(28))
    c.put(TREE, wood & (c.die(29) < 0.45) & (c.maps != WATER))
    share = np.where(c.kind("sea") | c.kind("dunes"), 0.3, 1) * c.die(30)
    trees = c.plan.trees
    order = np.argsort(trees[:, :, 1], axis=1)  # the far ones first
    for draws in np.moveaxis(np.take_along_axis(trees, order[..., None], 1), 1, 0):
        x, foot, depth = _standing(c, draws, 0.04)
        tall = (0.07 + 0.42 * depth) * (0.75 + 0.5 * draws[:, 2, None, None])
        up = (foot - c.y) / tall  # 0 at the foot, 1 at the tip
        across = np.abs(c.x - x) * c.aspect / tall
        ragged = 0.35 * c.shapes
        tiers = np.mod(up * 4, 1) * 0.07
        pine = (across < 0.23 * (1 - up) + 0.05 - tiers + 0.3 * ragged) & (up > 0.1)
        crown = (across / 0.34) ** 2 + ((up - 0.64) / 0.36) ** 2 + 2.4 * ragged < 1
        trunk = (across < 0.035) & (up > 0) & (up < 0.6)
        mostly = np.where(c.die(31) < 0.5, 0.15, 0.85)
        shape = np.where(draws[:, 3, None, None] < mostly, pine, crown)
        there = draws[:, 4, None, None] < share
        ground = _stands_on(c, x, foot, (GRASS, HILL, FLOWERS))
        c.put(TREE, (shape | trunk) & (up < 1) & there & ground)
