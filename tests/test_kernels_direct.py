"""The tiled convolution kernels of the CPU by themselves: values, bits, bounds, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from fences import python
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels import cpu, reference
from minigan_kernels.cpu import direct, direct_plan, machine, pack, parallel, scratch
from minigan_kernels.reference.conv import conv_length, conv_transpose_length
from opspec import Array
from strategies import Draw

ACCURATE = 2e-6  # norm of the error over norm of the result
Setup = dict[str, Any]


def layer(
    n: int, size: tuple[int, int], inputs: int, outputs: int, kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1), seed: int = 0,
) -> Setup | None:  # fmt: skip
    """Arrays of a convolution, channels last; None if it has no output."""
    out = tuple(map(conv_length, size, kernel, stride, padding, dilation))
    if min(out) < 1:
        return None
    rng = np.random.default_rng(seed)
    shapes = (n, *size, inputs), (outputs, *kernel, inputs), (n, *out, outputs)
    x, weight, g = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    return {"x": x, "weight": weight, "g": g, "options": (stride, padding, dilation)}


@st.composite
def layers(draw: Draw) -> Setup:
    """Any stride, padding, dilation and kernel; channels around the widths of vectors and panels,
    enough positions for several blocks, or few."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    channels = st.one_of(st.integers(1, 40), st.sampled_from([16, 31, 32, 33, 64, 65, 100]))
    made = None
    while made is None:
        size = pair(1, draw(st.sampled_from([4, 9, 20])))
        shape = draw(st.integers(1, 3)), size, draw(channels), draw(channels), pair(1, 4)
        made = layer(*shape, pair(1, 3), pair(0, 3), pair(1, 3), draw(st.integers(0, 99)))
    return made


def guarded(shape: tuple[int, ...]) -> tuple[Array, Callable[[], bool]]:
    """An array full of NaN between guard numbers, and a function that looks whether these live."""
    size = int(np.prod(shape))
    memory = np.full(size + 128, 7, np.float32)
    inner = memory[64 : 64 + size]
    inner[:] = np.nan
    return inner.reshape(shape), lambda: bool(
        (memory[:64] == 7).all() and (memory[-64:] == 7).all()
    )


def all_three(setup: Setup, module: Any = direct) -> list[Array]:
    """y, the input gradient and the weight gradient; nothing beside them is written."""
    x, weight, g, options = (setup[name] for name in ("x", "weight", "g", "options"))
    calls = (module.forward, x, weight, g), (module.transpose, g, weight, x)
    results = []
    for function, source, other, like in (*calls, (module.weight_grad, x, g, weight)):
        result, untouched = guarded(like.shape)
        function(source, other, result, *options)
        assert untouched(), function.__name__
        results.append(result)
    return results


def expected(setup: Setup) -> list[Array]:
    """The same by definition, in float64."""
    x, weight, g = (
        setup[name].transpose(0, 3, 1, 2).astype(float) for name in ("x", "weight", "g")
    )
    s, p, d = setup["options"]
    lengths = zip(x.shape[2:], g.shape[2:], weight.shape[2:], s, p, d, strict=True)
    extra = tuple(n - conv_transpose_length(m, *rest[:3], 0, rest[3]) for n, m, *rest in lengths)
    return [
        reference.conv(x, weight, s, p, d, 1).transpose(0, 2, 3, 1),
        reference.conv_transpose(g, weight, s, p, extra, d, 1).transpose(0, 2, 3, 1),
        reference.conv_weight_grad(x, g, weight.shape[2:], s, p, d, 1).transpose(0, 2, 3, 1),
    ]


def check(setup: Setup) -> None:
    names = "forward", "transpose", "weight_grad"
    for name, found, exact in zip(names, all_three(setup), expected(setup), strict=True):
        error, size = np.linalg.norm(found - exact), np.linalg.norm(exact)
        assert error <= ACCURATE * size, (name, error, size, setup["options"], found.shape)


@contextmanager
def tuned(**constants: int) -> Iterator[None]:
    """Other limits in direct_plan.py. Plans are kept, so they are thrown away before and after."""
    plans = direct_plan.forward_plan, direct_plan.transpose_plan, direct_plan.weight_grad_plan
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(direct_plan, name, value)
        for plan in plans:
            plan.cache_clear()
        yield
    for plan in plans:
        plan.cache_clear()


tunings = st.fixed_dictionaries(
    {
        "ROWS": st.sampled_from([14, 112]),
        "DEPTH": st.sampled_from([1, 100, 1024]),
        "FEW": st.sampled_from([0, 256]),
        "PACKED_NUMBERS": st.sampled_from([0, 1 << 24]),
        "PIXELS": st.sampled_from([16, 256]),
        "COLUMNS": st.sampled_from([1, 512]),
        "PIECE": st.sampled_from([16, 128]),
        "CROWDED": st.sampled_from([1, 4096]),  # 1: all windows are copied
        "TASKS": st.sampled_from([1, 16]),
    }
)


@given(setup=layers(), tuning=tunings)
@settings(max_examples=120)
def test_equals_the_definition(setup: Setup, tuning: dict[str, int]) -> None:
    with tuned(**tuning):
        check(setup)


