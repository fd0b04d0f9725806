"""Kinks, extremes, messages and kernels of the activations. Properties: specs/activation.py."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from minigan_kernels import cpu
from minigan_kernels.reference import activation as reference
from opspec import Array, close, leaf

import minigan as mg
from minigan.errors import ShapeError, UsageError
from minigan.ops.activation import (
    bias_act,
    elu,
    gelu,
    leaky_relu,
    log_sigmoid,
    maxout,
    prelu,
    relu,
    selu,
    sigmoid,
    silu,
    softplus,
)
from minigan.ops.softmax import log_softmax, logsumexp, softmax
from minigan.tensor import Tensor


def slope(fn: Callable[[Tensor], Tensor], at: Any) -> Array:
    x = leaf(np.atleast_1d(np.asarray(at, float)))
    (g,) = mg.grad(fn(x), x, np.ones(x.shape))
    assert g is not None
    return g.data


def channels_last(x: Array) -> Array:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


# Kinks -----------------------------------------------------------------------------------------


def test_slopes_at_zero() -> None:
    """The slope of the left side, as in PyTorch."""
    zeros = [0.0, -0.0]
    assert slope(relu, zeros).tolist() == [0, 0]
    assert slope(lambda x: leaky_relu(x, 0.2), zeros).tolist() == [0.2, 0.2]
    assert slope(lambda x: leaky_relu(x, -0.3), zeros).tolist() == [-0.3, -0.3]
    assert slope(elu, zeros).tolist() == [1, 1]
    assert slope(lambda x: elu(x, 0.5), zeros).tolist() == [0.5, 0.5]
    learned = slope(lambda x: prelu(x.reshape(1, 2), Tensor(np.array([0.25]))).reshape(2), zeros)
    assert learned.tolist() == [0.25, 0.25]
    for activation, expected in (("relu", 0.0), ("lrelu", 0.2), ("linear", 1.0)):
        found = slope(lambda x: bias_act(x.reshape(1, 2), activation=activation).reshape(2), zeros)  # noqa: B023
        assert found.tolist() == [expected, expected]


def test_equal_pieces_of_maxout_share_the_gradient() -> None:
    x = leaf(np.array([[1.0, 1.0, 2.0, 1.0]]))
    (g,) = mg.grad(maxout(x, 2), x, np.ones((1, 2)))
    assert g is not None and g.data.tolist() == [[0.5, 0.5, 1.0, 0.0]]


def test_second_derivative_of_relu_is_none_or_zero() -> None:
    x = leaf(np.array([1.0, -1.0]))
    (g,) = mg.grad((relu(x) * x).sum(), x, create_graph=True)  # 2 relu(x)
    assert g.data.tolist() == [2, 0]
    (h,) = mg.grad(g.sum(), x)
    assert h.data.tolist() == [2, 0]


# Extremes --------------------------------------------------------------------------------------

HUGE = np.array([-np.inf, -1e4, -800.0, 0.0, 800.0, 1e4, np.inf])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_overflows(dtype: Any) -> None:
    """Warnings are errors in this suite, so an overflow inside would be seen too."""
    x = Tensor(HUGE.astype(dtype))
    assert sigmoid(x).data.tolist() == [0, 0, 0, 0.5, 1, 1, 1]
    log2 = dtype(math.log(2))
    close(softplus(x).data[:6], np.array([0, 0, 0, log2, 800, 1e4], dtype), 1e-7, "softplus")
    close(log_sigmoid(x).data[1:], -np.array([1e4, 800, log2, 0, 0, 0], dtype), 1e-7, "log")
    assert relu(x).data.tolist() == [0, 0, 0, 0, 800, 1e4, np.inf]
    assert bias_act(x.reshape(1, 7), activation="relu").data[0, :4].tolist() == [0, 0, 0, 0]
    assert leaky_relu(x, 0.5).data.tolist() == [-np.inf, -5e3, -400, 0, 800, 1e4, np.inf]
    assert elu(x).data.tolist() == [-1, -1, -1, 0, 800, 1e4, np.inf]
    assert gelu(Tensor(HUGE[1:].astype(dtype))).data.tolist() == [0, 0, 0, 800, 1e4, np.inf]
    for fn in (sigmoid, softplus, log_sigmoid, relu, elu, selu):
        assert np.isfinite(slope(fn, HUGE[1:-1])).all()


def test_sigmoid_and_softplus_keep_their_tails() -> None:
    close(sigmoid(Tensor(np.array([-700.0]))).data, np.exp([-700.0]), 1e-14, "sigmoid")
    close(softplus(Tensor(np.array([-700.0]))).data, np.exp([-700.0]), 1e-14, "softplus")
    assert slope(softplus, -700.0)[0] == pytest.approx(math.exp(-700), rel=1e-14)


def test_nan_stays() -> None:
    x = Tensor(np.array([[np.nan, 1.0]]))
    for fn in (relu, leaky_relu, elu, selu, gelu, silu, sigmoid, softplus, log_sigmoid):
        assert np.isnan(fn(x).data).tolist() == [[True, False]], fn
    for activation in ("relu", "lrelu", "tanh"):
        assert np.isnan(bias_act(x, activation=activation).data).tolist() == [[True, False]]


def test_normal_cdf_is_exact_in_both_tails() -> None:
    x = np.array([-37.0, -10.0, -5.0, -1.0, 0.0, 1.0, 5.0])
    exact = [5.72557122252457682e-300, 7.61985302416052607e-24, 2.86651571879193912e-07]
    exact += [0.158655253931457051, 0.5, 0.841344746068542949, 0.999999713348428121]
    # Rounding of x / sqrt 2 makes a relative error of x^2 eps: 3e-13 at 37.
    error = np.abs(cpu.normal_cdf(x) - exact) / exact
    assert (error <= 2.3e-16 * (1 + x * x)).all()
    dense = np.linspace(-8, 8, 2001)
    np.testing.assert_allclose(
        cpu.normal_cdf(dense), reference.normal_cdf(dense), rtol=0, atol=2.3e-16
    )


def test_softmax_of_extremes() -> None:
    x = np.array([[1e4, -1e4, 1e4], [-np.inf, 0.0, -np.inf], [-np.inf] * 3])
    assert softmax(Tensor(x)).data.tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0]]
    close(logsumexp(Tensor(x[:2])).data, np.array([1e4 + math.log(2), 0]), 1e-15, "logsumexp")
    close(log_softmax(Tensor(x[:1])).data[0, ::2], -np.log([2.0, 2.0]), 1e-15, "log_softmax")
    t = leaf(x)
    (g,) = mg.grad(softmax(t), t, np.arange(9.0).reshape(3, 3))
    assert np.isfinite(g.data).all(), "a masked row must not poison the gradient"


def test_softmax_adds_up_to_one(rng: np.random.Generator) -> None:
    x = rng.normal(0, 10, (5, 7, 3)).astype(np.float32)
    for dim in (0, 1, -1):
        y = softmax(Tensor(x), dim)
        close(y.data.sum(axis=dim), np.ones(y.data.sum(axis=dim).shape), 1e-6, "sum")
        close(np.log(y.data), log_softmax(Tensor(x), dim).data, 1e-5, "log")


# Kernels and memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["linear", "relu", "lrelu", "tanh", "sigmoid"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4), (2, 3, 7), (1, 2, 2, 2, 3), (0, 3, 2, 2)])
def test_bias_act_kernels_equal_their_definition(
    activation: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x, g, bias = rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=shape[1])
    options = (activation, 0.2, 1.3)
    for n, c, last in itertools.product((None, 1, shape[0]), (1, shape[1]), (False, True)):
        noise = None if n is None else rng.normal(size=(n, 1, *shape[2:]))
        strength = None if n is None else rng.normal(size=c)
        needs = (True, True, n is not None, n is not None)
        y = reference.bias_act(x, bias, noise, strength, *options)
        expected = y, *reference.bias_act_backward(g, y, noise, strength, *options, needs)
        stored = channels_last(x) if last else x
        z = cpu.bias_act(stored, bias, noise, strength, *options)
        found = z, *cpu.bias_act_backward(g, z, noise, strength, *options, needs)
        for a, b in zip(found, expected, strict=True):
            if b is None:
                assert a is None
            else:
                assert a.shape == b.shape and np.abs(a - b).max(initial=0) < 1e-13


def test_activations_keep_the_memory_layout(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    for stored in (x, channels_last(x)):
        for fn in (relu, lambda t: leaky_relu(t, 0.2), bias_act):
            t = leaf(stored)
            y = fn(t)
            (g,) = mg.grad(y, t, stored)
            assert y.data.strides == g.data.strides == stored.strides


def test_the_input_of_leaky_relu_is_not_kept(rng: np.random.Generator) -> None:
    """The next layer keeps the result anyway; keeping x too would double the memory."""
    x = leaf(rng.normal(size=(2, 3)))
    for y in (leaky_relu(x * 2.0, 0.2), bias_act(x * 2.0, activation="lrelu")):
        assert y.node is not None
        assert not [kept for kept in y.node.saved if kept is not None]


# Messages --------------------------------------------------------------------------------------


def test_bias_act_names_its_mistakes() -> None:
    x, bias = Tensor(np.zeros((2, 3, 4, 4))), Tensor(np.zeros(3))
    with pytest.raises(UsageError) as caught:
        bias_act(x, bias, activation="lrlu")
    assert str(caught.value) == (
        "bias_act: unknown activation 'lrlu' (did you mean 'lrelu'?)\n"
        "  fix: use one of linear, relu, lrelu, tanh, sigmoid"
    )
    noise = Tensor(np.zeros((2, 1, 4, 4)))
    for kind, message, call in (
        (UsageError, "gain -1", lambda: bias_act(x, bias, gain=-1.0)),
        (UsageError, "belong together", lambda: bias_act(x, bias, noise)),
        (ShapeError, r"bias \(4,\) does not fit", lambda: bias_act(x, Tensor(np.zeros(4)))),
        (ShapeError, r"noise \(2, 3, 4, 4\)", lambda: bias_act(x, None, x, bias)),
        (ShapeError, r"noise_strength \(2,\)", lambda: bias_act(x, None, noise, bias[:2])),
    ):
        with pytest.raises(kind, match=message):
            call()


def test_other_mistakes() -> None:
    x = Tensor(np.zeros((2, 3)))
    for kind, message, call in (
        (ShapeError, "does not split into groups of 2", lambda: maxout(x, 2)),
        (ShapeError, r"weight \(2,\) does not fit", lambda: prelu(x, Tensor(np.zeros(2)))),
        (ShapeError, "axis 2 does not exist", lambda: softmax(x, 2)),
        (ShapeError, "is empty", lambda: softmax(Tensor(np.zeros((2, 0))))),
        (UsageError, "'none' or 'tanh'", lambda: gelu(x, "exact")),
        (UsageError, "beta must be positive", lambda: softplus(x, 0.0)),
    ):
        with pytest.raises(kind, match=message):
            call()


# PyTorch ---------------------------------------------------------------------------------------


@pytest.mark.torch
def test_equals_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    x = np.concatenate([rng.normal(0, 3, (3, 4, 5)).ravel(), [0.0, -0.0, 30.0, -30.0]])
    x = x.reshape(4, 4, 4)
    g = rng.normal(size=x.shape)
    for mine, other in (
        (relu, F.relu),
        (lambda x: leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2)),
        (elu, F.elu),
        (selu, F.selu),
        (gelu, F.gelu),
        (lambda x: gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh")),
        (silu, F.silu),
        (sigmoid, torch.sigmoid),
        (softplus, lambda x: F.softplus(x, threshold=100)),
        (log_sigmoid, F.logsigmoid),
        (lambda x: softmax(x, 1), lambda x: F.softmax(x, 1)),
        (lambda x: log_softmax(x, 1), lambda x: F.log_softmax(x, 1)),
        (
            lambda x: prelu(x, Tensor(np.array([0.3]))),
            lambda x: F.prelu(x, torch.tensor([0.3], dtype=x.dtype)),
        ),
    ):
        t, u = leaf(x), torch.tensor(x, requires_grad=True)
        y, z = mine(t), other(u)
        close(y.data, z.detach().numpy(), 1e-14, "forward")
        (a,), (b,) = mg.grad(y, t, g), torch.autograd.grad(z, u, torch.tensor(g))
        close(a.data, b.numpy(), 1e-13, "gradient")
