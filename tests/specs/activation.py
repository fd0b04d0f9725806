"""Activations, softmax, and bias + noise + activation in one step."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from minigan_kernels.reference import activation as reference
from opspec import Array, Case, OpSpec
from strategies import Draw, cases, distinct, shapes, values

from minigan.ops import activation, softmax
from minigan.ops.activation import bias_act
from minigan.tensor import Tensor


def elements(**options: Any) -> st.SearchStrategy[Case]:
    """Any shape, away from the kink at 0, with the given options."""

    @cases
    def anywhere(draw: Draw, rng: np.random.Generator) -> Case:
        return Case((values(rng, draw(shapes()), kinks=(0.0,)),), options)

    return anywhere


@cases
def slopes(draw: Draw, rng: np.random.Generator) -> Case:
    slope = draw(st.sampled_from([0.0, 0.01, 0.2, 1.0, 1.5, -0.3]))
    return Case((values(rng, draw(shapes()), kinks=(0.0,)),), {"negative_slope": slope})


@cases
def learned_slopes(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes(2, 4, 1, 3))
    weight = values(rng, (draw(st.sampled_from([1, shape[1]])),))
    return Case((values(rng, shape, kinks=(0.0,)), weight))


@cases
def betas(draw: Draw, rng: np.random.Generator) -> Case:
    return Case((values(rng, draw(shapes())),), {"beta": draw(st.sampled_from([1.0, 0.5, 3.0]))})


@cases
def along(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes(1, 3))
    return Case((values(rng, shape),), {"dim": draw(st.integers(-len(shape), len(shape) - 1))})


@cases
def pieces(draw: Draw, rng: np.random.Generator) -> Case:
    k = draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 3)), k * draw(st.integers(1, 3)), *draw(shapes(0, 2, 1, 3)))
    return Case((distinct(rng, shape),), {"pieces": k})


@cases
def biased(draw: Draw, rng: np.random.Generator) -> Case:
    n, c = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    spatial = draw(shapes(0, 3, 1, 2))
    shape = (n, c, *spatial)
    bias = values(rng, (c,)) if draw(st.booleans()) else None
    noise = strength = None
    if draw(st.booleans()):
        noise = values(rng, (draw(st.sampled_from([1, n])), 1, *spatial))
        strength = values(rng, draw(st.sampled_from([(), (1,), (c,)])))
    options = {
        "activation": draw(st.sampled_from(activation.ACTIVATIONS)),
        "slope": draw(st.sampled_from([0.2, 0.01])),
        "gain": draw(st.sampled_from([1.0, 1.4])),
    }
    channels = (1, -1, *[1] * len(spatial))
    x = values(rng, shape)
    z = x + (0 if bias is None else bias.reshape(channels))
    if noise is not None:
        z = z + strength.reshape(channels) * noise
    x = x + np.where(np.abs(z) < 0.05, 0.1, 0.0)  # away from the kink of relu
    return Case((x, bias, noise, strength), options)


def reference_bias_act(
    x: Array, bias: Any, noise: Any, strength: Any, activation: str, slope: float, gain: float
) -> Array:
    strength = None if strength is None else strength.reshape(-1)
    return reference.bias_act(x, bias, noise, strength, activation, slope, gain)


def logsumexp_kept(x: Tensor, dim: int) -> Tensor:
    return softmax.logsumexp(x, dim, keepdims=True)


def reference_logsumexp_kept(x: Array, dim: int) -> Array:
    return reference.logsumexp(x, dim, keepdims=True)


def named(name: str, strategy: Any, home: Any = activation, **facts: Any) -> OpSpec:
    return OpSpec(name, getattr(home, name), getattr(reference, name), strategy, **facts)


SPECS = [
    named("relu", elements()),
    named("leaky_relu", slopes),
    named("prelu", learned_slopes, linear=(1,)),
    named("elu", elements(alpha=0.7)),
    named("selu", elements()),
    named("gelu", elements()),
    OpSpec("gelu-tanh", activation.gelu, reference.gelu, elements(approximate="tanh")),
    named("silu", elements()),
    named("sigmoid", elements()),
    named("softplus", betas),
    named("log_sigmoid", elements()),
    named("softmax", along, softmax),
    named("log_softmax", along, softmax),
    named("logsumexp", along, softmax),
    OpSpec("logsumexp-keepdims", logsumexp_kept, reference_logsumexp_kept, along),
    named("maxout", pieces),
    OpSpec("bias_act", bias_act, reference_bias_act, biased, fused=True),
]
