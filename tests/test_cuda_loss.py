"""Sums of losses and their gradients on the emulated GPU, against their definitions in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator.loader import emulated_device
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cuda import Kernels
from minigan_kernels.cuda import loss as family
from strategies import rngs

DEVICES = [emulated_device(order) for order in (0, 1, 2)]
KINDS = tuple(family.KINDS)


def placed(device: Any, values: Any, how: str) -> Any:
    """The values on the device: in rows, channels last, at an odd address, or with gaps."""
    x = device.upload(values)
    if how == "last":
        room = device.upload(np.ascontiguousarray(np.moveaxis(values, 1, -1)))
        return room.transpose(0, 3, 1, 2)
    if how == "odd":
        room = device.upload(np.zeros(values.size + 1, values.dtype))[1:].reshape(values.shape)
    elif how == "gaps":
        room = device.upload(np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype))
        room = room[..., ::2]
    else:
        return x
    room[...] = x
    return room


def relative(found: Any, expected: Any) -> float:
    size = np.linalg.norm(expected)
    return float(np.linalg.norm(found - expected) / (size or 1))


@settings(max_examples=60)
@given(data=st.data(), rng=rngs())
def test_sum_and_gradient_are_those_of_the_reference(data: Any, rng: Any) -> None:
    device = data.draw(st.sampled_from(DEVICES))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]), "dtype")
    side = st.integers(1, 9)
    shape = data.draw(st.tuples(st.integers(0, 3), side, side, side), "shape")
    kind, sign = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from([1.0, -1.0]))
    how = st.sampled_from(["rows", "last", "odd", "gaps"])
    x = (3 * rng.normal(size=shape)).astype(dtype)
    target: Any = data.draw(st.sampled_from([None, 0.75, "array"]), "target")
    on_device = target
    if target == "array":
        target = rng.random(shape).astype(dtype)
        on_device = placed(device, target, data.draw(how, "target lies"))
        target = target.astype(float)
    x_there = placed(device, x, data.draw(how, "x lies"))
    kernels = Kernels(device)
    tolerance = 1e-13 if dtype == np.float64 else 2e-6
    total = kernels.loss_sum(x_there, on_device, kind, sign)
    assert total.shape == () and total.dtype == np.float64
    assert (
        relative(total.get(), reference.loss_sum(x.astype(float), target, kind, sign)) < tolerance
    )
    dx = kernels.loss_gradient(x_there, on_device, kind, sign, 0.3)
    assert dx.dtype == dtype and dx.shape == shape
    expected = reference.loss_gradient(x.astype(float), target, kind, sign, 0.3)
    assert relative(dx.get(), expected) < tolerance
    weight = device.upload(np.full((), 0.3, dtype))
    same = kernels.loss_gradient(x_there, on_device, kind, sign, weight)
    assert relative(same.get(), expected) < tolerance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [16384, 16385, 70001])
def test_large_sums_have_two_levels_and_repeat_to_the_last_bit(
    size: int, dtype: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "MOST_BLOCKS", 3)  # so that threads go around more than once
    x, y = (rng.normal(size=size).astype(dtype) for _ in range(2))
    found = [
        Kernels(d).loss_sum(d.upload(x), d.upload(y), "mse", 1.0).get().tobytes() for d in DEVICES
    ]
    assert len(set(found)) == 1
    expected = reference.loss_sum(x.astype(float), y.astype(float), "mse", 1.0)
    assert relative(np.frombuffer(found[0])[0], expected) < 1e-7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, 0.0, 1.0])
def test_extreme_values_are_those_of_the_reference(kind: str, value: float) -> None:
    device = DEVICES[1]
    for sign in (1.0, -1.0):
        x = np.array([0.5, value, -0.5, 2.0, 1.0])
        there = device.upload(x)
        with np.errstate(all="ignore"):
            total = reference.loss_sum(x, 0.25, kind, sign)
            slopes = reference.loss_gradient(x, 0.25, kind, sign, 0.5)
        found = Kernels(device).loss_sum(there, 0.25, kind, sign).get()
        np.testing.assert_allclose(found, total, rtol=1e-12)
        found = Kernels(device).loss_gradient(there, 0.25, kind, sign, 0.5).get()
        np.testing.assert_allclose(found, slopes, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 1023, 1025])
def test_what_lies_behind_a_gradient_is_left_alone(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = emulated_device()
    whole = device.upload(np.full(size + 8, 7, np.float32))
    x = device.upload(np.ones(size, np.float32))
    monkeypatch.setattr(device, "empty", lambda *_: whole[:size])
    dx = Kernels(device).loss_gradient(x, 0.0, "mse", 1.0, 1.0)
    assert (dx.get() == 2).all() and (whole.get()[size:] == 7).all()


def test_small_sums_take_one_launch() -> None:
    device: Any = emulated_device()
    x = device.upload(np.ones((4, 1), np.float32))
    assert float(Kernels(device).loss_sum(x, None, "softplus", -1.0)) == pytest.approx(
        4 * np.log1p(np.e)
    )
    assert device.loader.launches == ["loss_sum<float, Softplus>"]
