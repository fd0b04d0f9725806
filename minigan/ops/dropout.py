"""Dropout: elements or whole channels set to zero at random, the others scaled up to keep the mean.

The mask comes from the random stream "dropout" and is a constant of the graph. Inside
`minigan.checkpoint` the second forward draws the same one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan import random
from minigan.autograd import Function
from minigan.backend import Array, backend_of
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.tensor import Tensor


class Dropout(Function):
    """y = x m / (1 - p), with m = 1 with probability 1 - p, else 0.   dx = g m / (1 - p).

    One m serves each element, or each channel of each sample if `whole_channels`.
    """

    p: float
    whole_channels: bool = False

    def forward(self, x: Array) -> Array:
        shape = x.shape[:2] + (1,) * (x.ndim - 2) if self.whole_channels else x.shape
        where = backend_of(x).name
        kept = random.uniform("dropout", shape, np.float32, where) >= self.p
        self.mask = (
            self.xp.empty_like(x, shape=shape) if self.whole_channels else self.xp.empty_like(x)
        )
        self.mask[...] = kept
        self.mask *= 1.0 / (1.0 - self.p) if self.p < 1 else 0.0
        return x * self.mask

    def backward(self, g: Any) -> Any:
        return g * self.mask


def _dropout(name: str, x: Tensor, p: float, training: bool, axes: int | None) -> Tensor:
    if not 0 <= p <= 1:
        raise UsageError(f"{name}: p = {p} is not a probability", fix="use 0 <= p <= 1")
    if axes is not None and x.ndim != axes:
        raise ShapeError(
            f"{name}: x has shape {x.shape}", why=f"it needs {axes} axes: N, C and the spatial ones"
        )
    if x.dtype.kind != "f":
        raise DtypeError(f"{name}: x is {x.dtype}", fix="convert with astype('float32')")
    if not training or p == 0:
        return x
    return Dropout.apply(x, p=float(p), whole_channels=axes is not None)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element with probability p and divide the others by 1 - p.

    Parameters
    ----------
    training : False returns x. (pix2pix keeps dropout on when it is used: its source of noise.)

    Source: Srivastava et al., "Dropout" (2014).
    """
    return _dropout("dropout", x, p, training, None)


def dropout1d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero whole channels of x (N,C,L); see `dropout2d`."""
    return _dropout("dropout1d", x, p, training, 3)


def dropout2d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each channel of each sample of x (N,C,H,W) with probability p, divide others by 1 - p.

    Neighbouring pixels tell the same story, so dropping single ones hides nothing.

    Source: Tompson et al., "Efficient Object Localization Using Convolutional Networks" (2015).
    """
    return _dropout("dropout2d", x, p, training, 4)


def dropout3d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero whole channels of x (N,C,D,H,W); see `dropout2d`."""
    return _dropout("dropout3d", x, p, training, 5)
