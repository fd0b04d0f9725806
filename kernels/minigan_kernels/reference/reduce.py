"""Sums over axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def axis_sum(x: Array, axes: tuple[int, ...]) -> Array:
    """Sum of x over `axes`, which the result does not have."""
    return np.asarray(x.sum(axis=axes, dtype=x.dtype))
