"""Convolutions with few channels on one side: values, bits, bounds, infinities."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from fences import THREADS, last_thread_first_task_last, python
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cpu import machine, parallel, thin, thin_result
from minigan_kernels.reference.conv import conv_length, conv_transpose_length
from opspec import Array
from strategies import Draw

products = importlib.import_module("minigan_kernels.cpu.matmul")  # cpu.matmul is the kernel

ACCURATE = 2e-6  # norm of the error over norm of the result
Pair = tuple[int, int]
Make = Callable[[tuple[int, ...]], Array]


class Layer(NamedTuple):
    """A convolution: shapes and options."""

    n: int
    size: Pair
    channels: int
    outputs: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    @property
    def out(self) -> Pair:
        lengths = map(conv_length, self.size, self.kernel, self.stride, self.padding, (1, 1))
        return tuple(lengths)  # type: ignore[return-value]

    @property
    def options(self) -> tuple[Pair, Pair, Pair]:
        return self.stride, self.padding, (1, 1)

    def arrays(self, make: Make = np.empty, seed: int = 0) -> tuple[Array, Array, Array]:
        """x, weight and g, channels last."""
        rng = np.random.default_rng(seed)
        shapes = (
            (self.n, *self.size, self.channels),
            (self.outputs, *self.kernel, self.channels),
            (self.n, *self.out, self.outputs),
        )
        made = [make(shape) for shape in shapes]
        for array in made:
            array[...] = rng.standard_normal(array.shape)
        return made[0].astype(np.float32, copy=False), *made[1:]  # type: ignore[return-value]


@st.composite
def layers(draw: Draw) -> Layer:
    """Few channels on either side; any kernel, padding and size; any stride on the thin input."""

    def pair(low: int, high: int) -> Pair:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    few = draw(st.integers(1, 4))
    many = draw(st.one_of(st.integers(1, 40), st.sampled_from([16, 31, 32, 33, 64, 65])))
    first = draw(st.booleans())
    while True:
        layer = Layer(
            draw(st.integers(1, 3)),
            pair(1, draw(st.sampled_from([4, 9, 20]))),
            *((few, many) if first else (many, few)),
            pair(1, 5),
            pair(1, 3) if first or many <= 4 else (1, 1),
            pair(0, 4),
        )
        if min(layer.out) >= 1:
            return layer


def float32(shape: tuple[int, ...]) -> Array:
    return np.full(shape, np.nan, np.float32)


def guarded(shape: tuple[int, ...]) -> Array:
    """An array of NaN in the midst of a larger one, full of sevens."""
    size = int(np.prod(shape))
    memory = np.full(size + 128, 7, np.float32)
    inner = memory[64 : 64 + size].reshape(shape)
    inner[...] = np.nan
    return inner


def all_three(layer: Layer, x: Array, weight: Array, g: Array, make: Make) -> list[Array]:
    """y, the input gradient and the weight gradient."""
    y, dx, dw = make(g.shape), make(x.shape), make(weight.shape)
    thin.forward(x, weight, y, *layer.options)
    thin.transpose(g, weight, dx, *layer.options)
    thin.weight_grad(x, g, dw, *layer.options)
    return [y, dx, dw]


def expected(layer: Layer, *arrays: Array) -> list[Array]:
    """The same by definition, in float64."""
    x, weight, g = (a.transpose(0, 3, 1, 2).astype(float) for a in arrays)
    s, p, d = layer.options
    lengths = zip(layer.size, layer.out, layer.kernel, s, p, strict=True)
    extra = tuple(n - conv_transpose_length(m, *rest, 0, 1) for n, m, *rest in lengths)
    results = (
        reference.conv(x, weight, s, p, d, 1),
        reference.conv_transpose(g, weight, s, p, extra, d, 1),
        reference.conv_weight_grad(x, g, layer.kernel, s, p, d, 1),
    )
    return [r.transpose(0, 2, 3, 1) for r in results]


def check(layer: Layer, make: Make = float32) -> None:
    assert thin.takes(layer.channels, layer.outputs, layer.kernel, layer.stride, (1, 1))
    arrays = layer.arrays(make)
    found = all_three(layer, *arrays, make)
    names = "forward", "transpose", "weight_grad"
    for name, result, exact in zip(names, found, expected(layer, *arrays), strict=True):
        error, size = np.linalg.norm(result - exact), np.linalg.norm(exact)
        assert error <= ACCURATE * size, (name, error, size, layer)


@contextmanager
def tuned(**constants: int) -> Iterator[None]:
    """Other limits of the tasks. Plans are kept, so they are thrown away before and after."""
    plans: tuple[Any, ...] = thin._cells, thin_result._ring_cells
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(thin if hasattr(thin, name) else thin_result, name, value)
        for plan in plans:
            plan.cache_clear()
        yield
    for plan in plans:
        plan.cache_clear()


tunings = st.fixed_dictionaries(
    {
        "TASKS": st.sampled_from([1, 3, 32]),
        "LEAST": st.sampled_from([1, 1 << 18]),
        "STRIPS": st.sampled_from([1, 4]),
        "BLOCK": st.sampled_from([1, 20, 128]),
    }
)


@given(layer=layers(), tuning=tunings)
@settings(max_examples=120)
def test_equals_the_definition(layer: Layer, tuning: dict[str, int]) -> None:
    with tuned(**tuning):
        check(layer)


LAYERS = [
    Layer(2, (28, 28), 1, 64, (4, 4), (2, 2), (1, 1)),
    Layer(1, (16, 16), 3, 128, (4, 4), (2, 2), (1, 1)),
    Layer(1, (30, 30), 3, 64, (7, 7)),
    Layer(1, (30, 30), 64, 3, (7, 7)),
    Layer(1, (17, 23), 100, 1, (4, 4), (1, 1), (1, 1)),
    Layer(3, (5, 64), 4, 33, (3, 5), (3, 1), (2, 7)),
    Layer(1, (2, 2), 2, 18, (5, 5), (2, 3), (4, 4)),
    Layer(2, (33, 9), 17, 4, (2, 1), (1, 1), (3, 2)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_nothing_is_written_beside_the_results(layer: Layer) -> None:
    for result in all_three(layer, *layer.arrays(float32), guarded):
        memory = result.base
        while memory.base is not None:
            memory = memory.base
        assert (memory[:64] == 7).all() and (memory[-64:] == 7).all()
        assert np.isfinite(result).all()


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_same_bits_for_any_number_of_threads_and_order_of_tasks(
    layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = layer.arrays(float32)
    with tuned(LEAST=1):  # many tasks
        results = [all_three(layer, *arrays, float32) for _ in range(3)]
        for count in (1, THREADS):
            for module in (thin, thin_result, parallel):
                monkeypatch.setattr(module, "threads", lambda count=count: count)
            if count == THREADS:
                for module in (thin, thin_result, products):
                    monkeypatch.setattr(module, "run", last_thread_first_task_last)
            results.append(all_three(layer, *arrays, float32))
    for others in results[1:]:
        for a, b in zip(results[0], others, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["x", "weight", "g"])
def test_what_is_not_finite_stays_so(which: int, value: float) -> None:
    """Zeros of the padding may spread it further than the definition does, never less far."""
    for layer in (LAYERS[5], LAYERS[7]):
        arrays = layer.arrays(float32)
        ones = [np.ones_like(array) for array in arrays]
        ones[which][...] = 0
        for place in np.random.default_rng(which).integers(0, arrays[which].size, 3):
            arrays[which].reshape(-1)[place] = value
            ones[which].reshape(-1)[place] = 1
        results = zip(all_three(layer, *arrays, float32), expected(layer, *ones), strict=True)
        for i, (found, reached) in enumerate(results):
            if which != (i + 2) % 3:  # y does not depend on g, dx not on x, dw not on the weight
                assert not np.isfinite(found[reached > 0]).any()


def test_no_images() -> None:
    for layer in (LAYERS[0], LAYERS[3]):
        arrays = layer._replace(n=0).arrays(float32)
        y, dx, dw = all_three(layer._replace(n=0), *arrays, float32)
        assert y.size == dx.size == 0 and (dw == 0).all()


def test_what_is_taken() -> None:
    plain = (1, 1)
    assert thin.takes(3, 64, (4, 4), (2, 2), plain) and thin.takes(64, 3, (7, 7), plain, plain)
    assert not thin.takes(64, 3, (4, 4), (2, 2), plain)  # phases: not here
    assert not thin.takes(64, 64, (3, 3), plain, plain)
    assert not thin.takes(3, 64, (3, 3), plain, (2, 2))
    assert thin.takes(3, 64, (1, 1), plain, (2, 2))  # a dilation without effect


PROGRAM = """
from fences import fenced
from test_kernels_thin import LAYERS, check
for layer in LAYERS:
    check(layer, fenced)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("simd", ["", "avx2", "plain"])
def test_every_instruction_set_stays_within_the_arrays(simd: str) -> None:
    if simd and machine.LEVELS.index(simd) > machine.LEVELS.index(machine.simd()):
        pytest.skip(f"this processor has no {simd}")
    run = python(PROGRAM, MINIGAN_SIMD=simd)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_the_fence_is_one() -> None:
    code = "from fences import fenced; a = fenced((3,)); import ctypes; ctypes.memset({}, 0, 1)"
    inside, beyond = (
        python(code.format(f"a.ctypes.data + {offset}")).returncode for offset in (11, 12)
    )
    assert inside == 0 and beyond != 0
