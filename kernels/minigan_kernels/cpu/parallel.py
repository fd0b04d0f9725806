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
and a single parallel loop serves them all: every thread takes the next task from a counter until
none is left. What a task is depends on shapes only, never on the number of threads, and no two
tasks write the same place: results are the same bits for any number of threads.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types

from minigan_kernels.cpu.compiled import compile_with
from minigan_kernels.cpu.machine import simd
from minigan_kernels.cpu.simd import F64, I64, intrinsic, pointer
from minigan_kernels.cpu.threads import threads

_SIGNATURE = "void(intp,intp,intp)"


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


@intrinsic
def _next_task(typing: Any, counter: Any) -> Any:
    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        cell = pointer(builder, values[0], I64)
        return builder.atomic_rmw("add", cell, ir.Constant(I64, 1), "monotonic")

    return types.intp(types.intp), code


@intrinsic
def _call(typing: Any, function: Any, args: Any, task: Any, thread: Any) -> Any:
    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        signature = ir.FunctionType(ir.VoidType(), [I64, I64, I64])
        builder.call(builder.inttoptr(values[0], signature.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), code


def _alone(function: int, args: int, tasks: int, counter: int, workers: int) -> None:
    for task in range(tasks):
        _call(function, args, task, 0)


def _together(function: int, args: int, tasks: int, counter: int, workers: int) -> None:
    for worker in numba.prange(workers):
        task = _next_task(counter)
        while task < tasks:
            _call(function, args, task, worker)
            task = _next_task(counter)


@functools.cache
def _loop(parallel: bool) -> Any:
    """Compile the loop over tasks. (Numba's cache tells functions apart, not their options.)

    Numba starts its threads with the first parallel loop of the process: as many as we use, not one
    for every core of the machine.
    """
    if parallel:
        config: Any = numba.config
        config.NUMBA_NUM_THREADS = threads()
    function = _together if parallel else _alone
    signature = types.void(*(types.intp,) * 5)
    return compile_with(numba.njit, function, signature, nogil=True, parallel=parallel)


def run(kernel: Kernel, tasks: int, *args: Any) -> None:
    """Do all tasks of a kernel. Arguments are arrays (passed by address), integers and floats.

    Arrays stay alive until all is done. Their memory order is the kernel's business. A kernel must
    not run another one. The thread number that a kernel gets is below `threads()`.
    """
    if tasks <= 0:
        return
    # One spare cell in front counts the tasks handed out.
    block = np.array([0, *(_bits(a) for a in args)], np.int64)
    counter: int = block.ctypes.data
    workers = min(threads(), tasks)
    _loop(workers > 1)(kernel.address, counter + 8, tasks, counter, workers)


def _bits(value: Any) -> int:
    if isinstance(value, np.ndarray):
        address: int = value.__array_interface__["data"][0]
        return address
    if isinstance(value, float | np.floating):
        bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
        return bits
    return int(value)
