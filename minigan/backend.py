"""Which array module and which kernels serve an array; devices; precision.

The array carries its device: a NumPy array lives on the CPU, a CuPy array on a GPU. Nothing is
chosen when minigan is imported, so both can be used (and compared) in one process.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from minigan_kernels.precision import CLASSES, PRECISION

from minigan.errors import ResourceError, UsageError

Array = npt.NDArray[Any]


class Backend:
    """An array module and the kernels behind the signature table of kernels/README.md.

    Parameters
    ----------
    name : what `Tensor.device` says, such as "cpu".
    xp : the array module (NumPy, or a module with its functions).
    kernels : a namespace of kernels, or the name of the module to import at first use.
    """

    def __init__(self, name: str, xp: ModuleType, kernels: Any) -> None:
        self.name, self.xp, self._kernels = name, xp, kernels

    @property
    def kernels(self) -> Any:
        if isinstance(self._kernels, str):
            self._kernels = importlib.import_module(self._kernels)
        return self._kernels

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"


CPU = Backend("cpu", np, "minigan_kernels.cpu")


def backend_of(array: Any) -> Backend:
    """Return the backend that serves `array`."""
    if isinstance(array, np.ndarray | np.generic):
        return CPU
    raise ResourceError(
        f"an array of type {type(array).__module__}.{type(array).__qualname__} has no backend",
        why="this version computes on the CPU, with NumPy arrays",
        fix="convert the array to NumPy first",
    )


def to_device(array: Array, device: str) -> Array:
    """Return `array` on `device` ("cpu"), copying only when it lies elsewhere."""
    check_device(device)
    return np.asarray(array)


def check_device(device: str) -> str:
    """Return `device` if this build can compute on it; raise with the remedy otherwise."""
    if device == "cpu":
        return device
    if device == "cuda" or device.startswith("cuda:"):
        raise ResourceError(
            f"device '{device}' is not available",
            why="this version of minigan has no CUDA kernels yet",
            fix="use device 'cpu'",
        )
    raise UsageError(f"unknown device '{device}'", fix="use 'cpu'")


@contextlib.contextmanager
def precision(mode: str) -> Iterator[None]:
    """Allow matrix products of float32 arrays a lower precision class inside a `with` block.

    "fp32" (the default) is accurate to float32 rounding: the relative error stays below 2e-6.
    "tf32" permits kernels with a 10-bit mantissa where they are faster.
    """
    if mode not in CLASSES:
        raise UsageError(f"unknown precision '{mode}'", fix="use 'fp32' or 'tf32'")
    token = PRECISION.set(mode)
    try:
        yield
    finally:
        PRECISION.reset(token)
