"""Resizing, borders and upfirdn: all are linear."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.reference.resample import interpolate, pad
from opspec import Array, Case, OpSpec
from strategies import Draw, cases, maps, per_axis, values

import minigan.functional as F
from minigan.ops.resample import AxisMap, Table

AXES = {
    "nearest": [1, 2, 3],
    "nearest-exact": [1, 2, 3],
    "linear": [1],
    "bilinear": [2],
    "trilinear": [3],
    "bicubic": [2],
}  # mode -> how many spatial axes it takes


@cases
def tables(draw: Draw, rng: np.random.Generator) -> Case:
    """Any table: absent taps, repeated ones, rows without a tap."""
    shape = draw(maps(draw(st.integers(1, 3))))
    axis = draw(st.integers(0, len(shape) - 1))
    size = rng.integers(1, 5, 2)
    index = rng.integers(-1, shape[axis], size)
    table = Table(index.astype(np.int32), values(rng, size), shape[axis])
    return Case((values(rng, shape),), {"axis": axis, "table": table})


def reference_table(x: Array, axis: int, table: Table) -> Array:
    return reference.axis_map(x, axis, table.index, table.weight)  # type: ignore[no-any-return]


def resizes(mode: str) -> st.SearchStrategy[Case]:
    @cases
    def drawn(draw: Draw, rng: np.random.Generator) -> Case:
        nd = draw(st.sampled_from(AXES[mode]))
        shape = draw(maps(nd, max_side=5 if nd < 3 else 3))
        kwargs: dict[str, Any] = {"mode": mode}
        if not mode.startswith("nearest"):
            kwargs["align_corners"] = draw(st.booleans())
        if draw(st.booleans()):
            kwargs["size"] = per_axis(draw, nd, 1, 7 if nd < 3 else 4)
        else:
            kwargs["scale_factor"] = tuple(
                draw(st.sampled_from([1.0, 1.5, 2.0, 2.6, 1 / n])) for n in shape[2:]
            )
        return Case((values(rng, shape),), kwargs)

    return drawn


def reference_interpolate(
    x: Array,
    mode: str,
    align_corners: bool = False,
    size: Any = None,
    scale_factor: Any = None,
) -> Array:
    scale = (None,) * (x.ndim - 2) if scale_factor is None else scale_factor
    if size is None:
        size = [math.floor(n * s) for n, s in zip(x.shape[2:], scale, strict=True)]
    kind = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return interpolate(x, size, scale, kind, align_corners)


@cases
def borders(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(maps(draw(st.integers(1, 3))))
    mode = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    widths: list[int] = []
    for n in shape[:1:-1]:
        high = {"reflect": n - 1, "circular": n}.get(mode, 3)
        before = draw(st.integers(-1, high))
        widths += [before, draw(st.integers(-n - min(before, 0), high))]
    kwargs: dict[str, Any] = {"pad": tuple(widths), "mode": mode}
    if mode == "constant" and draw(st.booleans()):
        kwargs["value"] = 1.5
    return Case((values(rng, shape),), kwargs)


def reference_border(x: Array, pad: Any, mode: str, value: float = 0.0) -> Array:
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    return _pad(x, [(0, 0)] * (x.ndim - len(pairs)) + pairs, mode, value)


_pad = pad


@cases
def filters(draw: Draw, rng: np.random.Generator) -> Case:
    """Filters of full rank, of rank 1 and separable ones; padding also negative."""
    shape = draw(maps(2, max_side=5))
    up, down = per_axis(draw, 2, 1, 3), per_axis(draw, 2, 1, 3)  # x, y
    kind = draw(st.sampled_from(["full", "outer", "separable", "none"]))
    kx, ky = per_axis(draw, 2, 1, 4)
    f: Array | None = values(rng, (ky, kx))
    if kind == "outer":
        f = np.outer(values(rng, (ky,)), values(rng, (kx,)))
    if kind == "separable":
        f, ky = values(rng, (kx,)), kx
    if kind == "none":
        f, kx, ky = None, 1, 1
    padding: list[int] = []
    for n, k, u in ((shape[3], kx, up[0]), (shape[2], ky, up[1])):
        before = draw(st.integers(-min(2, n * u), 3))
        low = max(k - n * u - before, -n * u - min(before, 0))
        padding += [before, draw(st.integers(low, low + 3))]
    kwargs = {"f": f, "up": up, "down": down, "padding": tuple(padding)}
    kwargs |= {"flip_filter": draw(st.booleans()), "gain": draw(st.sampled_from([1.0, 4.0]))}
    return Case((values(rng, shape),), kwargs)


def reference_upfirdn2d(
    x: Array, f: Any, up: Any, down: Any, padding: Any, flip_filter: bool, gain: float
) -> Array:
    f = np.ones((1, 1)) if f is None else f
    f = np.outer(f, f) if f.ndim == 1 else f
    left, right, top, bottom = padding
    around = (top, bottom), (left, right)
    y: Array = reference.upfirdn2d(x, f * gain, up[::-1], down[::-1], around, flip_filter)
    return y


@cases
def shuffles(draw: Draw, rng: np.random.Generator) -> Case:
    r, (n, c, h, w) = draw(st.integers(1, 3)), draw(maps(2, max_side=2))
    return Case((values(rng, (n, c * r * r, h, w)),), {"r": r})


def reference_shuffle(x: Array, r: int) -> Array:
    n, c, h, w = x.shape
    y = np.empty((n, c // (r * r), h * r, w * r), x.dtype)
    for i, j in np.ndindex(r, r):
        y[:, :, i::r, j::r] = x[:, i * r + j :: r * r]
    return y


@cases
def unshuffles(draw: Draw, rng: np.random.Generator) -> Case:
    r, (n, c, h, w) = draw(st.integers(1, 3)), draw(maps(2, max_side=2))
    return Case((values(rng, (n, c, h * r, w * r)),), {"r": r})


def reference_unshuffle(x: Array, r: int) -> Array:
    n, c, h, w = x.shape
    y = np.empty((n, c * r * r, h // r, w // r), x.dtype)
    for i, j in np.ndindex(r, r):
        y[:, i * r + j :: r * r] = x[:, :, i::r, j::r]
    return y


SPECS = [
    OpSpec(
        "axis_map",
        lambda x, axis, table: AxisMap.apply(x, axis=axis, table=table),
        reference_table,
        tables,
        linear=(0,),
    ),
    *[
        OpSpec(
            f"interpolate-{mode}", F.interpolate, reference_interpolate, resizes(mode), linear=(0,)
        )
        for mode in AXES
    ],
    OpSpec("pad", F.pad, reference_border, borders, linear=(0,)),
    OpSpec("upfirdn2d", F.upfirdn2d, reference_upfirdn2d, filters, linear=(0,)),
    OpSpec(
        "pixel_shuffle",
        lambda x, r: F.pixel_shuffle(x, r),
        reference_shuffle,
        shuffles,
        linear=(0,),
    ),
    OpSpec(
        "pixel_unshuffle",
        lambda x, r: F.pixel_unshuffle(x, r),
        reference_unshuffle,
        unshuffles,
        linear=(0,),
    ),
]
