"""Operations that move elements and compute nothing: reshape, transpose, pad, index, concat."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from minigan.autograd import Function
from minigan.backend import CPU, Array, beside, is_array
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.tensor import Tensor


def sum_to(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum `g` over the axes along which `shape` was broadcast. Arrays or Tensors."""
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    stretched = [i + lead for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] != 1]
    axes = (*range(lead), *stretched)
    return g.sum(axis=axes, keepdims=True).reshape(shape)


class Reshape(Function):
    """The same elements in another shape.   dx = g in x's shape."""

    is_view = True
    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        self.source = x.shape
        return x.reshape(self.shape)

    def backward(self, g: Any) -> Any:
        return g.reshape(self.source)


class Transpose(Function):
    """Axes in another order.   dx = g with the inverse order."""

    is_view = True
    axes: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def backward(self, g: Any) -> Any:
        return g.transpose(tuple(int(i) for i in np.argsort(self.axes)))


class BroadcastTo(Function):
    """x repeated along axes of length 1.   dx = g summed over them."""

    is_view = True
    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        self.source = x.shape
        return np.broadcast_to(x, self.shape)

    def backward(self, g: Any) -> Any:
        return sum_to(g, self.source)


class PadZeros(Function):
    """Zeros before and after each axis.   dx = g cropped."""

    widths: tuple[tuple[int, int], ...]

    def forward(self, x: Array) -> Array:
        if x.ndim == 4 and x.dtype == np.float32 and not any(self.widths[0] + self.widths[1]):
            rows, columns = (
                _zero_border(n, *width)
                for n, width in zip(x.shape[2:], self.widths[2:], strict=True)
            )
            y: Array = self.kernels.plane_map(x, *rows, *columns)
            return y
        padded = [a + n + b for (a, b), n in zip(self.widths, x.shape, strict=True)]
        y = np.zeros_like(x, shape=padded)  # in x's own memory layout
        y[tuple(slice(a, a + n) for (a, _), n in zip(self.widths, x.shape, strict=True))] = x
        return y

    def backward(self, g: Any) -> Any:
        return Crop.on(g, widths=self.widths)


@lru_cache(maxsize=256)
def _zero_border(n: int, before: int, after: int) -> tuple[Array, Array]:
    """Positions and weights (see `AxisMap`) that continue an axis of length n with zeros."""
    place = np.arange(-before, n + after)
    return np.where((place < 0) | (place >= n), -1, place)[:, None], np.ones((len(place), 1))


class Crop(Function):
    """Without the first and last elements of each axis.   dx = g padded with zeros."""

    is_view = True
    widths: tuple[tuple[int, int], ...]

    def forward(self, x: Array) -> Array:
        return x[tuple(slice(a, n - b) for (a, b), n in zip(self.widths, x.shape, strict=True))]

    def backward(self, g: Any) -> Any:
        return PadZeros.on(g, widths=self.widths)


class Index(Function):
    """y = x[key].   dx = g added into zeros at key."""

    is_view = True
    key: Any

    def forward(self, x: Array) -> Array:
        self.source = x.shape
        return x[self.key]

    def backward(self, g: Any) -> Any:
        return AddAt.on(g, key=self.key, shape=self.source)


class AddAt(Function):
    """y = zeros(shape); y[key] += x, repeated positions adding up.   dx = g[key]."""

    key: Any
    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        y = self.xp.zeros(self.shape, x.dtype)
        if _is_basic(self.key):
            y[self.key] = x  # slices never repeat a position
        elif self.backend is CPU:
            np.add.at(y, self.key, x)  # in order, so repeats give the same bits
        else:
            places = self.xp.arange(y.size).reshape(self.shape)[self.key].reshape(-1)
            rows = self.kernels.scatter_rows(x.reshape(-1, 1), places, y.size)
            y = rows.reshape(self.shape)
        return y

    def backward(self, g: Any) -> Any:
        return Index.on(g, key=self.key)


