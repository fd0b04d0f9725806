"""Batch, instance, layer, group and pixel norm, and the norms modulated by a condition."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from opspec import Array, Case, OpSpec
from strategies import Draw, Shape, cases, distinct, values

from minigan.backend import beside
from minigan.ops.modulate import adain, conditional_batch_norm, spade
from minigan.ops.norm import batch_norm, group_norm, instance_norm, layer_norm, pixel_norm
from minigan.tensor import Tensor

# `minigan_kernels.reference.norm` is the kernel of that name, not its module.
reference = importlib.import_module("minigan_kernels.reference.norm")

EPS = st.sampled_from([1e-5, 1e-2])


def planes(draw: Draw, most_channels: int = 3) -> Shape:
    """(N,C,*spatial) with four elements or more in each plane: the variance is not near 0."""
    spatial = draw(st.sampled_from([(2, 2), (2, 3), (5,), (2, 2, 2)]))
    return (draw(st.integers(1, 3)), draw(st.integers(1, most_channels)), *spatial)


def input_of(rng: np.random.Generator, shape: Shape) -> Array:
    """Distinct values, around a mean of their own in each channel."""
    mean = rng.uniform(-2, 2, (1, shape[1], *[1] * (len(shape) - 2)))
    return np.asarray(distinct(rng, shape) + mean)


def scales(draw: Draw, rng: np.random.Generator, shape: Shape) -> list[Array | None]:
    """weight and bias of one shape, or one of them, or neither; one weight is exactly 0."""
    weight, bias = values(rng, shape), values(rng, shape)
    if draw(st.booleans()):
        weight.flat[0] = 0.0
    present = draw(st.sampled_from([(True, True), (True, False), (False, True), (False, False)]))
    return [a if there else None for a, there in zip((weight, bias), present, strict=True)]


@cases
def per_channel(draw: Draw, rng: np.random.Generator) -> Case:
    shape = planes(draw)
    affine = scales(draw, rng, shape[1:2])
    return Case((input_of(rng, shape), *affine), {"eps": draw(EPS)})


@cases
def vectors(draw: Draw, rng: np.random.Generator) -> Case:
    shape = (draw(st.integers(4, 6)), draw(st.integers(1, 3)))
    return Case((input_of(rng, shape), *scales(draw, rng, shape[1:])), {"eps": draw(EPS)})


@cases
def running(draw: Draw, rng: np.random.Generator) -> Case:
    shape = planes(draw)
    options = {
        "mean": values(rng, shape[1:2]),
        "var": values(rng, shape[1:2], 0.3, 3.0),
        "eps": draw(EPS),
    }
    return Case((input_of(rng, shape), *scales(draw, rng, shape[1:2])), options)


@cases
def rows(draw: Draw, rng: np.random.Generator) -> Case:
    shape = planes(draw)
    first = draw(st.integers(1, 2))  # all but N, or the spatial axes
    wanted = shape[first:]
    affine = scales(draw, rng, (wanted[0], *[1] * (len(wanted) - 1)) if first == 1 else wanted)
    if draw(st.booleans()):
        affine = scales(draw, rng, wanted)
    options = {"normalized_shape": wanted, "eps": draw(EPS)}
    return Case((input_of(rng, shape), *affine), options)


@cases
def grouped(draw: Draw, rng: np.random.Generator) -> Case:
    groups = draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), 2, draw(st.integers(2, 3)))
    options = {"num_groups": groups, "eps": draw(EPS)}
    return Case((input_of(rng, shape), *scales(draw, rng, shape[1:2])), options)


@cases
def pixels(draw: Draw, rng: np.random.Generator) -> Case:
    spatial = draw(st.sampled_from([(), (2,), (2, 3)]))
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 4)), *spatial)
    rng.random()  # or a generator of the same seed makes the cotangent parallel to x
    return Case((values(rng, shape),), {"eps": draw(st.sampled_from([1e-8, 1e-2]))})


@cases
def per_sample(draw: Draw, rng: np.random.Generator) -> Case:
    shape = planes(draw)
    pair = values(rng, shape[:2]), values(rng, shape[:2])
    return Case((input_of(rng, shape), *pair), {"eps": draw(EPS)})


def per_pixel(norm: str) -> st.SearchStrategy[Case]:
    @cases
    def maps(draw: Draw, rng: np.random.Generator) -> Case:
        shape = planes(draw, most_channels=2)
        pair = values(rng, shape), values(rng, shape)
        return Case((input_of(rng, shape), *pair), {"norm": norm, "eps": draw(EPS)})

    return maps


def train(x: Tensor, weight: Tensor | None, bias: Tensor | None, **options: Any) -> Tensor:
    return batch_norm(x, None, None, weight, bias, True, **options)


def reference_train(x: Array, weight: Any, bias: Any, **options: Any) -> Array:
    return np.asarray(reference.batch_norm(x, None, None, weight, bias, True, **options))


def evaluate(
    x: Tensor, weight: Any, bias: Any, mean: Array, var: Array, eps: float, **options: Any
) -> Tensor:
    statistics = [Tensor(beside(a.astype(x.dtype), x.data)) for a in (mean, var)]
    return batch_norm(x, *statistics, weight, bias, eps=eps, **options)


def reference_evaluate(
    x: Array, weight: Any, bias: Any, mean: Array, var: Array, eps: float
) -> Array:
    return np.asarray(reference.batch_norm(x, mean, var, weight, bias, eps=eps))


def instance(x: Tensor, weight: Any, bias: Any, eps: float, **options: Any) -> Tensor:
    return instance_norm(x, None, None, weight, bias, eps=eps, **options)


def layer(
    x: Any, weight: Any, bias: Any, normalized_shape: Shape, eps: float, **options: Any
) -> Tensor:
    return layer_norm(x, normalized_shape, weight, bias, eps=eps, **options)


def reference_layer(x: Any, weight: Any, bias: Any, normalized_shape: Shape, eps: float) -> Array:
    return np.asarray(reference.layer_norm(x, normalized_shape, weight, bias, eps))


def group(x: Any, weight: Any, bias: Any, num_groups: int, eps: float, **options: Any) -> Tensor:
    return group_norm(x, num_groups, weight, bias, eps=eps, **options)


def reference_group(x: Any, weight: Any, bias: Any, num_groups: int, eps: float) -> Array:
    return np.asarray(reference.group_norm(x, num_groups, weight, bias, eps))


def conditional(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    return conditional_batch_norm(x, None, None, gamma, beta, True, eps=eps)


def away_from_kinks(plain: Any, strategy: st.SearchStrategy[Case], **options: Any) -> Any:
    """Cases whose normalised numbers are 0.03 away from 0, where an activation has its kink."""

    @cases
    def found(draw: Draw, rng: np.random.Generator) -> Case:
        case = draw(strategy)
        x, *affine = (a if a is None else np.array(a) for a in case.inputs)
        for a in affine:
            if a is not None:  # a weight of 0 puts everything at the kink
                a[a == 0] = 0.5
        for _ in range(200):
            near = np.abs(plain(x, *affine, **case.kwargs)) < 0.03
            if not near.any():
                break
            x[near] += rng.choice([-0.3, 0.3], int(near.sum()))
        assume(not near.any())
        return Case((x, *affine), {**case.kwargs, **options})

    return found


def bent(plain: Any) -> Any:
    """The definition of a norm, then that of the activation."""

    def reference_of(
        *inputs: Any, activation: str, negative_slope: float = 0.01, **rest: Any
    ) -> Any:
        z = plain(*inputs, **rest)
        return np.where(z > 0, z, 0 if activation == "relu" else negative_slope * z)

    return reference_of


def spec(name: str, fn: Any, definition: Any, strategy: Any, **facts: Any) -> OpSpec:
    # A small variance makes the function steep: rounding in float32 grows by |x| / deviation,
    # and truncation of the stencil by powers of 1 / deviation.
    return OpSpec(name, fn, definition, strategy, **{"float32_slack": 8, "slack": 4, **facts})


# All rows of a batch of vectors equal: no variance, and only rounding left to compare.
NOT_CONSTANT = ("transposed", "reversed", "sliced", "fortran")

LEAKY = {"activation": "leaky_relu", "negative_slope": 0.2}
RELU = {"activation": "relu"}

SPECS = [
    spec("batch_norm", train, reference_train, per_channel, linear=(1, 2), fused=True),
    spec("batch_norm-vectors", train, reference_train, vectors, fused=True, layouts=NOT_CONSTANT),
    spec("batch_norm-eval", evaluate, reference_evaluate, running, linear=(0, 1, 2)),
    spec("instance_norm", instance, reference.instance_norm, per_channel, fused=True),
    spec("layer_norm", layer, reference_layer, rows, fused=True),
    spec("group_norm", group, reference_group, grouped, fused=True),
    spec("pixel_norm", pixel_norm, reference.pixel_norm, pixels),
    spec(
        "conditional_batch_norm",
        conditional,
        reference.conditional_batch_norm,
        per_sample,
        linear=(1, 2),
        fused=True,
    ),
    spec("adain", adain, reference.adain, per_sample, linear=(1, 2), fused=True),
    *[
        spec(f"spade-{kind}", spade, reference.spade, per_pixel(kind), linear=(1, 2), fused=True)
        for kind in ("batch", "instance", "layer")
    ],
    *[
        spec(
            f"{name}-{options['activation']}",
            fn,
            bent(plain),
            away_from_kinks(plain, strategy, **options),
            fused=name != "batch_norm-eval",
        )
        for name, fn, plain, strategy, options in (
            ("batch_norm", train, reference_train, per_channel, LEAKY),
            ("batch_norm-eval", evaluate, reference_evaluate, running, LEAKY),
            ("instance_norm", instance, reference.instance_norm, per_channel, RELU),
            ("layer_norm", layer, reference_layer, rows, LEAKY),
            ("group_norm", group, reference_group, grouped, RELU),
            ("adain", adain, reference.adain, per_sample, LEAKY),
            ("spade", spade, reference.spade, per_pixel("instance"), RELU),
        )
    ],
]
