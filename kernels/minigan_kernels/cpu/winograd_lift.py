"""From pixels to points: the first of the two steps of a Winograd convolution.

The transforms of `winograd_transforms` turn tiles of pixels into n x n numbers per channel, here
called points. Points are stored in blocks of tiles and chunks of channels, so that every matrix
product reads one piece of memory from its beginning to its end:

    V [block][phase, chunk][point][tile in block][channel in chunk]

Images are N,H,W,C and their borders are not padded: a tile that reaches beyond them is gathered
with zeros around it.
"""

from __future__ import annotations

from minigan_kernels.cpu.loop import call
from minigan_kernels.cpu.microkernel import PANEL_BYTES, TALLEST
from minigan_kernels.cpu.pack import copy, zeros
from minigan_kernels.cpu.parallel import arg, kernel, part
from minigan_kernels.cpu.simd import BYTES, LANES, store_i64

CHUNK = 64  # most channels of a chunk: as many as are summed at a time

# Working memory of a thread: the arguments of a transform, 6 x 6 pixels of a chunk, 3 x 3 taps of
# sixteen channels, one tile of a product, and then what each kernel needs.
TILE = 128
TAPS = TILE + 36 * 4 * CHUNK
SUMS = TAPS + 9 * LANES * BYTES
TABLES = SUMS + TALLEST * PANEL_BYTES
GAP = BYTES  # between points, whose memory would else share a few lines of the caches

Steps = tuple[int, int, int]  # bytes from row to row, from column to column, from vector to vector


@part
def transform(
    function: int,
    memory: int,
    count: int,
    source: int,
    source_steps: Steps,
    result: int,
    result_steps: Steps,
) -> None:
    """Call a function of `winograd_transforms` for `count` vectors of sixteen channels."""
    store_i64(memory, source)
    store_i64(memory + 8, source_steps[0])
    store_i64(memory + 16, source_steps[1])
    store_i64(memory + 24, source_steps[2])
    store_i64(memory + 32, result)
    store_i64(memory + 40, result_steps[0])
    store_i64(memory + 48, result_steps[1])
    store_i64(memory + 56, result_steps[2])
    call(function, memory, count, 0)


@part
def place(tile: int, high: int, wide: int) -> Steps:
    """Image, row and column of a tile."""
    image = tile // (high * wide)
    tile -= image * high * wide
    return image, tile // wide, tile % wide


@kernel
def lift(args: int, task: int, thread: int) -> None:
    """Pixels of some tiles to points; one task per `group` tiles.

    Tile (i, j) has `size` x `size` pixels, `step` apart, of each of phases x phases images: rows of
    phase a from top + (shift + a) // `slow` + `step` `move` i on, columns likewise.
    """
    x, H, W, C = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    top, left, step, phases = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    size, move, high, wide = arg(args, 8), arg(args, 9), arg(args, 10), arg(args, 11)
    first, tiles, block, group = arg(args, 12), arg(args, 13), arg(args, 14), arg(args, 15)
    v, n, chunk, chunks = arg(args, 16), arg(args, 17), arg(args, 18), arg(args, 19)
    function, memory = arg(args, 20), arg(args, 21) + thread * arg(args, 22)
    shift_row, shift_column, slow = arg(args, 23), arg(args, 24), arg(args, 25)
    point = 4 * block * chunk + GAP
    steps = 4 * C * W * step, 4 * C * step, BYTES
    for t in range(task * group, min(tiles, task * group + group)):
        image, i, j = place(first + t, high, wide)
        result = v + t // block * (phases * phases * chunks * n * n * point) + t % block * 4 * chunk
        for phase in range(phases * phases):
            y = top + (shift_row + phase // phases) // slow + step * i * move
            z = left + (shift_column + phase % phases) // slow + step * j * move
            source = x + 4 * C * ((image * H + y) * W + z)
            # rows i0 <= i < i1 and columns j0 <= j < j1 of the tile lie inside the image
            i0, i1 = max(0, -(y // step)), min(size, -((y - H) // step))
            j0, j1 = max(0, -(z // step)), min(size, -((z - W) // step))
            inside = i0 == 0 and j0 == 0 and i1 == size and j1 == size
            if not inside:
                zeros(memory + TILE, size * size * chunk)
            for c in range(0, chunks * chunk, chunk):
                at, at_steps = source + 4 * c, steps
                if not inside or C - c < chunk:
                    at, at_steps = memory + TILE, (4 * size * chunk, 4 * chunk, BYTES)
                    for a in range(i0, i1):
                        for b in range(j0, j1):
                            pixel = source + 4 * c + a * steps[0] + b * steps[1]
                            copy(at + 4 * chunk * (a * size + b), pixel, min(chunk, C - c))
                to = (n * point, point, BYTES)
                transform(function, memory, chunk // LANES, at, at_steps, result, to)
                result += n * n * point
