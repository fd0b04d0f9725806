"""Kernels, tasks and threads: how every hand-written CPU kernel is compiled and run.

A kernel is a function `(args, task, thread)`. It finds its arrays (addresses), sizes and options
in a block of eight-byte cells at the address `args`, and does piece `task` of the work:

    @kernel
    def double(args, task, thread):
        x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
        for i in range(task * 1024, min(n, task * 1024 + 1024)):
            store_f32(y + 4 * i, 2 * load_f32(x + 4 * i))

    run(double, -(-n // 1024), x, y, n)

All kernels have this one signature, so each compiles once, at its first use, whatever the shapes,
and a single parallel loop (`loop.py`) serves them all. What a task is depends on shapes only, never
on the number of threads, and no two tasks write the same place: results are the same bits for any
number of threads.
"""

from __future__ import annotations

import array
import ctypes
import struct
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from minigan_kernels.cpu.compiled import compile_with
from minigan_kernels.cpu.loop import front, loop
from minigan_kernels.cpu.machine import simd
from minigan_kernels.cpu.simd import F64, I64, intrinsic, pointer
from minigan_kernels.cpu.threads import threads

_SIGNATURE = "void(intp,intp,intp)"
_INTEGER, _FLOAT = struct.Struct("<q"), struct.Struct("<d")


class Kernel:
    """A kernel that is compiled when its address is first asked for."""

    def __init__(self, function: Callable[[int, int, int], None]) -> None:
        self.function = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._compiled: Any = None

    @property
    def address(self) -> int:
        if self._compiled is None:
            self._compiled = compile_with(numba.cfunc, self.function, _SIGNATURE)
        address: int = self._compiled.address
        return address


kernel = Kernel


def part(function: Callable[..., Any]) -> Any:
    """Decorator of functions that kernels call; they become part of the kernel's machine code.

    Numba would compile one version for each literal number among the arguments. One version for all
    integers takes a fraction of the time, and LLVM still sees the number where it inlines.
    """
    simd()  # Numba fixes the instructions with its first function
    compiled: Any = numba.njit(error_model="numpy")(function)
    resolve = compiled.get_call_template

    def without_literals(args: Any, options: Any) -> Any:
        plain = {name: types.unliteral(kind) for name, kind in options.items()}
        return resolve(tuple(types.unliteral(kind) for kind in args), plain)

    compiled.get_call_template = without_literals
    return compiled


@intrinsic
def arg(typing: Any, args: Any, index: Any) -> Any:
    """Cell `index` of the argument block: an integer or an address."""

    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.load(_cell(builder, *values))

    return types.intp(types.intp, types.intp), code


@intrinsic
def real(typing: Any, args: Any, index: Any) -> Any:
    """Cell `index` of the argument block: a float64."""

    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.bitcast(builder.load(_cell(builder, *values)), F64)

    return types.float64(types.intp, types.intp), code


def _cell(builder: Any, args: Any, index: Any) -> Any:
    return pointer(builder, builder.add(args, builder.mul(index, ir.Constant(I64, 8))), I64)


# NumPy's C interface puts the address of an array's numbers right behind the header that all Python
# objects have. To read it there takes a tenth of the time of `a.ctypes.data` (1 microsecond).
HEADER = object.__basicsize__
_read = ctypes.c_int64.from_address


def address(a: npt.NDArray[Any]) -> int:
    """Where the first element of an array lies."""
    where: int = _read(id(a) + HEADER).value
    return where


def run(kernel: Kernel, tasks: int | tuple[int, ...], *args: Any) -> None:
    """Do all tasks of a kernel.

    With several numbers of tasks the kernel works in steps: it numbers its tasks through, and those
    of a step begin when all of the steps before are done.

    Arguments are arrays (passed by address; None is 0), integers and floats. Arrays stay alive
    until all is done. Their memory order is the kernel's business. A kernel must not run another
    one. The thread number that a kernel gets is below `threads()`.
    """
    steps = tasks if type(tasks) is tuple else (tasks,)
    before, workers = front(steps, threads())
    if workers == 0:
        return
    block = array.array("q", before)
    block.fromlist([cell(a) for a in args])
    start, _ = block.buffer_info()
    loop(workers > 1)(kernel.address, start + len(before), start, len(steps), workers)


def cell(value: Any) -> int:
    """An argument as the eight bytes that a kernel gets."""
    if type(value) is int:
        return value
    if value is None:
        return 0
    if isinstance(value, np.ndarray):
        return address(value)
    if isinstance(value, float | np.floating):
        bits: int = _INTEGER.unpack(_FLOAT.pack(value))[0]
        return bits
    return int(value)
