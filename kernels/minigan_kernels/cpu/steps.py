"""Several steps in one run, each beginning when all tasks of the step before are done.

    @kernel
    def normalise(args, task, thread):
        if task < measuring:
            measure(task)
            done(counters, 0)
        else:
            wait(counters, 0, measuring)
            apply(task - measuring)

That saves a start of all threads per step, and Python between the steps. Nobody waits forever:
tasks are handed out in order, so all tasks of earlier steps are with a thread already when a task
begins to wait, and these threads need nothing from the one that waits.
"""

from __future__ import annotations

import os
from typing import Any

from llvmlite import ir
from numba import types

from minigan_kernels.cpu.parallel import part
from minigan_kernels.cpu.simd import I32, count_up, intrinsic, read_count

PATIENCE = 2000  # looks at a counter before another thread gets the core: about 10 microseconds


@intrinsic
def give_way(typing: Any) -> Any:
    """Let another thread run on this core: there may be more threads than cores."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = "SwitchToThread" if os.name == "nt" else "sched_yield"
        function = ir.Function(builder.module, ir.FunctionType(I32, []), name)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), code


@part
def done(counters: int, step: int) -> None:
    """A task of `step` is done. `counters` is the address of one int64 per step, 0 at first."""
    count_up(counters + 8 * step)


@part
def wait(counters: int, step: int, tasks: int) -> None:
    """Until all `tasks` tasks of `step` are done."""
    looks = 0
    while read_count(counters + 8 * step) < tasks:
        looks += 1
        if looks > PATIENCE:
            give_way()
