"""What this machine can do: the speed of multiply-adds and of memory, measured by short kernels.

They give the floor of every measurement: an operation with F floating-point operations that must
touch B bytes cannot take less than max(F / peak, B / bandwidth), unless it finds a way with less
arithmetic (Winograd's, for 3x3 kernels) or its data already lie in the cache.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES, TALLEST, VECTORS, tile
from minigan_kernels.cpu.parallel import arg, kernel, real, run
from minigan_kernels.cpu.scratch import aligned
from minigan_kernels.cpu.simd import BYTES, load, spread, store
from minigan_kernels.cpu.threads import threads

DEPTH = 128  # products per number of the tile: A and B together stay in the first-level cache
CHUNK = 1 << 15  # bytes of one array per task of the copy
UNDISTURBED = 90  # percentile of the samples that counts as what the machine can do

multiply = tile(TALLEST, VECTORS)


@kernel
def multiply_again(args: int, task: int, thread: int) -> None:
    """The same tile of a matrix product, `repeats` times, from the first-level cache."""
    size = arg(args, 1)
    A = arg(args, 0) + task * size
    B = A + 4 * TALLEST * DEPTH
    C = B + PANEL_BYTES * DEPTH
    for _ in range(arg(args, 2)):
        multiply(A, 4 * DEPTH, 4, DEPTH, 1, 0, B, PANEL_BYTES, C, PANEL_BYTES, 0)


@kernel
def scale(args: int, task: int, thread: int) -> None:
    """y = factor x: what any operation that only reads and writes can reach."""
    x, y, end = arg(args, 0), arg(args, 1), arg(args, 2)
    factor = spread(np.float32(real(args, 3)))
    for i in range(task * CHUNK, min(end, task * CHUNK + CHUNK), BYTES):
        store(y + i, load(x + i) * factor)


@dataclass(frozen=True)
class Peaks:
    """Measured limits of the threads in use.

    Attributes
    ----------
    gflops, gflops_one : 10^9 multiplications and additions per second, of all threads and of one.
    bandwidth : (bytes of the working set, 10^9 bytes per second read and written), rising sizes.
    """

    gflops: float
    gflops_one: float
    bandwidth: tuple[tuple[int, float], ...]

    def gbytes(self, working_set: float) -> float:
        """Bandwidth for data of that size, between the sizes that were measured."""
        sizes, speeds = zip(*self.bandwidth, strict=True)
        place = math.log(max(working_set, 1))
        return float(np.interp(place, [math.log(n) for n in sizes], speeds))

    def floor(self, flops: float, nbytes: float) -> float:
        """Seconds that this much arithmetic and memory traffic take at least."""
        return max(flops / self.gflops / 1e9, nbytes / self.gbytes(nbytes) / 1e9)

    def report(self) -> dict[str, Any]:
        """As it stands in the results."""
        curve = {f"{size >> 10} KiB": round(speed, 1) for size, speed in self.bandwidth}
        return {
            "gflops": round(self.gflops, 1),
            "gflops_one_thread": round(self.gflops_one, 1),
            "gbytes_per_second": curve,
        }


@cache
def peaks() -> Peaks:
    """Measure them, in about a second; once per process."""
    sizes = [1 << n for n in range(20, 29, 2)]  # 1 MiB to 256 MiB
    speeds = [bandwidth(size) for size in sizes]
    # A smaller set is never slower; only here starting the threads would count.
    curve = tuple((size, max(speeds[i:])) for i, size in enumerate(sizes))
    return Peaks(arithmetic(threads()), arithmetic(1), curve)


def arithmetic(tasks: int, seconds: float = 0.15) -> float:
    """10^9 operations per second of the microkernel on so many threads, when undisturbed."""
    work, samples = spin(tasks), []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        samples.append(work())
    return float(np.percentile(samples, UNDISTURBED))


def spin(tasks: int, milliseconds: float = 2.0) -> Callable[[], float]:
    """A function that computes for about that long on `tasks` threads and returns its GFLOP/s."""
    size = 4 * (TALLEST * DEPTH + PANEL * DEPTH + TALLEST * PANEL)
    size = -(-size // 4096) * 4096
    memory = aligned((tasks * size // 4,))
    memory[...] = 1e-3
    flops = 2.0 * TALLEST * PANEL * DEPTH * tasks

    def work(repeats: int) -> float:
        start = time.perf_counter()
        run(multiply_again, tasks, memory, size, repeats)
        return flops * repeats / (time.perf_counter() - start) / 1e9

    work(1)
    rate = max(work(1000) for _ in range(5))
    repeats = max(1, int(rate * 1e9 * milliseconds * 1e-3 / flops))
    return lambda: work(repeats)


def bandwidth(size: int, seconds: float = 0.08) -> float:
    """10^9 bytes per second read and written by `scale` over arrays of `size` bytes together."""
    x, y = aligned((size // 8,)), aligned((size // 8,))
    x[...], y[...] = 1, 0
    repeats = max(1, (1 << 22) // size)
    samples: list[float] = []
    start = time.perf_counter()
    while len(samples) < 3 or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        for _ in range(repeats):
            run(scale, -(-x.nbytes // CHUNK), x, y, x.nbytes, 0.5)
        samples.append(repeats * size / (time.perf_counter() - begin) / 1e9)
    return float(np.percentile(samples, UNDISTURBED))
