"""What the launch code of matrix products shares (`mg_gemm.cuh`): tiles, parts of sums, precision.

A product with few tiles would leave most of the GPU idle. Then its sum over k is cut into parts
that blocks compute side by side, into a workspace; `add_parts` adds them, always in the same order.
"""

from __future__ import annotations

from typing import NamedTuple

from minigan_kernels.cuda.device import Array, Device, type_name
from minigan_kernels.cuda.sources import Source

DEPTH, STAGES = 32, 3  # as in mg_gemm.cuh
SIDE, STEPS, PLAIN_THREADS = 64, 16, 256  # of products without tensor cores, likewise
PROCESSORS = 132  # for which work is divided: a constant, so that every GPU adds in the same order
MOST_PARTS, WORKSPACE = 1024, 16 << 20  # the latter in numbers
START = 4  # steps that take as long as to begin and end a block
ADDING, A_MILLION = 2, 2  # steps that take as long as to add parts, and a million numbers of them
LEAST = 2  # steps worth a block
ROWS = 16  # of threads that add parts
WARP = 32


class Shape(NamedTuple):
    """A tile of C; names as in mg_gemm.cuh."""

    bm: int
    bn: int
    wm: int
    wn: int
    split: int

    @property
    def name(self) -> str:
        return f"mg::Shape<{', '.join(map(str, self))}>"

    @property
    def at_once(self) -> int:
        """Blocks that a processor holds."""
        return max(1, (16 if self.split == 1 else 12) * WARP // self.threads)

    @property
    def threads(self) -> int:
        return self.bm // self.wm * (self.bn // self.wn) * WARP

    def shared(self, deep_a: bool, deep_b: bool) -> int:
        """Bytes of the tiles of A and B in shared memory."""
        numbers = sum(
            size * (DEPTH + 4) if deep else DEPTH * (size + 8)
            for size, deep in ((self.bm, deep_a), (self.bn, deep_b))
        )
        return 4 * STAGES * numbers


def terms(precision: str) -> int:
    """Tensor-core products per product: 3 are accurate to float32 rounding, 1 to 10 bits."""
    return 1 if precision == "tf32" else 3


LARGE = {1: Shape(128, 128, 64, 32, 1), 3: Shape(128, 96, 32, 32, 3)}
SMALL = {n: Shape(64, 64, 32, 32, n) for n in (1, 3)}
NARROW = Shape(128, 16, 32, 16, 3)  # bound by memory, so 3xTF32 is as fast as TF32


def parts(tiles: int, steps: int, size: int, at_once: int, least: int) -> tuple[int, int]:
    """(parts into which a sum is cut, steps in each).

    Parameters
    ----------
    tiles : blocks that compute one part.
    steps : length of the sum.
    size : numbers of the result.
    at_once : blocks that a processor holds.
    least : steps worth a block.

    A step, DEPTH numbers along k of all blocks of a processor, takes about a microsecond.
    """
    slots = at_once * PROCESSORS
    most = min(steps // least, MOST_PARTS, WORKSPACE // max(size, 1), 4 * slots // max(tiles, 1))

    def cost(count: int) -> float:
        rounds, run = -(-tiles * count // slots), -(-steps // count)
        adding = ADDING + A_MILLION * 1e-6 * size * count if count > 1 else 0
        return rounds * (run + START) + adding

    run = max(1, -(-steps // min(range(1, max(1, most) + 1), key=cost)))
    return max(1, -(-steps // run)), run


def add_parts(device: Device, source: Source, work: Array, out: Array) -> None:
    """out = the sum of work over its first axis."""
    count, size = work.shape[0], out.size
    rows = min(ROWS, count)
    kernel = f"add_parts<{type_name(out.dtype)}>"
    shared = rows * WARP * out.itemsize
    device.launch(
        source, kernel, (-(-size // WARP),), (WARP, rows), work, out, size, count, shared=shared
    )


def blocks(size: int, tile: int) -> int:
    """Tiles that cover a size."""
    return -(-size // tile)


ADD_PARTS = ("add_parts<float>", "add_parts<double>")
