"""The convolutions for AMX against their definitions, and the matrix unit's emulation.

Where the processor has the unit, these tests run on it, and compare it with the emulation;
elsewhere the emulation serves. The machine code for the unit is inspected everywhere.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cpu import machine, parallel, scratch
from minigan_kernels.cpu.parallel import arg, kernel, run
from minigan_kernels.precision import PRECISION
from minigan_kernels.reference.conv import conv_length, conv_transpose_length
from opspec import Array
from strategies import Draw

HAS_AMX = machine.simd() == "amx"
with pytest.MonkeyPatch.context() as patch:
    if not HAS_AMX:
        patch.setenv(machine.EMULATION, "1")
    from minigan_kernels.cpu import amx, amx_weight_grad
    from minigan_kernels.cpu.amx_emulated import CONFIG_BYTES, TILE_BYTES
    from minigan_kernels.cpu.amx_tiles import (
        TILES_BYTES,
        tdpbf16ps,
        tileconfig,
        tileloadd,
        tilerelease,
        tilestored,
        tilezero,
    )

ERRORS = {"fp32": 2e-6, "tf32": 5e-5}  # norm of the error / norm of the result
GUARD = 64  # bytes on both sides of every array that a kernel may write


@contextmanager
def precision(name: str) -> Iterator[None]:
    token = PRECISION.set(name)
    try:
        yield
    finally:
        PRECISION.reset(token)


def guarded(shape: tuple[int, ...], dtype: Any = np.float32) -> tuple[Array, Array]:
    """An array full of NaN, 64-byte aligned, and the whole block of memory around it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block = scratch.aligned((size + 2 * GUARD,), np.uint8)
    block[:] = 255
    return block[GUARD : GUARD + size].view(dtype).reshape(shape), block


def untouched(block: Array) -> bool:
    return bool((block[:GUARD] == 255).all() and (block[-GUARD:] == 255).all())


@contextmanager
def watched_memory() -> Iterator[list[Array]]:
    """Working memory starts as NaN everywhere, and nothing is written beside it."""
    blocks: list[Array] = []

    def array(space: Any, shape: Any, dtype: Any = np.float32) -> Array:
        inside, block = guarded(tuple(shape), dtype)
        blocks.append(block)
        return inside

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch.Space, "array", array)
        yield blocks
    assert blocks and all(map(untouched, blocks))


@contextmanager
def tuned(**limits: int) -> Iterator[None]:
    """Other limits: small ones cut everything into blocks."""
    amx_weight_grad._bands.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            for module in (amx, amx_weight_grad):
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        yield
    amx_weight_grad._bands.cache_clear()


def last(x: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def second(x: Array) -> Array:
    return np.moveaxis(x, -1, 1).astype(float)


def off(actual: Array, expected: Array) -> float:
    """The relative error of a channels-last result."""
    expected = np.moveaxis(expected, 1, -1)
    assert actual.shape == expected.shape
    size = np.linalg.norm(expected)
    return float(np.linalg.norm(actual - expected) / size) if size else float(np.abs(actual).max())


def all_three(x: Array, weight: Array, g: Array, *options: Any) -> tuple[Array, Array, Array]:
    """forward, transpose and weight_grad into guarded arrays."""
    results = []
    for call, a, b, shape in (
        (amx.forward, x, weight, g.shape),
        (amx.transpose, g, weight, x.shape),
        (amx.weight_grad, x, g, weight.shape),
    ):
        result, block = guarded(shape)
        call(a, b, result, *options)
        assert untouched(block)
        results.append(result)
    return tuple(results)  # type: ignore[return-value]


def definitions(x: Array, weight: Array, g: Array, *options: Any) -> tuple[Array, Array, Array]:
    stride, padding, dilation = options
    x, weight, g = second(x), second(weight), second(g)
    kernel = weight.shape[2:]
    lengths = zip(x.shape[2:], g.shape[2:], kernel, stride, padding, strict=True)
    extra = tuple(n - conv_transpose_length(m, k, s, p, 0, 1) for n, m, k, s, p in lengths)
    return (
        reference.conv(x, weight, *options, 1),
        reference.conv_transpose(g, weight, stride, padding, extra, dilation, 1),
        reference.conv_weight_grad(x, g, kernel, *options, 1),
    )


@st.composite
def setups(draw: Draw) -> tuple[Any, ...]:
    """x, weight, g and options: channels that fill blocks of 32 or do not, single pixels, strides
    longer than the kernel, padding wider than the kernel and the image, many images and one."""
    pair = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(2))  # noqa: E731
    channels = st.one_of(st.integers(1, 70), st.sampled_from([15, 16, 17, 31, 32, 33, 64]))
    C, outputs = draw(channels), draw(channels)
    N = draw(st.sampled_from([1, 1, 2, 3, 4, 16, 17]))
    spatial, padding, stride = pair(1, 5 if N > 4 else 9), pair(0, 4), pair(1, 2)
    taps = pair(1, draw(st.sampled_from([2, 4, 7])))
    out = tuple(
        conv_length(n, k, s, p, 1)
        for n, k, s, p in zip(spatial, taps, stride, padding, strict=True)
    )
    assume(min(out) >= 1)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = (N, *spatial, C), (outputs, *taps, C), (N, *out, outputs)
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    return (*arrays, stride, padding, (1, 1))


