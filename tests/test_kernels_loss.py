"""Losses, softmax, pixel norm, attention of float32: any layout, odd sizes, extremes, threads."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from minigan_kernels import cpu, reference
from minigan_kernels.cpu import parallel
from opspec import Array, laid_out

import minigan as mg
import minigan.functional as F
from minigan.tensor import Tensor

attention_kernels = importlib.import_module("minigan_kernels.cpu.attention_kernels")

# Short and long rows, whole vectors and not, one position, two and three spatial axes.
SHAPES = [
    (2, 3, 37, 41),
    (1, 35, 19, 23),
    (2, 130, 5, 7),
    (3, 1, 4, 4),
    (70, 100),
    (2, 3, 4, 5, 6),
    (2, 1100, 33),
]
ORDERS = ("contiguous", "channels_last", "sliced", "fortran", "reversed")
KINDS = ["mse", "l1", "bce", "hinge", "softplus"]


def lying(x: Array, order: str) -> Array:
    return x if order == "contiguous" else laid_out(x, order)


def relative(found: Array, wanted: Array) -> float:
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-30))


def close(found: Array, wanted: Array, name: str = "") -> None:
    assert found.dtype == np.float32 and found.shape == wanted.shape, name
    assert relative(found, wanted) < 1e-6, f"{name}: {relative(found, wanted):.1e}"


def normal(rng: np.random.Generator, shape: tuple[int, ...], size: float = 1.0) -> Array:
    return rng.standard_normal(shape, np.float32) * np.float32(size)


def by_one_thread(monkeypatch: pytest.MonkeyPatch, f: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "threads", lambda: 1)
        return f()


def same(found: Any, other: Any) -> None:
    for a, b in zip(found, other, strict=True):
        assert (a is None) == (b is None) and (a is None or np.array_equal(a, b))


# Losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_losses_of_any_two_layouts(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x, y = normal(rng, shape, 3), rng.random(shape, np.float32)
    for mine, theirs in itertools.product(ORDERS, repeat=2):
        a, b = lying(x, mine), lying(y, theirs)
        for kind in KINDS:
            for target, exact in ((b, y.astype(np.float64)), (0.9, np.float32(0.9))):
                options = kind, -1.0
                wanted = reference.loss_sum(x.astype(np.float64), exact, *options)
                assert cpu.loss_sum(a, target, *options) == pytest.approx(wanted, rel=1e-6)
                slopes = reference.loss_gradient(x.astype(np.float64), exact, *options, 0.3)
                close(
                    cpu.loss_gradient(a, target, *options, 0.3), slopes, f"{mine} {theirs} {kind}"
                )


@pytest.mark.parametrize("shape", [(2, 3, 200, 111), (2, 300, 17, 40), (5, 40, 4, 100)])
def test_tiles_of_two_layouts_cover_everything_once(
    shape: tuple[int, ...], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many tiles, with rests on both sides; input and target in two memory orders."""
    x, y = normal(rng, shape), normal(rng, shape)
    for a, b in ((x, lying(y, "channels_last")), (lying(x, "channels_last"), y)):
        got = cpu.loss_gradient(a, b, "mse", 1.0, 0.5)
        assert np.array_equal(got, x - y)
        assert got.strides == a.strides
        exact = np.square(x.astype(np.float64) - y).sum()
        found = cpu.loss_sum(a, b, "mse", 1.0)
        assert found == pytest.approx(exact, rel=1e-6)
        assert found == by_one_thread(monkeypatch, lambda a=a, b=b: cpu.loss_sum(a, b, "mse", 1.0))


def test_losses_of_nan_and_infinity() -> None:
    for size in (5, 40_000):
        x = np.zeros(size, np.float32)
        x[-1] = np.nan
        for kind in KINDS:
            assert np.isnan(cpu.loss_sum(x, 0.5, kind, 1.0)), kind
        x[-1] = np.inf
        assert cpu.loss_sum(x, 0.5, "l1", 1.0) == np.inf
        assert cpu.loss_gradient(x, 0.5, "l1", 1.0, 1.0)[-1] == 1


