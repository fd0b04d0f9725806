"""Times on a GPU: events around a few calls, sides in turns, inputs that are not in the cache.

Both sides launch on the same (default) stream, so one clock measures both. A call gets the number
of a set of buffers; with enough sets none of its inputs is still in the L2 cache. On the emulated
GPU the clock is the host's: figures mean nothing there, but everything runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

L2 = 60 << 20  # bytes, of an H200
MOST_SETS = 32
ROUNDS = 15
TURN = 2e-3  # seconds of calls between two events


class Contender(NamedTuple):
    """One way to compute something; `call` takes the number of a set of buffers."""

    name: str
    call: Callable[[int], Any]


def sets_for(nbytes: float) -> int:
    """Sets of buffers of so many bytes whose sum is three times the cache."""
    return min(MOST_SETS, math.ceil(3 * L2 / nbytes))


class Clock:
    """Seconds of a number of calls, measured on the device."""

    def __init__(self, xp: Any) -> None:
        self.cuda = getattr(xp, "cuda", None)

    def seconds(self, call: Callable[[int], Any], first: int, count: int, sets: int) -> float:
        if self.cuda is None:
            start = time.perf_counter()
            for i in range(count):
                call((first + i) % sets)
            return time.perf_counter() - start
        begin, end = self.cuda.Event(), self.cuda.Event()
        begin.record()
        for i in range(count):
            call((first + i) % sets)
        end.record()
        end.synchronize()
        return float(self.cuda.get_elapsed_time(begin, end)) / 1e3


def race(clock: Clock, sides: Sequence[Contender], sets: int = 1) -> dict[str, list[float]]:
    """Seconds per call of each side in each round, for `timing.versus`."""
    times: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for side in sides:
        clock.seconds(side.call, 0, 3, sets)  # compiles, chooses algorithms, wakes the GPU
        once = clock.seconds(side.call, 0, 3, sets) / 3
        counts[side.name], times[side.name] = max(1, min(100, int(TURN / once))), []
    for turn in range(ROUNDS):
        for side in sides if turn % 2 else reversed(sides):
            n = counts[side.name]
            times[side.name].append(clock.seconds(side.call, turn * n, n, sets) / n)
    return times


def host_microseconds(call: Callable[[], Any], wait: Callable[[], Any], count: int = 2000) -> float:
    """What a launch costs on the host."""
    for _ in range(100):
        call()
    wait()
    start = time.perf_counter()
    for _ in range(count):
        call()
    seconds = time.perf_counter() - start
    wait()
    return seconds / count * 1e6
