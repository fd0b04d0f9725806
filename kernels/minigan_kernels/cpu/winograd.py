"""Winograd convolution: fewer multiplications for 3x3 kernels, and for k4 s2.

A tile of 4 x 4 outputs of a 3 x 3 kernel takes 144 multiplications per pair of channels. Winograd's
F(4,3) takes 36, and some additions: it transforms tiles of the input, the weight, and tiles of the
result, and in between multiplies point by point (see `winograd_transforms`), which for all tiles
and channels together is one matrix product per point:

    Y = A^T [sum over c of (G w_c G^T) * (B^T d_c B)] A                 (Lavin & Gray 2015)

A stride s is handled by phases. Rows a, a + s, a + 2s .. of the image and of the kernel, and the
columns likewise, are convolved with stride one, and the s^2 results added up:

    y[i] = sum over a, j of x_a[i + j] w[s j + a],        x_a[q] = x[s q + a - p]

so k4 s2 becomes four convolutions with 2 x 2 taps by F(4,2), 25 multiplications for 64. Phases are
added while they are points, as more channels: one transform of the result serves them all. (Of a
k3 s2 kernel the odd phase has one tap only, and a zero; what F(4,2) gains is lost again.)

The input gradient is a convolution of g with the flipped, transposed kernel; with a stride each
phase of the result is one. The weight gradient transforms tiles of x and g and sums over tiles:

    dw = G^T [sum over tiles of (A g A^T) * (B^T d B)] G

Accuracy: relative error (norm, against float64) 5e-7 to 1.1e-6 for 3x3 and 3e-7 to 7e-7 for k4 s2,
of results and of both gradients, for 16 to 1024 channels and up to half a million pixels. That is
inside the float32 class (direct summation: 2e-7 to 5e-7), because the points are chosen for it and
long sums are cut in pieces. An infinity in the input becomes NaN in all of its tile, and a NaN
reaches all of its tile.

Weights are transformed on every call. All is float32, channels last, groups 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES
from minigan_kernels.cpu.parallel import run
from minigan_kernels.cpu.scratch import Space, scratch
from minigan_kernels.cpu.simd import LANES
from minigan_kernels.cpu.threads import threads
from minigan_kernels.cpu.winograd_lift import CHUNK, GAP, TABLES, lift
from minigan_kernels.cpu.winograd_products import correlate, multiply
from minigan_kernels.cpu.winograd_transforms import TRANSFORMS, Transforms

Array = npt.NDArray[Any]
Pair = Sequence[int]
Shape = Sequence[int]

POINTS = 8 << 20  # bytes of V and D: they pass from one kernel to the next in the last-level cache
L2 = 704 << 10  # bytes of U and M, which should stay in a core's own cache
BLOCK = 128  # most tiles of a block
GROUP = CHUNK  # output channels of a task of the weight gradient
TASKS = 8  # at least, where there is so much to do
LIFTED = 4  # tiles of a task of `lift`

# What `suits` believes, measured, in cycles: a multiply-add of one vector in the direct way and
# here, a vector of points or taps that a transform makes, and the start of the kernels of each.
DIRECT, DIRECT_START = 1.3, 180_000
PRODUCT, LIFT, WEIGHT, LOWER, TAP, START = 1.45, 9.0, 6.5, 3.0, 9.0, 380_000


class Tiles(NamedTuple):
    """The grid of tiles of `images` maps; tile t is in row t // wide % high of image t // area."""

    high: int
    wide: int
    total: int


