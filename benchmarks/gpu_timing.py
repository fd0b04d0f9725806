"""Times on a GPU: events around a few calls, sides in turns, inputs that are not in the cache.

Both sides launch on the same (default) stream, so one clock measures both; our recorded steps run
on a stream of their own and end before they return. A call gets the number of a set of buffers;
with enough sets none of its inputs is still in the L2 cache. On the emulated GPU the clock is the
host's: figures mean nothing there, but everything runs.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.timing import quartiles

L2 = 60 << 20  # bytes, of an H200
MOST_SETS = 32
ROUNDS = 15
TURN = 2e-3  # seconds of calls between two events

OURS = ("minigan recorded", "minigan")  # the first that was measured counts


class Contender(NamedTuple):
    """One way to compute something; `call` takes the number of a set of buffers."""

    name: str
    call: Callable[[int], Any]


class Limits(NamedTuple):
    """What a GPU can do: operations per second, and bytes read and written per second.

    The defaults are an H200's as others measured it (TF32 on tensor cores, memory); `exact` is a
    third of TF32, for float32 by three products of parts.
    """

    tensor: float = 400e12
    memory: float = 4.3e12

    @property
    def exact(self) -> float:
        return self.tensor / 3

    def floor(self, flops: float, nbytes: float, precision: str = "tf32") -> float:
        """Seconds that this takes at least."""
        peak = self.tensor if precision == "tf32" else self.exact
        return max(flops / peak, nbytes / self.memory)


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
    """Seconds per call of each side in each round, for `compared`."""
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


def compared(times: dict[str, list[float]]) -> dict[str, Any]:
    """An entry of the results: milliseconds of each side, and PyTorch's times over ours."""
    ms = {name: quartiles([1e3 * t for t in values]) for name, values in times.items()}
    ours = next(name for name in OURS if name in ms)
    entry: dict[str, Any] = {"ms": ms, "ours": ours}
    others = [name for name in ms if name.startswith("torch")]
    if others:
        entry["best"] = min(others, key=lambda name: ms[name]["median"])
        entry["ratios"] = {name: ms[name]["median"] / ms[ours]["median"] for name in others}
    return entry


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


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError inside a `with` block that takes longer; an outer limit goes on."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds:.3g} s")

    start, before = time.monotonic(), signal.signal(signal.SIGALRM, late)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        left = max(outer - (time.monotonic() - start), 1e-3) if outer else 0.0
        signal.setitimer(signal.ITIMER_REAL, left)


# Arrays of both sides ----------------------------------------------------------------------------


def normal(kernels: Any, key: int, shape: Sequence[int]) -> Any:
    """Random numbers made on the device; maps lie channels-last."""
    if len(shape) != 4:
        return kernels.philox_normal((0, key), shape)
    n, c, h, w = shape
    return kernels.philox_normal((0, key), (n, h, w, c)).transpose(0, 3, 1, 2)


def shared(torch: Any, array: Any, layout: Any = None) -> Any:
    """A device array as a tensor of PyTorch; its memory if the order fits, else a copy."""
    there = hasattr(array, "__dlpack__")
    tensor = torch.from_dlpack(array) if there else torch.tensor(array.get())
    if layout is None or tensor.ndim != 4:
        return tensor.contiguous()
    return tensor.contiguous(memory_format=layout)


def numbers(result: Any) -> np.ndarray[Any, Any]:
    """A result of either side as a NumPy array in float64; of several, the first."""
    if isinstance(result, list | tuple):
        return numbers(result[0])
    if hasattr(result, "node"):  # a Tensor of ours
        result = result.data
    found = result.get() if hasattr(result, "get") else result.detach().cpu().numpy()
    return np.asarray(found, np.float64)


def relative(found: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> float:
    """|found - exact| / |exact|, Euclidean norms."""
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(found - exact)) / size if size else 0.0
