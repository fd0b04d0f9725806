"""What ADA draws on the host: places to read from, and matrices; one row for each image.

Column 0 of `geometry` and of `colours` says whether anything befalls the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigan.augment.warp import folded
from minigan.backend import Array

Generator = np.random.Generator

MOVED = 1 / 8  # of the height and width: whole pixels at most, others as standard deviation
SCALE = 0.2  # standard deviation of log2: of both axes, and of one against the other
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # the last two of log2


def happens(rng: Generator, n: int, p: float) -> Array:
    """Which of n images a change befalls."""
    return rng.random(n) < p


# Blit ------------------------------------------------------------------------------------------


def blits(rng: Generator, n: int, size: Sequence[int], p: float) -> Array:
    """Where pixel (i, j) of each result comes from: a[i] + b[j]; a and b in one row, (N, H + W).

    First mirrored, then turned k times to the left (numpy.rot90), then moved; what comes from
    outside is reflected. Images that are no squares make half turns only.
    """
    height, width = size
    mirrored = happens(rng, n, p) & (rng.random(n) < 0.5)
    k = rng.integers(0, 4, n) if height == width else 2 * rng.integers(0, 2, n)
    k = np.where(happens(rng, n, p), k, 0)
    shifts = np.rint(rng.uniform(-MOVED, MOVED, (n, 2)) * size).astype(np.int64)
    shifts *= happens(rng, n, p)[:, None]
    i = folded(np.arange(height) - shifts[:, :1], height)
    j = folded(np.arange(width) - shifts[:, 1:], width)
    k, mirrored = k[:, None], mirrored[:, None]
    i = np.where((k == 1) | (k == 2), height - 1 - i, i)
    j = np.where(k >= 2, width - 1 - j, j)

    def column(at: Array) -> Array:
        return np.where(mirrored, width - 1 - at, at)

    aside = k % 2 == 1  # then i counts columns of the source, j its rows
    a = np.where(aside, column(i), i * width)
    b = np.where(aside, j * width, column(j))
    return np.concatenate([a, b], axis=1).astype(np.int32)


# Geometry --------------------------------------------------------------------------------------


def geometry(rng: Generator, n: int, size: Sequence[int], p: float) -> Array:
    """(N, 1 + 6): whether; 2 x 3 matrices that take places of the result to places of the image.

    Places are (x, y, 1) in pixels from the centre. The image is scaled, turned, stretched, turned
    and moved, so a place of the result is moved back first.
    """
    turn = 1 - np.sqrt(1 - p)
    larger, stretched = powers(rng, n, SCALE, p), powers(rng, n, SCALE, p)
    moves = MOVED * rng.standard_normal((n, 2)) * size * happens(rng, n, p)[:, None]
    back = scaling(1 / larger, 1 / larger)
    back = back @ rotation(-angles(rng, n, turn)) @ scaling(1 / stretched, stretched)
    back = back @ rotation(-angles(rng, n, turn)) @ translation(-moves[:, 1], -moves[:, 0])
    return with_flag(back[:, :2])


def powers(rng: Generator, n: int, deviation: float, p: float) -> Array:
    """2^N(0, deviation^2) where it happens, else 1."""
    return np.exp2(deviation * rng.standard_normal(n) * happens(rng, n, p))


def angles(rng: Generator, n: int, p: float) -> Array:
    """U(-pi, pi) where it happens, else 0."""
    return rng.uniform(-np.pi, np.pi, n) * happens(rng, n, p)


def scaling(along_x: Array, along_y: Array) -> Array:
    matrix = identities(len(along_x), 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = along_x, along_y
    return matrix


def rotation(angle: Array) -> Array:
    matrix = identities(len(angle), 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle)
    matrix[:, 0, 1], matrix[:, 1, 0] = -np.sin(angle), np.sin(angle)
    return matrix


def translation(along_x: Array, along_y: Array) -> Array:
    matrix = identities(len(along_x), 3)
    matrix[:, 0, 2], matrix[:, 1, 2] = along_x, along_y
    return matrix


# Colour ----------------------------------------------------------------------------------------

# K u = v x u, where v = (1, 1, 1) / sqrt(3) is the axis of grey
CROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)


def colours(rng: Generator, n: int, channels: int, p: float) -> Array:
    """(N, 1 + C (C + 1)): whether; C x (C + 1) matrices that take (colour, 1) to another colour.

    With v = (1, .., 1) / sqrt(C), the axis of grey, and P = v v^T, in this order:
    brightness c + b; contrast k c; luma flip (I - 2 P) c; hue (I + sin K + (1 - cos) K^2) c, turned
    about v; saturation (I + (s - 1) (I - P)) c. Of one channel P = I: saturation does nothing.
    """
    unit = np.eye(channels)
    grey = np.full((channels, channels), 1 / channels)  # P
    drawn: list[Array] = [
        BRIGHTNESS * rng.standard_normal(n) * happens(rng, n, p),
        powers(rng, n, CONTRAST, p),
        happens(rng, n, p) & (rng.random(n) < 0.5),
        angles(rng, n, p),
        powers(rng, n, SATURATION, p),
    ]
    b, k, flipped, hue, s = (of[:, None, None] for of in drawn)
    linear = k * (unit - 2 * flipped * grey)
    if channels == 3:
        linear = (unit + np.sin(hue) * CROSS + (1 - np.cos(hue)) * CROSS @ CROSS) @ linear
    linear = (unit + (s - 1) * (unit - grey)) @ linear
    offset = linear.sum(axis=2, keepdims=True) * b
    return with_flag(np.concatenate([linear, offset], axis=2))


def with_flag(matrices: Array) -> Array:
    """Matrices (N, k, k + 1) as rows, after a column that says which of them do anything."""
    n, rows, columns = matrices.shape
    does = (matrices != np.eye(rows, columns)).any(axis=(1, 2))
    return np.concatenate([does[:, None], matrices.reshape(n, -1)], axis=1)


def identities(n: int, size: int) -> Array:
    return np.tile(np.eye(size), (n, 1, 1))
