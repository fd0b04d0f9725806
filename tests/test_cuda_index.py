"""Gathering, scattering and pooling of the GPU, on the emulated one, against the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from emulator.layouts import LAYOUTS, laid_out
from emulator.loader import ORDERS, emulated_device
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cuda import Kernels, index, places, sort
from strategies import rngs

DEVICES = [emulated_device(order) for order in ORDERS]
KERNELS = [Kernels(device) for device in DEVICES]
DTYPES = st.sampled_from([np.float32, np.float64])
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}
some = settings(max_examples=25, deadline=None)


def agree(found: Any, expected: Any) -> None:
    """Same shape and dtype; error by the norms."""
    found = found.get()
    assert found.shape == expected.shape and found.dtype == expected.dtype
    exact = expected.astype(np.float64)
    error = np.linalg.norm((found - exact).ravel())
    assert error <= TOLERANCE[found.dtype.name] * np.linalg.norm(exact.ravel())


# Rows ------------------------------------------------------------------------------------------


@some
@given(data=st.data(), rng=rngs(), dtype=DTYPES, which=st.sampled_from(ORDERS))
def test_rows(data: Any, rng: Any, dtype: Any, which: int) -> None:
    device, kernels = DEVICES[which], KERNELS[which]
    rows = data.draw(st.integers(1, 7))
    tail = data.draw(st.sampled_from([(), (1,), (3,), (4,), (8,), (2, 3), (4, 2, 2), (3, 0)]))
    shape = data.draw(st.sampled_from([(), (0,), (1,), (9,), (2, 5)]))
    layout = data.draw(st.sampled_from(LAYOUTS))
    i = rng.integers(0, rows, shape).astype(data.draw(st.sampled_from([np.int32, np.int64])))
    x = rng.normal(size=(rows, *tail)).astype(dtype)
    there = i if data.draw(st.booleans()) else device.upload(i)  # labels may lie anywhere
    y = kernels.take_rows(laid_out(device, x, layout), there)
    np.testing.assert_array_equal(y.get(), x[i])
    g = rng.normal(size=(*shape, *tail)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "FEW", data.draw(st.sampled_from([(0, 0), index.FEW])))
        dx = kernels.scatter_rows(laid_out(device, g, layout), there, rows)
    agree(dx, reference.scatter_rows(g.astype(np.float64), i, rows).astype(dtype))


def test_rows_of_other_types() -> None:
    x, i = np.arange(12).reshape(4, 3), np.array([3, 0, 3])
    y = KERNELS[0].take_rows(DEVICES[0].upload(x), i)
    np.testing.assert_array_equal(y.get(), x[i])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("count", [4095, 4096, 4097, 9000])
def test_the_sort_is_numpys(order: int, count: int) -> None:
    """Over the ends of tiles; keys of one, two and three digits, few and many of them equal."""
    rng, device = np.random.default_rng(count), DEVICES[order]
    for most in (0, 3, 300, 70_000):
        keys = rng.integers(0, most, count, np.int32, endpoint=True)
        found, ids = sort.sort(device, device.upload(keys), most)
        expected = np.argsort(keys, kind="stable")
        np.testing.assert_array_equal(ids.get(), expected)
        np.testing.assert_array_equal(found.get(), keys[expected])


def test_the_largest_key_has_a_digit_of_its_own() -> None:
    keys = np.array([256, 255, 0, 256, 1], np.int32)
    _, ids = sort.sort(DEVICES[0], DEVICES[0].upload(keys), 256)
    assert ids.get().tolist() == [2, 4, 1, 0, 3]


@pytest.mark.parametrize("order", ORDERS)
def test_counts_of_many_tiles_are_added_up(order: int) -> None:
    """More tiles than a block has threads."""
    device, tiles = DEVICES[order], 2 * sort.THREADS + 3
    counts = np.random.default_rng(0).integers(0, 9, (3, tiles), np.int32)
    there, totals = device.upload(counts), device.empty((3,), np.int32)
    sort._launch(device, "add_earlier_tiles", 3, there, tiles, totals, shared=sort.THREADS)
    np.testing.assert_array_equal(totals.get(), counts.sum(axis=1))
    np.testing.assert_array_equal(there.get(), counts.cumsum(axis=1) - counts)


@pytest.mark.parametrize("width", [1, 3, 4])
def test_many_contributions_to_few_rows(width: int) -> None:
    """Whole blocks of the sorted list are added up before; the order is the same every time."""
    rng = np.random.default_rng(width)
    i = rng.choice([0, 2, 3, 3, 3, 3], 3000)
    g = rng.normal(size=(3000, width)).astype(np.float32)
    results = [k.scatter_rows(d.upload(g), i, 5) for d, k in zip(DEVICES, KERNELS, strict=True)]
    agree(results[0], reference.scatter_rows(g.astype(np.float64), i, 5).astype(np.float32))
    assert "add_blocks" in "".join(DEVICES[0].loader.launches)  # type: ignore[attr-defined]
    for other in results[1:]:
        np.testing.assert_array_equal(other.get(), results[0].get())


def test_special_values_go_where_they_belong() -> None:
    g = np.array([[np.nan], [1.0], [np.inf], [2.0]], np.float32)
    for few in [(0, 0), index.FEW]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index, "FEW", few)
            y = KERNELS[1].scatter_rows(DEVICES[1].upload(g), np.array([2, 0, 1, 0]), 4)
        np.testing.assert_array_equal(y.get().ravel(), [3, np.inf, np.nan, 0])


# Positions -------------------------------------------------------------------------------------


@some
@given(data=st.data(), rng=rngs(), dtype=DTYPES, which=st.sampled_from(ORDERS))
def test_positions(data: Any, rng: Any, dtype: Any, which: int) -> None:
    device, kernels = DEVICES[which], KERNELS[which]
    n, c = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2, 3, 4, 8]))
    spatial = data.draw(st.sampled_from([(5,), (3, 4), (2, 2, 3), (1, 1)]))
    out = data.draw(st.sampled_from([(7,), (2, 3), (1,)]))
    shared = data.draw(st.booleans())
    layouts = [data.draw(st.sampled_from(LAYOUTS)) for _ in range(2)]
    shape = (n, 1 if shared else c, *out)
    i = rng.integers(0, math.prod(spatial), shape).astype(
        data.draw(st.sampled_from([np.int32, np.int64]))
    )
    x = rng.normal(size=(n, c, *spatial)).astype(dtype)
    g = rng.normal(size=(n, c, *out)).astype(dtype)
    there = i if data.draw(st.booleans()) else laid_out(device, i, layouts[1])
    most = data.draw(st.sampled_from([1, 60, places.MOST]))
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # arrays of more than 2^31 numbers, on a small scale
        patch.setattr(index, "pieces", lambda length, size: places.pieces(length, size, most))
        y = kernels.gather_positions(laid_out(device, x, layouts[0]), there)
        dx = kernels.scatter_positions(laid_out(device, g, layouts[0]), there, spatial)
    np.testing.assert_array_equal(y.get(), reference.gather_positions(x, i))
    expected = reference.scatter_positions(g.astype(np.float64), i, spatial)
    agree(dx, expected.astype(dtype))
    if dtype == np.float64:
        assert abs(np.vdot(y.get(), g) - np.vdot(x, dx.get())) <= 1e-12 * max(
            1, np.linalg.norm(x) * np.linalg.norm(g)
        )


# Pooling ---------------------------------------------------------------------------------------


@st.composite
def pools(draw: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Shape of x and options; every window holds an element."""
    axes = draw(st.integers(1, 3))
    sides, options = [], []
    for _ in range(axes):
        k, s, d = (draw(st.integers(1, 3)) for _ in range(3))
        p = draw(st.integers(0, k // 2))
        ceil = draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), d * (k - 1) + 6))
        sides.append(ceil)
        options.append((k, s, min(p, (d * (k - 1) + 1) // 2), d))
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3, 4, 8])), *sides)
    return shape, (*zip(*options, strict=True), draw(st.booleans()))


