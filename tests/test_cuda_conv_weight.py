"""The weight gradient on the emulated GPU: values, every kernel and tile, extremes, equal bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from emulator.loader import ORDERS, emulated_device
from hypothesis import assume, example, given
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cuda import conv_weight, gemm
from minigan_kernels.cuda.device import Device
from minigan_kernels.precision import PRECISION
from minigan_kernels.reference.conv import conv_length
from opspec import Array
from strategies import Draw

pytestmark = pytest.mark.usefixtures("accurate")

ACCURATE = {"float32": 2e-6, "float64": 1e-12}  # norm of the error over norm of the result
WITHIN = {"fp32": 2e-6, "tf32": 1e-3}
MEMORIES = ("last", "first", "gaps", "shifted")


def on(device: Device, memory: str, x: Array) -> Any:
    """A copy on the device, in one of MEMORIES."""
    n, c, *spatial = x.shape
    if memory == "gaps":
        wide = device.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = device.upload(x)
        return wide[..., ::2]
    if memory == "first":
        return device.upload(x)
    ahead = memory == "shifted"  # begins one number after a multiple of 16 bytes
    made = device.empty((x.size + ahead,), x.dtype)[ahead:].reshape(n, *spatial, c)
    made[...] = device.upload(np.moveaxis(x, 1, -1).copy())
    return made.transpose(0, made.ndim - 1, *range(1, made.ndim - 1))


@contextmanager
def few_processors() -> Iterator[None]:
    """Sums are cut as for a GPU of few processors, at any length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, "PROCESSORS", 3)
        patch.setattr(conv_weight, "LEAST", 1)
        conv_weight._launch.cache_clear()
        yield
    conv_weight._launch.cache_clear()


