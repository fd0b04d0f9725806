"""Borders: zeros or a constant, mirrored, repeated, or continued at the other end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from minigan.backend import backend_of
from minigan.errors import DtypeError, ShapeError, UsageError, did_you_mean
from minigan.ops.resample import AxisMap, Table, map_axes
from minigan.ops.shape import Crop, PadZeros
from minigan.tensor import Tensor

_MODES = ("constant", "reflect", "replicate", "circular")


@lru_cache(maxsize=256)
def border_table(n: int, before: int, after: int, mode: str) -> Table:
    """The table that continues an axis of length n beyond its ends (or crops, if negative)."""
    place = np.arange(-before, n + after)
    if mode == "replicate":
        place = np.clip(place, 0, n - 1)
    elif mode == "reflect":
        place = np.abs(place)  # mirrored at element 0, then at element n - 1
        place = (n - 1) - np.abs((n - 1) - place)
    else:
        place %= n
    return Table(place.astype(np.int64)[:, None], np.ones((len(place), 1)), n)


def pad(
    x: Tensor, pad: int | Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Add elements before and after the last axes of x; a negative width crops.

    Parameters
    ----------
    pad : (before, after) of the last axis, then of the axis before it, and so on, as in torch.
        One number pads both ends of all axes but the first two.
    mode : "constant" fills with `value`; "reflect" mirrors without repeating the edge;
        "replicate" repeats the edge; "circular" continues at the other end. All but the first
        need elements to take: at most n - 1 (reflect) or n (circular) of an axis of length n.
    value : for mode "constant", 0 by default.
    """
    if mode not in _MODES:
        raise UsageError(
            f"pad: unknown mode '{mode}'{did_you_mean(mode, _MODES)}",
            fix=f"use one of {', '.join(_MODES)}",
        )
    widths = _widths(x.shape, pad if isinstance(pad, int) else tuple(pad))
    if mode == "constant":
        return _constant(x, widths, value or 0.0)
    if value:
        raise UsageError(f"pad: mode '{mode}' takes no value", fix="leave value out")
    tables = _border_tables(x.shape, widths, mode)
    for axis, table in enumerate(tables[:2]):
        if table is not None:
            x = AxisMap.apply(x, axis=axis, table=table)
    return map_axes(x, tables[2:])


@lru_cache(maxsize=256)
def _border_tables(
    shape: tuple[int, ...], widths: tuple[tuple[int, int], ...], mode: str
) -> tuple[Table | None, ...]:
    """One table per axis, None where nothing is added."""
    tables: list[Table | None] = []
    for axis, ((before, after), n) in enumerate(zip(widths, shape, strict=True)):
        _check_border(shape, axis, before, after, mode)
        tables.append(border_table(n, before, after, mode) if before or after else None)
    return tuple(tables)


@lru_cache(maxsize=256)
def _widths(shape: tuple[int, ...], pad: int | tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """One (before, after) pair per axis, from torch's order: last axis first."""
    ndim = len(shape)
    flat = [int(pad)] * (2 * max(ndim - 2, 0)) if isinstance(pad, int) else [int(p) for p in pad]
    if len(flat) % 2 or len(flat) > 2 * ndim:
        raise ShapeError(
            f"pad: {len(flat)} widths {tuple(flat)} for a tensor of {ndim} axes",
            why="widths come in pairs (before, after), last axis first",
        )
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    widths = [(0, 0)] * (ndim - len(pairs)) + pairs[::-1]
    for axis, ((before, after), n) in enumerate(zip(widths, shape, strict=True)):
        if n + before + after < 0 or n + min(before, 0) + min(after, 0) < 0:
            raise ShapeError(
                f"pad: widths ({before}, {after}) crop more than axis {axis} of {shape} has"
            )
    return tuple(widths)


def _constant(x: Tensor, widths: Sequence[tuple[int, int]], value: float) -> Tensor:
    cut = tuple((max(-a, 0), max(-b, 0)) for a, b in widths)
    added = tuple((max(a, 0), max(b, 0)) for a, b in widths)
    if any(a or b for a, b in cut):
        x = Crop.apply(x, widths=cut)
    if not any(a or b for a, b in added):
        return x
    y = PadZeros.apply(x, widths=added)
    if value == 0:
        return y
    if x.dtype.kind != "f" and value != int(value):
        raise DtypeError(f"pad: value {value} does not fit {x.dtype}")
    frame = backend_of(x.data).xp.full(y.shape, value, x.dtype)
    frame[tuple(slice(a, a + n) for (a, _), n in zip(added, x.shape, strict=True))] = 0
    return y + frame


def _check_border(shape: tuple[int, ...], axis: int, before: int, after: int, mode: str) -> None:
    n = shape[axis]
    limit = {"reflect": n - 1, "circular": n}.get(mode, max(before, after) if n else 0)
    if max(before, after) > limit:
        raise ShapeError(
            f"pad: mode '{mode}' cannot add ({before}, {after}) elements to axis {axis} "
            f"of length {n}",
            where=f"tensor {shape}",
            why=f"it has only {max(limit, 0)} elements to take there",
            fix="use a larger input or mode 'replicate'",
        )
