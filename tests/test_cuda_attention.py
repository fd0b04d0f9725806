"""Attention on the emulated GPU, against its definition in float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from emulator.loader import emulated_device
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cuda import Kernels
from minigan_kernels.cuda import attention as family
from strategies import rngs

DEVICES = [emulated_device(order) for order in (0, 1, 2)]
TOLERANCE = {np.dtype(np.float64): 1e-13, np.dtype(np.float32): 2e-6}


def placed(device: Any, values: Any, how: str) -> Any:
    """The values on the device: in rows, heads beside each other, turned around, or with gaps."""
    if how == "heads" and values.ndim > 2:
        return device.upload(np.ascontiguousarray(values.swapaxes(-3, -2))).swapaxes(-3, -2)
    if how == "turned":
        return device.upload(np.ascontiguousarray(values.swapaxes(-1, -2))).swapaxes(-1, -2)
    if how == "gaps":
        wide = np.concatenate([values, values], axis=-1)
        return device.upload(wide)[..., values.shape[-1] :]
    return device.upload(values)


def assert_close(found: Any, expected: Any, dtype: Any, size: float = 0.0) -> None:
    """`size`: of the numbers whose difference the result may be."""
    assert found.dtype == dtype and found.shape == expected.shape
    error = np.linalg.norm(found.get() - expected)
    whole = np.linalg.norm(expected) + size * np.sqrt(expected.size)
    assert error <= TOLERANCE[np.dtype(dtype)] * whole


def compare(
    device: Any, arrays: list[Any], bias: Any, options: Any, needs: Any, layouts: list[str]
) -> None:
    """Forward and backward of (g, query, key, value), each lying as its layout says."""
    dtype = arrays[0].dtype
    exact = [a.astype(float) for a in arrays]
    there = [placed(device, a, how) for a, how in zip(arrays, layouts, strict=False)]
    exact_bias = None if bias is None else bias.astype(float)
    bias_there = None if bias is None else placed(device, bias, layouts[4])
    kernels = Kernels(device)
    y = kernels.scaled_dot_product_attention(*there[1:], bias_there, *options)
    expected = reference.scaled_dot_product_attention(*exact[1:], exact_bias, *options)
    assert_close(y, expected, dtype, 0.1)
    found = kernels.scaled_dot_product_attention_backward(*there, bias_there, *options, needs)
    backward = reference.scaled_dot_product_attention_backward
    for a, b in zip(found, backward(*exact, exact_bias, *options, needs), strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            size = arrays[0].shape[-1]  # ds = p (dp - sum p dp) may cancel, and sums of it
            terms = max(1, y.size // size * arrays[2].shape[-2] // b.size)
            assert_close(a, b, dtype, 0.3 * np.sqrt(size * terms))


@pytest.mark.parametrize("sms", [0, 132])  # 0: tiles may be large
@settings(max_examples=30)
@given(data=st.data(), rng=rngs())
def test_attention_is_that_of_the_reference(sms: int, data: Any, rng: Any) -> None:
    device = data.draw(st.sampled_from(DEVICES))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]), "dtype")
    batch = data.draw(st.lists(st.integers(1, 2), max_size=3).map(tuple), "batch")
    length = st.integers(1, 9) | st.sampled_from([64, 70, 130])
    queries, keys = data.draw(length, "queries"), data.draw(length, "keys")
    width = st.integers(1, 9) | st.sampled_from([32, 33, 70])
    depth, columns = data.draw(width, "depth"), data.draw(width, "columns")
    shapes = ((queries, columns), (queries, depth), (keys, depth), (keys, columns))
    arrays = [rng.normal(size=(*batch, *s)).astype(dtype) for s in shapes]
    bias = None
    if data.draw(st.booleans(), "with bias"):
        full = (*batch, queries, keys)
        shape = tuple(1 if data.draw(st.booleans()) else n for n in full)
        shape = shape[data.draw(st.integers(0, len(batch)), "axes that bias lacks") :]
        bias = rng.normal(size=shape).astype(dtype)
        if data.draw(st.booleans(), "hidden keys"):
            bias[rng.random(shape) < 0.5] = -np.inf
    sign = data.draw(st.sampled_from([0.3, -1.0]), "scale")
    options = data.draw(st.booleans(), "causal"), sign / np.sqrt(depth)
    needs = (*[data.draw(st.booleans(), "needs") for _ in range(3)], bias is not None)
    how = st.sampled_from(["rows", "rows", "heads", "turned", "gaps"])
    layouts = [data.draw(how, "layout") for _ in range(5)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "SMS", sms)
        compare(device, arrays, bias, options, needs, layouts)


@pytest.mark.parametrize(
    "batch", [(), (2,), (2, 3), (2, 1, 3), (1, 1, 1), (2, 1, 2, 2)], ids=lambda b: len(b)
)
def test_any_number_of_leading_axes(batch: tuple[int, ...], rng: np.random.Generator) -> None:
    arrays = [rng.normal(size=(*batch, 3, 2)) for _ in range(4)]
    full = (*batch, 3, 3)
    for present in product((False, True), repeat=len(full)):
        shape = tuple(n if there else 1 for n, there in zip(full, present, strict=True))
        while len(shape) > 2 and shape[0] == 1 and rng.random() < 0.3:
            shape = shape[1:]
        bias = rng.normal(size=shape)
        compare(DEVICES[0], arrays, bias, (False, 0.7), (True,) * 4, ["rows"] * 5)


@pytest.mark.parametrize("r, c", [(8, 8), (8, 4), (4, 4)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_every_tile(
    r: int, c: int, is_causal: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "_tile", lambda *_: (r, c))
    shapes = ((2, 150, 131), (2, 150, 36), (2, 140, 36), (2, 140, 131))
    arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
    needs = True, True, True, False
    compare(DEVICES[2], arrays, None, (is_causal, 0.2), needs, ["rows"] * 5)


def test_a_query_that_sees_nothing_gives_zero(rng: np.random.Generator) -> None:
    device, kernels = DEVICES[1], Kernels(DEVICES[1])
    q, k, v = (device.upload(rng.normal(size=(1, 70, 4))) for _ in range(3))
    mask = np.zeros((70, 70))
    mask[3], mask[:, 5], mask[66] = -np.inf, -np.inf, -np.inf
    bias = device.upload(mask)
    y = kernels.scaled_dot_product_attention(q, k, v, bias, False, 1.0).get()
    assert (y[0, [3, 66]] == 0).all() and (y[0, 4] != 0).all()
    needs = True, True, True, True
    found = kernels.scaled_dot_product_attention_backward(q, q, k, v, bias, False, 1.0, needs)
    dq, dk, dv, dbias = (a.get() for a in found)
    assert (dq[0, [3, 66]] == 0).all() and (dk[0, 5] == 0).all() and (dv[0, 5] == 0).all()
    assert (dbias[mask == -np.inf] == 0).all() and np.isfinite(dbias).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e5])
@pytest.mark.parametrize("which", ["query", "key", "value", "bias"])
def test_what_is_not_finite_is_as_in_the_reference(
    which: str, value: float, rng: np.random.Generator
) -> None:
    device, kernels = DEVICES[2], Kernels(DEVICES[2])
    arrays = {name: rng.normal(size=(1, 66, 3)) for name in ("query", "key", "value")}
    arrays["bias"] = rng.normal(size=(66, 66))
    arrays[which][..., 65, 1] = value
    with np.errstate(all="ignore"):
        expected = reference.scaled_dot_product_attention(*arrays.values(), False, 0.5)
    there = [device.upload(a) for a in arrays.values()]
    y = kernels.scaled_dot_product_attention(*there, False, 0.5)
    np.testing.assert_allclose(y.get(), expected, rtol=1e-9)
    g = rng.normal(size=(1, 66, 3))
    needs = True, True, True, True
    backward = reference.scaled_dot_product_attention_backward
    with np.errstate(all="ignore"):
        exact = backward(g, *arrays.values(), False, 0.5, needs)
    found = kernels.scaled_dot_product_attention_backward(
        device.upload(g), *there, False, 0.5, needs
    )
    for a, b in zip(found, exact, strict=True):
        if which == "value" and abs(value) == np.inf:  # inf - inf: NaN in any case, but not where
            assert np.isnan(a.get()).any() == np.isnan(b).any()
        else:
            np.testing.assert_allclose(a.get(), b, rtol=1e-7, atol=1e-9)


def test_empty_arrays() -> None:
    device, kernels = DEVICES[0], Kernels(DEVICES[0])
    needs = True, True, True, False
    for batch, queries in ((0, 3), (2, 0)):
        q, k = (device.upload(np.zeros((batch, n, 2))) for n in (queries, 4))
        assert kernels.scaled_dot_product_attention(q, k, k, None, False, 1.0).shape == q.shape
        found = kernels.scaled_dot_product_attention_backward(q, q, k, k, None, False, 1.0, needs)
        assert [a.shape for a in found[:3]] == [q.shape, k.shape, k.shape]
        assert not found[1].get().any() and not found[2].get().any()


def test_repeats_are_equal_to_the_last_bit(rng: np.random.Generator) -> None:
    arrays = [rng.normal(size=(1, 2, 100, 5)).astype(np.float32) for _ in range(4)]
    bias = rng.normal(size=(100, 100)).astype(np.float32)
    results = []
    for device in DEVICES:
        there = [device.upload(a) for a in (*arrays, bias)]
        y = Kernels(device).scaled_dot_product_attention(*there[1:], True, 0.5)
        more = Kernels(device).scaled_dot_product_attention_backward(
            *there, True, 0.5, (True, True, True, True)
        )
        results.append(b"".join(a.get().tobytes() for a in (y, *more)))
    assert len(set(results)) == 1


def test_results_lie_as_their_operands() -> None:
    """Heads that lie beside each other are not moved, and results lie like the queries."""
    device = emulated_device()
    packed = device.upload(np.zeros((2, 7, 3, 3, 4), np.float32))  # N, L, (q, k, v), heads, E
    q, k, v = (packed[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    for a in (q, k, v):
        assert family._stacks(device, a).data.ptr == a.data.ptr
    q = device.upload(np.zeros((2, 7, 3, 4), np.float32)).transpose(0, 2, 1, 3)
    y = Kernels(device).scaled_dot_product_attention(q, k, v, None, False, 1.0)
    assert y.transpose(0, 2, 1, 3).flags.c_contiguous


def test_large_results_get_large_tiles() -> None:
    assert family._tile("float", 64, 1024, 256) == (8, 8)
    assert family._tile("float", 64, 1024, 64) == (8, 4)
    assert family._tile("float", 1, 1024, 64) == (4, 4)
    assert family._tile("double", 64, 1024, 256) == (4, 4)
