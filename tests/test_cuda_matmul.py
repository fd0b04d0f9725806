"""Matrix products on the emulated GPU: values, any strides, every kernel, extremes, equal bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from emulator.loader import ORDERS, emulated_device
from hypothesis import given
from hypothesis import strategies as st
from minigan_kernels.cuda import gemm, matmul
from minigan_kernels.cuda.device import Device
from minigan_kernels.precision import PRECISION
from opspec import Array
from strategies import Draw

ACCURATE = {"float32": 2e-6, "float64": 1e-12}  # norm of the error over norm of the result
WITHIN = {"fp32": 2e-6, "tf32": 1e-3}
VIEWS = ("whole", "turned", "gaps", "part", "backwards", "shifted", "repeated", "leading last")


def on(device: Device, view: str, x: Array) -> tuple[Any, Array]:
    """An array on the device that is a view of the given kind, and its numbers."""
    made = device.upload(x)
    if view == "turned":
        made = device.upload(x.swapaxes(-1, -2).copy()).swapaxes(-1, -2)
    elif view == "gaps":
        wide = device.empty((*x.shape[:-2], 3 * x.shape[-2], 2 * x.shape[-1]), x.dtype)
        wide[..., ::3, ::2] = made
        made = wide[..., ::3, ::2]
    elif view == "part":  # of rows that begin at multiples of 16 bytes
        wide = device.empty((*x.shape[:-1], x.shape[-1] // 4 * 4 + 8), x.dtype)
        wide[..., : x.shape[-1]] = made
        made = wide[..., : x.shape[-1]]
    elif view == "backwards":
        made = made[..., ::-1, :]
    elif view == "shifted":  # begins one number after a multiple of 16 bytes
        memory = device.empty((x.size + 1,), x.dtype)[1:].reshape(x.shape)
        memory[...] = made
        made = memory
    elif view == "repeated" and x.shape[-2]:  # the same row again and again
        made = device.xp.broadcast_to(made[..., :1, :], x.shape)
    elif view == "leading last":
        made = device.upload(np.moveaxis(x, 0, -1).copy()).transpose(-1, *range(x.ndim - 1))
    return made, made.get()


@contextmanager
def few_processors(number: int = 3) -> Iterator[None]:
    """Sums are cut as for a GPU of few processors, at any length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, "PROCESSORS", number)
        patch.setattr(matmul, "LEAST", 1)
        matmul._launch.cache_clear()
        yield
    matmul._launch.cache_clear()


def check(device: Device, a: tuple[Any, Array], b: tuple[Any, Array], within: float = 0) -> Array:
    """The product, compared with NumPy's in float64."""
    found = matmul.matmul(device, a[0], b[0]).get()
    wide = a[1].astype(np.float64), b[1].astype(np.float64)
    expected = np.matmul(*wide)
    size = np.linalg.norm(np.matmul(*map(np.abs, wide)))
    assert found.dtype == a[1].dtype and found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= (within or ACCURATE[found.dtype.name]) * size
    return found


@st.composite
def operands(draw: Draw) -> tuple[Array, Array]:
    """Matrices or stacks of them, in float64; leading axes are broadcast."""
    side = st.sampled_from([1, 1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 40, 64, 66])
    depth = st.sampled_from([0, 1, 2, 4, 5, 16, 33, 68, 100])
    m, n, k = draw(side), draw(side), draw(depth)
    lead = draw(st.lists(st.sampled_from([1, 2, 2, 3]), max_size=3))
    if draw(st.integers(0, 9)) == 0:
        lead = [0, *lead]

    def own() -> list[int]:
        axes = [draw(st.sampled_from([size, size, 1])) for size in lead]
        return axes[draw(st.integers(0, len(axes))) :] if axes else axes

    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.standard_normal((*own(), m, k)), rng.standard_normal((*own(), k, n))


DRAWN = (operands(), st.sampled_from(VIEWS), st.sampled_from(VIEWS), st.sampled_from(ORDERS))


@given(*DRAWN)
def test_exact_in_float64(pair: tuple[Array, Array], a: str, b: str, order: int) -> None:
    device = emulated_device(order)
    with few_processors():
        check(device, on(device, a, pair[0]), on(device, b, pair[1]))


@given(*DRAWN, st.sampled_from(list(WITHIN)))
def test_float32(pair: tuple[Array, Array], a: str, b: str, order: int, precision: str) -> None:
    device = emulated_device(order)
    left, right = (x.astype(np.float32) for x in pair)
    token = PRECISION.set(precision)
    try:
        with few_processors():
            check(device, on(device, a, left), on(device, b, right), WITHIN[precision])
    finally:
        PRECISION.reset(token)


