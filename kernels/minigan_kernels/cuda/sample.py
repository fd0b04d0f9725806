"""Reading an image at given places on the GPU, and both gradients.

Bound by memory: a place reads a row of channels at each of its 4 or 8 corners, most of which lie
in the caches. The gradient at the image gathers: places are sorted by the cell between pixels that
they lie in, and each pixel adds up the places in the cells around it, in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigan_kernels.cuda.device import Array, Device, integers, type_name
from minigan_kernels.cuda.memory_order import channels_last, to_last, to_second
from minigan_kernels.cuda.places import THREADS, blocks, pieces, vector_size
from minigan_kernels.cuda.sort import segments
from minigan_kernels.cuda.sources import Source

_VECTORS = (("float", 1), ("float", 4), ("double", 1), ("double", 2))
_KERNELS = ("grid_sample", "grid_gradient", "add_cell_blocks", "add_cells")
KERNELS = Source(
    "sample.cu",
    (
        *(f"{k}<{t}, {v}, {axes}>" for k in _KERNELS for t, v in _VECTORS for axes in (2, 3)),
        *(f"find_cells<{t}, {axes}>" for t in ("float", "double") for axes in (2, 3)),
    ),
)
SOURCES = (KERNELS,)

LANES = 8  # threads that share a place, at most
_PADDING = {"zeros": 0, "border": 1, "reflection": 2}


def grid_sample(
    device: Device, x: Array, grid: Array, mode: str, padding_mode: str, align_corners: bool
) -> Array:
    """y[n, c, place] = sum over corners of weight * x[n, c, corner]; channels-last."""
    image, places = _channels_last(device, x), _places(device, grid)
    y = device.empty((*places.shape[:2], x.shape[1]), x.dtype)
    for part in _pieces(image, y):
        p = _Parameters(image[part], places[part], mode, padding_mode, align_corners)
        p.launch(device, "grid_sample", p.threads, image[part], places[part], y[part])
    return to_second(y.reshape(*grid.shape[:-1], x.shape[1]))


def grid_sample_backward(
    device: Device,
    g: Array,
    x: Array,
    grid: Array,
    mode: str,
    padding_mode: str,
    align_corners: bool,
    needs: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None]:
    """dx[corner] += weight g,   dgrid = sum over corners and channels of dweight/dgrid x g."""
    image, places = _channels_last(device, x), _places(device, grid)
    here = _channels_last(device, g).reshape(*places.shape[:2], x.shape[1])
    dx = device.empty(image.shape, x.dtype) if needs[0] else None
    dgrid = device.xp.zeros(places.shape, grid.dtype) if needs[1] else None
    for part in _pieces(image, here):
        p = _Parameters(image[part], places[part], mode, padding_mode, align_corners)
        if dx is not None:
            _image_gradient(device, p, here[part], places[part], dx[part])
        if dgrid is not None and mode != "nearest":
            arrays = here[part], image[part], places[part], dgrid[part]
            p.launch(device, "grid_gradient", p.threads, *arrays)
    return (
        None if dx is None else to_second(dx),
        None if dgrid is None else dgrid.reshape(grid.shape),
    )


def _image_gradient(device: Device, p: _Parameters, g: Array, grid: Array, dx: Array) -> None:
    batch, places, axes = grid.shape
    keys = device.empty((batch * places,), np.int32)
    fraction = device.empty((axes, batch * places), dx.dtype)
    name = f"find_cells<{type_name(dx.dtype)}, {axes}>"
    numbers = batch * places
    device.launch(KERNELS, name, blocks(numbers), (THREADS,), grid, keys, fraction, p.sizes)
    cells = math.prod(n + 1 for n in dx.shape[1:-1])
    found = segments(device, keys, batch, cells, outside=True)
    corners = 2**axes
    sums = device.empty((found.blocks, corners, dx.shape[-1]), dx.dtype)
    threads = found.blocks * corners * p.vectors
    lists = g, fraction, found.order
    p.launch(device, "add_cell_blocks", threads, *lists, found.keys, sums, found.blocks)
    p.launch(device, "add_cells", dx.size // p.size, *lists, found.span, sums, dx)


class _Parameters:
    """What the kernels need to know: the struct `Sampling`, and which instances fit."""

    def __init__(
        self, image: Array, grid: Array, mode: str, padding_mode: str, align_corners: bool
    ) -> None:
        batch, places, axes = grid.shape
        channels = image.shape[-1]
        self.size = vector_size(channels, image.itemsize)
        self.vectors = channels // self.size
        lanes = min(LANES, 1 << max(0, self.vectors.bit_length() - 1))
        depth, height, width = (1,) * (3 - axes) + image.shape[1:-1]
        self.threads = batch * places * lanes
        self.instance = f"{type_name(image.dtype)}, {self.size}, {axes}"
        self.sizes = integers(
            batch=batch,
            places=places,
            vectors=self.vectors,
            lanes=lanes,
            depth=depth,
            height=height,
            width=width,
            nearest=mode == "nearest",
            padding=_PADDING[padding_mode],
            align=bool(align_corners),
        )

    def launch(self, device: Device, kernel: str, threads: int, *args: Any) -> None:
        name = f"{kernel}<{self.instance}>"
        device.launch(KERNELS, name, blocks(threads), (THREADS,), *args, self.sizes)


def _pieces(image: Array, read: Array) -> Iterator[slice]:
    """Parts of the batch, small enough for kernels that count in 32 bits."""
    cells = math.prod(n + 1 for n in image.shape[1:-1])
    numbers = max(cells, math.prod(image.shape[1:]), math.prod(read.shape[1:]))
    return pieces(image.shape[0], numbers)


def _channels_last(device: Device, x: Array) -> Array:
    """x (N,C,*S) as a contiguous N,*S,C array."""
    return to_last(channels_last(device, x))


def _places(device: Device, grid: Array) -> Array:
    """grid as (N, places, axes), contiguous."""
    shape = grid.shape[0], math.prod(grid.shape[1:-1]), grid.shape[-1]
    return device.xp.ascontiguousarray(grid).reshape(shape)
