"""Softmax and cross entropy on the emulated GPU, against their definitions in float64."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from emulator.loader import emulated_device
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cuda import Kernels
from minigan_kernels.cuda import softmax as family
from strategies import rngs

DEVICES = [emulated_device(order) for order in (0, 1, 2)]
TOLERANCE = {np.dtype(np.float64): 1e-13, np.dtype(np.float32): 2e-6}


def placed(device: Any, values: Any, order: tuple[int, ...], step: int = 1) -> Any:
    """The values on the device with the axes in that order in memory, and gaps if step is 2."""
    turned = values.transpose(order)
    room = device.upload(np.zeros((*turned.shape[:-1], step * turned.shape[-1]), values.dtype))
    room = room[..., ::step]
    room[...] = device.upload(np.ascontiguousarray(turned))
    return room.transpose(tuple(np.argsort(order)))


def assert_close(found: Any, expected: Any, dtype: Any) -> None:
    assert found.dtype == dtype and found.shape == expected.shape
    error = np.linalg.norm(found.get() - expected)
    assert error <= TOLERANCE[np.dtype(dtype)] * np.linalg.norm(expected) + 1e-300


@settings(max_examples=60)
@given(data=st.data(), rng=rngs())
def test_softmax_and_its_logarithm_are_those_of_the_reference(data: Any, rng: Any) -> None:
    device = data.draw(st.sampled_from(DEVICES))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]), "dtype")
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple), "shape")
    dim = data.draw(st.integers(-len(shape), len(shape) - 1), "dim")
    long = data.draw(st.sampled_from([0, 0, 40, 300, 530]), "longer by")
    shape = tuple(n + long * (i == dim % len(shape)) for i, n in enumerate(shape))
    order = st.sampled_from(list(permutations(range(len(shape)))))
    x, g = (3 * rng.normal(size=shape).astype(dtype) for _ in range(2))
    step = data.draw(st.sampled_from([1, 2]), "step")
    there = placed(device, x, data.draw(order, "x lies"), step)
    g_there = placed(device, g, data.draw(order, "g lies"), data.draw(st.sampled_from([1, 2])))
    for name in ("softmax", "log_softmax"):
        expected = getattr(reference, name)(x.astype(float), dim)
        assert_close(getattr(Kernels(device), name)(there, dim), expected, dtype)
        y = expected.astype(dtype)
        y_there = placed(device, y, data.draw(order, "y lies"), step)
        dx = getattr(Kernels(device), f"{name}_backward")(g_there, y_there, dim)
        definition = getattr(reference, f"{name}_backward")
        expected = definition(g.astype(float), y.astype(float), dim)
        size = np.abs(g).max()  # y (g - sum g y) may cancel wholly
        assert np.abs(dx.get() - expected).max() <= 3 * TOLERANCE[np.dtype(dtype)] * size


@settings(max_examples=60)
@given(data=st.data(), rng=rngs())
def test_cross_entropy_is_that_of_the_reference(data: Any, rng: Any) -> None:
    device = data.draw(st.sampled_from(DEVICES))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]), "dtype")
    spatial = data.draw(st.lists(st.integers(1, 5), max_size=2).map(tuple), "spatial")
    classes = data.draw(st.integers(1, 6) | st.sampled_from([33, 530]), "classes")
    shape = (data.draw(st.integers(1, 4)), classes, *spatial)
    ignored = data.draw(st.sampled_from([-100, 0, 2]), "ignored")
    smoothing = data.draw(st.sampled_from([0.0, 0.1, 1.0]), "smoothing")
    x = (3 * rng.normal(size=shape)).astype(dtype)
    places = (shape[0], *spatial)
    labels = np.where(rng.random(places) < 0.2, ignored, rng.integers(0, classes, places))
    g = rng.normal(size=places).astype(dtype)
    order = st.sampled_from(list(permutations(range(len(shape)))))
    there = placed(device, x, data.draw(order, "x lies"), data.draw(st.sampled_from([1, 2])))
    target = data.draw(st.sampled_from([labels, device.upload(labels.astype(np.int32))]))
    options = ignored, smoothing
    loss = Kernels(device).cross_entropy(there, target, *options)
    expected = reference.cross_entropy(x.astype(float), labels, *options)
    assert_close(loss, expected, dtype) if classes > 1 else None
    dx = Kernels(device).cross_entropy_backward(device.upload(g), there, target, *options)
    expected = reference.cross_entropy_backward(g.astype(float), x.astype(float), labels, *options)
    assert dx.dtype == dtype
    difference = np.linalg.norm(dx.get() - expected)
    assert difference <= TOLERANCE[np.dtype(dtype)] * (np.linalg.norm(expected) + 1e-2)


@pytest.mark.parametrize("inner", [1, 3])
@pytest.mark.parametrize("length", [5, 130, 600])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_is_as_in_the_reference(dtype: Any, length: int, inner: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, length, inner)).astype(dtype)
    x[0], x[1, 3], x[2, 4], x[3, 1] = -np.inf, np.nan, np.inf, -np.inf
    x[4] *= 1e4
    device = DEVICES[2]
    there, g = device.upload(x), device.upload(np.ones_like(x))
    with np.errstate(all="ignore"):
        for name in ("softmax", "log_softmax"):
            expected = getattr(reference, name)(x.astype(float), 1)
            y = getattr(Kernels(device), name)(there, 1)
            np.testing.assert_allclose(y.get(), expected, rtol=1e-5, atol=1e-30)
            dx = getattr(Kernels(device), f"{name}_backward")(g, device.upload(expected), 1).get()
            backward = getattr(reference, f"{name}_backward")
            expected = backward(np.ones_like(expected), expected, 1)
            assert (np.isnan(dx) == np.isnan(expected)).all()


def test_a_label_that_is_no_class_makes_its_row_nan() -> None:
    device = DEVICES[0]
    x, g = device.upload(np.zeros((3, 4))), device.upload(np.ones(3))
    labels = np.array([4, 1, -1])
    loss = Kernels(device).cross_entropy(x, labels, -100, 0.0).get()
    dx = Kernels(device).cross_entropy_backward(g, x, labels, -100, 0.0).get()
    assert np.isnan(loss).tolist() == [True, False, True]
    assert np.isnan(dx).all(axis=1).tolist() == [True, False, True]


def test_empty_arrays() -> None:
    kernels, empty = Kernels(DEVICES[0]), DEVICES[0].upload(np.zeros((0, 3, 2)))
    labels = np.zeros((0, 2), int)
    assert kernels.softmax(empty, 1).shape == kernels.log_softmax(empty, 1).shape == (0, 3, 2)
    assert kernels.softmax_backward(empty, empty, 1).shape == (0, 3, 2)
    assert kernels.cross_entropy(empty, labels, -100, 0.0).shape == (0, 2)
    g = DEVICES[0].upload(np.zeros((0, 2)))
    assert kernels.cross_entropy_backward(g, empty, labels, -100, 0.0).shape == (0, 3, 2)


@pytest.mark.parametrize("shape", [(3, 700), (2, 300, 5)])
def test_repeats_are_equal_to_the_last_bit(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = rng.normal(size=shape).astype(np.float32)
    found = [Kernels(d).softmax(d.upload(x), 1).get().tobytes() for d in DEVICES]
    assert len(set(found)) == 1


def test_rows_are_shared_out_by_their_length_and_place() -> None:
    device = DEVICES[0]

    def teams(shape: tuple[int, ...], dim: int) -> tuple[int, int]:
        plan, _ = family._plan(device.empty(shape), dim)
        return int(plan["kind"]), int(plan["size"])

    assert teams((9, 10), 1) == (family.LANES, 4)
    assert teams((9, 200), 1) == (family.LANES, 32)
    assert teams((9, 600), 1) == (family.BLOCK, 256)
    assert teams((5, 64, 100), 1) == (family.COLUMNS, 8)
    assert teams((5, 3, 100), 1) == (family.COLUMNS, 1)
    assert teams((1, 1000, 20), 1) == (family.COLUMNS, 32)
