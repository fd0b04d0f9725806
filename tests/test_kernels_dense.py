"""Matrix products, and the convolutions that are matrix products: values, bits, bounds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from fences import THREADS, last_thread_first_task_last, python
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels import cpu, reference
from minigan_kernels.cpu import dense, machine, parallel
from opspec import LAYOUTS, Array, laid_out
from strategies import Draw

products = importlib.import_module("minigan_kernels.cpu.matmul")  # cpu.matmul is the kernel

ACCURATE = 2e-6  # norm of the error over norm of the result
Make = Callable[[tuple[int, ...]], Array]


def close(found: Array, exact: Array, what: Any) -> None:
    assert found.shape == exact.shape, what
    assert np.linalg.norm(found - exact) <= ACCURATE * np.linalg.norm(exact), what


@contextmanager
def tuned(**constants: int) -> Iterator[None]:
    """Other limits in matmul.py. Plans are kept, so they are thrown away before and after."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(products, name, value)
        products._plan.cache_clear()
        yield
    products._plan.cache_clear()


tunings = st.fixed_dictionaries(
    {
        "SMALL": st.sampled_from([1, 1, 1, 3 << 19]),
        "DEPTH": st.sampled_from([16, 48, 384]),
        "MOST_ROWS": st.sampled_from([28, 280]),
        "MOST_PACKED": st.sampled_from([0, 32 << 20]),
        "TASKS": st.sampled_from([1, 16, 100]),
        "LEAST": st.sampled_from([1, 1 << 19]),
        "NARROW": st.sampled_from([0, 4]),
    }
)