class Concat(Function):
    """Arrays one after another along an axis.   Each takes its own part of g."""

    axis: int

    def forward(self, *xs: Array) -> Array:
        ends = itertools.accumulate(x.shape[self.axis] for x in xs)
        self.parts = [
            (slice(None),) * self.axis + (slice(end - x.shape[self.axis], end),)
            for x, end in zip(xs, ends, strict=True)
        ]
        if any(x.dtype != xs[0].dtype for x in xs):
            return np.concatenate(xs, axis=self.axis)
        y: Array = self.kernels.concat(xs, self.axis)
        return y

    def backward(self, g: Any) -> Any:
        return tuple(
            Index.on(g, key=part) if need else None
            for part, need in zip(self.parts, self.needs, strict=True)
        )


def _is_basic(key: Any) -> bool:
    parts = key if isinstance(key, tuple) else (key,)
    return all(p is None or p is Ellipsis or isinstance(p, slice | int | np.integer) for p in parts)


def _normalize_axis(name: str, axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{name}: axis {axis} does not exist in a tensor of {ndim} axes")
    return axis % ndim


def reshape(x: Tensor, shape: int | Sequence[int]) -> Tensor:
    """x in another shape of as many elements; one length may be -1."""
    wanted = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    known = math.prod(n for n in wanted if n != -1)
    if wanted.count(-1) == 1 and known and x.size % known == 0:
        wanted = tuple(x.size // known if n == -1 else int(n) for n in wanted)
    if -1 in wanted or math.prod(wanted) != x.size:
        raise ShapeError(
            f"reshape: {x.shape} ({x.size} elements) does not fit into {wanted}",
            fix="keep the number of elements; leave at most one length to -1",
        )
    return Reshape.apply(x, shape=wanted)


def flatten(x: Tensor, start: int = 0, end: int = -1) -> Tensor:
    """Merge the axes from `start` to `end` (both included) into one."""
    first = _normalize_axis("flatten", start, x.ndim)
    last = _normalize_axis("flatten", end, x.ndim)
    merged = math.prod(x.shape[first : last + 1])
    return Reshape.apply(x, shape=(*x.shape[:first], merged, *x.shape[last + 1 :]))


def squeeze(x: Tensor, axis: int) -> Tensor:
    """Remove an axis of length 1."""
    axis = _normalize_axis("squeeze", axis, x.ndim)
    if x.shape[axis] != 1:
        raise ShapeError(f"squeeze: axis {axis} of {x.shape} has length {x.shape[axis]}, not 1")
    return Reshape.apply(x, shape=x.shape[:axis] + x.shape[axis + 1 :])


def unsqueeze(x: Tensor, axis: int) -> Tensor:
    """Insert an axis of length 1 before position `axis`."""
    axis = _normalize_axis("unsqueeze", axis, x.ndim + 1)
    return Reshape.apply(x, shape=(*x.shape[:axis], 1, *x.shape[axis:]))


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Axes in the given order, reversed by default."""
    order = tuple(range(x.ndim))[::-1] if axes is None else tuple(a % x.ndim for a in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"transpose: {axes} is not an order of the {x.ndim} axes of {x.shape}")
    return Transpose.apply(x, axes=order)


permute = transpose


def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x repeated along its axes of length 1; the number of axes stays."""
    shape = tuple(shape)
    fits = len(shape) == x.ndim and all(m in (1, n) for m, n in zip(x.shape, shape, strict=True))
    if x.ndim and not fits:
        raise ShapeError(
            f"broadcast_to: {x.shape} does not stretch to {shape}",
            why="only axes of length 1 are repeated and the number of axes stays",
        )
    return BroadcastTo.apply(x, shape=shape)


def index(x: Tensor, key: Any) -> Tensor:
    """x[key] with slices, integers, integer arrays or a boolean mask."""
    try:
        return Index.apply(x, key=plain_key(key, x.data))
    except IndexError as error:
        raise ShapeError(f"index: {error}", where=f"tensor {x.shape}") from None


def plain_key(key: Any, like: Array) -> tuple[Any, ...]:
    """An index of `like` as a tuple of slices, integers and integer or boolean arrays."""
    return tuple(_index_part(p, like) for p in (key if isinstance(key, tuple) else (key,)))


def _index_part(part: Any, like: Array) -> Any:
    if isinstance(part, Tensor):
        part = part.data
    if isinstance(part, list):
        part = np.asarray(part)
    if is_array(part) and part.dtype.kind not in "iub":
        raise DtypeError(f"index: {part.dtype} values cannot index", fix="use integers or a mask")
    return beside(part, like) if is_array(part) else part


def flip(x: Tensor, axis: int | Sequence[int]) -> Tensor:
    """The order of elements along one axis or several reversed."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    turned = {_normalize_axis("flip", a, x.ndim) for a in axes}
    key = tuple(slice(None, None, -1) if i in turned else slice(None) for i in range(x.ndim))
    return Index.apply(x, key=key)


def pad_zeros(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros before and after each axis, one (before, after) pair per axis."""
    if len(widths) != x.ndim or any(n < 0 for pair in widths for n in pair):
        raise ShapeError(f"pad_zeros: widths {widths} for a tensor of {x.ndim} axes")
    return PadZeros.apply(x, widths=tuple((int(a), int(b)) for a, b in widths))


def crop(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Without the first and last elements of each axis, one (before, after) pair per axis."""
    fits = len(widths) == x.ndim and all(
        a >= 0 and b >= 0 and a + b <= n for (a, b), n in zip(widths, x.shape, strict=False)
    )
    if not fits:
        raise ShapeError(f"crop: widths {widths} do not fit {x.shape}")
    return Crop.apply(x, widths=tuple((int(a), int(b)) for a, b in widths))


def concat(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors one after another along `axis`; all other lengths are equal."""
    xs = list(xs)
    if not xs:
        raise UsageError("concat: no tensors given")
    axis = _normalize_axis("concat", axis, xs[0].ndim)
    first = xs[0].shape
    for i, x in enumerate(xs):
        if x.ndim != len(first) or any(
            a != b for j, (a, b) in enumerate(zip(x.shape, first, strict=True)) if j != axis
        ):
            raise ShapeError(
                f"concat: tensor {i} has shape {x.shape}, tensor 0 has {first}",
                why=f"all lengths but that of axis {axis} must agree",
            )
    return xs[0] if len(xs) == 1 else Concat.apply(*xs, axis=axis)


cat = concat


def stack(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis."""
    return concat([unsqueeze(x, axis) for x in xs], axis)


def split(x: Tensor, sizes: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cut x along `axis` into parts of the given sizes (one int: equal parts of that size)."""
    axis = _normalize_axis("split", axis, x.ndim)
    n = x.shape[axis]
    if isinstance(sizes, int):
        if sizes < 1:
            raise UsageError(f"split: size {sizes} is not positive")
        sizes = [min(sizes, n - start) for start in range(0, n, sizes)]
    if sum(sizes) != n:
        raise ShapeError(
            f"split: sizes {list(sizes)} do not add up to {n}",
            where=f"axis {axis} of {x.shape}",
        )
    starts = [0, *itertools.accumulate(sizes)]
    lead = (slice(None),) * axis
    return [Index.apply(x, key=(*lead, slice(a, b))) for a, b in itertools.pairwise(starts)]


def chunk(x: Tensor, chunks: int, axis: int = 0) -> list[Tensor]:
    """Cut x along `axis` into `chunks` parts, equal but for the last."""
    axis = _normalize_axis("chunk", axis, x.ndim)
    return split(x, max(1, -(-x.shape[axis] // chunks)), axis)


def repeat(x: Tensor, times: int, axis: int) -> Tensor:
    """Every element `times` times in a row along `axis`."""
    axis = _normalize_axis("repeat", axis, x.ndim)
    wide = unsqueeze(x, axis + 1)
    shape = (*wide.shape[: axis + 1], times, *wide.shape[axis + 2 :])
    return flatten(BroadcastTo.apply(wide, shape=shape), axis, axis + 1)


def tile(x: Tensor, times: int, axis: int) -> Tensor:
    """The whole tensor `times` times in a row along `axis`."""
    axis = _normalize_axis("tile", axis, x.ndim)
    wide = unsqueeze(x, axis)
    shape = (*wide.shape[:axis], times, *wide.shape[axis + 1 :])
    return flatten(BroadcastTo.apply(wide, shape=shape), axis, axis + 1)


def roll(x: Tensor, shift: int, axis: int) -> Tensor:
    """Elements moved by `shift` along `axis`; what leaves at one end enters at the other."""
    axis = _normalize_axis("roll", axis, x.ndim)
    n = x.shape[axis]
    if not n or shift % n == 0:
        return x
    tail, head = split(x, [n - shift % n, shift % n], axis)
    return concat([head, tail], axis)
