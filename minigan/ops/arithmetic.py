"""Arithmetic, element by element: what the operators of Tensor call."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.autograd import Function
from minigan.backend import Array, backend_of, is_array
from minigan.errors import DtypeError, ShapeError
from minigan.ops.shape import sum_to
from minigan.tensor import Tensor

# Constants -------------------------------------------------------------------------------------


def constant(value: Any, like: Tensor) -> Tensor:
    """Return `value` as a Tensor of `like`'s dtype: scalars are weak, arrays must agree."""
    if isinstance(value, Tensor):
        return value
    if is_array(value) and value.ndim:
        if value.dtype != like.dtype:
            raise DtypeError(
                f"mixed dtypes {like.dtype} and {value.dtype} (an array)",
                why="nothing is converted silently",
                fix=f"convert the array with .astype('{like.dtype}')",
            )
        return Tensor(value)
    if not isinstance(like, Tensor):  # refused with a better message where it is used
        return Tensor(np.asarray(value))
    xp = backend_of(like.data).xp
    number = weak(value, like)
    if xp is np:
        return Tensor(np.asarray(number, dtype=like.dtype))
    return Tensor(xp.full((), number, dtype=like.dtype))  # made there, not sent there


def weak(value: Any, like: Tensor) -> Any:
    """A Python or NumPy scalar as a Python number, which never changes an array's dtype."""
    if type(value) is float and like.dtype.kind == "f":
        return value
    if isinstance(value, np.generic) or is_array(value):
        value = value.item()
    if not isinstance(value, int | float):
        raise DtypeError(
            f"cannot compute with a {type(value).__name__} and a Tensor",
            fix="use a number, an array of the same dtype, or a Tensor",
        )
    if isinstance(value, float) and like.dtype.kind != "f":
        raise DtypeError(
            f"a float number and a tensor of {like.dtype}",
            why="the result would change its dtype",
            fix="convert the tensor first, for example with .astype('float32')",
        )
    return value


def _check_ranks(name: str, a: Array, b: Array) -> None:
    if a.ndim != b.ndim and a.ndim and b.ndim:
        raise ShapeError(
            f"{name}: shapes {a.shape} and {b.shape} have different numbers of axes",
            why="broadcasting that changes rank hides mistakes such as (N,) against (N, 1)",
            fix="reshape one side so that both have the same number of axes",
        )
    if any(m != n and m != 1 and n != 1 for m, n in zip(a.shape, b.shape, strict=False)):
        raise ShapeError(
            f"{name}: shapes {a.shape} and {b.shape} do not fit together",
            why="each axis must have equal lengths, or length 1 on one side",
        )


# Arithmetic ------------------------------------------------------------------------------------


LARGE = 1 << 16  # numbers from which the kernels' threads beat NumPy's one


class Binary(Function):
    """Two operands whose shapes broadcast; remembers the shapes if they differ."""

    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def match(self, a: Array, b: Array) -> None:
        _check_ranks(type(self).__name__.lower(), a, b)
        self.shapes = a.shape, b.shape

    def fold(self, da: Any, db: Any) -> tuple[Any, Any]:
        """Sum each gradient over the axes along which its operand was stretched."""
        if self.shapes is None:  # the common case
            return da, db
        sa, sb = self.shapes
        return None if da is None else sum_to(da, sa), None if db is None else sum_to(db, sb)


class Add(Binary):
    """z = a + b.   da = g,   db = g."""

    def forward(self, a: Array, b: Array) -> Array:
        if a.shape != b.shape:
            self.match(a, b)
        return a + b if a.size < LARGE else self.kernels.add(a, b)

    def backward(self, g: Any) -> Any:
        return (g, g) if self.shapes is None else self.fold(g, g)


class Sub(Binary):
    """z = a - b.   da = g,   db = -g."""

    def forward(self, a: Array, b: Array) -> Array:
        if a.shape != b.shape:
            self.match(a, b)
        return a - b if a.size < LARGE else self.kernels.add(a, b, -1.0)

    def backward(self, g: Any) -> Any:
        return self.fold(g, -g if self.needs[1] else None)