tunings = st.fixed_dictionaries(
    {
        "SPLIT_BYTES": st.sampled_from([1, 10_000, 24 << 20]),
        "PACKED_BYTES": st.sampled_from([1, 200_000, 16 << 20]),
        "TASK_BYTES": st.sampled_from([1, 10_000, 512 << 10]),
        "STRIPS_BYTES": st.sampled_from([1, 100_000, 32 << 20]),
        "CACHED_BYTES": st.sampled_from([1, 20_000, 900 << 10]),
        "MOST_BANDS": st.sampled_from([1, 8]),
        "TASKS": st.sampled_from([1, 16]),
    }
)


@pytest.mark.parametrize("name", ["fp32", "tf32"])
@given(setup=setups(), tuning=tunings)
@settings(max_examples=100)
def test_the_three_equal_their_definitions(
    name: str, setup: tuple[Any, ...], tuning: dict[str, int]
) -> None:
    with precision(name), tuned(**tuning), watched_memory():
        results = all_three(*setup)
    for what, actual, expected in zip(
        ("forward", "transpose", "weight_grad"), results, definitions(*setup), strict=True
    ):
        assert off(actual, expected) < ERRORS[name], what


def arrays(
    seed: int, N: int, spatial: tuple[int, int], C: int, outputs: int, taps: int, stride: int
) -> tuple[Any, ...]:
    """x, weight, g and options, with padding 1."""
    rng = np.random.default_rng(seed)
    out = tuple(conv_length(n, taps, stride, 1, 1) for n in spatial)
    shapes = (N, *spatial, C), (outputs, taps, taps, C), (N, *out, outputs)
    values = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    return (*values, (stride, stride), (1, 1), (1, 1))