@st.composite
def setups(draw: Draw) -> dict[str, Any]:
    """Arrays and options with all their interplays."""
    nd = draw(st.sampled_from([1, 2, 2, 3]))
    top = {1: 9, 2: 6, 3: 3}[nd]

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(nd))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = st.sampled_from([1, 2, 3, 4, 5, 8, 12])
    inputs, outputs = groups * draw(channels), groups * draw(channels)
    spatial, kernel, padding = per_axis(1, top), per_axis(1, min(top, 4)), per_axis(0, 4)
    stride, dilation = (draw(st.just((1,) * nd) | st.just(per_axis(1, top))) for _ in range(2))
    out = tuple(map(conv_length, spatial, kernel, stride, padding, dilation))
    assume(min(out) >= 1)
    n = draw(st.sampled_from([0, 1, 2, 3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return {
        "x": rng.standard_normal((n, inputs, *spatial)),
        "g": rng.standard_normal((n, outputs, *out)),
        "options": (kernel, stride, padding, dilation, groups),
    }


def check(
    device: Device, x: Array, g: Array, options: Any, memory: str = "last", within: float = 0
) -> Array:
    """The gradient, compared with the definition in float64."""
    dw = conv_weight.weight_grad(device, on(device, memory, x), on(device, memory, g), *options)
    found = dw.get()
    wide = x.astype(np.float64), g.astype(np.float64)
    expected = reference.conv_weight_grad(*wide, *options)
    size = np.linalg.norm(reference.conv_weight_grad(*map(np.abs, wide), *options))
    assert found.dtype == x.dtype and found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= (within or ACCURATE[x.dtype.name]) * size
    assert np.moveaxis(found, 1, -1).flags.c_contiguous
    return found


DRAWN = (setups(), st.sampled_from(MEMORIES), st.sampled_from(ORDERS))


@given(*DRAWN)
def test_exact_in_float64(setup: dict[str, Any], memory: str, order: int) -> None:
    with few_processors():
        check(emulated_device(order), setup["x"], setup["g"], setup["options"], memory)


@given(*DRAWN, st.sampled_from(list(WITHIN)), st.booleans())
def test_float32(
    setup: dict[str, Any], memory: str, order: int, precision: str, few_groups: bool
) -> None:
    """In both precision classes; groups with and without tiles."""
    x, g = setup["x"].astype(np.float32), setup["g"].astype(np.float32)
    with pytest.MonkeyPatch.context() as patch, few_processors():
        patch.setattr(conv_weight, "FEW", 64 if few_groups else 0)
        token = PRECISION.set(precision)
        try:
            check(emulated_device(order), x, g, setup["options"], memory, WITHIN[precision])
        finally:
            PRECISION.reset(token)


NARROW = dict.fromkeys((1, 3), gemm.NARROW)
CASES = {  # x, outputs, kernel, stride, padding, groups, tile (None: without), channels of a copy
    "first layer": ((2, 3, 18, 17), 20, (4, 4), (2, 2), (1, 1), 1, gemm.SMALL, 1),
    "last layer": ((1, 20, 11, 13), 3, (7, 7), (1, 1), (3, 3), 1, gemm.SMALL, 1),
    "to one pixel": ((9, 80, 4, 4), 1, (4, 4), (1, 1), (0, 0), 1, NARROW, 1),
    "to 4 colours": ((2, 150, 9, 9), 4, (1, 1), (1, 1), (0, 0), 1, NARROW, 4),
    "hidden": ((1, 68, 10, 9), 132, (3, 3), (1, 1), (1, 1), 1, gemm.LARGE, 4),
    "groups": ((1, 24, 9, 9), 40, (3, 3), (2, 1), (1, 1), 2, gemm.SMALL, 4),
    "depthwise": ((2, 33, 9, 9), 66, (3, 3), (1, 2), (1, 1), 33, None, 1),
}


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("case", CASES)
def test_kernels_of_layers(case: str, precision: str) -> None:
    """Each kind of layer has its kernel; several tiles, several parts, and tails of all axes."""
    shape, outputs, kernel, stride, padding, groups, tiles, chunk = CASES[case]
    ones = (1,) * len(kernel)
    out = tuple(map(conv_length, shape[2:], kernel, stride, padding, ones))
    rng = np.random.default_rng(len(case))
    x = rng.standard_normal(shape, dtype=np.float32)
    g = rng.standard_normal((shape[0], outputs, *out), dtype=np.float32)
    device = emulated_device(2)
    token = PRECISION.set(precision)
    try:
        with few_processors():
            check(device, x, g, (kernel, stride, padding, ones, groups), within=WITHIN[precision])
    finally:
        PRECISION.reset(token)
    expected = "weight_small_groups<float>"
    if tiles is not None:
        expected = f"weight_mma<{tiles[1 if precision == 'tf32' else 3].name}, {chunk}>"
    launches = device.loader.launches  # type: ignore[attr-defined]
    assert launches[0] == expected and launches[1:] in ([], ["add_parts<float>"])


def test_long_sums_stay_accurate() -> None:
    """Numbers of one sign, 16384 pixels, divided as on a GPU."""
    rng = np.random.default_rng(0)
    x = rng.random((4, 4, 64, 64), dtype=np.float32)
    g = rng.random((4, 4, 64, 64), dtype=np.float32)
    device = emulated_device()
    options = ((1, 1), (1, 1), (0, 0), (1, 1), 1)
    found = conv_weight.weight_grad(device, on(device, "last", x), on(device, "last", g), *options)
    expected = np.einsum("nohw,nchw->oc", g.astype(np.float64), x)[..., None, None]
    assert np.linalg.norm(found.get() - expected) <= 2e-7 * np.linalg.norm(expected)
    assert device.loader.launches[1:] == ["add_parts<float>"]  # type: ignore[attr-defined]


@given(setups())
def test_adjoint(setup: dict[str, Any]) -> None:
    """<conv(x, w), g> = <w, dw>."""
    x, g, (kernel, *options) = setup["x"], setup["g"], setup["options"]
    device = emulated_device()
    dw = conv_weight.weight_grad(
        device, on(device, "last", x), on(device, "last", g), kernel, *options
    )
    w = np.random.default_rng(0).standard_normal(dw.shape)
    y = reference.conv(x, w, *options)
    size = np.linalg.norm(y) * np.linalg.norm(g) + 1e-300
    assert abs(np.vdot(y, g) - np.vdot(w, dw.get())) <= 1e-12 * size


@example("float32", 8, np.inf, "x")
@given(
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([1, 3, 8]),
    st.sampled_from([np.nan, -np.float32(np.nan), np.inf, -np.inf]),
    st.sampled_from(["x", "g"]),
)
def test_not_finite(dtype: str, channels: int, value: float, where: str) -> None:
    """A NaN or an infinity reaches the numbers that it should, and no others."""
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((1, channels, 7, 7)).astype(dtype)
    g = rng.standard_normal((1, 5, 7, 7)).astype(dtype)
    (x if where == "x" else g)[0, 0, 3, 3] = value
    g[0, 1, 3, 2:5] = 0
    options = ((3, 3), (1, 1), (1, 1), (1, 1), 1)
    device = emulated_device()
    dw = conv_weight.weight_grad(device, on(device, "last", x), on(device, "last", g), *options)
    with np.errstate(invalid="ignore"):
        expected = reference.conv_weight_grad(x.astype(np.float64), g.astype(np.float64), *options)
    np.testing.assert_allclose(dw.get(), expected, rtol=1e-4, atol=1e-4)


def test_nan_with_all_bits_set() -> None:
    """GPUs make NaNs with every bit of the mantissa set: rounding must not turn them into zeros."""
    x = np.ones((1, 4, 2, 2), np.float32)
    x.view(np.uint32)[0, 1, 0, 0] = 0x7FFFFFFF
    for precision in ("fp32", "tf32"):
        token = PRECISION.set(precision)
        device = emulated_device()
        options = ((1, 1), (1, 1), (0, 0), (1, 1), 1)
        dw = conv_weight.weight_grad(device, on(device, "last", x), on(device, "last", x), *options)
        PRECISION.reset(token)
        expected = np.zeros((4, 4), bool)
        expected[1] = expected[:, 1] = True
        assert np.array_equal(np.isnan(dw.get()[:, :, 0, 0]), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [1, 6])
def test_equal_bits(dtype: str, groups: int) -> None:
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((2, 6, 12, 12)).astype(dtype) for _ in range(2))
    options = ((3, 3), (1, 1), (1, 1), (1, 1), groups)
    with few_processors():
        results = [check(emulated_device(order, seed=order), x, g, options) for order in ORDERS]
    assert all(r.tobytes() == results[0].tobytes() for r in results)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (2, 0, 5, 5)])
def test_empty(dtype: str, shape: tuple[int, ...]) -> None:
    device, options = emulated_device(), ((3, 3), (1, 1), (1, 1), (1, 1), 1)
    x, g = device.upload(np.ones(shape, dtype)), device.upload(np.ones((shape[0], 3, 5, 5), dtype))
    dw = conv_weight.weight_grad(device, x, g, *options).get()
    assert dw.shape == (3, shape[1], 3, 3) and not dw.any()
