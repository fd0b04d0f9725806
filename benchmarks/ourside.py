"""minigan as the first side: memory as it lies inside a run, and what wakes its threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from minigan_kernels.cpu.parallel import Kernel, arg, kernel, run
from minigan_kernels.cpu.scratch import aligned
from minigan_kernels.cpu.simd import store_f32
from minigan_kernels.cpu.threads import threads


def channels_last(array: Any) -> Any:
    """The same values in a new array, axis 1 innermost in memory, at a multiple of 64 bytes."""
    order = (0, *range(2, array.ndim), 1)
    memory = aligned([array.shape[i] for i in order], array.dtype)
    memory[...] = array.transpose(order)
    return np.moveaxis(memory, -1, 1)


def lying(array: Any) -> Any:
    """In memory as inside a run: aligned, maps channels-last."""
    return channels_last(array) if array.ndim == 4 else copied(array)


@kernel
def touch(args: int, task: int, thread: int) -> None:
    """Write one number per task."""
    store_f32(arg(args, 0) + 256 * task, np.float32(1))


@cache
def _cells() -> Any:
    return aligned((64 * threads(),))


def wake() -> None:
    """A tiny parallel call (10 us)."""
    run(touch, threads(), _cells())


def copied(array: Any) -> Any:
    """The same values in a new array, in order, at a multiple of 64 bytes."""
    memory = aligned(array.shape, array.dtype)
    memory[...] = array
    return memory


@contextlib.contextmanager
def kernels_seen() -> Iterator[dict[str, None]]:
    """Which families of kernels ran inside a `with` block, in that order: the algorithm's name.

    That is the module's name up to its first underscore, such as "winograd". Empty where no kernel
    of ours ran: the plain path of NumPy and BLAS.
    """
    seen: dict[str, None] = {}
    before: property = vars(Kernel)["address"]

    def address(self: Kernel) -> int:
        seen[self.function.__module__.rpartition(".")[2].partition("_")[0]] = None
        found: int = before.__get__(self)
        return found

    Kernel.address = property(address)  # type: ignore[assignment, method-assign]
    try:
        yield seen
    finally:
        Kernel.address = before  # type: ignore[assignment, method-assign]
