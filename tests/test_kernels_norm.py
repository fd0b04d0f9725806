"""The threaded kernels of normalisation in float32: values, bits, bounds, NaN and infinity."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minigan_kernels.cpu import machine, norm_loops, norm_threaded, parallel
from minigan_kernels.cpu.scratch import scratch
from opspec import Array
from strategies import Draw

cpu = importlib.import_module("minigan_kernels.cpu.norm")
reference = importlib.import_module("minigan_kernels.reference.norm")

ACCURATE = 2e-6  # norm of the error over norm of the result
ALL = (True, True, True)
Make = Callable[[tuple[int, ...]], Array]


def plain(shape: tuple[int, ...]) -> Array:
    return np.empty(shape, np.float32)


def in_memory(order: str, x: Array, make: Make = plain) -> Array:
    """A float32 copy whose axes lie in memory as `order` says, in memory that `make` gives."""
    axes = list(range(x.ndim))
    axes = {"first": axes, "last": [0, *axes[2:], 1], "fortran": axes[::-1]}[order]
    memory = make(tuple(x.shape[i] for i in axes))
    memory[...] = x.transpose(axes)
    return memory.transpose([axes.index(i) for i in range(x.ndim)])


@contextmanager
def small_tasks(chunk: int = 40, most: int = 1000) -> Iterator[None]:
    """Small arrays too are cut into several chunks. Plans are kept, so they are thrown away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norm_threaded, "CHUNK", chunk)
        patch.setattr(norm_threaded, "MOST", most)
        norm_threaded._plan.cache_clear()
        yield
    norm_threaded._plan.cache_clear()


@contextmanager
def threads(count: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "threads", lambda: count)
        yield


KINDS = ("batch", "instance", "layer", "spade", "adain", "rows", "class", "none")


def problem(kind: str, shape: tuple[int, ...], seed: int = 0) -> tuple[Any, ...]:
    """x, g, scale, shift (float64 that float32 holds) and axes of one kind of norm."""
    rng = np.random.default_rng(seed)
    spatial = tuple(range(2, len(shape)))
    ones = (1,) * len(spatial)
    axes, affine = {
        "batch": ((0, *spatial), (1, shape[1], *ones)),
        "instance": (spatial, (1, shape[1], *ones)),
        "layer": ((1, *spatial), (1, shape[1], *ones)),
        "spade": (spatial, shape),
        "adain": (spatial, (*shape[:2], *ones)),
        "rows": ((1, *spatial), (1, *shape[1:])),
        "class": ((0, *spatial), (*shape[:2], *ones)),
        "none": (spatial, None),
    }[kind]
    made = [rng.normal(3, 2, shape), rng.normal(size=shape)]
    made += [None, None] if affine is None else [rng.normal(size=affine), rng.normal(size=affine)]
    return *[a if a is None else a.astype(np.float32).astype(np.float64) for a in made], axes


def both(kernels: Any, arrays: tuple[Any, ...], axes: Any, slope: float, base: float) -> list[Any]:
    x, g, scale, shift = arrays
    found = kernels.norm(x, scale, shift, axes, 1e-3, slope, base)
    return [*found, *kernels.norm_backward(g, x, scale, shift, *found[1:], axes, slope, base, ALL)]


def check(
    kind: str,
    shape: tuple[int, ...],
    order: str,
    slope: float,
    base: float,
    make: Make = plain,
    mean: float = 0.0,
) -> None:
    """All results against the definition, by the threaded kernels and nothing else."""
    *arrays, axes = problem(kind, shape)
    arrays[0] = (arrays[0] + mean).astype(np.float32).astype(np.float64)
    exact = both(reference, tuple(arrays), axes, slope, base)
    narrow = tuple(a if a is None else in_memory(order, a, make) for a in arrays)
    found = both(norm_threaded, narrow, axes, slope, base)
    for name, a, b in zip(
        ("y", "mean", "rstd", "dx", "dscale", "dshift"), found, exact, strict=True
    ):
        if b is None:
            assert a is None
            continue
        assert a.shape == b.shape and a.dtype == (
            np.float64 if name in ("mean", "rstd") else np.float32
        )
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert error < ACCURATE, f"{name} of {kind} {shape} {order}: {error}"
    for result in (found[0], found[3]):  # in the memory order of x
        same = zip(shape, result.strides, narrow[0].strides, strict=True)
        assert all(a == b for n, a, b in same if n > 1)


@st.composite
def shapes(draw: Draw) -> tuple[int, ...]:
    """Channels that fill vectors, that do not, and one."""
    channels = draw(st.sampled_from([1, 2, 3, 16, 17, 35, 48]))
    spatial = draw(st.sampled_from([(2, 2), (3, 5), (4, 4), (19,), (2, 3, 2), (9, 7)]))
    return (draw(st.integers(1, 4)), channels, *spatial)


@given(
    kind=st.sampled_from(KINDS),
    shape=shapes(),
    order=st.sampled_from(["first", "last", "last"]),
    bent=st.sampled_from([(1.0, 0.0), (0.2, 1.0), (0.0, 0.0), (-0.5, 1.0)]),
    chunk=st.sampled_from([1, 40, 1 << 15]),
)
def test_values(kind: str, shape: Any, order: str, bent: tuple[float, float], chunk: int) -> None:
    with small_tasks(chunk):
        check(kind, shape, order, *bent)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["first", "last", "fortran"])
