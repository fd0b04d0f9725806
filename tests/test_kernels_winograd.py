"""Winograd convolution: transforms exactly, kernels against their definition, and their limits."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cpu import machine, winograd
from minigan_kernels.cpu import winograd_transforms as transforms
from strategies import Draw

Array = npt.NDArray[Any]

ERROR = 1.5e-6  # norm of the error by norm of the result
GUARD = 64  # numbers before and after every array that must stay as they are
NO_DILATION = (1, 1)

fractions = st.fractions(-3, 3, max_denominator=5)


# Transforms, in exact arithmetic.

EXACT = transforms.Steps(
    scale=lambda c, x: c * x,
    fma=lambda c, x, y: c * x + y,
    add=lambda x, y: x + y,
    sub=lambda x, y: x - y,
)


def product(matrix: transforms.Matrix, x: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize("r, first", [(3, 0), (2, 5)])
@given(data=st.data())
@settings(max_examples=20)
def test_transforms_compute_a_filter_and_its_adjoints(
    r: int, first: int, data: st.DataObject
) -> None:
    def draw(count: int) -> list[Fraction]:
        return data.draw(st.lists(fractions, min_size=count, max_size=count))

    def times(matrix: int, x: list[Fraction]) -> list[Fraction]:
        return product(transforms.MATRICES[first + matrix], x)

    def pointwise(a: list[Fraction], b: list[Fraction]) -> list[Fraction]:
        return [u * v for u, v in zip(a, b, strict=True)]

    f = transforms.TRANSFORMS[r]
    assert f.n == f.m + r - 1
    d, w, g = draw(f.n), draw(r), draw(f.m)
    image, weight, output, gradient, taps = range(5)
    y = times(output, pointwise(times(weight, w), times(image, d)))
    assert y == [sum(d[i + j] * w[j] for j in range(r)) for i in range(f.m)]
    dw = times(taps, pointwise(times(gradient, g), times(image, d)))
    assert dw == [sum(d[i + j] * g[i] for i in range(f.m)) for j in range(r)]


@given(data=st.data())
def test_shared_work_changes_no_product(data: st.DataObject) -> None:
    matrix = data.draw(st.sampled_from(transforms.MATRICES))
    count = len(matrix[0])
    x = data.draw(st.lists(fractions, min_size=count, max_size=count))
    assert transforms.multiply(matrix, x, EXACT) == product(matrix, x)


def test_mirrored_rows_and_columns_are_shared() -> None:
    """Operations of the input transform of F(4,3): 12 in place of 26."""
    used = []

    def counted(*args: Any) -> Fraction:
        used.append(args)
        return Fraction(1)

    steps = transforms.Steps(counted, counted, counted, counted)
    transforms.multiply(transforms.MATRICES[0], [Fraction(1)] * 6, steps)
    assert len(used) == 12


# Kernels.


def guarded(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """An array full of NaN inside a longer one: (array, all)."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * GUARD, np.nan, np.float32)
    memory[:GUARD] = memory[-GUARD:] = 7.0
    return memory[GUARD:-GUARD].reshape(shape), memory


def untouched(memory: Array) -> bool:
    return bool(np.all(memory[:GUARD] == 7.0) and np.all(memory[-GUARD:] == 7.0))