LAYERS = [
    (2, (14, 14), 64, 128, (4, 4), (2, 2), (1, 1)),
    (2, (8, 8), 512, 96, (4, 4), (2, 2), (1, 1)),  # crowded windows, few positions
    (1, (9, 9), 64, 70, (3, 3), (1, 1), (1, 1)),
    (1, (23, 23), 3, 64, (7, 7), (1, 1), (3, 3)),
    (3, (16, 16), 48, 32, (3, 3), (2, 2), (1, 1)),
    (1, (20, 20), 20, 36, (3, 3), (1, 1), (2, 2), (2, 2)),
    (40, (4, 4), 24, 20, (1, 1)),
]


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_layers_of_networks(number: int) -> None:
    made = layer(*LAYERS[number])
    assert made
    check(made)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_same_bits_every_time_and_for_any_number_of_threads(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = layer(*LAYERS[number])
    assert made
    first = [result.tobytes() for result in all_three(made)]
    assert [result.tobytes() for result in all_three(made)] == first
    for count in (1, 2):
        monkeypatch.setattr(parallel, "threads", lambda count=count: count)
        assert [result.tobytes() for result in all_three(made)] == first


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["x", "g", "weight"])
def test_not_a_number_and_infinity_reach_what_depends_on_them(name: str, value: float) -> None:
    made = layer(2, (9, 9), 33, 40, (3, 3), (2, 2), (1, 1))
    assert made
    arrays = ("x", "weight"), ("g", "weight"), ("x", "g")
    ones = {other: np.ones_like(made[other]) for other in ("x", "g", "weight")}
    mark = np.zeros_like(ones[name])
    mark[-1, 1, 2, 5] = 1
    spoilt = {**made, name: np.where(mark, np.float32(value), made[name])}
    reached = expected({**made, **ones, name: mark})
    for used, found, hit in zip(arrays, all_three(spoilt), reached, strict=True):
        touched = (hit != 0) & (name in used)
        assert not np.isfinite(found[touched]).any()
        if name != "weight":  # the zeros around the image meet the weight, here at some borders
            assert np.isfinite(found[~touched]).all()


@pytest.mark.parametrize("number", [0, 5])
def test_with_little_memory_blocks_are_small(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = layer(*LAYERS[number])
    assert made
    refused = []

    def array(space: Any, shape: Any, dtype: Any = np.float32) -> Array:
        if np.prod(shape) * np.dtype(dtype).itemsize > 60_000:
            refused.append(shape)
            raise MemoryError
        return scratch.aligned(shape, dtype)

    monkeypatch.setattr(scratch.Space, "array", array)
    check(made)
    assert refused


BOUNDS = """
from fences import fenced
from minigan_kernels.cpu import direct
for c, o, k, s, p in ((20, 18, 3, 1, 0), (20, 33, 3, 2, 1), (3, 5, 4, 2, 1), (33, 1, 1, 1, 0)):
    x, w = fenced((2, 10, 10, c)), fenced((o, k, k, c))
    y = fenced((2, *((10 + 2 * p - k) // s + 1,) * 2, o))
    options = (s, s), (p, p), (1, 1)
    direct.forward(x, w, y, *options)
    direct.transpose(y, w, x, *options)
    direct.weight_grad(x, y, w, *options)
print("inside")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages with mprotect")
def test_reads_and_writes_nothing_beyond_its_arrays() -> None:
    run = python(BOUNDS)
    assert run.stdout == "inside\n", (run.returncode, run.stderr)


def test_empty_batches() -> None:
    made = layer(1, (5, 5), 8, 8, (3, 3))
    assert made
    empty = {**made, "x": made["x"][:0], "g": made["g"][:0]}
    y, dx, dw = all_three(empty)
    assert y.shape == (0, 3, 3, 8) and dx.shape == (0, 5, 5, 8)
    assert not dw.any()


@given(
    n=st.integers(0, 3), channels=st.integers(1, 40), size=st.integers(1, 80),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60)
def test_channels_last(n: int, channels: int, size: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((n, channels, size), dtype=np.float32)
    for given_order in (x, np.asfortranarray(x), x[:, ::-1], x.astype(float)):
        turned = pack.channels_last(given_order)
        assert turned.flags.c_contiguous and turned.dtype == given_order.dtype
        assert np.array_equal(turned, given_order.transpose(0, 2, 1))
    assert np.shares_memory(pack.channels_last(turned.transpose(0, 2, 1)), turned) or not x.size


@pytest.mark.parametrize("level", ["avx2", "plain"])
def test_narrower_instructions(level: str) -> None:
    """The other tile shapes, in a process of their own."""
    if machine.LEVELS.index(level) >= machine.LEVELS.index(machine.simd()):
        pytest.skip("this is what the other tests run with")
    tests = "test_layers_of_networks or test_not_a_number or test_channels_last"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", tests],
        env={**os.environ, machine.VARIABLE: level},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert run.returncode == 0, run.stdout


@given(setup=layers())
@settings(max_examples=60)
def test_the_chosen_algorithm_is_right(setup: Setup) -> None:
    """cpu.conv and its kin, whichever module they choose, on N,C,H,W arrays of either order."""
    x, weight, g = (setup[name].transpose(0, 3, 1, 2) for name in ("x", "weight", "g"))
    s, p, d = setup["options"]
    lengths = zip(x.shape[2:], g.shape[2:], weight.shape[2:], s, p, d, strict=True)
    extra = tuple(n - conv_transpose_length(m, *rest[:3], 0, rest[3]) for n, m, *rest in lengths)
    exact = expected(setup)
    for order in (lambda a: a, np.ascontiguousarray):
        a, b, c = order(x), order(weight), order(g)
        found = [
            cpu.conv(a, b, s, p, d, 1),
            cpu.conv_transpose(c, b, s, p, extra, d, 1),
            cpu.conv_weight_grad(a, c, b.shape[2:], s, p, d, 1),
        ]
        for result, right in zip(found, exact, strict=True):
            assert np.moveaxis(result, 1, -1).flags.c_contiguous
            error = np.linalg.norm(result.transpose(0, 2, 3, 1) - right)
            assert error <= ACCURATE * np.linalg.norm(right)
