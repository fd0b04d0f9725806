"""Arithmetic number by number on the GPU."""

from __future__ import annotations

from minigan_kernels.cuda.device import Array, Device
from minigan_kernels.cuda.maps import map_numbers, source, zip_numbers
from minigan_kernels.cuda.memory_order import order_of

KERNELS = source("elementwise.cu", maps=("Affine",), zips=("Add", "Multiply"))
SOURCES = (KERNELS,)


def add(device: Device, a: Array, b: Array, factor: float = 1.0) -> Array:
    """a + factor b, of one shape, in b's memory order."""
    return zip_numbers(device, KERNELS, "Add", a, b, factor)


def add_to(device: Device, a: Array, b: Array) -> None:
    """a += b, in place."""
    if order_of(a) is None:
        a += b
    else:
        zip_numbers(device, KERNELS, "Add", b, a, 1.0, into=a)


def multiply(device: Device, a: Array, b: Array) -> Array:
    """a b, of one shape."""
    return zip_numbers(device, KERNELS, "Multiply", a, b)


def affine(device: Device, x: Array, factor: float, offset: float) -> Array:
    """factor x + offset."""
    return map_numbers(device, KERNELS, "Affine", x, factor, offset)