@st.composite
def factors(draw: Draw) -> tuple[Array, Array]:
    """Matrices or stacks of them, in any memory layout."""
    side = st.one_of(st.integers(1, 40), st.sampled_from([16, 32, 64, 70, 150]))
    m, n = draw(side), draw(side)
    k = draw(st.one_of(side, st.integers(1, 300)))
    stack = draw(st.sampled_from([(), (), (2,), (2, 3), (1, 2)]))
    left, right = draw(st.sampled_from([(stack, stack), (stack, ()), (stack[:0], stack)]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    made = []
    for shape in ((*left, m, k), (*right, k, n)):
        array = rng.standard_normal(shape, dtype=np.float32)
        layout = draw(st.sampled_from(["swapped", "plain", "plain", *LAYOUTS]))
        if layout == "swapped":
            array = np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)
        elif layout != "plain":
            array = laid_out(array, layout)
        made.append(array)
    return made[0], made[1]


@given(pair=factors(), tuning=tunings)
@settings(max_examples=200)
def test_matmul_equals_its_definition(pair: tuple[Array, Array], tuning: dict[str, int]) -> None:
    a, b = pair
    with tuned(**tuning):
        c = cpu.matmul(a, b)
    close(c, reference.matmul(a.astype(float), b.astype(float)), (a.shape, b.shape, tuning))
    assert c.dtype == np.float32


SHAPES = [
    (1, 1, 1), (14, 1, 32), (15, 300, 33), (100, 700, 45), (300, 257, 530), (5, 5000, 16),
    (70, 3000, 31), (600, 40, 3), (63, 1000, 1),
]  # fmt: skip


def multiplied(m: int, k: int, n: int, make: Make) -> Iterator[tuple[Array, Array, Array]]:
    """a, b and the kernel's product, for both orders of memory of a and b."""
    rng = np.random.default_rng(0)
    for turn_a in (False, True):
        for turn_b in (False, True):
            a, b = make((k, m) if turn_a else (m, k)), make((n, k) if turn_b else (k, n))
            c = make((m, n))
            a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
            a, b = a.T if turn_a else a, b.T if turn_b else b
            products.multiply(a, b, c)
            yield a, b, c


def float32(shape: tuple[int, ...]) -> Array:
    return np.full(shape, np.nan, np.float32)


def check(m: int, k: int, n: int, make: Make = float32) -> None:
    for a, b, c in multiplied(m, k, n, make):
        close(c, a.astype(float) @ b.astype(float), (m, k, n, a.strides, b.strides))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_by_itself(shape: tuple[int, int, int]) -> None:
    check(*shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_written_beside_the_product(shape: tuple[int, int, int]) -> None:
    def guarded(shape: tuple[int, ...]) -> Array:
        memory = np.full(int(np.prod(shape)) + 128, 7, np.float32)
        memories.append(memory)
        return memory[64:-64].reshape(shape)

    memories: list[Array] = []
    for _ in multiplied(*shape, guarded):
        pass
    for memory in memories:
        assert (memory[:64] == 7).all() and (memory[-64:] == 7).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_bits_for_any_number_of_threads_and_order_of_tasks(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [[c.tobytes() for *_, c in multiplied(*shape, float32)] for _ in range(3)]
    for count in (1, THREADS):
        for module in (products, parallel):
            monkeypatch.setattr(module, "threads", lambda count=count: count)
        if count == THREADS:
            monkeypatch.setattr(products, "run", last_thread_first_task_last)
        results.append([c.tobytes() for *_, c in multiplied(*shape, float32)])
    assert all(others == results[0] for others in results)


def test_float64_small_and_empty_products_are_numpys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((200, 100)), rng.standard_normal((100, 300))
    assert np.array_equal(cpu.matmul(a, b), a @ b) and cpu.matmul(a, b).dtype == float
    mixed = a.astype(np.float32)
    assert np.array_equal(cpu.matmul(mixed, b), mixed @ b)
    small = a[:9, :9].astype(np.float32)
    assert np.array_equal(cpu.matmul(small, small), small @ small)
    assert cpu.matmul(small[:0], small).shape == (0, 9)
    assert (cpu.matmul(small[:, :0], small[:0]) == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_it_is(value: float) -> None:
    for shape in SHAPES[2:]:
        for a, b, _ in multiplied(*shape, float32):
            a[-1, -1] = value
            c = np.zeros((len(a), b.shape[1]), np.float32)
            products.multiply(a, b, c)
            assert np.isfinite(c[:-1]).all() and not np.isfinite(c[-1]).any()


# Convolutions ----------------------------------------------------------------------------------


@st.composite
def layers(draw: Draw) -> tuple[Array, Array, Array]:
    """x, weight and g, channels last: kernels of one pixel, or as large as the input."""
    n, channels, outputs = (draw(st.integers(1, most)) for most in (5, 40, 40))
    size = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    whole = draw(st.booleans())
    kernel, out = (size, (1, 1)) if whole else ((1, 1), size)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shapes = (n, *size, channels), (outputs, *kernel, channels), (n, *out, outputs)
    return tuple(rng.standard_normal(s, dtype=np.float32) for s in shapes)  # type: ignore[return-value]


def all_three(x: Array, weight: Array, g: Array) -> list[Array]:
    options = (1, 1), (0, 0), (1, 1)
    y, dx, dw = float32(g.shape), float32(x.shape), float32(weight.shape)
    dense.forward(x, weight, y, *options)
    dense.transpose(g, weight, dx, *options)
    dense.weight_grad(x, g, dw, *options)
    return [y, dx, dw]


@given(layer=layers(), tuning=tunings)
@settings(max_examples=60)
def test_dense_layers_equal_the_definition(
    layer: tuple[Array, Array, Array], tuning: dict[str, int]
) -> None:
    size, kernel = layer[0].shape[1:3], layer[1].shape[1:3]
    assert dense.takes(size, kernel, (1, 1), (0, 0))
    with tuned(**tuning):
        found = all_three(*layer)
    x, weight, g = (a.transpose(0, 3, 1, 2).astype(float) for a in layer)
    one, none = (1, 1), (0, 0)
    exact = (
        reference.conv(x, weight, one, none, one, 1),
        reference.conv_transpose(g, weight, one, none, none, one, 1),
        reference.conv_weight_grad(x, g, kernel, one, none, one, 1),
    )
    for result, by_definition in zip(found, exact, strict=True):
        close(result, by_definition.transpose(0, 2, 3, 1), [a.shape for a in layer])


def test_no_images() -> None:
    layer = float32((0, 4, 4, 3)), np.ones((5, 4, 4, 3), np.float32), float32((0, 1, 1, 5))
    y, dx, dw = all_three(*layer)
    assert y.size == dx.size == 0 and (dw == 0).all()


def test_what_is_taken() -> None:
    one, two, none = (1, 1), (2, 2), (0, 0)
    assert dense.takes((4, 4), (4, 4), two, none)
    assert dense.takes((9, 7), one, one, none)
    assert not dense.takes((9, 7), one, (2, 1), none)
    assert not dense.takes((9, 7), one, one, (0, 1))
    assert not dense.takes((4, 4), (4, 4), one, one)
    assert not dense.takes((4, 4), (3, 4), one, none)


PROGRAM = """
from fences import fenced
from test_kernels_dense import SHAPES, check
for shape in SHAPES:
    check(*shape, fenced)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("simd", ["", "avx2", "plain"])
def test_every_instruction_set_stays_within_the_arrays(simd: str) -> None:
    if simd and machine.LEVELS.index(simd) > machine.LEVELS.index(machine.simd()):
        pytest.skip(f"this processor has no {simd}")
    run = python(PROGRAM, MINIGAN_SIMD=simd)
    assert run.returncode == 0, run.stderr
