"""Elementary functions and choices, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.autograd import Function
from minigan.backend import Array, as_array, beside, is_array
from minigan.errors import UsageError
from minigan.ops.arithmetic import LARGE, Binary, Mul, Neg, Scale, constant, weak
from minigan.ops.shape import BroadcastTo
from minigan.tensor import Tensor

# Elementary functions --------------------------------------------------------------------------


class Exp(Function):
    """y = e^x.   dx = g y."""

    saves = ("out",)

    def forward(self, x: Array) -> Array:
        return self.kernels.exp(x)

    def backward(self, g: Any, out: Any) -> Any:
        return g * out


class Expm1(Function):
    """y = e^x - 1, exact near 0.   dx = g (y + 1)."""

    saves = ("out",)

    def forward(self, x: Array) -> Array:
        return np.expm1(x)

    def backward(self, g: Any, out: Any) -> Any:
        return g * (out + 1.0)


class Log(Function):
    """y = log x.   dx = g / x."""

    saves = ("x",)

    def forward(self, x: Array) -> Array:
        return np.log(x)

    def backward(self, g: Any, x: Any) -> Any:
        return g / x


class Log1p(Function):
    """y = log(1 + x), exact near 0.   dx = g / (1 + x)."""

    saves = ("x",)

    def forward(self, x: Array) -> Array:
        return np.log1p(x)

    def backward(self, g: Any, x: Any) -> Any:
        return g / (x + 1.0)


class Sqrt(Function):
    """y = sqrt x.   dx = g / (2 y), infinite at 0 (see `norm` for a length with a gradient)."""

    saves = ("out",)

    def forward(self, x: Array) -> Array:
        return np.sqrt(x)

    def backward(self, g: Any, out: Any) -> Any:
        return g / (out * 2.0)


class Rsqrt(Function):
    """y = 1 / sqrt x.   dx = -g y^3 / 2."""

    saves = ("out",)

    def forward(self, x: Array) -> Array:
        return 1 / np.sqrt(x)

    def backward(self, g: Any, out: Any) -> Any:
        return g * (out * out * out * -0.5)


class Square(Function):
    """y = x^2.   dx = 2 x g."""

    saves = ("x",)

    def forward(self, x: Array) -> Array:
        return x * x if x.size < LARGE else self.kernels.multiply(x, x)

    def backward(self, g: Any, x: Any) -> Any:
        return Mul.on(g, Scale.on(x, c=2.0))


class Abs(Function):
    """y = |x|.   dx = g sign(x), and 0 at 0."""

    def forward(self, x: Array) -> Array:
        self.sign = np.sign(x)
        return np.abs(x)

    def backward(self, g: Any) -> Any:
        return g * self.sign


class Tanh(Function):
    """y = tanh x.   dx = g (1 - y^2)."""

    saves = ("out",)

    def forward(self, x: Array) -> Array:
        return self.kernels.tanh(x)

    def backward(self, g: Any, out: Any) -> Any:
        return TanhGrad.on(g, out)


class TanhGrad(Function):
    """z = g (1 - y^2), the gradient of tanh.   dg = h (1 - y^2),   dy = -2 g h y."""

    saves = ("g", "y")

    def forward(self, g: Array, y: Array) -> Array:
        return self.kernels.tanh_backward(g, y)

    def backward(self, h: Any, g: Any, y: Any) -> Any:
        dy = g * h * y * -2.0 if self.needs[1] else None
        return TanhGrad.on(h, y) if self.needs[0] else None, dy


class Sin(Function):
    """y = sin x.   dx = g cos x."""

    saves = ("x",)

    def forward(self, x: Array) -> Array:
        return np.sin(x)

    def backward(self, g: Any, x: Any) -> Any:
        return g * Cos.on(x)


class Cos(Function):
    """y = cos x.   dx = -g sin x."""

    saves = ("x",)

    def forward(self, x: Array) -> Array:
        return np.cos(x)

    def backward(self, g: Any, x: Any) -> Any:
        return -(g * Sin.on(x))


def exp(x: Tensor) -> Tensor:
    """e^x."""
    return Exp.apply(x)


def expm1(x: Tensor) -> Tensor:
    """e^x - 1, exact near 0."""
    return Expm1.apply(x)


def log(x: Tensor) -> Tensor:
    """Natural logarithm."""
    return Log.apply(x)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), exact near 0."""
    return Log1p.apply(x)


