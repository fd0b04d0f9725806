"""Random numbers on the GPU: functions of a key and a place, equal to those of the CPU.

`philox_uniform` gives bit for bit what `random(shape, dtype)` of NumPy's Philox generator gives, so
streams of `minigan.random` are the same on any device. NumPy's normal numbers come from a
rejection method that runs one number after another; `philox_normal` has a formula of its own
(Box-Muller), which `reference.random` computes with the same results on the CPU.

Bound by arithmetic: 10 rounds of two 128-bit products per 32 bytes, and for normal numbers a
logarithm, a sine and a cosine in float64 for two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigan_kernels.cuda.device import REAL, Array, Device, type_name
from minigan_kernels.cuda.places import THREADS, blocks
from minigan_kernels.cuda.sources import Source

KERNELS = Source(
    "random.cu", tuple(f"philox<{t}, {law}>" for t in REAL for law in ("UNIFORM", "NORMAL"))
)
SOURCES = (KERNELS,)

Key = Sequence[int] | Array


def philox_uniform(
    device: Device, key: Key, shape: Sequence[int], dtype: Any = np.float32
) -> Array:
    """Uniform numbers in [0, 1): NumPy's, bit for bit.

    Parameters
    ----------
    key : the two 64-bit words of Philox's key, (seed, crc32(stream) << 32 | step) in minigan: as
        numbers, or as an array on the device (for steps that are recorded and played again).
    """
    return _philox(device, "UNIFORM", key, shape, dtype)


def philox_normal(device: Device, key: Key, shape: Sequence[int], dtype: Any = np.float32) -> Array:
    """Standard normal numbers: those of `reference.random.philox_normal`.

    They agree to 2 units in the last place (float64: as far as the logarithms and sines of CPU and
    GPU do, which is a few units).
    """
    return _philox(device, "NORMAL", key, shape, dtype)


def _philox(device: Device, law: str, key: Key, shape: Sequence[int], dtype: Any) -> Array:
    y = device.empty(shape, dtype)
    count = math.prod(shape)
    grid = blocks(-(-count // (32 // y.itemsize)))
    given = isinstance(key, device.xp.ndarray)
    words = (0, 0) if given else (int(key[0]), int(key[1]))
    name = f"philox<{type_name(dtype)}, {law}>"
    place = key if given else None
    device.launch(KERNELS, name, grid, (THREADS,), y, count, place, *map(np.uint64, words))
    return y
