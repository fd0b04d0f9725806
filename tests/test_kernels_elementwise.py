"""The float32 kernels that go over memory once: values, odd sizes, any layout, any thread count."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from minigan_kernels import cpu, reference
from minigan_kernels.cpu import parallel
from minigan_kernels.cpu.machine import simd
from minigan_kernels.group import Group
from opspec import LAYOUTS, Array, laid_out
from test_optim import calls

import minigan as mg
import minigan.functional as F
from minigan import nn, optim

SHAPES = [
    (3, 5, 17, 19),
    (2, 3, 41, 23),
    (70, 100),
    (1, 1, 80, 81),
    (9, 16, 7, 7),
    (2, 130, 5, 4, 3),
]


def relative(found: Array, wanted: Array) -> float:
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-30))


def by_one_thread(monkeypatch: pytest.MonkeyPatch, f: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "threads", lambda: 1)
        return f()


# Elementary functions --------------------------------------------------------------------------

UNARY: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x >= 0, 1, np.exp(np.minimum(x, 0))) / (1 + np.exp(-np.abs(x))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}


def every_exponent() -> Array:
    """Numbers of every sign and exponent, with infinities, NaN and denormals, and usual ones."""
    bits = np.arange(0, 1 << 32, 9973, dtype=np.uint64).astype(np.uint32).view(np.float32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 88.72, 88.73, -103.97, -104.1, 1e-45, -87.5]
    usual = [np.linspace(-a, a, 40_000) for a in (110, 12, 1, 1e-3)]
    return np.concatenate([bits, *(np.float32(a) for a in (special, *usual))])


def units(found: Array, exact: Array) -> Array:
    """Errors in units of the last place of float32."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        error = np.abs(found.astype(np.float64) - exact) / np.spacing(np.abs(rounded))
    same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    return np.where(same, 0, error)


@pytest.mark.parametrize("name", UNARY)
def test_few_units_in_the_last_place(name: str) -> None:
    x = every_exponent()
    with np.errstate(all="ignore"):
        exact = UNARY[name](x.astype(np.float64))
    error = units(getattr(cpu, name)(x), exact)
    worst = int(np.argmax(np.nan_to_num(error, nan=np.inf)))
    limit = 2.5 if name == "sigmoid" else 2
    limit += simd() == "plain"  # without fused multiply-adds
    assert error[worst] <= limit, f"{name}({x[worst]!r}) is off by {error[worst]} units"


def test_normal_cdf_of_all_sizes() -> None:
    x = np.linspace(-13, 13, 5001).astype(np.float32)
    exact = reference.normal_cdf(x.astype(np.float64))
    found = cpu.normal_cdf(x)
    assert np.abs(found - exact).max() < 1.5e-7
    tail = 1e-6 if simd() != "plain" else 2e-5  # x^2 eps without fused multiply-adds
    assert (np.abs(found - exact) / exact)[x < 0].max() < tail
    special = np.resize(np.float32([np.inf, -np.inf, np.nan, 40, -40, 0]), 6000)
    assert np.array_equal(cpu.normal_cdf(special)[:6], [1, 0, np.nan, 1, 0, 0.5], equal_nan=True)


MAPS: dict[str, tuple[float, ...]] = {
    **{name: () for name in ("exp", "tanh", "sigmoid", "softplus", "silu", "gelu", "normal_cdf")},
    "leaky_relu": (0.2,),
    "elu": (1.7,),
}
GRADIENTS: dict[str, tuple[float, ...]] = {
    "leaky_relu_backward": (0.2,),
    "tanh_backward": (),
    "sigmoid_backward": (),
    "softplus_backward": (),
    "silu_backward": (),
    "gelu_backward": (),
    "elu_backward": (1.7,),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*MAPS, *GRADIENTS])
