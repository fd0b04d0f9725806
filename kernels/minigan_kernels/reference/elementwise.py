"""Arithmetic element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def add(a: Array, b: Array, factor: float = 1.0) -> Array:
    """a + factor b, of one shape."""
    return np.asarray(a + factor * b, a.dtype)


def add_to(a: Array, b: Array) -> None:
    """a += b, in place."""
    a += b


def multiply(a: Array, b: Array) -> Array:
    """a b, of one shape."""
    y: Array = a * b
    return y


def affine(x: Array, factor: float, offset: float) -> Array:
    """factor x + offset."""
    return np.asarray(factor * x + offset, x.dtype)
