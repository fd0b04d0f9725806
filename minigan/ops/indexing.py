"""Gathering by integer positions and its adjoint, scattering with addition."""

from __future__ import annotations

from typing import Any

import numpy as np
from minigan_kernels import recording

from minigan.autograd import Function
from minigan.backend import Array, backend_of, beside, is_array
from minigan.errors import DtypeError, ShapeError
from minigan.ops.elementwise import Where
from minigan.ops.shape import AddAt, BroadcastTo, Index, plain_key
from minigan.tensor import Tensor


class TakeRows(Function):
    """y[i] = x[index[i]].   dx = rows of g, added where they came from."""

    index: Array

    def forward(self, x: Array) -> Array:
        self.rows = len(x)
        return self.kernels.take_rows(x, self.index)

    def backward(self, g: Any) -> Any:
        return ScatterRows.on(g, index=self.index, rows=self.rows)


class ScatterRows(Function):
    """y = zeros(rows, ...); y[index[i]] += x[i].   dx[i] = g[index[i]]."""

    index: Array
    rows: int

    def forward(self, x: Array) -> Array:
        return self.kernels.scatter_rows(x, self.index, self.rows)

    def backward(self, g: Any) -> Any:
        return TakeRows.on(g, index=self.index)


class GatherPositions(Function):
    """y[n,c,i] = x[n,c] at the flat spatial position index[n,c,i].   dx: g, added there."""

    index: Array  # (N, C or 1, *out)

    def forward(self, x: Array) -> Array:
        self.spatial = x.shape[2:]
        return self.kernels.gather_positions(x, self.index)

    def backward(self, g: Any) -> Any:
        return ScatterPositions.on(g, index=self.index, spatial=self.spatial)


class ScatterPositions(Function):
    """y = zeros(N,C,*spatial); y[n,c] at index[n,c,i] += x[n,c,i].   dx: g, read there."""

    index: Array  # (N, C or 1, *out)
    spatial: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return self.kernels.scatter_positions(x, self.index, self.spatial)

    def backward(self, g: Any) -> Any:
        return GatherPositions.on(g, index=self.index)


def embedding(input: Tensor | Array, weight: Tensor) -> Tensor:
    """Row input[i] of `weight` for each i: a learned vector per class.

    Parameters
    ----------
    input : integers of any shape, 0 <= value < classes.
    weight : (classes, features)

    Returns
    -------
    (*input.shape, features)
    """
    if weight.ndim != 2:
        raise ShapeError(f"embedding: weight {weight.shape} is not (classes, features)")
    index = class_indices("embedding", input, weight.shape[0])
    return TakeRows.apply(weight, index=beside(index, weight.data))


def one_hot(
    input: Tensor | Array, num_classes: int, axis: int = -1, dtype: Any = np.float32
) -> Tensor:
    """1 at the place of the class, 0 elsewhere; a constant.

    Unlike torch's, which gives integers, the result is ready to be computed with.

    Parameters
    ----------
    input : integers of any shape, 0 <= value < num_classes.
    axis : where the axis of classes is inserted: -1 last, 1 for label maps (N,H,W) -> (N,K,H,W).
    dtype : of the result.
    """
    index = class_indices("one_hot", input, num_classes)
    hot = index[..., None] == backend_of(index).xp.arange(num_classes)
    if not -hot.ndim <= axis < hot.ndim:
        raise ShapeError(f"one_hot: axis {axis} does not exist in a result of {hot.ndim} axes")
    return Tensor(np.moveaxis(hot, -1, axis).astype(dtype))


def gather(x: Tensor, axis: int, index: Tensor | Array) -> Tensor:
    """y[.., i, ..] = x[.., index[.., i, ..], ..] along `axis`, as torch.gather.

    Parameters
    ----------
    index : integers; as many axes as x, and no longer than x along the others.
    """
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"gather: axis {axis} does not exist in a tensor of {x.ndim} axes")
    axis %= x.ndim
    places = class_indices("gather", index, x.shape[axis])
    fits = places.ndim == x.ndim and all(
        m <= n for i, (m, n) in enumerate(zip(places.shape, x.shape, strict=False)) if i != axis
    )
    if not fits:
        raise ShapeError(
            f"gather: index {places.shape} does not fit x {x.shape}",
            why=f"it must have as many axes, and be no longer except along axis {axis}",
        )
    key = [np.arange(n).reshape(-1, *(1,) * (x.ndim - 1 - i)) for i, n in enumerate(places.shape)]
    key[axis] = places
    return Index.apply(x, key=plain_key(tuple(key), x.data))


def class_indices(name: str, indices: Tensor | Array, num_classes: int) -> Array:
    """Return `indices` as an integer array after checking 0 <= value < num_classes."""
    array = indices.data if isinstance(indices, Tensor) else indices
    array = array if is_array(array) else np.asarray(array)
    if array.dtype.kind not in "iu":
        raise DtypeError(
            f"{name}: indices are {array.dtype}, not integers",
            fix="convert class numbers with astype('int64')",
        )
    if recording.current() is not None and not isinstance(array, np.ndarray):
        return array.astype(np.int64, copy=False)  # nothing can be read; `Game.check` has looked
    wrong = (array < 0) | (array >= num_classes)
    if wrong.any():
        position = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ShapeError(
            f"{name}: index {array[position]} at position {position} is out of range",
            where=f"{num_classes} classes, indices of shape {array.shape}",
            why=f"indices run from 0 to {num_classes - 1}",
            fix="check the labels, or raise the number of classes",
        )
    return array.astype(np.int64, copy=False)


def index_put(x: Tensor, key: Any, value: Any) -> Tensor:
    """A copy of x with `value` at `key`: the functional form of x[key] = value."""
    plain = plain_key(key, x.data)
    mask = backend_of(x.data).xp.zeros(x.shape, bool)
    mask[plain] = True
    if isinstance(value, Tensor):
        spread = BroadcastTo.apply(value, shape=x.data[plain].shape)
        return Where.apply(AddAt.apply(spread, key=plain, shape=x.shape), x, mask=mask)
    filled = x.data.copy()
    filled[plain] = value
    return Where.apply(Tensor(filled), x, mask=mask)
