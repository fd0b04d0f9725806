"""Sums over axes on the emulated GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator.loader import emulated_device
from hypothesis import given
from hypothesis import strategies as st
from minigan_kernels.cuda import reduce
from test_cuda_norm import ACCURATE, cut_into, cuts, on, shapes


@given(
    shape=shapes(),
    order=st.sampled_from(["first", "last", "turned", "gaps", "shifted"]),
    chosen=st.sets(st.integers(0, 4)),
    dtype=st.sampled_from(["float32", "float64"]),
    schedule=st.integers(0, 2),
    cut=cuts,
)
def test_axis_sum(
    shape: Any, order: str, chosen: set[int], dtype: str, schedule: int, cut: str
) -> None:
    device = emulated_device(schedule)
    axes = tuple(i for i in chosen if i < len(shape))
    x = np.random.default_rng(3).normal(1, 1, shape).astype(np.float32)
    with cut_into(cut):
        y = reduce.axis_sum(device, on(device, order, x, dtype), axes).get()
    exact = np.asarray(x.astype(np.float64).sum(axis=axes))
    assert y.shape == exact.shape and y.dtype == dtype
    assert np.linalg.norm(y - exact) <= ACCURATE[dtype] * np.linalg.norm(exact)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 1), (2,)])
def test_a_million_numbers(axes: tuple[int, ...]) -> None:
    """All of one sign, and of a size where each addition in float32 alone would round."""
    x = np.random.default_rng(4).uniform(0.5, 1, (4, 512, 512)).astype(np.float32)
    device, exact = emulated_device(), x.sum(axes, np.float64)
    for cut in ("usual", "one"):
        with cut_into(cut):
            y = reduce.axis_sum(device, on(device, "first", x), axes).get()
        assert np.linalg.norm(y - exact) < 2e-7 * np.linalg.norm(exact)


def test_empty_sums() -> None:
    device = emulated_device()
    y = reduce.axis_sum(device, device.empty((3, 0, 2)), (1,)).get()
    assert y.shape == (3, 2) and not y.any()
    assert reduce.axis_sum(device, device.empty((3, 0, 2)), (0,)).shape == (0, 2)
