"""Convolutions of float32 arrays on AMX, Intel's matrix unit: float32's accuracy, 2.7 x its peak.

Sums of bfloat16 numbers stand for float32 ones (`amx_split`); planes and packed weights bring them
into tiles (`amx_conv`, `amx_weight_grad`). In the precision class "tf32" two parts and three
products are used, with an error of about 1e-5; otherwise three and six, with less than 1e-6.

Only for processors that have the unit: importing this anywhere else is an error, unless the
emulation is asked for (`amx_tiles`). NaN in gives NaN out, and so does infinity. Where zeros are
added around an image or beside its channels they meet the weights, so a NaN or infinity among the
weights of a tap makes NaN of more results than by the definition.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.amx_conv import ROOM, multiply, pack_weights, split_planes
from minigan_kernels.cpu.amx_plan import (
    Plan,
    forward_axis,
    plan,
    smaller_and_smaller,
    transpose_axis,
)
from minigan_kernels.cpu.amx_split import BLOCK, LINE, TILE
from minigan_kernels.cpu.amx_weight_grad import weight_grad
from minigan_kernels.cpu.parallel import run
from minigan_kernels.cpu.scratch import scratch
from minigan_kernels.cpu.threads import threads
from minigan_kernels.precision import PRECISION

__all__ = ["forward", "suits", "transpose", "weight_grad"]

Array = npt.NDArray[Any]
Pair = tuple[int, int]

SPLIT_BYTES = 24 << 20  # at most so much of the input is split at a time
PACKED_BYTES = 16 << 20  # of the weights
TASK_BYTES = 512 << 10  # of the split input that a task goes through for every panel: in the cache
DEEPEST = 1 << 15  # products per result: the sums of the unit are as good as promised up to here
TASKS = 16  # enough to keep several threads busy to the end


def suits(
    results: int, inputs: int, outputs: int, kernel: Pair, stride: Pair, dilation: Pair
) -> bool:
    """Whether AMX is the choice for a convolution, its transpose and its weight gradient.

    `results` counts the places of y over all images; inputs and outputs are the channels.
    """
    one_tap = kernel == (1, 1) and PRECISION.get() != "tf32"  # splitting costs as much as it saves
    filled = inputs * outputs / (_blocks(inputs) * _blocks(outputs) * BLOCK * BLOCK)
    return (
        dilation == (1, 1)
        and max(stride) <= 2
        and max(kernel) <= 7
        and not one_tap
        and filled >= 0.5
        and results > 32  # with fewer, reading the weights is all there is to do
        and kernel[0] * kernel[1] * max(inputs, outputs) <= DEEPEST
    )


def forward(x: Array, weight: Array, y: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """x (N,H,W,C), weight (O,KH,KW,C); fills y (N,Ho,Wo,O). All are C-contiguous."""
    layout = _plan(False, x.shape[1:3], weight.shape[1:3], stride, padding, y.shape[1:3])
    _convolve(x, weight, y, layout, False)


def transpose(
    g: Array, weight: Array, x: Array, stride: Pair, padding: Pair, dilation: Pair
) -> None:
    """g (N,Ho,Wo,O), weight (O,KH,KW,C); fills x (N,H,W,C)."""
    layout = _plan(True, g.shape[1:3], weight.shape[1:3], stride, padding, x.shape[1:3])
    _convolve(g, weight, x, layout, True)


@lru_cache(maxsize=1024)
def _plan(transposed: bool, n: Pair, k: Pair, s: Pair, p: Pair, results: Pair) -> Plan:
    axis = transpose_axis if transposed else forward_axis
    y, x = (axis(n[i], k[i], s[i], p[i], results[i]) for i in range(2))
    return plan(y, x)


def _blocks(channels: int) -> int:
    return -(-channels // BLOCK)


def _convolve(source: Array, weight: Array, result: Array, layout: Plan, transposed: bool) -> None:
    """Pack weights, split the source, multiply: all at once, or block by block if it is much."""
    if not result.size:
        return
    parts = 2 if PRECISION.get() == "tf32" else 3
    N, rows = len(source), layout.y.results
    blocks, panels = _blocks(source.shape[3]), _blocks(result.shape[3])
    with scratch() as space:
        room = space.array((threads(), ROOM), np.uint8)
        shapes = _packed_shapes(layout.taps * blocks, panels, parts, PACKED_BYTES)
        packed = space.first_that_fits(shapes, np.uint8)
        fixed, reach = (parts, layout.planes, blocks), (layout.y.reach, layout.x.reach)
        shapes = _planes_shapes(fixed, reach, rows, layout.x.results, N, SPLIT_BYTES)
        planes = space.first_that_fits(shapes, np.uint16)
        block_rows, images = planes.shape[3] - layout.y.reach, planes.shape[5]
        done = None  # the block that is in `planes`
        for first in range(0, panels, len(packed)):
            some = (first, min(len(packed), panels - first))
            _pack(weight, packed, layout, parts, *some, transposed, room)
            for n in range(0, N, images):
                x, y = source[n : n + images], result[n : n + images]
                for row in range(0, rows, block_rows):
                    block = _Block(layout, parts, blocks, len(x), row, min(block_rows, rows - row))
                    if done != (n, row):
                        _split(x, planes, block)
                        done = (n, row)
                    _multiply(planes, packed, y, block, *some, room)


@lru_cache(maxsize=1024)
def _packed_shapes(steps: int, panels: int, parts: int, most: int) -> list[tuple[int, ...]]:
    """Panel, step, part, two tiles: as many panels as fit in `most` bytes, and fewer."""
    counts = [n for n, _ in smaller_and_smaller(panels, 1)]
    fitting = [n for n in counts if n * steps * parts * 2 * TILE <= most]
    return [(n, steps, parts, 2, TILE) for n in fitting or [1]]


@lru_cache(maxsize=1024)
def _planes_shapes(
    fixed: tuple[int, ...], reach: Pair, rows: int, columns: int, images: int, most: int
) -> list[tuple[int, ...]]:
    """Part, plane, block of channels, row, column, image, channel: as many images as fit in `most`
    bytes, and fewer; if one does not, as many rows."""
    shapes = [
        (*fixed, high + reach[0], columns + reach[1], n, BLOCK)
        for n, high in smaller_and_smaller(images, rows)
    ]
    return [shape for shape in shapes if 2 * math.prod(shape) <= most] or shapes[-1:]


class _Block(NamedTuple):
    """Some rows of results of some images."""

    layout: Plan
    parts: int
    blocks: int  # of 32 input channels
    images: int
    row: int
    rows: int

    @property
    def height(self) -> int:
        return self.rows + self.layout.y.reach  # of a plane

    @property
    def width(self) -> int:
        return self.layout.x.results + self.layout.x.reach

    @property
    def part_bytes(self) -> int:
        lines = self.layout.planes * self.blocks * self.height * self.width * self.images
        return lines * LINE


def _pack(
    weight: Array,
    packed: Array,
    layout: Plan,
    parts: int,
    first: int,
    panels: int,
    transposed: bool,
    room: Array,
) -> None:
    outputs, height, width, C = weight.shape
    blocks = _blocks(outputs if transposed else C)
    run(
        pack_weights,
        len(layout.table) * panels * blocks,
        *(weight, packed, parts, layout.table, panels, blocks, first),
        *(outputs, C, height * width, width),
        *(layout.y.tap_step, layout.x.tap_step, transposed, room),
    )


def _split(x: Array, planes: Array, block: _Block) -> None:
    along_y, along_x = block.layout.y, block.layout.x
    run(
        split_planes,
        block.layout.planes * block.height,
        *(x, planes, block.parts, block.part_bytes, *x.shape, block.height, block.width),
        *(along_x.planes, along_y.source_step, along_x.source_step),
        *(along_y.before - block.row * along_y.source_step, along_x.before),
    )


def _multiply(
    planes: Array, packed: Array, y: Array, block: _Block, first: int, panels: int, room: Array
) -> None:
    layout, rows = block.layout, block.rows
    places = layout.x.results * block.images
    across = -(-places // 16)
    high = -(-places // across)
    pairs, all_panels = -(-rows * across // 2), layout.phases * panels
    # A task: results whose part of the planes stays in the cache, for all panels; or for some of
    # the panels if there are few results; or fewer results, if there are few panels too.
    pair_bytes = 2 * high * LINE * block.parts * block.blocks * layout.planes
    pairs_per_task = max(1, TASK_BYTES // pair_bytes)
    tasks = -(-pairs // pairs_per_task)
    groups = min(all_panels, -(-TASKS // tasks))
    panels_per_task = -(-all_panels // groups)
    if tasks * groups < TASKS:
        pairs_per_task = max(1, pairs * groups // TASKS)
    run(
        multiply,
        -(-pairs // pairs_per_task) * -(-all_panels // panels_per_task),
        *(planes, packed, y, layout.table, block.parts, block.part_bytes, block.blocks, panels),
        *(rows, places, across, high, layout.phases, pairs_per_task, panels_per_task),
        *(layout.entries, block.images, block.height, block.width, block.row),
        *(*y.shape[1:], layout.y.result_step, layout.x.result_step, first, room),
    )