@pytest.mark.parametrize("N", [1, 4, 32])
def test_the_number_of_threads_changes_no_bit(N: int, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = arrays(N, N, (6, 7), 40, 70, 3, 1)
    seen = set()
    for count in (1, 2, 3, 2):
        for module in (parallel, amx, amx_weight_grad):
            monkeypatch.setattr(module, "threads", lambda count=count: count)
        with tuned(TASK_BYTES=20_000):
            seen.add(b"".join(result.tobytes() for result in all_three(*setup)))
    assert len(seen) == 1


def test_little_memory_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = arrays(0, 5, (9, 9), 33, 40, 3, 2)
    whole = all_three(*setup)
    real_aligned = scratch.aligned

    def poor(shape: Any, dtype: Any = np.float32) -> Array:
        if np.prod(shape) * np.dtype(dtype).itemsize > 150_000:
            raise MemoryError
        return real_aligned(shape, dtype)

    monkeypatch.setattr(scratch._here, "space", scratch.Space(), raising=False)
    monkeypatch.setattr(scratch, "aligned", poor)
    pieces = [np.empty_like(a) for a in whole]
    amx.forward(setup[0], setup[1], pieces[0], *setup[3:])
    amx.transpose(setup[2], setup[1], pieces[1], *setup[3:])
    amx.weight_grad(setup[0], setup[2], pieces[2], *setup[3:])
    for actual, expected in zip(pieces, whole, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("limit", [1, 95_000, 100_000])
def test_the_last_images_may_be_fewer(limit: int) -> None:
    """Five images in blocks of three or fewer: the last two fit in the memory of the first three,
    although it would take the fewest steps to cut them into more bands."""
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((5, 4, 3, 32), dtype=np.float32) for _ in range(2))
    weight = rng.standard_normal((32, 7, 7, 32), dtype=np.float32)
    options = (1, 1), (3, 3), (1, 1)
    with tuned(STRIPS_BYTES=limit, SPLIT_BYTES=limit), watched_memory():
        results = all_three(x, weight, g, *options)
    for actual, expected in zip(results, definitions(x, weight, g, *options), strict=True):
        assert off(actual, expected) < ERRORS["fp32"]


@pytest.mark.parametrize("width, limit", [(16, 40_000), (16, 53_000), (6, 37_000)])
def test_bands_of_a_block_end_where_the_next_block_begins(width: int, limit: int) -> None:
    """One image in blocks of 3 or 5 rows, cut into two or three bands; the last is not full."""
    x, weight, g, *options = arrays(8, 1, (9, width), 32, 32, 3, 1)
    with tuned(STRIPS_BYTES=limit), watched_memory():
        _, _, dw = all_three(x, weight, g, *options)
    assert off(dw, definitions(x, weight, g, *options)[2]) < ERRORS["fp32"]


@pytest.mark.parametrize(
    "shape, outputs, taps, stride",
    [((64, 64, 64, 128), 256, 4, 2), ((1, 8, 8, 1024), 1024, 3, 1), ((4, 256, 256, 64), 64, 7, 1)],
)
def test_working_memory_is_bounded(
    shape: tuple[int, ...], outputs: int, taps: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def array(space: Any, shape: Any, dtype: Any = np.float32) -> Array:
        taken[-1] += int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.empty(shape, dtype)

    monkeypatch.setattr(scratch.Space, "array", array)
    for module in (amx, amx_weight_grad):
        monkeypatch.setattr(module, "run", lambda *args: None)
    out = [conv_length(n, taps, stride, taps // 2, 1) for n in shape[1:3]]
    x, weight = np.empty(shape, np.float32), np.empty((outputs, taps, taps, shape[3]), np.float32)
    g, options = np.empty((shape[0], *out, outputs), np.float32), ((stride,) * 2, (taps // 2,) * 2)
    for call, arguments in (
        (amx.forward, (x, weight, g)),
        (amx.transpose, (g, weight, x)),
        (amx.weight_grad, (x, g, weight)),
    ):
        taken.append(0)
        call(*arguments, *options, (1, 1))
    assert max(taken) <= 64 << 20


def test_empty_batches() -> None:
    x, weight, g = np.zeros((0, 5, 5, 32)), np.ones((32, 3, 3, 32)), np.zeros((0, 5, 5, 32))
    y, dx, dw = all_three(*(a.astype(np.float32) for a in (x, weight, g)), (1, 1), (1, 1), (1, 1))
    assert not y.size and not dx.size and not dw.any()


# Numbers ---------------------------------------------------------------------------------------


def test_long_sums_stay_accurate() -> None:
    """As many products per result as `suits` allows, all of one sign: rounding errors add up."""
    rng = np.random.default_rng(0)
    deep = amx.DEEPEST // 9
    x, weight = (rng.random((n, 3, 3, deep), dtype=np.float32) + 0.1 for n in (2, 3))
    y = np.empty((2, 1, 1, 3), np.float32)
    amx.forward(x, weight, y, (1, 1), (0, 0), (1, 1))
    exact = np.einsum("nyxc,oyxc->no", x.astype(float), weight.astype(float))
    assert np.linalg.norm(y[:, 0, 0] - exact) < 2e-6 * np.linalg.norm(exact)


def test_many_places_stay_accurate() -> None:
    rng = np.random.default_rng(0)
    x, g = (rng.random((8, 96, 96, 1), dtype=np.float32) + 0.1 for _ in range(2))
    dw = np.empty((1, 1, 1, 1), np.float32)
    amx.weight_grad(x, g, dw, (1, 1), (0, 0), (1, 1))
    assert abs(dw.item() / np.sum(x.astype(float) * g) - 1) < 2e-6


@pytest.mark.parametrize("name", ["fp32", "tf32"])
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_large_and_small_numbers(name: str, scale: float) -> None:
    x, weight, g, *options = arrays(1, 2, (5, 6), 20, 36, 3, 1)
    x, g = x * np.float32(scale), g * np.float32(scale)
    with precision(name):
        y, dx, _ = all_three(x, weight, g, *options)
    expected = definitions(x, weight, g, *options)
    assert off(y, expected[0]) < ERRORS[name] and off(dx, expected[1]) < ERRORS[name]


def test_the_ends_of_float32() -> None:
    """Products overflow as in float32; numbers that the matrix unit does not know count as zero;
    between, parts of a product get lost: 1e-34 still has sixteen bits."""
    x = np.zeros((1, 1, 40, 32), np.float32)
    weight, y = np.ones((32, 1, 1, 32), np.float32), np.empty((1, 1, 40, 32), np.float32)
    values = [3e38, 3e38, 1e-39, 1e-34, 1e-30, 3.4e38, np.inf, -np.inf, np.nan]
    x[0, 0, : len(values), 0] = values
    x[0, 0, 1, 1] = 3e38
    amx.forward(x, weight, y, (1, 1), (0, 0), (1, 1))
    got = y[0, 0, : len(values), 0]
    assert got[0] == np.float32(3e38) and got[1] == np.inf and got[2] == 0
    assert abs(got[3] / 1e-34 - 1) < 1e-4 and abs(got[4] / 1e-30 - 1) < 1e-7
    assert np.isnan(got[5:]).all()
    assert not y[0, 0, len(values) :].any()


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0x7F800001, 0x7F800000])
def test_nan_and_infinity_arrive_where_they_should(bits: int) -> None:
    """Every NaN, whatever its bits, and infinity as NaN."""
    x, weight, g, *options = arrays(2, 2, (6, 6), 33, 34, 3, 1)
    clean = all_three(x, weight, g, *options)
    bad = np.uint32(bits).view(np.float32)
    x[1, 2, 3, 32] = g[0, 4, 5, 33] = bad
    y, dx, dw = all_three(x, weight, g, *options)
    nan = np.zeros(y.shape, bool)
    nan[1, 1:4, 2:5] = True
    assert np.array_equal(np.isnan(y), nan) and np.array_equal(y[~nan], clean[0][~nan])
    nan = np.zeros(dx.shape, bool)
    nan[0, 3:6, 4:6] = True
    assert np.array_equal(np.isnan(dx), nan) and np.array_equal(dx[~nan], clean[1][~nan])
    nan = np.zeros(dw.shape, bool)
    nan[:, :, :, 32] = nan[33] = True
    assert np.isnan(dw[..., 32]).all() and np.isnan(dw[33, :2, :2]).all()
    assert np.array_equal(dw[~nan], clean[2][~nan])


def test_a_nan_weight_reaches_its_output_channel() -> None:
    x, weight, g, *options = arrays(3, 1, (6, 6), 8, 8, 3, 1)
    weight[5, 1, 1, 2] = np.nan
    y, dx, _ = all_three(x, weight, g, *options)
    assert np.isnan(y[..., 5]).all() and np.isfinite(np.delete(y, 5, -1)).all()
    assert np.isnan(dx[..., 2]).all() and np.isfinite(np.delete(dx, 2, -1)).all()


# The tiles -------------------------------------------------------------------------------------


@kernel
def one_product(args: int, task: int, thread: int) -> None:
    """c += a @ b, with tiles of some rows and pairs."""
    tiles, rows, pairs = arg(args, 0), arg(args, 1), arg(args, 2)
    tileconfig(tiles, rows, pairs)
    tileloadd(tiles, 4, arg(args, 3), 64)
    tileloadd(tiles, 6, arg(args, 4), 64)
    tileloadd(tiles, 0, arg(args, 5), 64)
    tdpbf16ps(tiles, 0, 4, 6)
    tilestored(tiles, 0, arg(args, 5), 64)
    tilezero(tiles, 0)
    tilestored(tiles, 0, arg(args, 6), 64)
    tilerelease(tiles)


def flushed(v: Array) -> Array:
    return np.where(np.abs(v) < np.finfo(np.float32).tiny, np.float32(0), v)


def by_the_book(a: Array, b: Array, c: Array, pairs: int) -> Array:
    """The definition of TDPBF16PS; a fused multiply-add is exact in float64 but for its end."""
    halves = [
        (flushed((m << 16).view(np.float32)), flushed((m & 0xFFFF0000).view(np.float32)))
        for m in (a, b)
    ]
    sums = []
    for left, right in zip(*halves, strict=True):
        total = np.zeros((len(c), 16), np.float32)
        for k in range(pairs):
            product = np.outer(left[: len(c), k].astype(float), right[k].astype(float))
            total = flushed((total + product).astype(np.float32))
        sums.append(total)
    return flushed(flushed(c) + flushed(sums[0] + sums[1]))


# The tile unit rounds a product and its sum once; so does the emulation if the processor can.
@pytest.mark.skipif(os.environ.get("MINIGAN_SIMD") == "plain", reason="no fused multiply-add")
@pytest.mark.parametrize("rows, pairs", [(16, 16), (1, 16), (7, 16), (16, 1), (16, 11)])
@pytest.mark.parametrize("exponent", [0, -62])  # -62: sums near the smallest normal number
def test_a_product_of_tiles_is_that_of_the_book(rows: int, pairs: int, exponent: int) -> None:
    rng = np.random.default_rng(rows + pairs)
    scale = np.float32(2.0**exponent)
    halves = rng.standard_normal((4, 16, 16), dtype=np.float32) * scale
    a, b = (halves[:2].view(np.uint32) & 0xFFFF0000) | (halves[2:].view(np.uint32) >> 16)
    a[0, 0] = 0x0001_0040  # two subnormal numbers
    c, block = guarded((rows, 16))
    zero, zero_block = guarded((rows, 16))
    c[:] = rng.standard_normal((rows, 16)) * scale * scale
    c[0, 0] = 1e-40
    before = c.copy()
    tiles = scratch.aligned((TILES_BYTES,), np.uint8)
    run(one_product, 1, tiles, rows, pairs, a, b, c, zero)
    np.testing.assert_array_equal(c, by_the_book(a, b, before, pairs))
    assert not zero.any() and untouched(block) and untouched(zero_block)


@kernel
def wrong_shapes(args: int, task: int, thread: int) -> None:
    """A tile of B taken for one of A."""
    tiles = arg(args, 0)
    tileconfig(tiles, 8, 16)
    tdpbf16ps(tiles, 0, 6, 6)
    tilestored(tiles, 0, arg(args, 1), 64)


@pytest.mark.skipif(HAS_AMX, reason="the processor stops such a program")
def test_the_emulation_notices_tiles_that_do_not_fit() -> None:
    out = np.zeros((8, 16), np.float32)
    run(wrong_shapes, 1, scratch.aligned((TILES_BYTES,), np.uint8), out)
    assert np.isnan(out).all() and TILES_BYTES == CONFIG_BYTES + 8 * TILE_BYTES


# The machine -----------------------------------------------------------------------------------

PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_kernels_amx as t
print(t.machine.simd(), t.fingerprint())
"""


def fingerprint() -> str:
    """Of all results of both precisions, bit by bit."""
    digest = hashlib.sha256()
    for name in ERRORS:
        for setup in (arrays(4, 1, (9, 20), 40, 40, 3, 1), arrays(5, 16, (7, 7), 32, 64, 4, 2)):
            with precision(name):
                for result in all_three(*setup):
                    digest.update(result.tobytes())
    return digest.hexdigest()


def python(program: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | settings
    )


def test_the_emulation_computes_what_the_processor_does() -> None:
    """On a processor with AMX, the same bits; elsewhere, that the level can be asked for."""
    other = python(PROGRAM, MINIGAN_SIMD="amx", MINIGAN_EMULATE_AMX="1")
    assert other.stdout.split() == ["amx", fingerprint()], other.stderr


@pytest.mark.skipif(HAS_AMX, reason="the processor has AMX")
def test_without_the_processor_it_is_refused_and_never_loaded() -> None:
    asked = python("from minigan_kernels.cpu import machine; machine.simd()", MINIGAN_SIMD="amx")
    assert "MINIGAN_SIMD is 'amx'; this processor has plain" in asked.stderr
    forced = python("import minigan_kernels.cpu.amx")
    assert "ImportError: the processor has no AMX" in forced.stderr
    program = """
import sys
import numpy as np
from minigan_kernels import cpu
x, w = np.ones((2, 40, 9, 9), np.float32), np.ones((40, 40, 3, 3), np.float32)
y = cpu.conv(x, w, (1, 1), (1, 1), (1, 1), 1)
cpu.conv_transpose(y, w, (1, 1), (1, 1), (0, 0), (1, 1), 1)
cpu.conv_weight_grad(x, y, (3, 3), (1, 1), (1, 1), (1, 1), 1)
print([name for name in sys.modules if "amx" in name])
"""
    used = python(program)
    assert used.stdout == "[]\n", used.stderr


@pytest.mark.parametrize("permitted", [True, False])
def test_a_kernel_that_refuses_the_tiles_leaves_avx512(
    permitted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = dict.fromkeys(["amx-bf16", "avx512bw", "avx512f", "avx512vl"], True)
    monkeypatch.setattr(machine.binding, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(machine, "_tiles_permitted", lambda: permitted)
    assert machine._widest() == ("amx" if permitted else "avx512")


def test_the_permission_is_asked_for_and_answered() -> None:
    assert machine._tiles_permitted() in (True, False)
    assert machine._tiles_permitted() or not HAS_AMX


ASSEMBLY = """
import re
from minigan_kernels.cpu import machine
machine._widest = lambda: "amx"  # compile for it, run nothing
from minigan_kernels.cpu import amx_conv, amx_weight_grad
from minigan_kernels.cpu.parallel import Kernel
for module in (amx_conv, amx_weight_grad):
    for name, kernel in vars(module).items():
        if isinstance(kernel, Kernel):
            kernel.address
            text = kernel._compiled._library.get_asm_str()
            found = sorted(set(re.findall(r"\\t(ldtilecfg|tile\\w+|tdp\\w+)\\b", text)))
            print(name, *found)
"""
TILE_INSTRUCTIONS = "ldtilecfg tdpbf16ps tileloadd tilerelease tilestored tilezero"


@pytest.mark.skipif(
    not machine.binding.get_process_triple().startswith("x86_64"), reason="LLVM needs the target"
)
def test_the_kernels_compile_to_tile_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("MINIGAN_EMULATE_AMX", "MINIGAN_SIMD"):
        monkeypatch.delenv(variable, raising=False)
    target = {"NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": "+amx-tile,+amx-bf16"}
    compiled = python(ASSEMBLY, NUMBA_CACHE_DIR=str(tmp_path), **target)
    lines = dict(line.partition(" ")[::2] for line in compiled.stdout.splitlines())
    assert lines.pop("multiply", "") == TILE_INSTRUCTIONS, compiled.stderr
    assert lines.pop("multiply_strips") == TILE_INSTRUCTIONS
    assert sorted(lines) == ["pack_weights", "split_planes", "split_strips", "transpose_strips"]
    assert not any(lines.values())


def test_what_suits() -> None:
    def suits(**other: Any) -> bool:
        usual = {"results": 4096, "inputs": 64, "outputs": 64, "kernel": (3, 3)}
        return amx.suits(**{**usual, "stride": (1, 1), "dilation": (1, 1), **other})

    assert suits() and suits(stride=(2, 2), kernel=(4, 4)) and suits(inputs=48)
    assert not suits(dilation=(1, 2)) and not suits(stride=(3, 1)) and not suits(kernel=(9, 9))
    assert not suits(inputs=3) and not suits(outputs=1) and not suits(results=16)
    assert not suits(inputs=8192) and not suits(kernel=(1, 1))
    with precision("tf32"):
        assert suits(kernel=(1, 1))
