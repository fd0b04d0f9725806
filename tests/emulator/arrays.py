"""Arrays of the emulated GPU, and an array module for them that behaves like CuPy.

The numbers lie in ordinary memory, but nothing mixes them with NumPy's arrays by accident: a NumPy
array among the operands is an error, as with CuPy, and only `get()` brings numbers back. Every new
array ends at a page that faults and is filled with NaN (-1 for integers), so that a kernel that
reads or writes beyond it, or forgets a place, is found out.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

ALIGN = 16  # bytes: what a kernel may rely on for the beginning of a small array


def guarded(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """An array full of NaN or -1 between two pages that fault; it ends at the second one."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    page = mmap.PAGESIZE
    body = -(-max(size, 1) // page) * page
    memory = mmap.mmap(-1, body + 2 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for at in (0, page + body):
        if libc.mprotect(ctypes.c_void_p(base + at), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    start = page + body - -(-size // ALIGN) * ALIGN
    numbers = np.frombuffer(memory, np.uint8)[start : start + size]
    numbers[...] = 0xFF
    return numbers.view(dtype).reshape(shape)


class Address(NamedTuple):
    """A place in the emulated GPU's memory."""

    ptr: int


class EmulatedArray(NDArrayOperatorsMixin):
    """An array on the emulated GPU."""

    __array_priority__ = 1000

    def __init__(self, numbers: np.ndarray[Any, Any]) -> None:
        self._numbers = numbers

    def get(self) -> np.ndarray[Any, Any]:
        """A copy as a NumPy array."""
        return self._numbers.copy(order="K")

    @property
    def data(self) -> Address:
        """Where the numbers begin: `data.ptr`, as in CuPy."""
        return Address(self._numbers.ctypes.data)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("implicit conversion of a device array to NumPy; use .get()")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            kwargs["out"] = tuple(_inside(x) for x in kwargs["out"])
            getattr(ufunc, method)(*map(_inside, inputs), **kwargs)
            return (
                inputs[0]
                if kwargs["out"][0] is _inside(inputs[0])
                else EmulatedArray(kwargs["out"][0])
            )
        return _outside(getattr(ufunc, method)(*map(_inside, inputs), **_inside(kwargs)))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _outside(func(*_inside(args), **_inside(kwargs)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_numbers", "ctypes"):
            raise AttributeError(name)
        found = getattr(self._numbers, name)
        if not callable(found):
            return _outside(found)
        return lambda *args, **kwargs: _outside(found(*_inside(args), **_inside(kwargs)))

    def __getitem__(self, key: Any) -> Any:
        return EmulatedArray(np.asarray(self._numbers[_index(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._numbers[_index(key)] = _inside(value)

    def __len__(self) -> int:
        return len(self._numbers)

    def __float__(self) -> float:
        return float(self._numbers)

    def __int__(self) -> int:
        return int(self._numbers)

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def __repr__(self) -> str:
        return f"EmulatedArray({self._numbers!r})"


def _inside(value: Any) -> Any:
    """Device arrays -> their numbers, everywhere in the arguments of a call."""
    if isinstance(value, EmulatedArray):
        return value._numbers
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("a NumPy array among the operands of a device array")
    if isinstance(value, tuple | list):
        return type(value)(_inside(v) for v in value)
    if isinstance(value, dict):
        return {k: _inside(v) for k, v in value.items()}
    return value


def _index(key: Any) -> Any:
    """As `_inside`; NumPy arrays may be indices."""
    if isinstance(key, tuple):
        return tuple(_index(k) for k in key)
    return key._numbers if isinstance(key, EmulatedArray) else key


def _outside(value: Any) -> Any:
    """Arrays and scalars of NumPy -> device arrays; CuPy has no scalars of its own."""
    if isinstance(value, np.ndarray | np.generic):
        return EmulatedArray(np.asarray(value))
    if isinstance(value, tuple | list) and any(isinstance(v, np.ndarray) for v in value):
        return type(value)(_outside(v) for v in value)
    return value


class Module:
    """NumPy's functions for emulated arrays; new arrays are guarded."""

    ndarray = EmulatedArray

    @staticmethod
    def empty(shape: Any, dtype: Any = np.float64) -> EmulatedArray:
        return EmulatedArray(guarded((shape,) if isinstance(shape, int) else shape, dtype))

    @staticmethod
    def asarray(value: Any, dtype: Any = None) -> EmulatedArray:
        if isinstance(value, EmulatedArray):
            return value if dtype in (None, value.dtype) else value.astype(dtype)
        numbers = np.asarray(value, dtype)
        made = guarded(numbers.shape, numbers.dtype)
        made[...] = numbers
        return EmulatedArray(made)

    array = asarray

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found
        return lambda *args, **kwargs: _outside(found(*_inside(args), **_inside(kwargs)))