@pytest.mark.parametrize("precision", WITHIN)
@pytest.mark.parametrize("tile", ["LARGE", "SMALL", "NARROW"])
@pytest.mark.parametrize("a", ["whole", "turned"])
@pytest.mark.parametrize("b", ["whole", "turned"])
def test_every_kernel(precision: str, tile: str, a: str, b: str) -> None:
    """Several tiles, several parts and tails, for each way that operands may lie."""
    rng = np.random.default_rng(0)
    device = emulated_device(2)
    m = 9 if tile == "NARROW" else 130
    left = on(device, a, rng.standard_normal((m, 300), dtype=np.float32))
    right = on(device, b, rng.standard_normal((300, 84), dtype=np.float32))
    token = PRECISION.set(precision)
    try:
        with few_processors(2 if tile == "LARGE" else 8):
            check(device, left, right, WITHIN[precision])
    finally:
        PRECISION.reset(token)
    shape = getattr(gemm, tile)
    shape = shape if tile == "NARROW" else shape[1 if precision == "tf32" else 3]
    deep = [a == "whole", b == "turned"]
    names = ", ".join(str(d).lower() for d in (deep if m > 9 else deep[::-1]))
    launches = device.loader.launches  # type: ignore[attr-defined]
    assert launches[0] == f"product_mma<{shape.name}, {names}>"
    assert launches[1:] == ["add_parts<float>"] or tile == "LARGE"


@pytest.mark.parametrize("turned", [False, True])
def test_what_lies_behind_a_row_is_not_read(turned: bool) -> None:
    """Rows of 30 numbers, 40 apart, with NaN between them."""
    rng = np.random.default_rng(0)
    device = emulated_device()
    a, b = (on(device, "part", rng.standard_normal((30, 30), dtype=np.float32)) for _ in range(2))
    if turned:
        a, b = ((made.T, numbers.T) for made, numbers in (a, b))
    check(device, a, b)


def test_one_launch_without_copies() -> None:
    """Views are read as they are; a linear layer of many axes is one matrix product."""
    rng = np.random.default_rng(0)
    device = emulated_device()
    x, weight = rng.standard_normal((4, 3, 5, 8)), rng.standard_normal((6, 8))
    made = matmul._launch(x.shape, x.strides, (8, 6), weight.T.strides, 8, "double", 3)
    assert made is not None and int(made.parameters["m"]) == 60
    check(device, on(device, "whole", x), (device.upload(weight).T, weight.T))
    assert device.loader.launches == ["product_plain<double>"]  # type: ignore[attr-defined]


def test_stacks_of_many_axes() -> None:
    """Five leading axes, broadcast by turns, are more than the kernels know."""
    rng = np.random.default_rng(0)
    device = emulated_device()
    a = on(device, "whole", rng.standard_normal((2, 1, 2, 1, 2, 3, 4)))
    b = on(device, "whole", rng.standard_normal((1, 2, 1, 2, 1, 4, 5)))
    check(device, a, b)


def test_long_sums_stay_accurate() -> None:
    """Numbers of one sign, 20000 of them."""
    rng = np.random.default_rng(0)
    device = emulated_device()
    a = on(device, "whole", rng.random((3, 20000), dtype=np.float32))
    b = on(device, "whole", rng.random((20000, 18), dtype=np.float32))
    check(device, a, b, within=2e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(20, 6, 21), (3, 6, 2)])
def test_not_finite(dtype: str, value: float, shape: tuple[int, int, int]) -> None:
    """A NaN or an infinity reaches its row, and no others; infinity times zero is NaN."""
    m, k, n = shape
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    x[1, 2], y[2, 1] = value, 0
    device = emulated_device()
    found = matmul.matmul(device, device.upload(x), device.upload(y)).get()
    with np.errstate(invalid="ignore"):
        expected = x.astype(np.float64) @ y
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_nan_with_all_bits_set() -> None:
    """GPUs make NaNs with every bit of the mantissa set: rounding must not turn them into zeros."""
    x = np.ones((20, 4), np.float32)
    x.view(np.uint32)[3, 2] = 0x7FFFFFFF
    for precision in WITHIN:
        token = PRECISION.set(precision)
        device = emulated_device()
        found = matmul.matmul(device, device.upload(x), device.upload(x).T).get()
        PRECISION.reset(token)
        expected = np.zeros((20, 20), bool)
        expected[3] = expected[:, 3] = True
        assert np.array_equal(np.isnan(found), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_bits(dtype: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(dtype) for s in ((2, 20, 200), (2, 200, 30)))
    results = []
    with few_processors():
        for order in ORDERS:
            device = emulated_device(order, seed=order)
            results.append(check(device, on(device, "whole", a), on(device, "turned", b)))
            assert len(device.loader.launches) == 2  # type: ignore[attr-defined]
    assert all(r.tobytes() == results[0].tobytes() for r in results)