@pytest.mark.parametrize("size", [700, 5000])
def test_a_number_as_target_is_an_array_of_it(size: int, rng: np.random.Generator) -> None:
    data = normal(rng, (size,))
    for loss in (F.mse_loss, F.l1_loss, F.binary_cross_entropy_with_logits):
        found = []
        for target in (0.9, np.full(size, 0.9, np.float32)):
            x = Tensor(data)
            x.requires_grad = True
            y = loss(x, target)
            (once,) = mg.grad(y, x, retain_graph=True)
            (graph,) = mg.grad(y, x, create_graph=True)
            assert once is not None and graph is not None
            close(graph.data, once.data.astype(np.float64))
            found.append((y.data, once.data))
        same(*found)


# Rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ORDERS)
def test_softmax_along_every_axis(
    layout: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x, g = normal(rng, shape, 3), normal(rng, shape)
    exact, slope = x.astype(np.float64), g.astype(np.float64)
    for dim, other in zip(range(len(shape)), itertools.cycle(ORDERS), strict=False):
        for name in ("softmax", "log_softmax"):
            y = getattr(cpu, name)(lying(x, layout), dim)
            wanted = getattr(reference, name)(exact, dim)
            close(y, wanted, f"{name} {dim}")
            dx = getattr(cpu, name + "_backward")(lying(g, other), y, dim)
            wanted = getattr(reference, name + "_backward")(slope, wanted, dim)
            if shape[dim] > 1:
                close(dx, wanted, f"{name}_backward {dim}")
            else:
                assert np.abs(dx).max() < 1e-6


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[1] > 1])
@pytest.mark.parametrize("layout", ORDERS)
def test_pixel_norm_and_cross_entropy(
    layout: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x, g = normal(rng, shape, 3), normal(rng, shape)
    data, exact, slope = lying(x, layout), x.astype(np.float64), g.astype(np.float64)
    close(cpu.pixel_norm(data, 1e-8), reference.pixel_norm(exact, 1e-8), "pixel norm")
    wanted = reference.pixel_norm_backward(slope, exact, 1e-8)
    close(cpu.pixel_norm_backward(g, data, 1e-8), wanted, "pixel norm backward")
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    labels.flat[::5] = 255
    weight = normal(rng, labels.shape)
    for smoothing in (0.0, 0.2):
        options = labels, 255, smoothing
        close(cpu.cross_entropy(data, *options), reference.cross_entropy(exact, *options))
        wanted = reference.cross_entropy_backward(weight.astype(np.float64), exact, *options)
        found = cpu.cross_entropy_backward(weight, data, *options)
        close(found, wanted, "cross entropy backward")
        assert not np.moveaxis(found, 1, -1)[labels == 255].any()


@pytest.mark.parametrize("n", [3, 16, 40])
@pytest.mark.parametrize("dim", [1, 0])
def test_rows_of_extremes(n: int, dim: int) -> None:
    """Sure rows, masked rows, NaN and infinity; rows beside each other and one after another."""
    x = np.zeros((5, n), np.float32)
    x[0], x[0, 1] = -1e4, 1e4
    x[1], x[1, 1] = -np.inf, 7
    x[2] = -np.inf
    x[3, -1] = np.nan
    x[4, 0] = np.inf
    x = x if dim == 1 else np.ascontiguousarray(x.T)
    y = np.moveaxis(cpu.softmax(x, dim), dim, 1)
    one = np.eye(n)[1]
    assert np.array_equal(y[:3], [one, one, 0 * one])
    assert np.isnan(y[3:]).all()
    log = np.moveaxis(cpu.log_softmax(x, dim), dim, 1)
    assert log[0, 1] == 0 and log[0, 0] == -2e4 and log[1, 0] == -np.inf
    assert np.isnan(log[3:]).all()
    if dim == 1:
        loss = cpu.cross_entropy(x, np.array([0, 1, -1, 0, -1]), -1, 0.0)
        assert loss[:3].tolist() == [2e4, 0, 0] and np.isnan(loss[3]) and loss[4] == 0
        pixels = cpu.pixel_norm(x, 1e-8)
        assert np.isnan(pixels[3]).all() and np.allclose(np.square(pixels[0]).mean(), 1)
    assert not cpu.pixel_norm(np.zeros((4, n), np.float32), 1e-8).any()


def test_rows_by_any_number_of_threads(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, g = normal(rng, (3, 40, 50, 60)), normal(rng, (3, 40, 50, 60))
    labels, weight = rng.integers(0, 40, (3, 50, 60)), normal(rng, (3, 50, 60))

    def everything() -> list[Array]:
        found = []
        for layout in ("contiguous", "channels_last"):
            a = lying(x, layout)
            y = cpu.softmax(a, 1)
            found += [y, cpu.softmax_backward(g, y, 1), cpu.pixel_norm(a, 1e-8)]
            found += [cpu.cross_entropy(a, labels, -100, 0.1)]
            found += [cpu.cross_entropy_backward(weight, a, labels, -100, 0.1)]
        return found

    same(everything(), by_one_thread(monkeypatch, everything))


# Attention -------------------------------------------------------------------------------------

BIASES: dict[str, Callable[..., Any]] = {
    "none": lambda lead, n, m: None,
    "all": lambda lead, n, m: (*lead, n, m),
    "queries": lambda lead, n, m: (*lead, n, 1),
    "keys": lambda lead, n, m: (*(1,) * len(lead), 1, m),
}


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [((2, 3), 33, 70, 20, 9), ((), 130, 31, 5, 40), ((1,), 1, 1, 1, 1), ((3,), 15, 257, 33, 64)],
)
def test_attention(
    sizes: Any,
    is_causal: bool,
    bias: str,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Transposed views, hidden keys, and a query that sees none."""
    lead, n, m, depth, width = sizes
    turned = np.swapaxes(normal(rng, (*lead, depth, n)), -1, -2)
    arrays = turned, normal(rng, (*lead, m, depth)), normal(rng, (*lead, m, width))
    shape, mask = BIASES[bias](lead, n, m), None
    if shape is not None:
        mask = normal(rng, shape)
        mask[..., 0, 1::2] = -np.inf
        if bias == "all" and n > 1:
            mask[..., 1, :] = -np.inf
    exact = [None if a is None else a.astype(np.float64) for a in (*arrays, mask)]
    options = is_causal, 0.3
    y = cpu.scaled_dot_product_attention(*arrays, mask, *options)
    close(y, reference.scaled_dot_product_attention(*exact, *options), "forward")

    g, needs = normal(rng, y.shape), (True, True, True, False)

    def gradients() -> Any:
        backward = cpu.scaled_dot_product_attention_backward
        return backward(g, *arrays, mask, *options, needs)

    found = gradients()
    backward = reference.scaled_dot_product_attention_backward
    wanted = backward(g.astype(np.float64), *exact, *options, needs)
    for a, b in zip(found[:3], wanted[:3], strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() < 2e-6 * max(1, np.abs(b).max())
    same(found, by_one_thread(monkeypatch, gradients))


def test_attention_in_pieces(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch entry of panels at a time, and the sums of an entry in one part."""
    q, k, v = (normal(rng, (3, n, 18)) for n in (130, 70, 70))
    g = normal(rng, (3, 130, 18))
    options = None, False, 0.3
    before = cpu.scaled_dot_product_attention(q, k, v, *options)
    needs = (True, False, True, False)
    gradients = cpu.scaled_dot_product_attention_backward(g, q, k, v, *options, needs)
    assert gradients[1] is None
    monkeypatch.setattr(attention_kernels, "MOST", 1)
    assert np.array_equal(cpu.scaled_dot_product_attention(q, k, v, *options), before)
    others = cpu.scaled_dot_product_attention_backward(g, q, k, v, *options, needs)
    assert np.array_equal(others[0], gradients[0])
    close(others[2], gradients[2].astype(np.float64), "dv")


def test_attention_of_nan_and_infinity(rng: np.random.Generator) -> None:
    q, k, v = (normal(rng, (1, 20, 8)) for _ in range(3))
    v[0, 3, 5] = np.nan
    y = cpu.scaled_dot_product_attention(q, k, v, None, False, 1.0)
    assert np.isfinite(y[..., :5]).all() and np.isnan(y[..., 5]).all()
    q[0, 2, 0] = np.nan
    y = cpu.scaled_dot_product_attention(q, k, v[..., :5], None, False, 1.0)
    assert np.isnan(y[0, 2]).all() and np.isfinite(y[0, 3:]).all()
