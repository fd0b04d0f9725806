"""Resampling on the GPU, on the emulated one, against the definitions."""

from __future__ import annotations

import gc
from itertools import product
from typing import Any

import numpy as np
import pytest
from emulator.layouts import LAYOUTS, laid_out
from emulator.loader import ORDERS, emulated_device
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cuda import Kernels, places, resample, upfirdn
from strategies import rngs

from minigan.ops.resample import Table, interpolation_table

DEVICES = [emulated_device(order) for order in ORDERS]
KERNELS = [Kernels(device) for device in DEVICES]
DTYPES = st.sampled_from([np.float32, np.float64])
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}
some = settings(max_examples=25, deadline=None)


def agree(found: Any, expected: Any) -> None:
    """Same shape and dtype; error by the norms."""
    found = found.get()
    assert found.shape == expected.shape
    error = np.linalg.norm((found - expected).ravel().astype(np.float64))
    assert error <= TOLERANCE[found.dtype.name] * np.linalg.norm(expected.ravel())


def adjoint(x: Any, y: Any, g: Any, dx: Any) -> None:
    """<y, g> = <x, dx> for linear y."""
    scale = np.linalg.norm(x) * np.linalg.norm(dx.get()) + 1
    assert abs(np.vdot(y.get(), g) - np.vdot(x, dx.get())) <= 1e-12 * scale


def table(rng: np.random.Generator, n: int, out: int, taps: int) -> Table:
    index = rng.integers(-1, n, (out, taps))
    return Table(index, np.where(index >= 0, rng.normal(size=index.shape), 0.0), n)


@st.composite
def images(draw: Any) -> tuple[int, ...]:
    channels = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 16]))
    return (draw(st.integers(1, 2)), channels, draw(st.integers(1, 9)), draw(st.integers(1, 9)))


# Tables ----------------------------------------------------------------------------------------


