"""Sampling at places: grid_sample and affine_grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from minigan_kernels import reference
from opspec import Array, Case, OpSpec
from strategies import Draw, cases, maps, per_axis, values

import minigan.functional as F


def places(rng: np.random.Generator, shape: Any, out: Any, align_corners: bool) -> Array:
    """A grid whose places, in pixels, keep 2e-2 away from where derivatives jump.

    Those are pixel centres, borders and folds; for "nearest" also the middle between two centres.
    """
    sides = np.array(shape[:1:-1])
    scale = (sides - 1) / 2 if align_corners else sides / 2
    whole = rng.integers(-2, sides + 2, (shape[0], *out, len(sides)))
    part = rng.uniform(0.05, 0.45, whole.shape) + rng.choice([0.0, 0.5], whole.shape)
    pixels = whole + part
    u = (pixels + (0.0 if align_corners else 0.5)) / np.maximum(scale, 0.5) - 1
    return np.asarray(u)


def grids(padding_mode: str) -> st.SearchStrategy[Case]:
    @cases
    def drawn(draw: Draw, rng: np.random.Generator) -> Case:
        nd = draw(st.sampled_from([2, 2, 3]))
        shape = draw(maps(nd, max_channels=2, max_side=4 if nd == 2 else 2))
        kwargs = {
            "mode": draw(st.sampled_from(["bilinear", "bilinear", "nearest"])),
            "padding_mode": padding_mode,
            "align_corners": draw(st.booleans()),
        }
        out = per_axis(draw, nd, 1, 3 if nd == 2 else 2)
        grid = places(rng, shape, out, bool(kwargs["align_corners"]))
        return Case((values(rng, shape), grid), kwargs)

    return drawn


@cases
def transforms(draw: Draw, rng: np.random.Generator) -> Case:
    size = draw(maps(draw(st.integers(2, 3))))
    nd = len(size) - 2
    options = {"size": size, "align_corners": draw(st.booleans())}
    return Case((values(rng, (size[0], nd, nd + 1)),), options)


def reference_affine_grid(theta: Array, size: Any, align_corners: bool) -> Array:
    """theta (.., x, y, 1) at the centre of every pixel of an image that spans [-1, 1]."""
    nd = len(size) - 2
    grid = np.empty((size[0], *size[2:], nd))
    for place in np.ndindex(*size[2:]):
        at = [1.0]
        for i, n in zip(place, size[2:], strict=True):
            if align_corners:
                at.insert(0, -1 + 2 * i / (n - 1) if n > 1 else 0.0)
            else:
                at.insert(0, -1 + (2 * i + 1) / n)
        grid[(slice(None), *place)] = theta @ np.array(at)
    return grid


SPECS = [
    *[
        OpSpec(
            f"grid_sample-{padding_mode}",
            F.grid_sample,
            reference.grid_sample,
            grids(padding_mode),
            linear=(0,),
            fused=True,
        )
        for padding_mode in ("zeros", "border", "reflection")
    ],
    OpSpec("affine_grid", F.affine_grid, reference_affine_grid, transforms, linear=(0,)),
]
