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

from minigan_kernels.cpu.flat import part
from minigan_kernels.cpu.simd import count_up, read_count


@part
def done(counters: int, step: int) -> None:
    """A task of `step` is done. `counters` is the address of one int64 per step, 0 at first."""
    count_up(counters + 8 * step)


@part
def wait(counters: int, step: int, tasks: int) -> None:
    """Until all `tasks` tasks of `step` are done."""
    while read_count(counters + 8 * step) < tasks:
        pass
