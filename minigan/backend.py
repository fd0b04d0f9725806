"""Which array module and which kernels serve an array; devices; precision.

The array carries its device: a NumPy array lives on the CPU, a CuPy array on a GPU. Nothing is
chosen when minigan is imported, so both can be used (and compared) in one process.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from minigan_kernels import recording
from minigan_kernels.precision import CLASSES, PRECISION
from minigan_kernels.recording import again

from minigan.errors import ResourceError, UsageError

__all__ = [
    "Array", "Backend", "again", "as_array", "backend_of", "beside", "check_device", "feed", "find",
    "is_array", "precision", "register", "to_device", "to_numpy",
]  # fmt: skip

Array = npt.NDArray[Any]


class Backend:
    """An array module and the kernels behind the signature table of kernels/README.md.

    Parameters
    ----------
    name : what `Tensor.device` says, such as "cpu" or "cuda:0".
    xp : the array module (NumPy, CuPy, or a module with their functions).
    kernels : a namespace of kernels, or the name of the module to import at first use.
    """

    def __init__(self, name: str, xp: Any, kernels: Any) -> None:
        self.name, self.xp, self._kernels = name, xp, kernels

    @property
    def kernels(self) -> Any:
        if isinstance(self._kernels, str):
            self._kernels = importlib.import_module(self._kernels)
        return self._kernels

    def upload(self, array: Array) -> Any:
        """A NumPy array as an array of this device, its axes in the same order in memory.

        On the CPU it is the array itself.
        """
        if self.xp is np:
            return array
        order = sorted(range(array.ndim), key=lambda i: -array.strides[i])
        made = self.kernels.device.upload(np.asarray(array.transpose(order), order="C"))
        return made.transpose(tuple(order.index(i) for i in range(array.ndim)))

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"


CPU = Backend("cpu", np, "minigan_kernels.cpu")

# Other devices: type of their arrays -> the backend of one of them; name -> backend.
_OF_ARRAY: dict[type, Callable[[Any], Backend]] = {}
_BY_NAME: dict[str, Backend] = {}


def register(backend: Backend, array_type: type, of_array: Callable[[Any], Backend]) -> None:
    """Make a device known by its name and by the type of its arrays."""
    _BY_NAME[backend.name] = backend
    _OF_ARRAY[array_type] = of_array


def backend_of(array: Any) -> Backend:
    """Return the backend that serves `array`."""
    if isinstance(array, np.ndarray | np.generic):
        return CPU
    if type(array).__module__.startswith("cupy") and type(array) not in _OF_ARRAY:
        find("cuda")
    if type(array) in _OF_ARRAY:
        return _OF_ARRAY[type(array)](array)
    raise ResourceError(
        f"an array of type {type(array).__module__}.{type(array).__qualname__} has no backend",
        why="minigan computes with arrays of NumPy and CuPy",
        fix="convert the array to NumPy first",
    )


def find(device: str) -> Backend:
    """The backend of a device by its name; raise with the remedy if there is none."""
    if device == "cpu":
        return CPU
    if device in _BY_NAME:
        return _BY_NAME[device]
    kind, colon, number = device.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise UsageError(f"unknown device '{device}'", fix="use 'cpu', 'cuda' or 'cuda:1'")
    cuda: Any = importlib.import_module("minigan.cuda")  # only now: it imports CuPy
    found: Backend = cuda.backend(int(number or 0))
    return found


def check_device(device: str) -> str:
    """Return `device` if this build can compute on it; raise with the remedy otherwise."""
    find(device)
    return device


def to_numpy(array: Any) -> Array:
    """The numbers of an array of any device as a NumPy array (on the CPU: the array itself)."""
    if isinstance(array, np.ndarray):
        return array
    if recording.current() is not None:
        raise UsageError(
            "numbers are read back from the device in a step that is to be recorded",
            why="a recorded step is one piece of work of the device; the host sees its end",
            fix="log Tensors, decide with `where` on the device or by Game.phase, or train with "
            "--no-graph (record=False)",
        )
    return np.asarray(array.get())


def to_device(array: Any, device: str) -> Any:
    """Return `array` on `device`, copying only when it lies elsewhere."""
    target = find(device)
    return array if backend_of(array) is target else target.upload(to_numpy(array))


def feed(compute: Callable[[], Array], device: str) -> Any:
    """What the host computes in each step anew (data, noise), as an array on `device`.

    A recorded step calls `compute` again each time it is played; the result must keep its shape
    and dtype.
    """
    target = find(device)
    if target.xp is np:
        return compute()
    return target.kernels.device.feed(compute)


def is_array(value: Any) -> bool:
    """Whether a value is an array of some device."""
    return isinstance(value, np.ndarray) or type(value) in _OF_ARRAY


def beside(array: Any, like: Any) -> Any:
    """Masks, labels and indices (arrays or lists) as an array on the device of `like`."""
    if not is_array(array):
        array = np.asarray(array)
    target = backend_of(like)
    return array if backend_of(array) is target else target.upload(to_numpy(array))


def as_array(result: Any) -> Any:
    """What an operation gave, as an array: NumPy turns results without axes into scalars."""
    return np.asarray(result) if isinstance(result, np.generic) else result


@contextlib.contextmanager
def precision(mode: str) -> Iterator[None]:
    """Choose the precision class of products of float32 arrays inside a `with` block.

    "fp32" is accurate to float32 rounding: the relative error stays below 2e-6. "tf32" permits
    kernels with a 10-bit mantissa where they are faster. Outside, the CPU is accurate, and a GPU
    does as PyTorch does: convolutions in TF32, matrix products accurate.
    """
    if mode not in CLASSES:
        raise UsageError(f"unknown precision '{mode}'", fix="use 'fp32' or 'tf32'")
    token = PRECISION.set(mode)
    try:
        yield
    finally:
        PRECISION.reset(token)
