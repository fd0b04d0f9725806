"""Concatenation on the GPU: any number of parts, order in memory, alignment and dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator.layouts import LAYOUTS, laid_out
from emulator.loader import ORDERS, emulated_device
from hypothesis import given
from hypothesis import strategies as st
from minigan_kernels.cuda import copies
from minigan_kernels.cuda.copies import UNITS
from minigan_kernels.cuda.places import pieces

DEVICES = [emulated_device(order) for order in ORDERS]
device = DEVICES[0]


def check(device: Any, xs: list[Any], layouts: list[str], axis: int) -> Any:
    given = [laid_out(device, x, layout) for x, layout in zip(xs, layouts, strict=True)]
    y = copies.concat(device, given, axis)
    expected = np.concatenate(xs, axis)
    assert y.dtype == expected.dtype and y.shape == expected.shape
    assert np.array_equal(y.get(), expected, equal_nan=True)
    return y


@given(data=st.data())
def test_it_is_numpys(data: st.DataObject) -> None:
    ndim = data.draw(st.integers(1, 5))
    axis = data.draw(st.integers(0, ndim - 1))
    sides = st.integers(0, 5)
    shape = data.draw(st.tuples(*[sides] * ndim))
    lengths = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 8]), min_size=1, max_size=19))
    dtype = data.draw(st.sampled_from(["float32", "float64", "int64", "int32", "int16", "bool"]))
    layouts = [data.draw(st.sampled_from(LAYOUTS)) for _ in lengths]
    rng = np.random.default_rng(len(lengths))
    xs = [
        rng.integers(0, 100, (*shape[:axis], n, *shape[axis + 1 :])).astype(dtype) for n in lengths
    ]
    check(data.draw(st.sampled_from(DEVICES)), xs, layouts, axis)


def maps(*channels: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, c, 5, 3), np.float32) for c in channels]


@pytest.mark.parametrize(
    ("channels", "layout", "unit"),
    [
        ((4, 8), "channels-last", 16),
        ((2, 4), "channels-last", 8),
        ((3, 1), "channels-last", 4),
        ((4, 4), "unaligned", 4),
        ((4, 3), "channels-first", 4),  # 15 numbers per channel
    ],
)
def test_the_widest_unit_is_used_and_one_launch(
    channels: tuple[int, ...], layout: str, unit: int
) -> None:
    if hasattr(device.loader, "launches"):
        device.loader.launches.clear()
    check(device, maps(*channels), [layout] * len(channels), 1)
    if hasattr(device.loader, "launches"):
        assert device.loader.launches == [f"concat<{UNITS[unit]}>"]


def test_few_launches_for_many_parts() -> None:
    if hasattr(device.loader, "launches"):
        device.loader.launches.clear()
    check(device, maps(*range(1, 18)), ["channels-last"] * 17, 1)
    if hasattr(device.loader, "launches"):
        assert len(device.loader.launches) == 3


def test_the_result_lies_as_its_largest_part() -> None:
    few, many = maps(1, 12)
    y = check(device, [few, many], ["channels-first", "channels-last"], 1)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    assert check(device, [few, many], ["channels-last", "channels-first"], 1).flags.c_contiguous


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_in_pieces(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays with more numbers than 32 bits count are copied some rows at a time."""
    few = lambda length, size: pieces(length, size, 3 * size)  # noqa: E731
    monkeypatch.setattr(copies, "pieces", few)
    check(device, maps(3, 5, 2), [layout] * 3, 1)


def test_nan_keeps_its_bits() -> None:
    x = np.array([0x7FC12345, 0xFFC00001], np.uint32).view(np.float32)
    y = copies.concat(device, [device.upload(x), device.upload(x)], 0).get()
    assert np.array_equal(y.view(np.uint32), np.tile(x.view(np.uint32), 2))
