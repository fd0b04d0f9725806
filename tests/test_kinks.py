"""Conventions where a function has no derivative, and values at the edges (elementwise, reduce,
shape, linear)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from opspec import leaf

import minigan as mg
import minigan.functional as F
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.tensor import Tensor


def slope(fn: Callable[[Tensor], Tensor], values: Any) -> list[float]:
    x = leaf(np.array(values, dtype=np.float64))
    (g,) = mg.grad(fn(x).sum(), x)
    assert g is not None
    return g.data.tolist()


def test_abs_at_zero() -> None:
    assert slope(F.abs, [-2.0, 0.0, 3.0]) == [-1.0, 0.0, 1.0]


def test_ties_share_the_gradient_evenly() -> None:
    assert slope(lambda x: x.max(), [1.0, 3.0, 3.0, 3.0]) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert slope(lambda x: x.min(), [1.0, 3.0, 1.0]) == [0.5, 0.0, 0.5]
    a, b = leaf(np.array([1.0, 2.0, 3.0])), leaf(np.array([2.0, 2.0, 2.0]))
    ga, gb = mg.grad(F.maximum(a, b).sum(), [a, b])
    assert (ga.data.tolist(), gb.data.tolist()) == ([0.0, 0.5, 1.0], [1.0, 0.5, 0.0])
    ga, gb = mg.grad(F.minimum(a, b).sum(), [a, b])
    assert (ga.data.tolist(), gb.data.tolist()) == ([1.0, 0.5, 0.0], [0.0, 0.5, 1.0])
    assert slope(lambda x: F.maximum(x, x), [1.0]) == [1.0]


def test_clamp_passes_the_gradient_at_its_limits() -> None:
    assert slope(lambda x: F.clamp(x, -1, 1), [-2.0, -1.0, 0.0, 1.0, 2.0]) == [0, 1, 1, 1, 0]
    with pytest.raises(UsageError):
        F.clamp(mg.tensor([1.0]))


def test_norm_at_the_origin_is_flat_to_every_order() -> None:
    """The usual source of NaN in gradient penalties: sqrt has an infinite slope at 0."""
    x = leaf(np.zeros((2, 3)))
    length = F.norm(x, axis=1)
    (g,) = mg.grad(length.sum(), x, create_graph=True)
    assert not g.data.any()
    (gg,) = mg.grad(g.sum(), x)
    assert not gg.data.any()
    (g,) = mg.grad(((F.norm(x, axis=1) - 1.0) ** 2).mean(), x)
    assert np.isfinite(g.data).all()


@pytest.mark.parametrize(("exponent", "expected"), [(0, 0.0), (1, 1.0), (2, 0.0), (3, 0.0)])
def test_powers_at_zero(exponent: int, expected: float) -> None:
    assert slope(lambda x: x**exponent, [0.0]) == [expected]
    x = leaf(np.zeros(1))
    (g,) = mg.grad((x**exponent).sum(), x, create_graph=True)
    (gg,) = mg.grad(g.sum(), x) if g.requires_grad else (None,)
    assert gg is None or gg.item() == (2.0 if exponent == 2 else 0.0)


def test_large_means_cost_no_accuracy_in_var() -> None:
    x = np.random.default_rng(0).normal(size=100)
    shifted = mg.tensor(x + 1e8)
    assert F.var(shifted).item() == pytest.approx(np.var(x, ddof=1), rel=1e-6)
    with pytest.raises(ShapeError, match="correction"):
        F.var(mg.tensor(np.ones(1)))


@pytest.mark.parametrize("fn", [F.expm1, F.log1p])
def test_small_arguments_keep_their_digits(fn: Callable[[Tensor], Tensor]) -> None:
    assert fn(mg.tensor(np.array(1e-12))).item() == pytest.approx(1e-12, rel=1e-9)


def test_float32_sums_do_not_lose_small_terms() -> None:
    x = np.full(1_000_000, 0.1, np.float32)
    assert F.sum(mg.tensor(x)).item() == pytest.approx(1e5, rel=1e-5)
    assert F.mean(mg.tensor(x)).item() == pytest.approx(0.1, rel=1e-5)


def test_index_repeats_add_up() -> None:
    assert slope(lambda x: x[np.array([0, 0, 2, 0])], [1.0, 2.0, 3.0]) == [3.0, 0.0, 1.0]
    x = leaf(np.arange(6.0).reshape(2, 3))
    key = (np.array([0, 0]), np.array([1, 1]))
    (g,) = mg.grad(x[key].sum(), x)
    assert g.data.tolist() == [[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("key", [5, -4, (0, 0), slice(None, None, "a"), np.array([0, 7]), 1.5])
def test_wrong_indices_raise(key: Any) -> None:
    with pytest.raises((ShapeError, DtypeError, TypeError, IndexError)):
        mg.tensor(np.zeros(3))[key]


def test_shape_mistakes_raise() -> None:
    x = mg.tensor(np.zeros((2, 3)))
    for wrong in (
        lambda: x.reshape(4, 2),
        lambda: x.reshape(-1, -1),
        lambda: x.transpose(0, 0),
        lambda: F.broadcast_to(x, (2, 4)),
        lambda: F.broadcast_to(x, (5, 2, 3)),
        lambda: F.squeeze(x, 0),
        lambda: F.concat([x, mg.tensor(np.zeros((3, 3)))], 1),
        lambda: F.split(x, [1, 1], 1),
        lambda: F.pad_zeros(x, [(1, 1)]),
        lambda: F.crop(x, [(2, 1), (0, 0)]),
        lambda: F.matmul(x, x),
        lambda: F.linear(x, mg.tensor(np.zeros((4, 5)))),
        lambda: x.sum(axis=2),
        lambda: x.sum(axis=(0, 0)),
        lambda: F.cumsum(x, 2),
    ):
        with pytest.raises(ShapeError):
            wrong()


def test_views_do_not_copy() -> None:
    x = mg.tensor(np.zeros((4, 6)))
    for view in (
        x.reshape(2, 12),
        x.T,
        x[1:],
        x[:, ::2],
        F.flip(x, 0),
        F.crop(x, [(1, 0), (0, 2)]),
    ):
        assert np.shares_memory(view.data, x.data)