def _tiles(images: int, height: int, width: int, m: int) -> Tiles:
    high, wide = -(-height // m), -(-width // m)
    return Tiles(high, wide, images * high * wide)


def _part(total: int, most: int, unit: int = 1) -> int:
    """The size of equal parts of at most `most`, rounded up to a multiple of `unit`."""
    size = -(-total // -(-total // most))
    return -(-size // unit) * unit


def transforms(kernel: Pair, stride: Pair, dilation: Pair) -> Transforms | None:
    """The F(4, r) for this kernel, or None: r taps per phase must be 2 or 3 along both axes."""
    s = stride[0]
    taps = {-(-k // s) for k in kernel}
    if stride[1] != s or len(taps) > 1 or max(dilation) > 1:
        return None
    return TRANSFORMS.get(taps.pop())


def suits(operation: str, x: Shape, y: Shape, weight: Shape, stride: Pair, dilation: Pair) -> bool:
    """Whether this is faster than the direct way, for x (N,H,W,C), y (N,H,W,O), w (O,KH,KW,C).

    `operation` is forward, transpose or weight_grad: whichever of the three arrays it computes, x
    is the larger map of a stride.
    """
    f = transforms(weight[1:3], stride, dilation)
    outputs, high, wide, C = weight
    if f is None or min(outputs, C) < LANES:
        return False
    if operation == "forward":
        outputs = -(-outputs // PANEL) * PANEL
    elif operation == "transpose":
        C = -(-C // PANEL) * PANEL
    products = y[0] * y[1] * y[2] * high * wide * C * outputs // LANES
    return _cycles(f, operation, x, y, stride[0]) < DIRECT * products + DIRECT_START


def _cycles(f: Transforms, operation: str, x: Shape, y: Shape, s: int) -> float:
    """An estimate, for one core: vectors of sixteen channels are counted."""
    n2, phases, inputs, outputs = f.n**2, s * s, x[3], y[3]
    apart = phases if operation == "transpose" else 1  # phases that are not added up
    height, width = y[1:3]
    if operation == "transpose":
        inputs, outputs, height, width = outputs, inputs, -(-x[1] // s), -(-x[2] // s)
    tiles = _tiles(y[0], height, width, f.m).total
    vectors = -(-inputs // LANES)
    lifted = LIFT * n2 * tiles * phases * vectors
    if operation == "weight_grad":
        lifted += LIFT * n2 * tiles * -(-outputs // LANES)
        products = tiles * phases * n2 * -(-inputs // PANEL) * PANEL // LANES * outputs
        return PRODUCT * products + lifted + TAP * n2 * phases * vectors * outputs + START
    panels = -(-outputs // PANEL)
    wide = panels * PANEL // LANES
    products = tiles * phases * n2 * inputs * wide
    weights = -(-tiles // _block(f.n, tiles, panels * apart)) * phases * inputs * wide
    lowered = LOWER * n2 * tiles * apart * wide
    return PRODUCT * products + lifted + WEIGHT * n2 * weights + lowered + START


def forward(x: Array, weight: Array, y: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """y[n,i,o] = sum over k, c of x[n, i s - p + k, c] w[o,k,c]."""
    _, high, wide, C = weight.shape
    f, s = _of(weight, stride, dilation), stride[0]
    steps = (4, 4 * high * wide * C)
    taps = (weight, *steps, high, wide, f.r, s, 0, 0, s, 0, 4 * C, f.weight.address)
    _convolve(f, x, (-padding[0], -padding[1], s, s), (0, 0, 1), taps, y, (s, 1))


def transpose(
    g: Array, weight: Array, x: Array, stride: Pair, padding: Pair, dilation: Pair
) -> None:
    """x[n, i s - p + k, c] = sum over i, k, o of g[n,i,o] w[o,k,c]: one convolution per phase.

    Position q s + b meets the r taps k = a, a + s .. with a = (b + p) mod s. Tap k meets
    g[(q s + b + p - k) / s]: the last tap, a + s (r - 1), meets g[q + (b + p) // s - (r - 1)].
    """
    _, high, wide, C = weight.shape
    f, s = _of(weight, stride, dilation), stride[0]
    last = f.r - 1
    start, steps = (-last, -last, 1, s), (4 * high * wide * C, 4)
    taps = (weight, *steps, high, wide, f.r, -s, *padding, s, s * last, 4 * C, f.weight.address)
    _convolve(f, g, start, (*padding, s), taps, x, (1, s))


def weight_grad(x: Array, g: Array, dw: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """dw[o,k,c] = sum over n, i of g[n,i,o] x[n, i s - p + k, c]."""
    outputs, kernel_high, kernel_wide, C = dw.shape
    f, s = _of(dw, stride, dilation), stride[0]
    n = f.n
    N, high, wide, _ = g.shape
    tiles = _tiles(N, high, wide, f.m)
    panels, group = -(-C // PANEL), _part(outputs, GROUP, LANES)
    groups, block = -(-outputs // group), _part(tiles.total, BLOCK)
    v_size = n * n * s * s * panels * (block * PANEL + GAP // 4)
    d_size = n * n * groups * (block * group + GAP // 4)
    each = TABLES + n * n * (group * PANEL_BYTES + GAP)
    with scratch() as space:
        points, blocks = _points(space, -(-tiles.total // block), v_size + d_size)
        v, d = points[: blocks * v_size], points[blocks * v_size :]
        memory = space.array((threads() * each // 4,))
        for first in range(0, tiles.total, blocks * block):
            count = min(blocks * block, tiles.total - first)
            grid = (tiles.high, tiles.wide, first, count, block, LIFTED)
            x_pixels = (x, *x.shape[1:], -padding[0], -padding[1], s, s, n, f.m)
            g_pixels = (g, *g.shape[1:], 0, 0, 1, 1, f.m, f.m)
            tasks, end = -(-count // LIFTED), (memory, each, 0, 0, 1)
            run(lift, tasks, *x_pixels, *grid, v, n, PANEL, panels, f.input.address, *end)
            run(lift, tasks, *g_pixels, *grid, d, n, group, groups, f.gradient.address, *end)
            sizes = (count, block, n, group, outputs, C, s, memory, each)
            taps = (dw, kernel_high, kernel_wide, C, f.r, s, int(first > 0), f.taps.address)
            run(correlate, s * s * panels * groups, v, d, *sizes, *taps)


def _convolve(
    f: Transforms,
    x: Array,
    start: Sequence[int],
    shift: Sequence[int],
    taps: Sequence[Any],
    y: Array,
    phases: tuple[int, int],
) -> None:
    """Convolve phases of x: of the first kind they are added up, of the second they become phases
    of y. `start`, `shift` and `taps` say where they begin: see `lift` and `multiply`."""
    N, _, _, C = x.shape
    _, H, W, outputs = y.shape
    n, added, apart = f.n, *phases
    tiles = _tiles(N, -(-H // apart), -(-W // apart), f.m)
    panels, chunk = -(-outputs // PANEL), _part(C, CHUNK, LANES)
    chunks, block = -(-C // chunk), _block(n, tiles.total, panels * apart**2)
    size = n * n * (added * apart) ** 2 * chunks * (block * chunk + GAP // 4)
    each = TABLES + n * n * ((chunk + block) * PANEL_BYTES + 2 * GAP)
    pixels = (y, H, W, 4 * H * W * outputs, 4 * W * outputs, 4 * outputs, f.m)
    with scratch() as space:
        v, blocks = _points(space, -(-tiles.total // block), size)
        memory = space.array((threads() * each // 4,))
        for first in range(0, tiles.total, blocks * block):
            count = min(blocks * block, tiles.total - first)
            grid = (tiles.high, tiles.wide, first, count, block, LIFTED)
            end = (v, n, chunk, chunks, f.input.address, memory, each, *shift)
            run(lift, -(-count // LIFTED), x, *x.shape[1:], *start, n, f.m, *grid, *end)
            tasks = apart**2 * panels * -(-count // block)
            sizes = (v, count, block, chunk, chunks, C, *phases, outputs, n, memory, each)
            result = (*pixels, first, tiles.high, tiles.wide, f.output.address)
            run(multiply, tasks, *sizes, *taps, *result)


def _block(n: int, tiles: int, panels: int) -> int:
    """Tiles of a block: many, for the weights are transformed once per block."""
    most = min(BLOCK, L2 // (n * n * PANEL_BYTES) - CHUNK)
    parts = -(-tiles // most)
    while panels * parts < TASKS and tiles // (parts + 1) >= 16:
        parts += 1
    return -(-tiles // parts)


def _points(space: Space, blocks: int, size: int) -> tuple[Array, int]:
    """Memory for some blocks of points (and how many): as many as stay in the cache."""
    most = max(1, min(blocks, POINTS // (4 * size)))
    shapes = [(b * size,) for b in range(most, 0, -1)]
    memory = space.first_that_fits(shapes)
    return memory, memory.size // size


def _of(weight: Array, stride: Pair, dilation: Pair) -> Transforms:
    f = transforms(weight.shape[1:3], stride, dilation)
    if f is None:
        raise ValueError(f"no transform for weight {weight.shape}, {stride=}, {dilation=}")
    return f