class Mul(Binary):
    """z = a b.   da = g b,   db = g a."""

    saves = ("a", "b")

    def forward(self, a: Array, b: Array) -> Array:
        if a.shape != b.shape:
            self.match(a, b)
        return a * b if a.size < LARGE else self.kernels.multiply(a, b)

    def backward(self, g: Any, a: Any, b: Any) -> Any:
        need_a, need_b = self.needs
        if not isinstance(g, Tensor) and g.size >= LARGE:
            times = self.kernels.multiply
            da, db = times(g, b) if need_a else None, times(g, a) if need_b else None
        else:
            da, db = g * b if need_a else None, g * a if need_b else None
        return (da, db) if self.shapes is None else self.fold(da, db)


class Div(Binary):
    """z = a / b.   da = g / b,   db = -g z / b."""

    saves = ("b", "out")

    def forward(self, a: Array, b: Array) -> Array:
        if a.shape != b.shape:
            self.match(a, b)
        return a / b

    def backward(self, g: Any, b: Any, out: Any) -> Any:
        da = g / b
        return self.fold(da, -(da * out) if self.needs[1] else None)


class Neg(Function):
    """y = -x.   dx = -g."""

    def forward(self, x: Array) -> Array:
        return -x if x.size < LARGE else self.kernels.affine(x, -1.0, 0.0)

    def backward(self, g: Any) -> Any:
        return Neg.on(g)


class Shift(Function):
    """y = x + c for a number c.   dx = g."""

    c: float

    def forward(self, x: Array) -> Array:
        return x + self.c if x.size < LARGE else self.kernels.affine(x, 1.0, self.c)

    def backward(self, g: Any) -> Any:
        return g


class ReverseSub(Function):
    """y = c - x for a number c.   dx = -g."""

    c: float

    def forward(self, x: Array) -> Array:
        return self.c - x if x.size < LARGE else self.kernels.affine(x, -1.0, self.c)

    def backward(self, g: Any) -> Any:
        return -g


class Scale(Function):
    """y = c x for a number c.   dx = c g."""

    c: float

    def forward(self, x: Array) -> Array:
        return x * self.c if x.size < LARGE else self.kernels.affine(x, self.c, 0.0)

    def backward(self, g: Any) -> Any:
        return Scale.on(g, c=self.c)


class Cast(Function):
    """y = x in another float dtype.   dx = g in x's dtype."""

    dtype: Any

    def forward(self, x: Array) -> Array:
        self.source = x.dtype
        return x.astype(self.dtype)

    def backward(self, g: Any) -> Any:
        return Cast.on(g, dtype=self.source)


def add(x: Tensor, y: Any) -> Tensor:
    """x + y, broadcast."""
    return x + y


def sub(x: Tensor, y: Any) -> Tensor:
    """x - y, broadcast."""
    return x - y


def mul(x: Tensor, y: Any) -> Tensor:
    """x * y, broadcast."""
    return x * y


def div(x: Tensor, y: Any) -> Tensor:
    """x / y, broadcast."""
    return x / y


def neg(x: Tensor) -> Tensor:
    """-x."""
    return Neg.apply(x)


def shift(x: Tensor, c: Any) -> Tensor:
    """x + c for a number or a constant array c."""
    if is_array(c) and c.ndim:
        return Add.apply(x, constant(c, x))
    return Shift.apply(x, c=weak(c, x))


def reverse_sub(x: Tensor, c: Any) -> Tensor:
    """c - x for a number or a constant array c."""
    if is_array(c) and c.ndim:
        return Sub.apply(constant(c, x), x)
    return ReverseSub.apply(x, c=weak(c, x))


def scale(x: Tensor, c: Any) -> Tensor:
    """c x for a number or a constant array c."""
    if is_array(c) and c.ndim:
        return Mul.apply(x, constant(c, x))
    return Scale.apply(x, c=weak(c, x))


def cast(x: Tensor, dtype: Any) -> Tensor:
    """x in another dtype. Float to float is differentiable; integers end the graph."""
    target = np.dtype(dtype)
    if target == x.dtype:
        return x
    if target.kind != "f" or x.dtype.kind != "f":
        return Tensor(x.data.astype(target))
    return Cast.apply(x, dtype=target)
