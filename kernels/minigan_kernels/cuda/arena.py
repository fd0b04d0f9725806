"""Memory of a recorded step: one block, in which every array has a place of its own.

A recorded step is played with the addresses that it was recorded with. So its arrays must not come
from a memory pool, which would give the same places to others meanwhile. The arena hands out places
within one block by best fit; the same requests in the same order get the same places, so a first
run without memory behind it tells how long the block must be.
"""

from __future__ import annotations

from bisect import bisect_left

ALIGN = 512  # bytes, as in CuPy's pool


class Arena:
    """Places within `size` bytes; without `size` the end is open, and `peak` says what was needed.

    Attributes
    ----------
    live : offset -> bytes of the arrays that exist.
    peak : the largest end of a place so far.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size, self.peak = size, 0
        self.live: dict[int, int] = {}
        self._gaps: list[tuple[int, int]] = []  # (offset, bytes) of free places, by offset
        self._end = 0  # beyond it all is free

    def malloc(self, size: int) -> int:
        """Return the offset of a new place."""
        size = max(1, -(-size // ALIGN)) * ALIGN
        fitting = [gap for gap in self._gaps if gap[1] >= size]
        if fitting:
            offset, length = min(fitting, key=lambda gap: (gap[1], gap[0]))
            at = self._gaps.index((offset, length))
            self._gaps[at : at + 1] = [(offset + size, length - size)] if length > size else []
        else:
            offset = self._end
            self._end += size
            if self.size is not None and self._end > self.size:
                self._end -= size
                raise MemoryError(f"{size} bytes do not fit into an arena of {self.size}")
            self.peak = max(self.peak, self._end)
        self.live[offset] = size
        return offset

    def free(self, offset: int) -> None:
        """Give a place back."""
        size = self.live.pop(offset)
        at = bisect_left(self._gaps, (offset, 0))
        if at < len(self._gaps) and offset + size == self._gaps[at][0]:
            size += self._gaps.pop(at)[1]
        if at and sum(self._gaps[at - 1]) == offset:
            at -= 1
            start, length = self._gaps.pop(at)
            offset, size = start, length + size
        if offset + size == self._end:
            self._end = offset
        else:
            self._gaps.insert(at, (offset, size))
