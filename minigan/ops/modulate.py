"""Norms whose scale and shift come from a condition: a class, a label map, a style.

They are `Norm` again. What differs from batch and instance norm is the shape of scale and shift:
(N,C) numbers say something different to every sample, maps (N,C,H,W) to every pixel. Where the
factor is 1 + gamma the kernel adds the 1, so no map is made for that.
"""

from __future__ import annotations

from minigan.errors import ShapeError, UsageError
from minigan.ops.norm import (
    BatchNorm,
    InstanceNorm,
    Norm,
    check_count,
    check_map,
    normalise,
    running_pair,
    slope_of,
    with_running,
)
from minigan.tensor import Tensor


class ConditionalBatchNorm(BatchNorm):
    """`BatchNorm` with scale and shift (N,C,1,...)."""


class Spade(Norm):
    """`Norm` with maps of x's shape, scale = gamma (base 1) and shift = beta."""


class Adain(InstanceNorm):
    """`InstanceNorm` with scale (base 1) and shift (N,C,1,...)."""


def conditional_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    training: bool = False,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """batch_norm(x) gamma + beta with gamma and beta per sample (Dumoulin et al., 2017).

    Parameters
    ----------
    x : (N,C,*spatial).
    running_mean, running_var, training, momentum, eps : see `batch_norm`.
    gamma, beta : (N,C), usually rows of two embeddings that the class of each sample selects.
    activation, negative_slope : see `batch_norm`.
    """
    name = "conditional_batch_norm"
    check_map(name, x)
    slope = slope_of(name, activation, negative_slope)
    running = running_pair(name, x, running_mean, running_var)
    scale, shift = _per_sample(name, x, gamma), _per_sample(name, x, beta)
    if not training:
        return with_running(name, x, running, scale, shift, eps, slope)
    axes = (0, *range(2, x.ndim))
    check_count(name, x, axes)
    options = {"running": running, "momentum": momentum, "slope": slope}
    return normalise(ConditionalBatchNorm, x, scale, shift, axes, eps, **options)


def spade(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = True,
    norm: str = "batch",
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """norm(x) (1 + gamma) + beta with maps gamma and beta (Park et al., SPADE, 2019).

    Parameters
    ----------
    x : (N,C,*spatial).
    gamma, beta : shaped like x, computed by convolutions from the label map.
    running_mean, running_var, training, momentum, eps : see `batch_norm`; only for norm="batch".
    norm : "batch", "instance", or "layer" (over C,H,W).
    activation, negative_slope : see `batch_norm`.
    """
    check_map("spade", x)
    slope = slope_of("spade", activation, negative_slope)
    for label, t in (("gamma", gamma), ("beta", beta)):
        if t.shape != x.shape:
            raise ShapeError(
                f"spade: {label} has shape {t.shape}, the input {x.shape}",
                fix="resize the label map to the feature map before the convolutions that make it",
            )
    first = {"batch": (0,), "instance": (), "layer": (1,)}
    if norm not in first:
        raise UsageError(f"spade: unknown norm '{norm}'", fix=f"use one of {', '.join(first)}")
    running = running_pair("spade", x, running_mean, running_var) if norm == "batch" else None
    if norm == "batch" and not training:
        return with_running("spade", x, running, gamma + 1.0, beta, eps, slope)
    axes = (*first[norm], *range(2, x.ndim))
    check_count("spade", x, axes)
    options = {"running": running, "momentum": momentum, "slope": slope, "base": 1.0}
    return normalise(Spade, x, gamma, beta, axes, eps, **options)


def adain(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    eps: float = 1e-5,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """instance_norm(x) (1 + scale) + shift, per sample (Huang and Belongie, 2017).

    Parameters
    ----------
    x : (N,C,*spatial) with more than one spatial position.
    scale, shift : (N,C), made from a style. StyleGAN's form: 0 leaves the size as it is.
    eps : added to the variance (StyleGAN: 1e-8).
    activation, negative_slope : see `batch_norm`.
    """
    check_map("adain", x)
    slope = slope_of("adain", activation, negative_slope)
    axes = tuple(range(2, x.ndim))
    check_count("adain", x, axes)
    by, plus = _per_sample("adain", x, scale), _per_sample("adain", x, shift)
    return normalise(Adain, x, by, plus, axes, eps, slope=slope, base=1.0)


def _per_sample(name: str, x: Tensor, t: Tensor) -> Tensor:
    """(N,C) as (N,C,1,...)."""
    if t.shape != x.shape[:2]:
        raise ShapeError(
            f"{name}: a scale or shift of shape {t.shape} does not fit the input {x.shape}",
            why="there must be one number per sample and channel",
            fix=f"its shape must be {x.shape[:2]}",
        )
    return t.reshape(*t.shape, *[1] * (x.ndim - 2))
