"""Random numbers of the GPU, on the emulated one: those of NumPy, and those of the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator.loader import ORDERS, emulated_device
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels.cuda import Kernels
from minigan_kernels.reference import random as reference

from minigan.random import generator

DTYPES = [np.float32, np.float64]
WORDS = st.integers(0, 2**64 - 1)
SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)


def on(order: int) -> Any:
    return Kernels(emulated_device(order))


def key_of(drawn: np.random.Generator) -> Any:
    return drawn.bit_generator.state["state"]["key"]


@settings(max_examples=40, deadline=None)
@given(key=st.tuples(WORDS, WORDS), shape=SHAPES, dtype=st.sampled_from(DTYPES))
def test_uniform_numbers_are_those_of_numpy(key: Any, shape: Any, dtype: Any) -> None:
    found = on(0).philox_uniform(key, shape, dtype).get()
    numpys = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    expected = numpys.random(shape, dtype)
    assert found.dtype == dtype and found.shape == shape
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(reference.philox_uniform(key, shape, dtype), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [2047, 2048, 2049])
def test_a_stream_of_minigan_continues_on_the_gpu(dtype: Any, count: int) -> None:
    """At the ends of blocks too."""
    stream = generator(7, "noise", 3)
    found = on(2).philox_uniform(key_of(stream), (count,), dtype).get()
    np.testing.assert_array_equal(found, stream.random(count, dtype))


@settings(max_examples=40, deadline=None)
@given(key=st.tuples(WORDS, WORDS), shape=SHAPES, dtype=st.sampled_from(DTYPES))
def test_normal_numbers_are_those_of_the_definition(key: Any, shape: Any, dtype: Any) -> None:
    found = on(1).philox_normal(key, shape, dtype).get()
    expected = reference.philox_normal(key, shape, dtype)
    assert found.dtype == expected.dtype == dtype and found.shape == expected.shape == shape
    np.testing.assert_array_max_ulp(found, expected, 2, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_numbers_are_normal(dtype: Any) -> None:
    z = reference.philox_normal((1, 2), (200_000,), dtype).astype(np.float64)
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01
    assert abs((z**3).mean()) < 0.03 and abs((z**4).mean() - 3) < 0.06
    assert abs((z[::2] * z[1::2]).mean()) < 0.01 and abs((z[:-1] * z[1:]).mean()) < 0.01
    assert 4 < abs(z).max() < 7
    inside = [(abs(z) < bound).mean() for bound in (0.5, 1, 2, 3)]
    np.testing.assert_allclose(inside, [0.38292, 0.68269, 0.95450, 0.99730], atol=0.004)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_threads_gives_the_same_bits(order: int) -> None:
    for name in ("philox_uniform", "philox_normal"):
        found = getattr(on(order), name)((5, 6), (3, 37)).get()
        np.testing.assert_array_equal(found, getattr(on(0), name)((5, 6), (3, 37)).get())
