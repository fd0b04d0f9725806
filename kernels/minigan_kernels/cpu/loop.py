"""The parallel loop: which thread does which task of a kernel, and when.

A job is a few steps, each a number of tasks; a step begins when all tasks of the step before are
done. In every step each thread has a share of its own, tasks that follow each other, so that a
piece of an array is worked on by the same core step after step and lies in its cache. A thread that
is done with its share takes the next tasks of the others' shares.

A thread waits for the end of a step only when no task of it is left to take: then all are with
threads that need nothing from the one that waits. So it does not matter how many of the threads
really run at the same time.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numba
from llvmlite import ir
from numba import types

from minigan_kernels.cpu.compiled import compile_with
from minigan_kernels.cpu.simd import I32, I64, intrinsic, load_i64, pointer
from minigan_kernels.cpu.threads import threads

LINE = 64  # bytes: counters in one cache line would travel between the cores together
PATIENCE = 2000  # looks at a counter before another thread gets the core: about 10 microseconds


@functools.lru_cache(1024)
def front(steps: tuple[int, ...], threads: int) -> tuple[bytes, int]:
    """What stands before the arguments of a kernel, and how many of the threads work on it.

    First a counter for each step and share, then one for each step, of the tasks that are done;
    then the numbers of tasks.
    """
    workers = min(threads, max(steps))
    counters = bytes(LINE * len(steps) * (workers + 1))
    return counters + b"".join(n.to_bytes(8, "little") for n in steps), workers


@intrinsic
def call(typing: Any, function: Any, args: Any, task: Any, thread: Any) -> Any:
    """Call a kernel by its address."""

    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        signature = ir.FunctionType(ir.VoidType(), [I64, I64, I64])
        builder.call(builder.inttoptr(values[0], signature.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), code


@intrinsic
def _add(typing: Any, p: Any, number: Any) -> Any:
    """Add to the integer at p, and return what it was before.

    What this thread wrote before is seen by who reads the new number.
    """

    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.atomic_rmw("add", pointer(builder, values[0], I64), values[1], "acq_rel")

    return types.intp(types.intp, types.intp), code


@intrinsic
def _read(typing: Any, p: Any) -> Any:
    """The integer at p, which other threads add to."""

    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.load_atomic(pointer(builder, values[0], I64), "acquire", 8)

    return types.intp(types.intp), code


@intrinsic
def _give_way(typing: Any) -> Any:
    """Let another thread run on this core: there may be more threads than cores."""

    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        name = "SwitchToThread" if os.name == "nt" else "sched_yield"
        function = ir.Function(builder.module, ir.FunctionType(I32, []), name)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), code


def _alone(function: int, args: int, front: int, steps: int, workers: int) -> None:
    tasks = 0
    for step in range(steps):
        tasks += load_i64(front + LINE * steps * 2 + 8 * step)
    for task in range(tasks):
        call(function, args, task, 0)


def _together(function: int, args: int, front: int, steps: int, workers: int) -> None:
    finished = front + LINE * steps * workers
    for worker in numba.prange(workers):
        first = 0  # task of the step
        for step in range(steps):
            tasks = load_i64(finished + LINE * steps + 8 * step)
            mine = 0
            for turn in range(workers):
                share = (worker + turn) % workers
                counter = front + LINE * (step * workers + share)
                begin, end = tasks * share // workers, tasks * (share + 1) // workers
                task = begin + _add(counter, 1)
                while task < end:
                    call(function, args, first + task, worker)
                    mine += 1
                    task = begin + _add(counter, 1)
            first += tasks
            if step < steps - 1:
                _add(finished + LINE * step, mine)
                looks = 0
                while _read(finished + LINE * step) < tasks:
                    looks += 1
                    if looks > PATIENCE:
                        _give_way()


@functools.cache
def loop(parallel: bool) -> Any:
    """Compile the loop. (Numba's cache tells functions apart, not their options.)

    Numba starts its threads with the first parallel loop of the process: as many as we use, not one
    for every core of the machine.
    """
    if parallel:
        config: Any = numba.config
        config.NUMBA_NUM_THREADS = threads()
    function = _together if parallel else _alone
    signature = types.void(*(types.intp,) * 5)
    return compile_with(numba.njit, function, signature, nogil=True, parallel=parallel)