def test_maps_equal_their_definition(
    name: str, layout: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shape in SHAPES[:3]:
        wide = [rng.normal(size=shape) for _ in range(2 if name in GRADIENTS else 1)]
        narrow = [laid_out(a.astype(np.float32), layout) for a in wide]
        if len(narrow) == 2:
            narrow[0] = np.ascontiguousarray(narrow[0])  # a gradient in another order
        options = (MAPS | GRADIENTS)[name]
        wanted = getattr(reference, name)(*[a.astype(np.float64) for a in narrow], *options)
        found = getattr(cpu, name)(*narrow, *options)
        assert found.dtype == np.float32 and relative(found, wanted) < 3e-7, shape
        call = partial(getattr(cpu, name), *narrow, *options)
        again = by_one_thread(monkeypatch, call)
        assert found.tobytes() == again.tobytes()


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_kinks_infinities_and_nan(slope: float) -> None:
    x = np.resize(np.float32([-np.inf, -1, -0.0, 0, 1, np.inf, np.nan]), 7 * 700)
    with np.errstate(invalid="ignore"):
        wanted = reference.leaky_relu(x, slope)
        assert np.array_equal(cpu.leaky_relu(x, slope), wanted, equal_nan=True)
        g = np.full_like(x, 3)
        wanted = reference.leaky_relu_backward(g, x, slope)
        assert np.array_equal(cpu.leaky_relu_backward(g, x, slope), wanted, equal_nan=True)


def test_nothing_is_written_beyond_the_end() -> None:
    """Results are of the very length; kernels that write in place leave the neighbours alone."""
    for n in range(4097, 4130):
        frame = np.zeros(n + 64, np.float32)
        inside = frame[32 : 32 + n]
        cpu.add_bias(inside.reshape(1, 1, n), np.float32([1]))
        assert inside.min() == 1 and not frame[:32].any() and not frame[32 + n :].any()
        cpu.lerp_step([inside], [np.full(n, 3, np.float32)], 0.5)
        assert (
            inside.min() == inside.max() == 2 and not frame[:32].any() and not frame[n + 32 :].any()
        )


# Optimizers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", range(len(calls())))
def test_updates_of_large_parameters(
    case: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters that are cut into several tasks, beside small ones; any number of threads."""
    name, count, arguments = calls()[case]
    shapes = (40_001,), (3, 70, 90)
    # The third array of centred RMSprop is a mean, whose square must stay well below the second.
    sizes = (1.0, 1.0, 0.3, 1.0)[:count]
    start = [[(k * rng.uniform(1, 2, s)).astype(np.float32) for s in shapes] for k in sizes]
    g = [rng.normal(size=s).astype(np.float32) for s in shapes]
    exact = [[w.astype(np.float64) for w in row] for row in start]
    getattr(reference, name)(*arguments(exact, [x.astype(np.float64) for x in g]))

    def update() -> list[list[Array]]:
        arrays = [[w.copy() for w in row] for row in start]
        getattr(cpu, name)(*arguments(arrays, g))
        return arrays

    found, again = update(), by_one_thread(monkeypatch, update)
    for row, same, wanted in zip(found, again, exact, strict=True):
        for a, b, c in zip(row, same, wanted, strict=True):
            assert relative(a, c) < 2e-6 and a.tobytes() == b.tobytes()


def steps_of(params: list[Array], draws: list[list[Array]], copied_at: int = -1) -> list[Array]:
    """Parameters after a step of Adam along each of the draws, whose optimizer may be a copy."""
    optimizer = optim.Adam([nn.Parameter(p) for p in params], 0.1)
    for k, draw in enumerate(draws):
        if k == copied_at:
            optimizer = copy.deepcopy(optimizer)
        if k == 3:  # another array in the place of the first
            optimizer.params[0].data = optimizer.params[0].data.copy()
        optimizer.step(draw)
    return [p.data for p in optimizer.params]


def test_a_kept_table_is_only_for_its_arrays(rng: np.random.Generator) -> None:
    """Gradients in other orders, replaced arrays, missing gradients, copies of the optimizer."""
    shapes = (3, 5, 40, 40), (70,), (20_000,)
    params = [rng.normal(size=s).astype(np.float32) for s in shapes]
    draws: list[list[Any]] = [
        [rng.normal(size=s).astype(np.float32) for s in shapes] for _ in range(7)
    ]
    draws[2][0] = laid_out(draws[2][0], "channels_last")
    draws[5][1] = None
    exact = [p.astype(np.float64) for p in params]
    wide = [[None if g is None else g.astype(np.float64) for g in draw] for draw in draws]
    wanted = steps_of(exact, wide)
    for copied_at in (-1, 2):
        found = steps_of(params, draws, copied_at)
        for a, b in zip(found, wanted, strict=True):
            assert relative(a, b) < 2e-6
    twin = optim.SGD([nn.Parameter(p) for p in params], 0.1, momentum=0.9)
    twin.step(draws[0])
    other = copy.deepcopy(twin)
    before = [p.data.copy() for p in twin.params]
    other.step(draws[1])
    assert all(np.array_equal(p.data, b) for p, b in zip(twin.params, before, strict=True))
    assert not np.array_equal(other.params[0].data, before[0])


def test_a_group_with_other_memory_and_copied(rng: np.random.Generator) -> None:
    a, b = (rng.normal(size=5000).astype(np.float32) for _ in range(2))
    group, targets = Group([a.copy()]), Group([b])
    for buffer in ([a.copy()], [b.copy()]):
        before, old = group[0].copy(), buffer[0].copy()
        cpu.sgd_step(group, [b], buffer, [2], 0.5, 0.5, 0.0, False, 0.0)
        assert np.array_equal(buffer[0], old / 2 + b)
        assert relative(group[0], before - buffer[0] / 2) < 1e-6
    group = Group([a.copy()])
    cpu.lerp_step(group, targets, 0.5)
    copied = copy.deepcopy((group, targets))
    halfway = group[0].copy()
    cpu.lerp_step(*copied, 0.5)
    assert np.array_equal(group[0], halfway)
    assert relative(copied[0][0], (halfway + b) / 2) < 1e-6


class Growing(nn.Module):
    """A network whose parts are replaced and added."""

    def __init__(self) -> None:
        self.first = nn.Linear(70, 80)
        self.rest: list[Any] = [nn.BatchNorm2d(3)]
        self.late: Any = None


def test_averages_follow_a_network_that_changes(rng: np.random.Generator) -> None:
    net = Growing()
    ema = optim.EMA(net, 0.75, warmup=False)

    def check() -> None:
        """One update, by the definition."""
        pairs = list(zip(ema.module.named_tensors(), net.named_tensors(), strict=True))
        wanted = []
        for (_, mine), (_, theirs) in pairs:
            theirs.data[...] = rng.normal(size=theirs.shape)
            share = 0.25 if isinstance(mine, nn.Parameter) else 1.0
            wanted.append(mine.data + share * (theirs.data - mine.data))
        versions = [mine.version[0] for (_, mine), _ in pairs]
        ema.update()
        for ((_, mine), _), found, version in zip(pairs, wanted, versions, strict=True):
            np.testing.assert_allclose(mine.data, found, rtol=1e-5, atol=1e-6)
            assert mine.version[0] == version + 1

    check()
    check()
    for both in (net, ema.module):
        both.late = nn.Linear(5, 4)  # None before
    check()
    for both in (net, ema.module):
        both.rest.append(nn.Linear(3, 2))
    check()
    net.first.weight.data = net.first.weight.data.copy()
    check()
    net.first.weight = nn.Parameter(net.first.weight.data.copy())
    check()
    ema = copy.deepcopy(ema)
    net = ema.source
    check()


def test_averaging_keeps_no_results_alive() -> None:
    """What a network remembers of a step can go when the network lets go of it."""
    net = Growing()
    ema = optim.EMA(net, 0.75)
    result = mg.Tensor(np.zeros(3, np.float32))
    gone = weakref.ref(result)
    net.late = [result]
    del result
    ema.update()
    net.late = None
    gc.collect()
    assert gone() is None


# Bias, noise and activation --------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["linear", "relu", "lrelu", "tanh", "sigmoid"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bias_act(
    activation: str,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, g, bias = (rng.normal(size=s).astype(np.float32) for s in (shape, shape, shape[1]))
    options = (activation, 0.2, 1.3)
    cases = itertools.product(
        (None, 1, shape[0]), (1, shape[1]), ("plain", "channels_last", "transposed")
    )
    for n, c, layout in cases:
        noise = None if n is None else rng.normal(size=(n, 1, *shape[2:])).astype(np.float32)
        strength = None if n is None else rng.normal(size=c).astype(np.float32)
        needs = (True, True, n is not None, n is not None)
        wide = [None if a is None else a.astype(np.float64) for a in (x, bias, noise, strength)]
        y = reference.bias_act(*wide, *options)
        stored = x if layout == "plain" else laid_out(x, layout)
        z = cpu.bias_act(stored, bias, noise, strength, *options)
        assert relative(z, y) < 3e-7
        wanted = reference.bias_act_backward(g.astype(np.float64), y, *wide[2:], *options, needs)

        def gradients(z: Array = z, noise: Any = noise, strength: Any = strength) -> Any:
            flags = (True, True, noise is not None, noise is not None)
            return cpu.bias_act_backward(g, z, noise, strength, *options, flags)

        for a, b, again in zip(
            gradients(), wanted, by_one_thread(monkeypatch, gradients), strict=True
        ):
            if b is None:
                assert a is None
            else:
                assert a.shape == b.shape
                scale = max(np.linalg.norm(b), np.linalg.norm(g))  # sums may cancel
                assert np.linalg.norm(a - b) < 1e-6 * scale
                assert a.tobytes() == again.tobytes()


@pytest.mark.parametrize("layout", ["plain", "channels_last", "transposed"])
@pytest.mark.parametrize("shape", [*SHAPES, (40, 1001), (6000, 3), (3, 48, 61, 9)])
def test_bias_and_its_gradient(
    shape: tuple[int, ...], layout: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, bias = (
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=shape[1]).astype(np.float32),
    )
    stored = (y if layout == "plain" else laid_out(y, layout)).copy(order="K")
    sums = cpu.channel_sum(stored)
    wanted = reference.channel_sum(y.astype(np.float64))
    assert (
        sums.dtype == np.float32 and np.abs(sums - wanted).max() < 1e-6 * np.abs(y).sum() / shape[1]
    )
    assert sums.tobytes() == by_one_thread(monkeypatch, lambda: cpu.channel_sum(stored)).tobytes()
    cpu.add_bias(stored, bias)
    reference.add_bias(y, bias)
    assert np.array_equal(stored, y)


# Resampling ------------------------------------------------------------------------------------


def table(n: int, out: int, taps: int, rng: np.random.Generator) -> tuple[Array, Array]:
    index = rng.integers(-1, n, (out, taps)).astype(np.int32)
    return index, rng.normal(size=(out, taps))


@pytest.mark.parametrize("layout", ["plain", "channels_last", "transposed", "sliced"])
@pytest.mark.parametrize("shape", [(3, 5, 17, 19), (2, 1, 33, 80), (1, 48, 9, 15), (2, 3, 40, 41)])
def test_maps_of_planes_and_axes(
    shape: tuple[int, ...], layout: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = rng.normal(size=shape).astype(np.float32)
    stored = x if layout == "plain" else laid_out(x, layout)
    for out, taps in (((34, 38), (2, 2)), ((7, 50), (1, 3)), ((31, 1), (3, 1))):
        tables = [table(n, m, k, rng) for n, m, k in zip(shape[2:], out, taps, strict=True)]
        wanted = reference.plane_map(x.astype(np.float64), *tables[0], *tables[1])
        found = cpu.plane_map(stored, *tables[0], *tables[1])
        assert found.dtype == np.float32 and relative(found, wanted) < 1e-6
        again = by_one_thread(monkeypatch, lambda t=tables: cpu.plane_map(stored, *t[0], *t[1]))
        assert found.tobytes() == again.tobytes()
        for axis in (2, 3):
            wanted = reference.axis_map(x.astype(np.float64), axis, *tables[axis - 2])
            assert relative(cpu.axis_map(stored, axis, *tables[axis - 2]), wanted) < 1e-6


@pytest.mark.parametrize("layout", ["plain", "channels_last"])
def test_taps_that_are_not_there_read_nothing(layout: str) -> None:
    x = np.zeros((2, 4, 40, 40), np.float32)
    x[:, :, 0] = np.inf
    x[:, :, :, 0] = np.nan
    stored = x if layout == "plain" else laid_out(x, layout)
    index = np.stack([np.arange(40), np.full(40, -1)], axis=1)
    index[0, 0] = -1
    weight = np.ones((40, 2))
    y = cpu.plane_map(stored, index, weight, index, weight)
    assert not y[:, :, 0].any() and not y[:, :, :, 0].any() and not np.isnan(y).any()


# Arithmetic, sums and losses -------------------------------------------------------------------

BIG = [(3, 5, 67, 89), (2, 64, 33, 32), (70_001,), (600, 130), (5, 1, 130, 131)]


@pytest.mark.parametrize("layout", ["plain", "channels_last", "transposed", "sliced"])
@pytest.mark.parametrize("shape", BIG)
def test_arithmetic_is_numpys(
    shape: tuple[int, ...], layout: str, rng: np.random.Generator
) -> None:
    a, b = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    stored = a if layout == "plain" else laid_out(a, layout)
    for other in (b, b if layout == "plain" else laid_out(b, layout)):
        assert np.array_equal(cpu.add(stored, other), a + b)
        assert np.array_equal(cpu.add(stored, other, -1.0), a - b)
        assert np.array_equal(cpu.multiply(stored, other), a * b)
        total = stored.copy(order="K")
        cpu.add_to(total, other)
        assert np.array_equal(total, a + b)
    assert np.array_equal(cpu.affine(stored, 1.7, -0.3), a * np.float32(1.7) - np.float32(0.3))


@pytest.mark.parametrize("layout", ["plain", "channels_last", "transposed"])
@pytest.mark.parametrize("shape", BIG)
def test_sums_over_any_axes(
    shape: tuple[int, ...], layout: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = rng.normal(size=shape).astype(np.float32)
    stored = x if layout == "plain" else laid_out(x, layout)
    for count in range(len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            found = cpu.axis_sum(stored, axes)
            wanted = stored.astype(np.float64).sum(axis=axes)
            assert found.dtype == np.float32 and found.shape == wanted.shape
            assert np.linalg.norm(found - wanted) < 1e-6 * np.linalg.norm(x)
            again = by_one_thread(monkeypatch, partial(cpu.axis_sum, stored, axes))
            assert found.tobytes() == again.tobytes()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("kind", ["mse", "l1", "bce", "hinge", "softplus"])
def test_losses_and_their_gradients(
    kind: str, sign: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shape, layout in itertools.product(BIG[:3], ("plain", "channels_last", "sliced")):
        x = 3 * rng.normal(size=shape).astype(np.float32)
        y = rng.uniform(size=shape).astype(np.float32) if kind in ("mse", "l1", "bce") else None
        stored = x if layout == "plain" else laid_out(x, layout)
        wide = x.astype(np.float64), None if y is None else y.astype(np.float64), kind, sign
        found = cpu.loss_sum(stored, y, kind, sign)
        assert found == pytest.approx(reference.loss_sum(*wide), rel=1e-6)
        assert found == by_one_thread(monkeypatch, partial(cpu.loss_sum, stored, y, kind, sign))
        slopes = cpu.loss_gradient(stored, y, kind, sign, 0.3)
        assert relative(slopes, reference.loss_gradient(*wide, 0.3)) < 3e-7


@pytest.mark.parametrize("kind", ["mse", "l1", "bce", "hinge", "softplus"])
def test_large_losses_are_the_small_ones(kind: str, rng: np.random.Generator) -> None:
    """One operation from some thousand elements on, with the same values and gradients."""
    x, y = (nn.Parameter(rng.normal(size=(2, 90, 61)).astype(np.float32)) for _ in range(2))
    losses: dict[str, Callable[[Any], Any]] = {
        "mse": lambda r: F.mse_loss(x, y, reduction=r),
        "l1": lambda r: F.l1_loss(x, y, reduction=r),
        "bce": lambda r: F.binary_cross_entropy_with_logits(x, y, reduction=r),
        "hinge": lambda r: F.hinge_loss(x, True, reduction=r) + F.hinge_loss(y, False, reduction=r),
        "softplus": lambda r: F.softplus_loss(x, True, reduction=r) * F.softplus_loss(y, False),
    }
    loss, parts = losses[kind]("mean"), losses[kind]("none")
    assert loss.item() == pytest.approx(parts.mean().item(), rel=1e-6)
    ours = mg.grad(loss, [x, y], create_graph=True)
    theirs = mg.grad(parts.mean(), [x, y], create_graph=True)
    raw = mg.grad(losses[kind]("mean"), [x, y])
    for a, b, c in zip(ours, theirs, raw, strict=True):
        assert a is not None and b is not None and c is not None
        assert relative(a.data, b.data) < 1e-6 and relative(c.data, b.data) < 1e-6