def test_arrays_of_many_chunks(kind: str, order: str) -> None:
    """More planes than a task of `prepare`, more rows than a group, several chunks of a plane."""
    if (kind, order) != ("rows", "fortran"):  # left to the loops
        check(kind, (3, 300, 11, 13), order, 0.2, 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["first", "last"])
def test_a_large_mean_costs_no_digits(kind: str, order: str) -> None:
    """x is 1e5 +- 2 here, and its mean in float32 is off by up to 4e-3."""
    check(kind, (3, 20, 11, 13), order, 1.0, 1.0, mean=1e5)


def test_groups_of_channels() -> None:
    """x as group norm sees it: (N,G,C/G,H,W)."""
    for size, order in itertools.product((3, 16, 20), ("first", "last")):
        rng = np.random.default_rng(0)
        x = rng.normal(1, 2, (2, 4 * size, 5, 5))
        x = in_memory(order, x).reshape(2, 4, size, 5, 5)
        affine = rng.normal(size=(2, 1, 4, size, 1, 1)).astype(np.float32)
        g = rng.normal(size=x.shape).astype(np.float32)
        arrays = x, g, *affine
        found = both(norm_threaded, arrays, (2, 3, 4), 0.2, 0.0)
        exact = both(reference, tuple(a.astype(np.float64) for a in arrays), (2, 3, 4), 0.2, 0.0)
        for a, b in zip(found, exact, strict=True):
            assert np.linalg.norm(a - b) < ACCURATE * np.linalg.norm(b)


def test_an_outlier_in_the_first_row_does_not_spoil_the_variance() -> None:
    """The first row of a group is what its differences are taken from."""
    for order in ("first", "last"):
        x = np.random.default_rng(0).normal(1000, 1, (2, 16, 64, 64))
        x[0, :, 0, 0] = -1e5
        x = in_memory(order, x)
        _, mean, rstd = norm_threaded.norm(x, None, None, (0, 2, 3), 1e-5, 1.0, 0.0) or ()
        _, exact_mean, exact = reference.norm(x.astype(np.float64), None, None, (0, 2, 3), 1e-5)
        assert np.abs(rstd / exact - 1).max() < 1e-5 and np.abs(mean / exact_mean - 1).max() < 1e-7


def test_gaps_broadcasts_and_other_orders_of_g() -> None:
    *arrays, axes = problem("batch", (3, 8, 6, 5))
    exact = both(reference, tuple(arrays), axes, 0.2, 0.0)
    x, g, scale, shift = (a.astype(np.float32) for a in arrays)
    wide = np.zeros((3, 9, 12, 5), np.float32)
    wide[:, :8, ::2] = x
    half = np.broadcast_to(x[:, :, :1], x.shape)
    assert np.array_equal(
        cpu.norm(half, None, None, axes, 1e-3)[0], cpu.norm(half.copy(), None, None, axes, 1e-3)[0]
    )
    for strange in (wide[:, :8, ::2], x[::-1].copy()[::-1], x.astype(">f4").astype(np.float32)):
        for upstream in (g, in_memory("last", g), in_memory("fortran", g)):
            found = both(cpu, (strange, upstream, scale, shift), axes, 0.2, 0.0)
            for a, b in zip(found, exact, strict=True):
                assert np.linalg.norm(a - b) < ACCURATE * np.linalg.norm(b)


def test_what_has_no_plan_is_done_by_loops() -> None:
    *arrays, axes = problem("rows", (3, 4, 5, 6))
    narrow = tuple(in_memory("fortran", a) for a in arrays)
    assert norm_threaded.norm(narrow[0], *narrow[2:], axes, 1e-3, 0.2, 1.0) is None
    found = both(cpu, narrow, axes, 0.2, 1.0)
    for a, b in zip(found, both(reference, tuple(arrays), axes, 0.2, 1.0), strict=True):
        assert np.linalg.norm(a - b) < ACCURATE * np.linalg.norm(b)


def test_loops_normalise_a_mean_of_1000_in_float32(
    rng: np.random.Generator = np.random.default_rng(0),  # noqa: B008
) -> None:
    x = rng.normal(1000, 0.5, (8, 3, 9, 9)).astype(np.float32)
    expected, *_ = reference.norm(x.astype(np.float64), None, None, (0, 2, 3), 1e-5)
    y, *_ = norm_loops.norm(x, None, None, (0, 2, 3), 1e-5, 1.0, 0.0)
    assert np.abs(y - expected).max() < 2e-4


# Bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "shape", "chunk", "most"),
    [
        *[(kind, (4, 35, 19, 18), 1, 1000) for kind in KINDS[:-1]],
        ("batch", (1, 7, 999, 999), 40, 3),
    ],
)
def test_the_same_bits_for_any_number_of_threads_and_every_time(
    kind: str, shape: tuple[int, ...], chunk: int, most: int
) -> None:
    """Many short tasks, and three long ones: of two threads one is through with a step early."""
    *arrays, axes = problem(kind, shape)
    narrow = tuple(in_memory("last", a) for a in arrays)
    results = []
    for count in (1, 2, 2, 2):
        with scratch() as space:
            space.block.fill(255)  # NaN: what a step leaves is not found again by the next call
        with small_tasks(chunk, most), threads(count):
            found = both(norm_threaded, narrow, axes, 0.2, 1.0)
        results.append([a.tobytes() for a in found])
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("order", ["first", "last"])
def test_the_activation_is_exactly_that_of_the_result(order: str) -> None:
    """And the gradient sees the signs of that result, also where rounding decides."""
    *arrays, axes = problem("batch", (4, 17, 9, 8))
    x, g, scale, shift = (in_memory(order, a) for a in arrays)
    x += 1000  # z is off by 1e-4 then: signs that were found in another way would differ
    z, *statistics = norm_threaded.norm(x, scale, shift, axes, 1e-3, 1.0, 0.0) or ()
    scale_of_signs = np.where(z <= 0, np.float32(0.2), np.float32(1))
    y, *_ = norm_threaded.norm(x, scale, shift, axes, 1e-3, 0.2, 0.0) or ()
    assert np.array_equal(y, z * scale_of_signs)
    fused = norm_threaded.norm_backward(g, x, scale, shift, *statistics, axes, 0.2, 0.0, ALL)
    alone = norm_threaded.norm_backward(
        g * scale_of_signs, x, scale, shift, *statistics, axes, 1.0, 0.0, ALL
    )
    for a, b in zip(fused or (), alone or (), strict=True):
        assert np.array_equal(a, b)


# NaN and infinity ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["batch", "instance", "layer", "spade"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_nan_and_infinity_spread_as_in_the_definition(kind: str, bad: float, slope: float) -> None:
    """Where one result is not finite, so is the other; only an infinite scale may make more NaN."""
    *arrays, axes = problem(kind, (2, 5, 4, 5))
    z = reference.norm(arrays[0], *arrays[2:], axes, 1e-3)[0].ravel()
    places = [(0, 7), (1, int((z > 0).argmax())), (1, int((z < 0).argmax()))]
    for order, (which, i) in itertools.product(
        ("first", "last"), [*places, (2, 0)] if bad != bad else places
    ):
        *arrays, axes = problem(kind, (2, 5, 4, 5))
        arrays[which].flat[i] = bad
        with np.errstate(all="ignore"):
            exact = both(reference, tuple(arrays), axes, slope, 0.0)
            found = both(norm_threaded, tuple(in_memory(order, a) for a in arrays), axes, slope, 0)
        for k in (0, 3, 4, 5):
            assert np.array_equal(np.isfinite(found[k]), np.isfinite(exact[k])), (order, which, k)


def test_empty_batches() -> None:
    x, scale = np.zeros((0, 3, 4, 4), np.float32), np.ones((1, 3, 1, 1), np.float32)
    found = both(cpu, (x, x, scale, scale), (2, 3), 0.2, 0.0)
    assert found[0].shape == found[3].shape == x.shape
    assert not found[4].any() and found[5].shape == scale.shape


def test_gradients_that_nobody_needs() -> None:
    for kind, order in itertools.product(KINDS[:-1], ("first", "last")):
        *arrays, axes = problem(kind, (3, 17, 6, 5))
        x, g, scale, shift = (in_memory(order, a) for a in arrays)
        statistics = norm_threaded.norm(x, scale, shift, axes, 1e-3, 0.2, 1.0) or ()
        rest = (scale, shift, *statistics[1:], axes, 0.2, 1.0)
        everything = norm_threaded.norm_backward(g, x, *rest, ALL) or ()
        for needs in itertools.product((True, False), repeat=3):
            found = norm_threaded.norm_backward(g, x, *rest, needs) or ()
            for need, a, b in zip(needs, found, everything, strict=True):
                assert np.array_equal(a, b) if need else a is None


# Bounds ----------------------------------------------------------------------------------------

PROGRAM = """
import itertools
import numpy as np
from fences import fenced
from minigan_kernels.cpu import norm_threaded
import test_kernels_norm as t

def like(x):  # results that end at a fence as well
    order = sorted(range(x.ndim), key=lambda i: -x.strides[i])
    return fenced([x.shape[i] for i in order]).transpose([order.index(i) for i in range(x.ndim)])

norm_threaded.like = like
cases = itertools.product(t.KINDS, ((2, 3, 3, 5), (3, 17, 4, 4), (1, 16, 9, 5)), ("first", "last"))
for kind, shape, order in cases:
    for chunk in (40, 1 << 15):
        with t.small_tasks(chunk):
            t.check(kind, shape, order, 0.2, 1.0, fenced)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("simd", ["", "avx2", "plain"])
def test_every_instruction_set_stays_within_the_arrays(simd: str) -> None:
    if simd and machine.LEVELS.index(simd) > machine.LEVELS.index(machine.simd()):
        pytest.skip(f"this processor has no {simd}")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "MINIGAN_SIMD": simd}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