def random(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    array, _ = guarded(shape)  # what is read beyond an array would be seen
    array[...] = rng.standard_normal(shape, dtype=np.float32)
    return array


def positions_last(x: Array) -> Array:
    return np.moveaxis(x, -1, 1).astype(np.float64)


def channels_last(x: Array) -> Array:
    return np.moveaxis(x, 1, -1)


def expected(x: Array, w: Array, g: Array, s: int, p: tuple[int, int]) -> tuple[Array, ...]:
    """Result, input gradient and weight gradient by definition, in float64."""
    a, b, c = map(positions_last, (x, w, g))
    one = ((s, s), p, NO_DILATION)
    full = [(g.shape[1 + i] - 1) * s - 2 * p[i] + w.shape[1 + i] for i in range(2)]
    extra = tuple(x.shape[1 + i] - full[i] for i in range(2))
    y = reference.conv(a, b, *one, 1)
    dx = reference.conv_transpose(c, b, *one[:2], extra, NO_DILATION, 1)
    dw = reference.conv_weight_grad(a, c, w.shape[1:3], *one, 1)
    return tuple(map(channels_last, (y, dx, dw)))


def computed(x: Array, w: Array, g: Array, s: int, p: tuple[int, int]) -> tuple[Array, ...]:
    """The same by Winograd; every array stands between guards."""
    options = ((s, s), p, NO_DILATION)
    y, dx, dw = guarded(g.shape), guarded(x.shape), guarded(w.shape)
    winograd.forward(x, w, y[0], *options)
    winograd.transpose(g, w, dx[0], *options)
    winograd.weight_grad(x, g, dw[0], *options)
    assert all(untouched(memory) for _, memory in (y, dx, dw))
    return y[0], dx[0], dw[0]


def error(result: Array, exact: Array) -> float:
    size = np.linalg.norm(exact)
    return float(np.linalg.norm(result - exact) / size) if size else float(np.abs(result).max())


KERNELS = [
    (3, 3, 1),
    (4, 4, 2),
    (3, 3, 2),
    (2, 2, 1),
    (4, 3, 2),
    (5, 6, 2),
]  # rows, columns, stride


@st.composite
def setups(draw: Draw) -> tuple[Array, Array, Array, int, tuple[int, int]]:
    """Maps from a pixel on, channels that fill no vector, all paddings."""
    high, wide, s = draw(st.sampled_from(KERNELS))
    p = (draw(st.integers(0, high - 1)), draw(st.integers(0, wide - 1)))
    images = draw(st.integers(1, 3))
    inputs, outputs = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    H, W = draw(st.integers(1, 19)), draw(st.integers(1, 19))
    size = ((H + 2 * p[0] - high) // s + 1, (W + 2 * p[1] - wide) // s + 1)
    assume(min(size) >= 1)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x, w = random(rng, (images, H, W, inputs)), random(rng, (outputs, high, wide, inputs))
    return x, w, random(rng, (images, *size, outputs)), s, p


@given(setups())
@settings(max_examples=80)
def test_against_the_definition(setup: Any) -> None:
    for result, exact in zip(computed(*setup), expected(*setup), strict=True):
        assert error(result, exact) < ERROR


@given(setups(), st.sampled_from([1, 3]))
@settings(max_examples=25)
def test_any_blocks(setup: Any, small: int) -> None:
    """Blocks of a few tiles, chunks and groups of sixteen channels, one or two blocks at a time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("BLOCK", small), ("CHUNK", 16), ("GROUP", 16), ("LIFTED", small)):
            patch.setattr(winograd, name, value)
        patch.setattr(winograd, "POINTS", small * 40_000)
        for result, exact in zip(computed(*setup), expected(*setup), strict=True):
            assert error(result, exact) < ERROR


LAYERS = [
    (1, 1024, 6, 6, 40, 3, 1, 1),
    (2, 256, 9, 12, 64, 3, 1, 0),
    (1, 16, 96, 96, 48, 3, 1, 1),
    (1, 512, 8, 8, 32, 4, 2, 1),
    (8, 64, 32, 32, 32, 4, 2, 1),
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("positive", [False, True])
def test_float32_class(layer: tuple[int, ...], positive: bool) -> None:
    """Long sums over channels and pixels, of zero-mean data and of what a ReLU lets through."""
    images, inputs, H, W, outputs, k, s, p = layer
    rng = np.random.default_rng(0)
    x, w = random(rng, (images, H, W, inputs)), random(rng, (outputs, k, k, inputs))
    if positive:
        np.maximum(x, 0, out=x)
    g = random(rng, (images, (H + 2 * p - k) // s + 1, (W + 2 * p - k) // s + 1, outputs))
    setup = (x, w, g, s, (p, p))
    for result, exact in zip(computed(*setup), expected(*setup), strict=True):
        assert error(result, exact) < ERROR


@pytest.mark.parametrize("k, s", [(3, 1), (4, 2)])
def test_nan_reaches_what_it_should_and_stays_in_its_tiles(k: int, s: int) -> None:
    rng = np.random.default_rng(1)
    x, w = random(rng, (2, 20 * s, 20 * s, 20)), random(rng, (18, k, k, 20))
    x[0, 9 * s, 5 * s, 3] = np.nan
    y, _ = guarded((2, 20, 20, 18))
    winograd.forward(x, w, y, (s, s), (1, 1), NO_DILATION)
    exact = channels_last(
        reference.conv(positions_last(x), positions_last(w), (s, s), (1, 1), NO_DILATION, 1)
    )
    assert np.isnan(exact).any() and np.isnan(y[np.isnan(exact)]).all()
    tiles = np.zeros((20, 20), bool)
    tiles[4:12, 4:8] = True
    assert not np.isnan(y[1]).any() and not np.isnan(y[0][~tiles]).any()


def test_output_padding() -> None:
    """An input longer than what the kernel reached: the pixels beyond it have a zero gradient."""
    rng = np.random.default_rng(2)
    w, g = random(rng, (24, 3, 3, 20)), random(rng, (1, 5, 6, 24))
    x = random(rng, (1, 10, 12, 20))
    setup = (x, w, g, 2, (1, 1))
    for result, exact in zip(computed(*setup), expected(*setup), strict=True):
        assert error(result, exact) < ERROR


def test_less_memory_when_there_is_little(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x, w, g = (random(rng, shape) for shape in ((2, 24, 24, 32), (32, 3, 3, 32), (2, 24, 24, 32)))
    setup = (x, w, g, 1, (1, 1))
    monkeypatch.setattr(winograd, "BLOCK", 8)
    plenty = computed(*setup)
    array = winograd.Space.array

    def scarce(self: Any, shape: Any, dtype: Any = np.float32) -> Array:
        if np.prod(shape) > 200_000:
            raise MemoryError
        return array(self, shape, dtype)

    monkeypatch.setattr(winograd.Space, "array", scarce)
    for result, exact in zip(computed(*setup), plenty, strict=True):
        assert error(result, exact) < ERROR


# Which shapes.


def test_kernels_that_fit() -> None:
    def r(kernel: Any, stride: Any, dilation: Any = NO_DILATION) -> int | None:
        found = winograd.transforms(kernel, stride, dilation)
        return found.r if found else None

    assert r((3, 3), (1, 1)) == 3 and r((4, 4), (2, 2)) == 2 and r((3, 3), (2, 2)) == 2
    assert r((3, 3), (1, 2)) is None and r((3, 1), (1, 1)) is None
    assert r((3, 3), (1, 1), (2, 2)) is None and r((4, 4), (1, 1)) is None


def test_suits_where_it_saves() -> None:
    def suits(images: int, size: int, inputs: int, outputs: int, k: int, s: int) -> list[bool]:
        x, y = (images, size * s, size * s, inputs), (images, size, size, outputs)
        shapes = (x, y, (outputs, k, k, inputs), (s, s), NO_DILATION)
        return [winograd.suits(o, *shapes) for o in ("forward", "transpose", "weight_grad")]

    assert all(suits(1, 32, 256, 256, 3, 1)) and all(suits(16, 16, 128, 256, 4, 2))
    assert not any(suits(1, 32, 3, 64, 3, 1)) and not any(suits(1, 1, 64, 64, 3, 1))
    assert not any(suits(1, 32, 256, 256, 1, 1))


# The same bits however many threads, the same numbers on narrower processors.

SCRIPT = """
import hashlib, numpy as np
from minigan_kernels.cpu import machine, winograd
rng = np.random.default_rng(4)
digest, worst = hashlib.sha256(), 0.0
for N, C, H, W, O, k, s in ((2, 40, 22, 17, 50, 3, 1), (3, 33, 14, 20, 17, 4, 2)):
    def draw(*shape): return rng.standard_normal(shape, dtype=np.float32)
    x, w, g = draw(N, H, W, C), draw(O, k, k, C), draw(N, H // s, W // s, O)
    for _ in range(2):
        y, dx, dw = np.empty_like(g), np.empty_like(x), np.empty_like(w)
        winograd.forward(x, w, y, (s, s), (1, 1), (1, 1))
        winograd.transpose(g, w, dx, (s, s), (1, 1), (1, 1))
        winograd.weight_grad(x, g, dw, (s, s), (1, 1), (1, 1))
        bits = b"".join(a.tobytes() for a in (y, dx, dw))
        digest.update(bits)
    pairs = ((y, g), (dx, x), (dw, w))
    inner = [float(np.vdot(a.astype(float), b.astype(float))) for a, b in pairs]
    size = np.linalg.norm(y) * np.linalg.norm(g)
    worst = max(worst, *(abs(inner[0] - i) / size for i in inner[1:]))
    padded = np.pad(x.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(
        padded[:, i : i + s * (H // s) : s, j : j + s * (W // s) : s] @ w[:, i, j].T.astype(float)
        for i in range(k) for j in range(k)
    )
    worst = max(worst, np.linalg.norm(y - exact) / np.linalg.norm(exact))
print(digest.hexdigest(), worst)
"""


def run_script(**variables: str) -> tuple[str, float]:
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    digest, worst = done.stdout.split()
    return digest, float(worst)


def test_bits_do_not_depend_on_threads() -> None:
    assert run_script(MINIGAN_THREADS="1") == run_script(MINIGAN_THREADS="2")


@pytest.mark.parametrize("simd", ["avx2", "plain"])
def test_narrower_processors(simd: str) -> None:
    if machine.LEVELS.index(simd) > machine.LEVELS.index(machine.simd()):
        pytest.skip(f"this processor has no {simd}")
    assert run_script(MINIGAN_SIMD=simd)[1] < ERROR
