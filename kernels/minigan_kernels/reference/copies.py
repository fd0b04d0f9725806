"""Arrays put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def concat(xs: Sequence[Array], axis: int) -> Array:
    """Arrays one after another along an axis."""
    return np.concatenate(xs, axis=axis)
