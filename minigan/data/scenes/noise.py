"""Smooth noise for landscapes: the same pattern at every resolution.

Value noise: random numbers on a lattice, joined by smoothstep curves. A field of several octaves
is a sum of lattices, each twice as fine as the one before. Joining is a product with a matrix on
each side, P Z Qᵀ, where row i of P holds the two weights of pixel i.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@lru_cache(maxsize=256)
def joining(pixels: int, cells: int) -> Array:
    """The matrix (pixels, cells + 1) that takes lattice values to pixels."""
    place = (np.arange(pixels) + 0.5) / pixels * cells
    left = np.minimum(place.astype(int), cells - 1)
    t = place - left
    t = t * t * (3 - 2 * t)
    matrix = np.zeros((pixels, cells + 1), np.float32)
    matrix[np.arange(pixels), left] = 1 - t
    matrix[np.arange(pixels), left + 1] = t
    return matrix


@lru_cache(maxsize=64)
def blurring(pixels: int, sigma: float) -> Array:
    """The matrix (pixels, pixels) of a Gaussian blur; `sigma` as a share of the side."""
    i = np.arange(pixels)
    matrix = np.exp(-0.5 * ((i[:, None] - i) / (sigma * pixels)) ** 2)
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


def blur(fields: Array, sigma: float) -> Array:
    """Fields (..., H, W) blurred; `sigma` as a share of the height."""
    height, width = fields.shape[-2:]
    across = blurring(width, sigma * height / width)
    return blurring(height, sigma) @ fields @ across.T


def lattices(rng: np.random.Generator, cells: tuple[tuple[int, int], ...]) -> list[Array]:
    """Random numbers in [0, 1) on lattices of so many cells (down, across)."""
    return [rng.random((down + 1, across + 1), dtype=np.float32) for down, across in cells]


def field(stacked: list[Array], size: tuple[int, int], gain: float = 0.5) -> Array:
    """Noise (N, H, W) around 0.5 from lattices (N, down + 1, across + 1), coarse to fine.

    Each octave is `gain` times as strong as the one before.
    """
    height, width = size
    total, weights, weight = np.zeros((len(stacked[0]), height, width), np.float32), 0.0, 1.0
    for lattice in stacked:
        down, across = lattice.shape[1] - 1, lattice.shape[2] - 1
        total += np.float32(weight) * (joining(height, down) @ lattice @ joining(width, across).T)
        weights += weight
        weight *= gain
    return total / np.float32(weights)


def curve(stacked: list[Array], width: int, gain: float = 0.5, ridged: bool = False) -> Array:
    """Noise (N, W) from lattices (N, 1, across + 1): the outline of mountains.

    ridged : with 1 - |2 n - 1| in place of n, which has sharp peaks.
    """
    total, weights, weight = np.zeros((len(stacked[0]), width), np.float32), 0.0, 1.0
    for lattice in stacked:
        values = lattice[:, 0] @ joining(width, lattice.shape[2] - 1).T
        total += np.float32(weight) * (1 - np.abs(2 * values - 1) if ridged else values)
        weights += weight
        weight *= gain
    return total / np.float32(weights)


# Textures ----------------------------------------------------------------------------------------

PLACES = 32  # a texture can begin at any of so many places along each side
_TEXTURE_SEED = 20260

_OCTAVES = {  # name -> cells (down, across) along twice the side of a picture, coarse to fine
    "broad": ((6, 6), (12, 12), (24, 24)),
    "crag": ((12, 12), (24, 24), (48, 48), (96, 96)),
    "streaks": ((48, 10), (96, 20), (160, 40)),
    "blades": ((20, 90), (40, 170)),
    "clumps": ((32, 32), (64, 64), (128, 128)),
    "grain": ((160, 160),),
    "dots": ((72, 72),),
}
_GAIN = {"crag": 0.62, "clumps": 0.7, "streaks": 0.7}


@lru_cache(maxsize=16)
def textures(height: int, width: int) -> dict[str, Array]:
    """Name -> a field (2 H, 2 W), of mean 0 and deviation 1, from which pictures take a part.

    Beside the names of `_OCTAVES`: "crag x", "crag y", "clumps x", "clumps y", the slopes of the
    two that are lit like a relief.
    """
    rng = np.random.Generator(np.random.Philox(_TEXTURE_SEED))
    found: dict[str, Array] = {}
    for name, cells in _OCTAVES.items():
        drawn = [lattice[None] for lattice in lattices(rng, cells)]
        # Finer than the pixels, an octave would only be noise that differs between sizes.
        useful = [a for a in drawn if a.shape[1] <= 2 * height and a.shape[2] <= 2 * width]
        values = field(useful or drawn[:1], (2 * height, 2 * width), _GAIN.get(name, 0.5))[0]
        if name == "crag":
            values = -np.abs(values - values.mean())
        found[name] = _standard(values)
        if name in ("crag", "clumps"):
            found[f"{name} y"], found[f"{name} x"] = map(_standard, np.gradient(values))
    return found


def _standard(values: Array) -> Array:
    return ((values - values.mean()) / max(float(values.std()), 1e-6)).astype(np.float32)


def parts(name: str, places: Array, size: tuple[int, int]) -> Array:
    """The texture `name` of each picture: (N, H, W); `places` (N, 2) in [0, PLACES)."""
    height, width = size
    whole = textures(height, width)[name]
    out = np.empty((len(places), height, width), np.float32)
    for row, (down, across) in enumerate(places):
        top, left = int(down) * height // PLACES, int(across) * width // PLACES
        out[row] = whole[top : top + height, left : left + width]
    return out
