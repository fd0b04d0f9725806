"""Convolutions: every setting in one, two and three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from minigan_kernels import reference
from minigan_kernels.reference.conv import conv_length
from opspec import Array, Case, OpSpec
from strategies import Draw, cases, conv_setup, conv_transpose_setup, values

import minigan.functional as F
from minigan.ops.conv import ConvWeightGrad


def convolutions(nd: int) -> SearchStrategy[Case]:
    @cases
    def make(draw: Draw, rng: np.random.Generator) -> Case:
        x, weight, options = draw(conv_setup(nd))
        return Case((values(rng, x), values(rng, weight), bias(draw, rng, weight[0])), options)

    return make


def transposed(nd: int) -> SearchStrategy[Case]:
    @cases
    def make(draw: Draw, rng: np.random.Generator) -> Case:
        x, weight, options = draw(conv_transpose_setup(nd))
        extra = bias(draw, rng, weight[1] * options["groups"])
        return Case((values(rng, x), values(rng, weight), extra), options)

    return make


def bias(draw: Draw, rng: np.random.Generator, outputs: int) -> Array | None:
    return values(rng, (outputs,)) if draw(st.booleans()) else None


@cases
def weight_grads(draw: Draw, rng: np.random.Generator) -> Case:
    x, weight, options = draw(conv_setup(2))
    per_axis = options["stride"], options["padding"], options["dilation"]
    out = map(conv_length, x[2:], weight[2:], *per_axis)
    g = (x[0], weight[0], *out)
    return Case((values(rng, x), values(rng, g)), {**options, "kernel_size": weight[2:]})


def reference_conv(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Array:
    return with_bias(reference.conv(x, weight, stride, padding, dilation, groups), bias)


def reference_transposed(x: Array, weight: Array, bias: Array | None, **options: Any) -> Array:
    return with_bias(reference.conv_transpose(x, weight, **options), bias)


def with_bias(y: Array, bias: Array | None) -> Array:
    if bias is None:
        return y
    return np.stack([y[:, o] + bias[o] for o in range(len(bias))], axis=1)


def same_setup(nd: int) -> SearchStrategy[Case]:
    """padding="same": stride 1, any kernel and dilation, even and odd."""

    @cases
    def make(draw: Draw, rng: np.random.Generator) -> Case:
        x, weight, options = draw(conv_setup(nd))
        options = {"padding": "same", "dilation": options["dilation"], "groups": options["groups"]}
        return Case((values(rng, x), values(rng, weight)), options)

    return make


def reference_same(x: Array, weight: Array, padding: str, dilation: Any, groups: int) -> Array:
    """Convolve the input between zeros of which the end gets the odd one."""
    assert padding == "same"
    total = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *[(t // 2, t - t // 2) for t in total]])
    ones, zeros = (1,) * len(total), (0,) * len(total)
    return reference.conv(x, weight, ones, zeros, dilation, groups)


CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

SPECS = [
    *[
        OpSpec(f"conv{nd}d", fn, reference_conv, convolutions(nd), linear=(0, 1, 2))
        for nd, fn in CONVS.items()
    ],
    *[
        OpSpec(
            f"conv_transpose{nd}d",
            fn,
            reference_transposed,
            transposed(nd),
            linear=(0, 1, 2),
            nonfinite=False,  # the definition multiplies a NaN in the weight by interleaved zeros
        )
        for nd, fn in TRANSPOSED.items()
    ],
    OpSpec("conv2d-same", F.conv2d, reference_same, same_setup(2), linear=(0, 1)),
    OpSpec(
        "conv_weight_grad",
        ConvWeightGrad.apply,
        reference.conv_weight_grad,
        weight_grads,
        linear=(0, 1),
    ),
]