@some
@given(data=st.data(), shape=images(), rng=rngs(), dtype=DTYPES, which=st.sampled_from(ORDERS))
def test_axis_map(data: Any, shape: Any, rng: Any, dtype: Any, which: int) -> None:
    device, kernels = DEVICES[which], KERNELS[which]
    axis, layout = data.draw(st.integers(1, 3)), data.draw(st.sampled_from(LAYOUTS))
    sizes = data.draw(st.integers(1, 11)), data.draw(st.integers(1, 6))
    t = table(rng, shape[axis], *sizes)
    x = rng.normal(size=shape).astype(dtype)
    most = data.draw(st.sampled_from([1, 100, places.MOST]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "pieces", lambda length, size: places.pieces(length, size, most))
        y = kernels.axis_map(laid_out(device, x, layout), axis, t.index, t.weight)
    agree(y, reference.axis_map(x.astype(np.float64), axis, t.index, t.weight))
    if dtype == np.float64:
        g = rng.normal(size=y.shape)
        dx = kernels.axis_map(
            laid_out(device, g, layout), axis, t.transposed.index, t.transposed.weight
        )
        adjoint(x, y, g, dx)


@some
@given(data=st.data(), shape=images(), rng=rngs(), dtype=DTYPES, which=st.sampled_from(ORDERS))
def test_plane_map(data: Any, shape: Any, rng: Any, dtype: Any, which: int) -> None:
    """Tables of chance, whose columns lie far apart, and those of interpolation."""
    device, kernels = DEVICES[which], KERNELS[which]
    layout = data.draw(st.sampled_from(LAYOUTS))
    if data.draw(st.booleans()):
        rows, columns = (table(rng, n, *rng.integers(1, 7, 2)) for n in shape[2:])
    else:
        kind = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
        out = [data.draw(st.integers(1, 40)) for _ in range(2)]
        rows, columns = (
            interpolation_table(n, m, None, kind, False)
            for n, m in zip(shape[2:], out, strict=True)
        )
    x = rng.normal(size=shape).astype(dtype)
    shared, most = data.draw(st.sampled_from([(64, 1), (1000, 60), (resample.SHARED, places.MOST)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "SHARED", shared)
        patch.setattr(resample, "pieces", lambda length, size: places.pieces(length, size, most))
        tables = rows.index, rows.weight, columns.index, columns.weight
        y = kernels.plane_map(laid_out(device, x, layout), *tables)
    agree(y, reference.plane_map(x.astype(np.float64), *tables))
    if dtype == np.float64:
        g, r, c = rng.normal(size=y.shape), rows.transposed, columns.transposed
        back = laid_out(device, g, layout)
        adjoint(x, y, g, kernels.plane_map(back, r.index, r.weight, c.index, c.weight))


@pytest.mark.parametrize("channels", [3, 64, 132])
def test_many_blocks_of_channels_and_columns(channels: int) -> None:
    rng, device = np.random.default_rng(0), DEVICES[2]
    x = rng.normal(size=(1, channels, 3, 40)).astype(np.float32)
    t, same = (
        interpolation_table(40, 79, None, "cubic", False),
        interpolation_table(3, 2, None, "linear", False),
    )
    tables = same.index, same.weight, t.index, t.weight
    for layout in LAYOUTS:
        y = KERNELS[2].plane_map(laid_out(device, x, layout), *tables)
        agree(y, reference.plane_map(x.astype(np.float64), *tables))


def test_labels_are_moved_not_mixed() -> None:
    x = np.arange(6).reshape(1, 1, 2, 3)
    t = interpolation_table(3, 6, None, "nearest", False)
    y = KERNELS[0].axis_map(DEVICES[0].upload(x), 3, t.index, t.weight)
    np.testing.assert_array_equal(y.get(), reference.axis_map(x, 3, t.index, t.weight))
    assert y.dtype == x.dtype


def test_nan_spreads_to_those_that_read_it() -> None:
    x = np.ones((1, 4, 2, 5), np.float32)
    x[0, 1, 0, 2], x[0, 2, 1, 4] = np.nan, np.inf
    t = interpolation_table(5, 9, None, "linear", False)
    r = interpolation_table(2, 3, None, "linear", False)
    tables = r.index, r.weight, t.index, t.weight
    y = KERNELS[0].plane_map(DEVICES[0].upload(x), *tables)
    with np.errstate(invalid="ignore"):
        expected = reference.plane_map(x, *tables)
    np.testing.assert_allclose(y.get(), expected, rtol=1e-6)


def test_tables_are_uploaded_once_and_forgotten_with_their_array() -> None:
    device = emulated_device()
    index = np.array([[0], [1]])
    first = device.constant(index, np.int32)
    assert device.constant(index, np.int32) is first and device.constant(index) is not first
    assert first.dtype == np.int32 and len(device._constants) == 2
    assert device.constant(index.copy(), np.int32) is not first
    del index
    gc.collect()
    assert len(device._constants) == 0


# upfirdn2d -------------------------------------------------------------------------------------


@st.composite
def filters(draw: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Shape of x, of the filter, and options, with results of at least one pixel."""
    shape = draw(images())
    kernel = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    up, down = ((draw(st.integers(1, 3)), draw(st.integers(1, 3))) for _ in range(2))
    padding = []
    for n, k, u in zip(shape[2:], kernel, up, strict=True):
        before = draw(st.integers(-(n * u) // 2, 5))
        least = max(k - n * u - before, -n * u - min(before, 0))
        padding.append((before, draw(st.integers(least, least + 6))))
    return shape, (kernel, up, down, tuple(padding), draw(st.booleans()))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), options=filters(), rng=rngs(), dtype=DTYPES, which=st.sampled_from(ORDERS))
def test_upfirdn2d(data: Any, options: Any, rng: Any, dtype: Any, which: int) -> None:
    """Outer products and other filters, in tiles of all sizes."""
    device, kernels = DEVICES[which], KERNELS[which]
    shape, (kernel, up, down, padding, flip) = options
    layout = data.draw(st.sampled_from(LAYOUTS))
    f = rng.normal(size=kernel)
    if data.draw(st.booleans()):
        f = np.outer(f[:, 0], f[0])
    f = f.astype(data.draw(DTYPES))
    x = rng.normal(size=shape).astype(dtype)
    shared, most = data.draw(st.sampled_from([(8, 1), (1500, 50), (upfirdn.SHARED, places.MOST)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upfirdn, "SHARED", shared)
        patch.setattr(upfirdn, "pieces", lambda length, size: places.pieces(length, size, most))
        upfirdn._tile.cache_clear()
        y = kernels.upfirdn2d(laid_out(device, x, layout), f, up, down, padding, flip)
        upfirdn._tile.cache_clear()
    agree(y, reference.upfirdn2d(x.astype(np.float64), f, up, down, padding, flip))
    if dtype == np.float64:
        g, back = rng.normal(size=y.shape), []
        for i, (k, u, d) in enumerate(zip(kernel, up, down, strict=True)):
            n, m, before = shape[2 + i], y.shape[2 + i], padding[i][0]
            back.append((k - 1 - before, n * u - m * d + before - u + 1))
        dx = kernels.upfirdn2d(laid_out(device, g, layout), f, down, up, tuple(back), not flip)
        adjoint(x, y, g, dx)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_filters_of_stylegan(layout: str) -> None:
    """One launch for an outer product, and one for a filter of another kind."""
    rng, device = np.random.default_rng(0), emulated_device()
    kernels = Kernels(device)
    row = np.array([1, 3, 3, 1], np.float32) / 8
    x = laid_out(device, rng.normal(size=(2, 8, 17, 18)).astype(np.float32), layout)
    for f in (np.outer(row, row), rng.normal(size=(12, 12)).astype(np.float32)):
        for up, down, p in [(2, 1, (2, 1)), (1, 2, (1, 1)), (1, 1, (2, 1)), (2, 4, (10, 9))]:
            options = (up, up), (down, down), (p, p)
            before = len(device.loader.launches)  # type: ignore[attr-defined]
            y = kernels.upfirdn2d(x, f, *options)
            assert len(device.loader.launches) == before + 1  # type: ignore[attr-defined]
            agree(y, reference.upfirdn2d(x.get().astype(np.float64), f, *options))


# grid_sample -----------------------------------------------------------------------------------

PADDING = ("zeros", "border", "reflection")


@settings(max_examples=50, deadline=None)
@given(data=st.data(), rng=rngs(), dtype=DTYPES, which=st.sampled_from(ORDERS))
def test_grid_sample(data: Any, rng: Any, dtype: Any, which: int) -> None:
    axes = data.draw(st.sampled_from([2, 2, 3]))
    n, c = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2, 3, 4, 8, 20, 40]))
    spatial = [data.draw(st.integers(1, 5)) for _ in range(axes)]
    out = [data.draw(st.integers(1, 4)) for _ in range(axes)]
    mode, padding_mode = (data.draw(st.sampled_from(o)) for o in (("bilinear", "nearest"), PADDING))
    options = mode, padding_mode, data.draw(st.booleans())
    layouts = [data.draw(st.sampled_from(LAYOUTS)) for _ in range(3)]
    x, g = rng.normal(size=(n, c, *spatial)), rng.normal(size=(n, c, *out))
    grid = rng.uniform(-1.6, 1.6, (n, *out, axes))
    grid[rng.random(grid.shape) < 0.1] = data.draw(st.sampled_from([0.0, 1.0, -1.0, 9.0]))
    check_grid_sample(which, [a.astype(dtype) for a in (x, grid, g)], layouts, options)


@pytest.mark.parametrize("options", [*product(("bilinear", "nearest"), PADDING, (False, True))])
@pytest.mark.parametrize("axes", [2, 3])
def test_grid_sample_with_every_option(axes: int, options: Any) -> None:
    rng = np.random.default_rng(axes)
    spatial, out = (4, 5, 3)[:axes], (3, 4, 2)[:axes]
    x, g = rng.normal(size=(2, 4, *spatial)), rng.normal(size=(2, 4, *out))
    grid = rng.uniform(-1.9, 1.9, (2, *out, axes))
    check_grid_sample(0, [x, grid, g], ["channels-last"] * 3, options)


def check_grid_sample(which: int, arrays: Any, layouts: list[str], options: Any) -> None:
    device, kernels, (x, grid, g) = DEVICES[which], KERNELS[which], arrays
    there = [laid_out(device, a, to) for a, to in zip(arrays, layouts, strict=True)]
    y = kernels.grid_sample(there[0], there[1], *options)
    dx, dgrid = kernels.grid_sample_backward(there[2], there[0], there[1], *options)
    exact = x.astype(np.float64), grid.astype(np.float64)
    agree(y, reference.grid_sample(*exact, *options))
    expected = reference.grid_sample_backward(g.astype(np.float64), *exact, *options)
    agree(dx, expected[0])
    agree(dgrid, expected[1])
    assert y.dtype == dx.dtype == dgrid.dtype == x.dtype
    if x.dtype == np.float64:
        adjoint(x, y, g, dx)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_many_places_read_one_pixel(axes: int, mode: str) -> None:
    """Their sum is made of sums of blocks, in the same way every time."""
    rng = np.random.default_rng(axes)
    x = rng.normal(size=(2, 8, *[3] * axes)).astype(np.float32)
    grid = rng.uniform(-0.3, 0.3, (2, *[1] * (axes - 1), 700, axes)).astype(np.float32)
    grid[:, ..., ::9, :] += 5
    g = rng.normal(size=(2, 8, *grid.shape[1:-1])).astype(np.float32)
    results = []
    for device, kernels in zip(DEVICES, KERNELS, strict=True):
        arrays = [device.upload(a) for a in (g, x, grid)]
        results.append(kernels.grid_sample_backward(*arrays, mode, "zeros", False))
    exact = [a.astype(np.float64) for a in (g, x, grid)]
    expected = reference.grid_sample_backward(*exact, mode, "zeros", False)
    for found, wanted in zip(results[0], expected, strict=True):
        agree(found, wanted)
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(a.get(), b.get())


def test_places_outside_have_a_key_of_their_own() -> None:
    """15x15 pixels have 256 cells, numbered by one digit; "outside" is number 256."""
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(1, 1, 15, 15)), rng.normal(size=(1, 1, 1, 40))
    grid = np.full((1, 1, 40, 2), -1.0)
    grid[:, :, ::2] = 5
    check_grid_sample(1, [x, grid, g], ["channels-first"] * 3, ("bilinear", "zeros", False))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize("u", [np.nan, np.inf, -np.inf, 1e30])
def test_wild_coordinates(mode: str, padding_mode: str, u: float) -> None:
    rng, device = np.random.default_rng(0), DEVICES[0]
    x, grid = rng.normal(size=(1, 4, 3, 3)), rng.uniform(-1, 1, (1, 2, 3, 2))
    grid[0, 0, 0, 0] = grid[0, 1, 2, 1] = u
    arrays = device.upload(x), device.upload(grid)
    options = mode, padding_mode, False
    y = KERNELS[0].grid_sample(*arrays, *options)
    dx, dgrid = KERNELS[0].grid_sample_backward(y, *arrays, *options)
    if padding_mode == "reflection" and np.isfinite(u):
        return  # the definition folds 1e30 times
    with np.errstate(all="ignore"):
        expected = reference.grid_sample(x, grid, *options)
        gradients = reference.grid_sample_backward(expected, x, grid, *options)
    np.testing.assert_allclose(y.get(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx.get(), gradients[0], rtol=1e-12, atol=1e-12)
    if mode != "nearest":
        np.testing.assert_allclose(dgrid.get(), gradients[1], rtol=1e-11, atol=1e-11)


def test_only_what_is_asked_for_is_computed() -> None:
    device = emulated_device()
    x, grid = device.upload(np.ones((1, 1, 2, 2))), device.upload(np.zeros((1, 1, 1, 2)))
    options = device.upload(np.ones((1, 1, 1, 1))), x, grid, "bilinear", "zeros", False
    backward = Kernels(device).grid_sample_backward
    assert backward(*options, (False, True))[0] is None
    assert all("grid_gradient" in name for name in device.loader.launches)  # type: ignore[attr-defined]
    assert backward(*options, (True, False))[1] is None


@pytest.mark.parametrize("n, c, places", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_nothing_to_resample(n: int, c: int, places: int) -> None:
    """Empty batches, no channels, no places: results are empty, gradients zero."""
    device, kernels = DEVICES[0], KERNELS[0]
    x = device.upload(np.ones((n, c, 4, 4), np.float32))
    t = interpolation_table(4, 8, None, "linear", False)
    assert kernels.axis_map(x, 2, t.index, t.weight).shape == (n, c, 8, 4)
    assert kernels.plane_map(x, t.index, t.weight, t.index, t.weight).shape == (n, c, 8, 8)
    around = (1, 1), (1, 1), ((1, 1), (1, 1))
    assert kernels.upfirdn2d(x, np.eye(3), *around).shape == (n, c, 4, 4)
    grid = device.upload(np.zeros((n, places, 1, 2), np.float32))
    options = grid, "bilinear", "zeros", False
    y = kernels.grid_sample(x, *options)
    assert y.shape == (n, c, places, 1)
    dx, dgrid = kernels.grid_sample_backward(y, x, *options)
    assert dx.shape == x.shape and dgrid.shape == grid.shape
    if not c * places:
        assert not dx.get().any() and not dgrid.get().any()
