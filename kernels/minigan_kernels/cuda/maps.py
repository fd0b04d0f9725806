"""Kernels that go number by number (`mg_map.cuh`), whatever the order of the numbers in memory."""

from __future__ import annotations

from minigan_kernels.cuda.device import REAL, Array, Device, type_name
from minigan_kernels.cuda.memory_order import dense, in_order_of, like
from minigan_kernels.cuda.sources import Source

THREADS = 256
BYTES = 16  # of each array that a thread handles


def source(file: str, maps: tuple[str, ...] = (), zips: tuple[str, ...] = ()) -> Source:
    """The instances of `map` and `zip` for some functions of a file."""
    names = [f"map<{t}, {f}>" for f in maps for t in REAL]
    names += [f"zip<{t}, {f}>" for f in zips for t in REAL]
    return Source(file, tuple(names))


def map_numbers(
    device: Device, kernels: Source, function: str, x: Array, a: float = 0.0, b: float = 0.0
) -> Array:
    """function(x; a, b), in x's memory order."""
    x = dense(x)
    y = like(device, x)
    name = f"map<{type_name(x.dtype)}, {function}>"
    device.launch(kernels, name, _grid(x), (THREADS,), x, y, x.size, float(a), float(b))
    return y


def zip_numbers(
    device: Device,
    kernels: Source,
    function: str,
    x: Array,
    y: Array,
    a: float = 0.0,
    b: float = 0.0,
    into: Array | None = None,
) -> Array:
    """function(x, y; a, b), in y's memory order, or written `into` an array of that order."""
    y = dense(y)
    x = in_order_of(device, y, x)
    z = like(device, y) if into is None else into
    name = f"zip<{type_name(y.dtype)}, {function}>"
    device.launch(kernels, name, _grid(y), (THREADS,), x, y, z, y.size, float(a), float(b))
    return z


def _grid(x: Array) -> tuple[int]:
    each = THREADS * BYTES // x.itemsize
    return (-(-x.size // each),)
