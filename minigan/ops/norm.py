"""Normalisation. Batch, instance, layer and group norm are one formula over different axes.

    y = (x - mean) / sqrt(var + eps) * scale + shift

`var` is the biased variance (divided by n). Which axes are averaged, and along which axes scale
and shift vary, is the whole difference; `ops.modulate` makes scale and shift depend on a condition
(conditional batch norm, SPADE, AdaIN).

ReLU or leaky ReLU may follow in the same operation, `activation="relu"`: that saves a pass over
the map forward, one backward, and the memory of what lies between.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minigan.autograd import Fused, is_recomputing
from minigan.backend import Array
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.ops.activation import leaky_relu
from minigan.tensor import Tensor


class Norm(Fused):
    """y = z where z > 0, else slope z.   z = x^ (base + scale) + shift,   x^ = (x - E[x]) rstd.

    rstd = 1 / sqrt(E[(x - E[x])^2] + eps), and E is the mean over `axes`. Slope 1 is no activation,
    slope 0 is relu. With e = g where z > 0, else slope g, and h = e (base + scale):
    dx = rstd (h - E[h] - x^ E[h x^]),   dscale = sum e x^,   dshift = sum e.
    The kernel computes z once more from x, so that neither z nor y is kept.
    """

    saves = ("x", "scale", "shift")
    axes: tuple[int, ...]
    eps: float
    slope: float = 1.0
    base: float = 0.0
    spread: tuple[int, ...] | None = None  # the shape that scale and shift take beside x
    running: tuple[Tensor, Tensor] | None = None  # mean and variance (C,) to update
    momentum: float = 0.1

    def forward(self, x: Array, scale: Array | None, shift: Array | None) -> Array:
        affine = self._beside_x(scale), self._beside_x(shift)
        y, self.mean, self.rstd = self.kernels.norm(
            x, *affine, self.axes, self.eps, self.slope, self.base
        )
        if self.running is not None and not is_recomputing():
            self._track(prod(x.shape[i] for i in self.axes))
        return y

    def backward_kernel(self, g: Array, x: Array, scale: Array | None, shift: Array | None) -> Any:
        affine = self._beside_x(scale), self._beside_x(shift)
        options = self.axes, self.slope, self.base, self.needs
        dx, *rest = self.kernels.norm_backward(g, x, *affine, self.mean, self.rstd, *options)
        return dx, *[d if d is None else d.reshape(scale.shape) for d in rest]  # type: ignore[union-attr]

    def reference(self, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        centred = x - x.mean(self.axes, keepdims=True)
        variance = (centred * centred).mean(self.axes, keepdims=True)
        z = centred / (variance + self.eps).sqrt()
        scale, shift = self._beside_x(scale), self._beside_x(shift)
        if scale is not None:
            z = z * (scale + self.base if self.base else scale)
        z = z if shift is None else z + shift
        return bend(z, self.slope)

    def _beside_x(self, t: Any) -> Any:
        """Scale or shift, an array or a Tensor, with the axes that x has."""
        return t if t is None or self.spread is None else t.reshape(self.spread)

    def _track(self, n: int) -> None:
        """running <- (1 - momentum) running + momentum batch, with the unbiased variance."""
        assert self.running is not None
        variance = np.maximum(1 / (self.rstd * self.rstd) - self.eps, 0) * (n / (n - 1))
        for tensor, batch in zip(self.running, (self.mean, variance), strict=True):
            channels = batch.reshape(-1, tensor.shape[0])
            channels = channels[0] if len(channels) == 1 else channels.mean(axis=0)  # over samples
            tensor.data[...] = (1 - self.momentum) * tensor.data + self.momentum * channels
            tensor.bump()


class BatchNorm(Norm):
    """`Norm` over N and the spatial axes of x (N,C,*spatial)."""


class InstanceNorm(Norm):
    """`Norm` over the spatial axes of x (N,C,*spatial)."""


class LayerNorm(Norm):
    """`Norm` over the last axes of x."""


class GroupNorm(Norm):
    """`Norm` over C/G and the spatial axes of x viewed as (N,G,C/G,*spatial)."""


class PixelNorm(Fused):
    """y = r x,   r = 1 / sqrt(mean over axis 1 of x^2 + eps).   dx = r (g - x r^2 mean(g x))."""

    saves = ("x",)
    eps: float

    def forward(self, x: Array) -> Array:
        return self.kernels.pixel_norm(x, self.eps)

    def backward_kernel(self, g: Array, x: Array) -> Any:
        return self.kernels.pixel_norm_backward(g, x, self.eps)

    def reference(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(1, keepdims=True) + self.eps).sqrt()


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """Normalise each channel over the batch (Ioffe and Szegedy, 2015).

    Parameters
    ----------
    x : (N,C,*spatial), no or up to three spatial axes.
    running_mean, running_var : (C,). In training they are updated in place,
        running <- (1 - momentum) running + momentum batch, the variance with its unbiased
        estimate n/(n-1); otherwise they are what x is normalised with.
    weight, bias : (C,).
    training : normalise with the statistics of this batch instead of the running ones.
    momentum : share of the new batch. Keras calls 1 - momentum "momentum".
    eps : added to the variance. Only by keyword, since many ports pass 0.8 here by mistake.
    activation : "relu" or "leaky_relu" (with `negative_slope`) of the result, in the same pass.

    Raises
    ------
    ShapeError
        when training on one value per channel, whose variance says nothing.
    """
    check_map("batch_norm", x)
    slope = slope_of("batch_norm", activation, negative_slope)
    running = running_pair("batch_norm", x, running_mean, running_var)
    check_affine("batch_norm", x, weight, bias)
    if not training:
        return with_running("batch_norm", x, running, weight, bias, eps, slope)
    axes = (0, *range(2, x.ndim))
    check_count("batch_norm", x, axes)
    options = {"running": running, "momentum": momentum, "slope": slope, "spread": per_channel(x)}
    return normalise(BatchNorm, x, weight, bias, axes, eps, **options)


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """Normalise each channel of each sample by itself (Ulyanov et al., 2016).

    Parameters
    ----------
    x : (N,C,*spatial) with more than one spatial position.
    running_mean, running_var : (C,), updated with the average over samples if given.
    weight, bias : (C,).
    use_input_stats : False normalises with the running statistics instead.
    momentum, eps, activation, negative_slope : see `batch_norm`.
    """
    check_map("instance_norm", x)
    slope = slope_of("instance_norm", activation, negative_slope)
    running = running_pair("instance_norm", x, running_mean, running_var)
    check_affine("instance_norm", x, weight, bias)
    if not use_input_stats:
        return with_running("instance_norm", x, running, weight, bias, eps, slope)
    axes = tuple(range(2, x.ndim))
    check_count("instance_norm", x, axes)
    options = {"running": running, "momentum": momentum, "slope": slope, "spread": per_channel(x)}
    return normalise(InstanceNorm, x, weight, bias, axes, eps, **options)


def layer_norm(
    x: Tensor,
    normalized_shape: int | tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """Normalise each sample over its last axes (Ba et al., 2016).

    Parameters
    ----------
    x : (..., *normalized_shape).
    normalized_shape : lengths of the axes to normalise over.
    weight, bias : shaped like normalized_shape, or with length 1 along some of its axes:
        (C,1,1) is one weight per channel, as the WGAN-GP critic has it.
    eps : added to the variance.
    activation, negative_slope : see `batch_norm`.
    """
    _check_float("layer_norm", x)
    slope = slope_of("layer_norm", activation, negative_slope)
    wanted = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not wanted or x.shape[-len(wanted) :] != wanted:
        raise ShapeError(
            f"layer_norm: the last axes of {x.shape} are not {wanted}",
            fix=f"pass normalized_shape={x.shape[1:]} to normalise whole samples",
        )
    lead = (1,) * (x.ndim - len(wanted))
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None and (
            t.ndim != len(wanted)
            or any(m not in (1, n) for m, n in zip(t.shape, wanted, strict=True))
        ):
            raise ShapeError(f"layer_norm: {name} {t.shape} does not fit {wanted}")
    axes = tuple(range(len(lead), x.ndim))
    if weight is not None and bias is not None and weight.shape == bias.shape:
        options = {"slope": slope, "spread": lead + weight.shape}
        return normalise(LayerNorm, x, weight, bias, axes, eps, **options)
    scale = None if weight is None else weight.reshape(lead + weight.shape)
    shift = None if bias is None else bias.reshape(lead + bias.shape)
    return normalise(LayerNorm, x, scale, shift, axes, eps, slope=slope)


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """Normalise groups of neighbouring channels of each sample (Wu and He, 2018).

    Parameters
    ----------
    x : (N,C,*spatial).
    num_groups : divides C; 1 is layer norm with one weight per channel, C is instance norm.
    weight, bias : (C,).
    eps : added to the variance.
    activation, negative_slope : see `batch_norm`.
    """
    check_map("group_norm", x)
    slope = slope_of("group_norm", activation, negative_slope)
    n, channels, *spatial = x.shape
    if num_groups < 1 or channels % num_groups:
        raise ShapeError(
            f"group_norm: {channels} channels do not split into {num_groups} groups",
            where=f"input {x.shape}",
            fix="choose a num_groups that divides the number of channels",
        )
    split = (num_groups, channels // num_groups)
    groups = x.reshape(n, *split, *spatial)
    check_affine("group_norm", x, weight, bias)
    options = {"slope": slope, "spread": (1, *split, *[1] * len(spatial))}
    axes = tuple(range(2, groups.ndim))
    return normalise(GroupNorm, groups, weight, bias, axes, eps, **options).reshape(x.shape)


def pixel_norm(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """y = x / sqrt(mean over channels of x^2 + eps) (Karras et al., ProGAN, 2018).

    Parameters
    ----------
    x : (N,C,*spatial): a feature map, or latent vectors (N,C).
    eps : added to the mean square.
    """
    check_map("pixel_norm", x)
    return PixelNorm.apply(x, eps=eps)


# Common parts ----------------------------------------------------------------------------------


def normalise(
    kind: type[Norm],
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    axes: tuple[int, ...],
    eps: float,
    **options: Any,
) -> Tensor:
    """Apply a `Norm`; its kernel takes a shift only beside a scale of the same shape."""
    if shift is not None and (scale is None or scale.shape != shift.shape):
        slope, spread = options.pop("slope"), options.get("spread")
        shift = shift if spread is None else shift.reshape(spread)
        return bend(kind.apply(x, scale, None, axes=axes, eps=eps, **options) + shift, slope)
    return kind.apply(x, scale, shift, axes=axes, eps=eps, **options)


def slope_of(name: str, activation: str | None, negative_slope: float) -> float:
    """What an activation multiplies numbers below 0 with: 1 if there is none."""
    slopes = {None: 1.0, "relu": 0.0, "leaky_relu": float(negative_slope)}
    if activation not in slopes:
        raise UsageError(
            f"{name}: unknown activation {activation!r}",
            why="only activations that are linear on both sides of 0 run in one pass with a norm",
            fix='use "relu" or "leaky_relu", or call another activation on the result',
        )
    return slopes[activation]


def bend(z: Tensor, slope: float) -> Tensor:
    """z where z > 0, else slope z."""
    return z if slope == 1 else leaky_relu(z, slope)


def with_running(
    name: str,
    x: Tensor,
    running: tuple[Tensor, Tensor] | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    slope: float,
) -> Tensor:
    """Normalise with given statistics: (x - mean) (scale / sqrt(var + eps)) + shift."""
    if running is None:
        raise UsageError(
            f"{name}: there are no running statistics to normalise with",
            fix="pass running_mean and running_var, or use the statistics of the input",
        )
    mean, var = (t.reshape(per_channel(x)) for t in running)
    scale, shift = (
        t.reshape(per_channel(x)) if t is not None and t.ndim == 1 else t for t in (scale, shift)
    )
    factor = (var + eps) ** -0.5
    z = (x - mean) * (factor if scale is None else scale * factor)
    return bend(z if shift is None else z + shift, slope)


def per_channel(x: Tensor) -> tuple[int, ...]:
    """The shape (1,C,1,...) that spreads one number per channel over x."""
    return (1, x.shape[1], *[1] * (x.ndim - 2))


def check_affine(name: str, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    for label, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.shape != (x.shape[1],):
            raise ShapeError(
                f"{name}: {label} has shape {t.shape}, the input has {x.shape[1]} channels",
                where=f"input {x.shape}",
                fix=f"{label} must have shape ({x.shape[1]},)",
            )


def check_count(name: str, x: Tensor, axes: tuple[int, ...]) -> None:
    """The variance of one value is zero: refuse it."""
    n = prod(x.shape[i] for i in axes)
    if n > 1 or (0 not in axes and x.shape[0] == 0):
        return
    raise ShapeError(
        f"{name}: {n} value{'' if n == 1 else 's'} per channel cannot be normalised",
        where=f"input {x.shape}",
        why="their variance is zero, so the result would not depend on the input",
        fix="use a larger batch or image, leave out this norm (as U-Nets do in their 1x1 "
        "innermost block), or evaluate with running statistics",
    )


def _check_float(name: str, x: Tensor) -> None:
    if x.dtype.kind != "f":
        raise DtypeError(f"{name}: cannot normalise {x.dtype}", fix="convert to 'float32' first")


def check_map(name: str, x: Tensor) -> None:
    _check_float(name, x)
    if x.ndim < 2:
        raise ShapeError(
            f"{name}: needs an input (N,C,*spatial)", where=f"input {x.shape}", fix="add axes"
        )


def running_pair(
    name: str, x: Tensor, mean: Tensor | None, var: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    if mean is None or var is None:
        if mean is not var:
            raise UsageError(f"{name}: give both running_mean and running_var, or neither")
        return None
    for label, t in (("running_mean", mean), ("running_var", var)):
        if t.shape != (x.shape[1],):
            raise ShapeError(
                f"{name}: {label} has shape {t.shape}, the input has {x.shape[1]} channels",
                where=f"input {x.shape}",
            )
    return mean, var
