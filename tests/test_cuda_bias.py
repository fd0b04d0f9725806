"""Bias with noise and activation, channel sums, and pixel norm on the emulated GPU."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
import pytest
from emulator.loader import emulated_device
from hypothesis import given
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cuda import pixel_norm
from test_cuda_norm import ACCURATE, cut_into, cuts, on, shapes

cuda = importlib.import_module("minigan_kernels.cuda.bias")

ALL = (True, True, True, True)
ORDERS = ["first", "last", "last", "turned", "gaps", "shifted"]
dtypes = st.sampled_from(["float32", "float64"])


def near(a: Any, b: Any, dtype: str, what: str = "", terms: float = 0.0) -> None:
    """Shapes, dtypes, and the norm of the error over that of the result (or of what it sums)."""
    if b is None:
        assert a is None, what
        return
    a = a.get()
    assert a.shape == b.shape and a.dtype == dtype, what
    error = np.linalg.norm(a - b) / max(np.linalg.norm(b), terms, 1e-30)
    assert error < ACCURATE[dtype], f"{what}: {error}"


def rounded(*arrays: Any) -> Any:
    """float64 numbers that float32 holds."""
    return [None if a is None else a.astype(np.float32).astype(np.float64) for a in arrays]


def noises(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Any, Any]:
    """Noise, per sample or shared, and its strength, one number or one per channel."""
    if kind == "none":
        return None, None
    samples, channels = (shape[0] if "own" in kind else 1), (shape[1] if "each" in kind else 1)
    return rng.normal(size=(samples, 1, *shape[2:])), rng.normal(size=(channels,))


@given(
    shape=shapes(),
    order=st.sampled_from(ORDERS),
    activation=st.sampled_from(["linear", "relu", "lrelu", "tanh", "sigmoid"]),
    noise_kind=st.sampled_from(["none", "own", "shared", "own each", "shared each"]),
    gain=st.sampled_from([1.0, 1.5, -0.5]),
    dtype=dtypes,
    has_bias=st.booleans(),
    needs=st.sampled_from([ALL, ALL, (True, False, False, True), (False, True, False, False)]),
    schedule=st.integers(0, 2),
    cut=cuts,
)
def test_bias_act(
    shape: Any,
    order: str,
    activation: str,
    noise_kind: str,
    gain: float,
    dtype: str,
    has_bias: bool,
    needs: Any,
    schedule: int,
    cut: str,
) -> None:
    rng, device = np.random.default_rng(5), emulated_device(schedule)
    noise, strength = noises(noise_kind, shape, rng)
    bias = rng.normal(size=shape[1]) if has_bias else None
    x, g, bias, noise, strength = rounded(
        rng.normal(size=shape), rng.normal(size=shape), bias, noise, strength
    )
    how = activation, 0.2, gain
    y = reference.bias_act(x, bias, noise, strength, *how)
    near_y = rounded(y)[0] if dtype == "float32" else y
    exact = reference.bias_act_backward(g, near_y, noise, strength, *how, needs)
    flat = [on(device, "first", a, dtype) for a in (bias, noise, strength)]
    with cut_into(cut):
        found = cuda.bias_act(device, on(device, order, x, dtype), *flat, *how)
        arrays = on(device, order, g, dtype), on(device, order, near_y, dtype)
        gradients = cuda.bias_act_backward(device, *arrays, *flat[1:], *how, needs)
    near(found, y, dtype, "y")
    terms = float(np.linalg.norm(g)) * abs(gain)
    for name, a, b in zip(("dx", "dbias", "dnoise", "dstrength"), gradients, exact, strict=True):
        near(a, b, dtype, name, terms)


@given(shape=shapes(), order=st.sampled_from(ORDERS), dtype=dtypes, schedule=st.integers(0, 2))
def test_bias(shape: Any, order: str, dtype: str, schedule: int) -> None:
    rng, device = np.random.default_rng(6), emulated_device(schedule)
    y, bias = rounded(rng.normal(size=shape), rng.normal(size=shape[1]))
    there = on(device, order, y, dtype)
    cuda.add_bias(device, there, on(device, "first", bias, dtype))
    reference.add_bias(y, bias)
    near(there, y, dtype)
    sums = cuda.channel_sum(device, there)
    near(sums, reference.channel_sum(y), dtype, terms=float(np.linalg.norm(y)))


def test_a_large_map() -> None:
    """Several blocks and tiles of channels, RGB too, in many chunks and in one."""
    for shape, cut in itertools.product([(2, 320, 17, 16), (3, 3, 64, 65)], ["usual", "one"]):
        for order in ("first", "last"):
            rng, device = np.random.default_rng(7), emulated_device(1)
            g, y = rounded(rng.normal(size=shape), rng.normal(size=shape))
            options = None, None, "lrelu", 0.2, 1.5, (True, True, False, False)
            with cut_into(cut):
                arrays = on(device, order, g), on(device, order, y)
                found = cuda.bias_act_backward(device, *arrays, *options)
            exact = reference.bias_act_backward(g, y, *options)
            for a, b in zip(found, exact, strict=True):
                near(a, b, "float32")


@pytest.mark.parametrize("activation", ["linear", "relu", "lrelu", "tanh", "sigmoid"])
def test_not_finite(activation: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1.0, -1.0, 0.0]).reshape(1, 2, 3)
    device = emulated_device()
    for order in ("first", "last"):
        how = None, None, None, activation, 0.2, 1.0
        y = cuda.bias_act(device, on(device, order, x), *how).get()
        assert np.allclose(y, reference.bias_act(x, *how), equal_nan=True)


def test_equal_bits() -> None:
    runs = []
    for i in range(3):
        device, rng = emulated_device(i, i), np.random.default_rng(8)
        g, y = (on(device, "last", rng.normal(size=(2, 35, 9, 8))) for _ in range(2))
        made = cuda.bias_act_backward(device, g, y, None, None, "tanh", 0.0, 2.0, (1, 1, 0, 0))
        runs.append([a.get() for a in made[:2]])
    assert all(
        np.array_equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True)
    )


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0)])
def test_empty(shape: tuple[int, ...]) -> None:
    device = emulated_device()
    x, bias = device.empty(shape), on(device, "first", np.ones(3))
    cuda.add_bias(device, x, bias)
    assert not cuda.channel_sum(device, x).get().any()
    noise, one = device.empty((shape[0], 1, shape[2])), on(device, "first", np.ones(1))
    y = cuda.bias_act(device, x, bias, noise, one, "relu", 0.0, 1.0)
    made = cuda.bias_act_backward(device, x, y, noise, one, "relu", 0.0, 1.0, ALL)
    assert [a.shape for a in (y, *made)] == [shape, shape, (3,), noise.shape, (1,)]
    assert not made[1].get().any() and not made[3].get().any()
    assert pixel_norm.pixel_norm(device, x, 1e-8).shape == shape


# Pixel norm ------------------------------------------------------------------------------------


@given(
    shape=shapes(),
    order=st.sampled_from(ORDERS),
    dtype=dtypes,
    eps=st.sampled_from([1e-8, 0.1]),
    schedule=st.integers(0, 2),
)
def test_pixel_norm(shape: Any, order: str, dtype: str, eps: float, schedule: int) -> None:
    rng, device = np.random.default_rng(9), emulated_device(schedule)
    x, g = rounded(rng.normal(size=shape), rng.normal(size=shape))
    narrow, slopes = on(device, order, x, dtype), on(device, order, g, dtype)
    near(pixel_norm.pixel_norm(device, narrow, eps), reference.pixel_norm(x, eps), dtype)
    r = 1 / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)
    exact = reference.pixel_norm_backward(g, x, eps)
    found = pixel_norm.pixel_norm_backward(device, slopes, narrow, eps)
    near(found, exact, dtype, terms=float(np.linalg.norm(r * g)))


@pytest.mark.parametrize("order", ["first", "last"])
def test_pixel_norm_of_many_channels(order: str) -> None:
    rng, device = np.random.default_rng(10), emulated_device(2)
    x, g = rounded(rng.normal(size=(2, 1030, 3, 4)), rng.normal(size=(2, 1030, 3, 4)))
    narrow, slopes = on(device, order, x), on(device, order, g)
    near(pixel_norm.pixel_norm(device, narrow, 1e-8), reference.pixel_norm(x, 1e-8), "float32")
    exact = reference.pixel_norm_backward(g, x, 1e-8)
    near(pixel_norm.pixel_norm_backward(device, slopes, narrow, 1e-8), exact, "float32")
