"""A GPU as the kernels see it: it makes arrays and launches kernels.

Everything that differs between a real GPU and the emulator of the tests comes in from outside: the
array module (CuPy, or one with its functions) and the loader, which turns an instance of a source
into something to call. The launch code of all kernels is the same for both.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from minigan_kernels.cuda.sources import Source

if TYPE_CHECKING:
    from minigan_kernels.cuda.step_graph import StepGraph, Tape

Array = Any  # of the device's array module
Launch = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...], int], None]

NULL = np.uint64(0)
MOST = 2**31 - 1  # blocks along the first axis of a grid


class Loader(Protocol):
    """Finds kernels: `function(source, instance)(grid, block, arguments, shared_bytes)`."""

    architecture: str

    def function(self, source: Source, instance: str) -> Launch: ...


class PerArray:
    """What was made of NumPy arrays that never change, forgotten when they die."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, Any], tuple[weakref.ref[Any], Any]] = {}

    def get(self, array: np.ndarray[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
        """What `make()` gave for this array (the object, not its values) and key."""
        place = id(array), key
        found = self._made.get(place)
        if found is None or found[0]() is not array:
            made = self._made  # the callback must not keep self alive
            found = weakref.ref(array, lambda _: made.pop(place, None)), make()
            made[place] = found
        return found[1]

    def __len__(self) -> int:
        return len(self._made)


class Device:
    """One GPU.

    Parameters
    ----------
    name : what `Tensor.device` says, such as "cuda:0".
    xp : the array module.
    loader : finds kernels.
    tape : records what the device does, for steps that are played again.

    Attributes
    ----------
    gate : a float64 number on the device, or None. Optimizers change nothing unless it is finite.
    recording : the step that is being recorded, or None.
    """

    def __init__(self, name: str, xp: Any, loader: Loader, tape: Tape | None = None) -> None:
        self.name, self.xp, self.loader, self.tape = name, xp, loader, tape
        self.gate: Array | None = None
        self.recording: StepGraph | None = None
        self._functions: dict[tuple[str, str], Launch] = {}
        self._constants = PerArray()

    def empty(self, shape: Sequence[int], dtype: Any = np.float32) -> Array:
        """An array whose numbers are whatever was there before."""
        return self.xp.empty(tuple(shape), dtype)

    def upload(self, array: np.ndarray[Any, Any]) -> Array:
        """A copy of a NumPy array on the device; it may be kept, but not changed."""
        if self.recording is not None:
            return self.recording.constant(array)
        return self.xp.asarray(array)

    def feed(self, compute: Callable[[], np.ndarray[Any, Any]]) -> Array:
        """What the host computes anew in each step; see `minigan_kernels.recording`."""
        if self.recording is not None:
            return self.recording.feed(compute)
        return self.upload(compute())

    def constant(self, array: np.ndarray[Any, Any], dtype: Any = None) -> Array:
        """A copy of a NumPy array that never changes; uploaded once and kept as long as it lives.

        `dtype` : that the copy has (default: the array's).
        """
        wanted = np.dtype(dtype or array.dtype)
        return self._constants.get(
            array, wanted, lambda: self.upload(np.ascontiguousarray(array, wanted))
        )

    def launch(
        self,
        source: Source,
        instance: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Any,
        shared: int = 0,
    ) -> None:
        """Start a kernel.

        Arguments are arrays (passed by address; None is a null pointer), Python integers (`long
        long` in the kernel), Python floats (`double`), and NumPy scalars and structures (as they
        are). A grid without blocks is nothing to do.
        """
        if self.recording is not None and not self.recording.sees(args):
            return
        if 0 in grid:
            return
        function = self._functions.get((source.file, instance))
        if function is None:
            function = self.loader.function(source, instance)
            self._functions[source.file, instance] = function
        function(grid, block, tuple([_argument(a) for a in args]), shared)


def _argument(value: Any) -> Any:
    kind = type(value)
    if kind is int or kind is bool:
        return np.int64(value)
    if kind is float:
        return np.float64(value)
    if kind is np.void:  # CuPy takes structures by value as arrays without axes
        return np.asarray(value)
    return NULL if value is None else value


def integers(**fields: int) -> Any:
    """A C++ structure of ints, by value; the names are there for the reader."""
    return np.array(tuple(fields.values()), _structure(tuple(fields)))[()]


@lru_cache(maxsize=256)
def _structure(names: tuple[str, ...]) -> np.dtype[Any]:
    return np.dtype([(name, np.int32) for name in names])


@lru_cache(maxsize=64)
def type_name(dtype: Any) -> str:
    """What a dtype is called in CUDA C++."""
    return _NAMES[np.dtype(dtype).name]


_NAMES = {"float32": "float", "float64": "double", "int64": "long long", "bool": "bool"}
REAL = ("float", "double")  # instances of kernels for numbers