def sqrt(x: Tensor) -> Tensor:
    """Square root; its slope at 0 is infinite."""
    return Sqrt.apply(x)


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x)."""
    return Rsqrt.apply(x)


def square(x: Tensor) -> Tensor:
    """x^2."""
    return Square.apply(x)


def abs(x: Tensor) -> Tensor:
    """|x|, with derivative 0 at 0."""
    return Abs.apply(x)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return Tanh.apply(x)


def sin(x: Tensor) -> Tensor:
    """Sine of radians."""
    return Sin.apply(x)


def cos(x: Tensor) -> Tensor:
    """Cosine of radians."""
    return Cos.apply(x)


class Power(Function):
    """y = x^c for a number c.   dx = c x^(c-1) g."""

    saves = ("x",)
    c: float

    def forward(self, x: Array) -> Array:
        return x**self.c

    def backward(self, g: Any, x: Any) -> Any:
        if self.c == 0:
            return g * 0.0
        return g * (x ** (self.c - 1) * self.c)


class Pow(Binary):
    """z = a^b.   da = g b a^(b-1),   db = g z log a."""

    saves = ("a", "b", "out")

    def forward(self, a: Array, b: Array) -> Array:
        if a.shape != b.shape:
            self.match(a, b)
        return a**b

    def backward(self, g: Any, a: Any, b: Any, out: Any) -> Any:
        need_a, need_b = self.needs
        da = g * (b * a ** (b - 1.0)) if need_a else None
        return self.fold(da, g * (out * Log.on(a)) if need_b else None)


def pow(x: Tensor, exponent: Any) -> Tensor:
    """x^exponent; a tensor exponent needs x > 0 for its own gradient."""
    if isinstance(exponent, Tensor) or (is_array(exponent) and exponent.ndim):
        return Pow.apply(x, constant(exponent, x))
    return Power.apply(x, c=weak(exponent, x))


# Choice ----------------------------------------------------------------------------------------


class Where(Binary):
    """z = a where the mask is true, else b.   da = g mask,   db = g (1 - mask)."""

    mask: Array

    def forward(self, a: Array, b: Array) -> Array:
        if a.shape != b.shape:
            self.match(a, b)
        return np.where(self.mask, a, b).astype(a.dtype, copy=False)

    def backward(self, g: Any) -> Any:
        kept = np.broadcast_to(self.mask, g.shape).astype(g.dtype)
        return self.fold(
            g * kept if self.needs[0] else None, g * (1 - kept) if self.needs[1] else None
        )


class Maximum(Binary):
    """z = max(a, b).   The larger one takes g; equal ones take half each."""

    def forward(self, a: Array, b: Array) -> Array:
        if a.shape != b.shape:
            self.match(a, b)
        self.share = (a > b).astype(a.dtype) + (a == b) * a.dtype.type(0.5)
        return np.maximum(a, b)

    def backward(self, g: Any) -> Any:
        return self.fold(
            g * self.share if self.needs[0] else None,
            g * (1 - self.share) if self.needs[1] else None,
        )


class Clamp(Function):
    """y = min(max(x, low), high).   dx = g where low <= x <= high, else 0."""

    low: float | None
    high: float | None

    def forward(self, x: Array) -> Array:
        inside = self.xp.ones(x.shape, bool) if self.low is None else x >= self.low
        self.inside = (inside if self.high is None else inside & (x <= self.high)).astype(x.dtype)
        return np.clip(x, self.low, self.high)

    def backward(self, g: Any) -> Any:
        return g * self.inside


def where(condition: Tensor | Array, x: Any, y: Any) -> Tensor:
    """Elements of x where `condition` is true, of y elsewhere; at least one of x, y is a Tensor."""
    like = x if isinstance(x, Tensor) else y
    if not isinstance(like, Tensor):
        raise UsageError("where: neither x nor y is a Tensor", fix="use numpy.where for arrays")
    a, b = constant(x, like), constant(y, like)
    mask = beside(condition.data if isinstance(condition, Tensor) else condition, like.data)
    shape = np.broadcast_shapes(mask.shape, a.shape, b.shape)
    if a.shape != shape and b.shape != shape:
        a = BroadcastTo.apply(a, shape=shape)
    return Where.apply(a, b, mask=mask.astype(bool))


def maximum(x: Tensor, y: Any) -> Tensor:
    """The larger of two, element by element; ties share the gradient."""
    return Maximum.apply(x, constant(y, x))


def minimum(x: Tensor, y: Any) -> Tensor:
    """The smaller of two, element by element; ties share the gradient."""
    return Neg.apply(Maximum.apply(Neg.apply(x), Neg.apply(constant(y, x))))


def clamp(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """x limited to [low, high]; the gradient passes inside and at the limits."""
    if low is None and high is None:
        raise UsageError("clamp: give low, high or both")
    return Clamp.apply(x, low=low, high=high)


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; a constant."""
    return Tensor(as_array(np.sign(x.data)))


def lerp(start: Tensor, end: Tensor, weight: Any) -> Tensor:
    """start + weight (end - start)."""
    return start + (end - start) * weight