@some
@given(pool=pools(), rng=rngs(), dtype=DTYPES, layout=st.sampled_from(LAYOUTS))
def test_max_pool(pool: Any, rng: Any, dtype: Any, layout: str) -> None:
    shape, options = pool
    x = rng.integers(-2, 3, shape).astype(dtype)  # ties
    x[rng.random(shape) < 0.1] = np.nan
    x[rng.random(shape) < 0.1] = -np.inf
    try:
        expected = reference.max_pool(x, *options)
    except ValueError:
        return  # a window without elements
    y, where = KERNELS[2].max_pool(laid_out(DEVICES[2], x, layout), *options)
    np.testing.assert_array_equal(y.get(), expected[0])
    np.testing.assert_array_equal(where.get(), expected[1])
    assert y.dtype == dtype and where.dtype == np.int32


def test_the_gradient_of_max_pool_comes_back() -> None:
    rng, device = np.random.default_rng(0), DEVICES[0]
    x = laid_out(device, rng.normal(size=(2, 8, 6, 6)).astype(np.float32), "channels-last")
    y, where = KERNELS[0].max_pool(x, (3, 3), (2, 2), (1, 1), (1, 1))
    np.testing.assert_array_equal(KERNELS[0].gather_positions(x, where).get(), y.get())
    dx = KERNELS[0].scatter_positions(y, where, (6, 6))
    agree(dx, reference.scatter_positions(y.get(), where.get(), (6, 6)))
    assert dx.strides == x.strides


@pytest.mark.parametrize("n, c, places", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_nothing_to_gather(n: int, c: int, places: int) -> None:
    """Empty batches, no channels, no places: results are empty, sums zero."""
    device, kernels = DEVICES[0], KERNELS[0]
    x = device.upload(np.ones((n, c, 4, 4), np.float32))
    assert [a.shape for a in kernels.max_pool(x, (2, 2), (2, 2), (0, 0), (1, 1))] == [
        (n, c, 2, 2)
    ] * 2
    for channels in {1, c}:
        i = np.zeros((n, channels, places), np.int32)
        y = kernels.gather_positions(x, i)
        assert y.shape == (n, c, places)
        dx = kernels.scatter_positions(y, i, (4, 4)).get()
        assert dx.shape == x.shape and (places or not dx.any())
