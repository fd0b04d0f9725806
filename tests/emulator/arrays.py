"""Arrays of the emulated GPU, and an array module for them that behaves like CuPy.

The numbers lie in ordinary memory, but nothing mixes them with NumPy's arrays by accident: a NumPy
array among the operands is an error, as with CuPy, and only `get()` brings numbers back. Every new
array ends at a page that faults and is filled with NaN (-1 for integers), so that a kernel that
reads or writes beyond it, or forgets a place, is found out. The memory is counted and can be
limited, with CuPy's words.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

ALIGN = 16  # bytes: what a kernel may rely on for the beginning of a small array


class OutOfMemoryError(MemoryError):
    """No memory is left on the emulated GPU."""


class Pool:
    """Counts the bytes of the arrays that were made by `guarded` and live."""

    def __init__(self) -> None:
        self._used = self._limit = 0

    def set_limit(self, size: int = 0) -> None:
        """So many bytes at most; 0: as many as there are."""
        self._limit = size

    def used_bytes(self) -> int:
        return self._used

    total_bytes = used_bytes  # nothing is kept for later

    def free_all_blocks(self) -> None:
        """There are none."""

    def hold(self, memory: mmap.mmap, size: int) -> None:
        """Count `size` bytes as long as `memory` lives; raises OutOfMemoryError."""
        if self._limit and self._used + size > self._limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes (allocated so far: {self._used:,} bytes, "
                f"limit set to: {self._limit:,} bytes)."
            )
        self._used += size
        weakref.finalize(memory, self._release, size)

    def _release(self, size: int) -> None:
        self._used -= size


POOL = Pool()


class Hooks:
    """Where new arrays lie, if not between guard pages; and who writes down what is done."""

    memory: Any = None  # a pair (malloc, free) of addresses
    tape: Any = None


HOOKS = Hooks()


def new(shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
    """An array full of NaN or -1."""
    if HOOKS.memory is None:
        return guarded(shape, dtype)
    (malloc, free), dtype = HOOKS.memory, np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    address = malloc(size)
    owner = np.frombuffer((ctypes.c_char * max(1, size)).from_address(address), np.uint8)
    weakref.finalize(owner, free, address)
    if HOOKS.tape is None:
        owner[...] = 0xFF
    return owner[:size].view(dtype).reshape(shape)


def guarded(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """An array full of NaN or -1 between two pages that fault; it ends at the second one."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    page = mmap.PAGESIZE
    body = -(-max(size, 1) // page) * page
    memory = mmap.mmap(-1, body + 2 * page)
    POOL.hold(memory, size)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for at in (0, page + body):
        if libc.mprotect(ctypes.c_void_p(base + at), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    start = page + body - -(-size // ALIGN) * ALIGN
    numbers = np.frombuffer(memory, np.uint8)[start : start + size]
    numbers[...] = 0xFF
    return numbers.view(dtype).reshape(shape)


class Block(NamedTuple):
    """A piece of the emulated GPU's memory."""

    ptr: int
    size: int


class Address(NamedTuple):
    """A place in the emulated GPU's memory, and the piece that it lies in."""

    ptr: int
    mem: Block


class EmulatedArray(NDArrayOperatorsMixin):
    """An array on the emulated GPU."""

    __array_priority__ = 1000

    def __init__(self, numbers: np.ndarray[Any, Any]) -> None:
        self._numbers = numbers

    def get(self) -> np.ndarray[Any, Any]:
        """A copy as a NumPy array."""
        _no_reading()
        return self._numbers.copy(order="K")

    @property
    def data(self) -> Address:
        """Where the numbers begin, `data.ptr`, and their memory, `data.mem`, as in CuPy."""
        owner = self._numbers
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        return Address(self._numbers.ctypes.data, Block(owner.ctypes.data, owner.nbytes))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("implicit conversion of a device array to NumPy; use .get()")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            (out,) = kwargs["out"]
            _write(getattr(ufunc, method), inputs, kwargs)
            return inputs[0] if _inside(out) is _inside(inputs[0]) else out
        return _call(getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _call(func, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_numbers", "ctypes"):
            raise AttributeError(name)
        found = getattr(self._numbers, name)
        if not callable(found):
            return _outside(found)
        method = getattr(np.ndarray, name)
        if name == "fill":
            return lambda value: _write(method, (self, value), {})
        if name in ("item", "tolist"):
            _no_reading()
        return lambda *args, **kwargs: _call(method, (self, *args), kwargs)

    def __getitem__(self, key: Any) -> Any:
        return _call(np.ndarray.__getitem__, (self, _Key(key)), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        _write(np.ndarray.__setitem__, (self, _Key(key), value), {})

    def __len__(self) -> int:
        return len(self._numbers)

    def __float__(self) -> float:
        _no_reading()
        return float(self._numbers)

    def __int__(self) -> int:
        _no_reading()
        return int(self._numbers)

    def __bool__(self) -> bool:
        _no_reading()
        return bool(self._numbers)

    def __repr__(self) -> str:
        return f"EmulatedArray({self._numbers!r})"


class _Key:
    """What stands in brackets; NumPy arrays may be there."""

    def __init__(self, key: Any) -> None:
        self.key = key


def _call(function: Any, args: Any, kwargs: Any) -> Any:
    """Work that makes new arrays, or views; written down where a tape runs."""
    if kwargs.get("out") is not None:
        _write(function, args, kwargs)
        return kwargs["out"]
    args, kwargs = _inside(tuple(args)), _inside(kwargs)
    if HOOKS.tape is not None:
        return _outside(HOOKS.tape.call(function, args, kwargs))
    with np.errstate(all="ignore"):  # a GPU does not warn
        result = function(*args, **kwargs)
    if HOOKS.memory is not None and not is_view(result, (args, kwargs)):
        made = new_like(result)
        made[...] = result
        result = made
    return _outside(result)


def is_view(result: Any, operands: Any) -> bool:
    """Whether a result is no new array, but a part of an operand (or no array at all)."""
    if not isinstance(result, np.ndarray | np.generic):
        return True
    return any(np.may_share_memory(result, array) for array in arrays_in(operands))


def arrays_in(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """All arrays within the arguments of a call."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list):
        for v in value:
            yield from arrays_in(v)
    elif isinstance(value, dict):
        yield from arrays_in(tuple(value.values()))


def new_like(result: Any) -> np.ndarray[Any, Any]:
    """Memory of the device for a result of NumPy, in the same order."""
    flat = new((result.size,), result.dtype)
    dense = np.empty_like(result)  # whose order is the result's, without gaps
    return np.lib.stride_tricks.as_strided(flat, dense.shape, dense.strides)


def _write(function: Any, args: Any, kwargs: Any) -> None:
    """Work that changes an array."""
    args, kwargs = _inside(tuple(args)), _inside(kwargs)
    if HOOKS.tape is not None:
        HOOKS.tape.write(function, args, kwargs)
        return
    with np.errstate(all="ignore"):
        function(*args, **kwargs)


def _no_reading() -> None:
    if HOOKS.tape is not None:
        raise RuntimeError("operation not permitted when stream is capturing")


def _inside(value: Any) -> Any:
    """Device arrays -> their numbers, everywhere in the arguments of a call."""
    if isinstance(value, EmulatedArray):
        return value._numbers
    if isinstance(value, _Key):
        return _index(value.key)
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
    get_default_memory_pool = staticmethod(lambda: POOL)

    @staticmethod
    def empty(shape: Any, dtype: Any = np.float64) -> EmulatedArray:
        return EmulatedArray(new((shape,) if isinstance(shape, int) else shape, dtype))

    @staticmethod
    def asarray(value: Any, dtype: Any = None) -> EmulatedArray:
        if isinstance(value, EmulatedArray):
            return value if dtype in (None, value.dtype) else value.astype(dtype)
        numbers = np.asarray(value, dtype)
        _no_reading()  # nor the other way
        made = new(numbers.shape, numbers.dtype)
        made[...] = numbers
        return EmulatedArray(made)

    array = asarray

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found
        return lambda *args, **kwargs: _call(found, args, kwargs)
