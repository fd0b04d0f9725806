"""Definitions of random numbers as functions of a key and a place (Philox4x64-10).

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). NumPy's
`Philox` is the generator; its normal numbers come from a rejection method and cannot be made one by
one, so `philox_normal` uses the formula of Box and Muller (1958).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def philox_uniform(key: Sequence[int], shape: Sequence[int], dtype: Any = np.float32) -> Array:
    """Uniform numbers in [0, 1): what `Generator(Philox(key=key)).random` gives first.

    Parameters
    ----------
    key : two 64-bit words.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    return generator.random(tuple(shape), dtype)


def philox_normal(key: Sequence[int], shape: Sequence[int], dtype: Any = np.float32) -> Array:
    """Standard normal numbers: pairs sqrt(-2 log u) (cos, sin)(2 pi v), u in (0, 1], v in [0, 1).

    For float64, u and v are the upper 53 bits of two successive words of Philox. For float32 they
    are the lower and the upper half of one word, and results are rounded from float64.
    """
    count = math.prod(shape)
    philox = np.random.Philox(key=np.array(key, np.uint64))
    if np.dtype(dtype) == np.float64:
        words = philox.random_raw(count + count % 2) >> np.uint64(11)
        u, v = (words[0::2] + np.uint64(1)) * 2.0**-53, words[1::2] * 2.0**-53
    else:
        words = philox.random_raw((count + 1) // 2)
        u = ((words & np.uint64(2**32 - 1)) + np.uint64(1)) * 2.0**-32
        v = (words >> np.uint64(32)) * 2.0**-32
    radius = np.sqrt(-2 * np.log(u))
    pairs = radius[:, None] * np.stack(_circle(v), axis=1)
    return pairs.reshape(-1)[:count].astype(dtype).reshape(tuple(shape))


def _circle(v: Array) -> tuple[Array, Array]:
    """cos and sin of 2 pi v; quarter turns are taken off exactly, so small results are exact."""
    quarters = np.rint(4 * v)
    rest = (2 * v - quarters / 2) * np.pi  # between -pi / 4 and pi / 4
    cosine, sine = np.cos(rest), np.sin(rest)
    turn = quarters.astype(np.int64) % 4
    return (
        np.choose(turn, [cosine, -sine, -cosine, sine]),
        np.choose(turn, [sine, cosine, -sine, -cosine]),
    )
