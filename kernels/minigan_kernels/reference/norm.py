"""Normalisation by its definition: batch, instance, layer and group norm, SPADE and AdaIN.

They are one formula,

    z = (x - mean) / sqrt(var + eps) * (base + scale) + shift,

over different axes and with differently shaped scale and shift:

    batch norm      x (N,C,H,W)      statistics over N,H,W    scale (1,C,1,1)
    instance norm   x (N,C,H,W)      statistics over H,W      scale (1,C,1,1) or none
    layer norm      x (N,C,H,W)      statistics over C,H,W    scale (1,C,H,W)
    group norm      x (N,G,C/G,H,W)  statistics over C/G,H,W  scale (1,G,C/G,1,1)
    SPADE           as batch norm    or instance norm         scale (N,C,H,W), base 1
    AdaIN           as instance norm                          scale (N,C,1,1), base 1

`var` is the biased variance: the mean of the squared deviations. An activation may follow: y = z
where z > 0, else slope z. Slope 1 is none, slope 0 is relu.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def norm(
    x: Array,
    scale: Array | None,
    shift: Array | None,
    axes: tuple[int, ...],
    eps: float,
    slope: float = 1.0,
    base: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Return (y, mean, rstd), rstd = 1 / sqrt(var + eps). Statistics are float64, axes kept."""
    mean = x.mean(axis=axes, keepdims=True, dtype=np.float64)
    variance = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    rstd = 1 / np.sqrt(variance + eps)
    z = _shaped((x - mean) * rstd, scale, shift, base)
    return _bend(z, z, slope).astype(x.dtype), mean, rstd


def norm_backward(
    g: Array,
    x: Array,
    scale: Array | None,
    shift: Array | None,
    mean: Array,
    rstd: Array,
    axes: tuple[int, ...],
    slope: float,
    base: float,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """Return (dx, dscale, dshift), None where not needed.

    With x^ = (x - mean) rstd, e = g where z > 0, else slope g, h = e (base + scale), and E the
    mean over `axes`:

        dx = rstd (h - E[h] - x^ E[h x^]),   dscale = sum e x^,   dshift = sum e.

    E[h] is the way through the mean, x^ E[h x^] the way through the variance.
    """
    xhat = (x - mean) * rstd
    e = _bend(g, _shaped(xhat, scale, shift, base), slope)
    h = e if scale is None else e * (base + scale)
    dx = rstd * (
        h - h.mean(axis=axes, keepdims=True) - xhat * (h * xhat).mean(axis=axes, keepdims=True)
    )
    gradients = [dx, None, None]
    if scale is not None:
        broadcast = tuple(i for i in range(x.ndim) if scale.shape[i] == 1)
        gradients[1] = (e * xhat).sum(axis=broadcast, keepdims=True)
        gradients[2] = e.sum(axis=broadcast, keepdims=True)
    dx, dscale, dshift = (
        None if d is None or not need else d.astype(x.dtype)
        for d, need in zip(gradients, needs, strict=True)
    )
    return dx, dscale, dshift


def _shaped(xhat: Array, scale: Array | None, shift: Array | None, base: float) -> Array:
    """x^ (base + scale) + shift."""
    z = xhat if scale is None else xhat * (base + scale)
    return z if shift is None else z + shift


def _bend(v: Array, z: Array, slope: float) -> Array:
    """v, but slope v where z <= 0; a slope of 0 makes 0 even of infinity."""
    return np.where(z <= 0, v * slope if slope else 0, v)


def batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> Array:
    """Channel by channel: with the batch's statistics in training, the running ones otherwise."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        if training or running_mean is None or running_var is None:
            mean, variance = x[:, c].mean(), x[:, c].var()
        else:
            mean, variance = running_mean[c], running_var[c]
        y[:, c] = (x[:, c] - mean) / np.sqrt(variance + eps)
        y[:, c] *= 1 if weight is None else weight[c]
        y[:, c] += 0 if bias is None else bias[c]
    return y


def running_update(
    x: Array, running_mean: Array, running_var: Array, momentum: float
) -> tuple[Array, Array]:
    """running <- (1 - momentum) running + momentum batch; the variance is the unbiased one."""
    axes = (0, *range(2, x.ndim))
    mean, variance = x.mean(axis=axes), x.var(axis=axes, ddof=1)
    return (
        (1 - momentum) * running_mean + momentum * mean,
        (1 - momentum) * running_var + momentum * variance,
    )


def instance_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    """Every channel of every sample by itself."""
    y = np.empty_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            plane = x[n, c]
            y[n, c] = (plane - plane.mean()) / np.sqrt(plane.var() + eps)
            y[n, c] *= 1 if weight is None else weight[c]
            y[n, c] += 0 if bias is None else bias[c]
    return y


def layer_norm(
    x: Array,
    normalized_shape: tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Each sample over its last axes, those of `normalized_shape`."""
    y = np.empty_like(x)
    for i in np.ndindex(x.shape[: x.ndim - len(normalized_shape)]):
        y[i] = (x[i] - x[i].mean()) / np.sqrt(x[i].var() + eps)
        y[i] *= 1 if weight is None else weight
        y[i] += 0 if bias is None else bias
    return y


def group_norm(
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Neighbouring channels of each sample in groups."""
    y = np.empty_like(x)
    size = x.shape[1] // num_groups
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            first = c // size * size
            group = x[n, first : first + size]
            y[n, c] = (x[n, c] - group.mean()) / np.sqrt(group.var() + eps)
            y[n, c] *= 1 if weight is None else weight[c]
            y[n, c] += 0 if bias is None else bias[c]
    return y


def pixel_norm(x: Array, eps: float = 1e-8) -> Array:
    """y = x / sqrt(mean over channels of x^2 + eps)."""
    y: Array = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)
    return y


def pixel_norm_backward(g: Array, x: Array, eps: float = 1e-8) -> Array:
    """dx = r g - x r^3 mean(g x), with r = 1 / sqrt(mean of x^2 + eps)."""
    r = 1 / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)
    dx: Array = r * g - x * r**3 * (g * x).mean(axis=1, keepdims=True)
    return dx


def conditional_batch_norm(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> Array:
    """Batch norm in training whose weight and bias (N,C) differ from sample to sample."""
    y = np.empty_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            xhat = (x[n, c] - x[:, c].mean()) / np.sqrt(x[:, c].var() + eps)
            y[n, c] = xhat * gamma[n, c] + beta[n, c]
    return y


def spade(x: Array, gamma: Array, beta: Array, norm: str = "batch", eps: float = 1e-5) -> Array:
    """y = norm(x) (1 + gamma) + beta, with gamma and beta maps of x's shape."""
    y = np.empty_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            seen = {"batch": x[:, c], "instance": x[n, c], "layer": x[n]}[norm]
            xhat = (x[n, c] - seen.mean()) / np.sqrt(seen.var() + eps)
            y[n, c] = xhat * (1 + gamma[n, c]) + beta[n, c]
    return y


def adain(x: Array, scale: Array, shift: Array, eps: float = 1e-5) -> Array:
    """y = instance_norm(x) (1 + scale) + shift, with scale and shift (N,C) made from a style."""
    y = np.empty_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            xhat = (x[n, c] - x[n, c].mean()) / np.sqrt(x[n, c].var() + eps)
            y[n, c] = xhat * (1 + scale[n, c]) + shift[n, c]
    return y
