"""Working memory of kernels: one growing block per thread of the caller, reused by every call.

    with scratch() as space:
        panel = space.array((rows, width))      # float32, 64-byte aligned, uninitialised
        ...

What was taken is free again when the block ends. The memory is kept for the next call up to
`KEPT` bytes; arrays beyond it come from the system and go back to it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.parallel import address

KEPT = 64 << 20  # bytes
ALIGN = 64  # bytes: a cache line


def aligned(shape: Sequence[int], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """An uninitialised array whose first element lies at a multiple of 64 bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGN, np.uint8)
    start = -address(raw) % ALIGN
    return raw[start : start + size].view(dtype).reshape(shape)


class Space:
    """A block that is handed out from its beginning; what does not fit comes from the system."""

    def __init__(self) -> None:
        self.block = aligned((0,), np.uint8)
        self.used = self.wanted = self.depth = 0

    def array(self, shape: Sequence[int], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """An uninitialised array, 64-byte aligned; raises MemoryError if there is no memory."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        rounded = -(-size // ALIGN) * ALIGN
        self.wanted = max(self.wanted, self.used + rounded)
        if self.used + rounded > self.block.nbytes:
            return aligned(shape, dtype)
        part = self.block[self.used : self.used + size]
        self.used += rounded
        return part.view(dtype).reshape(shape)

    def first_that_fits(
        self, shapes: Sequence[Sequence[int]], dtype: npt.DTypeLike = np.float32
    ) -> npt.NDArray[Any]:
        """An array of the first of `shapes` for which there is memory: the largest comes first."""
        for shape in shapes[:-1]:
            try:
                return self.array(shape, dtype)
            except MemoryError:
                continue
        return self.array(shapes[-1], dtype)

    def grow(self) -> None:
        """Between calls: make the block as large as the last call would have liked."""
        if self.block.nbytes < self.wanted <= KEPT:
            self.block = aligned((0,), np.uint8)  # first let go of the old one
            with contextlib.suppress(MemoryError):
                self.block = aligned((self.wanted,), np.uint8)


_here = threading.local()


@contextlib.contextmanager
def scratch() -> Iterator[Space]:
    """Working memory of this thread; nested blocks take from what is left."""
    space: Space = getattr(_here, "space", None) or Space()
    _here.space = space
    if space.depth == 0:
        space.grow()
    before = space.used
    space.depth += 1
    try:
        yield space
    finally:
        space.depth -= 1
        space.used = before
